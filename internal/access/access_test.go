package access

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

const (
	group  = "/subscriptions/s/resourceGroups/g"
	vault  = group + "/providers/Microsoft.KeyVault/vaults/v"
	secret = vault + "/secrets/db"

	getSecret = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	readVault = "Microsoft.KeyVault/vaults/read"
	giveRole  = "Microsoft.Authorization/roleAssignments/write"
	assignID  = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"

	alice = "aaaaaaaa-0000-0000-0000-000000000001"
	team  = "bbbbbbbb-0000-0000-0000-000000000002"
)

// named returns the GUID of a built-in role.
func named(t *testing.T, name string) string {
	t.Helper()
	for _, r := range BuiltIns() {
		if r.Name == name {
			return r.ID
		}
	}
	t.Fatalf("there is no built-in role %q", name)
	return ""
}

// grant is an assignment in a test table.
type grant struct{ role, principal, scope string }

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name   string
		grants []grant
		action string
		data   bool
		at     string
		want   bool
	}{
		{"no assignment", nil, readVault, false, vault, false},
		{"at the scope itself", []grant{{"Reader", alice, vault}}, readVault, false, vault, true},
		{"above", []grant{{"Reader", alice, group}}, readVault, false, vault, true},
		{"at the root", []grant{{"Reader", alice, "/"}}, readVault, false, vault, true},
		{"beside", []grant{{"Reader", alice, group + "2"}}, readVault, false, vault, false},
		{"below", []grant{{"Reader", alice, secret}}, readVault, false, vault, false},
		{"scope in another case", []grant{{"Reader", alice, strings.ToUpper(group)}}, readVault, false, vault, true},
		{"to another principal", []grant{{"Owner", "someone-else", "/"}}, readVault, false, vault, false},
		{"to a group", []grant{{"Reader", team, group}}, readVault, false, vault, true},
		{"principal in another case", []grant{{"Reader", strings.ToUpper(alice), group}}, readVault, false, vault, true},
		{"to nobody", []grant{{"Owner", "", "/"}}, readVault, false, vault, false},

		{"Owner reads no secret", []grant{{"Owner", alice, "/"}}, getSecret, true, secret, false},
		{"Secrets User reads one", []grant{{"Key Vault Secrets User", alice, secret}}, getSecret, true, secret, true},
		{"Secrets User of one secret", []grant{{"Key Vault Secrets User", alice, secret}}, getSecret, true, vault + "/secrets/other", false},
		{"a data action is no management action", []grant{{"Key Vault Secrets User", alice, "/"}}, getSecret, false, secret, false},
		{"Key Vault Reader reads no value", []grant{{"Key Vault Reader", alice, "/"}}, getSecret, true, secret, false},
		{"Key Vault Contributor reads no value", []grant{{"Key Vault Contributor", alice, "/"}}, getSecret, true, secret, false},

		{"Owner gives roles", []grant{{"Owner", alice, group}}, giveRole, false, vault, true},
		{"Contributor does not", []grant{{"Contributor", alice, group}}, giveRole, false, vault, false},
		{"Contributor manages", []grant{{"Contributor", alice, group}}, "Microsoft.KeyVault/vaults/write", false, vault, true},
		{"notActions take nothing from another role",
			[]grant{{"Contributor", alice, "/"}, {"User Access Administrator", alice, group}}, giveRole, false, vault, true},
		{"nor in the other order",
			[]grant{{"User Access Administrator", alice, group}, {"Contributor", alice, "/"}}, giveRole, false, vault, true},
		{"RBAC Administrator gives roles", []grant{{"Role Based Access Control Administrator", alice, group}}, giveRole, false, vault, true},
		{"and manages nothing else", []grant{{"Role Based Access Control Administrator", alice, group}}, "Microsoft.KeyVault/vaults/write", false, vault, false},
		{"Reader writes nothing", []grant{{"Reader", alice, "/"}}, "Microsoft.KeyVault/vaults/write", false, vault, false},
		{"Reader runs nothing", []grant{{"Reader", alice, "/"}}, "Microsoft.Compute/virtualMachines/read/action", false, group, false},

		{"Managed Identity Operator assigns", []grant{{"Managed Identity Operator", alice, group}}, assignID, false, group, true},
		{"and reads", []grant{{"Managed Identity Operator", alice, group}}, "Microsoft.ManagedIdentity/userAssignedIdentities/read", false, group, true},
		{"and does not write", []grant{{"Managed Identity Operator", alice, group}}, "Microsoft.ManagedIdentity/userAssignedIdentities/write", false, group, false},
		{"Managed Identity Contributor does not assign", []grant{{"Managed Identity Contributor", alice, group}}, assignID, false, group, false},
		{"Key Vault Contributor does not purge vaults", []grant{{"Key Vault Contributor", alice, "/"}},
			"Microsoft.KeyVault/locations/deletedVaults/purge/action", false, "/subscriptions/s", false},
		{"an unknown role", []grant{{"unknown", alice, "/"}}, readVault, false, vault, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			op := Operation{Action: tt.action, Data: tt.data, Scope: resource.MustParse(tt.at)}
			d := Decide(op, Facts{Principals: []string{alice, "", team}, Assignments: assignments(t, tt.grants)})
			if d.Allowed != tt.want {
				t.Errorf("Decide = %v, want %v; reasons %+v", d.Allowed, tt.want, d.Reasons)
			}
			if d.Allowed == d.By.IsZero() {
				t.Errorf("allowed %v by %q", d.Allowed, d.By)
			}
			if len(d.Reasons) != len(tt.grants) {
				t.Errorf("%d reasons for %d assignments", len(d.Reasons), len(tt.grants))
			}
			for _, r := range d.Reasons {
				if r.Why == "" {
					t.Errorf("a reason without words: %+v", r)
				}
			}
		})
	}
}

