package graph_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

// TestWorkloadWithoutRolesSeesItself: and nobody else, and cannot tell who is
// there from who is not.
func TestWorkloadWithoutRolesSeesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top, other := w.vm(tenantA, g1, "top", roleOwner+" /"), w.vm(tenantA, g1, "other")
	group, _ := top.must(201, "POST", "groups", `{"displayName":"G"}`).body["id"].(string)
	mine, _ := top.must(201, "POST", "groups", `{"displayName":"Mine"}`).body["id"].(string)
	for name, me := range map[string]*caller{
		"no role":                    w.vm(tenantA, g1, "none"),
		"a role for data alone":      w.vm(tenantA, g1, "data", roleSecrets+" "+sub),
		"a member of another tenant": w.vm(tenantB, g1, "b", roleSecrets+" /"),
	} {
		t.Run(name, func(t *testing.T) {
			if me.tenant == tenantA {
				top.must(204, "POST", "groups/"+mine+"/members/$ref", `{"@odata.id":"https://x/directoryObjects/`+me.oid+`"}`)
			}
			for _, path := range []string{"servicePrincipals/" + me.oid, "servicePrincipals(appId='" + me.client + "')", "directoryObjects/" + strings.ToUpper(me.oid)} {
				if r := me.get(path); r.body["id"] != me.oid {
					t.Errorf("GET %s = %s", path, r.text)
				}
			}
			if got := me.get("servicePrincipals?$filter=appId eq '" + me.client + "'").each("id"); !slices.Equal(got, []string{me.oid}) {
				t.Errorf("itself by its client id: %q", got)
			}
			if me.tenant == tenantA {
				if got := me.get("servicePrincipals/" + me.oid + "/memberOf").each("displayName"); !slices.Equal(got, []string{"Mine"}) {
					t.Errorf("its own groups: %q", got)
				}
			}
			for _, id := range []string{other.oid, group, nobody, "x", "' or 1 eq 1"} {
				for _, path := range []string{
					"servicePrincipals/" + id, "groups/" + id, "directoryObjects/" + id, "users/" + id, "groups/" + id + "/members",
					"servicePrincipals/" + id + "/memberOf", "servicePrincipals?$filter=id eq '" + strings.ReplaceAll(id, "'", "''") + "'",
				} {
					me.refused(403, "Authorization_RequestDenied", "GET", path, "")
				}
				me.refused(403, "Authorization_RequestDenied", "POST", "directoryObjects/"+id+"/getMemberGroups", `{}`)
			}
			for _, client := range []string{other.client, nobody} {
				me.refused(403, "Authorization_RequestDenied", "GET", "servicePrincipals(appId='"+client+"')", "")
				me.refused(403, "Authorization_RequestDenied", "GET", "servicePrincipals?$filter=appId eq '"+client+"'", "")
			}
			for _, path := range []string{"servicePrincipals", "groups", "users", "servicePrincipals?$filter=displayName eq 'other'", "servicePrincipals?$filter=startswith(displayName,'o')"} {
				me.refused(403, "Authorization_RequestDenied", "GET", path, "")
			}
			me.refused(403, "Authorization_RequestDenied", "POST", "directoryObjects/getByIds", `{"ids":["`+other.oid+`","`+nobody+`"]}`)
			if got := me.must(200, "POST", "directoryObjects/getByIds", `{"ids":["`+other.oid+`","`+me.oid+`"]}`).each("id"); !slices.Equal(got, []string{me.oid}) {
				t.Errorf("getByIds with itself: %q", got)
			}
			for method, path := range map[string]string{"POST": "groups", "PATCH": "groups/" + group, "DELETE": "groups/" + group} {
				me.refused(403, "Authorization_RequestDenied", method, path, `{"displayName":"x"}`)
			}
			me.refused(403, "Authorization_RequestDenied", "POST", "groups/"+group+"/members/$ref", `{"@odata.id":"https://x/directoryObjects/`+me.oid+`"}`)
			me.refused(403, "Authorization_RequestDenied", "DELETE", "groups/"+group+"/members/"+other.oid+"/$ref", "")
		})
	}
}

