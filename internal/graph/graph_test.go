package graph_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/audit"
)

// TestShapes holds what clients parse in files.
func TestShapes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops := w.ops(tenantA)
	top := w.vm(tenantA, g1, "top", roleOwner+" /")
	vm, id := w.vm(tenantA, g1, "vm1"), w.identity(tenantA, g1, "shared")
	made := top.must(201, "POST", "groups", `{"displayName":"Readers","mailEnabled":false,"mailNickname":"readers","securityEnabled":true,"description":"who read"}`)
	group, _ := made.body["id"].(string)
	names := []string{vm.oid, "VM-OID", vm.client, "VM-CLIENT", id.oid, "ID-OID", id.client, "ID-CLIENT", group, "GROUP-OID"}
	hide := func(r reply) []string { // what is a hash of random ids, or of this request alone
		out := slices.Clone(names)
		for _, v := range append(r.values(), r.body) {
			if l, _ := v["servicePrincipalNames"].([]any); len(l) == 2 {
				out = append(out, fmt.Sprint(l[1]), "https://identity.azure.net/OPAQUE")
			}
		}
		return append(out, r.header.Get("Request-Id"), "REQUEST-ID")
	}
	add := `{"@odata.id":"https://graph.microsoft.com/v1.0/directoryObjects/` + vm.oid + `"}`
	top.must(204, "POST", "groups/"+group+"/members/$ref", add)
	for name, path := range map[string]string{
		"serviceprincipal_system":  "servicePrincipals/" + vm.oid,
		"serviceprincipal_user":    "servicePrincipals(appId='" + id.client + "')",
		"serviceprincipals":        "servicePrincipals?$filter=appId eq '" + vm.client + "'&$count=true",
		"serviceprincipals_select": "servicePrincipals?$filter=displayName eq 'VM1'&$select=id,appId,displayName",
		"directoryobject":          "directoryObjects/" + vm.oid + "?$select=id,displayName",
		"group":                    "groups/" + group,
		"members":                  "groups/" + group + "/members?$select=id,displayName",
		"memberof":                 "servicePrincipals/" + vm.oid + "/memberOf?$select=id,displayName",
		"organization":             "organization",
	} {
		r := top.get(path)
		golden(t, name, r, hide(r)...)
	}
	golden(t, "group_created", made, hide(made)...)
	r := top.must(200, "POST", "directoryObjects/getByIds", `{"ids":["`+vm.oid+`","`+group+`","`+nobody+`"],"types":["group","servicePrincipal"]}`)
	golden(t, "getbyids", r, hide(r)...)
	r = top.must(200, "POST", "servicePrincipals/"+vm.oid+"/getMemberGroups", `{"securityEnabledOnly":true}`)
	golden(t, "membergroups", r, hide(r)...)
	r = ops.refused(404, "Request_ResourceNotFound", "GET", "servicePrincipals/"+nobody, "")
	golden(t, "notfound", r, hide(r)...)
}

// TestClientSeesItsOwnRequestID: what a client calls its request comes back.
func TestClientSeesItsOwnRequestID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ops(tenantA).do("GET", "me", "", "client-request-id", "mine-1")
	if r.status != 400 || r.header.Get("Client-Request-Id") != "mine-1" || !strings.Contains(r.text, `"client-request-id":"mine-1"`) ||
		!strings.Contains(r.text, "/me request is only valid with delegated authentication flow.") {
		t.Errorf("GET /me = %d %s %v", r.status, r.text, r.header)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops := w.ops(tenantA)
	web1, web2, db := w.vm(tenantA, g1, "web1"), w.vm(tenantA, g2, "Web2"), w.identity(tenantA, g1, "dba")
	for filter, want := range map[string][]string{
		"appId eq '" + web1.client + "'":                                             {"web1"},
		"appId eq '" + strings.ToUpper(web1.client) + "'":                            {"web1"},
		"appId eq '" + nobody + "'":                                                  {},
		"displayName eq 'WEB2'":                                                      {"Web2"},
		"displayName eq 'web'":                                                       {},
		"startswith(displayName,'wEb')":                                              {"Web2", "web1"},
		"startsWith(displayName, 'web') and accountEnabled eq true":                  {"Web2", "web1"},
		"startswith(displayName,'web') and id eq '" + web1.oid + "'":                 {"web1"},
		"startswith(displayName,'x')":                                                {},
		"id in ('" + web1.oid + "', '" + db.oid + "','" + nobody + "')":              {"dba", "web1"},
		"id eq 'not a guid'":                                                         {},
		"appId in ('" + web2.client + "')":                                           {"Web2"},
		"servicePrincipalType eq 'ManagedIdentity' and startswith(displayName,'db')": {"dba"},
		"servicePrincipalType eq 'Application'":                                      {},
		"displayName eq 'WEB1' or displayName eq 'dba'":                              {"dba", "web1"},
		"startswith(displayName,'web') and not (displayName eq 'web1')":              {"Web2"},
		"startswith(displayName,'web') and displayName ne 'web2'":                    {"web1"},
		"displayName eq 'it''s'":                                                     {},
	} {
		got := ops.get("servicePrincipals?$filter=" + url.QueryEscape(filter)).each("displayName")
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", filter, diff)
		}
	}
	for _, query := range []string{"$top=0", "$top=1000", "$top=x", "$skiptoken=x", "$count=maybe", "$select=password",
		"$filter=displayName eq 'a'&$filter=displayName eq 'b'",
	} {
		ops.refused(400, "Request_BadRequest", "GET", "servicePrincipals?"+query, "")
	}
	for _, query := range []string{
		"$filter=displayName", "$filter=displayName eq", "$filter=displayName eq web1", "$filter=displayName eq 'web1", "$filter=displayName gt 'x'",
		"$filter=password eq 'x'", "$filter=startswith(displayName,'x'", "$filter=id in ()", "$filter=('x')", "$filter=and", "$filter=displayName eq true",
		"$filter=accountEnabled eq 'true'", "$filter=contains(displayName,'x')", "$filter=startswith('x',displayName)", "$filter=displayName eq null",
		"$orderby=displayName", "$search=x", "$expand=owners", "$skip=1"} {
		ops.refused(400, "Request_UnsupportedQuery", "GET", "servicePrincipals?"+query, "")
	}
	ops.refused(400, "Request_UnsupportedQuery", "GET", "servicePrincipals/"+web1.oid+"?$filter=id eq 'x'", "")
}

