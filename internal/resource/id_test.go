package resource

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
)

const (
	sub   = "/subscriptions/s1"
	group = sub + "/resourceGroups/g1"
	vault = group + "/providers/Microsoft.KeyVault/vaults/v1"
	grant = vault + "/providers/Microsoft.Authorization/roleAssignments/a1"
)

func TestParseTakes(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"/", "/"},
		{sub, sub},
		{sub + "/", sub},
		{"/SUBSCRIPTIONS/S1/RESOURCEGROUPS/G1", "/SUBSCRIPTIONS/S1/RESOURCEGROUPS/G1"}, // the author's case stays
		{vault, vault},
		{vault + "/secrets/db", vault + "/secrets/db"},
		{grant, grant},
		{sub + "/providers/Microsoft.Authorization/roleAssignments/a1", sub + "/providers/Microsoft.Authorization/roleAssignments/a1"},
		{"/providers/Microsoft.Authorization/roleDefinitions/r", "/providers/Microsoft.Authorization/roleDefinitions/r"},
		{"/subscriptions/providers/resourceGroups/providers", "/subscriptions/providers/resourceGroups/providers"}, // names, not words
		{"/providers/N.S/t/providers", "/providers/N.S/t/providers"},
		{group + "/providers/N.S/t/a (b)_c", group + "/providers/N.S/t/a (b)_c"},
	} {
		id, err := Parse(tt.in)
		if err != nil || id.String() != tt.want {
			t.Errorf("Parse(%q) = %q, %v, want %q", tt.in, id, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ in, says string }{
		{"", "begin with a slash"},
		{"subscriptions/s1", "begin with a slash"},
		{"//", "empty segment"},
		{"/subscriptions//resourceGroups/g", "empty segment"},
		{sub + "//", "empty segment"}, // one trailing slash, not two
		{"/subscriptions", "subscription id was expected"},
		{sub + "/resourceGroups", "resource group name was expected"},
		{sub + "/vaults/v", `"providers" was expected`},
		{"/tenants/a", `"providers" was expected`},
		{sub + "/providers", "namespace was expected"},
		{sub + "/providers/N.S", "type and a name"},
		{sub + "/providers/N.S/t", "without a name"},
		{vault + "/secrets", "without a name"},
		{vault + "/providers/providers/N.S/t/n", "without a name"},
		{group + "/providers/N.S/t/..", "not a name"},
		{group + "/providers/N.S/t/.", "not a name"},
		{group + "/providers/N.S/t/a.", "ends with a dot"},
		{group + "/providers/N.S/t/ a", "begins or ends with a space"},
		{group + "/providers/N.S/t/a%2Fb", "has the character"},
		{group + "/providers/N.S/t/a\x00b", "has the character"},
		{group + "/providers/N.S/t/a*", "has the character"},
		{group + "/providers/N.S/t/\u212aelvin", "has the character"}, // folds to k
		{group + "/providers/N.S/t/caf\u00e9", "has the character"},
		{"/subscriptions/" + strings.Repeat("a", 261), "over 260"},
		{"/subscriptions/" + strings.Repeat("a", MaxLen), "at most 2048"},
	} {
		id, err := Parse(tt.in)
		if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Parse(%.60q) = %q, %v, want an invalid problem with %q", tt.in, id, err, tt.says)
		}
		if !id.IsZero() {
			t.Errorf("Parse(%.60q) is refused and still %q", tt.in, id)
		}
	}
}

func TestParts(t *testing.T) {
	type parts struct{ Type, Name, Parent, Scope, Sub, Group string }
	for _, tt := range []struct {
		id   string
		want parts
	}{
		{"/", parts{Scope: "/"}},
		{sub, parts{"Microsoft.Resources/subscriptions", "s1", "/", sub, "s1", ""}},
		{group, parts{"Microsoft.Resources/resourceGroups", "g1", sub, group, "s1", "g1"}},
		{vault, parts{"Microsoft.KeyVault/vaults", "v1", group, group, "s1", "g1"}},
		{vault + "/secrets/db", parts{"Microsoft.KeyVault/vaults/secrets", "db", vault, group, "s1", "g1"}},
		{grant, parts{"Microsoft.Authorization/roleAssignments", "a1", vault, vault, "s1", "g1"}},
		{sub + "/providers/N.S/t/n", parts{"N.S/t", "n", sub, sub, "s1", ""}},
		{"/providers/N.S/t/n", parts{"N.S/t", "n", "/", "/", "", ""}},
		{"/providers/N.S/t/n/u/m", parts{"N.S/t/u", "m", "/providers/N.S/t/n", "/", "", ""}},
		{"/providers/N.S/t/providers", parts{"N.S/t", "providers", "/", "/", "", ""}},
	} {
		id := MustParse(tt.id)
		got := parts{id.Type(), id.Name(), id.Parent().String(), id.Scope().String(), id.Subscription(), id.Group()}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("parts of %s (-want +got):\n%s", tt.id, d)
		}
	}
}

func TestContains(t *testing.T) {
	for _, tt := range []struct {
		scope, id string
		want      bool
	}{
		{"/", vault, true},
		{"/", "/", true},
		{sub, "/", false},
		{sub, vault, true},
		{strings.ToUpper(group), vault, true},
		{group, group + "2", false}, // a prefix of text is not a parent
		{vault, group, false},
		{vault, vault + "/secrets/db", true},
		{vault + "/secrets/db", vault + "/secrets/DB", true},
		{vault, grant, true},
	} {
		if got := MustParse(tt.scope).Contains(MustParse(tt.id)); got != tt.want {
			t.Errorf("%s contains %s = %v, want %v", tt.scope, tt.id, got, tt.want)
		}
	}
	var zero ID
	if zero.Contains(Root) || Root.Contains(zero) || zero.Contains(zero) {
		t.Error("the zero ID contains or is contained, want neither")
	}
}