// TestReaderSeesWhatItReads: a right over a part of the tree shows the
// principals of that part, and of no other.
func TestReaderSeesWhatItReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader := w.vm(tenantA, g2, "reader", roleReader+" "+g2)
	in, out := w.vm(tenantA, g2, "in"), w.vm(tenantA, g1, "out")
	want := []string{in.oid, reader.oid}
	slices.Sort(want)
	if got := reader.get("servicePrincipals").each("id"); !slices.Equal(got, want) {
		t.Errorf("a reader of g2 sees %q, want %q", got, want)
	}
	if got := reader.get("groups").each("id"); len(got) != 0 {
		t.Errorf("it sees the groups %q", got)
	}
	reader.get("servicePrincipals/" + in.oid)
	// Who is elsewhere is as if it were not.
	for _, id := range []string{out.oid, nobody} {
		r := reader.refused(404, "Request_ResourceNotFound", "GET", "servicePrincipals/"+id, "")
		if !strings.Contains(r.text, "Resource '"+id+"' does not exist or one of its queried reference-property objects are not present.") {
			t.Errorf("GET %s: %s", id, r.text)
		}
		if got := reader.get("servicePrincipals?$filter=id eq '" + id + "'").each("id"); len(got) != 0 {
			t.Errorf("by a filter: %q", got)
		}
	}
	if got := reader.get("servicePrincipals?$filter=startswith(displayName,'o')").each("id"); len(got) != 0 {
		t.Errorf("by its name: %q", got)
	}
}

// TestRoleAssignmentNamesItsPrincipal: what lists role assignments shows names
// with getByIds. Who may read the assignment may know whose it is, but not what
// else there is to know of it.
func TestRoleAssignmentNamesItsPrincipal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.vm(tenantA, g1, "top", roleOwner+" /")
	reader := w.vm(tenantA, g2, "reader", roleReader+" "+g2)
	guest := w.vm(tenantA, g1, "guest", roleSecrets+" "+g2)
	elsewhere := w.vm(tenantA, g1, "elsewhere", roleSecrets+" "+g1)
	group, _ := top.must(201, "POST", "groups", `{"displayName":"Team"}`).body["id"].(string)
	if err := w.srv.ARM.Assign(t.Context(), access.SystemCaller(tenantA, "test"),
		resource.MustParse(g2+"/providers/Microsoft.Authorization/roleAssignments/"+nobody), roleSecrets, group); err != nil {
		t.Fatal(err)
	}
	top.must(204, "POST", "groups/"+group+"/members/$ref", `{"@odata.id":"https://x/directoryObjects/`+elsewhere.oid+`"}`)
	ids := `{"ids":["` + guest.oid + `","` + elsewhere.oid + `","` + group + `"]}`
	if got := reader.must(200, "POST", "directoryObjects/getByIds", ids).each("displayName"); !slices.Equal(got, []string{"guest", "Team"}) {
		t.Errorf("a reader of g2's role assignments knows %q, want guest and Team", got)
	}
	r := reader.get("servicePrincipals/" + guest.oid)
	if r.body["displayName"] != "guest" || r.body["appId"] != guest.client || strings.Contains(r.text, "resourceGroups") || strings.Contains(r.text, "identity.azure.net") {
		t.Errorf("of who holds a role it knows %s", r.text)
	}
	reader.refused(403, "Authorization_RequestDenied", "GET", "groups/"+group+"/members", "")
	reader.refused(403, "Authorization_RequestDenied", "GET", "servicePrincipals/"+guest.oid+"/memberOf", "")
	if list := reader.get("servicePrincipals").each("displayName"); slices.Contains(list, "guest") {
		t.Errorf("the list has %q", list)
	}
}

