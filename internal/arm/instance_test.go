package arm_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

// TestInstancesShareTheirSetsIdentities: an instance reads as having them, and
// its tokens are the set's.
func TestInstancesShareTheirSetsIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua, set := uais+"/a-1", sets+"/set1"
	w.owner.must(201, "PUT", ua, local)
	w.owner.refused(404, "ParentResourceNotFound", "PUT", set+"/virtualMachines/0", local)
	oid := w.owner.must(201, "PUT", set, block("SystemAssigned, UserAssigned", on(ua))).str("identity", "principalId")
	zero := w.owner.must(200, "PUT", set+"/virtualMachines/0", local)
	w.owner.must(200, "PUT", set+"/virtualMachines/1", local)
	if zero.str("instanceId") != "0" || zero.str("identity", "principalId") != oid || identities(zero) != "SystemAssigned, UserAssigned[a-1]" {
		t.Errorf("the instance is %s", zero.text)
	}
	if l := w.owner.must(200, "GET", set+"/virtualMachines", "").values(); len(l) != 2 || l[1]["instanceId"] != "1" {
		t.Errorf("instances are %v", l)
	}
	// A role of the set's is its instances', whichever asks.
	w.owner.assign(roleReader, oid, g1)
	for _, name := range []string{"0", "1"} {
		c := &caller{w: w, tenant: tenantA, id: resource.MustParse(set + "/virtualMachines/" + name)}
		c.token = c.tokenFor(w.srv.Names.Management())
		c.must(200, "GET", g1, "")
		// Taken from the set, it is taken from the instance, with its tokens.
		defer c.refused(401, "InvalidAuthenticationToken", "GET", g1, "")
	}
	defer w.owner.must(200, "PATCH", set, block("None"))
	// What an instance sends back as it was read is taken; another wish is not,
	// and gives it nothing.
	w.owner.must(200, "PUT", set+"/virtualMachines/0", w.owner.must(200, "GET", set+"/virtualMachines/0", "").text)
	for _, b := range []string{block("None"), block("SystemAssigned"), block("UserAssigned", on(ua)), block("SystemAssigned, UserAssigned", on(uais+"/b-1")),
		block("SystemAssigned, UserAssigned", on(ua), on(uais+"/b-1")), block("SystemAssigned, UserAssigned", null(ua))} {
		w.owner.refused(400, "FailedIdentityOperation", "PUT", set+"/virtualMachines/0", b)
		w.owner.refused(400, "FailedIdentityOperation", "PUT", set+"/virtualMachines/9", b)
	}
	w.owner.refused(404, "ResourceNotFound", "GET", set+"/virtualMachines/9", "")
	// To delete an instance is to delete no identity.
	w.owner.must(200, "DELETE", set+"/virtualMachines/1", "")
	if got := identities(w.owner.must(200, "GET", set, "")); got != "SystemAssigned, UserAssigned[a-1]" {
		t.Errorf("after an instance was deleted the set has %s", got)
	}
}

// TestDeletedSetLeavesNothing of its instances, nor of its principal.
func TestDeletedSetLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	set := sets + "/set1"
	oid := w.owner.must(201, "PUT", set, block("SystemAssigned")).str("identity", "principalId")
	w.owner.must(200, "PUT", set+"/virtualMachines/0", local)
	w.owner.must(200, "DELETE", set, "")
	w.owner.refused(404, "ResourceNotFound", "GET", set+"/virtualMachines/0", "")
	w.gone(oid)
	if again := w.owner.must(201, "PUT", set, block("SystemAssigned")); again.str("identity", "principalId") == oid {
		t.Error("a set made anew has the principal of the one before")
	}
}

// TestMachinesAreNotRun: what would start or stop one is refused, and says so;
// a view says what is known.
func TestMachinesAreNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm, set := vms+"/vm1", sets+"/set1"
	w.owner.must(201, "PUT", vm, `{"location":"local","properties":{"userData":"aGk="}}`)
	w.owner.must(201, "PUT", set, local)
	w.owner.must(200, "PUT", set+"/virtualMachines/0", local)
	for _, id := range []string{vm, set, set + "/virtualMachines/0"} {
		for _, word := range []string{"start", "deallocate", "powerOff", "restart"} {
			m := w.owner.refused(400, "NotSupported", "POST", id+"/"+word, "").str("error", "message")
			if !strings.Contains(m, "does not run them") {
				t.Errorf("%s of %s is refused with %q", word, id, m)
			}
		}
		view := w.owner.must(200, "GET", id+"/instanceView", "")
		if !strings.Contains(view.text, `"code":"ProvisioningState/succeeded"`) || strings.Contains(view.text, "PowerState") {
			t.Errorf("the view of %s is %s", id, view.text)
		}
	}
	reader := w.as(tenantA, "reader", roleReader+" "+g1)
	reader.refused(403, "AuthorizationFailed", "POST", vm+"/start", "")
	reader.must(200, "GET", vm+"/instanceView", "")
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", vm+"/instanceView", "")
	w.owner.refused(404, "ResourceNotFound", "GET", vms+"/none/instanceView", "")
	w.owner.refused(405, "MethodNotAllowed", "DELETE", vm+"/instanceView", "")
	w.owner.refused(404, "InvalidResourceType", "GET", vm+"/nothing", "")
	// $expand asks for it with the machine.
	const v = "?api-version=2024-11-30&$expand="
	if r := w.owner.must(200, "GET", vm+v+"instanceView,userData", ""); !strings.Contains(r.text, "ProvisioningState/succeeded") || r.str("properties", "userData") != "aGk=" {
		t.Errorf("expanded: %s", r.text)
	}
	if r := w.owner.must(200, "GET", vm, ""); strings.Contains(r.text, "instanceView") {
		t.Errorf("not expanded: %s", r.text)
	}
	w.owner.refused(400, "InvalidRequestContent", "GET", vm+v+"secrets", "")
}

