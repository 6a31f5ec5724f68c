package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

func etag(r Resource) string { return strconv.FormatInt(r.ETag, 16) }

// Put creates or replaces a resource; patch makes it a PATCH, which merges and
// needs the resource to exist. It returns the resource as clients read it and
// whether it is new.
func (a *API) Put(ctx context.Context, c access.Caller, id resource.ID, doc Document, patch bool, cond Condition) (View, bool, error) {
	t, err := a.typeOf(id)
	if err != nil {
		return nil, false, err
	}
	ev, err := a.permit(ctx, c, t.Name+"/write", id)
	if err != nil {
		return nil, false, err
	}
	block, present := doc.take("identity")
	plan, err := t.planIdentity(block, present, patch)
	if err == nil && strings.EqualFold(t.Name, typeSubscription) {
		err = problem.Errorf(problem.NotSupported, "A subscription is made with PUT /providers/Microsoft.Subscription/aliases/{name} and renamed with POST {subscription}/providers/Microsoft.Subscription/rename.")
	}
	if err == nil {
		err = t.checkName(id)
	}
	if err == nil {
		err = t.clean(doc)
	}
	if err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	linked, err := a.mayLink(ctx, c, t, id, doc, patch)
	if err != nil {
		return nil, false, err
	}
	checked, err := a.mayAttach(ctx, c, t, id, plan)
	if err != nil {
		return nil, false, err
	}
	var v View
	var created bool
	err = a.write(ctx, ev, func(tx Tx) error {
		v, created, err = a.put(ctx, tx, c, t, putRequest{id: id, doc: doc, patch: patch, cond: cond, plan: plan, linked: linked, checked: checked})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return v, created, nil
}

// mayLink checks the caller's rights to what else the write touches: by the
// document as it will be, of which a PATCH need not say all. It returns the
// needs that it checked.
func (a *API) mayLink(ctx context.Context, c access.Caller, t *Type, id resource.ID, doc Document, patch bool) (map[string]bool, error) {
	if t.Linked == nil {
		return nil, nil
	}
	if patch {
		old, err := a.Store.Resource(ctx, c.Tenant, id.Key())
		if problem.Is(err, problem.NotFound) {
			return nil, nil // which the write will find too
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", id, err)
		}
		if doc, err = merge(old.Body, doc); err != nil {
			return nil, err
		}
	}
	needs, err := t.Linked(ctx, c.Tenant, id, doc)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return nil, a.refuse(ctx, a.event(c, t.Name+"/write", id), p)
	}
	if err != nil {
		return nil, err
	}
	linked := map[string]bool{}
	for _, n := range needs {
		linked[n.key()] = true
	}
	return linked, a.may(ctx, c, "write on", id, needs)
}

// may checks that the caller has all that an operation on id needs elsewhere.
func (a *API) may(ctx context.Context, c access.Caller, operation string, id resource.ID, needs []Need) error {
	for _, n := range needs {
		d, err := a.Directory.Authorize(ctx, c, access.Operation{Action: n.Action, Scope: n.Scope})
		if err != nil {
			return err
		}
		if !d.Allowed {
			return a.deny(ctx, a.event(c, n.Action, n.Scope), problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' has permission to perform the %s '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s'.",
				c.Client, c.Principal, operation, id, n.Action, n.Scope), d)
		}
	}
	return nil
}

func (n Need) key() string { return strings.ToLower(n.Action) + " " + n.Scope.Key() }

// stillLinked checks that the row needs nothing but what was checked: another
// write can have come between.
func (t *Type) stillLinked(ctx context.Context, r Resource, linked map[string]bool) error {
	if t.Linked == nil {
		return nil
	}
	needs, err := t.Linked(ctx, r.Tenant, r.ID, r.Body)
	if err != nil {
		return err
	}
	for _, n := range needs {
		if !linked[n.key()] {
			return problem.Errorf(problem.Conflict, "%s was changed at the same time; read it again and retry.", r.ID)
		}
	}
	return nil
}

type putRequest struct {
	id    resource.ID
	doc   Document
	patch bool
	cond  Condition
	plan  identityPlan
	// linked and checked are the rights that the caller was found to have.
	linked, checked map[string]bool
}

