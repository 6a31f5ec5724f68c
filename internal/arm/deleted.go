package arm

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// DeletedIdentity is a user-assigned identity that was deleted and can be
// recovered. Until then it is nothing: no principal has its ids, no token of it
// counts, no role is its.
//
// A system-assigned identity is never kept: it is born with its resource and
// gone with it.
type DeletedIdentity struct {
	Tenant   string
	Resource Resource
	Identity directory.Principal
	Roles    []KeptRole
	// Credentials are the resources of its federated credentials.
	Credentials []Resource
	Groups      []KeptGroup
	// Attached are the resources that had it.
	Attached []KeptResource
	// Denials are the deny assignments at it and below it.
	Denials []DenyAssignment
	// DeletedBy is an object id.
	DeletedBy        string
	Deleted, PurgeAt time.Time
}

// KeptRole is a role assignment that a deleted identity had.
type KeptRole struct {
	RoleAssignment
	// Node is the resource that the scope is, or lies in; UID is that one's. By
	// its UID it is found where it moved to, and told from another one that was
	// made in its place.
	Node resource.ID
	UID  string
}

// KeptGroup is a group that a deleted identity was in. Object ids of groups are
// their makers' to choose: by when it was made, a group is told from another one
// that was made with its id.
type KeptGroup struct {
	ID      string
	Created time.Time
}

// KeptResource is a resource as it was, and the UID that it is found by.
type KeptResource struct {
	ID  resource.ID
	UID string
}

const (
	deletedPath = "subscriptions/*/providers/Microsoft.ManagedIdentity/deletedUserAssignedIdentities"
	deletedIn   = "subscriptions/*/providers/Microsoft.ManagedIdentity/locations/*/deletedUserAssignedIdentities"

	actionDeletedRead = "Microsoft.ManagedIdentity/locations/deletedUserAssignedIdentities/read"
	actionRecover     = "Microsoft.ManagedIdentity/locations/deletedUserAssignedIdentities/recover/action"
	// ActionPurgeIdentity is what the record calls that a deleted identity goes
	// for good.
	ActionPurgeIdentity = "Microsoft.ManagedIdentity/locations/deletedUserAssignedIdentities/purge/action"
)

// keep keeps the user-assigned identities among the resources that are about to
// be deleted, with what they have while all of it is still there.
func (a *API) keep(tx Tx, c access.Caller, going []Resource) error {
	if a.Retention <= 0 {
		return nil
	}
	now := a.Now()
	known := map[string]Resource{}
	credentials := map[string][]Resource{} // by the identity's key
	for _, r := range going {
		known[r.ID.Key()] = r
		if strings.EqualFold(r.Type, typeFederated) {
			k := r.ID.Parent().Key()
			credentials[k] = append(credentials[k], r)
		}
	}
	var kept []DeletedIdentity
	var ids []string
	for _, r := range going {
		if !strings.EqualFold(r.Type, typeIdentity) {
			continue
		}
		own, err := tx.PrincipalOf(r.ID.Key())
		if problem.Is(err, problem.NotFound) {
			continue // without its ids there is nothing to bring back
		}
		if err != nil {
			return fmt.Errorf("finding the principal of %s: %w", r.ID, err)
		}
		denials, err := tx.DenialsWithin(r.ID.Key())
		if err != nil {
			return err
		}
		ids = append(ids, own.ID)
		kept = append(kept, DeletedIdentity{
			Tenant: r.Tenant, Resource: r, Identity: own, Credentials: credentials[r.ID.Key()], Denials: denials,
			DeletedBy: c.Principal, Deleted: now, PurgeAt: now.Add(a.Retention),
		})
	}
	roles, err := rolesKept(tx, ids, known)
	if err != nil {
		return err
	}
	for _, d := range kept {
		d.Roles = roles[d.Identity.ID]
		if err := d.keepUses(tx, known); err != nil {
			return err
		}
		if err := tx.KeepIdentity(d); err != nil {
			return err
		}
	}
	return nil
}

