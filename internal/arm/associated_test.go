package arm_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const associatedVersion = "?api-version=2022-01-31-preview"

// TestListAssociatedResources lists with POST and reads on with GET, as clients do.
func TestListAssociatedResources(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, local)
	list := ua + "/listAssociatedResources"
	if r := w.owner.must(200, "POST", list+associatedVersion, ""); member(t, r.text, "totalCount") != "0" || member(t, r.text, "value") != "[]" {
		t.Errorf("of an identity that nothing has: %s", r.text)
	}
	for i := range 5 {
		w.owner.must(201, "PUT", fmt.Sprintf("%s/VM%d", vms, i), block("UserAssigned", on(ua)))
	}
	site := g2 + "/providers/Microsoft.Web/sites/app"
	w.owner.must(200, "PUT", site, block("UserAssigned", on(ua)))
	first := w.owner.must(200, "POST", list+associatedVersion, "").values()[0]
	for k, want := range map[string]string{
		"id": site, "name": "app", "type": "microsoft.web/sites", "resourceGroup": "g2",
		"subscriptionId": strings.TrimPrefix(sub, "/subscriptions/"), "subscriptionDisplayName": "Test",
	} {
		if first[k] != want {
			t.Errorf("%s is %v, want %s", k, first[k], want)
		}
	}
	for _, tt := range []struct{ query, want string }{
		{"", "app VM0 VM1 VM2 VM3 VM4"},
		{"$top=4", "app VM0 VM1 VM2 | VM3 VM4"},
		{"$top=2&$skip=3", "VM2 VM3 | VM4"},
		{"$skip=9", ""},
		{"$orderby=name desc", "VM4 VM3 VM2 VM1 VM0 app"},
		{"$orderby=resourceGroup desc, Name desc&$top=3", "app VM4 VM3 | VM2 VM1 VM0"},
		{"$filter=contains(name,'m3')", "VM3"},
		{"$filter=name ne 'vm3' and type eq 'Microsoft.Compute/virtualMachines'&$top=2", "VM0 VM1 | VM2 VM4"},
		{"$filter=startswith(resourceGroup, 'G2')", "app"},
		{"$filter=endswith(id,'/vm0') and contains(id,'virtualMachines')", "VM0"},
		{"$filter=name eq 'o''clock'", ""},
	} {
		var pages []string
		total := 0
		path, method := list+associatedVersion, "POST"
		for _, p := range strings.Split(tt.query, "&") {
			if k, v, ok := strings.Cut(p, "="); ok {
				path += "&" + url.QueryEscape(k) + "=" + url.QueryEscape(v)
			}
		}
		for path != "" {
			r := w.owner.must(200, method, path, "")
			var names []string
			for _, v := range r.values() {
				names = append(names, v["name"].(string))
			}
			total += len(names)
			pages = append(pages, strings.Join(names, " "))
			path, method = r.str("nextLink"), "GET"
		}
		if got := strings.Join(pages, " | "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.query, got, tt.want)
		}
	}
	for _, bad := range []string{
		"$top=0", "$top=x", "$top=1001", "$skip=-1", "$skiptoken=!", "$skiptoken=" + "eA", "$orderby=size", "$orderby=name up", "$orderby=name,",
		"$filter=name", "$filter=name eq 'a' or name eq 'b'", "$filter=name eq 'a' and", "$filter=size eq 'a'", "$filter=name eq 'a'name eq 'b'",
	} {
		k, v, _ := strings.Cut(bad, "=")
		r := w.owner.do("POST", list+associatedVersion+"&"+k+"="+url.QueryEscape(v), "")
		if p := r.wrong(400, r.header.Get("X-Ms-Error-Code")); p != "" || !strings.Contains(r.str("error", "message"), k) {
			t.Errorf("%s = %d %s %s", bad, r.status, r.text, p)
		}
	}
	w.owner.refused(404, "ResourceNotFound", "POST", uais+"/none/listAssociatedResources", "")
	// To read an identity is not to know where it is used.
	w.as(tenantA, "reader", roleReader+" "+sub).refused(403, "AuthorizationFailed", "POST", list, "")
	w.as(tenantA, "reader2", roleReader+" "+sub).refused(403, "AuthorizationFailed", "GET", list, "")
	w.owner.must(200, "DELETE", site, "")
	if r := w.owner.must(200, "POST", list, ""); slices.ContainsFunc(r.values(), func(v map[string]any) bool { return v["id"] == site }) {
		t.Errorf("a deleted app is listed: %s", r.text)
	}
}

func TestDefaultIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm, set := vms+"/vm1", sets+"/set1"
	const dflt = "/providers/Microsoft.ManagedIdentity/identities/default"
	w.owner.must(201, "PUT", vm, at("west", local))
	w.owner.refused(404, "ResourceNotFound", "GET", vm+dflt, "")
	oid := w.owner.must(200, "PATCH", vm, `{"identity":{"type":"SystemAssigned"}}`).str("identity", "principalId")
	r := w.owner.must(200, "GET", vm+dflt, "")
	p := func(k string) string { return r.str("properties", k) }
	if r.str("location") != "west" || p("principalId") != oid || p("tenantId") != tenantA || !guid.MatchString(p("clientId")) || r.str("name") != "default" ||
		r.str("type") != "Microsoft.ManagedIdentity/identities" || r.str("id") != vm+dflt {
		t.Errorf("the default identity is %s", r.text)
	}
	secret := p("clientSecretUrl")
	if !strings.HasPrefix(secret, w.srv.Names.Management()+vm+dflt+"/credentials?tid="+tenantA+"&oid="+oid) {
		t.Errorf("clientSecretUrl is %s", secret)
	}
	if got := w.owner.do("GET", secret+"&api-version=2024-11-30", ""); got.status < 400 { // no key of an identity leaves
		t.Errorf("clientSecretUrl answers %d %s", got.status, got.text)
	}
	w.owner.refused(404, "ResourceNotFound", "GET", vms+"/none"+dflt, "")
	// An instance has its set's.
	w.owner.must(201, "PUT", set, block("SystemAssigned"))
	w.owner.must(200, "PUT", set+"/virtualMachines/0", local)
	one, other := w.owner.must(200, "GET", set+dflt, ""), w.owner.must(200, "GET", set+"/virtualMachines/0"+dflt, "")
	if a, b := one.str("properties", "principalId"), other.str("properties", "principalId"); a != b || a == "" {
		t.Errorf("the set has %q, its instance %q", a, b)
	}
}

func TestManagedIdentityOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nobody := w.as(tenantA, "nobody")
	l := nobody.must(200, "GET", "/providers/Microsoft.ManagedIdentity/operations", "").values()
	if !slices.ContainsFunc(l, func(o map[string]any) bool {
		return o["name"] == "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
	}) {
		t.Errorf("operations are %v", l)
	}
}
