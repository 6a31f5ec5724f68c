package arm

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// GroupExpand is what is asked of a management group beside itself.
type GroupExpand struct {
	// Children are the groups and subscriptions directly below it; with Recurse
	// each with its own, and so on.
	Children, Recurse bool
	// GroupsOnly leaves subscriptions out.
	GroupsOnly bool
	// Path are the groups from the root down to it, Ancestors those from its
	// parent up to the root.
	Path, Ancestors bool
}

// withoutSubscriptions is the one filter that there is.
const withoutSubscriptions = "children.childType ne Subscription"

// groupExpand reads $expand, $recurse and $filter of a management group.
func groupExpand(q url.Values) (GroupExpand, error) {
	var e GroupExpand
	for _, s := range strings.Split(q.Get("$expand"), ",") {
		switch lower(strings.TrimSpace(s)) {
		case "children":
			e.Children = true
		case "path":
			e.Path = true
		case "ancestors":
			e.Ancestors = true
		default:
			if q.Get("$expand") != "" {
				return e, problem.Errorf(problem.Invalid, "The query parameter '$expand' has '%s'; children, path, ancestors were expected, with commas between.", problem.Clip(s)).At("$expand")
			}
		}
	}
	switch s := q.Get("$recurse"); lower(s) {
	case "true":
		e.Recurse = true
	case "", "false":
	default:
		return e, problem.Errorf(problem.Invalid, "The query parameter '$recurse' is '%s'; true or false was expected.", problem.Clip(s)).At("$recurse")
	}
	if e.Recurse && !e.Children {
		return e, problem.Errorf(problem.Invalid, "The query parameter '$recurse' is true without '$expand=children', which it is about.").At("$recurse")
	}
	switch s := q.Get("$filter"); {
	case strings.EqualFold(strings.Join(strings.Fields(s), " "), withoutSubscriptions):
		e.GroupsOnly = true
	case s != "":
		return e, problem.Errorf(problem.BadFilter, "The $filter '%s' asks for something else than %s.", problem.Clip(s), withoutSubscriptions).At("$filter")
	}
	return e, nil
}

// family is the tree of management groups as a caller sees it.
type family struct {
	tree Tree
	root string
	// rows are the groups and subscriptions, by key.
	rows map[string]Resource
	// under are the keys of what is directly below each group.
	under map[string][]string
	may   func(op access.Operation, above []resource.ID) bool
}

// expandGroup adds to the view of a group what is asked for beside it. What the
// caller may not read by itself is left out, with all below it.
func (a *API) expandGroup(ctx context.Context, c access.Caller, key string, e GroupExpand, v View) error {
	if !e.Children && !e.Path && !e.Ancestors {
		return nil
	}
	f, err := a.family(ctx, c)
	if err != nil {
		return err
	}
	properties := v["properties"].(map[string]any)
	details := properties["details"].(map[string]any)
	if e.Children {
		properties["children"] = f.children(key, e)
	}
	chain := f.above(key)
	if e.Ancestors {
		names := []string{}
		for _, r := range chain {
			names = append(names, r.ID.Name())
		}
		details["managementGroupAncestors"], details["managementGroupAncestorsChain"] = names, pathViews(chain)
	}
	if e.Path {
		slices.Reverse(chain)
		details["path"] = pathViews(append(chain, f.rows[key]))
	}
	return nil
}

// treeRows reads all management groups and subscriptions, by key.
func (a *API) treeRows(ctx context.Context, tenant string) (map[string]Resource, error) {
	out := map[string]Resource{}
	for _, typ := range []string{TypeManagementGroup, typeSubscription} {
		rs, err := a.Store.Resources(ctx, tenant, "", typ, Page{})
		if err != nil {
			return nil, fmt.Errorf("reading the tree of management groups: %w", err)
		}
		for _, r := range rs {
			out[r.ID.Key()] = r
		}
	}
	root := RootGroup(tenant)
	if _, ok := out[root.Key()]; !ok {
		out[root.Key()] = rootGroup(tenant)
	}
	return out, nil
}

// shows finds a node that the caller may read.
func (f family) shows(key string) (Resource, bool) {
	r, ok := f.rows[key]
	if !ok {
		return r, false
	}
	action := actionManagementGroupRead
	if isSubscription(key) {
		action = typeSubscription + "/read"
	}
	return r, f.permits(r.ID, action)
}

// permits reports whether the caller may do something at a node.
func (f family) permits(id resource.ID, action string) bool {
	var above []resource.ID
	for _, k := range f.tree.above(id.Key(), f.root) {
		above = append(above, f.rows[k].ID)
	}
	return f.may(access.Operation{Action: action, Scope: id}, above)
}

// children are the nodes directly below a group.
func (f family) children(key string, e GroupExpand) []View {
	out := []View{}
	for _, r := range f.kins(key) {
		k := r.ID.Key()
		if e.GroupsOnly && isSubscription(k) {
			continue
		}
		v := View{"id": r.ID.String(), "type": TypeManagementGroup, "name": r.ID.Name(), "displayName": displayName(r.Resource)}
		if isSubscription(k) {
			v["type"] = "/subscriptions"
		} else if e.Recurse {
			if below := f.children(k, e); len(below) > 0 {
				v["children"] = below
			}
		}
		out = append(out, v)
	}
	return out
}

// above are the groups above a group, the nearest first.
func (f family) above(key string) []Resource {
	var out []Resource
	for _, k := range f.tree.above(key, f.root) {
		if r, ok := f.shows(k); ok {
			out = append(out, r)
		}
	}
	return out
}

func pathViews(groups []Resource) []View {
	out := []View{}
	for _, r := range groups {
		out = append(out, View{"name": r.ID.Name(), "displayName": displayName(r)})
	}
	return out
}
