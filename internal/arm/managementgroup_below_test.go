package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names are the names in a list, each with its parent's.
func (c *caller) names(method, path string) []string {
	c.w.t.Helper()
	r := c.must(200, method, path, "")
	var got struct {
		Value []struct {
			Name, Type string
			Properties struct{ Parent struct{ ID string } }
		}
	}
	if err := json.Unmarshal([]byte(r.text), &got); err != nil {
		c.w.t.Fatal(err)
	}
	out := []string{}
	for _, v := range got.Value {
		out = append(out, v.Name+" in "+v.Properties.Parent.ID[strings.LastIndexByte(v.Properties.Parent.ID, '/')+1:])
	}
	return out
}

func TestWhatIsBelowAManagementGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.family()
	subscription := strings.TrimPrefix(sub, "/subscriptions/")
	for path, want := range map[string][]string{
		"/a/descendants":               {"b in a", "d in a", "c in b", subscription + " in c"},
		"/C/descendants":               {subscription + " in c"},
		"/d/descendants":               {},
		"/" + tenantA + "/descendants": {"a in " + tenantA, "b in a", "d in a", "c in b", subscription + " in c"},
		"/c/subscriptions":             {subscription + " in c"},
		"/b/subscriptions":             {}, // those directly below it
	} {
		if diff := cmp.Diff(want, top.names("GET", mgs+path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	one := top.must(200, "GET", mgs+"/c"+sub, "")
	if one.str("name") != subscription || one.str("properties", "parent", "id") != mgs+"/c" || one.str("properties", "tenant") != tenantA || one.str("properties", "state") != "Active" {
		t.Errorf("the subscription in its group: %s", one.text)
	}
	top.refused(404, "ResourceNotFound", "GET", mgs+"/b"+sub, "")
	top.refused(404, "ResourceNotFound", "GET", mgs+"/none/descendants", "")
	top.refused(405, "MethodNotAllowed", "POST", mgs+"/a/descendants", "")

	reader := w.as(tenantA, "reader", roleReader+" "+mgs+"/b")
	reader.refused(403, "AuthorizationFailed", "GET", mgs+"/a/descendants", "")
	reader.refused(403, "AuthorizationFailed", "GET", mgs+"/a/subscriptions", "")
	if got := reader.names("GET", mgs+"/b/descendants"); cmp.Diff([]string{"c in b", subscription + " in c"}, got) != "" {
		t.Errorf("a reader of b sees below it %v", got)
	}
	top.must(201, "PUT", denialPath(mgs+"/c", name1), denialBody("No c", `"Microsoft.Management/managementGroups/read"`, reader.oid))
	if got := reader.names("GET", mgs+"/b/descendants"); len(got) > 0 {
		t.Errorf("who is denied c sees below b %v", got)
	}
}

const entities = "/providers/Microsoft.Management/getEntities"

// TestEntities: anybody may ask for what they can see, and sees nothing else.
func TestEntities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.family()
	list := func(c *caller, query string) map[string]string {
		t.Helper()
		r := c.must(200, "POST", entities+"?api-version=2023-04-01"+query, "")
		var got struct {
			Value []struct {
				Name       string
				Properties struct {
					Parent                                                     *struct{ ID string }
					Permissions, InheritedPermissions                          string
					NumberOfDescendants, NumberOfChildren, NumberOfChildGroups int
					ParentNameChain                                            []string
				}
			}
		}
		if err := json.Unmarshal([]byte(r.text), &got); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, v := range got.Value {
			p := v.Properties
			out[v.Name] = fmt.Sprint(p.Permissions, " ", p.InheritedPermissions, " ", p.NumberOfDescendants, p.NumberOfChildren, p.NumberOfChildGroups, " ", strings.Join(p.ParentNameChain, "/"), " ", p.Parent != nil)
		}
		return out
	}
	subscription := strings.TrimPrefix(sub, "/subscriptions/")
	if diff := cmp.Diff(map[string]string{
		tenantA: "delete noaccess 5 1 1  false", "a": "delete delete 4 2 2 " + tenantA + " true", "b": "delete delete 2 1 1 " + tenantA + "/a true", "d": "delete delete 0 0 0 " + tenantA + "/a true",
		"c": "delete delete 1 1 0 " + tenantA + "/a/b true", subscription: "delete delete 0 0 0 " + tenantA + "/a/b/c true",
	}, list(top, "")); diff != "" {
		t.Errorf("entities of an owner (-want +got):\n%s", diff)
	}
	reader := w.as(tenantA, "reader", roleReader+" "+mgs+"/b")
	if diff := cmp.Diff(map[string]string{
		"b": "view noaccess 2 1 1  false", "c": "view view 1 1 0 b true", subscription: "view view 0 0 0 b/c true",
	}, list(reader, "")); diff != "" {
		t.Errorf("entities of a reader of b (-want +got):\n%s", diff)
	}
	if got := list(reader, "&$filter=name%20eq%20'C'"); len(got) != 1 || got["c"] == "" {
		t.Errorf("the entity c: %v", got)
	}
	if got := list(w.as(tenantA, "nobody"), ""); len(got) > 0 {
		t.Errorf("who has no role sees %v", got)
	}
	top.refused(400, "InvalidFilterInQueryString", "POST", entities+"?api-version=2023-04-01&$filter=x%20eq%20'c'", "")
}
