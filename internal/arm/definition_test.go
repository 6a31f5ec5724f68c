package arm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// roleBody is a custom role with actions, assignable at a scope.
func roleBody(name, scope string, actions ...string) string {
	b, _ := json.Marshal(map[string]any{"properties": map[string]any{
		"roleName": name, "type": "CustomRole", "description": "for a test", "assignableScopes": []string{scope},
		"permissions": []any{map[string]any{"actions": actions}},
	}})
	return string(b)
}

func rolePath(scope, id string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleDefinitions/" + id
}

// role makes a custom role and returns its GUID.
func (c *caller) role(name, scope string, actions ...string) string {
	c.w.t.Helper()
	id := uuid.NewString()
	c.must(201, "PUT", rolePath(scope, id), roleBody(name, scope, actions...))
	return id
}

func TestCustomRoleLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uuid.NewString()
	path := rolePath(sub, id)
	made := w.owner.must(201, "PUT", path, roleBody("Machine Reader", sub, "Microsoft.Compute/*/read"))
	again := w.owner.must(201, "PUT", rolePath(sub, strings.ToUpper(id)), roleBody("Machine Reader", sub, "Microsoft.Compute/*/read"))
	if diff := cmp.Diff(made.body, again.body); diff != "" {
		t.Errorf("the repeat answers something else (-first +repeat):\n%s", diff)
	}
	if diff := cmp.Diff(made.body, w.owner.must(200, "GET", path, "").body); diff != "" {
		t.Errorf("GET differs from PUT (-put +get):\n%s", diff)
	}
	if made.str("properties", "type") != "CustomRole" || made.str("properties", "roleName") != "Machine Reader" || made.str("id") != path {
		t.Errorf("made %s", made.text)
	}
	list := func(scope, filter string) string {
		return w.names(w.owner.must(200, "GET", scope+"/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01&$filter="+filter, ""))
	}
	below := w.owner.role("Below", g1, "*/read")
	for _, tt := range []struct{ scope, filter, want string }{
		{sub, "type%20eq%20'customrole'", id},
		{sub, "roleName%20eq%20'MACHINE%20reader'", id},
		{sub, "roleName%20eq%20'x'", ""},
		{g1, "roleName%20eq%20'Machine%20Reader'%20and%20type%20eq%20'CustomRole'", id},
		{sub, "roleName%20eq%20'Below'", ""},
		{sub, "atScopeAndBelow()%20and%20roleName%20eq%20'Below'", below},
		{sub, "roleName%20eq%20'Machine%20Reader'%20and%20type%20eq%20'BuiltInRole'", ""},
	} {
		if got := list(tt.scope, tt.filter); got != tt.want {
			t.Errorf("at %s with %s there is %q, want %q", tt.scope, tt.filter, got, tt.want)
		}
	}
	// A change counts at once.
	w.owner.must(201, "PUT", vms+"/vm1", local)
	who := w.as(tenantA, "who")
	as := w.owner.assign(id, who.oid, g1)
	who.must(200, "GET", vms+"/vm1", "")
	w.owner.must(201, "PUT", path, roleBody("Machine Reader", sub, "Microsoft.Web/*/read"))
	who.refused(403, "AuthorizationFailed", "GET", vms+"/vm1", "")
	// It stays while somebody has it, and assignable where somebody has it.
	w.owner.refused(400, "RoleDefinitionHasAssignments", "DELETE", path, "")
	w.owner.refused(400, "RoleDefinitionHasAssignments", "PUT", path, roleBody("Machine Reader", vms+"/vm1", "*/read"))
	w.owner.must(201, "PUT", path, roleBody("Machine Reader", g1, "*/read"))
	w.owner.refused(404, "RoleDefinitionDoesNotExist", "PUT", assignmentID(sub, name1), assignmentBody(id, who.oid)) // not there
	w.owner.must(200, "DELETE", as, "")
	w.owner.must(200, "DELETE", path, "")
	w.owner.must(204, "DELETE", path, "")
	w.owner.refused(404, "RoleDefinitionDoesNotExist", "GET", path, "")
	w.owner.refused(404, "RoleDefinitionDoesNotExist", "PUT", assignmentID(g1, name1), assignmentBody(id, who.oid))
}

func TestCustomRolesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.role("Taken", sub, "*/read")
	path := rolePath(sub, uuid.NewString())
	good := roleBody("Mine", sub, "*/read")
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tt := range []struct {
		status     int
		code, body string
	}{
		{409, "RoleDefinitionWithSameNameExists", roleBody("tAKEN", sub, "*/read")},
		{409, "RoleDefinitionWithSameNameExists", roleBody("owner", sub, "*/read")}, // a built-in one's
		{400, "InvalidRequestContent", roleBody("", sub, "*/read")},
		{400, "InvalidRequestContent", roleBody("Mine ", sub, "*/read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub)},
		{400, "InvalidRequestContent", roleBody("Mine", "", "*/read")},
		{400, "InvalidRequestContent", roleBody("Mine", "subscriptions/x", "*/read")},
		{404, "SubscriptionNotFound", roleBody("Mine", "/subscriptions/"+name1, "*/read")},
		{404, "ResourceGroupNotFound", roleBody("Mine", sub+"/resourceGroups/none", "*/read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "Microsoft.Compute/**")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "Microsoft.Compute//read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "/Microsoft.Compute/read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "Microsoft.Compute/virtual machines/read")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "Microsoft.Compute/virtualMachines/start")},
		{400, "InvalidRequestContent", roleBody("Mine", sub, "")},
		{400, "InvalidRequestContent", swap("CustomRole", "BuiltInRole")},
		{400, "InvalidRequestContent", swap(`"actions"`, `"condition":"x y","conditionVersion":"2.0","actions"`)},
		{400, "InvalidRequestContent", swap(`"roleName"`, `"RoleName":"x","roleName"`)},
		{400, "InvalidRequestContent", swap(`["`+sub+`"]`, `[]`)},
		{400, "InvalidRequestContent", swap(`[{`, `[],"x":[{`)},
		{400, "InvalidRequestContent", `null`},
	} {
		w.root().refused(tt.status, tt.code, "PUT", path, tt.body)
	}
	w.root().refused(400, "InvalidRequestContent", "PUT", rolePath(sub, "x"), good)
	if r := w.owner.refused(400, "InvalidRequestContent", "PUT", path, roleBody("Mine", sub, "Microsoft.Compute/start")); !strings.Contains(r.text, "Microsoft.Compute/start") {
		t.Errorf("the refusal does not name the action: %s", r.text)
	}
	w.owner.refused(404, "RoleDefinitionDoesNotExist", "GET", path, "")
	// Who sees a role: at, above and below where it can be assigned.
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	ofG1 := w.owner.role("Of g1", g1, "*/read")
	beside := w.as(tenantA, "beside", roleReader+" "+g2)
	beside.refused(404, "RoleDefinitionDoesNotExist", "GET", rolePath(g2, ofG1), "")
	beside.refused(403, "AuthorizationFailed", "GET", rolePath(g1, ofG1), "")
	w.addTenant(tenantB)
	w.as(tenantB, "top", roleOwner+" /").refused(404, "RoleDefinitionDoesNotExist", "GET", rolePath("/", ofG1), "")
}

// TestCustomRoleIsNoWayUp: nobody widens what he has by saying what a role is.
func TestCustomRoleIsNoWayUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	wide := func(scope string) string { return roleBody("Plain", scope, "*") }
	// A role that holds the right to write roles, and no right to give any.
	definer := w.owner.role("Definer", sub, "Microsoft.Authorization/roleDefinitions/*", "Microsoft.Authorization/roleAssignments/read")
	plain := w.owner.role("Plain", sub, "*/read")
	d := w.as(tenantA, "definer")
	w.owner.assign(definer, d.oid, sub)
	w.owner.assign(plain, d.oid, sub)
	// Not the role that he has, not his own right, not a new one under a GUID
	// that somebody may be allowed to assign.
	d.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, plain), wide(sub))
	d.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, definer), roleBody("Definer", sub, "*"))
	d.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, uuid.NewString()), roleBody("New", sub, "*"))
	d.refused(400, "RoleDefinitionHasAssignments", "DELETE", rolePath(sub, plain), "")
	// Who owns one group does not change, by way of it, a role of another one or
	// of all; nor make his own role assignable elsewhere.
	groupOwner := w.as(tenantA, "group-owner", roleOwner+" "+g2)
	groupOwner.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(g2, plain), wide(g2))
	groupOwner.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(g2, uuid.NewString()), roleBody("Mine", sub, "*"))
	groupOwner.refused(403, "AuthorizationFailed", "PUT", rolePath(sub, uuid.NewString()), roleBody("Mine", g2, "*"))
	groupOwner.refused(403, "LinkedAuthorizationFailed", "DELETE", rolePath(g2, w.owner.role("Unused", sub, "*/read")), "")
	mine := groupOwner.role("Mine", g2, "*/read")
	groupOwner.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(g2, mine), roleBody("Mine", g1, "*"))
	for _, c := range []*caller{w.as(tenantA, "contributor", roleContributor+" "+sub), w.as(tenantA, "reader", roleReader+" "+sub)} {
		c.refused(403, "AuthorizationFailed", "PUT", rolePath(sub, plain), wide(sub))
		c.refused(403, "AuthorizationFailed", "DELETE", rolePath(sub, plain), "")
	}
	if got := w.owner.must(200, "GET", rolePath(sub, plain), "").text; !strings.Contains(got, `["*/read"]`) {
		t.Errorf("the role is now %s", got)
	}
}

