package access

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

const (
	top  = "/providers/Microsoft.Management/managementGroups/top"
	near = "/providers/Microsoft.Management/managementGroups/near"

	everything = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635" // Owner
	delegate   = "8b54135c-b56d-4d72-a534-26097cfdc8d8" // Key Vault Data Access Administrator
)

func denial(d Denial, at string) Denial {
	d.ID = resource.MustParse(strings.TrimSuffix(at, "/") + "/providers/Microsoft.Authorization/denyAssignments/d")
	d.Scope = resource.MustParse(at)
	return d
}

func assignment(role, principal, at, condition string) Assignment {
	return Assignment{
		ID:   resource.MustParse(strings.TrimSuffix(at, "/") + "/providers/Microsoft.Authorization/roleAssignments/a"),
		Role: role, Principal: principal, Scope: resource.MustParse(at), Condition: condition,
	}
}

// all is a permission block with everything in it.
func all() []Permission { return []Permission{{Actions: []string{"*"}, DataActions: []string{"*"}}} }

func TestDenials(t *testing.T) {
	const other = "cccccccc-0000-0000-0000-000000000003"
	for _, tt := range []struct {
		name string
		deny Denial
		at   string
		want bool // still allowed
		why  string
	}{
		{"everyone", Denial{Principals: []string{Everyone}, Permissions: all()}, "/", false, "it has *"},
		{"the principal", Denial{Principals: []string{other, strings.ToUpper(alice)}, Permissions: all()}, vault, false, "it has *"},
		{"its group", Denial{Principals: []string{team}, Permissions: all()}, group, false, "it has *"},
		{"another", Denial{Principals: []string{other}, Permissions: all()}, "/", true, "is for another principal"},
		{"nobody", Denial{Permissions: all()}, "/", true, "is for another principal"},
		{"everyone but the principal", Denial{Principals: []string{Everyone}, Excluded: []string{alice}, Permissions: all()}, "/", true, "takes the principal out"},
		{"everyone but its group", Denial{Principals: []string{Everyone}, Excluded: []string{team}, Permissions: all()}, "/", true, "takes the principal out"},
		{"the principal but not its group", Denial{Principals: []string{alice}, Excluded: []string{team}, Permissions: all()}, "/", true, "takes the principal out"},
		{"everyone but another", Denial{Principals: []string{Everyone}, Excluded: []string{other, ""}, Permissions: all()}, "/", false, "it has *"},
		{"below", Denial{Principals: []string{Everyone}, Permissions: all()}, secret, true, "its scope " + secret + " does not contain " + vault},
		{"at the scope only", Denial{Principals: []string{Everyone}, ScopeOnly: true, Permissions: all()}, vault, false, "it has *"},
		{"above only", Denial{Principals: []string{Everyone}, ScopeOnly: true, Permissions: all()}, group, true, "counts at its scope " + group + " only"},
		{"at a management group", Denial{Principals: []string{Everyone}, Permissions: all()}, strings.ToUpper(top), false, "it has *"},
		{"at a management group only", Denial{Principals: []string{Everyone}, ScopeOnly: true, Permissions: all()}, top, true, "counts at its scope " + top + " only"},
		{"at another management group", Denial{Principals: []string{Everyone}, Permissions: all()}, top + "2", true, "its scope " + top + "2 does not contain " + vault},
		{"another action", Denial{Principals: []string{Everyone}, Permissions: []Permission{{Actions: []string{"*/write"}}}}, "/", true, "it does not have the action"},
		{"data only", Denial{Principals: []string{Everyone}, Permissions: []Permission{{DataActions: []string{"*"}}}}, "/", true, "it does not have the action"},
		{"all actions but this", Denial{Principals: []string{Everyone}, Permissions: []Permission{{Actions: []string{"*"}, NotActions: []string{"*/read"}}}}, "/", true, "it takes the action out with */read"},
		{"one of its blocks", Denial{Principals: []string{Everyone}, Permissions: append(all(), Permission{NotActions: []string{"*"}})}, "/", false, "it has *"},
		{"a condition that holds", Denial{Principals: []string{Everyone}, Permissions: all(), Condition: "Exists @Resource[x]"}, "/", false, "it has *, and its condition holds: @Resource[x] is there"},
		{"one that does not", Denial{Principals: []string{Everyone}, Permissions: all(), Condition: "Exists @Resource[y]"}, "/", true, "it has *, but its condition does not hold: @Resource[y] is not there"},
		{"one that is not known", Denial{Principals: []string{Everyone}, Permissions: all(), Condition: "@Resource[y] StringEquals 'z'"}, "/", false,
			"it has *, and its condition is not known to fail: @Resource[y] StringEquals 'z' is unknown: @Resource[y] is not there"},
		{"one that cannot be read", Denial{Principals: []string{Everyone}, Permissions: all(), Condition: "?"}, "/", false, "it has *, and its condition cannot be read: The condition is not valid at character 1"},
		{"a block's condition that does not hold", Denial{Principals: []string{Everyone}, Permissions: []Permission{{Actions: []string{"*"}, Condition: "Exists @Resource[y]"}}}, "/", true,
			"it has *, but its condition does not hold: @Resource[y] is not there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			op := Operation{Action: readVault, Scope: resource.MustParse(vault), Attributes: Attributes{Resource: Values{"x": {"1"}}}}
			f := Facts{
				Principals: []string{alice, team}, Above: []resource.ID{resource.MustParse(near), resource.MustParse(top)},
				Denials: []Denial{denial(tt.deny, tt.at)}, Assignments: []Assignment{assignment(everything, alice, "/", "")},
			}
			d := Decide(op, f)
			if d.Allowed != tt.want || d.Reasons[0].Denies == tt.want || !strings.HasPrefix(d.Reasons[0].Why, tt.why) {
				t.Errorf("Decide = %+v, want %v because %q", d, tt.want, tt.why)
			}
			if by := f.Denials[0].ID; d.By.Equal(by) == tt.want {
				t.Errorf("by %s", d.By)
			}
			if len(d.Reasons) != 2 || !d.Reasons[1].Grants {
				t.Errorf("what would allow it is not among the reasons: %+v", d.Reasons)
			}
			if got := Judge(op, f); got.Allowed != d.Allowed || !got.By.Equal(d.By) {
				t.Errorf("Judge = %+v, and Decide %+v", got, d)
			}
		})
	}
}

