package arm_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

const (
	recoverIt  = "/recover"
	permitted  = `{"properties":{"roleAssignments":"Permitted"}}`
	gotCreds   = "restoredFederatedIdentityCredentials"
	lostCreds  = "notRestoredFederatedIdentityCredentials"
	gotGroups  = "restoredGroupMemberships"
	lostGroups = "notRestoredGroupMemberships"
	lostUsers  = "notRestoredAttachments"
)

// texts are the entries of a report that are IDs, or the IDs that its entries
// have.
func (r reply) texts(name string) []string {
	out := []string{}
	for _, v := range r.recovered(name) {
		if m, ok := v.(map[string]any); ok {
			v = m["id"]
		}
		s, _ := v.(string)
		out = append(out, s)
	}
	return out
}

// exchanges shows an assertion of the pool for the client, and returns what the
// token service answers.
func (w *world) exchanges(client string, pool *caller) reply {
	w.t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {kvAudience + "/.default"}, "client_assertion": {pool.tokenFor(exchange)},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	anybody := &caller{w: w}
	return anybody.do("POST", w.srv.Names.Login()+"/"+tenantA+"/oauth2/v2.0/token?", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// TestRecoverRestoresFederation: the credentials are what they were, and what
// they issued before stays refused, even where all of it is one second.
func TestRecoverRestoresFederation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	pool := w.as(tenantA, "pool")
	fromPool := fic(w.srv.STS.IssuerV2(tenantA), pool.oid)
	w.owner.must(201, "PUT", k.uai+fics+"/Own", fromPool)
	w.owner.must(201, "PUT", k.uai+fics+"/jobs", `{"properties":{"issuer":"https://i.example","audiences":["a","b"],"claimsMatchingExpression":{"value":"claims['sub'] matches 'job:*'","languageVersion":1}}}`)
	before := w.owner.must(200, "GET", k.uai+fics, "").values()
	old := &caller{w: w, token: w.exchanges(k.client, pool).str("access_token")}
	old.must(200, "GET", k.secret, "")

	w.owner.must(200, "DELETE", k.uai, "")
	old.refused401(k.secret)
	if r := w.exchanges(k.client, pool); r.status < 400 {
		t.Errorf("a deleted identity gets a token: %s", r.text)
	}
	if got := w.owner.must(200, "GET", deletedIDs+"/app-id", ""); got.body["properties"].(map[string]any)["federatedIdentityCredentialCount"] != jsonNumber(2) {
		t.Errorf("the deleted identity reads %s", got.text)
	}
	back := w.owner.must(200, "POST", deletedIDs+"/app-id"+recoverIt, "")
	if diff := cmp.Diff([]string{k.uai + fics + "/jobs", k.uai + fics + "/Own"}, back.texts(gotCreds)); diff != "" || len(back.recovered(lostCreds)) != 0 {
		t.Errorf("the credentials came back as %s: %s", back.text, diff)
	}
	after := w.owner.must(200, "GET", k.uai+fics, "").values()
	for _, l := range [][]map[string]any{before, after} {
		for _, v := range l {
			delete(v, "etag")
		}
	}
	if diff := cmp.Diff(before, after); diff != "" || len(after) != 2 {
		t.Errorf("they were and are %s", diff)
	}
	old.refused401(k.secret)
	(&caller{w: w, token: w.exchanges(k.client, pool).str("access_token")}).must(200, "GET", k.secret, "")
	w.checkStore()

	// Another identity has the name, and a credential of the same name.
	w.owner.must(200, "DELETE", k.uai, "")
	w.owner.must(201, "PUT", k.uai, local)
	w.owner.must(201, "PUT", k.uai+fics+"/Own", fic("https://other.example", "s"))
	back = w.owner.must(200, "POST", deletedIDs+"/"+k.oid+recoverIt, `{"properties":{"name":"app-id-2"}}`)
	if diff := cmp.Diff([]string{uais + "/app-id-2" + fics + "/jobs", uais + "/app-id-2" + fics + "/Own"}, back.texts(gotCreds)); diff != "" {
		t.Errorf("under another name they came back as %s: %s", back.text, diff)
	}
	if got := w.owner.must(200, "GET", k.uai+fics+"/Own", ""); got.str("properties", "issuer") != "https://other.example" {
		t.Errorf("the other identity's is %s", got.text)
	}
	(&caller{w: w, token: w.exchanges(k.client, pool).str("access_token")}).must(200, "GET", k.secret, "")
	w.checkStore()
}

// TestRecoverAfterItsGroupWentToo: what the identity had is kept whole, in
// whichever order all of it was deleted.
func TestRecoverAfterItsGroupWentToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := sub + "/resourceGroups/gone"
	id := gone + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app-id"
	vm := gone + "/providers/Microsoft.Compute/virtualMachines/vm"
	site := gone + "/providers/Microsoft.Web/sites/site"
	w.owner.must(201, "PUT", gone, local)
	oid := w.owner.must(201, "PUT", id, local).str("properties", "principalId")
	w.owner.must(201, "PUT", id+fics+"/first", fic("https://i.example", "s"))
	w.owner.must(201, "PUT", vm, block("UserAssigned", on(id)))
	w.owner.must(200, "PUT", site, block("UserAssigned", on(id)))
	for _, scope := range []string{gone, vm, site, sub} {
		w.owner.assign(roleReader, oid, scope)
	}
	w.owner.must(200, "DELETE", gone, "")
	w.owner.must(201, "PUT", gone, local)
	back := w.owner.must(200, "POST", deletedIDs+"/app-id"+recoverIt, "")
	if got := back.texts(gotCreds); !slices.Equal(got, []string{id + fics + "/first"}) {
		t.Errorf("the credentials came back as %s", back.text)
	}
	if len(back.recovered("restoredRoleAssignments")) != 1 || len(back.recovered("notRestoredRoleAssignments")) != 3 {
		t.Errorf("the roles came back as %s", back.text)
	}
	if got := back.texts(lostUsers); !slices.Equal(got, []string{vm, site}) || strings.Count(back.text, "the resource was deleted") != 2 {
		t.Errorf("it was attached to %s", back.text)
	}
	w.checkStore()
}