const (
	roleAdmin  = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9" // User Access Administrator
	roleDelete = "Microsoft.Authorization/roleAssignments/delete"
)

// onlyRole is the condition of who may give and take one role alone, and to
// service principals alone.
func onlyRole(role string) string {
	return "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR " +
		"(@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {" + role + "} AND " +
		"@Request[Microsoft.Authorization/roleAssignments:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {'ServicePrincipal'})) AND " +
		"((!(ActionMatches{'" + roleDelete + "'})) OR " +
		"(@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {" + role + "}))"
}

func withCondition(body, condition string) string {
	c, _ := json.Marshal(condition)
	return strings.Replace(body, `"principalType"`, `"condition":`+string(c)+`,"conditionVersion":"2.0","principalType"`, 1)
}

// TestDelegateStaysWithinItsCondition: who may give some roles gives no others,
// and does not get rid of the condition, whichever way he tries.
func TestDelegateStaysWithinItsCondition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plain := w.owner.role("Plain", sub, "*/read")
	d, p := w.as(tenantA, "delegate"), w.as(tenantA, "p")
	mine := assignmentID(sub, name1)
	body := withCondition(assignmentBody(roleAdmin, d.oid), onlyRole(plain))
	made := w.owner.must(201, "PUT", mine, body)
	if made.str("properties", "condition") != onlyRole(plain) || made.str("properties", "conditionVersion") != "2.0" {
		t.Errorf("the condition is answered as %s", made.text)
	}
	id := d.assign(plain, p.oid, g1)
	p.must(200, "GET", g1, "")
	d.must(200, "DELETE", id, "")
	// Another role, also to himself; a group; another's assignment.
	d.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name2), assignmentBody(roleReader, p.oid))
	d.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name2), assignmentBody(roleOwner, d.oid))
	group := w.group("G", d.oid)
	d.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name2), assignmentBody(plain, group)) // called a service principal
	d.refused(403, "AuthorizationFailed", "DELETE", w.owner.assign(roleReader, p.oid, g1), "")
	d.refused(403, "AuthorizationFailed", "PUT", assignmentID(sub, name2), `{"properties":{}}`)
	// His own condition: taken away, widened, deleted.
	d.refused(403, "AuthorizationFailed", "PUT", mine, assignmentBody(roleAdmin, d.oid))
	d.refused(403, "AuthorizationFailed", "PUT", mine, withCondition(assignmentBody(roleAdmin, d.oid), onlyRole(roleOwner)))
	d.refused(403, "AuthorizationFailed", "DELETE", mine, "")
	d.refused(400, "RoleAssignmentUpdateNotPermitted", "PUT", mine, assignmentBody(plain, d.oid))
	// The role that the condition names: what it is, or what comes after it. He
	// has roleDefinitions/write, for the condition is about other actions.
	d.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, plain), roleBody("Plain", sub, "*"))
	d.refused(403, "LinkedAuthorizationFailed", "DELETE", rolePath(sub, plain), "")
	d.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, uuid.NewString()), roleBody("New", sub, "*"))
	// Nor does he shut out those who could take it from him.
	d.refused(403, "LinkedAuthorizationFailed", "PUT", denialPath(sub, name1), denialBody("No owner", `"*"`, w.owner.oid))
	if got := w.owner.must(200, "GET", mine, "").str("properties", "condition"); got != onlyRole(plain) {
		t.Errorf("the condition is now %q", got)
	}
	// Its owner may, and it counts at once.
	w.owner.must(200, "PUT", mine, withCondition(assignmentBody(roleAdmin, d.oid), onlyRole(roleReader)))
	d.must(201, "PUT", assignmentID(sub, name2), assignmentBody(roleReader, p.oid))
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.as(tenantA, "who", roleReader+" "+g1)
	w.owner.must(201, "PUT", assignmentID(sub, name1), withCondition(assignmentBody(roleAdmin, who.oid), onlyRole(roleReader)))
	team := w.group("Team", who.oid)
	w.root().must(201, "PUT", assignmentID(g1, name1), strings.Replace(assignmentBody(roleContributor, team), "ServicePrincipal", "Group", 1))
	of := func(scope string) []map[string]any {
		return who.must(200, "GET", scope+"/providers/Microsoft.Authorization/permissions", "").values()
	}
	if got := of(g1); len(got) != 3 {
		t.Errorf("at the group there are %d blocks, want 3: %v", len(got), got)
	}
	if got := of(sub); len(got) != 1 || got[0]["condition"] != onlyRole(roleReader) {
		t.Errorf("at the subscription there is %v, want the administrator's block with its condition", got)
	}
	if got := w.as(tenantA, "nobody").must(200, "GET", sub+"/providers/Microsoft.Authorization/permissions", "").values(); len(got) != 0 {
		t.Errorf("nobody has %v", got)
	}
	who.refused(405, "MethodNotAllowed", "PUT", sub+"/providers/Microsoft.Authorization/permissions", `{}`)
}

