package arm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const deletedIDs = sub + "/providers/Microsoft.ManagedIdentity/locations/local/deletedUserAssignedIdentities"

// keeps is an identity on a machine with roles at a vault, a secret, a group
// and the subscription.
type keeps struct {
	uai, vm, kv, oid, client string
	token                    *caller
	secret                   string
}

func (w *world) identityWithRoles() keeps {
	w.t.Helper()
	k := keeps{uai: uais + "/app-id", vm: vms + "/vm", kv: g1 + "/providers/Microsoft.KeyVault/vaults/recovers"}
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", k.kv, local)
	id := w.owner.must(201, "PUT", k.uai, `{"location":"local","tags":{"a":"b"}}`)
	k.oid, k.client = id.str("properties", "principalId"), id.str("properties", "clientId")
	w.owner.must(201, "PUT", k.vm, block("UserAssigned", on(k.uai)))
	for _, scope := range []string{k.kv, k.kv + "/secrets/s", g2, sub, k.uai} {
		w.owner.assign(roleSecrets, k.oid, scope)
	}
	k.secret = w.srv.Names.Vault("recovers") + "/secrets/s" + kvVersion
	k.token = &caller{w: w, token: w.workload(k.vm, kvAudience)}
	k.token.must(200, "PUT", k.secret, `{"value":"v"}`)
	return k
}

func (w *world) roles(oid string) []string { return w.rights(tenantA).of(oid) }

// recovered reads a report of the answer to a recovery.
func (r reply) recovered(name string) []any {
	rec, _ := r.body["recovery"].(map[string]any)
	l, _ := rec[name].([]any)
	return l
}

func TestRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	w.owner.must(200, "DELETE", k.uai, "")
	// It is nothing any more.
	k.token.refused401(k.secret)
	f, err := w.srv.DB.Facts(t.Context(), tenantA, k.oid, resource.Root)
	if err != nil || len(f.Assignments) > 0 {
		t.Errorf("a deleted identity has %d roles, %v", len(f.Assignments), err)
	}
	if _, err := w.srv.DB.Principal(t.Context(), tenantA, k.oid); !problem.Is(err, problem.NotFound) {
		t.Errorf("the principal of a deleted identity: %v", err)
	}
	w.owner.refused(400, "PrincipalNotFound", "PUT", assignmentID(sub, uuid.NewString()), assignmentBody(roleReader, k.oid))

	got := w.owner.must(200, "GET", deletedIDs+"/APP-ID", "")
	if got.str("id") != deletedIDs+"/"+k.oid || got.str("name") != "app-id" || got.str("properties", "identityId") != k.uai || got.str("properties", "deletedBy") != w.owner.oid ||
		got.str("properties", "principalId") != k.oid || got.str("properties", "clientId") != k.client || got.str("properties", "tags", "a") != "b" {
		t.Errorf("the deleted identity reads %s", got.text)
	}
	all := w.owner.must(200, "GET", sub+"/providers/Microsoft.ManagedIdentity/deletedUserAssignedIdentities", "").values()
	if len(all) != 1 || all[0]["id"] != got.str("id") {
		t.Errorf("the list has %v", all)
	}

	w.advance(time.Minute)
	back := w.owner.must(200, "POST", deletedIDs+"/"+k.oid+"/recover", "")
	if back.str("properties", "principalId") != k.oid || back.str("properties", "clientId") != k.client || back.str("id") != k.uai || back.str("tags", "a") != "b" {
		t.Errorf("it came back as %s", back.text)
	}
	if len(back.recovered("restoredRoleAssignments")) != 5 || len(back.recovered("notRestoredRoleAssignments")) != 0 || len(w.roles(k.oid)) != 5 {
		t.Errorf("the roles came back as %s: %v", back.text, w.roles(k.oid))
	}
	// Attachments do not, and tokens from before do not count, attached anew or not.
	if got := identities(w.owner.must(200, "GET", k.vm, "")); got != "" {
		t.Errorf("the machine has %s", got)
	}
	w.owner.must(200, "PATCH", k.vm, block("UserAssigned", on(k.uai)))
	k.token.refused401(k.secret)
	(&caller{w: w, token: w.workload(k.vm, kvAudience)}).must(200, "GET", k.secret, "")
	w.owner.refused(404, "ResourceNotFound", "POST", deletedIDs+"/"+k.oid+"/recover", "")
	w.checkStore()
}

// TestRecoverRestoresWhatStillStands: what happened meanwhile is not undone.
func TestRecoverRestoresWhatStillStands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	at := w.rights(tenantA).assignments
	w.owner.must(200, "DELETE", k.uai, "")
	// The vault moved, its roles with it; the group is another one of the same
	// name; the assignment at the subscription has its name taken.
	w.owner.must(200, "DELETE", g2, "")
	w.owner.must(201, "PUT", g2, local)
	g4 := sub + "/resourceGroups/g4"
	w.owner.must(201, "PUT", g4, local)
	w.owner.must(204, "POST", g1+"/moveResources", moveBody(g4, k.kv))
	var taken string
	for _, ra := range at {
		if ra.Principal == k.oid && ra.Scope.String() == sub {
			taken = ra.ID.String()
		}
	}
	w.owner.must(201, "PUT", taken, assignmentBody(roleReader, w.owner.oid))
	// Another identity has the name.
	w.owner.must(201, "PUT", k.uai, local)
	w.owner.refused(409, "Conflict", "POST", deletedIDs+"/app-id/recover", "")
	back := w.owner.must(200, "POST", deletedIDs+"/app-id/recover", `{"properties":{"name":"app-id-2"}}`)
	if back.str("id") != uais+"/app-id-2" || back.str("properties", "principalId") != k.oid {
		t.Errorf("it came back as %s", back.text)
	}
	kv := in(g4, k.kv)
	want := map[string]bool{sub: true, kv: true, kv + "/secrets/s": true, uais + "/app-id-2": true}
	for _, scope := range w.roles(k.oid) {
		if !want[scope] {
			t.Errorf("it has a role at %s", scope)
		}
		delete(want, scope)
	}
	if len(want) > 0 {
		t.Errorf("it has no role at %v", want)
	}
	if lost := back.recovered("notRestoredRoleAssignments"); len(lost) != 1 || !strings.Contains(back.text, "its scope was deleted") {
		t.Errorf("not restored: %v", lost)
	}
	w.checkStore()
}

