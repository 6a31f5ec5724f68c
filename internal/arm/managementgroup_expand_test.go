package arm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// node is a child as it is answered, with its own.
func node(id, name string, children ...any) map[string]any {
	typ := "Microsoft.Management/managementGroups"
	if strings.HasPrefix(id, "/subscriptions/") {
		typ = "/subscriptions"
	}
	out := map[string]any{"id": id, "type": typ, "name": id[strings.LastIndexByte(id, '/')+1:], "displayName": name}
	if len(children) > 0 {
		out["children"] = children
	}
	return out
}

func rung(name, display string) map[string]any {
	return map[string]any{"name": name, "displayName": display}
}

// family makes the groups a, a/b, a/b/c with the subscription in it, and a/d.
func (w *world) family() *caller {
	w.t.Helper()
	top := w.root()
	named := func(name, parent string) string {
		return `{"properties":{"displayName":"` + name + `","details":{"parent":{"id":"` + parent + `"}}}}`
	}
	top.must(200, "PUT", mgs+"/a", named("A", mgs+"/"+tenantA))
	top.must(200, "PUT", mgs+"/b", named("B", mgs+"/a"))
	top.must(200, "PUT", mgs+"/c", named("C", mgs+"/b"))
	top.must(200, "PUT", mgs+"/d", named("D", mgs+"/a"))
	top.must(200, "PUT", mgs+"/c"+sub, "")
	return top
}

// expanded reads a group and returns its children and what details have beside
// what is always there.
func (c *caller) expanded(group, query string) (children any, details map[string]any) {
	c.w.t.Helper()
	r := c.must(200, "GET", mgs+group+"?api-version=2023-04-01"+query, "")
	var got struct {
		Properties struct {
			Children any
			Details  map[string]any
		}
	}
	if err := json.Unmarshal([]byte(r.text), &got); err != nil {
		c.w.t.Fatal(err)
	}
	for _, k := range []string{"version", "updatedTime", "updatedBy", "parent"} {
		delete(got.Properties.Details, k)
	}
	return got.Properties.Children, got.Properties.Details
}

func TestManagementGroupExpands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.family()
	subscription := node(sub, w.owner.must(200, "GET", sub, "").str("displayName"))
	c := node(mgs+"/c", "C", subscription)
	a, root := rung("a", "A"), rung(tenantA, "Tenant Root Group")
	none := map[string]any{}
	for _, tt := range []struct {
		group, query string
		children     any
		details      map[string]any
	}{
		{"/a", "", nil, none},
		{"/a", "&$recurse=false", nil, none},
		{"/a", "&$expand=children", []any{node(mgs+"/b", "B"), node(mgs+"/d", "D")}, none},
		{"/A", "&$EXPAND=Children&$recurse=TRUE", []any{node(mgs+"/b", "B", c), node(mgs+"/d", "D")}, none},
		{"/a", "&$expand=children&$recurse=true&$filter=children.childType%20ne%20Subscription", []any{node(mgs+"/b", "B", node(mgs+"/c", "C")), node(mgs+"/d", "D")}, none},
		{"/c", "&$expand=children", []any{subscription}, none},
		{"/c", "&$expand=children&$filter=children.childtype%20NE%20subscription", []any{}, none},
		{"/d", "&$expand=children&$recurse=true", []any{}, none},
		{"/c", "&$expand=path", nil, map[string]any{"path": []any{root, a, rung("b", "B"), rung("c", "C")}}},
		{"/c", "&$expand=ancestors", nil, map[string]any{
			"managementGroupAncestors": []any{"b", "a", tenantA}, "managementGroupAncestorsChain": []any{rung("b", "B"), a, root},
		}},
		{"/" + tenantA, "&$expand=path", nil, map[string]any{"path": []any{root}}},
		{"/" + tenantA, "&$expand=ancestors,%20children", []any{node(mgs+"/a", "A")}, map[string]any{"managementGroupAncestors": []any{}, "managementGroupAncestorsChain": []any{}}},
	} {
		children, details := top.expanded(tt.group, tt.query)
		if diff := cmp.Diff(tt.children, children); diff != "" {
			t.Errorf("children of %s with %s (-want +got):\n%s", tt.group, tt.query, diff)
		}
		if diff := cmp.Diff(tt.details, details); diff != "" {
			t.Errorf("details of %s with %s (-want +got):\n%s", tt.group, tt.query, diff)
		}
	}
	// A subscription that was never put anywhere is below the root.
	w.addSubscription(top)
	if children, _ := top.expanded("/"+tenantA, "&$expand=children"); len(children.([]any)) != 2 {
		t.Errorf("below the root are %v, want the group a and the new subscription", children)
	}
	for query, code := range map[string]string{
		"&$expand=parents": "InvalidRequestContent", "&$expand=children,x": "InvalidRequestContent", "&$expand=children,": "InvalidRequestContent", "&$expand=children&$recurse=yes": "InvalidRequestContent",
		"&$recurse=true": "InvalidRequestContent", "&$expand=path&$recurse=true": "InvalidRequestContent", "&$expand=path&$expand=path": "InvalidRequestContent",
		"&$expand=children&$recurse=true&$recurse=true": "InvalidRequestContent", "&$expand=children&$filter=x": "InvalidFilterInQueryString",
	} {
		r := top.refused(400, code, "GET", mgs+"/a?api-version=2023-04-01"+query, "")
		if target := r.str("error", "target"); !strings.HasPrefix(target, "$") {
			t.Errorf("%s: the fault is at %q, want a query parameter", query, target)
		}
	}
}

