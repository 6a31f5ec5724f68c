package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

const (
	sub2 = "/subscriptions/52525252-0000-4000-8000-000000000005"
	far  = sub2 + "/resourceGroups/g3"
)

// addSubscription makes a second subscription, which the caller owns.
func (w *world) addSubscription(owner *caller) {
	w.t.Helper()
	id := resource.MustParse(sub2)
	ev := audit.Event{Tenant: tenantA, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed, Principal: "test"}
	err := w.srv.DB.Write(w.t.Context(), &ev, func(tx arm.Tx) error {
		return tx.PutResource(arm.Resource{Tenant: tenantA, ID: id, Type: "Microsoft.Resources/subscriptions", UID: uuid.NewString(),
			Body: map[string]json.RawMessage{"displayName": json.RawMessage(`"two"`)}, Created: w.clock(), Updated: w.clock()})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.builder(tenantA).Assign(w.t.Context(), owner.id, roleOwner, id); err != nil {
		w.t.Fatal(err)
	}
}

func moveBody(target string, ids ...string) string {
	b, err := json.Marshal(map[string]any{"resources": ids, "targetResourceGroup": target})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// in puts a resource of g1 into another group.
func in(group, id string) string { return group + strings.TrimPrefix(id, g1) }

// workload gets a token for the only identity of id, as an agent would for a
// program on the host.
func (w *world) workload(id, audience string) string {
	w.t.Helper()
	got, err := w.srv.STS.ForWorkload(w.t.Context(), access.Caller{Tenant: tenantA, Principal: "host:test"},
		sts.Request{Audience: audience, Workload: resource.MustParse(id), Identity: directory.Selector{}})
	if err != nil {
		w.t.Fatal(err)
	}
	return got.Token
}

const (
	kvAudience = "https://vault.azure.net"
	kvVersion  = "?api-version=7.4"
)

// TestMoveTakesAlong moves a vault, a machine, its identity, its host and an
// API to another subscription, and then uses everything.
func TestMoveTakesAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addSubscription(w.owner)
	w.owner.must(201, "PUT", far, local)
	kv, vm, uai := g1+"/providers/Microsoft.KeyVault/vaults/moving", vms+"/vm", uais+"/app-id"
	sysVM, host := vms+"/sys", g1+"/providers/Innate.Fleet/hosts/h1"
	app := g1 + "/providers/Innate.Directory/applications/api"
	w.owner.must(201, "PUT", kv, local)
	id := w.owner.must(201, "PUT", uai, local)
	w.owner.must(201, "PUT", vm, block("UserAssigned", on(uai)))
	sys := w.owner.must(201, "PUT", sysVM, block("SystemAssigned"))
	w.owner.must(201, "PUT", vms+"/stays", block("UserAssigned", on(uai)))
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", host+"/placements/p", `{"properties":{"door":"run","selectors":["unix:uid:0"],"resourceId":"`+vm+`"}}`)
	rule := vms + "/stays/providers/Innate.Fleet/callerRules/r"
	w.owner.must(201, "PUT", rule, `{"properties":{"selectors":["unix:uid:0"],"identity":"`+uai+`"}}`)
	w.owner.must(201, "PUT", app, `{"properties":{"identifierUris":["api://moving"]}}`)
	reader := w.owner.assign(roleSecrets, id.str("properties", "principalId"), kv)
	w.owner.assign(roleSecrets, sys.str("identity", "principalId"), kv+"/secrets/s1")
	secret := w.srv.Names.Vault("moving") + "/secrets/s1" + kvVersion
	data := &caller{w: w, tenant: tenantA, token: w.workload(vm, kvAudience)}
	own := &caller{w: w, tenant: tenantA, token: w.workload(sysVM, kvAudience)}
	data.must(200, "PUT", secret, `{"value":"v1"}`)
	data.must(200, "PUT", secret, `{"value":"v2"}`)
	stays := w.owner.must(200, "GET", vms+"/stays", "").str("etag")

	all := []string{kv, vm, uai, sysVM, host, app}
	w.owner.must(204, "POST", g1+"/validateMoveResources", moveBody(far, all...))
	w.owner.must(200, "GET", kv, "")
	done := w.owner.must(204, "POST", g1+"/moveResources", moveBody(far, all...))
	if evs := w.of(tenantA, done); len(evs) != 1 || !strings.Contains(evs[0].Reason, "vaults/moving") || !strings.Contains(evs[0].Reason, far) {
		t.Errorf("the move is on record as %+v", evs)
	}

	for _, old := range all {
		w.owner.refused(404, "ResourceNotFound", "GET", old, "")
		if got := w.owner.must(200, "GET", in(far, old), "").str("id"); got != in(far, old) {
			t.Errorf("%s says that it is %s", in(far, old), got)
		}
	}
	if got := w.owner.must(200, "GET", in(far, uai), ""); got.str("properties", "principalId") != id.str("properties", "principalId") || got.str("properties", "clientId") != id.str("properties", "clientId") {
		t.Errorf("the identity has other ids: %s", got.text)
	}
	if got := w.owner.must(200, "GET", in(far, sysVM), "").str("identity", "principalId"); got != sys.str("identity", "principalId") {
		t.Errorf("the system-assigned identity is %s", got)
	}
	for _, vm := range []string{in(far, vm), vms + "/stays"} {
		if got := w.owner.must(200, "GET", vm, ""); !strings.Contains(got.text, in(far, uai)) || strings.Contains(got.text, uai) {
			t.Errorf("%s has %s", vm, identities(got))
		}
	}
	if w.owner.must(200, "GET", vms+"/stays", "").str("etag") == stays {
		t.Errorf("a resource whose identity has another ID has its old ETag")
	}
	for what, got := range map[string]string{
		"the placement": w.owner.must(200, "GET", in(far, host)+"/placements/p", "").str("properties", "resourceId"),
		"the rule":      w.owner.must(200, "GET", rule, "").str("properties", "identity"),
	} {
		if !strings.HasPrefix(got, far) {
			t.Errorf("%s names %s", what, got)
		}
	}
	if got := w.owner.must(200, "GET", in(far, reader), "").str("properties", "scope"); got != in(far, kv) {
		t.Errorf("the assignment is at %s", got)
	}
	// A token from before counts on, and so does one from after, at once.
	for what, c := range map[string]*caller{
		"a token from before, asked for by a resource":              data,
		"a token from before, of a system-assigned identity":        own,
		"a token from after, asked for by a resource":               {w: w, token: w.workload(in(far, vm), kvAudience)},
		"a token from after, of a system-assigned identity":         {w: w, token: w.workload(in(far, sysVM), kvAudience)},
		"a token from before, of a resource that stays, for itself": {w: w, token: w.workload(vms+"/stays", kvAudience)},
	} {
		if got := c.do("GET", secret, ""); got.str("value") != "v2" {
			t.Errorf("%s: reading the secret = %d %s", what, got.status, got.text)
		}
	}
	w.workload(in(far, vm), "api://moving")
	// Detached where it is now, the identity's token from before ends.
	w.owner.must(200, "PATCH", in(far, vm), block("None"))
	data.refused401(secret)
	w.checkStore()
}

// refused401 is a token that does not count.
func (c *caller) refused401(url string) {
	c.w.t.Helper()
	if got := c.do("GET", url, ""); got.status != 401 {
		c.w.t.Errorf("GET %s = %d %s, want 401", url, got.status, got.text)
	}
}

// TestTokenOfAMovedResourceIsNotAnother's: whoever makes a resource where one
// was does not revive the tokens of the one that left, and its own end with it.
func TestTokenOfAMovedResourceIsNotAnothers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	vm, uai, kv := vms+"/vm", uais+"/app-id", g1+"/providers/Microsoft.KeyVault/vaults/keeps"
	w.owner.must(201, "PUT", kv, local)
	id := w.owner.must(201, "PUT", uai, local)
	w.owner.must(201, "PUT", vm, block("UserAssigned", on(uai)))
	w.owner.assign(roleSecrets, id.str("properties", "principalId"), kv)
	secret := w.srv.Names.Vault("keeps") + "/secrets/s1" + kvVersion
	first := &caller{w: w, token: w.workload(vm, kvAudience)}
	w.owner.must(204, "POST", g1+"/moveResources", moveBody(g2, vm))
	first.must(200, "PUT", secret, `{"value":"v"}`)
	w.owner.must(201, "PUT", vm, block("UserAssigned", on(uai)))
	second := &caller{w: w, token: w.workload(vm, kvAudience)}
	second.must(200, "GET", secret, "")
	w.owner.must(200, "DELETE", vm, "")
	second.refused401(secret)
	first.refused401(secret)
	(&caller{w: w, token: w.workload(in(g2, vm), kvAudience)}).must(200, "GET", secret, "")
}

// TestMoveChangesWhatIsInherited: roles at the groups count where the resource
// is, from the very next request.
func TestMoveChangesWhatIsInherited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", vms+"/vm", local)
	here, there := w.as(tenantA, "here", roleReader+" "+g1), w.as(tenantA, "there", roleReader+" "+g2)
	at := w.as(tenantA, "at", roleReader+" "+vms+"/vm")
	from, to, who, not := g1, g2, here, there
	for range 4 {
		who.must(200, "GET", in(from, vms+"/vm"), "")
		not.must(403, "GET", in(from, vms+"/vm"), "")
		at.must(200, "GET", in(from, vms+"/vm"), "")
		w.owner.must(204, "POST", from+"/moveResources", moveBody(to, in(from, vms+"/vm")))
		from, to, who, not = to, from, not, who
	}
}

func TestMoveRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	vm, host := vms+"/vm", g1+"/providers/Innate.Fleet/hosts/h"
	for _, id := range []string{vm, vms + "/taken", in(g2, vms+"/taken")} {
		w.owner.must(201, "PUT", id, local)
	}
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", host+"/placements/p", `{"properties":{"door":"run","resourceId":"`+vm+`"}}`)
	before := w.rights(tenantA)
	many := make([]string, 801)
	for i := range many {
		many[i] = fmt.Sprint(vms, "/x", i)
	}
	for _, tt := range []struct {
		why    string
		status int
		code   string
		body   string
		says   string
	}{
		{"no body", 400, "InvalidRequestContent", ``, "no body"},
		{"not an object", 400, "InvalidRequestContent", `[]`, "an object was expected"},
		{"no target", 400, "InvalidRequestContent", moveBody("", vm), "'targetResourceGroup'"},
		{"a target that is no group", 400, "InvalidRequestContent", moveBody(vm, vm), "'targetResourceGroup'"},
		{"the same group", 400, "InvalidRequestContent", moveBody(strings.ToUpper(g1), vm), "another one was expected"},
		{"nothing", 400, "InvalidRequestContent", moveBody(g2), "0 entries"},
		{"too many", 400, "InvalidRequestContent", moveBody(g2, many...), "801 entries"},
		{"no ID", 400, "InvalidRequestContent", moveBody(g2, "vm"), "does not begin with a slash"},
		{"of another group", 400, "InvalidRequestContent", moveBody(g2, in(g2, vms+"/taken")), "is not in the resource group 'g1'"},
		{"the group itself", 400, "InvalidRequestContent", moveBody(g2, g1), "is not in the resource group"},
		{"a child alone", 400, "InvalidRequestContent", moveBody(g2, host+"/placements/p"), "moves with it"},
		{"an extension alone", 400, "InvalidRequestContent", moveBody(g2, vm+"/providers/Innate.Fleet/callerRules/r"), "moves with it"},
		{"twice", 400, "InvalidRequestContent", moveBody(g2, vm, strings.ToUpper(vm)), "more than once"},
		{"an unknown type", 404, "InvalidResourceType", moveBody(g2, g1+"/providers/No.Such/things/x"), "No.Such"},
		{"no such target", 404, "ResourceGroupNotFound", moveBody(sub+"/resourceGroups/none", vm), "'none'"},
		{"one is not there", 409, "ResourceMoveFailed", moveBody(g2, vm, vms+"/none"), `"target":"` + vms + `/none"`},
		{"one's name is taken", 409, "ResourceMoveFailed", moveBody(g2, vm, vms+"/taken"), `"code":"Conflict","message":"There is a resource '` + g2},
	} {
		for _, verb := range []string{"/moveResources", "/validateMoveResources"} {
			r := w.owner.refused(tt.status, tt.code, "POST", g1+verb, tt.body)
			if !strings.Contains(r.text, tt.says) {
				t.Errorf("%s: %s does not say %q", tt.why, r.text, tt.says)
			}
		}
	}
	w.owner.refused(405, "MethodNotAllowed", "GET", g1+"/moveResources", "")
	after := w.rights(tenantA)
	for key, r := range before.resources {
		if after.resources[key].ETag != r.ETag {
			t.Errorf("%s was changed by a move that was refused", key)
		}
	}
	w.checkStore()
}