// put is the part of Put that runs within the write. The view is what this
// write made: another can follow before an answer could be read back.
func (a *API) put(ctx context.Context, tx Tx, c access.Caller, t *Type, q putRequest) (v View, created bool, err error) {
	old, r, err := a.rows(tx, c, t, q)
	if err != nil {
		return nil, false, err
	}
	if t.Check != nil {
		if err := t.Check(ctx, old, &r); err != nil {
			return nil, false, err
		}
	}
	if err := t.stillLinked(ctx, r, q.linked); err != nil {
		return nil, false, err
	}
	if t.Changing != nil {
		if err := t.Changing(tx, old, r); err != nil {
			return nil, false, err
		}
	}
	if err := tx.PutResource(r); err != nil {
		return nil, false, err
	}
	r.ETag = tx.Revision()
	if err := t.claim(tx, r); err != nil {
		return nil, false, err
	}
	if old == nil && t.OwnPrincipal != "" {
		if err := tx.PutPrincipal(directory.NewPrincipal(c.Tenant, t.OwnPrincipal, r.ID, false, a.Now())); err != nil {
			return nil, false, err
		}
	}
	if err := a.applyIdentity(tx, t, r, q.plan, q.checked); err != nil {
		return nil, false, err
	}
	if t.Written != nil {
		if err := t.Written(tx, r); err != nil {
			return nil, false, err
		}
	}
	v, err = t.viewWithin(tx, a.Names.Asked(c.Asked), r)
	return v, old == nil, err
}

// claim takes the resource's name where it is unique in the installation.
func (t *Type) claim(tx Tx, r Resource) error {
	if t.Unique == "" {
		return nil
	}
	err := tx.ClaimName(t.Unique, strings.ToLower(r.ID.Name()), r.ID.Key())
	if problem.Is(err, problem.Exists) {
		return problem.Errorf(problem.Exists, "The name '%s' is already in use: names of %s are unique in an installation.", r.ID.Name(), t.Name)
	}
	return err
}

// rows returns the row before the write, nil for a new resource, and after it.
func (a *API) rows(tx Tx, c access.Caller, t *Type, q putRequest) (old *Resource, r Resource, err error) {
	if err := a.parentExists(tx, t, q.id); err != nil {
		return nil, r, err
	}
	switch have, err := tx.Resource(q.id.Key()); {
	case err == nil:
		old = &have
	case !problem.Is(err, problem.NotFound):
		return nil, r, err
	}
	if err := q.cond.check(old); err != nil {
		return nil, r, err
	}
	if q.patch && old == nil {
		return nil, r, notFound(q.id)
	}
	r, err = a.next(c, t, q, old)
	return old, r, err
}

// viewWithin is [API.view] of a row that the write has made.
func (t *Type) viewWithin(tx Tx, names web.Names, r Resource) (View, error) {
	have, err := tx.Identities(directory.Holder(r.ID).Key())
	if err != nil {
		return nil, err
	}
	var own directory.Principal
	if t.OwnPrincipal != "" {
		if own, err = tx.PrincipalOf(r.ID.Key()); err != nil {
			return nil, err
		}
	}
	return t.view(names, r, have, own), nil
}

// next is the row after the write.
func (a *API) next(c access.Caller, t *Type, q putRequest, old *Resource) (Resource, error) {
	now := a.Now()
	r := Resource{
		Tenant: c.Tenant, ID: q.id, Type: t.Name, UID: uuid.NewString(), Body: q.doc,
		Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal,
	}
	if old != nil {
		r.ID, r.UID, r.Created, r.CreatedBy, r.BoundTo = old.ID, old.UID, old.Created, old.CreatedBy, old.BoundTo
		if q.patch {
			m, err := merge(old.Body, q.doc)
			if err != nil {
				return r, err
			}
			r.Body = m
		} else {
			t.stick(r.Body, old.Body)
		}
		was, is := location(old.Body), location(r.Body)
		if is == "" && was != "" {
			r.Body["location"] = Document(old.Body).Member("location")
		} else if normal(was) != normal(is) {
			return r, problem.Errorf(problem.Immutable, "The location of '%s' is '%s' and cannot be changed to '%s'.", r.ID.Name(), was, is).At("location")
		}
	}
	if !t.NoLocation && location(r.Body) == "" {
		return r, problem.Errorf(problem.Invalid, "The member 'location' is missing; a string was expected, for example \"local\".").At("location")
	}
	return r, compact(r.Body)
}

// stick takes over the members of properties that a PUT without them leaves.
func (t *Type) stick(is, was Document) {
	if len(t.Sticky) == 0 {
		return
	}
	props, old := Document(object(is.Member("properties"))), Document(object(was.Member("properties")))
	for _, m := range t.Sticky {
		if v := old.Member(m); props.Member(m) == nil && v != nil {
			if props == nil {
				props = Document{}
			}
			props[m] = v
		}
	}
	if props != nil {
		is.take("properties")
		is.set("properties", props)
	}
}

func location(body map[string]json.RawMessage) string {
	var s string
	if raw := Document(body).Member("location"); !isNull(raw) {
		_ = json.Unmarshal(raw, &s) // clean made sure that it is a string
	}
	return s
}

// normal compares locations as ARM does: "West Europe" is "westeurope".
func normal(loc string) string { return strings.ToLower(strings.ReplaceAll(loc, " ", "")) }