// TestTenantsAreStrangers: an id of another tenant is an id of nobody's, to the
// owner of everything.
func TestTenantsAreStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.vm(tenantA, g1, "a", roleOwner+" /"), w.vm(tenantB, g1, "b", roleOwner+" /")
	group, _ := b.must(201, "POST", "groups", `{"displayName":"Theirs"}`).body["id"].(string)
	for _, path := range []string{"servicePrincipals/" + b.oid, "servicePrincipals(appId='" + b.client + "')", "groups/" + group, "directoryObjects/" + group, "groups/" + group + "/members", "servicePrincipals/" + b.oid + "/memberOf"} {
		a.refused(404, "Request_ResourceNotFound", "GET", path, "")
	}
	if got := a.must(200, "POST", "directoryObjects/getByIds", `{"ids":["`+b.oid+`","`+group+`"]}`).each("id"); len(got) != 0 {
		t.Errorf("getByIds gives %q of another tenant", got)
	}
	for _, path := range []string{"servicePrincipals", "groups", "servicePrincipals?$filter=displayName eq 'b'", "groups?$filter=displayName eq 'Theirs'"} {
		r := a.get(path)
		if slices.Contains(r.each("id"), b.oid) || slices.Contains(r.each("id"), group) {
			t.Errorf("GET %s has another tenant's: %s", path, r.text)
		}
	}
	a.refused(404, "Request_ResourceNotFound", "DELETE", "groups/"+group, "")
	a.refused(404, "Request_ResourceNotFound", "POST", "groups/"+group+"/members/$ref", `{"@odata.id":"https://x/directoryObjects/`+a.oid+`"}`)
	mine, _ := a.must(201, "POST", "groups", `{"displayName":"Ours"}`).body["id"].(string)
	a.refused(404, "Request_ResourceNotFound", "POST", "groups/"+mine+"/members/$ref", `{"@odata.id":"https://x/directoryObjects/`+b.oid+`"}`)
	if got := b.get("groups/" + group + "/members").each("id"); len(got) != 0 {
		t.Errorf("the other tenant's group has %q", got)
	}
}

// TestTokensOfOtherAPIs: a token for the management API is not one for Graph,
// and the other way round.
func TestTokensOfOtherAPIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for aud, want := range map[string]int{
		"https://graph.microsoft.com/": 200, "https://graph.microsoft.com": 200, "00000003-0000-0000-c000-000000000000": 200, w.srv.Names.Graph(): 200,
		"https://management.azure.com/": 401, "https://vault.azure.net": 401, w.srv.Names.Management(): 401, "https://storage.azure.com/": 401,
	} {
		c := w.ops(tenantA)
		got, err := w.srv.STS.ForWorkload(t.Context(), access.Caller{Tenant: tenantA, Principal: "host:test"}, sts.Request{Audience: aud, Workload: resource.MustParse(c.id)})
		if err != nil {
			t.Fatal(err)
		}
		c.raw = got.Token
		if r := c.do("GET", "organization", ""); r.status != want || want == 401 && (r.code() != "InvalidAuthenticationToken" || r.header.Get("WWW-Authenticate") == "") {
			t.Errorf("a token for %s: %d %s, want %d", aud, r.status, r.text, want)
		}
	}
	graph := w.ops(tenantA)
	if r := graph.do("GET", w.srv.Names.Management()+"/subscriptions?api-version=2022-12-01", ""); r.status != 401 {
		t.Errorf("a token for Graph at the management API: %d %s", r.status, r.text)
	}
	none := w.ops(tenantA)
	none.raw = "x"
	none.refused(401, "InvalidAuthenticationToken", "GET", "servicePrincipals", "")
}

