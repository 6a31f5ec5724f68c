package arm_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/resource"
)

const name1, name2 = "00000000-0000-4000-8000-0000000000d1", "00000000-0000-4000-8000-0000000000d2"

func TestRoleAssignmentLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.as(tenantA, "who")
	id := assignmentID(g1, name1)
	made := w.owner.must(201, "PUT", id, assignmentBody(roleReader, who.oid))
	compareGolden(t, "assignment.json", normalize(indent(t, made.body)))
	who.must(200, "GET", g1, "")
	same := w.owner.must(200, "PUT", strings.ToUpper(id), assignmentBody(strings.ToUpper(roleReader), strings.ToUpper(who.oid)))
	if diff := cmp.Diff(made.body, same.body); diff != "" {
		t.Errorf("the repeat answers something else (-first +repeat):\n%s", diff)
	}
	r := w.owner.refused(409, "RoleAssignmentExists", "PUT", assignmentID(g1, name2), assignmentBody(roleReader, who.oid))
	if !strings.Contains(r.text, strings.ReplaceAll(name1, "-", "")) {
		t.Errorf("the refusal does not name the existing one: %s", r.text)
	}
	other := w.as(tenantA, "other")
	w.owner.refused(400, "RoleAssignmentUpdateNotPermitted", "PUT", id, assignmentBody(roleOwner, who.oid))
	w.owner.refused(400, "RoleAssignmentUpdateNotPermitted", "PUT", id, assignmentBody(roleReader, other.oid))
	described := w.owner.must(200, "PUT", id, strings.Replace(assignmentBody(roleReader, who.oid), `"principalType"`, `"description":"for the build","principalType"`, 1))
	if described.str("properties", "description") != "for the build" {
		t.Errorf("the description is not changed: %s", described.text)
	}
	if diff := cmp.Diff(described.body, w.owner.must(200, "GET", id, "").body); diff != "" {
		t.Errorf("GET differs from PUT (-put +get):\n%s", diff)
	}
	gone := w.owner.must(200, "DELETE", id, "")
	if diff := cmp.Diff(described.body, gone.body); diff != "" {
		t.Errorf("DELETE does not answer what was deleted (-was +answer):\n%s", diff)
	}
	w.owner.must(204, "DELETE", id, "")
	w.owner.refused(404, "ResourceNotFound", "GET", id, "")
	who.refused(403, "AuthorizationFailed", "GET", g1, "") // at once
	w.owner.refused(405, "MethodNotAllowed", "PATCH", id, `{}`)
}

func TestRoleAssignmentsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addTenant(tenantB)
	who, foreign := w.as(tenantA, "who"), w.as(tenantB, "who")
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(201, "PUT", g1+"/providers/Microsoft.KeyVault/vaults/kv1", local)
	w.owner.must(201, "PUT", assignmentID(g1, name1), assignmentBody(roleReader, who.oid))
	good := assignmentBody(roleReader, who.oid)
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	with := func(member string) string { return swap(`"principalType"`, member+`,"principalType"`) }
	const definitions = sub + "/providers/Microsoft.Authorization/roleDefinitions/"
	for _, tt := range []struct {
		status int
		code   string
		scope  string
		name   string
		body   string
	}{
		{400, "PrincipalNotFound", g1, name2, assignmentBody(roleReader, uuid.NewString())},
		{400, "PrincipalNotFound", g1, name2, assignmentBody(roleReader, foreign.oid)}, // is in another tenant
		{400, "PrincipalNotFound", g1, name2, assignmentBody(roleReader, who.client)},  // a client id is no object id
		{404, "RoleDefinitionDoesNotExist", g1, name2, assignmentBody(uuid.NewString(), who.oid)},
		{404, "RoleDefinitionDoesNotExist", g1, name2, assignmentBody("Reader", who.oid)},
		{400, "InvalidRequestContent", g1, name2, swap(definitions+roleReader, roleReader)},
		{400, "InvalidRequestContent", g1, name2, swap(definitions+roleReader, vms+"/vm1")},
		{400, "InvalidRequestContent", g1, name2, swap(definitions+roleReader, "")},
		{400, "InvalidRequestContent", g1, name2, swap(definitions, definitions+"../roleDefinitions/")},
		{400, "InvalidRequestContent", g1, name2, assignmentBody(roleReader, "")},
		{400, "InvalidRequestContent", g1, name2, assignmentBody(roleReader, "me")},
		{400, "InvalidRequestContent", g1, name2, assignmentBody(roleReader, "{"+who.oid+"}")},
		{400, "InvalidRequestContent", g1, name2, assignmentBody(roleReader, strings.ReplaceAll(who.oid, "-", ""))},
		{400, "InvalidRequestContent", g1, "not-a-guid", good},
		{400, "InvalidRequestContent", g1, strings.ReplaceAll(name2, "-", ""), good},
		{400, "InvalidRequestContent", g1, name2, `{}`},
		{400, "InvalidRequestContent", g1, name2, `null`},
		{400, "InvalidRequestContent", g1, name2, `{"properties":[]}`},
		{400, "InvalidRequestContent", g1, name2, with(`"description":"` + strings.Repeat("x", 2049) + `"`)},
		{400, "InvalidRequestContent", g1, name2, strings.Replace(with(`"description":"\u0000"`), roleReader, roleOwner, 1)},
		{400, "NotSupported", g1, name2, with(`"condition":"@Resource[x] StringEquals 'y'"`)},
		{400, "NotSupported", g1, name2, with(`"conditionVersion":"2.0"`)},
		{400, "NotSupported", g1, name2, with(`"delegatedManagedIdentityResourceId":"` + vms + `/vm1"`)},
		// Said in two ways, of which the second takes the condition away.
		{400, "InvalidRequestContent", g1, name2, with(`"condition":"x","Condition":null`)},
		{400, "InvalidRequestContent", g1, name2, with(`"condition":"x","condition":null`)},
		{400, "InvalidRequestContent", g1, name2, with(`"PrincipalID":"` + w.owner.oid + `"`)},

		{404, "SubscriptionNotFound", "/subscriptions/none", name2, good},
		{404, "ResourceGroupNotFound", sub + "/resourceGroups/none", name2, good},
		{404, "ResourceNotFound", vms + "/none", name2, good},
		{404, "ResourceNotFound", g1 + "/providers/Microsoft.KeyVault/vaults/none/secrets/db", name2, good},
		{404, "InvalidResourceType", g1 + "/providers/Nobody.Knows/it/x", name2, good},
		{404, "InvalidResourceType", vms + "/vm1/providers/Nobody.Knows/it/x", name2, good},
		{404, "InvalidResourceType", g1 + "/providers/Microsoft.KeyVault/vaults/kv1/secrets/db/versions/1", name2, good},
		// A role at a role assignment would mean nothing.
		{404, "InvalidResourceType", assignmentID(g1, name1), name2, good},
		{404, "InvalidResourceType", definitions + roleReader, name2, good},
		{400, "InvalidRequestContent", sub + "/resourceGroups/g2/../g1", name2, good},
		{400, "InvalidRequestContent", sub + "/resourceGroups/..%2Fg1", name2, good},
		{400, "InvalidRequestContent", sub + "/resourceGroups/g1%3Fx", name2, good},
		{405, "MethodNotAllowed", g1 + "/providers", name2, good}, // a list, with the GUID as its type
		{404, "InvalidResourceType", g1, name1 + "/providers/Microsoft.Authorization/roleAssignments/" + name2, good},
	} {
		w.root().refused(tt.status, tt.code, "PUT", assignmentID(tt.scope, tt.name), tt.body)
	}
	l := w.root().must(200, "GET", "/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'"+who.oid+"'", "")
	if got := l.values(); len(got) != 1 || got[0]["name"] != name1 {
		t.Errorf("after refusals there is %s", l.text)
	}
}

