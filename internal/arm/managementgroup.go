package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

const (
	actionManagementGroupRead   = TypeManagementGroup + "/read"
	actionManagementGroupWrite  = TypeManagementGroup + "/write"
	actionManagementGroupDelete = TypeManagementGroup + "/delete"
	actionMoveSubscription      = TypeManagementGroup + "/subscriptions/write"
)

// managementGroupType is the row of the table; [API.serveManagementGroup] serves it.
func managementGroupType() *Type {
	return &Type{
		Name: TypeManagementGroup, NoLocation: true, NamePattern: regexp.MustCompile(`^[A-Za-z0-9._()-]{0,89}[A-Za-z0-9_()-]$`),
		NameRule: "1 to 90 letters, digits and ( ) - _ . are allowed, not ending with a dot",
	}
}

// managementGroupBody is the body of PUT and PATCH of a management group; PATCH
// has its members at the top.
type managementGroupBody struct {
	DisplayName   *string `json:"displayName"`
	ParentGroupID *string `json:"parentGroupId"`
	Properties    struct {
		DisplayName *string `json:"displayName"`
		Details     struct {
			Parent struct {
				ID *string `json:"id"`
			} `json:"parent"`
		} `json:"details"`
	} `json:"properties"`
}

// UnmarshalJSON reads a body as strictly as a [Document].
func (b *managementGroupBody) UnmarshalJSON(raw []byte) error {
	var d Document
	if err := d.UnmarshalJSON(raw); err != nil {
		return err
	}
	type plain managementGroupBody
	return json.Unmarshal(raw, (*plain)(b))
}

func first(a, b *string) *string {
	if a != nil {
		return a
	}
	return b
}

