package arm

import (
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// What moves to below other scopes, a resource to another group or a
// subscription to another management group, has other rights over it there.
// This is what that takes beside the right to move.

// mayMove checks the rights that a move needs beside that to move out of the
// source group.
func (a *API) mayMove(ctx context.Context, c access.Caller, group, target resource.ID, moves []Move) error {
	if err := a.may(ctx, c, "move to", target, []Need{{actionGroupPut, target}}); err != nil {
		return err
	}
	from, err := a.above(ctx, c.Tenant, group)
	if err != nil {
		return err
	}
	to, err := a.above(ctx, c.Tenant, target)
	if err != nil {
		return err
	}
	gains, err := a.moveGains(ctx, c.Tenant, from, to)
	if err != nil {
		return err
	}
	for _, m := range moves {
		t, err := a.typeOf(m.From)
		if err != nil {
			return err
		}
		if err := a.may(ctx, c, "move of", m.From, []Need{{t.Name + "/write", m.To}}); err != nil {
			return err
		}
		if gains {
			if err := a.mayMoveRights(ctx, c, m.From, Need{actionAssignmentWrite, m.From}); err != nil {
				return err
			}
		}
		rows, err := a.Store.Resources(ctx, c.Tenant, m.From.Key(), "", Page{})
		if err != nil {
			return fmt.Errorf("listing what is below %s: %w", m.From, err)
		}
		err = a.undenied(ctx, c, "write", Resource{ID: m.From, Type: t.Name}, rows)
		if problem.Is(err, problem.LinkedDenied) {
			return a.refuse(ctx, a.event(c, t.Name+"/write", m.From), problem.Of(err))
		}
		if err != nil {
			return err
		}
	}
	return a.mayLeaveBehind(ctx, c, moves[0].From, from, to)
}

// mayMoveRights checks a right that a move of on needs for what it does to the
// rights of others. A condition is on what is written, and a move can give any
// role: so it takes a role assignment without one.
func (a *API) mayMoveRights(ctx context.Context, c access.Caller, on resource.ID, n Need) error {
	d, err := a.Directory.AuthorizeUnconditionally(ctx, c, access.Operation{Action: n.Action, Scope: n.Scope})
	if err != nil || d.Allowed {
		return err
	}
	return a.refuse(ctx, a.event(c, n.Action, n.Scope), problem.Errorf(problem.LinkedDenied,
		"The client '%s' with object id '%s' may move '%s'; however, that changes who has which rights over it, and the client does not have permission to perform action '%s' on the linked scope '%s'.",
		c.Client, c.Principal, on, n.Action, n.Scope))
}

// above are the keys of the scopes whose assignments count at a scope.
func (a *API) above(ctx context.Context, tenant string, scope resource.ID) ([]string, error) {
	groups, err := a.Store.Above(ctx, tenant, scope)
	if err != nil {
		return nil, err
	}
	return append(keysOf(scope.Ancestors()), keysOf(groups)...), nil
}

// moveGains reports whether somebody has a role over the target of a move who
// has not the same over the source: then a move gives it to them.
func (a *API) moveGains(ctx context.Context, tenant string, from, to []string) (bool, error) {
	have := map[string]bool{}
	before, err := a.Store.RoleAssignments(ctx, tenant, from, "", "", Page{})
	if err != nil {
		return false, fmt.Errorf("reading who has roles over the source: %w", err)
	}
	for _, ra := range before {
		have[ra.Role+" "+ra.Principal+" "+ra.Condition] = true
	}
	after, err := a.Store.RoleAssignments(ctx, tenant, to, "", "", Page{})
	if err != nil {
		return false, fmt.Errorf("reading who has roles over the target: %w", err)
	}
	for _, ra := range after {
		if !have[ra.Role+" "+ra.Principal+" "] && !have[ra.Role+" "+ra.Principal+" "+ra.Condition] {
			return true, nil
		}
	}
	return false, nil
}

// mayLeaveBehind checks that the caller could lift the deny assignments that a
// move of on leaves behind: they count below the scopes from, and not below to.
// Nobody leaves one behind that applies to himself.
func (a *API) mayLeaveBehind(ctx context.Context, c access.Caller, on resource.ID, from, to []string) error {
	denials, err := a.Store.DenyAssignments(ctx, c.Tenant, from, "", Page{})
	if err != nil {
		return fmt.Errorf("reading who is denied what over %s: %w", on, err)
	}
	denials = slices.DeleteFunc(denials, func(d DenyAssignment) bool {
		return d.ScopeOnly || slices.Contains(to, d.Scope.Key())
	})
	if len(denials) == 0 {
		return nil
	}
	mine, err := a.Store.GroupsOf(ctx, c.Tenant, c.Principal, true)
	if err != nil {
		return err
	}
	for _, d := range denials {
		if err := a.mayMoveRights(ctx, c, on, Need{actionDenialWrite, d.Scope}); err != nil {
			return err
		}
		if d.changeableBy(c, mine) != nil {
			return a.refuse(ctx, a.event(c, actionDenialWrite, d.Scope), problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' may move '%s'; however, a deny assignment at '%s' would not count there any more, and it applies to the client, or is Innate's own.",
				c.Client, c.Principal, on, d.Scope))
		}
	}
	return nil
}

