package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Condition is what If-Match and If-None-Match ask of the resource as it is.
type Condition struct {
	// Match is an ETag or "*"; "" asks nothing.
	Match string
	// NoneMatch true asks that there be no such resource.
	NoneMatch bool
}

func (c Condition) check(old *Resource) error {
	switch {
	case c.NoneMatch && old != nil:
		return problem.Errorf(problem.PreconditionFailed, "The resource exists, and the request has If-None-Match: *.")
	case c.Match != "" && old == nil:
		return problem.Errorf(problem.PreconditionFailed, "The resource does not exist, and the request has If-Match.")
	case c.Match != "" && c.Match != "*" && strings.Trim(strings.TrimPrefix(c.Match, "W/"), `"`) != etag(*old):
		return problem.Errorf(problem.PreconditionFailed, "The resource has changed: its ETag is now \"%s\". Read it again and retry.", etag(*old))
	}
	return nil
}

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
	if err == nil {
		err = t.checkName(id)
	}
	if err == nil {
		err = t.clean(doc)
	}
	if err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	if err := a.mayLink(ctx, c, t, id, doc); err != nil {
		return nil, false, err
	}
	checked, err := a.mayAttach(ctx, c, id, plan)
	if err != nil {
		return nil, false, err
	}
	var created bool
	err = a.write(ctx, ev, func(tx Tx) error {
		created, err = a.put(ctx, tx, c, t, putRequest{id: id, doc: doc, patch: patch, cond: cond, plan: plan, checked: checked})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	v, err := a.view(ctx, t, c.Tenant, id)
	return v, created, err
}

// mayLink checks the caller's rights to what else the write touches.
func (a *API) mayLink(ctx context.Context, c access.Caller, t *Type, id resource.ID, doc Document) error {
	if t.Linked == nil {
		return nil
	}
	needs, err := t.Linked(doc)
	if err != nil {
		return a.refuse(ctx, a.event(c, t.Name+"/write", id), problem.Of(err))
	}
	for _, n := range needs {
		d, err := a.Directory.Authorize(ctx, c, n.Action, false, n.Scope)
		if err != nil {
			return err
		}
		if !d.Allowed {
			return a.refuse(ctx, a.event(c, n.Action, n.Scope), problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' has permission to perform the write on '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s'.",
				c.Client, c.Principal, id, n.Action, n.Scope))
		}
	}
	return nil
}

type putRequest struct {
	id      resource.ID
	doc     Document
	patch   bool
	cond    Condition
	plan    identityPlan
	checked map[string]bool
}

// put is the part of Put that runs within the write.
func (a *API) put(ctx context.Context, tx Tx, c access.Caller, t *Type, q putRequest) (created bool, err error) {
	if err := a.parentExists(tx, q.id); err != nil {
		return false, err
	}
	var old *Resource
	switch r, err := tx.Resource(q.id.Key()); {
	case err == nil:
		old = &r
	case !problem.Is(err, problem.NotFound):
		return false, err
	}
	if err := q.cond.check(old); err != nil {
		return false, err
	}
	if q.patch && old == nil {
		return false, notFound(q.id)
	}
	r, err := a.next(c, t, q, old)
	if err != nil {
		return false, err
	}
	if t.Check != nil {
		if err := t.Check(ctx, old, &r); err != nil {
			return false, err
		}
	}
	if err := tx.PutResource(r); err != nil {
		return false, err
	}
	if old == nil && t.OwnPrincipal != "" {
		if err := tx.PutPrincipal(directory.NewPrincipal(c.Tenant, t.OwnPrincipal, r.ID, false, a.Now())); err != nil {
			return false, err
		}
	}
	if err := a.applyIdentity(tx, r, q.plan, q.checked); err != nil {
		return false, err
	}
	if t.Written != nil {
		return old == nil, t.Written(tx, r)
	}
	return old == nil, nil
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
		}
		was, is := location(old.Body), location(r.Body)
		if is == "" && was != "" {
			r.Body["location"] = Document(old.Body).Member("location")
		} else if normal(was) != normal(is) {
			return r, problem.Errorf(problem.Immutable, "The location of '%s' is '%s' and cannot be changed to '%s'.", r.ID.Name(), was, is)
		}
	}
	if !t.NoLocation && location(r.Body) == "" {
		return r, problem.Errorf(problem.Invalid, "The member 'location' is missing; a string was expected, for example \"local\".")
	}
	return r, nil
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
func (a *API) parentExists(tx Tx, id resource.ID) error {
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
		return problem.Errorf(problem.Invalid, "The resource ID '%s' is not below a subscription.", id)
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
	if id.GroupID().IsZero() {
		return problem.Errorf(problem.Invalid, "The resource ID '%s' is not in a resource group.", id)
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
		return problem.Errorf(problem.Invalid, "The name '%s' is not valid for %s: %s.", clip(id.Name()), t.Name, t.NameRule)
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
	if strings.EqualFold(t.Name, typeSubscription) {
		return false, problem.Errorf(problem.NotSupported, "A subscription cannot be deleted in this version; delete its resource groups.")
	}
	ev, err := a.permit(ctx, c, t.Name+"/delete", id)
	if err != nil {
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
		return a.deleteTree(tx, r)
	})
	return existed, err
}

func (a *API) deleteTree(tx Tx, r Resource) error {
	below, err := tx.Resources(r.ID.Key(), true)
	if err != nil {
		return err
	}
	for i := len(below) - 1; i >= 0; i-- { // by key: children come after their parents
		if err := a.deleteOne(tx, below[i]); err != nil {
			return err
		}
	}
	return a.deleteOne(tx, r)
}

func (a *API) deleteOne(tx Tx, r Resource) error {
	key := r.ID.Key()
	if t, err := a.typeOf(r.ID); err == nil && t.Deleting != nil {
		if err := t.Deleting(tx, r); err != nil {
			return err
		}
	}
	ids, err := tx.Identities(key)
	if err != nil {
		return err
	}
	for _, p := range ids {
		if p.System {
			err = tx.DeletePrincipal(p.ID)
		} else {
			err = tx.Detach(key, p.Resource.Key())
		}
		if err != nil {
			return err
		}
	}
	if err := a.deleteOwn(tx, key); err != nil {
		return err
	}
	if err := tx.DeleteRoleAssignmentsWithin(key); err != nil {
		return err
	}
	if err := tx.ReleaseNames(key); err != nil {
		return err
	}
	return tx.DeleteResource(key)
}

// deleteOwn deletes the principal that the resource itself is, and takes it
// off every resource that has it.
func (a *API) deleteOwn(tx Tx, key string) error {
	own, err := tx.PrincipalOf(key)
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the principal of %s: %w", key, err)
	}
	users, err := tx.AttachedTo(key)
	if err != nil {
		return err
	}
	for _, u := range users {
		if err := tx.Detach(u.Key(), key); err != nil {
			return err
		}
	}
	return tx.DeletePrincipal(own.ID)
}
