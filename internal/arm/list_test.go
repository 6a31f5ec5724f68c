package arm_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// pages follows nextLink as clients do, as it is, and returns the names.
func (c *caller) pages(path string) (names []string, sizes []int) {
	c.w.t.Helper()
	for path != "" {
		r := c.must(200, "GET", path, "")
		for _, v := range r.values() {
			names = append(names, v["name"].(string))
		}
		sizes = append(sizes, len(r.values()))
		path = r.str("nextLink")
		if path != "" && !strings.HasPrefix(path, c.w.srv.Names.Management()+"/") {
			c.w.t.Fatalf("nextLink %s is not absolute", path)
		}
	}
	return names, sizes
}

func TestPaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.as(tenantA, "who")
	var want []string
	for i := range 205 {
		want = append(want, fmt.Sprintf("VM%03d", i))
	}
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	if err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error { return fill(tx, want, who.oid) }); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path  string
		sizes []int
	}{
		{vms, []int{100, 100, 5}},
		{strings.ToUpper(vms) + "?api-version=2024-11-30&x=a%26b", []int{100, 100, 5}},
		{sub + "/providers/Microsoft.Compute/virtualMachines", []int{100, 100, 5}},
		{g1 + "/resources", []int{100, 100, 5}},
		{g1 + "/resources?api-version=2024-11-30&$filter=resourceType%20eq%20'microsoft.compute/VirtualMachines'", []int{100, 100, 5}},
	} {
		names, sizes := w.owner.pages(tt.path)
		if !slices.Equal(sizes, tt.sizes) || !slices.Equal(names, want) {
			t.Errorf("%s: pages of %v with %d names, want %v with all %d in order", tt.path, sizes, len(names), tt.sizes, len(want))
		}
	}
	names, sizes := w.owner.pages(sub + "/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'" + who.oid + "'")
	slices.Sort(names)
	if len(slices.Compact(names)) != 105 || !slices.Equal(sizes, []int{100, 5}) {
		t.Errorf("role assignments: %d names in pages of %v", len(names), sizes)
	}
	for _, skip := range []string{"!", "%00", "AA", "____"} {
		w.owner.refused(400, "InvalidRequestContent", "GET", vms+"?api-version=2024-11-30&$skiptoken="+skip, "")
	}
	// What the mixed list leaves out does not shorten its pages.
	w.owner.must(201, "PUT", vms+"/VM000/providers/Innate.Fleet/callerRules/r", `{"properties":{"selectors":["unix:uid:0"],"grade":"kernel","audiences":["https://vault.azure.net"]}}`)
	if _, sizes := w.owner.pages(g1 + "/resources"); !slices.Equal(sizes, []int{100, 100, 5}) {
		t.Errorf("pages of a list that leaves some out: %v", sizes)
	}
}

