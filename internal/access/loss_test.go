package access

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/resource"
)

func TestLosses(t *testing.T) {
	secretsUser, officer := named(t, "Key Vault Secrets User"), named(t, "Key Vault Secrets Officer")
	at := func(role, principal, scope, name, condition string) Assignment {
		a := assignment(role, principal, scope, condition)
		a.ID = resource.MustParse(strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleAssignments/" + name)
		return a
	}
	gone := at(secretsUser, alice, vault, "gone", "")
	const get, meta = getSecret, "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
	for _, tt := range []struct {
		name   string
		others []Assignment
		deny   []Denial
		want   []string // "pattern" lost, "pattern kept name", "pattern denied", "pattern partly name"
	}{
		{"nothing else", nil, nil, []string{get, meta}},
		{"a wider role above", []Assignment{at(officer, alice, group, "other", "")}, nil, []string{get + " kept other", meta + " kept other"}},
		{"by a group", []Assignment{at(officer, team, vault, "other", "")}, nil, []string{get + " kept other", meta + " kept other"}},
		{"somebody else's", []Assignment{at(officer, "else", vault, "other", "")}, nil, []string{get, meta}},
		{"below only", []Assignment{at(officer, alice, secret, "other", "")}, nil, []string{get + " partly other", meta + " partly other"}},
		{"beside", []Assignment{at(officer, alice, group+"2", "other", "")}, nil, []string{get, meta}},
		{"under a condition", []Assignment{at(officer, alice, group, "other", "Exists @Resource[x]")}, nil, []string{get + " partly other", meta + " partly other"}},
		{"part of it", []Assignment{at(named(t, "Key Vault Reader"), alice, group, "other", "")}, nil, []string{get, meta + " kept other"}},
		{"Owner has no data", []Assignment{at(everything, alice, "/", "other", "")}, nil, []string{get, meta}},
		{"denied anyway", nil, []Denial{denial(Denial{Principals: []string{Everyone}, Permissions: all()}, group)}, []string{get + " denied", meta + " denied"}},
		{"denied under a condition", nil, []Denial{denial(Denial{Principals: []string{Everyone}, Permissions: all(), Condition: "Exists @Resource[x]"}, group)}, []string{get, meta}},
		{"denied at another", nil, []Denial{denial(Denial{Principals: []string{alice}, Excluded: []string{team}, Permissions: all()}, group)}, []string{get, meta}},
	} {
		var got []string
		for _, l := range Losses(Facts{Principals: []string{alice, team}, Assignments: append(tt.others, gone), Denials: tt.deny}, gone.ID) {
			words := l.Pattern
			if !l.Kept.IsZero() {
				words += " kept " + l.Kept.Name()
			}
			if !l.Denied.IsZero() {
				words += " denied"
			}
			for _, p := range l.Partly {
				words += " partly " + p.Name()
			}
			if l.Lost() != (l.Kept.IsZero() && l.Denied.IsZero()) || !l.Data {
				t.Errorf("%s: %+v", tt.name, l)
			}
			got = append(got, words)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
	if l := Losses(Facts{Principals: []string{team}, Assignments: []Assignment{gone}}, gone.ID); l != nil {
		t.Errorf("somebody else's assignment: %+v", l)
	}
}

// TestLossesMissNothing: whatever is allowed with an assignment and refused
// without it is among what Losses says would be lost.
func TestLossesMissNothing(t *testing.T) {
	c := chooser{rand.New(rand.NewPCG(3, 4))}
	seen := map[string]int{}
	for range 20000 {
		f := c.facts()
		if len(f.Assignments) == 0 {
			continue
		}
		for i := range f.Assignments {
			f.Assignments[i].ID = resource.MustParse("/providers/a/b/" + string(rune('0'+i)))
		}
		without := f
		without.Assignments = f.Assignments[1:]
		gone := f.Assignments[0]
		losses := Losses(f, gone.ID)
		op := Operation{Action: strings.ReplaceAll(c.text(), "*", "c"), Data: c.IntN(2) == 0, Scope: c.scope()}
		op.Attributes = Attributes{Resource: Values{"x": c.few("1", "2")}}
		named := func(lost bool) bool {
			return slices.ContainsFunc(losses, func(l Loss) bool {
				return l.Lost() == lost && l.Data == op.Data && Match(l.Pattern, op.Action) && !slices.ContainsFunc(l.Except, func(e string) bool { return Match(e, op.Action) })
			})
		}
		if Judge(op, f).Allowed && !Judge(op, without).Allowed {
			seen["lost"]++
			if !named(true) {
				t.Fatalf("%+v is lost with %+v of %+v, and not among %+v", op, gone, f, losses)
			}
		}
		if named(false) && !named(true) {
			seen["kept"]++
		}
	}
	if seen["lost"] < 100 || seen["kept"] < 20 {
		t.Errorf("%v: the questions are too much alike", seen)
	}
}

func FuzzOverlap(f *testing.F) {
	f.Add("a/*/b", "a/b", "a/b")
	f.Add("*/read", "a/*", "a/x/read")
	f.Fuzz(func(t *testing.T, a, b, action string) {
		if !plain(a+b+action) || strings.Contains(action, "*") || len(a)+len(b) > 64 {
			return
		}
		if Match(a, action) && Match(b, action) && !overlap(a, b) {
			t.Errorf("%q matches %q and %q, which are said not to overlap", action, a, b)
		}
		if includes(a, b) && Match(b, action) && !Match(a, action) {
			t.Errorf("%q is said to include %q, and does not match %q", a, b, action)
		}
	})
}
