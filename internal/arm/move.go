package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// MoveRequest is the body of POST {group}/moveResources and
// {group}/validateMoveResources.
type MoveRequest struct {
	// Resources are 1 to 800 resource IDs, all of the group in the path. What
	// is below a resource moves with it, and cannot be named by itself.
	Resources []string `json:"resources"`
	// TargetResourceGroup is the resource ID of another group of the tenant.
	TargetResourceGroup string `json:"targetResourceGroup"`
}

// Move is one resource's.
type Move struct{ From, To resource.ID }

// Rewrite brings up to date a member of a document's properties that is a
// resource ID. It reports whether there was something to do.
func (m Move) Rewrite(d Document, member string) (bool, error) {
	props := object(d.Member("properties"))
	var text string
	if raw := Document(props).Member(member); isNull(raw) || json.Unmarshal(raw, &text) != nil {
		return false, nil
	}
	id, err := resource.Parse(text)
	if err != nil {
		return false, nil // whatever it is, it names nothing that moved
	}
	now, ok, err := id.Moved(m.From, m.To)
	if err != nil || !ok {
		return false, err
	}
	Document(props).take(member)
	Document(props).set(member, now.String())
	d.take("properties")
	d.set("properties", props)
	return true, nil
}

const (
	maxMoved       = 800
	actionGroupPut = "Microsoft.Resources/subscriptions/resourceGroups/write"
	actionMove     = "Microsoft.Resources/subscriptions/resourceGroups/moveResources/action"
	actionValidate = "Microsoft.Resources/subscriptions/resourceGroups/validateMoveResources/action"
)