// TestSkipTokenTellsNothing: where a page ends may be at what its reader was not
// shown; so the token of the next tells nothing, and is good for nobody else.
func TestSkipTokenTellsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	for _, c := range []*caller{w.owner, b} {
		c.must(map[bool]int{true: 200, false: 201}[c == w.owner], "PUT", g1, local)
		for _, name := range []string{"/a", "/hidden", "/z"} {
			c.must(201, "PUT", vms+name, local)
		}
	}
	who, second := w.as(tenantA, "who", roleReader+" "+sub), w.as(tenantA, "second", roleReader+" "+sub)
	w.owner.must(201, "PUT", denialPath(vms+"/hidden", name1), denialBody("Hands off", `"*"`, who.oid))
	const version = "?api-version=2024-11-30"
	r := who.must(200, "GET", vms+version+"&$top=1", "")
	next := r.str("nextLink")
	u, err := url.Parse(next)
	if err != nil || len(r.values()) != 1 {
		t.Fatalf("the first page is %s", r.text)
	}
	token := u.Query().Get("$skiptoken")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 100 || bytes.Contains(raw, []byte("hidden")) || bytes.Contains(raw, []byte("virtual")) || strings.Contains(next, "hidden") {
		t.Errorf("the token is %q, %v", raw, err)
	}
	if r := who.must(200, "GET", next, ""); len(r.values()) != 1 || r.values()[0]["name"] != "z" || r.str("nextLink") != "" {
		t.Errorf("the second page is %s", r.text)
	}
	for _, bad := range []string{
		base64.RawURLEncoding.EncodeToString([]byte("after:" + strings.ToLower(vms) + "/hidden")), token[:len(token)-4], token + "AAAA",
	} {
		who.refused(400, "InvalidRequestContent", "GET", vms+version+"&$skiptoken="+bad, "")
	}
	for _, c := range []*caller{second, w.owner, b} {
		c.refused(400, "InvalidRequestContent", "GET", vms+version+"&$skiptoken="+token, "")
	}
	// In another list of the same API it is a place like another.
	who.must(200, "GET", g1+"/resources"+version+"&$skiptoken="+token, "")
	who.refused(400, "InvalidRequestContent", "GET", sub+"/providers/Microsoft.Insights/eventtypes/management/values"+version+
		"&$filter="+url.QueryEscape("eventTimestamp ge '"+start.Format(time.RFC3339)+"'")+"&$skiptoken="+token, "")
}