// TestSkipTokenTellsNothing: the token of a page is of a place in all of the
// directory, of which its reader sees a part; so it tells nothing, and is good
// for nobody else.
func TestSkipTokenTellsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader := w.vm(tenantA, g2, "reader", roleReader+" "+g2)
	second := w.vm(tenantA, g2, "second", roleReader+" "+g2)
	other := w.vm(tenantB, g2, "other", roleReader+" "+g2)
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	var hidden []directory.Principal
	for i := range 1001 {
		p := directory.NewPrincipal(tenantA, directory.Application, resource.ID{}, false, start)
		p.Name = fmt.Sprintf("payroll-%04d", i)
		hidden = append(hidden, p)
	}
	if err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		for _, p := range hidden {
			if err := tx.PutPrincipal(p); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	const list = "servicePrincipals?$filter=startswith(displayName,'payroll')&$skiptoken="
	r := reader.get(strings.TrimSuffix(list, "&$skiptoken="))
	next, _ := r.body["@odata.nextLink"].(string)
	u, err := url.Parse(next)
	token := u.Query().Get("$skiptoken")
	if err != nil || token == "" || len(r.values()) != 0 {
		t.Fatalf("the first page is %s", r.text)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || strings.Contains(r.text, "payroll-") || bytes.Contains(raw, []byte("payroll")) {
		t.Errorf("the token is %q, %v", raw, err)
	}
	for _, p := range hidden {
		if bytes.Contains(raw, []byte(p.ID)) || strings.Contains(r.text, p.ID) {
			t.Fatalf("the token of a page tells of %s", p.ID)
		}
	}
	if r := reader.get(next); len(r.values()) != 0 || r.body["@odata.nextLink"] != nil {
		t.Errorf("the second page is %s", r.text)
	}
	// A page that shows somebody ends at one who is shown, and none is missed.
	seen := map[string]bool{}
	for next, pages := "servicePrincipals", 0; next != "" && pages < 10; pages++ {
		r := reader.get(next)
		for _, id := range r.each("id") {
			seen[id] = true
		}
		next, _ = r.body["@odata.nextLink"].(string)
		u, err := url.Parse(next)
		if err != nil || next == "" || len(r.values()) == 0 {
			continue
		}
		place, err := w.srv.Graph.Cursors.Place(t.Context(), cursor.Reader{API: "graph", Tenant: tenantA, Principal: reader.oid}, u.Query().Get("$skiptoken"))
		if last := r.each("id")[len(r.values())-1]; err != nil || !strings.Contains(place, last) {
			t.Errorf("a page that ends with %s goes on at %s, %v", last, place, err)
		}
	}
	if len(seen) != 2 || !seen[reader.oid] || !seen[second.oid] {
		t.Errorf("the reader sees %v", seen)
	}
	// Its own token of the management API is none of Graph.
	arms, err := w.srv.Graph.Cursors.Token(t.Context(), cursor.Reader{API: "management", Tenant: tenantA, Principal: reader.oid}, `{"Name":"p"}`)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"made up": base64.RawURLEncoding.EncodeToString([]byte(`{"Name":"payroll-0500","ID":""}`)), "cut": token[:len(token)-4], "of another API": arms,
	} {
		if r := reader.refused(400, "Request_BadRequest", "GET", list+bad, ""); strings.Contains(r.text, "payroll") {
			t.Errorf("a token that is %s: %s", what, r.text)
		}
	}
	for _, c := range []*caller{second, other} {
		c.refused(400, "Request_BadRequest", "GET", list+token, "")
	}
}

// TestDeletedPrincipalIsGone: at once, and its token with it.
func TestDeletedPrincipalIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops, vm := w.ops(tenantA), w.vm(tenantA, g1, "vm1")
	vm.get("servicePrincipals/" + vm.oid)
	got, err := w.srv.STS.ForWorkload(t.Context(), access.Caller{Tenant: tenantA, Principal: "host:test"}, sts.Request{Audience: "https://management.azure.com/", Workload: resource.MustParse(ops.id)})
	if err != nil {
		t.Fatal(err)
	}
	arm := &caller{w: w, raw: got.Token}
	arm.must(http.StatusOK, "DELETE", w.srv.Names.Management()+vm.id+"?api-version=2024-07-01", "")
	ops.refused(404, "Request_ResourceNotFound", "GET", "servicePrincipals/"+vm.oid, "")
	vm.refused(401, "InvalidAuthenticationToken", "GET", "servicePrincipals/"+vm.oid, "")
}
