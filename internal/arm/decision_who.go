package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Bounds of one answer: how many assignments and principals are looked at, and
// how many members of a group.
const (
	whoPage    = 100
	maxMembers = 1000
)

// Place is where programs are a resource: on a host, by a placement.
type Place struct {
	ID   string `json:"id"`
	Host string `json:"host"`
	Door string `json:"door"`
	// Selectors must all hold of a program there.
	Selectors []string `json:"selectors"`
}

// WhoCan is the answer of whoCan: a page of those who can.
type WhoCan struct {
	Action       string      `json:"action"`
	IsDataAction bool        `json:"isDataAction"`
	Scope        string      `json:"scope"`
	Value        []WhoCanRow `json:"value"`
	// Incomplete are groups of which not all members were looked at.
	Incomplete []GroupView `json:"incomplete,omitempty"`
	NextLink   string      `json:"nextLink,omitempty"`
	Next       string      `json:"-"`
}

// WhoCanRow is one principal that can, or that a deny assignment keeps from it.
type WhoCanRow struct {
	Principal PrincipalView `json:"principal"`
	Allowed   bool          `json:"allowed"`
	// Depends: it can if a condition holds, of which nothing is known here.
	Depends bool `json:"depends,omitempty"`
	// Paths are the assignments that give it, and those that deny it.
	Paths []ReasonView `json:"paths"`
	// IdentityOf are the resources that have the identity, of those that the
	// client may read; HiddenResources is how many others there are.
	IdentityOf      []IdentityOf `json:"identityOf"`
	HiddenResources int          `json:"hiddenResources"`
}

// IdentityOf is a resource that has an identity, and where programs are it.
type IdentityOf struct {
	ResourceID string `json:"resourceId"`
	// Places are those that the client may read; HiddenPlaces is how many
	// others there are.
	Places       []Place `json:"places"`
	HiddenPlaces int     `json:"hiddenPlaces"`
}

// whoCan goes by the assignments at the scope and above it, a page at a time,
// and decides about each principal that one is for. A principal is in the page
// of the first assignment that gives it the action.
func (a *API) whoCan(ctx context.Context, c access.Caller, scope resource.ID, body json.RawMessage, after string) (any, error) {
	var in Question
	if err := strictly(body, &in, "'action' or 'dataAction', and perhaps 'attributes'"); err != nil {
		return nil, err
	}
	if in.PrincipalID != "" || in.ResourceID != "" {
		return nil, problem.Errorf(problem.Invalid, "The question who can is about everybody: neither 'principalId' nor 'resourceId' was expected.")
	}
	op, err := in.operation(scope)
	if err != nil {
		return nil, err
	}
	q, err := a.ask(ctx, c, scope, "whoCan", "")
	if err != nil {
		return nil, err
	}
	if op, err = q.known(ctx, op); err != nil {
		return nil, err
	}
	w := &who{asking: q, op: op, after: after, seen: map[string]*candidate{}, roles: map[string]access.Role{}}
	w.out = WhoCan{Action: op.Action, IsDataAction: op.Data, Scope: scope.String(), Value: []WhoCanRow{}}
	if err := w.page(ctx); err != nil {
		return nil, err
	}
	q.ev.Reason += "; " + op.Action
	return q.answer(ctx, w.out)
}

// who is one page of the answer to who can.
type who struct {
	*asking
	op access.Operation
	// after is the key of the last assignment of the page before.
	after string
	seen  map[string]*candidate
	roles map[string]access.Role
	out   WhoCan
}

// candidate is somebody who may be able to, and what was decided.
type candidate struct {
	who      directory.Principal
	decision access.Decision
	facts    access.Facts
	// first is the key of the first assignment that gives it: "" if none does.
	first string
}

