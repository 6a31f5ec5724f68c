package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/arm"
)

const groupsPath = "/providers/Innate.Directory/groups"

// group makes a group with members and returns its object id.
func (w *world) group(name string, members ...string) string {
	w.t.Helper()
	id := uuid.NewString()
	w.root().must(201, "PUT", groupsPath+"/"+id, groupBody(name))
	for _, m := range members {
		w.root().must(201, "PUT", memberPath(id, m), "")
	}
	return id
}

func memberPath(group, member string) string { return groupsPath + "/" + group + "/members/" + member }

func groupBody(name string) string {
	return fmt.Sprintf(`{"properties":{"displayName":%q,"description":"for a test"}}`, name)
}

// vault makes a vault with the secret db, and returns its ID and the secret's URL.
func (w *world) vault(name string) (id, secret string) {
	w.t.Helper()
	id = g1 + "/providers/Microsoft.KeyVault/vaults/" + name
	w.owner.must(201, "PUT", id, local)
	writer := w.as(tenantA, "writer-of-"+name, roleSecrets+" "+id).forVaults()
	secret = w.srv.Names.Vault(name) + "/secrets/db?api-version=7.4"
	writer.must(200, "PUT", secret, `{"value":"hunter2"}`)
	return id, secret
}

// forVaults is the caller with a token for vaults.
func (c *caller) forVaults() *caller {
	v := *c
	v.token = c.tokenFor("https://vault.azure.net")
	return &v
}

func (w *world) names(r reply) string {
	var out []string
	for _, v := range r.values() {
		out = append(out, fmt.Sprint(v["name"]))
	}
	return strings.Join(out, " ")
}

func TestGroupLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uuid.NewString()
	path := groupsPath + "/" + id
	made := w.root().must(201, "PUT", path, groupBody("Readers"))
	if made.str("name") != id || made.str("properties", "displayName") != "Readers" || made.str("type") != "Innate.Directory/groups" {
		t.Errorf("made %s", made.text)
	}
	w.root().must(200, "PUT", strings.ToUpper(path), groupBody("Writers"))
	if got := w.root().must(200, "GET", path, ""); got.str("properties", "displayName") != "Writers" || got.str("id") != path {
		t.Errorf("renamed it is %s", got.text)
	}
	p, q := w.as(tenantA, "p"), w.as(tenantA, "q")
	inner := w.group("Inner", p.oid)
	w.root().must(201, "PUT", memberPath(id, inner), "")
	w.root().must(200, "PUT", memberPath(id, strings.ToUpper(inner)), "")
	w.root().must(201, "PUT", memberPath(id, q.oid), "")
	if got := w.root().must(200, "GET", path+"/members", ""); len(got.values()) != 2 || !strings.Contains(got.text, inner) || !strings.Contains(got.text, q.oid) {
		t.Errorf("its members are %s", got.text)
	}
	list := func(filter string) string {
		return w.names(w.root().must(200, "GET", groupsPath+"?api-version=2024-01-01&$filter="+filter, ""))
	}
	if got := list("DISPLAYNAME%20eq%20'writers'"); got != id {
		t.Errorf("by name there is %q", got)
	}
	if got := list("hasMember('" + p.oid + "')"); len(strings.Fields(got)) != 2 || !strings.Contains(got, id) {
		t.Errorf("p is in %q, want both groups", got)
	}
	w.root().must(200, "DELETE", memberPath(id, q.oid), "")
	w.root().must(204, "DELETE", memberPath(id, q.oid), "")
	w.root().must(200, "DELETE", path, "")
	w.root().must(204, "DELETE", path, "")
	w.root().refused(404, "ResourceNotFound", "GET", path, "")
	if got := list("hasMember('" + p.oid + "')"); got != inner {
		t.Errorf("p is in %q, want the inner group", got)
	}
}

func TestGroupsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addTenant(tenantB)
	p, foreign := w.as(tenantA, "p"), w.as(tenantB, "p")
	a, b, c := w.group("a"), w.group("b"), w.group("c")
	w.root().must(201, "PUT", memberPath(a, b), "")
	w.root().must(201, "PUT", memberPath(b, c), "")
	for _, tt := range []struct {
		status             int
		code, method, path string
		body               string
	}{
		{400, "InvalidRequestContent", "PUT", memberPath(a, a), ""}, // in itself
		{400, "InvalidRequestContent", "PUT", memberPath(c, a), ""}, // in itself, by way of b
		{400, "PrincipalNotFound", "PUT", memberPath(a, uuid.NewString()), ""},
		{400, "PrincipalNotFound", "PUT", memberPath(a, foreign.oid), ""},
		{400, "PrincipalNotFound", "PUT", memberPath(a, p.client), ""},
		{400, "InvalidRequestContent", "PUT", memberPath(a, "me"), ""},
		{404, "ResourceNotFound", "PUT", memberPath(uuid.NewString(), p.oid), ""},
		{404, "ResourceNotFound", "GET", groupsPath + "/" + p.oid, ""}, // is no group
		{404, "ResourceNotFound", "GET", groupsPath + "/" + uuid.NewString() + "/members", ""},
		{409, "Conflict", "PUT", groupsPath + "/" + p.oid, groupBody("x")}, // would become the machine
		{400, "InvalidRequestContent", "PUT", groupsPath + "/x", groupBody("x")},
		{400, "InvalidRequestContent", "PUT", groupsPath + "/" + uuid.NewString(), groupBody("")},
		{400, "InvalidRequestContent", "PUT", groupsPath + "/" + uuid.NewString(), groupBody(" x")},
		{400, "InvalidRequestContent", "PUT", groupsPath + "/" + uuid.NewString(), groupBody(strings.Repeat("x", 257))},
		{400, "InvalidRequestContent", "PUT", groupsPath + "/" + uuid.NewString(), `{"properties":{"displayName":"x","DisplayName":"y"}}`},
		{400, "InvalidRequestContent", "PUT", groupsPath + "/" + uuid.NewString(), `{"properties":1}`},
		{400, "InvalidRequestContent", "GET", sub + groupsPath, ""},
		{400, "InvalidRequestContent", "PUT", g1 + memberPath(a, p.oid), ""},
		{400, "InvalidFilterInQueryString", "GET", groupsPath + "?api-version=2024-01-01&$filter=name%20eq%20'x'", ""},
		{400, "InvalidFilterInQueryString", "GET", groupsPath + "?api-version=2024-01-01&$filter=hasMember('x", ""},
		{405, "MethodNotAllowed", "PATCH", groupsPath + "/" + a, `{}`},
	} {
		w.root().refused(tt.status, tt.code, tt.method, tt.path, tt.body)
	}
	// A group is the tenant's: none of this is a subscription owner's to do or see.
	for _, c := range []*caller{w.owner, w.as(tenantA, "contributor", roleContributor+" "+sub), w.as(tenantA, "nobody")} {
		c.refused(403, "AuthorizationFailed", "PUT", groupsPath+"/"+uuid.NewString(), groupBody("x"))
		c.refused(403, "AuthorizationFailed", "PUT", memberPath(a, c.oid), "")
		c.refused(403, "AuthorizationFailed", "DELETE", memberPath(a, b), "")
		c.refused(403, "AuthorizationFailed", "DELETE", groupsPath+"/"+a, "")
		c.refused(403, "AuthorizationFailed", "GET", groupsPath+"/"+a, "")
		c.refused(403, "AuthorizationFailed", "GET", groupsPath+"/"+uuid.NewString(), "") // there or not
		c.refused(403, "AuthorizationFailed", "GET", groupsPath, "")
	}
	// Nor another tenant's, whose root reads alike.
	other := w.as(tenantB, "top", roleOwner+" /")
	other.refused(404, "ResourceNotFound", "GET", groupsPath+"/"+a, "")
	other.refused(404, "ResourceNotFound", "PUT", memberPath(a, other.oid), "")
	other.must(204, "DELETE", groupsPath+"/"+a, "")
	w.root().must(200, "GET", groupsPath+"/"+a, "")
}