func TestAssignmentsWithConditions(t *testing.T) {
	holds, fails := "Exists @Resource[x]", "Exists @Resource[y]"
	narrow := func(conditions ...string) (out []Permission) {
		for _, c := range conditions {
			out = append(out, Permission{Actions: []string{"*/read"}, Condition: c})
		}
		return out
	}
	for _, tt := range []struct {
		name, condition string
		blocks          []Permission
		want            bool
		why             string
	}{
		{"none", "", narrow(""), true, "its role has */read"},
		{"one that holds", holds, narrow(""), true, "its role has */read, and its condition holds: @Resource[x] is there"},
		{"one that does not", fails, narrow(""), false, "its role has */read, but its condition does not hold: @Resource[y] is not there"},
		{"one that is not known", "@Resource[y] StringNotEquals 'z'", narrow(""), false, "its role has */read, but its condition is not known to hold: @Resource[y] StringNotEquals 'z' is unknown"},
		{"one that cannot be read", "1 = 1", narrow(""), false, "its role has */read, but its condition cannot be read: The condition is not valid at character 3"},
		{"the role's holds", "", narrow(holds), true, "its role has */read, and its condition holds"},
		{"the role's does not", holds, narrow(fails), false, "its role has */read, but its condition does not hold: @Resource[y] is not there"},
		{"the assignment's does not", fails, narrow(holds), false, "its role has */read, but its condition does not hold: @Resource[y] is not there"},
		{"another block's holds", "", narrow(fails, "?", holds), true, "its role has */read, and its condition holds: @Resource[x] is there"},
		{"a block without the action", "", append(narrow(fails), Permission{Actions: []string{"*/write"}}), false, "its role has */read, but its condition does not hold"},
		{"taken out in another block only", "", append([]Permission{{Actions: []string{"*"}, NotActions: []string{"*/read"}}}, narrow("")...), true, "its role has */read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			op := Operation{Action: readVault, Scope: resource.MustParse(vault), Attributes: Attributes{Resource: Values{"X": {"1"}}}}
			d := Decide(op, Facts{
				Principals: []string{alice}, Roles: map[string]Role{"mine": {ID: "mine", Name: "Mine", Permissions: tt.blocks}},
				Above: []resource.ID{resource.MustParse(near)}, Assignments: []Assignment{assignment("MINE", alice, near, tt.condition)},
			})
			if d.Allowed != tt.want || !strings.HasPrefix(d.Reasons[0].Why, tt.why) || d.Reasons[0].Role != "Mine" {
				t.Errorf("Decide = %+v, want %v because %q", d, tt.want, tt.why)
			}
		})
	}
}