// TestPaging: every principal is on one page, whatever the order of a list.
func TestPaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := []string{}
	for i := range 7 {
		want = append(want, w.identity(tenantA, g1, fmt.Sprintf("page%d", i%2)+strings.Repeat("x", i)).oid)
	}
	slices.Sort(want)
	for _, filter := range []string{"startswith(displayName,'page')", "servicePrincipalType eq 'ManagedIdentity'", ""} {
		for _, host := range []string{w.srv.Names.Graph(), "https://graph.microsoft.com"} {
			next, got := host+"/beta/servicePrincipals?$top=2&$select=id&$filter="+url.QueryEscape(filter), []string{}
			for pages := 0; next != ""; pages++ {
				r := w.ops(tenantA).get(next)
				if !strings.HasPrefix(fmt.Sprint(r.body["@odata.context"]), host+"/beta/$metadata#servicePrincipals") || pages > 10 {
					t.Fatalf("page %d of %q is %s", pages, filter, r.text)
				}
				got = append(got, r.each("id")...)
				next, _ = r.body["@odata.nextLink"].(string)
				if next != "" && !strings.HasPrefix(next, host+"/beta/servicePrincipals?") {
					t.Fatalf("the next page is %s", next)
				}
			}
			seen := slices.DeleteFunc(slices.Sorted(slices.Values(got)), func(id string) bool { return !slices.Contains(want, id) })
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("%q (-want +got):\n%s", filter, diff)
			}
		}
	}
}