// TestMembershipCountsAtOnce, also for tokens that are out, and through groups
// in groups.
func TestMembershipCountsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, secret := w.vault("kv1")
	app := w.as(tenantA, "app").forVaults()
	inner := w.group("Inner")
	outer := w.group("Outer", inner)
	w.owner.must(201, "PUT", assignmentID(id, name1), strings.Replace(assignmentBody(roleSecrets, outer), "ServicePrincipal", "Group", 1))
	read := func(status int) {
		t.Helper()
		if r := app.do("GET", secret, ""); r.status != status {
			t.Fatalf("reading the secret answers %d %s, want %d", r.status, r.text, status)
		}
	}
	for range 2 {
		read(403)
		w.root().must(201, "PUT", memberPath(inner, app.oid), "")
		read(200)
		w.root().must(200, "DELETE", memberPath(inner, app.oid), "")
	}
	w.root().must(201, "PUT", memberPath(inner, app.oid), "")
	read(200)
	w.root().must(200, "DELETE", groupsPath+"/"+outer, "")
	read(403)
	w.owner.refused(404, "ResourceNotFound", "GET", assignmentID(id, name1), "") // went with the group
}

// TestGroupIsNoWayToARole: who may change groups, but give no roles, puts
// nobody into a group that has one.
func TestGroupIsNoWayToARole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	contributor := w.as(tenantA, "contributor", roleContributor+" /")
	plain, inner := w.group("Plain"), w.group("Inner")
	owners := w.group("Owners", inner)
	w.root().must(201, "PUT", assignmentID("/", name1), strings.Replace(assignmentBody(roleOwner, owners), "ServicePrincipal", "Group", 1))
	contributor.must(201, "PUT", memberPath(plain, contributor.oid), "")
	contributor.refused(403, "LinkedAuthorizationFailed", "PUT", memberPath(owners, contributor.oid), "")
	contributor.refused(403, "LinkedAuthorizationFailed", "PUT", memberPath(inner, contributor.oid), "")
	contributor.refused(403, "LinkedAuthorizationFailed", "PUT", memberPath(owners, plain), "") // and so himself
	contributor.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name2), assignmentBody(roleReader, contributor.oid))
	// Taking somebody out gives nobody anything.
	contributor.must(200, "DELETE", memberPath(owners, inner), "")
	contributor.must(201, "PUT", memberPath(inner, contributor.oid), "")
	w.root().must(201, "PUT", memberPath(owners, inner), "")
	contributor.must(201, "PUT", assignmentID(sub, name2), assignmentBody(roleReader, contributor.oid))
}

// TestTokenOfADeadIdentityIsNoGroups: a group is nobody who has tokens, also one
// that was made under the object id of an identity that had some.
func TestTokenOfADeadIdentityIsNoGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, secret := w.vault("dead")
	gone := w.as(tenantA, "gone", roleSecrets+" "+g1)
	token := gone.forVaults()
	token.must(200, "GET", secret, "")
	w.write(func(tx arm.Tx) error { return tx.DeleteTree(gone.id.Key()) })
	token.refused401(secret)
	w.root().must(201, "PUT", groupsPath+"/"+gone.oid, groupBody("anew"))
	w.root().must(201, "PUT", assignmentID(g1, uuid.NewString()), strings.Replace(assignmentBody(roleSecrets, gone.oid), "ServicePrincipal", "Group", 1))
	token.refused401(secret)
	if r := gone.do("GET", g1, ""); r.status != 401 {
		t.Errorf("the management API answers %d %s", r.status, r.text)
	}
}