// rolesKept are the role assignments of principals, by these. known are
// resources by their keys; it adds what it reads.
func rolesKept(tx Tx, principals []string, known map[string]Resource) (map[string][]KeptRole, error) {
	ras, err := tx.AssignmentsOf(principals)
	if err != nil {
		return nil, err
	}
	out := map[string][]KeptRole{}
	for _, ra := range ras {
		node, err := nodeOf(tx, ra.Scope, known)
		if err != nil {
			return nil, err
		}
		out[ra.Principal] = append(out[ra.Principal], KeptRole{RoleAssignment: ra, Node: node.ID, UID: node.UID})
	}
	return out, nil
}

// keepUses notes which groups the identity is in, and who has it.
func (d *DeletedIdentity) keepUses(tx Tx, known map[string]Resource) error {
	groups, err := tx.GroupsOf(d.Identity.ID, false)
	if err != nil {
		return err
	}
	for _, g := range groups {
		d.Groups = append(d.Groups, KeptGroup{ID: g.ID, Created: g.Created})
	}
	users, err := tx.AttachedTo(d.Resource.ID.Key())
	if err != nil {
		return err
	}
	for _, u := range users {
		r, ok := known[u.Key()]
		if !ok {
			if r, err = tx.Resource(u.Key()); problem.Is(err, problem.NotFound) {
				continue
			} else if err != nil {
				return fmt.Errorf("reading what has the identity %s: %w", d.Resource.ID, err)
			}
			known[u.Key()] = r
		}
		d.Attached = append(d.Attached, KeptResource{ID: r.ID, UID: r.UID})
	}
	return nil
}

// nodeOf finds the resource that a scope is or lies in; for the root none.
func nodeOf(tx Tx, scope resource.ID, known map[string]Resource) (Resource, error) {
	for n := scope; !n.IsRoot() && !n.IsZero(); n = n.Parent() {
		if r, ok := known[n.Key()]; ok {
			return r, nil
		}
		r, err := tx.Resource(n.Key())
		if err == nil {
			known[n.Key()] = r
		}
		if err == nil || !problem.Is(err, problem.NotFound) {
			return r, err
		}
	}
	return Resource{ID: resource.Root}, nil
}

// deletedID is the ID of a deleted identity.
func (d DeletedIdentity) deletedID() string {
	return d.Resource.ID.SubscriptionID().String() + "/providers/Microsoft.ManagedIdentity/locations/" + normal(location(d.Resource.Body)) +
		"/deletedUserAssignedIdentities/" + d.Identity.ID
}

// view is what clients read. Of what the identity had it says how much: where its
// roles are is for those to read who may read there.
func (d DeletedIdentity) view() View {
	props := map[string]any{
		"identityId": d.Resource.ID.String(), "location": location(d.Resource.Body), "tenantId": d.Tenant,
		"principalId": d.Identity.ID, "clientId": d.Identity.Client, "deletedBy": d.DeletedBy,
		"deletionDate": stamp(d.Deleted), "scheduledPurgeDate": stamp(d.PurgeAt), "roleAssignmentCount": len(d.Roles),
		"federatedIdentityCredentialCount": len(d.Credentials), "groupMembershipCount": len(d.Groups), "attachmentCount": len(d.Attached),
	}
	if tags := Document(d.Resource.Body).Member("tags"); !isNull(tags) {
		props["tags"] = tags
	}
	return View{"id": d.deletedID(), "name": d.Resource.ID.Name(), "type": "Microsoft.ManagedIdentity/deletedUserAssignedIdentities", "properties": props}
}

