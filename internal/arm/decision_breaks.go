package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// WhatBreaks is the answer of whatBreaks: who would lose what without a role
// assignment. It is careful: what is not sure to be given by another
// assignment is lost.
type WhatBreaks struct {
	RoleAssignmentID string `json:"roleAssignmentId"`
	Name             string `json:"name"`
	Scope            string `json:"scope"`
	// Principals are all who have it.
	Principals []BreaksFor `json:"principals"`
	// Incomplete says that it is a group's, and that the group has more
	// members than were looked at.
	Incomplete bool `json:"incomplete,omitempty"`
}

// BreaksFor is what one principal would lose at the scope and below it.
type BreaksFor struct {
	Principal PrincipalView `json:"principal"`
	// Loses are patterns of actions that nothing else gives whole, Keeps those
	// that something else gives, or denies, anyway.
	Loses           []LossView   `json:"loses"`
	Keeps           []LossView   `json:"keeps"`
	IdentityOf      []IdentityOf `json:"identityOf"`
	HiddenResources int          `json:"hiddenResources"`
}

// LossView is a pattern of actions of the assignment's role.
type LossView struct {
	Pattern      string   `json:"pattern"`
	Except       []string `json:"except,omitempty"`
	IsDataAction bool     `json:"isDataAction"`
	// By is the other assignment that gives it, or the deny assignment that
	// refuses it now.
	By string `json:"by,omitempty"`
	// Partly are other assignments that may give some of it.
	Partly []string `json:"partly,omitempty"`
}

func (a *API) whatBreaks(ctx context.Context, c access.Caller, scope resource.ID, body json.RawMessage, _ string) (any, error) {
	var in struct {
		RoleAssignmentID string `json:"roleAssignmentId"`
	}
	if err := strictly(body, &in, "'roleAssignmentId'"); err != nil {
		return nil, err
	}
	id, err := resource.Parse(in.RoleAssignmentID)
	if err != nil || !strings.EqualFold(id.Type(), typeAssignment) {
		return nil, problem.Errorf(problem.Invalid, "The member 'roleAssignmentId' is '%s'; {scope}/providers/Microsoft.Authorization/roleAssignments/{guid} was expected.", problem.Clip(in.RoleAssignmentID))
	}
	if !scope.Equal(id.Scope()) {
		return nil, problem.Errorf(problem.Invalid, "The role assignment '%s' is at the scope '%s'; it is asked about there.", id.Name(), id.Scope())
	}
	q, err := a.ask(ctx, c, scope, "whatBreaks", "")
	if err != nil {
		return nil, err
	}
	q.ev.Target = id.String()
	ra, err := a.Store.RoleAssignment(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, a.refuse(ctx, q.ev, problem.Errorf(problem.NotFound, "The role assignment '%s' is not found.", id.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("reading role assignment %s: %w", id, err)
	}
	out := WhatBreaks{RoleAssignmentID: ra.ID.String(), Name: ra.Role, Scope: ra.Scope.String(), Principals: []BreaksFor{}}
	out.Incomplete, err = q.membersOf(ctx, ra.Principal, func(ctx context.Context, p directory.Principal) error {
		row, name, err := q.breaksFor(ctx, p, ra.ID)
		if row != nil {
			out.Principals = append(out.Principals, *row)
			out.Name = name
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return q.answer(ctx, out)
}

// breaksFor is nil for who does not have the assignment, as the members of a
// disabled group.
func (q *asking) breaksFor(ctx context.Context, p directory.Principal, id resource.ID) (*BreaksFor, string, error) {
	f, err := q.Directory.Store.Facts(ctx, q.c.Tenant, p.ID, q.scope)
	if err != nil {
		return nil, "", fmt.Errorf("reading the rights of %s: %w", p.ID, err)
	}
	losses := access.Losses(f, id)
	if losses == nil {
		return nil, "", nil
	}
	row := &BreaksFor{Principal: q.principal(p, true), Loses: []LossView{}, Keeps: []LossView{}}
	for _, l := range losses {
		v := LossView{Pattern: l.Pattern, Except: l.Except, IsDataAction: l.Data}
		if l.Lost() {
			for _, by := range l.Partly {
				v.Partly = append(v.Partly, by.String())
			}
			row.Loses = append(row.Loses, v)
			continue
		}
		v.By = l.Denied.String()
		if l.Denied.IsZero() {
			v.By = l.Kept.String()
		}
		row.Keeps = append(row.Keeps, v)
	}
	row.IdentityOf, row.HiddenResources, err = q.identityOf(ctx, p)
	return row, roleName(f, id), err
}

func roleName(f access.Facts, assignment resource.ID) string {
	for _, a := range f.Assignments {
		if a.ID.Equal(assignment) {
			role, _ := f.Role(a.Role)
			return role.Name
		}
	}
	return ""
}