// TestWhereRolesAreAssigned: who may assign at a scope, and that the right
// reaches no higher and no further.
func TestWhereRolesAreAssigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	vault := g1 + "/providers/Microsoft.KeyVault/vaults/kv1"
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(201, "PUT", vault, local)
	contributor := w.as(tenantA, "contributor", roleContributor+" "+sub)
	groupOwner := w.as(tenantA, "group-owner", roleOwner+" "+g1)
	reader := w.as(tenantA, "reader", roleReader+" "+sub)
	for _, tt := range []struct {
		scope string
		may   []*caller
		not   []*caller
	}{
		{"/", []*caller{w.root()}, []*caller{w.owner, contributor, groupOwner, reader}},
		{sub, []*caller{w.root(), w.owner}, []*caller{contributor, groupOwner, reader}},
		{g1, []*caller{w.owner, groupOwner}, []*caller{contributor, reader}},
		{g2, []*caller{w.owner}, []*caller{contributor, groupOwner, reader}},
		{strings.ToUpper(g2), nil, []*caller{groupOwner}},
		{g1 + "2", nil, []*caller{groupOwner}}, // begins as hers does
		{vms + "/vm1", []*caller{w.owner, groupOwner}, []*caller{contributor, reader}},
		{vault + "/secrets/db", []*caller{w.owner, groupOwner}, []*caller{contributor, reader}},
		// The double word does not make another scope of it.
		{sub + "/providers/x/resourceGroups/g1", nil, []*caller{groupOwner}},
	} {
		for i, c := range append(tt.may[:len(tt.may):len(tt.may)], tt.not...) {
			id := assignmentID(tt.scope, uuid.NewString())
			body := assignmentBody(roleReader, w.as(tenantA, "p-"+uuid.NewString()[:8]).oid)
			if i < len(tt.may) {
				r := c.must(201, "PUT", id, body)
				if got := r.str("properties", "scope"); got != tt.scope {
					t.Errorf("assigned at %s, the scope is %q", tt.scope, got)
				}
				c.must(200, "DELETE", id, "")
				continue
			}
			c.refused(403, "AuthorizationFailed", "PUT", id, body)
			c.refused(403, "AuthorizationFailed", "DELETE", id, "")
		}
	}
	// To oneself, and through somebody else's ID at one's own scope.
	contributor.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name1), assignmentBody(roleOwner, contributor.oid))
	mine := w.owner.assign(roleOwner, reader.oid, g2)
	groupOwner.refused(403, "AuthorizationFailed", "PUT", mine, assignmentBody(roleOwner, groupOwner.oid))
	groupOwner.refused(403, "AuthorizationFailed", "DELETE", mine, "")
	groupOwner.must(204, "DELETE", assignmentID(g1, mine[len(mine)-36:]), "")
	w.owner.must(200, "GET", mine, "")
	// A built-in role is the same one wherever its definition is looked up.
	body := strings.Replace(assignmentBody(roleReader, reader.oid), sub, "/subscriptions/"+uuid.NewString(), 1)
	if got := w.owner.must(201, "PUT", assignmentID(g1, name1), body).str("properties", "roleDefinitionId"); !strings.HasPrefix(got, sub+"/") {
		t.Errorf("the role is answered as %s, of another subscription", got)
	}
}

// TestRoleAtOneSecret reaches that secret and no other.
func TestRoleAtOneSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := g1 + "/providers/Microsoft.KeyVault/vaults/kv1"
	w.owner.must(201, "PUT", id, local)
	app := w.as(tenantA, "app")
	w.owner.assign(roleSecrets, app.oid, id+"/secrets/db")
	app.token = app.tokenFor("https://vault.azure.net")
	secrets := w.srv.Names.Vault("kv1") + "/secrets/"
	app.must(200, "PUT", secrets+"db?api-version=7.4", `{"value":"hunter2"}`)
	app.must(200, "GET", secrets+"DB?api-version=7.4", "")
	for _, path := range []string{"db2", "other"} {
		if r := app.do("PUT", secrets+path+"?api-version=7.4", `{"value":"x"}`); r.status != 403 {
			t.Errorf("with a role at one secret, setting %s answers %d", path, r.status)
		}
	}
	// Gone with the vault's own tree.
	w.owner.refused(409, "Conflict", "DELETE", id, "")
	app.must(200, "DELETE", secrets+"db?api-version=7.4", "")
	w.owner.refused(409, "Conflict", "DELETE", id, "") // it can be recovered
	w.owner.refused(409, "Conflict", "DELETE", g1, "")
	w.owner.must(200, "GET", id, "")
	app.must(204, "DELETE", w.srv.Names.Vault("kv1")+"/deletedsecrets/db?api-version=7.4", "")
	w.owner.must(200, "DELETE", id, "")
	if f, err := w.srv.DB.Facts(t.Context(), tenantA, app.oid, resource.Root); err != nil || len(f.Assignments) != 0 {
		t.Errorf("with the vault deleted its assignments are %v, %v", f.Assignments, err)
	}
	w.owner.must(201, "PUT", id, local)
	if r := app.do("GET", secrets+"db?api-version=7.4", ""); r.status != 403 {
		t.Errorf("a vault of the same name gives the old right: %d %s", r.status, r.text)
	}
}

func TestRoleAssignmentLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	p, q := w.as(tenantA, "p"), w.as(tenantA, "q")
	byID := map[string]string{}
	for _, a := range []struct{ label, oid, scope string }{{"p at sub", p.oid, sub}, {"p at g1", p.oid, g1}, {"p at g2", p.oid, g2}, {"q at g1", q.oid, g1}} {
		byID[w.owner.assign(roleReader, a.oid, a.scope)] = a.label
	}
	byID[assignmentID(sub, "")] = "" // the owner's own is not of interest
	of := func(oid string) string { return "%20eq%20'" + oid + "'" }
	for _, tt := range []struct {
		scope, filter string
		want          string
	}{
		{g1, "", "p at g1, p at sub, q at g1"},
		{g1, "atScope()", "p at g1, p at sub, q at g1"},
		{sub, "atScope()", "p at sub"},
		{sub, "", "p at g1, p at g2, p at sub, q at g1"},
		{sub, "principalId" + of(p.oid), "p at g1, p at g2, p at sub"},
		{sub, "PrincipalID" + of(strings.ToUpper(p.oid)), "p at g1, p at g2, p at sub"},
		{sub, "atScope()%20and%20principalId" + of(p.oid), "p at sub"},
		{g1, "atScope()+and+assignedTo('" + q.oid + "')", "q at g1"},
		{g1, "assignedTo('" + p.client + "')", ""},
		{g2, "principalId" + of(q.oid), ""},
	} {
		l := w.owner.must(200, "GET", tt.scope+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter="+tt.filter, "")
		var got []string
		for _, label := range []string{"p at g1", "p at g2", "p at sub", "q at g1"} {
			for _, v := range l.values() {
				if byID[v["id"].(string)] == label {
					got = append(got, label)
				}
			}
		}
		if g := strings.Join(got, ", "); g != tt.want {
			t.Errorf("at %s with %q: %s, want %s", tt.scope, tt.filter, g, tt.want)
		}
	}
	list := sub + "/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter="
	for _, filter := range []string{"x", "principalId%20ne%20'x'", "atScope()%20or%20atScope()", "principalId" + of(p.oid) + "%20and%20principalId" + of(q.oid)} {
		w.owner.refused(400, "InvalidFilterInQueryString", "GET", list+filter, "")
	}
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", list, "")
}

func TestRoleDefinitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := sub + "/providers/Microsoft.Authorization/roleDefinitions"
	if n := len(w.owner.must(200, "GET", all, "").values()); n < 10 {
		t.Errorf("there are %d roles", n)
	}
	one := w.owner.must(200, "GET", all+"?api-version=2022-04-01&$filter=roleName%20eq%20'reader'", "").values()
	if len(one) != 1 || one[0]["name"] != roleReader {
		t.Errorf("the role Reader is %v", one)
	}
	if diff := cmp.Diff(one[0], w.owner.must(200, "GET", all+"/"+strings.ToUpper(roleReader), "").body); diff != "" {
		t.Errorf("GET differs from the list (-list +get):\n%s", diff)
	}
	w.owner.refused(404, "RoleDefinitionDoesNotExist", "GET", all+"/"+uuid.NewString(), "")
	w.owner.refused(400, "NotSupported", "PUT", all+"/"+uuid.NewString(), `{}`)
	w.owner.refused(400, "InvalidFilterInQueryString", "GET", all+"?api-version=2022-04-01&$filter=type%20eq%20'CustomRole'", "")
}
