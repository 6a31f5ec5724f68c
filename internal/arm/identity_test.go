package arm_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// family is a type whose resources can have identities of both kinds.
type family struct {
	id string
	// both is how two kinds are spelt: clients compare the text.
	both string
	// none is what reads say where there are none.
	none string
	// without is what a PUT without a block does: keeps, removes or refuses.
	without string
}

const (
	bothSpaced = "SystemAssigned, UserAssigned" // Compute, Web, ContainerInstance: their SDKs' constants
	bothTight  = "SystemAssigned,UserAssigned"  // Storage, DataFactory, App
)

var families = []family{
	{vms + "/m", bothSpaced, "", "keeps"},
	{sets + "/m", bothSpaced, "", "keeps"},
	{g1 + "/providers/Microsoft.Web/sites/m", bothSpaced, "", "keeps"},
	{g1 + "/providers/Microsoft.Web/sites/host/slots/m", bothSpaced, "", "keeps"},
	{g1 + "/providers/Microsoft.ContainerInstance/containerGroups/m", bothSpaced, "", "keeps"},
	{g1 + "/providers/Innate.Build/agentPools/m", bothSpaced, "", "keeps"},
	{g1 + "/providers/Microsoft.Storage/storageAccounts/mmm", bothTight, "", "keeps"},
	{g1 + "/providers/Microsoft.DataFactory/factories/mmm", bothTight, "", "refuses"},
	{g1 + "/providers/Microsoft.App/containerApps/m", bothTight, "None", "removes"},
	{g1 + "/providers/Microsoft.App/jobs/m", bothTight, "None", "removes"},
}

// host is what the slot of families is below.
const host = g1 + "/providers/Microsoft.Web/sites/host"

func block(typ string, entries ...string) string {
	out := `{"location":"local","identity":{`
	var parts []string
	if typ != "" {
		parts = append(parts, `"type":"`+typ+`"`)
	}
	if len(entries) > 0 {
		parts = append(parts, `"userAssignedIdentities":{`+strings.Join(entries, ",")+`}`)
	}
	return out + strings.Join(parts, ",") + "}}"
}

func on(id string) string   { return `"` + id + `":{}` }
func null(id string) string { return `"` + id + `":null` }

// identities says an answer's identity block in short: "SystemAssigned[a b]".
func identities(r reply) string {
	b, _ := r.body["identity"].(map[string]any)
	if b == nil {
		return ""
	}
	out, _ := b["type"].(string)
	user, _ := b["userAssignedIdentities"].(map[string]any)
	var names []string
	for _, n := range []string{"a-1", "b-1"} {
		for id, v := range user {
			if strings.HasSuffix(id, "/"+n) && v.(map[string]any)["clientId"] != "" {
				names = append(names, n)
			}
		}
	}
	if (b["principalId"] != nil) != strings.Contains(out, "SystemAssigned") || (b["tenantId"] == nil) != (b["principalId"] == nil) || len(names) != len(user) {
		return "inconsistent: " + r.text
	}
	if len(names) > 0 {
		out += "[" + strings.Join(names, " ") + "]"
	}
	return out
}

// step is a request to a resource and what identities it then has. A step whose
// body has no block leaves, in families that have it so, other identities.
type step struct {
	method, body string
	want         string
}

func TestIdentityBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua, ub := uais+"/a-1", uais+"/b-1"
	w.owner.must(201, "PUT", ua, local)
	w.owner.must(201, "PUT", ub, local)
	w.owner.must(200, "PUT", host, local)
	steps := []step{
		{"PUT", local, ""},
		{"PATCH", block("SystemAssigned"), "SystemAssigned"},
		{"PATCH", `{}`, "SystemAssigned"},
		{"PATCH", `{"identity":null}`, "SystemAssigned"},
		{"PATCH", block("SystemAssigned,UserAssigned", on(ua)), "BOTH[a-1]"},
		{"PATCH", block(bothSpaced), "BOTH[a-1]"}, // no map: they stay
		{"PATCH", block("", on(strings.ToUpper(ub))), "BOTH[a-1 b-1]"},
		{"PATCH", block("", null(ua)), "BOTH[b-1]"},
		{"PATCH", block("", null(ua)), "BOTH[b-1]"},
		{"PUT", block("systemassigned , userassigned", on(ua)), "BOTH[a-1]"}, // PUT says all
		{"PATCH", block("UserAssigned"), "UserAssigned[a-1]"},
		{"PATCH", block("UserAssigned", on(ub), null(ua)), "UserAssigned[b-1]"},
		{"PATCH", block("SystemAssigned"), "SystemAssigned"},
		{"PATCH", block("None"), ""},
		{"PATCH", block("None"), ""},
		{"PATCH", block("", on(ua)), "UserAssigned[a-1]"}, // what is attached says the type
		{"PATCH", block("", null(ua)), ""},
		{"PUT", block(bothTight, on(ua), on(ub)), "BOTH[a-1 b-1]"},
		{"PUT", block("None"), ""},
		{"PUT", block("SystemAssigned"), "SystemAssigned"},
		{"PUT", `{"location":"local","identity":{"type":"SystemAssigned","principalId":"x","tenantId":"y","userAssignedIdentities":null}}`, "SystemAssigned"},
		{"PATCH", block(bothTight, `"`+ua+`":{"principalId":"x","clientId":"y"}`), "BOTH[a-1]"}, // read-only members
	}
	for _, f := range families {
		for i, s := range steps {
			status := 200
			if i == 0 {
				status = madeStatus(f.id)
			}
			w.step(f, status, s)
		}
		w.withoutBlock(f)
	}
}

