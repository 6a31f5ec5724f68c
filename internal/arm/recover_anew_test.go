package arm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
)

// TestNewGroupHasNoOldIdentities: who was given a group that has the name of one
// that was deleted does not get the identities that were in that one: their ids
// are trusted by others, whatever roles come back.
func TestNewGroupHasNoOldIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := sub + "/resourceGroups/gone"
	id := gone + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app-id"
	w.owner.must(201, "PUT", gone, local)
	oid := w.owner.must(201, "PUT", id, local).str("properties", "principalId")
	w.owner.must(200, "DELETE", gone, "")
	w.advance(time.Minute)
	w.owner.must(201, "PUT", gone, local)
	mallory := w.as(tenantA, "mallory", roleOwner+" "+gone)
	for _, body := range []string{"", permitted, strings.Replace(permitted, `{"roleA`, `{"name":"other","roleA`, 1)} {
		mallory.refused(403, "AuthorizationFailed", "POST", deletedIDs+"/"+oid+recoverIt, body)
	}
	w.owner.must(200, "POST", deletedIDs+"/"+oid+recoverIt, "")
	w.checkStore()
}

// TestNewSubscriptionHasNoOldIdentities: nor does who makes a subscription under
// the id of one that was deleted, somewhere else in the tree.
func TestNewSubscriptionHasNoOldIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.root()
	const other = "/subscriptions/00000000-0000-4000-8000-00000000aaaa"
	alias := func(name, group string) string {
		return `{"properties":{"displayName":"` + name + `","subscriptionId":"00000000-0000-4000-8000-00000000aaaa","additionalProperties":{"managementGroupId":"` + group + `"}}}`
	}
	const groups = "/providers/Microsoft.Management/managementGroups/"
	for _, name := range []string{"prod", "sandbox"} {
		root.must(200, "PUT", groups+name, `{}`)
	}
	root.must(201, "PUT", "/providers/Microsoft.Subscription/aliases/one", alias("one", groups+"prod"))
	g, id := other+"/resourceGroups/g", other+"/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app-id"
	root.must(201, "PUT", g, local)
	oid := root.must(201, "PUT", id, local).str("properties", "principalId")
	root.must(200, "DELETE", g, "")
	root.must(200, "DELETE", other, "")
	w.advance(time.Minute)
	mallory := w.as(tenantA, "mallory", roleOwner+" "+groups+"sandbox")
	mallory.must(201, "PUT", "/providers/Microsoft.Subscription/aliases/two", alias("two", groups+"sandbox"))
	mallory.must(201, "PUT", g, local)
	in := other + "/providers/Microsoft.ManagedIdentity/locations/local/deletedUserAssignedIdentities"
	for _, name := range []string{oid, "app-id"} {
		mallory.refused(404, "ResourceNotFound", "POST", in+"/"+name+recoverIt, permitted)
		mallory.refused(404, "ResourceNotFound", "GET", in+"/"+name, "")
		mallory.refused(404, "ResourceNotFound", "DELETE", in+"/"+name, "")
	}
	if all := mallory.must(200, "GET", strings.Replace(in, "/locations/local", "", 1), "").values(); len(all) > 0 {
		t.Errorf("the new subscription has %v", all)
	}
	w.checkStore()
}

// TestRecoverBringsDenialsBack: who is denied something at an identity is denied
// it still, once it was deleted and recovered.
func TestRecoverBringsDenialsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/app-id"
	w.owner.must(201, "PUT", id, local)
	mallory := w.as(tenantA, "mallory", roleOwner+" "+g1)
	w.root().must(201, "PUT", denialPath(id, name1), denialBody("No federation", `"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write"`, mallory.oid))
	w.root().must(201, "PUT", id+fics+"/theirs", fic("https://theirs.example", "s"))
	w.root().must(201, "PUT", denialPath(id+fics+"/theirs", name1), denialBody("Not this one", `"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read"`, mallory.oid))
	for _, name := range []string{"", "app-id-2", "app-id-3"} {
		mallory.refused(403, "AuthorizationFailed", "PUT", id+fics+"/own", fic("https://i.example", "s"))
		mallory.must(200, "DELETE", id, "")
		mallory.refused(403, "LinkedAuthorizationFailed", "POST", deletedIDs+"/"+last(id)+recoverIt, "")
		body, who := `{"properties":{"name":"`+name+`"}}`, w.owner
		if name == "app-id-3" { // what is left out takes its denial along
			body, who = strings.Replace(body, `"name"`, `"roleAssignments":"Permitted","name"`, 1), mallory
		}
		id = who.must(200, "POST", deletedIDs+"/"+last(id)+recoverIt, body).str("id")
		mallory.refused(403, "AuthorizationFailed", "PUT", id+fics+"/own", fic("https://i.example", "s"))
		if r := mallory.do("GET", id+fics+"/theirs", ""); r.status != 403 && r.status != 404 {
			t.Errorf("under the name %q: %s", name, r.text)
		}
		w.checkStore()
	}
}

// TestDeniedWritersDoNotRecover: what was denied at the identity counts for its
// recovery, though it went with it.
func TestDeniedWritersDoNotRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/app-id"
	w.owner.must(201, "PUT", id, local)
	mallory := w.as(tenantA, "mallory", roleOwner+" "+g1)
	w.root().must(201, "PUT", denialPath(id, name1), denialBody("No writes", `"Microsoft.ManagedIdentity/userAssignedIdentities/write"`, mallory.oid))
	mallory.refused(403, "AuthorizationFailed", "PATCH", id, `{"tags":{"a":"b"}}`)
	mallory.must(200, "DELETE", id, "")
	for _, body := range []string{"", permitted, `{"properties":{"name":"app-id-2"}}`} {
		mallory.refused(403, "AuthorizationFailed", "POST", deletedIDs+"/app-id"+recoverIt, body)
	}
	w.owner.must(200, "POST", deletedIDs+"/app-id"+recoverIt, "")
	w.checkStore()
}

func last(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// TestNoGroupTakesADeletedIdentitysID: object ids of groups are their makers' to
// choose. Were one that of an identity that can come back, its members would have
// what the identity is given back.
func TestNoGroupTakesADeletedIdentitysID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := w.identityWithRoles()
	w.root().must(201, "PUT", rolePath("", name1), roleBody("Groups", "/", "Innate.Directory/groups/*"))
	mallory := w.as(tenantA, "mallory", name1+" /")
	w.owner.must(200, "DELETE", k.uai, "")
	mallory.refused(409, "Conflict", "PUT", groupsPath+"/"+k.oid, groupBody("mine"))
	mallory.do("PUT", memberPath(k.oid, mallory.oid), "")
	w.owner.must(200, "POST", deletedIDs+"/"+k.oid+recoverIt, "")
	mallory.forVaults().refused403(k.secret)
	w.checkStore()

	// One that has it all the same, from before this was asked, keeps it.
	w.owner.must(200, "DELETE", k.uai, "")
	w.write(func(tx arm.Tx) error { return tx.PutGroup(arm.Group{Tenant: tenantA, ID: k.oid, Name: "mine"}) })
	mallory.must(201, "PUT", memberPath(k.oid, mallory.oid), "")
	w.owner.refused(409, "Conflict", "POST", deletedIDs+"/"+k.oid+recoverIt, "")
	mallory.forVaults().refused403(k.secret)
}

func (c *caller) refused403(url string) {
	c.w.t.Helper()
	if r := c.do("GET", url, ""); r.status != 403 {
		c.w.t.Errorf("GET %s = %d %s, want 403", url, r.status, r.text)
	}
}