func (a *API) serveMove(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	validate := strings.EqualFold(q.path[strings.LastIndexByte(q.path, '/')+1:], "validateMoveResources")
	group, err := resource.Parse("/subscriptions/" + args[0] + "/resourceGroups/" + args[1])
	if err != nil {
		return err
	}
	var b MoveRequest
	if err := web.ReadJSON(r, &b); err != nil {
		return err
	}
	if err := a.MoveResources(r.Context(), q.c, group, b, validate); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// errValid ends a write that was only to find out whether it could be done.
var errValid = errors.New("the move is possible")

// MoveResources moves resources of a group to another one: all of them or none.
// Everything that they are and have stays theirs under their new IDs:
// principals with their ids, role assignments at them and below, identities,
// placements, secrets. With validate it only says whether it could.
//
// What is inherited changes: roles at the old group end, those at the new one
// begin to count. So whoever moves a resource to where others have rights gives
// these rights, and needs the right to give roles.
func (a *API) MoveResources(ctx context.Context, c access.Caller, group resource.ID, q MoveRequest, validate bool) error {
	action := actionMove
	if validate {
		action = actionValidate
	}
	ev, err := a.permit(ctx, c, action, group)
	if err != nil {
		return err
	}
	target, moves, err := a.plan(group, q)
	if err != nil {
		return a.refuse(ctx, ev, problem.Of(err))
	}
	if err := a.mayMove(ctx, c, group, target, moves); err != nil {
		return err
	}
	said := moved(moves, target)
	ev.Reason += said
	err = a.write(ctx, ev, func(tx Tx) error {
		if err := a.move(ctx, tx, group, target, moves); err != nil || !validate {
			return err
		}
		return errValid
	})
	if errors.Is(err, errValid) {
		ev.Reason = strings.TrimSuffix(ev.Reason, said) + "; the move is possible"
		return a.Store.Record(ctx, ev)
	}
	return err
}

// moved says on record what went where.
func moved(moves []Move, target resource.ID) string {
	var names []string
	for _, m := range moves {
		names = append(names, m.From.Type()+"/"+m.From.Name())
	}
	return "; moved to " + target.String() + ": " + strings.Join(aFew(names), ", ")
}

// aFew are the first of many names, for the record, and how many more there are.
func aFew(names []string) []string {
	const most = 20
	if len(names) <= most {
		return names
	}
	return append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
}

// plan reads what is to go where.
func (a *API) plan(group resource.ID, q MoveRequest) (target resource.ID, moves []Move, err error) {
	target, err = resource.Parse(q.TargetResourceGroup)
	if err != nil || !target.Equal(target.GroupID()) {
		return target, nil, problem.Errorf(problem.Invalid, "The member 'targetResourceGroup' is '%s'; /subscriptions/{id}/resourceGroups/{name} was expected.", problem.Clip(q.TargetResourceGroup))
	}
	if target.Equal(group) {
		return target, nil, problem.Errorf(problem.Invalid, "The member 'targetResourceGroup' is the group that the resources are in; another one was expected.")
	}
	if len(q.Resources) == 0 || len(q.Resources) > maxMoved {
		return target, nil, problem.Errorf(problem.Invalid, "The member 'resources' has %d entries; 1 to %d resource IDs were expected.", len(q.Resources), maxMoved)
	}
	seen := map[string]bool{}
	for _, text := range q.Resources {
		id, err := resource.Parse(text)
		if err != nil {
			return target, nil, err
		}
		if _, err := a.typeOf(id); err != nil {
			return target, nil, err
		}
		switch {
		case !id.GroupID().Equal(group) || id.Equal(group):
			return target, nil, problem.Errorf(problem.Invalid, "The resource '%s' is not in the resource group '%s'; all of 'resources' must be.", id, group.Name())
		case !id.Parent().Equal(group):
			return target, nil, problem.Errorf(problem.Invalid, "The resource '%s' is part of '%s' and moves with it; name that one.", id, id.Parent())
		case seen[id.Key()]:
			return target, nil, problem.Errorf(problem.Invalid, "The resource '%s' is listed more than once.", id)
		}
		seen[id.Key()] = true
		to, _, err := id.Moved(group, target)
		if err != nil {
			return target, nil, err
		}
		moves = append(moves, Move{id, to})
	}
	return target, moves, nil
}

// move is the part that runs within the write.
func (a *API) move(ctx context.Context, tx Tx, group, target resource.ID, moves []Move) error {
	for _, g := range []resource.ID{group, target} {
		if _, err := tx.Resource(g.Key()); problem.Is(err, problem.NotFound) {
			return notFound(g)
		} else if err != nil {
			return err
		}
	}
	if err := movable(tx, target, moves); err != nil {
		return err
	}
	if err := unlockedMove(tx, group, target, moves); err != nil {
		return err
	}
	for _, m := range moves {
		if err := tx.Move(m.From, m.To, a.Now()); err != nil {
			return err
		}
		if err := a.follow(ctx, tx, m); err != nil {
			return err
		}
		if err := a.stillAssignableIn(ctx, tx, m.To.Contains); err != nil {
			return err
		}
	}
	return nil
}

// unlockedMove refuses a move that a lock stands in the way of: at its source
// it is a delete, at its target a write.
func unlockedMove(tx Tx, group, target resource.ID, moves []Move) error {
	locks, err := tx.Locks(keysOf(target.Ancestors()))
	if err != nil {
		return err
	}
	if err := stops(locks, target, false); err != nil {
		return err
	}
	if locks, err = tx.Locks(keysOf(group.Ancestors())); err != nil {
		return err
	}
	for _, m := range moves {
		own, err := tx.Locks([]string{m.From.Key()})
		if err != nil {
			return err
		}
		below, err := tx.ResourcesOf(m.From.Key(), typeLock)
		if err != nil {
			return err
		}
		if err := stops(slices.Concat(locks, own, below), m.From, true); err != nil {
			return err
		}
	}
	return nil
}

// movable says of each resource what keeps it from going.
func movable(tx Tx, target resource.ID, moves []Move) error {
	var parts []*problem.Error
	for _, m := range moves {
		_, err := tx.Resource(m.From.Key())
		if problem.Is(err, problem.NotFound) {
			parts = append(parts, &problem.Error{Kind: problem.NotFound, Target: m.From.String(), Detail: problem.Of(notFound(m.From)).Detail})
			continue
		}
		if err != nil {
			return err
		}
		switch _, err := tx.Resource(m.To.Key()); {
		case err == nil:
			parts = append(parts, &problem.Error{Kind: problem.Conflict, Target: m.From.String(),
				Detail: fmt.Sprintf("There is a resource '%s' already; delete it, or move it away first.", m.To)})
		case !problem.Is(err, problem.NotFound):
			return err
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return &problem.Error{Kind: problem.MoveFailed, More: parts,
		Detail: fmt.Sprintf("%d of the %d resources cannot be moved to '%s', and so none was; 'details' says why.", len(parts), len(moves), target)}
}

// follow brings up to date what documents say of a resource that moved: its
// own and those below it, those bound to it, and those of the resources that
// have an identity that moved.
func (a *API) follow(ctx context.Context, tx Tx, m Move) error {
	self, err := tx.Resource(m.To.Key())
	if err != nil {
		return err
	}
	rows, err := tx.Resources(m.To.Key(), true)
	if err != nil {
		return err
	}
	for _, r := range append(rows, self) {
		if err := a.followOne(ctx, tx, r, m); err != nil {
			return err
		}
	}
	users, err := tx.AttachedTo(m.To.Key())
	if err != nil {
		return err
	}
	for _, u := range users {
		r, err := tx.Resource(u.Key())
		if err != nil {
			return err
		}
		// What clients read of it names the identity: so it has another ETag.
		if err := tx.PutResource(r); err != nil {
			return err
		}
		more, err := tx.Resources(u.Key(), true)
		if err != nil {
			return err
		}
		for _, r := range more {
			if err := a.followOne(ctx, tx, r, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *API) followOne(ctx context.Context, tx Tx, r Resource, m Move) error {
	t, err := a.typeOf(r.ID)
	if err != nil || t.Moved == nil {
		return nil // a type that is not registered any more has nothing to say
	}
	changed, err := t.Moved(ctx, tx, r, m)
	if err != nil || !changed {
		return err
	}
	return tx.PutResource(r)
}