// serveManagementGroup serves /providers/Microsoft.Management/managementGroups/{id}.
func (a *API) serveManagementGroup(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if !id.Scope().IsRoot() {
		return problem.Errorf(problem.BadID, "A management group is below no other resource; /providers/%s/{name} was expected.", TypeManagementGroup)
	}
	switch r.Method {
	case http.MethodGet:
		e, err := groupExpand(q.q)
		if err != nil {
			return err
		}
		v, err := a.ManagementGroup(r.Context(), q.c, id, e)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPut, http.MethodPatch:
		var b managementGroupBody
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		v, err := a.PutManagementGroup(r.Context(), q.c, id, first(b.Properties.DisplayName, b.DisplayName),
			first(b.Properties.Details.Parent.ID, b.ParentGroupID), r.Method == http.MethodPatch)
		return answer(w, http.StatusOK, v, err)
	case http.MethodDelete:
		existed, err := a.DeleteManagementGroup(r.Context(), q.c, id)
		if err == nil && !existed {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return answer(w, http.StatusOK, View{"id": id.String(), "name": id.Name(), "type": TypeManagementGroup}, err)
	}
	return notAllowed(r, "GET, PUT, PATCH and DELETE")
}

// serveManagementGroups lists the groups that the caller may read.
func (a *API) serveManagementGroups(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	l, err := a.ManagementGroups(r.Context(), q.c)
	return a.answerList(w, r, q, l, err)
}

// serveGroupSubscription serves .../managementGroups/{id}/subscriptions/{s}.
func (a *API) serveGroupSubscription(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	sub, err := resource.Parse("/subscriptions/" + id.Name())
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		v, err := a.GroupSubscription(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPut:
		v, err := a.MoveSubscription(r.Context(), q.c, sub, id.Parent(), false)
		return answer(w, http.StatusOK, v, err)
	case http.MethodDelete:
		if _, err := a.MoveSubscription(r.Context(), q.c, sub, id.Parent(), true); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

// managementGroup reads a group's row; the root group needs none.
func managementGroup(read func(key string) (Resource, error), tenant string, id resource.ID) (Resource, error) {
	r, err := read(id.Key())
	if !problem.Is(err, problem.NotFound) {
		return r, err
	}
	if id.Equal(RootGroup(tenant)) {
		return rootGroup(tenant), nil
	}
	return r, problem.Errorf(problem.NotFound, "The management group '%s' is not found.", id.Name())
}

// rootGroup is the root group while nobody has changed it.
func rootGroup(tenant string) Resource {
	return Resource{Tenant: tenant, ID: RootGroup(tenant), Type: TypeManagementGroup, UID: tenant, Body: Document{"displayName": json.RawMessage(`"Tenant Root Group"`)}}
}

func displayName(r Resource) string {
	var name string
	_ = json.Unmarshal(r.Body["displayName"], &name) // we wrote it, or it is not there
	return name
}

// ManagementGroup returns a group, with what e asks for beside it.
func (a *API) ManagementGroup(ctx context.Context, c access.Caller, id resource.ID, e GroupExpand) (View, error) {
	ev, err := a.permit(ctx, c, actionManagementGroupRead, id)
	if err != nil {
		return nil, err
	}
	read := func(key string) (Resource, error) { return a.Store.Resource(ctx, c.Tenant, key) }
	r, err := managementGroup(read, c.Tenant, id)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return nil, a.refuse(ctx, ev, p)
	}
	if err != nil {
		return nil, err
	}
	tree, err := a.Store.Tree(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	v, err := managementGroupView(read, c.Tenant, r, tree)
	if err != nil {
		return nil, err
	}
	if err := a.expandGroup(ctx, c, r.ID.Key(), e, v); err != nil {
		return nil, err
	}
	return v, a.read(ctx, ev)
}

func managementGroupView(read func(string) (Resource, error), tenant string, r Resource, tree Tree) (View, error) {
	details := map[string]any{"version": 1, "updatedTime": stamp(r.Updated), "updatedBy": r.UpdatedBy}
	root := RootGroup(tenant)
	if !r.ID.Equal(root) {
		parent, err := resource.Parse(tree.parent(r.ID.Key(), root.Key()))
		if err != nil {
			return nil, err
		}
		p, err := managementGroup(read, tenant, parent)
		if err != nil {
			return nil, err
		}
		details["parent"] = map[string]string{"id": p.ID.String(), "name": p.ID.Name(), "displayName": displayName(p)}
	}
	return View{
		"id": r.ID.String(), "name": r.ID.Name(), "type": TypeManagementGroup,
		"properties": map[string]any{"tenantId": tenant, "displayName": displayName(r), "details": details},
	}, nil
}

// ManagementGroups lists the groups that the caller may read: the list needs no
// right of its own.
func (a *API) ManagementGroups(ctx context.Context, c access.Caller) (List, error) {
	f, err := a.family(ctx, c)
	if err != nil {
		return List{}, err
	}
	out, groups := List{Value: []View{}}, 0
	for _, k := range slices.Sorted(maps.Keys(f.rows)) {
		if isSubscription(k) {
			continue
		}
		groups++
		if r, ok := f.shows(k); ok {
			out.Value = append(out.Value, View{
				"id": r.ID.String(), "name": r.ID.Name(), "type": TypeManagementGroup,
				"properties": map[string]any{"tenantId": c.Tenant, "displayName": displayName(r)},
			})
		}
	}
	ev := a.event(c, actionManagementGroupRead, resource.Root)
	ev.Reason = fmt.Sprintf("%d of %d management groups, by the caller's roles", len(out.Value), groups)
	return out, a.read(ctx, ev)
}

// groupNamed reads the ID of a management group out of a body.
func groupNamed(s string) (resource.ID, error) {
	id, err := resource.Parse(s)
	if err != nil || !strings.EqualFold(id.Type(), TypeManagementGroup) || !id.Scope().IsRoot() {
		return id, problem.Errorf(problem.Invalid, "The parent '%s' is not the ID of a management group; /providers/%s/{name} was expected.", problem.Clip(s), TypeManagementGroup).At("properties.details.parent.id")
	}
	return id, nil
}

// PutManagementGroup makes or changes a group. A new one needs the right to
// write at its parent, one that is moved at itself, where it was and where it
// goes. What is below it has other rights there, so that it also takes the right
// to give roles on it.
func (a *API) PutManagementGroup(ctx context.Context, c access.Caller, id resource.ID, name, parent *string, patch bool) (View, error) {
	tree, err := a.Store.Tree(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	root := RootGroup(c.Tenant)
	is, known := tree[id.Key()]
	was, err := resource.Parse(tree.parent(id.Key(), root.Key()))
	if err != nil {
		return nil, err
	}
	to := was
	if parent != nil {
		if to, err = groupNamed(*parent); err != nil {
			return nil, err
		}
	}
	at := id
	if !known && !id.Equal(root) {
		at = to
	}
	ev, err := a.permitGroupWrite(ctx, c, id, at)
	if err != nil {
		return nil, err
	}
	ev.Target = id.String()
	if known && !to.Equal(was) {
		if err := a.may(ctx, c, "move of", id, []Need{{Action: actionManagementGroupWrite, Scope: was}, {Action: actionManagementGroupWrite, Scope: to}}); err != nil {
			return nil, err
		}
		if err := a.mayMoveRights(ctx, c, id, Need{Action: actionAssignmentWrite, Scope: id}); err != nil {
			return nil, err
		}
		if err := a.mayLeaveBehind(ctx, c, id, tree.over(id, was, root), tree.over(id, to, root)); err != nil {
			return nil, err
		}
	}
	if err := managementGroupType().checkName(id); err != nil {
		return nil, a.refuse(ctx, ev, problem.Of(err))
	}
	if id.Equal(root) && parent != nil {
		return nil, a.refuse(ctx, ev, problem.Errorf(problem.Invalid, "The root group is below no other.").At("properties.details.parent.id"))
	}
	var v View
	err = a.write(ctx, ev, func(tx Tx) error {
		now, err := tx.Tree()
		if err != nil {
			return err
		}
		if p, there := now[id.Key()]; there != known || p != is {
			return problem.Errorf(problem.Conflict, "%s was changed at the same time; read it again and retry.", id)
		}
		if v, err = a.putManagementGroup(tx, c, now, id, to, name, patch); err != nil || !known || to.Equal(was) {
			return err
		}
		return a.stillAssignableIn(ctx, tx, func(scope resource.ID) bool {
			node := treeNode(scope)
			return node == id.Key() || node != "" && slices.Contains(now.above(node, root.Key()), id.Key())
		})
	})
	return v, err
}

// permitGroupWrite asks for the right to write a management group, at its parent
// if it is new. A refusal names the group in either case: who has no right does
// not learn whether it is there.
func (a *API) permitGroupWrite(ctx context.Context, c access.Caller, id, at resource.ID) (audit.Event, error) {
	op := access.Operation{Action: actionManagementGroupWrite, Scope: at}
	ev := a.event(c, op.Action, at)
	d, err := a.Directory.Authorize(ctx, c, op)
	if err != nil {
		return ev, err
	}
	ev.Reason = d.String()
	if d.Allowed {
		return ev, nil
	}
	return ev, a.deny(ctx, ev, notAuthorized(c, op.Action, id), d)
}

func (a *API) putManagementGroup(tx Tx, c access.Caller, tree Tree, id, to resource.ID, name *string, patch bool) (View, error) {
	root := RootGroup(c.Tenant)
	r, err := managementGroup(tx.Resource, c.Tenant, id)
	switch {
	case problem.Is(err, problem.NotFound) && !patch:
		r = Resource{Tenant: c.Tenant, ID: id, Type: TypeManagementGroup, UID: uuid.NewString(), Created: a.Now(), CreatedBy: c.Principal}
		n := id.Name()
		name = first(name, &n)
	case err != nil:
		return nil, err
	}
	if name != nil {
		if *name == "" || len(*name) > 90 {
			return nil, problem.Errorf(problem.Invalid, "The member 'properties.displayName' must have 1 to 90 characters.").At("properties.displayName")
		}
		doc := Document{}
		doc.set("displayName", *name)
		r.Body = doc
	}
	r.Updated, r.UpdatedBy = a.Now(), c.Principal
	if !id.Equal(root) {
		if _, err := managementGroup(tx.Resource, c.Tenant, to); err != nil {
			return nil, err
		}
		if err := tree.mayMove(id.Key(), to.Key(), root.Key()); err != nil {
			return nil, err
		}
		if err := tx.PutParent(id.Key(), to.Key()); err != nil {
			return nil, err
		}
		tree[id.Key()] = to.Key()
	}
	if err := tx.PutResource(r); err != nil {
		return nil, err
	}
	return managementGroupView(tx.Resource, c.Tenant, r, tree)
}

// DeleteManagementGroup deletes a group that nothing is below.
func (a *API) DeleteManagementGroup(ctx context.Context, c access.Caller, id resource.ID) (existed bool, err error) {
	ev, err := a.permit(ctx, c, actionManagementGroupDelete, id)
	if err != nil {
		return false, err
	}
	if id.Equal(RootGroup(c.Tenant)) {
		return false, a.refuse(ctx, ev, problem.Errorf(problem.Conflict, "The root group cannot be deleted; it goes with its tenant."))
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		existed = false
		r, err := tx.Resource(id.Key())
		if problem.Is(err, problem.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		tree, err := tx.Tree()
		if err != nil {
			return err
		}
		if below := tree.children(id.Key()); len(below) > 0 {
			return problem.Errorf(problem.Conflict, "The management group '%s' has %d children, %s among them; move them first.", id.Name(), len(below), below[0])
		}
		existed = true
		if err := tx.PutParent(id.Key(), ""); err != nil {
			return err
		}
		return a.deleteTree(tx, c, r, nil)
	})
	return existed, err
}

// MoveSubscription puts a subscription below a group, or with away takes it from
// there to the root group. It needs what ARM needs: to write at both groups,
// and, since it decides who has rights on the subscription, to give roles on it.
// The root group needs no right: it is above the subscription anyway.
func (a *API) MoveSubscription(ctx context.Context, c access.Caller, sub, group resource.ID, away bool) (View, error) {
	tree, err := a.Store.Tree(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	root := RootGroup(c.Tenant)
	was, err := resource.Parse(tree.parent(sub.Key(), root.Key()))
	if err != nil {
		return nil, err
	}
	ev, err := a.permit(ctx, c, actionAssignmentWrite, sub)
	if err != nil {
		return nil, err
	}
	if err := a.mayMoveRights(ctx, c, sub, Need{Action: actionAssignmentWrite, Scope: sub}); err != nil {
		return nil, err
	}
	ev.Action, ev.Target = actionMoveSubscription, sub.String()
	ev.Reason += "; to " + group.Name()
	var needs []Need
	for _, g := range []resource.ID{was, group} {
		if !g.Equal(root) {
			needs = append(needs, Need{Action: actionMoveSubscription, Scope: g})
		}
	}
	if err := a.may(ctx, c, "move of", sub, needs); err != nil {
		return nil, err
	}
	to := group
	if away {
		to = root
	}
	if err := a.mayLeaveBehind(ctx, c, sub, tree.over(sub, was, root), tree.over(sub, to, root)); err != nil {
		return nil, err
	}
	var v View
	err = a.write(ctx, ev, func(tx Tx) error {
		now, err := tx.Tree()
		if err != nil {
			return err
		}
		if now.parent(sub.Key(), root.Key()) != was.Key() {
			return problem.Errorf(problem.Conflict, "%s was moved at the same time; retry.", sub)
		}
		r, err := tx.Resource(sub.Key())
		if problem.Is(err, problem.NotFound) {
			return notFound(sub)
		}
		if err != nil {
			return err
		}
		g, err := managementGroup(tx.Resource, c.Tenant, group)
		if err != nil {
			return err
		}
		if away && !was.Equal(g.ID) {
			return problem.Errorf(problem.NotFound, "The subscription '%s' is not below the management group '%s'.", sub.Name(), group.Name())
		}
		v = View{
			"id": g.ID.String() + "/subscriptions/" + sub.Name(), "name": sub.Name(), "type": TypeManagementGroup + "/subscriptions",
			"properties": map[string]any{"tenant": c.Tenant, "displayName": displayName(r), "state": "Active", "parent": map[string]string{"id": g.ID.String()}},
		}
		if err := tx.PutParent(sub.Key(), to.Key()); err != nil {
			return err
		}
		return a.stillAssignableIn(ctx, tx, sub.Contains)
	})
	return v, err
}