// TestManagementGroupShowsWhatItsReaderReads: a right at a group shows neither
// those above it nor, of those below, what is denied, and nothing of another
// tenant.
func TestManagementGroupShowsWhatItsReaderReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.family()
	reader := w.as(tenantA, "reader", roleReader+" "+mgs+"/b")
	_, details := reader.expanded("/c", "&$expand=path,ancestors")
	if diff := cmp.Diff(map[string]any{
		"path": []any{rung("b", "B"), rung("c", "C")}, "managementGroupAncestors": []any{"b"}, "managementGroupAncestorsChain": []any{rung("b", "B")},
	}, details); diff != "" {
		t.Errorf("a reader of b sees above c (-want +got):\n%s", diff)
	}
	reader.refused(403, "AuthorizationFailed", "GET", mgs+"/a?api-version=2023-04-01&$expand=children&$recurse=true", "")

	// A group that is denied takes what is below it along.
	all := w.as(tenantA, "all", roleReader+" /")
	top.must(201, "PUT", denialPath(mgs+"/b", name1), denialBody("No b", `"Microsoft.Management/managementGroups/read"`, all.oid))
	if children, _ := all.expanded("/a", "&$expand=children&$recurse=true"); cmp.Diff([]any{node(mgs+"/d", "D")}, children) != "" {
		t.Errorf("who is denied b sees below a: %v", children)
	}
	all.refused(403, "AuthorizationFailed", "GET", mgs+"/c", "")
	top.must(200, "DELETE", denialPath(mgs+"/b", name1), "")
	// A denial of the subscription, by a management group above it.
	top.must(201, "PUT", denialPath(mgs+"/b", name1), denialBody("No subscriptions", `"Microsoft.Resources/*"`, all.oid))
	want := []any{node(mgs+"/b", "B", node(mgs+"/c", "C")), node(mgs+"/d", "D")}
	if children, _ := all.expanded("/a", "&$expand=children&$recurse=true"); cmp.Diff(want, children) != "" {
		t.Errorf("who is denied the subscription sees below a: %v", children)
	}
	// A group of which only its own is denied hides itself from those below it.
	only := strings.Replace(denialBody("Not a", `"Microsoft.Management/managementGroups/read"`, all.oid), `"properties":{`, `"properties":{"doNotApplyToChildScopes":true,`, 1)
	top.must(201, "PUT", denialPath(mgs+"/a", name2), only)
	if _, details := all.expanded("/b", "&$expand=ancestors"); cmp.Diff([]any{tenantA}, details["managementGroupAncestors"]) != "" {
		t.Errorf("who is denied a sees above b: %v", details)
	}
	// A role for groups alone shows no subscriptions.
	w.owner.refused(403, "AuthorizationFailed", "GET", mgs+"/a", "")
	top.must(201, "PUT", rolePath("", name1), roleBody("Groups", "/", "Microsoft.Management/managementGroups/read"))
	groups := w.as(tenantA, "groups")
	top.assign(name1, groups.oid, mgs+"/a")
	if children, _ := groups.expanded("/a", "&$expand=children&$recurse=true"); cmp.Diff(want, children) != "" {
		t.Errorf("who reads groups alone sees below a: %v", children)
	}
	b := w.addTenant(tenantB)
	stranger := w.as(tenantB, "stranger", roleOwner+" /")
	if children, _ := stranger.expanded("/"+tenantB, "&$expand=children&$recurse=true"); strings.Contains(indent(t, children), "managementGroups") {
		t.Errorf("another tenant sees %v", children)
	}
	b.refused(403, "AuthorizationFailed", "GET", mgs+"/a?api-version=2023-04-01&$expand=children", "")
}