// TestRecoverRestoresMemberships: of groups that are still there, and not of one
// that has the id of one that was.
func TestRecoverRestoresMemberships(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	outer := w.group("Outer")
	inner, gone, again := w.group("Inner", k.oid), w.group("Gone", k.oid), w.group("Again", k.oid)
	w.root().must(201, "PUT", memberPath(outer, inner), "")
	id, secret := w.vault("kv-of-group")
	w.root().assignGroup(roleSecrets, outer, id)
	k.token.must(200, "GET", secret, "")

	w.owner.must(200, "DELETE", k.uai, "")
	if got := w.root().must(200, "GET", groupsPath+"/"+inner+"/members", "").values(); len(got) != 0 {
		t.Errorf("the group has %v", got)
	}
	w.advance(time.Minute)
	w.root().must(200, "DELETE", groupsPath+"/"+gone, "")
	w.root().must(200, "DELETE", groupsPath+"/"+again, "")
	w.root().must(201, "PUT", groupsPath+"/"+again, groupBody("Again"))
	back := w.root().must(200, "POST", deletedIDs+"/app-id"+recoverIt, "")
	if got := back.texts(gotGroups); !slices.Equal(got, []string{groupsPath + "/" + inner}) {
		t.Errorf("it is in %s", back.text)
	}
	lost := back.texts(lostGroups)
	want := []string{groupsPath + "/" + gone, groupsPath + "/" + again}
	slices.Sort(lost)
	slices.Sort(want)
	if !slices.Equal(lost, want) {
		t.Errorf("it is not in %v, want %v", lost, want)
	}
	if got := w.root().must(200, "GET", groupsPath+"/"+again+"/members", "").values(); len(got) != 0 {
		t.Errorf("the group that took the id has %v", got)
	}
	w.owner.must(200, "PATCH", k.vm, block("UserAssigned", on(k.uai)))
	(&caller{w: w, token: w.workload(k.vm, kvAudience)}).must(200, "GET", secret, "")
	if evs := w.of(tenantA, back); len(evs) == 0 || !strings.Contains(evs[len(evs)-1].Reason, "1 memberships; 0, 0 and 2 were not restored; it is in "+groupsPath+"/"+inner) {
		t.Errorf("the recovery is on record as %+v", evs)
	}
	w.checkStore()
}

// assignGroup gives a role to a group.
func (c *caller) assignGroup(role, group, scope string) {
	c.w.t.Helper()
	c.must(201, "PUT", assignmentID(scope, uuid.NewString()), strings.Replace(assignmentBody(role, group), "ServicePrincipal", "Group", 1))
}