// TestDelegateGivesOnlyItsRoles: who may give the roles for a vault's data
// gives no other, and takes no other away.
func TestDelegateGivesOnlyItsRoles(t *testing.T) {
	const attr = "Microsoft.Authorization/roleAssignments:RoleDefinitionId"
	f := Facts{Principals: []string{alice}, Assignments: []Assignment{assignment(delegate, alice, group, "")}}
	for _, tt := range []struct {
		action            string
		request, resource Values
		want              bool
	}{
		{giveRole, Values{attr: {named(t, "Key Vault Secrets User")}}, nil, true},
		{giveRole, Values{attr: {named(t, "Owner")}}, nil, false},
		{giveRole, Values{attr: {delegate}}, nil, false}, // nor itself to others
		{giveRole, nil, nil, false},
		{giveRole, nil, Values{attr: {named(t, "Key Vault Secrets User")}}, false}, // what is there is not what is asked for
		{giveRole, Values{attr: {named(t, "Owner"), named(t, "Key Vault Secrets User")}}, nil, true},
		{"Microsoft.Authorization/roleAssignments/delete", nil, Values{attr: {named(t, "Key Vault Reader")}}, true},
		{"Microsoft.Authorization/roleAssignments/delete", Values{attr: {named(t, "Key Vault Reader")}}, nil, false},
		{"Microsoft.Authorization/roleAssignments/delete", nil, Values{attr: {named(t, "Owner")}}, false},
		{"Microsoft.Authorization/roleAssignments/read", nil, nil, true},
		{"Microsoft.Authorization/roleDefinitions/write", nil, nil, false},
	} {
		op := Operation{Action: tt.action, Scope: resource.MustParse(vault), Attributes: Attributes{Request: tt.request, Resource: tt.resource}}
		if d := Decide(op, f); d.Allowed != tt.want {
			t.Errorf("%s with %v of %v: %+v, want %v", tt.action, tt.request, tt.resource, d, tt.want)
		}
	}
}

func TestDecisionInWords(t *testing.T) {
	id := resource.MustParse("/providers/Microsoft.Authorization/roleAssignments/a")
	for _, tt := range []struct {
		d    Decision
		want string
	}{
		{Decision{Allowed: true, By: id}, "allowed by " + id.String()},
		{Decision{By: id}, "refused by the deny assignment " + id.String()},
		{Decision{}, "no role assignment allows it"},
		{Decision{Allowed: true}, "Innate itself"},
	} {
		if got := tt.d.String(); got != tt.want {
			t.Errorf("%+v is %q, want %q", tt.d, got, tt.want)
		}
	}
}

// conditionModel is what some conditions mean, said in Go.
var conditionModel = map[string]func(op Operation) Truth{
	"":  func(Operation) Truth { return True },
	"(": func(Operation) Truth { return Unknown }, // cannot be read
	"@Resource[x] StringEquals '1'": func(op Operation) Truth {
		if len(op.Attributes.Resource["x"]) != 1 {
			return Unknown
		}
		return truth(op.Attributes.Resource["x"][0] == "1")
	},
	"NOT Exists @Resource[x]": func(op Operation) Truth { return truth(len(op.Attributes.Resource["x"]) == 0) },
	"!(ActionMatches{'a/*'}) OR @Request[y] NumericGreaterThan 5": func(op Operation) Truth {
		y := op.Attributes.Request["y"]
		switch {
		case !strings.HasPrefix(strings.ToLower(op.Action), "a/"):
			return True
		case len(y) == 0:
			return Unknown
		}
		return truth(y[0] == "6" || y[0] == "10")
	},
}

