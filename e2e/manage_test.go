package e2e

import (
	"encoding/json"
	"slices"
	"testing"
)

// The management library for JavaScript; Go's are what the other stories
// manage with.
func TestManagementFromJavaScript(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.as(t, "ops", append(language("javascript").command(t, "identities"), "demo", "from-js")...)
	if r.code != 0 {
		t.Fatal(r)
	}
	var got struct {
		Made, Read struct {
			ID, Name, Type, Location, TenantID, PrincipalID, ClientID string
			Tags                                                      struct{ Made string }
		}
		During, After []string
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Made != got.Read || got.Made.ID != in.id("Microsoft.ManagedIdentity/userAssignedIdentities", "from-js") ||
		got.Made.TenantID != in.TenantID || got.Made.Tags.Made != "here" || len(got.Made.ClientID) != 36 || len(got.Made.PrincipalID) != 36 {
		t.Errorf("made %+v and read %+v", got.Made, got.Read)
	}
	if !slices.Contains(got.During, "from-js") || slices.Contains(got.After, "from-js") || !slices.Contains(got.After, "shared") {
		t.Errorf("listed %q, and after it was deleted %q", got.During, got.After)
	}
	// Without the right there is no write, and the record says so.
	if r := in.as(t, "vm1", append(language("javascript").command(t, "identities"), "demo", "from-js")...); r.code != 1 || !r.says("does not have authorization to perform action 'Microsoft.ManagedIdentity/userAssignedIdentities/write'") {
		t.Errorf("as vm1: %s", r)
	}
	denied := slices.ContainsFunc(in.record(t), func(ev event) bool {
		return ev.Name == "vm1" && ev.Outcome == "denied" && ev.Action == "Microsoft.ManagedIdentity/userAssignedIdentities/write"
	})
	if !denied {
		t.Error("the record has no denied write of vm1")
	}
}