func (w *who) page(ctx context.Context) error {
	var scopes []string
	for _, s := range slices.Concat(w.scope.Ancestors(), w.own.Above) {
		scopes = append(scopes, s.Key())
	}
	slices.Sort(scopes)
	all, err := w.Store.RoleAssignments(ctx, w.c.Tenant, slices.Compact(scopes), "", "", Page{After: w.after, Limit: whoPage + 1})
	if err != nil {
		return fmt.Errorf("listing role assignments at %s: %w", w.scope, err)
	}
	for i, ra := range all {
		if i == whoPage || i > 0 && len(w.seen) >= whoPage {
			w.out.Next = all[i-1].ID.Key()
			return nil
		}
		role, err := w.role(ctx, ra.Role)
		if err != nil {
			return err
		}
		if !role.Has(w.op.Action, w.op.Data) {
			continue
		}
		err = w.holders(ctx, ra.Principal, func(ctx context.Context, p directory.Principal) error {
			c, err := w.candidate(ctx, p)
			if err != nil || c.first != ra.ID.Key() {
				return err // it cannot, or is in its first assignment's page
			}
			return w.add(ctx, c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *who) role(ctx context.Context, id string) (access.Role, error) {
	if r, ok := access.BuiltIn(id); ok {
		return r, nil
	}
	if r, ok := w.roles[id]; ok {
		return r, nil
	}
	d, err := w.Store.RoleDefinition(ctx, w.c.Tenant, id)
	if err != nil && !problem.Is(err, problem.RoleNotFound) {
		return d.Role, fmt.Errorf("reading role %s: %w", id, err)
	}
	w.roles[id] = d.Role
	return d.Role, nil
}

// holders calls each with everybody who has what is assigned to the principal:
// itself, or if it is a group its members, and their members.
func (w *who) holders(ctx context.Context, id string, each func(context.Context, directory.Principal) error) error {
	rest, err := w.membersOf(ctx, id, each)
	if rest {
		g := GroupView{ID: id}
		if v, err := w.group(ctx, access.Facts{Principals: []string{""}}, id); err == nil {
			g = *v
		}
		w.out.Incomplete = append(w.out.Incomplete, g)
	}
	return err
}

// membersOf is holders for any question; rest says that there are more members
// than are looked at.
func (q *asking) membersOf(ctx context.Context, id string, each func(context.Context, directory.Principal) error) (rest bool, err error) {
	first, err := q.Store.Principal(ctx, q.c.Tenant, id)
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading principal %s: %w", id, err)
	}
	seen, n := map[string]bool{first.ID: true}, 0
	for queue := []directory.Principal{first}; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		if p.Kind != directory.Group {
			if err := each(ctx, p); err != nil {
				return false, err
			}
			continue
		}
		if rest {
			continue
		}
		members, err := q.Store.Members(ctx, q.c.Tenant, p.ID, Page{Limit: maxMembers + 1 - n})
		if err != nil {
			return false, fmt.Errorf("listing the members of group %s: %w", p.ID, err)
		}
		for _, m := range members {
			if n++; n > maxMembers {
				rest = true
				break
			}
			if !seen[m.ID] {
				seen[m.ID] = true
				queue = append(queue, m)
			}
		}
	}
	return rest, nil
}

// candidate decides about a principal, once a page.
func (w *who) candidate(ctx context.Context, p directory.Principal) (*candidate, error) {
	if c, ok := w.seen[p.ID]; ok {
		return c, nil
	}
	c := &candidate{who: p}
	var err error
	if c.decision, c.facts, err = w.decide(ctx, p, w.op); err != nil {
		return nil, err
	}
	for _, r := range c.decision.Reasons {
		if key := r.Assignment.Key(); (r.Grants || r.Depends) && (c.first == "" || key < c.first) {
			c.first = key
		}
	}
	w.seen[p.ID] = c
	return c, nil
}

// add puts who can into the page.
func (w *who) add(ctx context.Context, c *candidate) error {
	d, able := c.decision, c.who.Enabled
	row := WhoCanRow{Principal: w.principal(c.who, true), Allowed: d.Allowed && able, Depends: !d.Allowed && d.By.IsZero() && able}
	var err error
	if row.Paths, err = w.reasons(ctx, d, c.facts, func(r access.Reason) bool { return r.Grants || r.Depends || r.Denies }); err != nil {
		return err
	}
	if row.IdentityOf, row.HiddenResources, err = w.identityOf(ctx, c.who); err != nil {
		return err
	}
	w.out.Value = append(w.out.Value, row)
	return nil
}

// identityOf lists the resources that have an identity, and where they are.
func (q *asking) identityOf(ctx context.Context, p directory.Principal) (out []IdentityOf, hidden int, err error) {
	out = []IdentityOf{}
	if p.Kind != directory.ManagedIdentity {
		return out, 0, nil
	}
	have := []resource.ID{p.Resource}
	if !p.System {
		if have, err = q.Store.AttachedTo(ctx, q.c.Tenant, p.Resource.Key()); err != nil {
			return out, 0, fmt.Errorf("listing what has the identity %s: %w", p.Resource, err)
		}
	}
	for _, id := range have {
		if !q.self && !q.may(id.Type()+"/read", id) {
			hidden++
			continue
		}
		on := IdentityOf{ResourceID: id.String(), Places: []Place{}}
		if q.Places != nil {
			if on.Places, on.HiddenPlaces, err = q.Places(ctx, q.c, id); err != nil {
				return out, 0, fmt.Errorf("finding where %s is placed: %w", id, err)
			}
		}
		out = append(out, on)
	}
	return out, hidden, nil
}

// WhatCan is the answer of whatCan: what counts for a principal at the scope,
// and below it.
type WhatCan struct {
	Principal PrincipalView `json:"principal"`
	Scope     string        `json:"scope"`
	// RoleAssignments give, DenyAssignments take: a deny assignment counts
	// whatever roles give.
	RoleAssignments []HeldView `json:"roleAssignments"`
	DenyAssignments []HeldView `json:"denyAssignments"`
}

// HeldView is an assignment that somebody has.
type HeldView struct {
	ID string `json:"id"`
	// Name is the role's or the deny assignment's.
	Name   string `json:"name"`
	RoleID string `json:"roleId,omitempty"`
	Scope  string `json:"scope"`
	// Group is the group that it is for, if it is not for the principal itself.
	Group *GroupView `json:"group,omitempty"`
	// OnlyAtScope: a deny assignment that does not count below its scope.
	OnlyAtScope bool `json:"onlyAtScope,omitempty"`
	// Permissions are what it gives or denies: actions without notActions.
	Permissions []access.Permission `json:"permissions"`
	Condition   string              `json:"condition,omitempty"`
}

func (a *API) whatCan(ctx context.Context, c access.Caller, scope resource.ID, body json.RawMessage, _ string) (any, error) {
	var in Question
	if err := strictly(body, &in, "perhaps 'principalId' or 'resourceId'"); err != nil {
		return nil, err
	}
	if in.Action != "" || in.DataAction != "" {
		return nil, problem.Errorf(problem.Invalid, "The question what somebody can is about all actions: neither 'action' nor 'dataAction' was expected.")
	}
	q, p, err := a.about(ctx, c, scope, "whatCan", in)
	if err != nil {
		return nil, err
	}
	f, err := a.Directory.Store.Facts(ctx, c.Tenant, p.ID, scope)
	if err != nil {
		return nil, fmt.Errorf("reading the rights of %s: %w", p.ID, err)
	}
	out := WhatCan{Scope: scope.String()}
	if out.RoleAssignments, err = q.held(ctx, f); err != nil {
		return nil, err
	}
	if out.DenyAssignments, err = q.denied(ctx, f); err != nil {
		return nil, err
	}
	out.Principal = q.principal(p, len(out.RoleAssignments) > 0)
	return q.answer(ctx, out)
}

// within reports whether what is assigned at a scope is part of the answer.
func (q *asking) within(f access.Facts, at resource.ID) bool {
	return (f.Covers(at, q.scope) || q.scope.Contains(at)) && q.sees(at)
}

func (q *asking) held(ctx context.Context, f access.Facts) ([]HeldView, error) {
	out := []HeldView{}
	for _, as := range f.Assignments {
		if !q.within(f, as.Scope) {
			continue
		}
		role, _ := f.Role(as.Role)
		v := HeldView{ID: as.ID.String(), Name: role.Name, RoleID: as.Role, Scope: as.Scope.String(), Permissions: role.Permissions, Condition: as.Condition}
		var err error
		if v.Group, err = q.group(ctx, f, as.Principal); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (q *asking) denied(ctx context.Context, f access.Facts) ([]HeldView, error) {
	out := []HeldView{}
	for _, d := range f.Denials {
		named := slices.IndexFunc(f.Principals, func(p string) bool {
			return slices.ContainsFunc(d.Principals, func(n string) bool { return strings.EqualFold(n, p) })
		})
		excluded := slices.ContainsFunc(d.Excluded, func(n string) bool {
			return slices.ContainsFunc(f.Principals, func(p string) bool { return strings.EqualFold(n, p) })
		})
		if excluded || !q.within(f, d.Scope) {
			continue
		}
		v := HeldView{ID: d.ID.String(), Name: d.Name, Scope: d.Scope.String(), OnlyAtScope: d.ScopeOnly, Permissions: d.Permissions, Condition: d.Condition}
		if named > 0 {
			var err error
			if v.Group, err = q.group(ctx, f, f.Principals[named]); err != nil {
				return nil, err
			}
		}
		out = append(out, v)
	}
	return out, nil
}