// chooser makes random questions of few words, so that they often have to do
// with one another.
type chooser struct{ *rand.Rand }

func pick[T any](c chooser, from ...T) T { return from[c.IntN(len(from))] }

func (c chooser) few(from ...string) (out []string) {
	for range c.IntN(3) {
		out = append(out, pick(c, from...))
	}
	return out
}

func (c chooser) text() string {
	s := []string{pick(c, "a", "b", "A", "*")}
	for range c.IntN(3) {
		s = append(s, pick(c, "a", "b", "A", "*"))
	}
	return strings.Join(s, "/")
}

func (c chooser) patterns() (out []string) {
	for range c.IntN(3) {
		out = append(out, c.text())
	}
	return out
}

func (c chooser) condition() string {
	if c.IntN(2) == 0 {
		return ""
	}
	return pick(c, "(", "@Resource[x] StringEquals '1'", "NOT Exists @Resource[x]", "!(ActionMatches{'a/*'}) OR @Request[y] NumericGreaterThan 5")
}

func (c chooser) blocks() (out []Permission) {
	for range 1 + c.IntN(2) {
		out = append(out, Permission{
			Actions: c.patterns(), NotActions: c.patterns(), DataActions: c.patterns(), NotDataActions: c.patterns(), Condition: c.condition(),
		})
	}
	return out
}

func (c chooser) scope() resource.ID {
	return resource.MustParse(pick(c, "/", top, strings.ToUpper(near), "/subscriptions/s", "/subscriptions/S/resourceGroups/g", group+"h", vault))
}

func (c chooser) facts() Facts {
	who := []string{"", "p", "P", "q", "r"}
	f := Facts{Principals: []string{pick(c, who...), pick(c, who...)}, Roles: map[string]Role{}}
	for _, g := range c.few(top, near) {
		f.Above = append(f.Above, resource.MustParse(g))
	}
	for range c.IntN(4) {
		id := pick(c, "0", "1", "2")
		if c.IntN(5) > 0 {
			f.Roles[id] = Role{ID: id, Permissions: c.blocks()}
		}
		f.Assignments = append(f.Assignments, Assignment{ID: resource.Root, Role: id, Principal: pick(c, who...), Scope: c.scope(), Condition: c.condition()})
	}
	for range c.IntN(3) {
		f.Denials = append(f.Denials, Denial{
			ID: resource.MustParse(top), Principals: c.few("", "p", "q", Everyone), Excluded: c.few("P", "r", ""), Permissions: c.blocks(),
			Scope: c.scope(), ScopeOnly: c.IntN(4) == 0, Condition: c.condition(),
		})
	}
	return f
}

// TestDecideIsTheModel asks random questions of Decide and of the sentence "no
// denial of mine is about it, and some assignment of mine at or above the scope
// has the action in a block that does not take it out, with conditions that
// hold", written as plainly as possible.
func TestDecideIsTheModel(t *testing.T) {
	c := chooser{rand.New(rand.NewPCG(1, 2))}
	seen := map[bool]int{}
	for range 40000 {
		f := c.facts()
		op := Operation{Action: strings.ReplaceAll(c.text(), "*", "c"), Data: c.IntN(2) == 0, Scope: c.scope()}
		op.Attributes = Attributes{Resource: Values{"x": c.few("1", "2")}, Request: Values{"y": pick(c, nil, []string{"5"}, []string{"10"})}}
		denied := slices.ContainsFunc(f.Denials, func(d Denial) bool { return modelDenies(op, d, f) })
		granted := slices.ContainsFunc(f.Assignments, func(a Assignment) bool { return modelAllows(op, a, f) })
		want := granted && !denied
		got := Decide(op, f)
		if got.Allowed != want || denied != got.By.Equal(resource.MustParse(top)) {
			t.Fatalf("Decide(%+v, %+v) = %+v, want %v", op, f, got, want)
		}
		if j := Judge(op, f); j.Allowed != got.Allowed || !j.By.Equal(got.By) {
			t.Fatalf("Judge(%+v, %+v) = %+v, and Decide %+v", op, f, j, got)
		}
		for i, d := range f.Denials {
			if r := got.Reasons[i]; r.Denies != modelDenies(op, d, f) || r.Why == "" {
				t.Fatalf("%+v of %+v: %+v", d, f, r)
			}
		}
		for i, a := range f.Assignments {
			if r := got.Reasons[len(f.Denials)+i]; r.Grants != modelAllows(op, a, f) || r.Why == "" {
				t.Fatalf("%+v of %+v: %+v", a, f, r)
			}
		}
		seen[want]++
	}
	if seen[true] < 400 || seen[false] < 400 {
		t.Errorf("answers %v: the questions are too much alike", seen)
	}
}