func assignments(t *testing.T, grants []grant) []Assignment {
	t.Helper()
	var out []Assignment
	for _, g := range grants {
		scope := resource.MustParse(g.scope)
		id, err := scope.Extension("Microsoft.Authorization/roleAssignments", "a")
		if err != nil {
			t.Fatal(err)
		}
		role := g.role
		if role != "unknown" {
			role = named(t, role)
		}
		out = append(out, Assignment{ID: id, Role: role, Principal: g.principal, Scope: scope})
	}
	return out
}

func TestDecideByIsTheFirstThatAllows(t *testing.T) {
	as := assignments(t, []grant{{"Key Vault Reader", alice, "/"}, {"Reader", alice, group}, {"Owner", alice, vault}})
	d := Decide(Operation{Action: "Microsoft.Compute/disks/read", Scope: resource.MustParse(vault)}, Facts{Principals: []string{alice}, Assignments: as})
	if !d.By.Equal(as[1].ID) || d.Reasons[0].Grants || !d.Reasons[2].Grants {
		t.Errorf("by %q with reasons %+v, want the second one", d.By, d.Reasons)
	}
}

func TestNoPermissionAtTheZeroScope(t *testing.T) {
	as := []Assignment{{Role: named(t, "Owner"), Principal: alice, Scope: resource.Root}}
	if Decide(Operation{Action: readVault}, Facts{Principals: []string{alice}, Assignments: as}).Allowed {
		t.Error("a question about no resource is allowed")
	}
	as[0].Scope = resource.ID{}
	if Decide(Operation{Action: readVault, Scope: resource.MustParse(vault)}, Facts{Principals: []string{alice}, Assignments: as}).Allowed {
		t.Error("an assignment at no scope allows")
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, action string
		want            bool
	}{
		{"*", "anything/at/all", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a/read", "A/READ", true},
		{"a/read", "xa/read", false}, // anchored at the start
		{"a/read", "a/reader", false},
		{"*/read", "a/b/read", true},
		{"*/read", "read", false},
		{"*/read", "a/read/action", false}, // anchored at the end
		{"a/*", "a/b/c", true},
		{"a/*", "a/", true},
		{"a/*", "a", false},
		{"a/*", "ab/c", false},
		{"a*c", "ac", true},
		{"a*c", "abcbc", true},
		{"a*b*c", "abc", true},
		{"a*bc*c", "abc", false}, // what the star matched is used up
		{"aa*a", "aa", false},    // the ends do not overlap
		{"**", "x", true},
		{"a/*/read", "a/b/read", true},
		{"a/*/read", "a/b/c/read", true},
		{"a/*/read", "a/read", true}, // between slashes: also no segment
		{"a/*/read", "aread", false},
		{"a/*/read", "a/bread", false},
		{"a/*/read", "ab/read", false},
		{"a/*/*/read", "a/read", true},
		{"a/*/b/*/c", "a/b/c", true},
		{"a/*/b/*/c", "a/c", false},
		{"a.b", "axb", false}, // a dot is a dot
		{"k", "\u212a", false},
	} {
		if got := Match(tt.pattern, tt.action); got != tt.want {
			t.Errorf("Match(%q, %q) = %v, want %v", tt.pattern, tt.action, got, tt.want)
		}
	}
}

// models are the patterns of model that were asked for before.
var models sync.Map

// model is Match said with regular expressions. A star between slashes is
// "(/.*)?" with the slash before it, everywhere else ".*".
func model(pattern, action string) bool {
	if re, ok := models.Load(pattern); ok {
		return re.(*regexp.Regexp).MatchString(action)
	}
	var b strings.Builder
	for rest := pattern; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "/*/"):
			b.WriteString("(?:/[^\x00]*)?")
			rest = rest[2:]
		case rest[0] == '*':
			b.WriteString("[^\x00]*")
			rest = rest[1:]
		default:
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			rest = rest[1:]
		}
	}
	re := regexp.MustCompile(`(?i)\A(?:` + b.String() + `)\z`)
	models.Store(pattern, re)
	return re.MatchString(action)
}