// TestWhoMayRestoreMemberships: a membership gives roles, so that it takes what
// putting somebody into the group takes; and out of a group that a denial names
// nobody comes by being deleted.
func TestWhoMayRestoreMemberships(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	oid := w.owner.must(201, "PUT", uais+"/app-id", local).str("properties", "principalId")
	plain, owners := w.group("Plain", oid), w.group("Owners")
	nested := w.group("Nested", oid)
	w.root().must(201, "PUT", memberPath(owners, nested), "")
	w.root().assignGroup(roleOwner, owners, "/")
	groups := w.as(tenantA, "groups", roleContributor+" /") // may change groups, and give nothing
	both := func(r reply, got, lost int) {
		t.Helper()
		if len(r.recovered(gotGroups)) != got || len(r.recovered(lostGroups)) != lost {
			t.Errorf("recovered: %s, want %d memberships and %d lost", r.text, got, lost)
		}
	}
	at := deletedIDs + "/" + oid + recoverIt
	again := func() {
		t.Helper()
		w.root().must(200, "PUT", memberPath(plain, oid), "")
		w.root().must(201, "PUT", memberPath(nested, oid), "")
		w.owner.must(200, "DELETE", uais+"/app-id", "")
	}
	w.owner.must(200, "DELETE", uais+"/app-id", "")
	// The owner of the subscription has no right to groups, and is not told which.
	for _, c := range []*caller{w.owner, groups} {
		r := c.refused(403, "LinkedAuthorizationFailed", "POST", at, "")
		if strings.Contains(r.text, plain) || strings.Contains(r.text, nested) || strings.Contains(r.text, owners) || !strings.Contains(r.text, "Permitted") {
			t.Errorf("refused with %s", r.text)
		}
	}
	if got := w.root().must(200, "GET", groupsPath+"/"+nested+"/members", "").values(); len(got) != 0 {
		t.Errorf("a refused recovery left %v in the group", got)
	}
	r := groups.must(200, "POST", at, permitted)
	both(r, 1, 1)
	if !slices.Equal(r.texts(gotGroups), []string{groupsPath + "/" + plain}) || !slices.Equal(r.texts(lostGroups), []string{groupsPath + "/" + nested}) {
		t.Errorf("who may change groups got %s", r.text)
	}
	again()
	r = w.owner.must(200, "POST", at, permitted)
	both(r, 0, 2)
	if strings.Contains(r.text, groupsPath) {
		t.Errorf("who may read no groups was told %s", r.text)
	}
	w.root().must(201, "PUT", memberPath(plain, oid), "")
	again()
	both(w.root().must(200, "POST", at, ""), 2, 0)

	w.owner.must(200, "DELETE", uais+"/app-id", "")
	w.root().must(201, "PUT", denialPath(sub, name1), denialBody("No machines", `"Microsoft.Compute/*"`, owners))
	for _, c := range []*caller{w.owner, groups} {
		for _, body := range []string{"", permitted} {
			c.refused(403, "LinkedAuthorizationFailed", "POST", at, body)
		}
	}
	both(w.root().must(200, "POST", at, ""), 2, 0)
	w.checkStore()
}

// TestWhoMayRestoreCredentials: whoever may write one can become the identity.
func TestWhoMayRestoreCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	oid := w.owner.must(201, "PUT", uais+"/app-id", local).str("properties", "principalId")
	w.owner.must(201, "PUT", uais+"/app-id"+fics+"/first", fic("https://i.example", "s"))
	role := w.owner.role("Writes identities", g1, "Microsoft.ManagedIdentity/userAssignedIdentities/write")
	some := w.as(tenantA, "some")
	w.owner.assign(role, some.oid, g1)
	w.owner.must(200, "DELETE", uais+"/app-id", "")
	r := some.refused(403, "LinkedAuthorizationFailed", "POST", deletedIDs+"/"+oid+recoverIt, "")
	if strings.Contains(r.text, "first") {
		t.Errorf("the refusal names a credential: %s", r.text)
	}
	r = some.must(200, "POST", deletedIDs+"/"+oid+recoverIt, permitted)
	if len(r.recovered(gotCreds)) != 0 || len(r.recovered(lostCreds)) != 1 || strings.Contains(r.text, "first") {
		t.Errorf("recovered: %s", r.text)
	}
	if got := w.owner.must(200, "GET", uais+"/app-id"+fics, "").values(); len(got) != 0 {
		t.Errorf("it trusts %v", got)
	}
	w.checkStore()
}

// TestRecoverTellsOfAttachments: where the resources are now, to who may list
// what an identity is attached to; and attaches nothing.
func TestRecoverTellsOfAttachments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/app-id"
	w.owner.must(201, "PUT", g2, local)
	oid := w.owner.must(201, "PUT", id, local).str("properties", "principalId")
	for _, vm := range []string{"/gone", "/moves", "/stays"} {
		w.owner.must(201, "PUT", vms+vm, block("UserAssigned", on(id)))
	}
	role := w.owner.role("Writes identities", g1, "Microsoft.ManagedIdentity/userAssignedIdentities/write")
	some := w.as(tenantA, "some")
	w.owner.assign(role, some.oid, g1)
	w.owner.must(200, "DELETE", id, "")
	w.owner.must(200, "DELETE", vms+"/gone", "")
	w.owner.must(201, "PUT", vms+"/gone", local)
	w.owner.must(204, "POST", g1+"/moveResources", moveBody(g2, vms+"/moves"))
	back := w.owner.must(200, "POST", deletedIDs+"/"+oid+recoverIt, "")
	if got := back.texts(lostUsers); !slices.Equal(got, []string{vms + "/gone", in(g2, vms+"/moves"), vms + "/stays"}) {
		t.Errorf("it was attached to %s", back.text)
	}
	for _, vm := range []string{vms + "/gone", in(g2, vms+"/moves"), vms + "/stays"} {
		if got := identities(w.owner.must(200, "GET", vm, "")); got != "" {
			t.Errorf("%s has %s", vm, got)
		}
	}
	w.owner.must(200, "PATCH", vms+"/stays", block("UserAssigned", on(id)))
	w.owner.must(200, "DELETE", id, "")
	if r := some.must(200, "POST", deletedIDs+"/"+oid+recoverIt, ""); !slices.Equal(r.texts(lostUsers), []string{""}) || strings.Contains(r.text, "stays") {
		t.Errorf("who may not list them was told %s", r.text)
	}
}

func jsonNumber(n int) any { return decode(fmt.Appendf(nil, `{"n":%d}`, n))["n"] }
