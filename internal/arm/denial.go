package arm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const (
	actionDenialRead   = "Microsoft.Authorization/denyAssignments/read"
	actionDenialWrite  = "Microsoft.Authorization/denyAssignments/write"
	actionDenialDelete = "Microsoft.Authorization/denyAssignments/delete"
)

// denialBody is the body of PUT .../denyAssignments/{guid}. That they can be
// written is our own addition: Azure's are made by Azure.
type denialBody struct {
	Properties struct {
		Name        string           `json:"denyAssignmentName"`
		Description string           `json:"description"`
		Permissions []permissionBody `json:"permissions"`
		Scope       string           `json:"scope"`
		ScopeOnly   bool             `json:"doNotApplyToChildScopes"`
		Principals  []principalBody  `json:"principals"`
		Excluded    []principalBody  `json:"excludePrincipals"`
		System      bool             `json:"isSystemProtected"`
		conditionBody
	} `json:"properties"`
}

// principalBody is whom a denial names. Type is what the principal is; that of
// everyone is SystemDefined.
type principalBody struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// UnmarshalJSON reads a body as strictly as a [Document].
func (b *denialBody) UnmarshalJSON(raw []byte) error {
	type plain denialBody
	return readStrictly(raw, (*plain)(b))
}

// PutDenyAssignment refuses actions to principals, whatever roles they have. It
// takes the right by a role assignment without a condition; and nobody writes
// one that hits himself, so that there is always somebody to take it back, nor
// changes one that does.
func (a *API) PutDenyAssignment(ctx context.Context, c access.Caller, id resource.ID, b denialBody) (View, bool, error) {
	ev, err := a.permit(ctx, c, actionDenialWrite, id.Scope())
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	want, err := a.denial(c, id, b)
	if err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	if err := a.mayDefine(ctx, c, id, []resource.ID{id.Scope()}, actionDenialWrite); err != nil {
		return nil, false, err
	}
	created := false
	err = a.write(ctx, ev, func(tx Tx) error {
		created, err = a.putDenial(tx, c, &want)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return denialView(want), created, nil
}

// denial checks a body and makes the row that it asks for.
func (a *API) denial(c access.Caller, id resource.ID, b denialBody) (DenyAssignment, error) {
	p := b.Properties
	now := a.Now()
	d := DenyAssignment{Tenant: c.Tenant, Types: map[string]string{}, Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal}
	if _, err := uuid.Parse(id.Name()); err != nil || len(id.Name()) != 36 {
		return d, problem.Errorf(problem.Invalid, "The deny assignment ID '%s' is not valid. The deny assignment ID must be a GUID.", problem.Clip(id.Name()))
	}
	if err := (GroupProperties{DisplayName: p.Name, Description: p.Description}).check(); err != nil {
		return d, problem.Errorf(problem.Invalid, "The member 'properties.denyAssignmentName' needs 1 to 256 characters without control characters or spaces around them, and 'properties.description' at most 1024.")
	}
	if scope, err := resource.Parse(p.Scope); p.Scope != "" && (err != nil || !scope.Equal(id.Scope())) {
		return d, problem.Errorf(problem.Invalid, "The member 'properties.scope' is '%s'; the scope of the request, '%s', was expected, or nothing.", problem.Clip(p.Scope), id.Scope())
	}
	if p.System {
		return d, problem.Errorf(problem.NotSupported, "A deny assignment with 'isSystemProtected' is made by Innate itself; leave it out.")
	}
	var err error
	d.Denial = access.Denial{ID: id, Name: p.Name, Description: p.Description, Scope: id.Scope(), ScopeOnly: p.ScopeOnly}
	if d.Permissions, err = readPermissions("deny assignment", p.Permissions); err != nil {
		return d, err
	}
	if d.Condition, d.ConditionVersion, err = p.conditionBody.read("deny assignment"); err != nil {
		return d, err
	}
	if d.Principals, err = readPrincipals("principals", p.Principals, true); err != nil {
		return d, err
	}
	if len(d.Principals) == 0 {
		return d, problem.Errorf(problem.Invalid, "The member 'properties.principals' names nobody; object ids were expected, or %s for everyone.", access.Everyone)
	}
	d.Excluded, err = readPrincipals("excludePrincipals", p.Excluded, false)
	return d, err
}

// readPrincipals reads object ids; everyone says whether all of them may be meant.
func readPrincipals(member string, all []principalBody, everyone bool) ([]string, error) {
	if len(all) > maxScopes {
		return nil, problem.Errorf(problem.Invalid, "The member 'properties.%s' has %d entries; at most %d are allowed.", member, len(all), maxScopes)
	}
	var out []string
	for _, p := range all {
		id, err := objectID("The member 'properties."+member+"'", p.ID)
		if err != nil {
			return nil, err
		}
		if id == access.Everyone && !everyone {
			return nil, problem.Errorf(problem.Invalid, "The member 'properties.%s' names everyone, to whom the deny assignment would not apply.", member)
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

func (a *API) putDenial(tx Tx, c access.Caller, want *DenyAssignment) (created bool, err error) {
	if err := a.scopeExists(tx, want.Scope); err != nil {
		return false, err
	}
	for _, id := range slices.Concat(want.Principals, want.Excluded) {
		if want.Types[id], err = denied(tx, want.Tenant, id); err != nil {
			return false, err
		}
	}
	groups, err := tx.GroupsOf(c.Principal, true)
	if err != nil {
		return false, err
	}
	old, err := tx.DenyAssignment(want.ID.Key())
	switch {
	case err == nil:
		if err := old.changeableBy(c, groups); err != nil {
			return false, err
		}
		want.ID, want.Scope, want.Created, want.CreatedBy = old.ID, old.Scope, old.Created, old.CreatedBy
	case problem.Is(err, problem.NotFound):
		created = true
	default:
		return false, err
	}
	if !c.System && want.appliesTo(c.Principal, groups) {
		return false, problem.Errorf(problem.Invalid, "The deny assignment would apply to the client '%s' that writes it, who could then not take it back; name it, or a group that it is in, in 'properties.excludePrincipals'.", c.Principal)
	}
	return created, tx.PutDenyAssignment(*want)
}

// denied says what a principal is that a denial names.
func denied(tx Tx, tenant, id string) (string, error) {
	if id == access.Everyone {
		return "SystemDefined", nil
	}
	p, err := tx.Principal(id)
	if problem.Is(err, problem.NotFound) {
		return "", problem.Errorf(problem.PrincipalNotFound, "Principal %s does not exist in the directory %s.", id, tenant)
	}
	return principalType(p.Kind), err
}

// changeableBy checks that the caller, who is in groups, may change or delete
// the denial if it has the right: it is not Innate's own, and does not apply to
// the caller.
func (d DenyAssignment) changeableBy(c access.Caller, groups []Group) error {
	switch {
	case c.System:
		return nil
	case d.System:
		return problem.Errorf(problem.Denied, "The deny assignment '%s' is protected: only Innate itself changes it.", d.ID)
	case d.appliesTo(c.Principal, groups):
		return problem.Errorf(problem.Denied, "The deny assignment '%s' applies to the client '%s', who may therefore not change whom or what it denies.", d.ID, c.Principal)
	}
	return nil
}

// appliesTo reports whether the denial is of the principal, who is in groups.
func (d DenyAssignment) appliesTo(principal string, groups []Group) bool {
	named := func(ids []string) bool {
		return slices.Contains(ids, strings.ToLower(principal)) ||
			slices.ContainsFunc(groups, func(g Group) bool { return slices.Contains(ids, g.ID) })
	}
	return (slices.Contains(d.Principals, access.Everyone) || named(d.Principals)) && !named(d.Excluded)
}

// DeleteDenyAssignment takes a denial back. existed false is no error.
func (a *API) DeleteDenyAssignment(ctx context.Context, c access.Caller, id resource.ID) (v View, existed bool, err error) {
	ev, err := a.permit(ctx, c, actionDenialDelete, id.Scope())
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	if err := a.mayDefine(ctx, c, id, []resource.ID{id.Scope()}, actionDenialDelete); err != nil {
		return nil, false, err
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		existed = false
		old, err := tx.DenyAssignment(id.Key())
		if problem.Is(err, problem.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		groups, err := tx.GroupsOf(c.Principal, true)
		if err != nil {
			return err
		}
		if err := old.changeableBy(c, groups); err != nil {
			return err
		}
		v, existed = denialView(old), true
		return tx.DeleteDenyAssignment(id.Key())
	})
	return v, existed, err
}

// DenyAssignment returns one.
func (a *API) DenyAssignment(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	ev, err := a.permit(ctx, c, actionDenialRead, id.Scope())
	if err != nil {
		return nil, err
	}
	d, err := a.Store.DenyAssignment(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, a.refuse(ctx, ev, problem.Errorf(problem.NotFound, "The deny assignment '%s' is not found.", id.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("reading deny assignment %s: %w", id, err)
	}
	return denialView(d), a.read(ctx, ev)
}

// DenyAssignments lists those that count at the scope and, unless the filter
// says atScope(), those below it, as far as none of them hides them.
func (a *API) DenyAssignments(ctx context.Context, c access.Caller, scope resource.ID, f DenialFilter, after string) (List, error) {
	ev, err := a.permit(ctx, c, actionDenialRead, scope)
	if err != nil {
		return List{}, err
	}
	var groups []Group
	if f.Groups {
		if groups, err = a.Store.GroupsOf(ctx, c.Tenant, f.Principal, true); err != nil {
			return List{}, err
		}
	}
	scopes, below, err := a.rightsListed(ctx, c.Tenant, scope, f.AtScope)
	if err != nil {
		return List{}, err
	}
	hidden := a.denials(c)
	all, next, err := sift(after,
		func(p Page) ([]DenyAssignment, error) {
			return a.Store.DenyAssignments(ctx, c.Tenant, scopes, below, p)
		},
		func(x DenyAssignment) string { return x.ID.Key() },
		func(x DenyAssignment) (bool, error) {
			if !f.wants(x, groups) {
				return false, nil
			}
			hide, err := hidden.hide(ctx, scope, Need{actionDenialRead, x.Scope}, x.Scope)
			return !hide, err
		})
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}, Next: next}
	for _, d := range all {
		out.Value = append(out.Value, denialView(d))
	}
	return out, a.read(ctx, ev)
}

func (f DenialFilter) wants(d DenyAssignment, groups []Group) bool {
	switch {
	case f.Name != "" && fold(f.Name) != fold(d.Name):
		return false
	case f.Principal == "":
		return true
	case f.Groups:
		return d.appliesTo(f.Principal, groups)
	}
	return slices.Contains(d.Principals, f.Principal) || slices.Contains(d.Excluded, f.Principal)
}

func denialView(d DenyAssignment) View {
	blocks := []View{}
	for _, p := range d.Permissions {
		blocks = append(blocks, permissionView(p, ""))
	}
	return View{"id": d.ID.String(), "name": d.ID.Name(), "type": "Microsoft.Authorization/denyAssignments", "properties": map[string]any{
		"denyAssignmentName": d.Name, "description": d.Description, "permissions": blocks, "scope": d.Scope.String(),
		"doNotApplyToChildScopes": d.ScopeOnly, "principals": d.named(d.Principals), "excludePrincipals": d.named(d.Excluded),
		"isSystemProtected": d.System, "condition": orNull(d.Condition), "conditionVersion": orNull(d.ConditionVersion),
		"createdOn": stamp(d.Created), "updatedOn": stamp(d.Updated), "createdBy": d.CreatedBy, "updatedBy": d.UpdatedBy,
	}}
}

func (d DenyAssignment) named(ids []string) []View {
	out := []View{}
	for _, id := range ids {
		out = append(out, View{"id": id, "type": d.Types[id]})
	}
	return out
}