func modelMine(f Facts, who string) bool {
	return slices.ContainsFunc(f.Principals, func(p string) bool { return p != "" && strings.EqualFold(p, who) })
}

func modelAbove(scope resource.ID, op Operation, f Facts) bool {
	s, q := strings.ToLower(scope.String()), strings.ToLower(op.Scope.String())
	return s == "/" || s == q || strings.HasPrefix(q, s+"/") ||
		slices.ContainsFunc(f.Above, func(g resource.ID) bool { return strings.ToLower(g.String()) == s })
}

func modelBlock(op Operation, p Permission) bool {
	yes, no := p.Actions, p.NotActions
	if op.Data {
		yes, no = p.DataActions, p.NotDataActions
	}
	has := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return model(p, op.Action) })
	}
	return has(yes) && !has(no)
}

func modelAllows(op Operation, a Assignment, f Facts) bool {
	return modelMine(f, a.Principal) && modelAbove(a.Scope, op, f) &&
		slices.ContainsFunc(f.Roles[a.Role].Permissions, func(p Permission) bool {
			return modelBlock(op, p) && conditionModel[p.Condition](op) == True && conditionModel[a.Condition](op) == True
		})
}

func modelDenies(op Operation, d Denial, f Facts) bool {
	named := slices.ContainsFunc(d.Principals, func(p string) bool { return p == Everyone || modelMine(f, p) })
	out := slices.ContainsFunc(d.Excluded, func(p string) bool { return modelMine(f, p) })
	above := modelAbove(d.Scope, op, f)
	if d.ScopeOnly {
		above = strings.EqualFold(d.Scope.String(), op.Scope.String())
	}
	return named && !out && above && slices.ContainsFunc(d.Permissions, func(p Permission) bool {
		return modelBlock(op, p) && conditionModel[p.Condition](op) != False && conditionModel[d.Condition](op) != False
	})
}

func benchmarkFacts() (Operation, Facts) {
	f := Facts{Principals: []string{alice, team}}
	for _, r := range BuiltIns() {
		f.Assignments = append(f.Assignments, assignment(r.ID, team, group+"x", ""))
	}
	f.Assignments = append(f.Assignments, assignment("4633458b-17de-408a-b874-0445c86b69e6", team, vault, ""))
	return Operation{Action: getSecret, Data: true, Scope: resource.MustParse(secret)}, f
}

func BenchmarkDecide(b *testing.B) {
	op, f := benchmarkFacts()
	b.ReportAllocs()
	for b.Loop() {
		if !Decide(op, f).Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	op, f := benchmarkFacts()
	b.ReportAllocs()
	for b.Loop() {
		if !Judge(op, f).Allowed {
			b.Fatal("refused")
		}
	}
}

// TestJudgeMakesNoCopies: it runs for every request.
func TestJudgeMakesNoCopies(t *testing.T) {
	op, f := benchmarkFacts()
	if n := testing.AllocsPerRun(100, func() { Judge(op, f) }); n > 0 {
		t.Errorf("a decision makes %v allocations, want none", n)
	}
}
