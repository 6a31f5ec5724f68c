package arm

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// RecoverRequest is the body of POST {deleted identity}/recover, which may be
// left out.
type RecoverRequest struct {
	Properties struct {
		// Name is the identity's from now on, where another one has the old name.
		Name string `json:"name"`
		// RoleAssignments is "All" (the default): without the right to give each
		// of them, and to restore each federated credential and membership, the
		// identity is not recovered; or "Permitted": it comes back with what the
		// caller may give, and the rest is gone for good.
		RoleAssignments string `json:"roleAssignments"`
	} `json:"properties"`
}

func (a *API) serveRecover(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	var b RecoverRequest
	if r.ContentLength != 0 {
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
	}
	v, err := a.RecoverIdentity(r.Context(), q.c, args, b)
	return answer(w, http.StatusOK, v, err)
}

// RecoverIdentity brings a deleted identity back, with its ids. args are
// subscription, location, and name or object id.
//
// The deny assignments that were at it come back whoever recovers it: nobody is
// rid of what is denied to them by deleting what it is denied at. Its role
// assignments, its memberships of groups and its federated credentials
// come back too, and so recovering is giving rights: it needs the right to give
// each. Not restored is what has no place any more: a scope that was deleted
// (also if another resource has its ID now), a role or a group that is gone. Nor
// do tokens from before count again. Attachments are told of and do not come back:
// whoever owns the resource now may not know that programs on it could be the
// identity, and attaching takes the right to assign it and to write each resource,
// with all that the resource's type says of a write. Who may attaches it anew.
func (a *API) RecoverIdentity(ctx context.Context, c access.Caller, args []string, q RecoverRequest) (View, error) {
	d, found, err := a.mayRecover(ctx, c, args)
	if err != nil {
		return nil, err
	}
	t, err := a.typeOf(d.Resource.ID)
	if err != nil {
		return nil, err
	}
	ev := a.event(c, actionRecover, d.Resource.ID)
	id, err := q.check(t, d.Resource.ID)
	if err != nil {
		return nil, a.refuse(ctx, ev, problem.Of(err))
	}
	if ev, err = a.permit(ctx, c, t.Name+"/write", id); err != nil {
		return nil, err
	}
	denials, err := d.denialsAt(id)
	if err != nil {
		return nil, err
	}
	needs := []Need{found, {t.Name + "/write", id}}
	ev.Action = actionRecover
	why := ev.Reason
	var v View
	err = a.Store.Write(ctx, &ev, func(tx Tx) error {
		report := newRecovery(ctx, c, strings.EqualFold(q.Properties.RoleAssignments, "Permitted"))
		for _, deny := range append(denials, d.Denials...) {
			report.denies = append(report.denies, deny.Denial)
		}
		if err := report.still(a, needs); err != nil {
			return err
		}
		if err := unlocked(tx, ev); err != nil {
			return err
		}
		v, err = a.recover(tx, t, d.Identity.ID, id, report)
		ev.Reason = why + "; the identity " + d.Identity.ID + ", with " + report.String()
		return err
	})
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal && p.Kind != problem.Unavailable {
		return nil, a.refuse(ctx, ev, p)
	}
	return v, err
}

// check reads where the identity is to be.
func (q RecoverRequest) check(t *Type, was resource.ID) (resource.ID, error) {
	switch strings.ToLower(q.Properties.RoleAssignments) {
	case "", "all", "permitted":
	default:
		return was, problem.Errorf(problem.Invalid, "The member 'properties.roleAssignments' is '%s'; \"All\" or \"Permitted\" was expected.", problem.Clip(q.Properties.RoleAssignments))
	}
	if q.Properties.Name == "" {
		return was, nil
	}
	id, err := was.GroupID().Extension(t.Name, q.Properties.Name)
	if err != nil {
		return was, err
	}
	return id, t.checkName(id)
}

// mayRecover finds the identity for who may write it, or may recover whatever
// the subscription has; by says which of the two it was. Nobody else learns
// whether it is there.
func (a *API) mayRecover(ctx context.Context, c access.Caller, args []string) (d DeletedIdentity, by Need, err error) {
	sub, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return d, by, err
	}
	d, ferr := a.findDeleted(ctx, c.Tenant, args)
	if ferr == nil {
		if by, err = a.writesDeleted(ctx, sub, d); err != nil {
			return d, by, err
		}
		ok, err := a.Directory.Authorize(ctx, c, access.Operation{Action: by.Action, Scope: by.Scope})
		if err != nil || ok.Allowed {
			return d, by, err
		}
	}
	by = Need{actionRecover, sub}
	ev, err := a.permit(ctx, c, by.Action, by.Scope)
	if err != nil {
		return d, by, err
	}
	if p := problem.Of(ferr); ferr != nil && p.Kind != problem.Internal {
		return d, by, a.refuse(ctx, ev, p)
	}
	return d, by, ferr
}

// writesDeleted is the right to write an identity that was deleted: where it
// was, or, if its group is another one by now, in the subscription that both are
// in. Who was given a group of that name was not given what was in the one before,
// and others trust the ids.
func (a *API) writesDeleted(ctx context.Context, sub resource.ID, d DeletedIdentity) (Need, error) {
	made, err := a.made(ctx, d.Tenant, d.Resource.ID.GroupID())
	if made.After(d.Deleted) {
		return Need{typeIdentity + "/write", sub}, err
	}
	return Need{typeIdentity + "/write", d.Resource.ID}, err
}

