package arm_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/resource"
)

// families are the types that can have identities. All of them spell two
// kinds with a comma and a space.
var families = []string{vms + "/m", g1 + "/providers/Microsoft.Web/sites/m", g1 + "/providers/Innate.Build/agentPools/m"}

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

func TestIdentityBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua, ub := uais+"/a-1", uais+"/b-1"
	w.owner.must(201, "PUT", ua, local)
	w.owner.must(201, "PUT", ub, local)
	const both = "SystemAssigned, UserAssigned"
	steps := []struct {
		method, body string
		want         string
	}{
		{"PUT", local, ""},
		{"PATCH", block("SystemAssigned"), "SystemAssigned"},
		{"PUT", local, "SystemAssigned"}, // no block: they stay
		{"PUT", `{"location":"local","identity":null}`, "SystemAssigned"},
		{"PATCH", `{}`, "SystemAssigned"},
		{"PATCH", block("SystemAssigned,UserAssigned", on(ua)), both + "[a-1]"},
		{"PATCH", block(both), both + "[a-1]"}, // no map: they stay
		{"PATCH", block("", on(strings.ToUpper(ub))), both + "[a-1 b-1]"},
		{"PATCH", block("", null(ua)), both + "[b-1]"},
		{"PATCH", block("", null(ua)), both + "[b-1]"},
		{"PUT", block("systemassigned , userassigned", on(ua)), both + "[a-1]"}, // PUT says all
		{"PATCH", block("UserAssigned"), "UserAssigned[a-1]"},
		{"PATCH", block("UserAssigned", on(ub), null(ua)), "UserAssigned[b-1]"},
		{"PATCH", block("SystemAssigned"), "SystemAssigned"},
		{"PATCH", block("None"), ""},
		{"PATCH", block("None"), ""},
		{"PATCH", block("", on(ua)), "UserAssigned[a-1]"}, // what is attached says the type
		{"PATCH", block("", null(ua)), ""},
		{"PUT", block(both, on(ua), on(ub)), both + "[a-1 b-1]"},
		{"PUT", block("None"), ""},
		{"PUT", block("SystemAssigned"), "SystemAssigned"},
		{"PUT", `{"location":"local","identity":{"type":"SystemAssigned","principalId":"x","tenantId":"y","userAssignedIdentities":null}}`, "SystemAssigned"},
	}
	for _, id := range families {
		for i, s := range steps {
			status := 200
			if i == 0 {
				status = 201
			}
			r := w.owner.must(status, s.method, id, s.body)
			if got := identities(r); got != s.want {
				t.Errorf("%s: step %d, %s %s: identities are %s, want %s", id, i, s.method, s.body, got, s.want)
			}
			if diff := cmp.Diff(r.body["identity"], w.owner.must(200, "GET", id, "").body["identity"]); diff != "" {
				t.Errorf("%s: step %d: GET has other identities than the answer (-answer +get):\n%s", id, i, diff)
			}
		}
	}
}

// TestIdentityBlocksThatAreRefused: each leaves the resource as it was.
func TestIdentityBlocksThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, local)
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
		for _, id := range families {
			w.owner.refused(400, tt.code, "PUT", id, tt.body)
			w.owner.refused(404, "ResourceNotFound", "GET", id, "")
		}
	}
	w.owner.refused(400, "FailedIdentityOperation", "PUT", families[0], block("")) // a PUT says the type
	for _, k := range kinds {
		switch k.name {
		case "resourceGroups", "userAssignedIdentities", "vaults", "applications", "hosts": // have no identities
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