// serveDeletedList serves what was deleted in a subscription.
func (a *API) serveDeletedList(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	l, err := a.DeletedIdentities(r.Context(), q.c, sub, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

// DeletedIdentities lists the identities of a subscription that can be recovered.
func (a *API) DeletedIdentities(ctx context.Context, c access.Caller, sub resource.ID, after string) (List, error) {
	ev, err := a.permit(ctx, c, actionDeletedRead, sub)
	if err != nil {
		return List{}, err
	}
	key, principal, _ := strings.Cut(after, " ") // keys have spaces only in names, and those are no identities'
	ds, err := a.Store.DeletedIdentities(ctx, c.Tenant, sub.Key(), key, principal, PageSize+1)
	if err != nil {
		return List{}, fmt.Errorf("listing the deleted identities of %s: %w", sub, err)
	}
	made, err := a.made(ctx, c.Tenant, sub)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	ds, out.Next = cut(ds, func(d DeletedIdentity) string { return d.Resource.ID.Key() + " " + d.Identity.ID })
	for _, d := range ds {
		if a.recoverable(d) && !made.After(d.Deleted) {
			out.Value = append(out.Value, d.view())
		}
	}
	return out, a.read(ctx, ev)
}

// recoverable reports whether the retention lasts.
func (a *API) recoverable(d DeletedIdentity) bool { return a.Now().Before(d.PurgeAt) }

// made is when the subscription or group that has an ID now was made; zero if
// there is none. Their IDs are their makers' to choose: what was deleted before
// that was in another one, and is not for whoever has rights on this one.
func (a *API) made(ctx context.Context, tenant string, id resource.ID) (time.Time, error) {
	r, err := a.Store.Resource(ctx, tenant, id.Key())
	if err != nil && !problem.Is(err, problem.NotFound) {
		return time.Time{}, fmt.Errorf("finding when %s was made: %w", id, err)
	}
	return r.Created, nil
}

// findDeleted finds a deleted identity by its object id or, where it is the only
// one of its name in the subscription and the location, by its name.
func (a *API) findDeleted(ctx context.Context, tenant string, args []string) (DeletedIdentity, error) {
	sub, where, name := args[0], normal(args[1]), args[2]
	in, err := resource.Parse("/subscriptions/" + sub)
	if err != nil {
		return DeletedIdentity{}, err
	}
	made, err := a.made(ctx, tenant, in)
	if err != nil {
		return DeletedIdentity{}, err
	}
	none := problem.Errorf(problem.NotFound, "There is no deleted identity '%s' in the location '%s' of the subscription '%s'.", problem.Clip(name), problem.Clip(where), problem.Clip(sub))
	found, err := a.Store.DeletedNamed(ctx, tenant, "/subscriptions/"+sub, name)
	if err != nil {
		return DeletedIdentity{}, err
	}
	if _, err := uuid.Parse(name); err == nil { // a name can be a GUID too
		d, err := a.Store.DeletedIdentity(ctx, tenant, name)
		if err == nil {
			found = []DeletedIdentity{d}
		} else if !problem.Is(err, problem.NotFound) {
			return d, err
		}
	}
	var fit []DeletedIdentity
	for _, d := range found {
		if strings.EqualFold(d.Resource.ID.Subscription(), sub) && normal(location(d.Resource.Body)) == where && a.recoverable(d) && !made.After(d.Deleted) {
			fit = append(fit, d)
		}
	}
	switch len(fit) {
	case 0:
		return DeletedIdentity{}, none
	case 1:
		return fit[0], nil
	}
	return DeletedIdentity{}, problem.Errorf(problem.Conflict, "%d deleted identities are named '%s'; say which by its principalId in place of the name.", len(fit), problem.Clip(name))
}

// serveDeleted serves one deleted identity.
func (a *API) serveDeleted(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	if r.Method == http.MethodDelete {
		if err := a.PurgeIdentity(r.Context(), q.c, args); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	ctx := r.Context()
	sub, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	ev, err := a.permit(ctx, q.c, actionDeletedRead, sub)
	if err != nil {
		return err
	}
	d, err := a.findDeleted(ctx, q.c.Tenant, args)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return a.refuse(ctx, ev, p)
	}
	if err != nil {
		return err
	}
	if err := a.read(ctx, ev); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, d.view())
}

// PurgeIdentity removes a deleted identity for good. args are subscription,
// location, and name or object id.
func (a *API) PurgeIdentity(ctx context.Context, c access.Caller, args []string) error {
	sub, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	ev, err := a.permit(ctx, c, ActionPurgeIdentity, sub)
	if err != nil {
		return err
	}
	d, err := a.findDeleted(ctx, c.Tenant, args)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return a.refuse(ctx, ev, p)
	}
	if err != nil {
		return err
	}
	ev.Target = d.Resource.ID.String()
	ev.Reason += "; the identity " + d.Identity.ID
	return a.write(ctx, ev, func(tx Tx) error { return tx.ForgetIdentity(d.Identity.ID) })
}