// recover is the part that runs within the write.
func (a *API) recover(tx Tx, t *Type, principal string, id resource.ID, report *recovery) (View, error) {
	d, err := tx.DeletedIdentity(principal)
	if err != nil {
		return nil, err
	}
	if err := tx.ForgetIdentity(principal); err != nil {
		return nil, err
	}
	r, err := a.revive(tx, t, d, id, report.by)
	if err != nil {
		return nil, err
	}
	for _, k := range d.Roles {
		if err := a.restore(tx, k, report); err != nil {
			return nil, err
		}
	}
	if err := a.restoreCredentials(tx, d, id, report); err != nil {
		return nil, err
	}
	if err := a.denyAgain(tx, d, id, report); err != nil {
		return nil, err
	}
	for _, g := range d.Groups {
		if err := a.rejoin(tx, g, principal, report); err != nil {
			return nil, err
		}
	}
	if err := a.tellAttachments(tx, d, id, report); err != nil {
		return nil, err
	}
	v, err := t.viewWithin(tx, a.Names.Asked(report.by.Asked), r)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(report.Recovery)
	v["recovery"] = json.RawMessage(raw)
	return v, err
}

// revive writes the identity and its principal again, at id.
func (a *API) revive(tx Tx, t *Type, d DeletedIdentity, id resource.ID, by access.Caller) (Resource, error) {
	r := d.Resource
	if err := a.parentExists(tx, t, id); err != nil {
		return r, err
	}
	if _, err := tx.Resource(id.Key()); err == nil {
		return r, problem.Errorf(problem.Conflict, "There is an identity '%s' again; recover the deleted one under another name ('properties.name').", id)
	} else if !problem.Is(err, problem.NotFound) {
		return r, err
	}
	if _, err := tx.Principal(d.Identity.ID); err == nil {
		return r, problem.Errorf(problem.Conflict, "The object id '%s' is another principal's by now; delete that one first.", d.Identity.ID)
	} else if !problem.Is(err, problem.NotFound) {
		return r, err
	}
	now := a.Now()
	r.ID, r.Updated, r.UpdatedBy = id, now, by.Principal
	if err := tx.PutResource(r); err != nil {
		return r, err
	}
	r.ETag = tx.Revision()
	own := d.Identity
	// Tokens say their time in seconds: one that is made within this one counts.
	own.Resource, own.Name, own.ValidFrom = id, id.Name(), now.Truncate(time.Second)
	return r, tx.PutPrincipal(own)
}

// restore gives one role back, or says in the report why not.
func (a *API) restore(tx Tx, k KeptRole, report *recovery) error {
	lost := func(why string) error {
		l := LostRole{Reason: why}
		d, err := a.Directory.Authorize(report.ctx, report.by, access.Operation{Action: actionAssignmentRead, Scope: k.Scope})
		if d.Allowed { // where it was is for those to know who may read there
			l.ID, l.RoleDefinitionID, l.Scope = k.ID.String(), definitionID(k.Scope, k.Role), k.Scope.String()
		}
		report.NotRestored = append(report.NotRestored, l)
		return err
	}
	scope, err := kept(tx, k)
	if problem.Is(err, problem.NotFound) {
		return lost("its scope was deleted; what has that ID now, if anything, is another resource")
	}
	if err != nil {
		return err
	}
	if err := a.roleAssignable(tx, k.Role, scope); problem.Is(err, problem.RoleNotFound) {
		return lost("its role no longer exists, or cannot be assigned there any more")
	} else if err != nil {
		return err
	}
	op := access.Operation{Action: actionAssignmentWrite, Scope: scope, Attributes: access.Attributes{Request: giving(k.Role, k.Principal, k.PrincipalType)}}
	ok, err := report.allowed(a, op)
	switch {
	case err != nil:
		return err
	case !ok && report.permitted:
		return lost("the client does not have permission to perform action '" + actionAssignmentWrite + "' there")
	case !ok:
		return problem.Errorf(problem.LinkedDenied,
			"The client '%s' with object id '%s' has permission to recover the identity '%s'; however, that gives it back a role at a scope where the client does not have permission to perform action '%s'. %s",
			report.by.Client, report.by.Principal, k.Principal, actionAssignmentWrite, orPermitted)
	}
	locked := unlocked(tx, audit.Event{Action: actionAssignmentWrite, Target: scope.String(), Principal: report.by.Principal})
	switch {
	case problem.Is(locked, problem.Locked) && report.permitted:
		return lost("a lock stands in the way of a role assignment there")
	case locked != nil:
		return locked
	}
	ra := k.RoleAssignment
	name := k.ID.Name()
	for {
		if ra.ID, err = scope.Extension("Microsoft.Authorization/roleAssignments", name); err != nil {
			return err
		}
		if _, err := tx.RoleAssignment(ra.ID.Key()); problem.Is(err, problem.NotFound) {
			break
		} else if err != nil {
			return err
		}
		name = uuid.NewString() // another assignment has its name by now
	}
	ra.Scope, ra.Updated, ra.UpdatedBy = scope, a.Now(), report.by.Principal
	report.Restored = append(report.Restored, ra.ID.String())
	return tx.PutRoleAssignment(ra)
}

// kept is where a role's scope is now; [problem.NotFound] if it is gone.
func kept(tx Tx, k KeptRole) (resource.ID, error) {
	if k.UID == "" {
		return k.Scope, nil // the root
	}
	node, err := tx.ResourceWithUID(k.UID)
	if err != nil {
		return resource.ID{}, err
	}
	if node.ID.Equal(k.Node) {
		return k.Scope, nil
	}
	scope, _, err := k.Scope.Moved(k.Node, node.ID)
	return scope, err
}