// fill makes machines with these names, and at the first 105 an assignment.
func fill(tx arm.Tx, names []string, oid string) error {
	for i, name := range names {
		r := arm.Resource{
			Tenant: tenantA, ID: resource.MustParse(vms + "/" + name), Type: "Microsoft.Compute/virtualMachines", UID: name,
			Body: arm.Document{"location": []byte(`"local"`)}, Created: start, Updated: start,
		}
		if err := tx.PutResource(r); err != nil {
			return err
		}
		if i >= 105 {
			continue
		}
		ra := arm.RoleAssignment{Tenant: tenantA, Created: start, Updated: start}
		ra.ID = resource.MustParse(assignmentID(r.ID.String(), fmt.Sprintf("00000000-0000-4000-8000-%012d", i)))
		ra.Scope, ra.Role, ra.Principal = r.ID, roleReader, oid
		if err := tx.PutRoleAssignment(ra); err != nil {
			return err
		}
	}
	return nil
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", `{"location":"West Europe","tags":{"env":"prod","Cost Center":"7"}}`)
	w.owner.must(201, "PUT", vms+"/vm2", `{"location":"local","tags":{"ENV":"test","other":"prod"},"identity":{"type":"SystemAssigned"}}`)
	w.owner.must(201, "PUT", uais+"/uai", local)
	w.owner.must(201, "PUT", vms+"/vm3", block("UserAssigned", on(uais+"/uai")))
	w.owner.must(201, "PUT", sub+"/resourceGroups/g2", `{"location":"local","tags":{"env":"prod"}}`)
	oid := w.owner.must(200, "GET", vms+"/vm2", "").str("identity", "principalId")
	user := w.owner.must(200, "GET", uais+"/uai", "").str("properties", "principalId")
	with := func(filter string) string {
		return g1 + "/resources?api-version=2024-11-30&$filter=" + url.QueryEscape(filter)
	}
	for filter, want := range map[string]string{
		"": "uai vm1 vm2 vm3",
		"resourceType eq 'Microsoft.Compute/virtualMachines'":   "vm1 vm2 vm3",
		" RESOURCETYPE eq 'microsoft.compute/virtualmachines' ": "vm1 vm2 vm3",
		"resourceType ne 'Microsoft.Compute/virtualMachines'":   "uai",
		"resourceType eq 'Microsoft.KeyVault/vaults'":           "",
		"name eq 'VM1'": "vm1",
		"name eq 'VM1' and resourceType eq 'Microsoft.KeyVault/vaults'":                    "",
		"name eq 'vm1' or name eq 'uai'":                                                   "uai vm1",
		"substringof('M1', name) or substringof('x', resourceGroup)":                       "vm1",
		"location eq 'westeurope'":                                                         "vm1",
		"location ne 'westeurope' and not (name eq 'uai')":                                 "vm2 vm3",
		"tagName eq 'env'":                                                                 "vm1 vm2",
		"tagName eq 'Env' and tagValue eq 'prod'":                                          "vm1",
		"tagName eq 'env' and tagValue eq 'Prod'":                                          "",
		"tagValue eq 'prod'":                                                               "vm1 vm2",
		"startswith(tagName, 'cost')":                                                      "vm1",
		"startswith(tagName, 'nothing') eq true":                                           "",
		"resourceGroup eq 'G1' and name eq 'uai'":                                          "uai",
		"resourceGroup eq 'g2'":                                                            "",
		"identity/principalId eq '" + oid + "'":                                            "vm2",
		"identity/principalId eq '" + user + "'":                                           "vm3",
		"identity/principalId eq '" + user + "' and resourceType eq 'Microsoft.Web/sites'": "",
	} {
		names, _ := w.owner.pages(with(filter))
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("$filter=%s lists %q, want %q", filter, got, want)
		}
	}
	groups := w.owner.must(200, "GET", sub+"/resourceGroups?api-version=2024-11-30&$filter="+url.QueryEscape("tagName eq 'env' and tagValue eq 'prod'"), "").values()
	if len(groups) != 1 || groups[0]["name"] != "g2" {
		t.Errorf("resource groups by tag: %v", groups)
	}
	for filter, code := range map[string]string{
		"kind eq 'x'":     "InvalidFilterInQueryString",
		"name gt 'x'":     "InvalidFilterInQueryString",
		"name eq vm1":     "InvalidFilterInQueryString",
		"name eq 'vm1":    "InvalidFilterInQueryString",
		"name eq 'a' and": "InvalidFilterInQueryString",
		"resourceType eq 'Microsoft.Compute/virtualMachines' or 'a'": "InvalidFilterInQueryString",
		"resourceType eq 'Nobody.Knows/it'":                          "InvalidResourceType",
		"resourceType eq 'it'":                                       "InvalidResourceType",
		"resourceType eq ''":                                         "InvalidResourceType",
		// Reads as a type that is known, if one looks at its end alone.
		"resourceType eq 'X.Y/z/n/providers/Microsoft.Compute/virtualMachines'": "InvalidResourceType",
	} {
		r := w.owner.do("GET", with(filter), "")
		if p := r.wrong(r.status, code); p != "" || r.status != 400 && r.status != 404 {
			t.Errorf("$filter=%s: %d %s: %s", filter, r.status, r.text, p)
		}
	}
	for _, q := range []string{"$top=0", "$top=x", "$top=-1", "$expand=secrets", "$skiptoken=AA", "$top=1&$top=2"} {
		w.owner.refused(400, "InvalidRequestContent", "GET", g1+"/resources?api-version=2024-11-30&"+q, "")
	}
	r := w.owner.must(200, "GET", g1+"/resources?api-version=2024-11-30&$top=2&$expand=createdTime,changedtime,provisioningState", "")
	if v := r.values(); len(v) != 2 || r.str("nextLink") == "" || v[0]["createdTime"] == nil || v[0]["changedTime"] == nil || v[0]["provisioningState"] != "Succeeded" {
		t.Errorf("with $top and $expand: %s", r.text)
	}
	if names, sizes := w.owner.pages(g1 + "/resources?api-version=2024-11-30&$top=3"); len(names) != 4 || !slices.Equal(sizes, []int{3, 1}) {
		t.Errorf("pages of 3: %v %v", names, sizes)
	}
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", with(""), "")
	vmReader := w.as(tenantA, "vm-reader", roleReader+" "+vms+"/vm1")
	vmReader.refused(403, "AuthorizationFailed", "GET", vms, "")
	vmReader.must(200, "GET", vms+"/vm1", "")
}
