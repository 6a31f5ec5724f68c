package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
)

func denialPath(scope, id string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/denyAssignments/" + id
}

// denialBody denies an action, as JSON has it, to principals; what comes after
// "but" is left out.
func denialBody(name, action string, principals ...string) string {
	lists := [2][]map[string]string{{}, {}}
	to := 0
	for _, p := range principals {
		if p == "but" {
			to = 1
			continue
		}
		lists[to] = append(lists[to], map[string]string{"id": p})
	}
	who, _ := json.Marshal(lists[0])
	but, _ := json.Marshal(lists[1])
	return fmt.Sprintf(`{"properties":{"denyAssignmentName":%q,"permissions":[{"actions":[%s],"dataActions":[%s]}],"principals":%s,"excludePrincipals":%s}}`, name, action, action, who, but)
}

func TestDenialLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, secret := w.vault("kv1")
	app := w.as(tenantA, "app", roleSecrets+" "+sub, roleReader+" "+sub)
	reader := app.forVaults()
	read := func(status int) {
		t.Helper()
		if r := reader.do("GET", secret, ""); r.status != status {
			t.Fatalf("reading the secret answers %d %s, want %d", r.status, r.text, status)
		}
	}
	read(200)
	path := denialPath(g1, name1)
	made := w.owner.must(201, "PUT", path, denialBody("No secrets", `"Microsoft.KeyVault/vaults/secrets/*"`, app.oid))
	read(403) // with the token that was out
	if diff := cmp.Diff(made.body, w.owner.must(200, "GET", path, "").body); diff != "" {
		t.Errorf("GET differs from PUT (-put +get):\n%s", diff)
	}
	app.must(200, "GET", g1, "") // what is not denied
	w.owner.must(200, "PUT", path, strings.Replace(denialBody("No reading", `"*/read"`, app.oid), `"denyAssignmentName"`, `"doNotApplyToChildScopes":true,"denyAssignmentName"`, 1))
	read(200)
	app.refused(403, "AuthorizationFailed", "GET", g1, "")
	w.owner.must(201, "PUT", vms+"/vm1", local)
	app.must(200, "GET", vms+"/vm1", "") // below
	// By a group, and everyone but a group.
	team := w.group("Team", app.oid)
	w.root().must(200, "PUT", path, denialBody("No team", `"*"`, team))
	read(403)
	w.root().must(200, "PUT", path, denialBody("Team alone", `"*"`, access.Everyone, "but", team, w.root().oid))
	read(200)
	w.owner.refused(403, "AuthorizationFailed", "GET", g1, "")
	w.root().must(200, "DELETE", path, "")
	w.root().must(204, "DELETE", path, "")
	w.owner.must(200, "GET", g1, "")
	w.owner.refused(404, "ResourceNotFound", "GET", path, "")
	// It goes with its scope.
	w.owner.must(201, "PUT", denialPath(vms+"/vm1", name1), denialBody("x", `"*"`, app.oid))
	w.owner.must(200, "DELETE", vms+"/vm1", "")
	w.owner.must(201, "PUT", vms+"/vm1", local)
	app.must(200, "GET", vms+"/vm1", "")
}

func TestDenialLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, q := w.as(tenantA, "p"), w.as(tenantA, "q")
	team := w.group("Team", p.oid)
	for _, d := range []struct{ scope, id, body string }{
		{sub, name1, denialBody("One", `"a/read"`, p.oid)},
		{g1, name2, denialBody("Two", `"a/read"`, access.Everyone, "but", q.oid, w.owner.oid)},
		{g1, strings.Replace(name1, "d1", "d3", 1), denialBody("Three", `"a/read"`, team)},
	} {
		w.owner.must(201, "PUT", denialPath(d.scope, d.id), d.body)
	}
	for _, tt := range []struct{ scope, filter, want string }{
		{sub, "", "One Three Two"},
		{sub, "atScope()", "One"},
		{g1, "atScope()", "One Three Two"},
		{g1, "denyAssignmentName%20eq%20'two'", "Two"},
		{sub, "principalId%20eq%20'" + strings.ToUpper(q.oid) + "'", "Two"}, // which leaves it out
		{sub, "assignedTo('" + p.oid + "')", "One Three Two"},
		{sub, "assignedTo('" + q.oid + "')", ""},
	} {
		l := w.owner.must(200, "GET", tt.scope+"/providers/Microsoft.Authorization/denyAssignments?api-version=2022-04-01&$filter="+tt.filter, "")
		var got []string
		for _, name := range []string{"One", "Three", "Two"} {
			if strings.Contains(l.text, `"denyAssignmentName":"`+name+`"`) {
				got = append(got, name)
			}
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("at %s with %q: %s, want %s", tt.scope, tt.filter, g, tt.want)
		}
	}
	w.owner.refused(400, "NotSupported", "GET", sub+"/providers/Microsoft.Authorization/denyAssignments?api-version=2022-04-01&$filter=x", "")
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", denialPath(sub, name1), "")
}

func TestDenialsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.as(tenantA, "p")
	good := denialBody("x", `"*/read"`, p.oid)
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tt := range []struct {
		status           int
		code, path, body string
	}{
		{400, "InvalidRequestContent", denialPath(sub, "x"), good},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("", `"*/read"`, p.oid)},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("x", ``, p.oid)},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("x", `"read"`, p.oid)},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("x", `"*/read"`)},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("x", `"*/read"`, "everyone")},
		{400, "InvalidRequestContent", denialPath(sub, name1), denialBody("x", `"*/read"`, p.oid, "but", access.Everyone)},
		{400, "PrincipalNotFound", denialPath(sub, name1), denialBody("x", `"*/read"`, uuid.NewString())},
		{400, "PrincipalNotFound", denialPath(sub, name1), denialBody("x", `"*/read"`, p.oid, "but", uuid.NewString())},
		{400, "NotSupported", denialPath(sub, name1), swap(`"denyAssignmentName"`, `"isSystemProtected":true,"denyAssignmentName"`)},
		{400, "InvalidRequestContent", denialPath(sub, name1), swap(`"denyAssignmentName"`, `"scope":"`+g1+`","denyAssignmentName"`)},
		{400, "InvalidRequestContent", denialPath(sub, name1), swap(`"denyAssignmentName"`, `"condition":"x","denyAssignmentName"`)},
		{400, "InvalidRequestContent", denialPath(sub, name1), swap(`"principals"`, `"Principals":[],"principals"`)},
		{404, "ResourceGroupNotFound", denialPath(sub+"/resourceGroups/none", name1), good},
	} {
		w.owner.refused(tt.status, tt.code, "PUT", tt.path, tt.body)
	}
	w.as(tenantA, "contributor", roleContributor+" "+sub).refused(403, "AuthorizationFailed", "PUT", denialPath(sub, name1), good)
	w.owner.refused(403, "AuthorizationFailed", "PUT", denialPath("/", name1), good)
	if l := w.root().must(200, "GET", "/providers/Microsoft.Authorization/denyAssignments", "").values(); len(l) != 0 {
		t.Errorf("after refusals there is %v", l)
	}
}

// TestDenialHoldsWhomItDenies, who may try to take it away or to step aside; and
// shuts nobody out for good.
func TestDenialHoldsWhomItDenies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.as(tenantA, "second", roleOwner+" /")
	team := w.group("Team", second.oid)
	spared := w.group("Spared")
	path := denialPath(sub, name1)
	// Not oneself, also by a group or as one of all.
	w.root().refused(400, "InvalidRequestContent", "PUT", path, denialBody("x", `"*"`, access.Everyone))
	w.root().refused(400, "InvalidRequestContent", "PUT", path, denialBody("x", `"*"`, w.root().oid, second.oid))
	second.refused(400, "InvalidRequestContent", "PUT", path, denialBody("x", `"*"`, team))
	// Only some action is denied, so second has the right to change denials.
	w.root().must(201, "PUT", path, denialBody("No reading", `"*/read"`, access.Everyone, "but", spared, w.root().oid))
	w.root().must(201, "PUT", denialPath(sub, name2), denialBody("No team", `"Microsoft.Compute/*"`, team))
	for _, id := range []string{name1, name2} {
		second.refused(403, "AuthorizationFailed", "DELETE", denialPath(sub, id), "")
		second.refused(403, "AuthorizationFailed", "PUT", denialPath(sub, id), denialBody("x", `"a/read"`, w.owner.oid))
	}
	second.refused(403, "AuthorizationFailed", "PUT", memberPath(spared, second.oid), "")
	second.refused(403, "AuthorizationFailed", "DELETE", memberPath(team, second.oid), "")
	second.refused(409, "Conflict", "DELETE", groupsPath+"/"+team, "")
	outer := w.group("Outer")
	w.root().must(201, "PUT", memberPath(spared, outer), "")
	second.refused(403, "AuthorizationFailed", "PUT", memberPath(outer, second.oid), "")
	second.refused(403, "AuthorizationFailed", "GET", g1, "")
	// Who may change groups only does not decide whom a denial hits.
	contributor := w.as(tenantA, "contributor", roleContributor+" /")
	w.root().must(201, "PUT", memberPath(spared, contributor.oid), "") // spared, so that nothing else refuses
	contributor.refused(403, "LinkedAuthorizationFailed", "DELETE", memberPath(team, second.oid), "")
	// Who wrote it, may.
	w.root().must(200, "DELETE", path, "")
	second.must(200, "GET", g1, "")
	w.root().must(200, "DELETE", memberPath(team, second.oid), "")
	second.must(201, "PUT", vms+"/vm1", local)
}
