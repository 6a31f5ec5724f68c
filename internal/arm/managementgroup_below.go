package arm

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// groupPaths are lists of what is in the tree of management groups.
func groupPaths() []path {
	return []path{
		{"providers/Microsoft.Management/managementGroups/*/descendants", []string{"GET"}, (*API).serveDescendants},
		{"providers/Microsoft.Management/managementGroups/*/subscriptions", []string{"GET"}, (*API).serveGroupSubscriptions},
		{"providers/Microsoft.Management/getEntities", []string{"POST"}, (*API).serveEntities},
	}
}

// family reads the tree as c may see it.
func (a *API) family(ctx context.Context, c access.Caller) (family, error) {
	f := family{root: RootGroup(c.Tenant).Key()}
	var err error
	if f.tree, err = a.Store.Tree(ctx, c.Tenant); err != nil {
		return f, fmt.Errorf("reading the tree of management groups: %w", err)
	}
	if f.may, err = a.Directory.Everywhere(ctx, c); err != nil {
		return f, err
	}
	if f.rows, err = a.treeRows(ctx, c.Tenant); err != nil {
		return f, err
	}
	f.under = map[string][]string{}
	for _, k := range slices.Sorted(maps.Keys(f.rows)) {
		if k != f.root { // a subscription that was never put anywhere is below it
			parent := f.tree.parent(k, f.root)
			f.under[parent] = append(f.under[parent], k)
		}
	}
	return f, nil
}

// kin is a node of the tree below another.
type kin struct {
	Resource
	parent resource.ID
}

// kins are the nodes directly below a group that the caller may read, by key.
func (f family) kins(key string) []kin {
	var out []kin
	for _, k := range f.under[key] {
		if r, ok := f.shows(k); ok {
			out = append(out, kin{r, f.rows[key].ID})
		}
	}
	return out
}

// below are all nodes below a group that the caller may read: what is directly
// below it, then what is below each of these. What is below a group that the
// caller may not read is left out with it.
func (f family) below(key string) []kin {
	out := f.kins(key)
	for i := 0; i < len(out); i++ {
		out = append(out, f.kins(out[i].ID.Key())...)
	}
	return out
}

// inGroup is the tree, for a caller that may read the group named name. The event
// is that of the read, to be recorded.
func (a *API) inGroup(ctx context.Context, c access.Caller, name string) (f family, group Resource, ev audit.Event, err error) {
	id, err := resource.Parse("/providers/" + TypeManagementGroup + "/" + name)
	if err != nil {
		return f, group, ev, err
	}
	if ev, err = a.permit(ctx, c, actionManagementGroupRead, id); err != nil {
		return f, group, ev, err
	}
	if f, err = a.family(ctx, c); err != nil {
		return f, group, ev, err
	}
	group, ok := f.rows[id.Key()]
	if !ok {
		return f, group, ev, a.refuse(ctx, ev, problem.Errorf(problem.NotFound, "The management group '%s' is not found.", id.Name()))
	}
	return f, group, ev, nil
}

// Descendants lists all groups and subscriptions below a group.
func (a *API) Descendants(ctx context.Context, c access.Caller, group string) (List, error) {
	f, r, ev, err := a.inGroup(ctx, c, group)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	for _, k := range f.below(r.ID.Key()) {
		v := View{"id": k.ID.String(), "name": k.ID.Name(), "type": TypeManagementGroup,
			"properties": map[string]any{"displayName": displayName(k.Resource), "parent": map[string]string{"id": k.parent.String()}}}
		if isSubscription(k.ID.Key()) {
			v["type"] = "/subscriptions"
		}
		out.Value = append(out.Value, v)
	}
	return out, a.read(ctx, ev)
}

func (a *API) serveDescendants(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	l, err := a.Descendants(r.Context(), q.c, args[0])
	return a.answerList(w, r, q, l, err)
}

// GroupSubscriptions lists the subscriptions directly below a group.
func (a *API) GroupSubscriptions(ctx context.Context, c access.Caller, group string) (List, error) {
	f, r, ev, err := a.inGroup(ctx, c, group)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	for _, k := range f.kins(r.ID.Key()) {
		if isSubscription(k.ID.Key()) {
			out.Value = append(out.Value, groupSubscriptionView(c.Tenant, r.ID, k.Resource))
		}
	}
	return out, a.read(ctx, ev)
}