// TestWhoMayMove: a move takes a resource out of what counts over it, and puts
// it under what counts elsewhere. Somebody who may write in both groups must
// not come by rights that they could not give.
func TestWhoMayMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	kv := g1 + "/providers/Microsoft.KeyVault/vaults/wanted"
	w.owner.must(201, "PUT", kv, local)
	everywhere := w.as(tenantA, "everywhere", roleContributor+" "+sub)
	for _, tt := range []struct {
		who    *caller
		status int
		code   string
		names  string
	}{
		{w.as(tenantA, "nobody"), 403, "AuthorizationFailed", "moveResources/action"},
		{w.as(tenantA, "reader", roleReader+" "+sub), 403, "AuthorizationFailed", "moveResources/action"},
		{w.as(tenantA, "target-only", roleOwner+" "+g2), 403, "AuthorizationFailed", "moveResources/action"},
		{w.as(tenantA, "source-only", roleOwner+" "+g1), 403, "LinkedAuthorizationFailed", "resourceGroups/write"},
		// Mallory may write in g1 and owns g2: there she would give herself the
		// vault's secrets.
		{w.as(tenantA, "mallory", roleContributor+" "+g1, roleOwner+" "+g2), 403, "LinkedAuthorizationFailed", "roleAssignments/write"},
		// So does whoever else moves it to where mallory is: they give it to her.
		{everywhere, 403, "LinkedAuthorizationFailed", "roleAssignments/write"},
	} {
		r := tt.who.refused(tt.status, tt.code, "POST", g1+"/moveResources", moveBody(g2, kv))
		if !strings.Contains(r.text, tt.names) {
			t.Errorf("%s does not name %s", r.text, tt.names)
		}
		tt.who.refused(tt.status, map[bool]string{true: "AuthorizationFailed", false: tt.code}[tt.code == "AuthorizationFailed"], "POST", g1+"/validateMoveResources", moveBody(g2, kv))
	}
	w.owner.must(200, "GET", kv, "")
	// Between groups where nobody gains anything, who may write may move.
	plain := sub + "/resourceGroups/plain"
	w.owner.must(201, "PUT", plain, local)
	everywhere.must(204, "POST", g1+"/moveResources", moveBody(plain, kv))
	everywhere.refused(403, "LinkedAuthorizationFailed", "POST", plain+"/moveResources", moveBody(g1, in(plain, kv)))
	// The other tenant's subscription has the same id, and none of this.
	b := w.addTenant(tenantB)
	b.must(201, "PUT", g1, local)
	b.must(201, "PUT", g2, local)
	b.refused(409, "ResourceMoveFailed", "POST", g1+"/moveResources", moveBody(g2, in(g1, kv)))
}