func FuzzMatch(f *testing.F) {
	f.Add("a/*/b", "a/b")
	f.Add("*/read", "A/x/read")
	f.Add("a*b*", "ab")
	f.Add("/*/*/", "//")
	f.Fuzz(func(t *testing.T, pattern, action string) {
		if !plain(pattern) || !plain(action) || len(pattern) > 64 {
			return // actions are ASCII; regexp folds more than that
		}
		if got, want := Match(pattern, action), model(pattern, action); got != want {
			t.Errorf("Match(%q, %q) = %v, want %v", pattern, action, got, want)
		}
	})
}

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r == 0 || r > 0x7e })
}

func TestBuiltIns(t *testing.T) {
	guid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	all := BuiltIns()
	if !slices.IsSortedFunc(all, func(a, b Role) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("BuiltIns are not sorted by name")
	}
	seen := map[string]bool{}
	for _, r := range all {
		if !guid.MatchString(r.ID) || seen[r.ID] || seen[r.Name] {
			t.Errorf("%s has the id %q, which is no GUID in lower case, or was there before", r.Name, r.ID)
		}
		seen[r.ID], seen[r.Name] = true, true
		if got, ok := BuiltIn(strings.ToUpper(r.ID)); !ok || got.Name != r.Name {
			t.Errorf("BuiltIn(%s in capitals) = %q, %v", r.Name, got.Name, ok)
		}
		for _, p := range r.Permissions {
			if p.Actions == nil || p.NotActions == nil || p.DataActions == nil || p.NotDataActions == nil {
				t.Errorf("%s has a nil list, which JSON shows as null", r.Name)
			}
			if _, err := ParseCondition(p.Condition); (p.Condition != "") != (err == nil) || (p.ConditionVersion == "2.0") != (err == nil) {
				t.Errorf("%s has the condition %q of version %q: %v", r.Name, p.Condition, p.ConditionVersion, err)
			}
			for _, a := range slices.Concat(p.Actions, p.NotActions, p.DataActions) {
				if a != "*" && a != "*/read" && !strings.HasPrefix(a, "Microsoft.") {
					t.Errorf("%s has the pattern %q", r.Name, a)
				}
			}
		}
	}
	if _, ok := BuiltIn(""); ok {
		t.Error(`BuiltIn("") is a role`)
	}
}

func TestOnlyThreeRolesGiveRoles(t *testing.T) {
	for _, r := range BuiltIns() {
		as := []Assignment{{ID: resource.Root, Role: r.ID, Principal: alice, Scope: resource.Root}}
		got := Decide(Operation{Action: giveRole, Scope: resource.MustParse(vault)}, Facts{Principals: []string{alice}, Assignments: as}).Allowed
		want := slices.Contains([]string{"Owner", "User Access Administrator", "Role Based Access Control Administrator"}, r.Name)
		if got != want {
			t.Errorf("%s may give roles = %v, want %v", r.Name, got, want)
		}
	}
}

func TestWhoReadsSecretValues(t *testing.T) {
	var got []string
	for _, r := range BuiltIns() {
		as := []Assignment{{ID: resource.Root, Role: r.ID, Principal: alice, Scope: resource.Root}}
		if Decide(Operation{Action: getSecret, Data: true, Scope: resource.MustParse(secret)}, Facts{Principals: []string{alice}, Assignments: as}).Allowed {
			got = append(got, r.Name)
		}
	}
	want := []string{"Key Vault Administrator", "Key Vault Certificate User", "Key Vault Secrets Officer", "Key Vault Secrets User"}
	if !slices.Equal(got, want) {
		t.Errorf("roles that read secret values: %q, want %q", got, want)
	}
}