// GroupSubscription is one of them, .../managementGroups/{id}/subscriptions/{s}.
func (a *API) GroupSubscription(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	f, r, ev, err := a.inGroup(ctx, c, id.Parent().Name())
	if err != nil {
		return nil, err
	}
	for _, k := range f.kins(r.ID.Key()) {
		if isSubscription(k.ID.Key()) && strings.EqualFold(k.ID.Name(), id.Name()) {
			return groupSubscriptionView(c.Tenant, r.ID, k.Resource), a.read(ctx, ev)
		}
	}
	return nil, a.refuse(ctx, ev, problem.Errorf(problem.NotFound, "The subscription '%s' is not in the management group '%s'.", id.Name(), r.ID.Name()))
}

func groupSubscriptionView(tenant string, group resource.ID, sub Resource) View {
	return View{"id": group.String() + "/subscriptions/" + sub.ID.Name(), "name": sub.ID.Name(), "type": TypeManagementGroup + "/subscriptions",
		"properties": map[string]any{"tenant": tenant, "displayName": displayName(sub), "state": "Active", "parent": map[string]string{"id": group.String()}}}
}

func (a *API) serveGroupSubscriptions(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	l, err := a.GroupSubscriptions(r.Context(), q.c, args[0])
	return a.answerList(w, r, q, l, err)
}

// Entities lists every group and subscription that the caller may read, which
// needs no right of its own, with what it may do there. filter is "name eq 'x'",
// or empty.
func (a *API) Entities(ctx context.Context, c access.Caller, filter string) (List, error) {
	only, err := entityNamed(filter)
	if err != nil {
		return List{}, err
	}
	f, err := a.family(ctx, c)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	for _, k := range slices.Sorted(maps.Keys(f.rows)) {
		if r, ok := f.shows(k); ok && (only == "" || strings.EqualFold(r.ID.Name(), only)) {
			out.Value = append(out.Value, f.entity(c.Tenant, r))
		}
	}
	ev := a.event(c, actionManagementGroupRead, resource.Root)
	ev.Reason = fmt.Sprintf("%d of %d management groups and subscriptions, by the caller's roles", len(out.Value), len(f.rows))
	return out, a.read(ctx, ev)
}

func entityNamed(filter string) (string, error) {
	const can = "name eq '{name}'"
	if filter == "" {
		return "", nil
	}
	ts, err := terms(filter, can)
	if err != nil {
		return "", err
	}
	name := ""
	if len(ts) == 1 {
		name = named(ts[0], "name")
	}
	if name == "" {
		return "", problem.Errorf(problem.BadFilter, "The $filter '%s' asks for something else than %s.", problem.Clip(filter), can).At("$filter")
	}
	return name, nil
}

func (f family) entity(tenant string, r Resource) View {
	key := r.ID.Key()
	typ, below := TypeManagementGroup, f.below(key)
	if isSubscription(key) {
		typ = "/subscriptions"
	}
	groups := 0
	direct := f.kins(key)
	for _, k := range direct {
		if !isSubscription(k.ID.Key()) {
			groups++
		}
	}
	names, displayed := []string{}, []string{}
	for _, up := range slices.Backward(f.above(key)) { // the root first
		names, displayed = append(names, up.ID.Name()), append(displayed, displayName(up))
	}
	properties := map[string]any{
		"tenantId": tenant, "displayName": displayName(r), "permissions": f.permissions(r.ID), "inheritedPermissions": "noaccess",
		"numberOfDescendants": len(below), "numberOfChildren": len(direct), "numberOfChildGroups": groups,
		"parentNameChain": names, "parentDisplayNameChain": displayed,
	}
	if up, ok := f.shows(f.tree.parent(key, f.root)); ok && key != f.root {
		properties["parent"] = map[string]string{"id": up.ID.String()}
		properties["inheritedPermissions"] = f.permissions(up.ID)
	}
	return View{"id": r.ID.String(), "name": r.ID.Name(), "type": typ, "properties": properties}
}

// permissions is ARM's word for the most that the caller may do at a node.
func (f family) permissions(id resource.ID) string {
	typ := TypeManagementGroup
	if isSubscription(id.Key()) {
		typ = typeSubscription
	}
	for _, may := range [][2]string{{"/delete", "delete"}, {"/write", "edit"}} {
		if f.permits(id, typ+may[0]) {
			return may[1]
		}
	}
	return "view"
}

func (a *API) serveEntities(w http.ResponseWriter, r *http.Request, q request, _ []string) error {
	l, err := a.Entities(r.Context(), q.c, q.q.Get("$filter"))
	return a.answerList(w, r, q, l, err)
}