// parentExists checks the subscription, the group and the parent resource, and
// says which is missing.
func (a *API) parentExists(tx Tx, t *Type, id resource.ID) error {
	missing := func(n resource.ID, k problem.Kind, format string) error {
		if n.IsZero() || n.Equal(id) {
			return nil
		}
		_, err := tx.Resource(n.Key())
		if problem.Is(err, problem.NotFound) {
			return problem.Errorf(k, format, n.Name())
		}
		return err
	}
	if id.SubscriptionID().IsZero() {
		return problem.Errorf(problem.BadID, "The resource ID '%s' is not below a subscription.", id)
	}
	if err := missing(id.SubscriptionID(), problem.SubscriptionNotFound, "The subscription '%s' could not be found."); err != nil {
		return err
	}
	if err := missing(id.GroupID(), problem.GroupNotFound, "Resource group '%s' could not be found."); err != nil {
		return err
	}
	if strings.EqualFold(id.Type(), typeSubscription) {
		return nil
	}
	if t.AnyScope {
		return a.scopeExists(tx, id.Scope())
	}
	if t.Extension {
		if s := id.Scope(); !id.GroupID().IsZero() && !s.Equal(id.GroupID()) {
			return missing(s, problem.ParentNotFound, "The resource '%s' could not be found; create it first.")
		}
		return problem.Errorf(problem.BadID, "The resource ID '%s' is not below a resource; {resource ID}/providers/%s/{name} was expected.", id, t.Name)
	}
	if !id.Scope().Equal(id.GroupID()) {
		return problem.Errorf(problem.BadID, "The resource ID '%s' is not in a resource group; /subscriptions/{id}/resourceGroups/{name}/providers/%s/{name} was expected.", id, id.Type())
	}
	if p := id.Parent(); !id.Equal(id.GroupID()) && !p.Equal(id.GroupID()) {
		return missing(p, problem.ParentNotFound, "The parent resource '%s' could not be found.")
	}
	return nil
}

func notFound(id resource.ID) error {
	if strings.EqualFold(id.Type(), typeGroup) {
		return problem.Errorf(problem.GroupNotFound, "Resource group '%s' could not be found.", id.Name())
	}
	if strings.EqualFold(id.Type(), typeSubscription) {
		return problem.Errorf(problem.SubscriptionNotFound, "The subscription '%s' could not be found.", id.Name())
	}
	return problem.Errorf(problem.NotFound, "The Resource '%s/%s' under resource group '%s' was not found.", id.Type(), id.Name(), id.Group())
}

func (t *Type) checkName(id resource.ID) error {
	if t.NamePattern != nil && !t.NamePattern.MatchString(id.Name()) {
		return problem.Errorf(problem.BadName, "The name '%s' is not valid for %s: %s.", problem.Clip(id.Name()), t.Name, t.NameRule)
	}
	return nil
}

// Delete deletes a resource and everything that lives by it: what is below it
// and bound to it, its system-assigned identity, its attachments, the role
// assignments of those identities and at those scopes. existed is false, and
// that is no error, if there was nothing to delete.
func (a *API) Delete(ctx context.Context, c access.Caller, id resource.ID, cond Condition) (existed bool, err error) {
	t, err := a.typeOf(id)
	if err != nil {
		return false, err
	}
	ev, err := a.permit(ctx, c, t.Name+"/delete", id)
	if err != nil {
		return false, err
	}
	if t.Unlinked != nil {
		if err := a.may(ctx, c, "delete of", id, t.Unlinked(id)); err != nil {
			return false, err
		}
	}
	if err := a.takesLong(ctx, c.Tenant, id); err != nil {
		return false, err
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		existed = false
		r, err := tx.Resource(id.Key())
		if problem.Is(err, problem.NotFound) {
			return cond.check(nil)
		}
		if err != nil {
			return err
		}
		if err := cond.check(&r); err != nil {
			return err
		}
		existed = true
		with, err := tx.Resources(r.ID.Key(), true)
		if err != nil {
			return err
		}
		if err := unlockedBelow(tx, ev, r, with); err != nil {
			return err
		}
		if err := empty(r, with); err != nil {
			return err
		}
		if err := a.undenied(ctx, c, "delete", r, with); err != nil {
			return err
		}
		return a.deleteTree(tx, c, r, with)
	})
	return existed, err
}

// deleteTree deletes a resource with all that is below it, and what is bound to
// one of these; with are those. It asks for each only what its type wants to say:
// the rows go together.
func (a *API) deleteTree(tx Tx, c access.Caller, r Resource, with []Resource) error {
	all := append(slices.Clone(with), r)
	for _, n := range all {
		if t, err := a.typeOf(n.ID); err == nil && t.Deleting != nil {
			if err := t.Deleting(tx, n); err != nil {
				return err
			}
		}
	}
	if err := a.keep(tx, c, all); err != nil {
		return err
	}
	for _, n := range with {
		if r.ID.Contains(n.ID) {
			continue
		}
		if err := tx.DeleteTree(n.ID.Key()); err != nil {
			return err
		}
	}
	return tx.DeleteTree(r.ID.Key())
}
