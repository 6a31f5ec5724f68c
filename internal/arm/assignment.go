package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// assignmentBody is the body of PUT .../roleAssignments/{guid}.
type assignmentBody struct {
	Properties struct {
		RoleDefinitionID string `json:"roleDefinitionId"`
		PrincipalID      string `json:"principalId"`
		PrincipalType    string `json:"principalType"`
		Description      string `json:"description"`
		// Condition and DelegatedIdentity are not understood here, and so
		// refused: a role given without its condition would be a wider one.
		Condition         *string `json:"condition"`
		ConditionVersion  *string `json:"conditionVersion"`
		DelegatedIdentity *string `json:"delegatedManagedIdentityResourceId"`
	} `json:"properties"`
}

// UnmarshalJSON reads a body as strictly as a [Document]: a second, null
// condition must not take the first one away.
func (b *assignmentBody) UnmarshalJSON(raw []byte) error {
	type plain assignmentBody
	return readStrictly(raw, (*plain)(b))
}

// readStrictly reads v from an object that says no member twice.
func readStrictly(raw []byte, v any) error {
	var d Document
	if err := d.UnmarshalJSON(raw); err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

const (
	actionAssignmentWrite  = "Microsoft.Authorization/roleAssignments/write"
	actionAssignmentRead   = "Microsoft.Authorization/roleAssignments/read"
	actionAssignmentDelete = "Microsoft.Authorization/roleAssignments/delete"
	actionDenialWrite      = "Microsoft.Authorization/denyAssignments/write"
	actionDefinitionRead   = "Microsoft.Authorization/roleDefinitions/read"
)

// The attributes of a role assignment that conditions can ask about: what a
// write gives (@Request), and what a delete takes (@Resource).
const attrAssignment = "Microsoft.Authorization/roleAssignments:"

// giving says of a role and who has it what conditions ask.
func giving(role, principal, principalType string) access.Values {
	return access.Values{
		attrAssignment + "RoleDefinitionId": {role}, attrAssignment + "PrincipalId": {principal}, attrAssignment + "PrincipalType": {principalType},
	}
}

// PutRoleAssignment gives a role. The same assignment again is no change.
func (a *API) PutRoleAssignment(ctx context.Context, c access.Caller, id resource.ID, b assignmentBody) (View, bool, error) {
	scope := id.Scope()
	ev, err := a.permit(ctx, c, actionAssignmentWrite, scope)
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	want, err := a.assignment(c, id, b)
	if err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	role, _ := access.BuiltIn(want.Role)
	ev.Reason += fmt.Sprintf("; %s to %s at %s", role.Name, want.Principal, scope)
	var out RoleAssignment
	var created bool
	err = a.write(ctx, ev, func(tx Tx) error {
		out, created, err = a.putAssignment(tx, want)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return assignmentView(out), created, nil
}

// assignment checks a body and makes the row that it asks for.
func (a *API) assignment(c access.Caller, id resource.ID, b assignmentBody) (RoleAssignment, error) {
	p := b.Properties
	if _, err := uuid.Parse(id.Name()); err != nil || len(id.Name()) != 36 {
		return RoleAssignment{}, problem.Errorf(problem.Invalid, "The role assignment ID '%s' is not valid. The role assignment ID must be a GUID.", problem.Clip(id.Name()))
	}
	if p.Condition != nil || p.ConditionVersion != nil || p.DelegatedIdentity != nil {
		return RoleAssignment{}, problem.Errorf(problem.NotSupported, "Role assignments with 'condition' or 'delegatedManagedIdentityResourceId' are not supported in this version; leave them out or assign a narrower role.")
	}
	if p.PrincipalID == "" || p.RoleDefinitionID == "" {
		return RoleAssignment{}, problem.Errorf(problem.Invalid, "The request content needs 'properties.roleDefinitionId' and 'properties.principalId'.")
	}
	if _, err := uuid.Parse(p.PrincipalID); err != nil || len(p.PrincipalID) != 36 {
		return RoleAssignment{}, problem.Errorf(problem.Invalid, "The member 'properties.principalId' is '%s'; an object id (a GUID) was expected.", problem.Clip(p.PrincipalID))
	}
	if len(p.Description) > 2048 {
		return RoleAssignment{}, problem.Errorf(problem.Invalid, "The member 'properties.description' is over 2048 bytes long.")
	}
	role, err := roleNamed(p.RoleDefinitionID)
	if err != nil {
		return RoleAssignment{}, err
	}
	now := a.Now()
	return RoleAssignment{
		Tenant:     c.Tenant,
		Assignment: access.Assignment{ID: id, Role: role.ID, Principal: strings.ToLower(p.PrincipalID), Scope: id.Scope()},
		// Every principal of this version is a service principal, whatever the
		// request calls it.
		PrincipalType: "ServicePrincipal", Description: p.Description,
		Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal,
	}, nil
}

// roleNamed finds the role by its definition's resource ID, at whatever scope.
func roleNamed(definition string) (access.Role, error) {
	id, err := resource.Parse(definition)
	if err != nil || !strings.EqualFold(id.Type(), typeDefinition) {
		return access.Role{}, problem.Errorf(problem.Invalid, "The member 'properties.roleDefinitionId' is '%s'; /subscriptions/{id}/providers/Microsoft.Authorization/roleDefinitions/{guid} was expected.", problem.Clip(definition))
	}
	role, ok := access.BuiltIn(strings.ToLower(id.Name()))
	if !ok {
		return access.Role{}, problem.Errorf(problem.RoleNotFound, "The specified role definition with ID '%s' does not exist.", problem.Clip(id.Name()))
	}
	return role, nil
}

func (a *API) putAssignment(tx Tx, want RoleAssignment) (RoleAssignment, bool, error) {
	if err := a.scopeExists(tx, want.Scope); err != nil {
		return want, false, err
	}
	if _, err := tx.Principal(want.Principal); problem.Is(err, problem.NotFound) {
		return want, false, problem.Errorf(problem.PrincipalNotFound, "Principal %s does not exist in the directory %s.", want.Principal, want.Tenant)
	} else if err != nil {
		return want, false, err
	}
	old, err := tx.RoleAssignment(want.ID.Key())
	switch {
	case err == nil:
		if old.Role != want.Role || old.Principal != want.Principal || !old.Scope.Equal(want.Scope) {
			return old, false, problem.Errorf(problem.Immutable, "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.")
		}
		want.ID, want.Scope, want.Created, want.CreatedBy = old.ID, old.Scope, old.Created, old.CreatedBy
		return want, false, tx.PutRoleAssignment(want)
	case !problem.Is(err, problem.NotFound):
		return want, false, err
	}
	same, err := tx.SameAssignment(want.Scope.Key(), want.Role, want.Principal)
	if err == nil {
		return same, false, problem.Errorf(problem.AssignmentExists, "The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(same.ID.Name(), "-", ""))
	}
	if !problem.Is(err, problem.NotFound) {
		return want, false, err
	}
	return want, true, tx.PutRoleAssignment(want)
}

// scopeExists checks that the node is there. A scope may also name an object
// within a resource (one secret of a vault), which the tree does not know: then
// the resource must be there.
func (a *API) scopeExists(tx Tx, scope resource.ID) error {
	if scope.IsRoot() {
		return nil
	}
	n := scope
	if _, err := a.typeOf(n); err != nil {
		n = n.Parent()
		t, perr := a.typeOf(n)
		if perr != nil || !strings.HasPrefix(strings.ToLower(scope.Type()), strings.ToLower(t.Name)+"/") {
			return err
		}
	}
	if _, err := tx.Resource(n.Key()); problem.Is(err, problem.NotFound) {
		return notFound(n)
	} else if err != nil {
		return err
	}
	return nil
}

// DeleteRoleAssignment takes a role away. existed false is no error.
func (a *API) DeleteRoleAssignment(ctx context.Context, c access.Caller, id resource.ID) (v View, existed bool, err error) {
	ev, err := a.permit(ctx, c, actionAssignmentDelete, id.Scope())
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	err = a.write(ctx, ev, func(tx Tx) error {
		old, err := tx.RoleAssignment(id.Key())
		if problem.Is(err, problem.NotFound) {
			existed = false
			return nil
		}
		if err != nil {
			return err
		}
		v, existed = assignmentView(old), true
		return tx.DeleteRoleAssignment(id.Key())
	})
	return v, existed, err
}

// RoleAssignment returns one.
func (a *API) RoleAssignment(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	ev, err := a.permit(ctx, c, actionAssignmentRead, id.Scope())
	if err != nil {
		return nil, err
	}
	ra, err := a.Store.RoleAssignment(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, a.refuse(ctx, ev, problem.Errorf(problem.NotFound, "The role assignment '%s' is not found.", id.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("reading role assignment %s: %w", id, err)
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return nil, fmt.Errorf("recording a read: %w", err)
	}
	return assignmentView(ra), nil
}

// AssignmentFilter is what $filter can ask of a list of role assignments.
type AssignmentFilter struct {
	// AtScope: only at the scope and above it, not below.
	AtScope bool
	// Principal: only this object id's.
	Principal string
}

// RoleAssignments lists those that count at scope and, unless the filter says
// atScope(), those below it.
func (a *API) RoleAssignments(ctx context.Context, c access.Caller, scope resource.ID, f AssignmentFilter, skip string) (List, error) {
	ev, err := a.permit(ctx, c, actionAssignmentRead, scope)
	if err != nil {
		return List{}, err
	}
	after, err := decodeSkip(skip)
	if err != nil {
		return List{}, a.refuse(ctx, ev, problem.Of(err))
	}
	// The scopes above are part of what counts here, whoever may read there.
	var scopes []string
	for _, s := range scope.Ancestors() {
		scopes = append(scopes, s.Key())
	}
	below := scope.Key()
	if f.AtScope {
		below = ""
	}
	ras, err := a.Store.RoleAssignments(ctx, c.Tenant, scopes, below, strings.ToLower(f.Principal), Page{After: after, Limit: PageSize + 1})
	if err != nil {
		return List{}, fmt.Errorf("listing role assignments at %s: %w", scope, err)
	}
	out := List{Value: []View{}}
	if len(ras) > PageSize {
		ras = ras[:PageSize]
		out.Next = encodeSkip(ras[PageSize-1].ID.Key())
	}
	for _, ra := range ras {
		out.Value = append(out.Value, assignmentView(ra))
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return List{}, fmt.Errorf("recording a list: %w", err)
	}
	return out, nil
}

func assignmentView(r RoleAssignment) View {
	props := map[string]any{
		"roleDefinitionId": definitionID(r.Scope, r.Role), "principalId": r.Principal, "principalType": r.PrincipalType,
		"scope": r.Scope.String(), "createdOn": stamp(r.Created), "updatedOn": stamp(r.Updated),
		"createdBy": r.CreatedBy, "updatedBy": r.UpdatedBy, "condition": nil, "conditionVersion": nil,
		"delegatedManagedIdentityResourceId": nil, "description": nil,
	}
	if r.Description != "" {
		props["description"] = r.Description
	}
	return View{"id": r.ID.String(), "name": r.ID.Name(), "type": "Microsoft.Authorization/roleAssignments", "properties": props}
}

// definitionID is a role's resource ID as seen from a scope.
func definitionID(scope resource.ID, role string) string {
	prefix := ""
	if s := scope.SubscriptionID(); !s.IsZero() {
		prefix = s.String()
	}
	return prefix + "/providers/Microsoft.Authorization/roleDefinitions/" + role
}

// RoleDefinition returns a role.
func (a *API) RoleDefinition(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	ev, err := a.permit(ctx, c, actionDefinitionRead, id.Scope())
	if err != nil {
		return nil, err
	}
	role, ok := access.BuiltIn(strings.ToLower(id.Name()))
	if !ok {
		return nil, a.refuse(ctx, ev, problem.Errorf(problem.RoleNotFound, "The specified role definition with ID '%s' does not exist.", problem.Clip(id.Name())))
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return nil, fmt.Errorf("recording a read: %w", err)
	}
	return definitionView(id.Scope(), role), nil
}

// RoleDefinitions lists the roles, or with name the one of that name.
func (a *API) RoleDefinitions(ctx context.Context, c access.Caller, scope resource.ID, name string) (List, error) {
	ev, err := a.permit(ctx, c, actionDefinitionRead, scope)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	for _, r := range access.BuiltIns() {
		if name == "" || strings.EqualFold(name, r.Name) {
			out.Value = append(out.Value, definitionView(scope, r))
		}
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return List{}, fmt.Errorf("recording a list: %w", err)
	}
	return out, nil
}

func definitionView(scope resource.ID, r access.Role) View {
	return View{
		"id": definitionID(scope, r.ID), "name": r.ID, "type": "Microsoft.Authorization/roleDefinitions",
		"properties": map[string]any{
			"roleName": r.Name, "type": "BuiltInRole", "description": r.Description,
			"assignableScopes": []string{"/"}, "permissions": r.Permissions,
		},
	}
}

// Assign is PutRoleAssignment for callers within the program: role by its GUID.
func (a *API) Assign(ctx context.Context, c access.Caller, id resource.ID, role, principal string) error {
	var b assignmentBody
	b.Properties.RoleDefinitionID, b.Properties.PrincipalID = definitionID(id.Scope(), role), principal
	_, _, err := a.PutRoleAssignment(ctx, c, id, b)
	return err
}