// TestRightsAtManagementGroups: roles, denials and custom roles count below a
// management group, and are made by who has the right there.
func TestRightsAtManagementGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.root().must(200, "PUT", mgs+"/near", `{"properties":{"displayName":"Near"}}`)
	w.root().must(200, "PUT", mgs+"/deep", below(mgs+"/near"))
	w.root().must(200, "PUT", mgs+"/aside", `{"properties":{"displayName":"Aside"}}`)
	w.root().must(200, "PUT", mgs+"/deep"+sub, "")
	w.owner.must(201, "PUT", vms+"/vm1", local)
	p := w.as(tenantA, "p")
	role := w.root().role("Machines", mgs+"/near", "Microsoft.Compute/*/read")
	w.owner.refused(403, "LinkedAuthorizationFailed", "PUT", rolePath(sub, role), roleBody("Machines", mgs+"/near", "*"))
	w.owner.refused(403, "AuthorizationFailed", "PUT", assignmentID(mgs+"/near", name1), assignmentBody(role, p.oid))
	w.root().refused(404, "ResourceNotFound", "PUT", assignmentID(mgs+"/none", name1), assignmentBody(roleReader, p.oid))
	w.root().refused(404, "RoleDefinitionDoesNotExist", "PUT", assignmentID(mgs+"/aside", name1), assignmentBody(role, p.oid))
	w.root().refused(404, "RoleDefinitionDoesNotExist", "PUT", assignmentID("/", name1), assignmentBody(role, p.oid))
	for _, scope := range []string{mgs + "/near", mgs + "/deep", sub, g1} { // at each, and so below it
		id := w.root().assign(role, p.oid, scope)
		p.must(200, "GET", vms+"/vm1", "")
		w.root().must(200, "DELETE", id, "")
		p.refused(403, "AuthorizationFailed", "GET", vms+"/vm1", "")
	}
	w.root().assign(role, p.oid, mgs+"/near")
	if got := w.owner.must(200, "GET", g1+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'"+p.oid+"'", "").values(); len(got) != 1 {
		t.Errorf("below the group the list has %v", got)
	}
	if got := w.names(w.owner.must(200, "GET", sub+"/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01&$filter=type%20eq%20'CustomRole'", "")); got != role {
		t.Errorf("below the group there are the roles %q", got)
	}
	w.root().must(201, "PUT", denialPath(mgs+"/near", name1), denialBody("No machines", `"Microsoft.Compute/*"`, p.oid))
	p.refused(403, "AuthorizationFailed", "GET", vms+"/vm1", "")
	w.root().must(200, "DELETE", denialPath(mgs+"/near", name1), "")
	p.must(200, "GET", vms+"/vm1", "")
}