// TestGroups: from nothing to a member and back.
func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top, vm := w.vm(tenantA, g1, "top", roleOwner+" /"), w.vm(tenantA, g1, "vm1")
	newGroup := func(name string) string {
		id, _ := top.must(201, "POST", "groups", `{"displayName":"`+name+`","mailEnabled":false,"mailNickname":"x","securityEnabled":true}`).body["id"].(string)
		return id
	}
	ref := func(id string) string {
		return `{"@odata.id":"` + w.srv.Names.Graph() + `/v1.0/directoryObjects/` + id + `"}`
	}
	inner, outer := newGroup("Inner"), newGroup("Outer")
	top.must(204, "POST", "groups/"+inner+"/members/$ref", ref(vm.oid))
	top.must(204, "POST", "groups/"+outer+"/members/$ref", ref(inner))
	top.refused(400, "Request_BadRequest", "POST", "groups/"+inner+"/members/$ref", ref(vm.oid))

	for path, want := range map[string][]string{
		"groups/" + outer + "/members":                        {"Inner"},
		"groups/" + outer + "/transitiveMembers":              {"Inner", "vm1"},
		"servicePrincipals/" + vm.oid + "/memberOf":           {"Inner"},
		"servicePrincipals/" + vm.oid + "/transitiveMemberOf": {"Inner", "Outer"},
		"groups/" + inner + "/memberOf":                       {"Outer"},
		"groups?$filter=displayName eq 'inner'":               {"Inner"},
		"groups?$filter=startswith(displayName,'o')":          {"Outer"},
		"groups": {"Inner", "Outer"},
		"servicePrincipals?$filter=displayName eq 'inner'": {},
	} {
		for _, c := range []*caller{top, vm} {
			if c == vm && !strings.HasPrefix(path, "servicePrincipals/") {
				continue
			}
			got := c.get(path).each("displayName")
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	}
	if got := top.must(200, "POST", "directoryObjects/"+vm.oid+"/checkMemberGroups", `{"groupIds":["`+outer+`","`+nobody+`"]}`).text; !strings.Contains(got, `"value":["`+outer+`"]`) {
		t.Errorf("checkMemberGroups = %s", got)
	}
	top.must(204, "PATCH", "groups/"+inner, `{"description":"what is inside"}`)
	if b := top.get("groups/" + inner).body; b["displayName"] != "Inner" || b["description"] != "what is inside" {
		t.Errorf("after PATCH: %v", b)
	}
	top.must(204, "DELETE", "groups/"+inner+"/members/"+vm.oid+"/$ref", "")
	top.refused(404, "Request_ResourceNotFound", "DELETE", "groups/"+inner+"/members/"+vm.oid+"/$ref", "")
	top.must(204, "DELETE", "groups/"+inner, "")
	for _, r := range []struct{ method, path, body string }{
		{"DELETE", "groups/" + inner, ""}, {"GET", "groups/" + inner, ""}, {"PATCH", "groups/" + inner, `{"displayName":"x"}`},
		{"POST", "groups/" + inner + "/members/$ref", ref(vm.oid)}, {"POST", "groups/" + outer + "/members/$ref", ref(nobody)},
		{"GET", "groups/" + vm.oid, ""}, {"GET", "servicePrincipals/" + outer, ""}, {"GET", "users/" + vm.oid, ""}, {"GET", "users/x@example.com", ""},
		{"GET", "applications", ""}, {"GET", "organization/" + tenantB, ""},
	} {
		top.refused(404, "Request_ResourceNotFound", r.method, r.path, r.body)
	}
	for body, code := range map[string]string{
		`{}`: "Request_BadRequest", `null`: "Request_BadRequest", `[]`: "Request_BadRequest", `{`: "Request_BadRequest", `{"displayName":1}`: "Request_BadRequest",
		`{"displayName":""}`: "Request_BadRequest", `{"displayName":"x","color":"red"}`: "Request_BadRequest",
		`{"displayName":"x","mailEnabled":true}`:                   "Request_UnsupportedQuery",
		`{"displayName":"x","securityEnabled":false}`:              "Request_UnsupportedQuery",
		`{"displayName":"x","groupTypes":["Unified"]}`:             "Request_UnsupportedQuery",
		`{"displayName":"x","members@odata.bind":["https://x/y"]}`: "Request_UnsupportedQuery",
		`{"displayName":"x","isAssignableToRole":true}`:            "Request_UnsupportedQuery",
	} {
		top.refused(400, code, "POST", "groups", body)
	}
	for _, body := range []string{`{}`, `{"@odata.id":"x"}`, `{"@odata.id":"` + w.srv.Names.Graph() + `/v1.0/devices/` + vm.oid + `"}`} {
		top.refused(400, "Request_BadRequest", "POST", "groups/"+outer+"/members/$ref", body)
	}
	top.refused(405, "Request_BadRequest", "PUT", "groups/"+outer, "{}")
	top.refused(405, "Request_BadRequest", "DELETE", "servicePrincipals/"+vm.oid, "")
	if got := top.get("groups").each("displayName"); !slices.Equal(got, []string{"Outer"}) {
		t.Errorf("after all that was refused there are the groups %q", got)
	}
}

// TestAppRolesAreRefused: an empty list would say that nobody has any, to who
// asks what a principal may do.
func TestAppRolesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops := w.ops(tenantA)
	for _, m := range []string{"GET", "POST", "DELETE"} {
		r := ops.refused(400, "Request_UnsupportedQuery", m, "servicePrincipals/"+ops.oid+"/appRoleAssignments", "")
		if !strings.Contains(r.text, "Microsoft.Authorization/roleAssignments") {
			t.Errorf("%s: %s", m, r.text)
		}
	}
}

// TestReadsAreOnRecord: what was read, and what was refused.
func TestReadsAreOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops, vm := w.ops(tenantA), w.vm(tenantA, g1, "vm1")
	for path, want := range map[string]string{
		"servicePrincipals/" + vm.oid:               audit.Allowed,
		"servicePrincipals":                         audit.Allowed,
		"servicePrincipals/" + nobody:               audit.Refused,
		"servicePrincipals?$filter=x":               audit.Refused,
		"nothing":                                   audit.Refused,
		"servicePrincipals/" + vm.oid + "/memberOf": audit.Allowed,
		"groups?$filter=appId eq 'x'":               audit.Refused,
		"groups/" + nobody + "/members":             audit.Refused,
	} {
		r := ops.do("GET", path, "")
		evs := w.events(tenantA, r)
		if len(evs) != 1 || evs[0].Outcome != want || evs[0].Principal != ops.oid {
			t.Errorf("GET %s = %d is on record as %+v, want one event that is %s", path, r.status, evs, want)
		}
	}
	r := vm.do("GET", "servicePrincipals/"+ops.oid, "")
	if evs := w.events(tenantA, r); len(evs) != 1 || evs[0].Outcome != audit.Denied {
		t.Errorf("a refusal is on record as %+v", evs)
	}
}