// TestWhoMayRecover: an identity comes back with rights, so that who recovers it
// gives them.
func TestWhoMayRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	group, reader := w.as(tenantA, "group", roleContributor+" "+g1), w.as(tenantA, "reader", roleReader+" "+sub)
	groupOwner, nobody := w.as(tenantA, "group-owner", roleOwner+" "+g1), w.as(tenantA, "nobody")
	w.owner.must(200, "DELETE", k.uai, "")
	for _, name := range []string{k.oid, "app-id", "none", uuid.NewString()} {
		for _, who := range []*caller{nobody, reader} {
			who.refused(403, "AuthorizationFailed", "POST", deletedIDs+"/"+name+"/recover", "")
			who.refused(403, "AuthorizationFailed", "DELETE", deletedIDs+"/"+name, "")
		}
		nobody.refused(403, "AuthorizationFailed", "GET", deletedIDs+"/"+name, "")
	}
	nobody.refused(403, "AuthorizationFailed", "GET", sub+"/providers/Microsoft.ManagedIdentity/deletedUserAssignedIdentities", "")
	reader.must(200, "GET", deletedIDs+"/app-id", "")
	// May write the identity, may not give its roles, and is not told where they were.
	for _, who := range []*caller{group, groupOwner} {
		r := who.refused(403, "LinkedAuthorizationFailed", "POST", deletedIDs+"/app-id/recover", "")
		if strings.Contains(r.text, g2) {
			t.Errorf("the refusal tells of a scope that %s may not read: %s", who.id, r.text)
		}
	}
	if r := w.owner.refused(400, "InvalidResourceName", "POST", deletedIDs+"/app-id/recover", `{"properties":{"name":"a"}}`); !strings.Contains(r.text, "The name 'a'") {
		t.Error(r.text)
	}
	for body, says := range map[string]string{
		`{"properties":{"roleAssignments":"some"}}`: "'properties.roleAssignments'", `{"properties":{"name":"a/b"}}`: "a/b", `[]`: "object",
	} {
		if r := w.owner.refused(400, "InvalidRequestContent", "POST", deletedIDs+"/app-id/recover", body); !strings.Contains(r.text, says) {
			t.Errorf("%s: %s", body, r.text)
		}
	}
	w.owner.refused(404, "ResourceNotFound", "GET", strings.Replace(deletedIDs, "local", "west", 1)+"/app-id", "")
	if len(w.roles(k.oid)) != 0 {
		t.Errorf("a refused recovery gave roles: %v", w.roles(k.oid))
	}
	r := groupOwner.must(200, "POST", deletedIDs+"/app-id/recover", `{"properties":{"roleAssignments":"Permitted"}}`)
	if len(r.recovered("restoredRoleAssignments")) != 3 || len(r.recovered("notRestoredRoleAssignments")) != 2 || strings.Contains(r.text, g2) {
		t.Errorf("the owner of the group got %s", r.text)
	}
	for _, scope := range w.roles(k.oid) {
		if !strings.HasPrefix(scope, g1+"/") {
			t.Errorf("the owner of a group gave a role at %s", scope)
		}
	}
	// The other tenant has a subscription of the same id, and not this.
	b := w.addTenant(tenantB)
	w.owner.must(200, "DELETE", k.uai, "")
	b.refused(404, "ResourceNotFound", "POST", deletedIDs+"/"+k.oid+"/recover", "")
}

func TestDeletedIdentitiesGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	w.owner.must(200, "DELETE", k.uai, "")
	w.owner.must(201, "PUT", k.uai, local)
	w.owner.must(200, "DELETE", k.uai, "")
	// Two of a name.
	w.owner.refused(409, "Conflict", "POST", deletedIDs+"/app-id/recover", "")
	w.owner.must(204, "DELETE", deletedIDs+"/"+k.oid, "")
	w.owner.refused(404, "ResourceNotFound", "DELETE", deletedIDs+"/"+k.oid, "")
	w.owner.must(200, "GET", deletedIDs+"/app-id", "")
	w.advance(30 * 24 * time.Hour)
	w.owner.token = w.owner.tokenFor(w.srv.Names.Management())
	w.owner.refused(404, "ResourceNotFound", "GET", deletedIDs+"/app-id", "")
	w.owner.refused(404, "ResourceNotFound", "POST", deletedIDs+"/app-id/recover", "")
	if err := w.srv.DB.Sweep(t.Context(), w.clock()); err != nil {
		t.Fatal(err)
	}
	ds, err := w.srv.DB.DeletedIdentities(t.Context(), tenantA, "", "", "", 0)
	if err != nil || len(ds) > 0 {
		t.Errorf("after the retention there are %d deleted identities, %v", len(ds), err)
	}
	var purged int
	for _, ev := range w.events(tenantA) {
		if strings.HasSuffix(ev.Action, "deletedUserAssignedIdentities/purge/action") && ev.Principal == "system:sweep" {
			purged++
		}
	}
	if purged != 1 {
		t.Errorf("%d purges by the sweep are on record, want 1", purged)
	}
}