// TestMoveDoesNotEvadeADenial: what is denied over a group is not made possible
// by moving the resource out of it.
func TestMoveDoesNotEvadeADenial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", vms+"/vm", local)
	id, err := resource.MustParse(g1).Extension("Microsoft.Authorization/denyAssignments", uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
	ev := audit.Event{Tenant: tenantA, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed, Principal: "test"}
	if err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		return tx.PutDenyAssignment(arm.DenyAssignment{Tenant: tenantA, Created: w.clock(), Updated: w.clock(), Denial: access.Denial{
			ID: id, Name: "keep", Scope: resource.MustParse(g1), Principals: []string{access.Everyone},
			Permissions: []access.Permission{{Actions: []string{"Microsoft.Compute/virtualMachines/delete"}}},
		}})
	}); err != nil {
		t.Fatal(err)
	}
	mallory := w.as(tenantA, "mallory", roleContributor+" "+sub)
	mallory.refused(403, "AuthorizationFailed", "DELETE", vms+"/vm", "")
	r := mallory.refused(403, "LinkedAuthorizationFailed", "POST", g1+"/moveResources", moveBody(g2, vms+"/vm"))
	if !strings.Contains(r.text, "denyAssignments/write") {
		t.Errorf("%s does not name denyAssignments/write", r.text)
	}
	w.owner.must(200, "GET", vms+"/vm", "")
}