// step does a step and checks what identities there are.
func (w *world) step(f family, status int, s step) {
	w.t.Helper()
	want := strings.Replace(s.want, "BOTH", f.both, 1)
	if want == "" {
		want = f.none
	}
	r := w.owner.must(status, s.method, f.id, s.body)
	if got := identities(r); got != want {
		w.t.Errorf("%s: %s %s: identities are %s, want %s", f.id, s.method, s.body, got, want)
	}
	if diff := cmp.Diff(r.body["identity"], w.owner.must(200, "GET", f.id, "").body["identity"]); diff != "" {
		w.t.Errorf("%s: %s %s: GET has other identities than the answer (-answer +get):\n%s", f.id, s.method, s.body, diff)
	}
}

// withoutBlock puts a resource that has identities without saying them.
func (w *world) withoutBlock(f family) {
	w.t.Helper()
	for _, body := range []string{local, `{"location":"local","identity":null}`} {
		w.step(f, 200, step{"PUT", block(bothSpaced, on(uais+"/a-1")), "BOTH[a-1]"})
		before := w.owner.must(200, "GET", f.id, "").str("identity", "principalId")
		switch f.without {
		case "keeps":
			w.step(f, 200, step{"PUT", body, "BOTH[a-1]"})
			if after := w.owner.must(200, "GET", f.id, "").str("identity", "principalId"); after != before {
				w.t.Errorf("%s: PUT without a block changed the principal from %s to %s", f.id, before, after)
			}
		case "removes":
			w.step(f, 200, step{"PUT", body, ""})
			w.gone(before)
		case "refuses":
			w.owner.refused(400, "FailedIdentityOperation", "PUT", f.id, body)
			w.step(f, 200, step{"PATCH", `{}`, "BOTH[a-1]"})
			w.step(f, 200, step{"PUT", block("None"), ""})
			w.step(f, 200, step{"PUT", body, ""}) // and with none there is nothing to say
		}
	}
}

// gone checks that a principal is no more.
func (w *world) gone(oid string) {
	w.t.Helper()
	if _, err := w.srv.DB.Principal(w.t.Context(), tenantA, oid); !problem.Is(err, problem.NotFound) {
		w.t.Errorf("principal %s is there still: %v", oid, err)
	}
}

// TestOneKindOfIdentity: machines that Arc knows have their agent's identity
// and no other.
func TestOneKindOfIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, local)
	arc := g1 + "/providers/Microsoft.HybridCompute/machines/m"
	w.owner.refused(400, "FailedIdentityOperation", "PUT", arc, block("UserAssigned", on(ua)))
	w.owner.refused(400, "FailedIdentityOperation", "PUT", arc, block(bothSpaced, on(ua)))
	if got := identities(w.owner.must(200, "PUT", arc, block("SystemAssigned"))); got != "SystemAssigned" {
		t.Errorf("identities are %s", got)
	}
	w.owner.refused(400, "FailedIdentityOperation", "PATCH", arc, block("", on(ua)))
	if got := identities(w.owner.must(200, "PATCH", arc, block("None"))); got != "" {
		t.Errorf("after None identities are %s", got)
	}
}

