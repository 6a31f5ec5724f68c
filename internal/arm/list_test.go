package arm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
		if r := w.owner.do("GET", vms+"?api-version=2024-11-30&$skiptoken="+skip, ""); r.status != 200 {
			w.owner.refused(400, "InvalidRequestContent", "GET", vms+"?api-version=2024-11-30&$skiptoken="+skip, "")
		}
	}
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
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(201, "PUT", uais+"/uai", local)
	with := func(filter string) string { return g1 + "/resources?api-version=2024-11-30&$filter=" + filter }
	for filter, want := range map[string]string{
		"": "uai vm1",
		"resourceType%20eq%20'Microsoft.Compute/virtualMachines'":     "vm1",
		"%20RESOURCETYPE%20eq%20'microsoft.compute/virtualmachines'+": "vm1",
		"resourceType%20eq%20'Microsoft.KeyVault/vaults'":             "",
	} {
		names, _ := w.owner.pages(with(filter))
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("$filter=%s lists %q, want %q", filter, got, want)
		}
	}
	for filter, code := range map[string]string{
		"tagName%20eq%20'x'": "NotSupported",
		"resourceType%20eq%20'Microsoft.Compute/virtualMachines'%20or%20'a'": "NotSupported",
		"resourceType%20eq%20'Nobody.Knows/it'":                              "InvalidResourceType",
		"resourceType%20eq%20'it'":                                           "InvalidRequestContent",
		"resourceType%20eq%20''":                                             "NotSupported",
		// Reads as a type that is known, if one looks at its end alone.
		"resourceType%20eq%20'X.Y/z/n/providers/Microsoft.Compute/virtualMachines'": "InvalidResourceType",
	} {
		r := w.owner.do("GET", with(filter), "")
		if p := r.wrong(r.status, code); p != "" || r.status != 400 && r.status != 404 {
			t.Errorf("$filter=%s: %d %s: %s", filter, r.status, r.text, p)
		}
	}
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", with(""), "")
	vmReader := w.as(tenantA, "vm-reader", roleReader+" "+vms+"/vm1")
	vmReader.refused(403, "AuthorizationFailed", "GET", vms, "")
	vmReader.must(200, "GET", vms+"/vm1", "")
}