// undenied refuses what is done to a resource and to all of rows with it where
// a deny assignment refuses it to the caller for one of them. It records nothing:
// it is asked within writes too.
func (a *API) undenied(ctx context.Context, c access.Caller, verb string, whole Resource, rows []Resource) error {
	d := a.denials(c)
	for _, r := range append(slices.Clone(rows), whole) {
		action := r.Type + "/" + verb
		denied, err := d.refuse(ctx, action, r.ID)
		if err != nil {
			return err
		}
		if denied {
			return problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' may do this to '%s'; however, a deny assignment refuses it the action '%s' over scope '%s', to which it would be done as well.",
				c.Client, c.Principal, whole.ID, action, r.ID)
		}
	}
	return nil
}

// denials are what is denied to a caller, by subscriptions: the management
// groups above one are not those above another.
type denials struct {
	a  *API
	c  access.Caller
	of map[string]func(access.Operation) bool
	// nothing is denied to the caller, wherever.
	nothing bool
}

func (a *API) denials(c access.Caller) *denials {
	return &denials{a: a, c: c, of: map[string]func(access.Operation) bool{}}
}

// refuse reports whether a deny assignment refuses an action on a resource.
func (d *denials) refuse(ctx context.Context, action string, id resource.ID) (bool, error) {
	if d.nothing {
		return false, nil
	}
	at := id.SubscriptionID()
	if at.IsZero() {
		at = id
	}
	denies, ok := d.of[at.Key()]
	if !ok {
		var err error
		if denies, err = d.a.Directory.Denies(ctx, d.c, at); err != nil {
			return false, err
		}
		d.of[at.Key()], d.nothing = denies, denies == nil
	}
	return denies != nil && denies(access.Operation{Action: action, Scope: id}), nil
}

// hide reports whether a list at a scope leaves out a row of below it: where a
// deny assignment refuses the caller to read the row by itself, which takes own,
// or what it is about, whose name it would tell. What is of the scope itself or
// of above counts there, and is for whoever may ask there.
func (d *denials) hide(ctx context.Context, at resource.ID, own Need, about ...resource.ID) (bool, error) {
	if own.Scope.Equal(at) || !at.Contains(own.Scope) {
		return false, nil
	}
	denied, err := d.refuse(ctx, own.Action, own.Scope)
	for _, id := range about {
		if denied || err != nil {
			break
		}
		if !id.IsZero() && !id.Contains(at) {
			denied, err = d.refuse(ctx, id.Type()+"/read", id)
		}
	}
	return denied, err
}