func TestNameAvailability(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g1+"/providers/Microsoft.KeyVault/vaults/taken-kv", local)
	w.owner.must(200, "PUT", g1+"/providers/Microsoft.Storage/storageAccounts/taken", local)
	// A name is one installation's: also across tenants.
	b := w.addTenant(tenantB)
	b.must(201, "PUT", g1, local)
	b.refused(409, "Conflict", "PUT", g1+"/providers/Microsoft.Storage/storageAccounts/taken", local)
	for _, tt := range []struct{ namespace, name, typ, reason string }{
		{"Microsoft.KeyVault", "taken-kv", "Microsoft.KeyVault/vaults", "AlreadyExists"},
		{"Microsoft.KeyVault", "TAKEN-KV", "microsoft.keyvault/VAULTS", "AlreadyExists"},
		{"microsoft.keyvault", "free-kv", "vaults", ""},
		{"Microsoft.KeyVault", "1", "Microsoft.KeyVault/vaults", "AccountNameInvalid"},
		{"Microsoft.Storage", "taken", "Microsoft.Storage/storageAccounts", "AlreadyExists"},
		{"Microsoft.Storage", "free", "Microsoft.Storage/storageAccounts", ""},
		{"Microsoft.Storage", "Not-A-Name", "Microsoft.Storage/storageAccounts", "AccountNameInvalid"},
	} {
		path := sub + "/providers/" + tt.namespace + "/checkNameAvailability"
		for _, c := range []*caller{w.owner, b} {
			r := c.must(200, "POST", path, `{"name":"`+tt.name+`","type":"`+tt.typ+`"}`)
			if r.body["nameAvailable"] != (tt.reason == "") || r.str("reason") != tt.reason || (r.str("message") == "") != (tt.reason == "") {
				t.Errorf("%s %s: %s, want the reason %q", tt.typ, tt.name, r.text, tt.reason)
			}
		}
	}
	kv := sub + "/providers/Microsoft.KeyVault/checkNameAvailability"
	for _, body := range []string{`{}`, `{"name":"x"}`, `{"name":1,"type":"Microsoft.KeyVault/vaults"}`, `{"name":"x","type":"Microsoft.Compute/virtualMachines"}`, `{"name":"x","type":"Microsoft.Storage/storageAccounts"}`, `{`} {
		w.owner.refused(400, "InvalidRequestContent", "POST", kv, body)
	}
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "POST", kv, `{"name":"free","type":"Microsoft.KeyVault/vaults"}`)
	w.owner.must(200, "DELETE", g1+"/providers/Microsoft.Storage/storageAccounts/taken", "")
	b.must(200, "PUT", g1+"/providers/Microsoft.Storage/storageAccounts/taken", local)
}

// TestStorageAccountsHaveNoKeys: what a key would open, a role opens.
func TestStorageAccountsHaveNoKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := g1 + "/providers/Microsoft.Storage/storageAccounts/acc1"
	r := w.owner.must(200, "PUT", id, local)
	if blob := r.str("properties", "primaryEndpoints", "blob"); blob != w.srv.Names.URL("acc1.blob")+"/" {
		t.Errorf("the blob endpoint is %q", blob)
	}
	w.owner.refused(400, "NotSupported", "POST", id+"/listKeys", "")
	w.as(tenantA, "reader", roleReader+" "+g1).refused(403, "AuthorizationFailed", "POST", id+"/listKeys", "")
}

// TestNamesOfTypes: each family has its rule.
func TestNamesOfTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct{ typ, good, bad string }{
		{"Microsoft.Compute/virtualMachines", "a a.b_c " + strings.Repeat("x", 80), "-a a- _a " + strings.Repeat("x", 81)},
		{"Microsoft.Compute/virtualMachineScaleSets", "a", "a-"},
		{"Microsoft.Web/sites", "a a-b " + strings.Repeat("x", 60), "a_b a.b -a a- " + strings.Repeat("x", 61)},
		{"Microsoft.DataFactory/factories", "abc a-b-c " + strings.Repeat("x", 63), "ab a--b a_b " + strings.Repeat("x", 64)},
		{"Microsoft.ContainerInstance/containerGroups", "a a-b", "A a_b -a a--b " + strings.Repeat("x", 64)},
		{"Microsoft.App/containerApps", "a a-b " + strings.Repeat("x", 32), "1a A a- a_b " + strings.Repeat("x", 33)},
		{"Microsoft.App/jobs", "a", "A"},
		{"Microsoft.HybridCompute/machines", "a A.b_c " + strings.Repeat("x", 54), "-a " + strings.Repeat("x", 55)},
		{"Microsoft.Storage/storageAccounts", "abc 123 " + strings.Repeat("x", 24), "ab Abc a-b a_b " + strings.Repeat("x", 25)},
		{"Microsoft.ManagedIdentity/userAssignedIdentities", "abc a_b-c", "ab _abc a.bc"},
	} {
		at := g1 + "/providers/" + tt.typ + "/"
		for _, name := range strings.Fields(tt.good) {
			if r := w.owner.do("PUT", at+name, local); r.status != madeStatus(at) {
				t.Errorf("%s %s: %d %s", tt.typ, name, r.status, r.text)
			}
		}
		for _, name := range strings.Fields(tt.bad) {
			w.owner.refused(400, "InvalidResourceName", "PUT", at+name, local)
		}
	}
}