func TestAncestorsEndAtTheRoot(t *testing.T) {
	var got []string
	for _, id := range MustParse(grant).Ancestors() {
		got = append(got, id.String())
	}
	if d := cmp.Diff([]string{grant, vault, group, sub, "/"}, got); d != "" {
		t.Errorf("Ancestors (-want +got):\n%s", d)
	}
	if got := (ID{}).Ancestors(); got != nil {
		t.Errorf("Ancestors of no ID = %v, want none", got)
	}
}

func TestGroupAndSubscriptionIDs(t *testing.T) {
	id := MustParse(vault)
	if got := id.GroupID().String(); got != group {
		t.Errorf("GroupID = %q, want %q", got, group)
	}
	if got := id.SubscriptionID().String(); got != sub {
		t.Errorf("SubscriptionID = %q, want %q", got, sub)
	}
	if !Root.GroupID().IsZero() || !Root.SubscriptionID().IsZero() {
		t.Error("the root lies in a group or subscription")
	}
}

func TestChildAndExtension(t *testing.T) {
	for _, tt := range []struct {
		make func() (ID, error)
		want string // "" means refused
	}{
		{func() (ID, error) { return MustParse(vault).Child("secrets", "db") }, vault + "/secrets/db"},
		{func() (ID, error) { return Root.Child("subscriptions", "s1") }, sub},
		{func() (ID, error) { return Root.Extension("N.S/t", "n") }, "/providers/N.S/t/n"},
		{func() (ID, error) { return MustParse(vault).Extension("Microsoft.Authorization/roleAssignments", "a1") }, grant},
		{func() (ID, error) { return MustParse(vault).Child("secrets", "") }, ""},
		{func() (ID, error) { return MustParse(vault).Child("secrets", "a/") }, ""},
		{func() (ID, error) { return MustParse(vault).Child("secrets", "a/versions/b") }, ""}, // one name, not three
		{func() (ID, error) { return MustParse(vault).Child("secrets", "..") }, ""},
		{func() (ID, error) { return ID{}.Child("subscriptions", "s1") }, ""},
		{func() (ID, error) { return ID{}.Extension("N.S/t", "n") }, ""}, // would be at the root
	} {
		id, err := tt.make()
		if id.String() != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("got %q, %v, want %q", id, err, tt.want)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	type doc struct {
		A ID `json:"a"`
		B ID `json:"b"`
	}
	in := doc{A: MustParse(vault)}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Errorf("through JSON (-want +got):\n%s", d)
	}
	if err := json.Unmarshal([]byte(`{"a":"nonsense"}`), &out); !problem.Is(err, problem.Invalid) {
		t.Errorf("Unmarshal(nonsense) = %v, want invalid", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/", "", "//", sub, group, vault, grant, vault + "/secrets/db/", "/providers/N.S/t/providers/providers/N/t/n",
		"/subscriptions/a/resourceGroups/providers/providers/N.S/t/n", "/subscriptions/\u212a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			if !id.IsZero() || !problem.Is(err, problem.Invalid) {
				t.Fatalf("Parse(%q) = %q, %v", s, id, err)
			}
			return
		}
		if id.String() != s && id.String()+"/" != s {
			t.Errorf("Parse(%q) prints %q", s, id)
		}
		if again, err := Parse(id.String()); err != nil || again.String() != id.String() {
			t.Errorf("Parse(%q) = %q, %v", id, again, err)
		}
		if k, err := Parse(id.Key()); err != nil || k.Key() != id.Key() || !k.Equal(id) {
			t.Errorf("the key of %q is no ID or another: %q, %v", id, k, err)
		}
		if strings.IndexFunc(s, func(r rune) bool { return r > 0x7e || r < ' ' }) >= 0 {
			t.Errorf("Parse took %q, which is not printable ASCII", s)
		}
		checkTree(t, id)
	})
}

// checkTree checks what must hold of an ID and the nodes above it.
func checkTree(t *testing.T, id ID) {
	t.Helper()
	if !id.Contains(id) || !Root.Contains(id) {
		t.Errorf("%q does not contain itself, or the root does not contain it", id)
	}
	if p := id.Parent(); !id.IsRoot() {
		if len(p.String()) >= len(id.String()) || !p.Contains(id) || id.Contains(p) {
			t.Errorf("%q has the parent %q, which is not strictly above it", id, p)
		}
		if again, err := Parse(p.String()); err != nil || !again.Equal(p) {
			t.Errorf("%q has the parent %q, which is no ID: %v", id, p, err)
		}
	}
	if s := id.Scope(); !s.Contains(id) {
		t.Errorf("%q has the scope %q, which does not contain it", id, s)
	}
	for _, part := range []ID{id.GroupID(), id.SubscriptionID()} {
		if !part.IsZero() && !part.Contains(id) {
			t.Errorf("%q is said to lie in %q, which does not contain it", id, part)
		}
	}
	x, err := id.Extension("N.S/t", "n")
	if err != nil {
		return // too long
	}
	if !x.Scope().Equal(id) || !x.Parent().Equal(id) || x.Type() != "N.S/t" || x.Name() != "n" {
		t.Errorf("extension %q of %q: scope %q, parent %q, type %q, name %q", x, id, x.Scope(), x.Parent(), x.Type(), x.Name())
	}
}