// TestIdentityBlocksThatAreRefused: each leaves the resource as it was.
func TestIdentityBlocksThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, local)
	w.owner.must(200, "PUT", host, local)
	for _, tt := range []struct{ code, body string }{
		{"FailedIdentityOperation", block("UserAssigned")},
		{"FailedIdentityOperation", block("SystemAssigned, UserAssigned")},
		{"FailedIdentityOperation", block("UserAssigned", null(ua))},
		{"FailedIdentityOperation", block("SystemAssigned", on(ua))},
		{"FailedIdentityOperation", block("None", on(ua))},
		{"FailedIdentityOperation", block("None, SystemAssigned")},
		{"FailedIdentityOperation", block("SystemAssigned;UserAssigned", on(ua))},
		{"FailedIdentityOperation", block("Everything")},
		{"FailedIdentityOperation", block("UserAssigned", on(uais+"/none"))},
		{"FailedIdentityOperation", block("UserAssigned", on(strings.Replace(ua, "/g1/", "/none/", 1)))},
		{"FailedIdentityOperation", block("UserAssigned", on(vms+"/m"))},
		{"FailedIdentityOperation", block("UserAssigned", on(ua+"/x/y"))},
		{"FailedIdentityOperation", block("UserAssigned", on(""))},
		{"FailedIdentityOperation", block("UserAssigned", on("a-1"))},
		{"FailedIdentityOperation", block("UserAssigned", on(uais+"/../a-1"))},
		{"FailedIdentityOperation", block("UserAssigned", on(ua), null(ua+"/"))}, // one identity, twice
		{"FailedIdentityOperation", block("UserAssigned", `"`+ua+`":"yes"`)},
		{"FailedIdentityOperation", block("UserAssigned", `"`+ua+`":false`)},
		{"InvalidRequestContent", `{"location":"local","identity":"SystemAssigned"}`},
		{"InvalidRequestContent", `{"location":"local","identity":{"type":1}}`},
		{"InvalidRequestContent", `{"location":"local","identity":{"type":"UserAssigned","userAssignedIdentities":["` + ua + `"]}}`},
	} {
		for _, f := range families {
			w.owner.refused(400, tt.code, "PUT", f.id, tt.body)
			w.owner.refused(404, "ResourceNotFound", "GET", f.id, "")
		}
	}
	w.owner.refused(400, "FailedIdentityOperation", "PUT", families[0].id, block("")) // a PUT says the type
	for _, k := range kinds {
		switch k.name {
		case "resourceGroups", "userAssignedIdentities", "vaults", "applications", "hosts", "serverfarms", "vmExtensions", "machineExtensions", "setExtensions": // have no identities
			body := strings.Replace(k.put, "{", `{"identity":{"type":"SystemAssigned"},`, 1)
			w.owner.refused(400, "FailedIdentityOperation", "PUT", k.id, strings.Replace(body, ",}", "}", 1))
		}
	}
}

// TestDroppingTheSystemIdentityEndsIt: its tokens, its rights, its name.
func TestDroppingTheSystemIdentityEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	first := w.owner.must(201, "PUT", id, block("SystemAssigned")).str("identity", "principalId")
	assignment := w.owner.assign(roleReader, first, g1)
	vm := w.caller(tenantA, resource.MustParse(id))
	vm.must(200, "GET", g1, "")
	w.owner.must(200, "PATCH", id, block("None"))
	vm.refused(401, "InvalidAuthenticationToken", "GET", g1, "")
	w.owner.refused(404, "ResourceNotFound", "GET", assignment, "")
	second := w.owner.must(200, "PATCH", id, block("SystemAssigned")).str("identity", "principalId")
	if second == first || second == "" {
		t.Errorf("enabled again, the identity is %q, as before", second)
	}
	vm.refused(401, "InvalidAuthenticationToken", "GET", g1, "") // the old token
	again := w.caller(tenantA, resource.MustParse(id))
	again.refused(403, "AuthorizationFailed", "GET", g1, "")
	// A PUT that only replaces the rest keeps it.
	if got := w.owner.must(200, "PUT", id, block("SystemAssigned")).str("identity", "principalId"); got != second {
		t.Errorf("PUT with the same block changed the principal from %s to %s", second, got)
	}
}

// TestAttachNeedsTheRightToAssign: to write a machine is not to give it any
// identity that there is.
func TestAttachNeedsTheRightToAssign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", other, local)
	strong, weak := other+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a-1", uais+"/b-1"
	w.owner.must(201, "PUT", strong, local)
	w.owner.must(201, "PUT", weak, local)
	vm := vms + "/vm1"
	// mallory owns g1 and reads g2.
	mallory := w.as(tenantA, "mallory", roleOwner+" "+g1, roleReader+" "+other)
	mallory.must(201, "PUT", vm, local)
	for _, id := range []string{vm, vms + "/vm2", g1 + "/providers/Microsoft.Web/sites/s1"} {
		mallory.refused(403, "LinkedAuthorizationFailed", "PUT", id, block("UserAssigned", on(strong)))
		mallory.refused(403, "LinkedAuthorizationFailed", "PUT", id, block("UserAssigned", on(weak), on(strings.ToUpper(strong))))
	}
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", vm, block("UserAssigned", on(strong)))
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", vm, block("", on(strong)))
	// One that does not exist is refused in the same words: she learns nothing.
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", vm, block("UserAssigned", on(strong+"x")))
	if got := identities(mallory.must(200, "GET", vm, "")); got != "" {
		t.Fatalf("after refusals the machine has %s", got)
	}
	// What somebody with the right attached, she may keep and detach, and then
	// not attach again.
	w.owner.must(200, "PATCH", vm, block("UserAssigned", on(strong)))
	mallory.must(200, "PUT", vm, block("UserAssigned", on(strong), on(weak)))
	mallory.must(200, "PATCH", vm, block("", null(strong)))
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", vm, block("", on(strong)))
	// An operator of the one identity may assign it where she may write.
	operator := w.as(tenantA, "operator", roleOperator+" "+strong, roleContributor+" "+g1)
	operator.must(200, "PATCH", vm, block("", on(strong)))
	alone := w.as(tenantA, "alone", roleOperator+" "+strong)
	alone.refused(403, "AuthorizationFailed", "PATCH", vm, block("", on(strong)))
}
