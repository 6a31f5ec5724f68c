package arm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
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
		conditionBody
		// DelegatedIdentity is another tenant's way in, which there is none of.
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

// conditionBody are the members that narrow a role assignment, a deny
// assignment or a permission. Absent, null and empty mean that there is none.
type conditionBody struct {
	Condition *string `json:"condition"`
	Version   *string `json:"conditionVersion"`
}

// conditionVersion is the only one that there is.
const conditionVersion = "2.0"

// read checks the condition of what. One that cannot be evaluated is refused:
// a right without its condition would be a wider one.
func (b conditionBody) read(what string) (condition, version string, err error) {
	text, v := "", ""
	if b.Condition != nil {
		text = *b.Condition
	}
	if b.Version != nil {
		v = *b.Version
	}
	switch {
	case text == "" && v == "":
		return "", "", nil
	case text == "":
		return "", "", problem.Errorf(problem.Invalid, "The given %s condition is invalid. 'conditionVersion' is there without a 'condition'.", what)
	case v != conditionVersion:
		return "", "", problem.Errorf(problem.Invalid, "The given %s condition is invalid. Its 'conditionVersion' is '%s'; '%s' was expected.", what, problem.Clip(v), conditionVersion)
	}
	if _, err := access.ParseCondition(text); err != nil {
		return "", "", problem.Errorf(problem.Invalid, "The given %s condition is invalid. %s", what, problem.Of(err).Detail)
	}
	return text, v, nil
}

const (
	actionAssignmentWrite  = "Microsoft.Authorization/roleAssignments/write"
	actionAssignmentRead   = "Microsoft.Authorization/roleAssignments/read"
	actionAssignmentDelete = "Microsoft.Authorization/roleAssignments/delete"
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

// PutRoleAssignment gives a role. Of one that is there only the condition and
// the description change; the same again is no change.
func (a *API) PutRoleAssignment(ctx context.Context, c access.Caller, id resource.ID, b assignmentBody) (View, bool, error) {
	scope := id.Scope()
	asked, err := a.asked(ctx, c, b)
	if err != nil {
		return nil, false, err
	}
	ev, err := a.permitOperation(ctx, c, access.Operation{Action: actionAssignmentWrite, Scope: scope, Attributes: access.Attributes{Request: asked}})
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	want, err := a.assignment(c, id, b)
	if err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	role := want.Role
	if r, ok := access.BuiltIn(role); ok {
		role = r.Name
	}
	ev.Reason += fmt.Sprintf("; %s to %s at %s", role, want.Principal, scope)
	var out RoleAssignment
	var created bool
	err = a.write(ctx, ev, func(tx Tx) error {
		out, created, err = a.putAssignment(tx, want, b.Properties.PrincipalType)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return assignmentView(out), created, nil
}

// asked are the attributes of what a body would give, as far as it can be
// read: a condition about what is not there does not hold. What the principal
// is, the directory says and not the body.
func (a *API) asked(ctx context.Context, c access.Caller, b assignmentBody) (access.Values, error) {
	role, err := roleGUID(b.Properties.RoleDefinitionID)
	if err != nil {
		return nil, nil // what is wrong with it is said later, and only to who has the right
	}
	p, err := a.Store.Principal(ctx, c.Tenant, strings.ToLower(b.Properties.PrincipalID))
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Invalid) {
		out := giving(role, strings.ToLower(b.Properties.PrincipalID), "")
		delete(out, attrAssignment+"PrincipalType")
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading principal %s: %w", b.Properties.PrincipalID, err)
	}
	return giving(role, p.ID, principalType(p.Kind)), nil
}

// assignment checks a body and makes the row that it asks for.
func (a *API) assignment(c access.Caller, id resource.ID, b assignmentBody) (RoleAssignment, error) {
	p := b.Properties
	none := RoleAssignment{}
	if _, err := uuid.Parse(id.Name()); err != nil || len(id.Name()) != 36 {
		return none, problem.Errorf(problem.Invalid, "The role assignment ID '%s' is not valid. The role assignment ID must be a GUID.", problem.Clip(id.Name()))
	}
	if p.DelegatedIdentity != nil && *p.DelegatedIdentity != "" {
		return none, problem.Errorf(problem.NotSupported, "Role assignments with 'delegatedManagedIdentityResourceId' are for identities of other tenants, which have no access here; leave it out.")
	}
	if p.PrincipalID == "" || p.RoleDefinitionID == "" {
		return none, problem.Errorf(problem.Invalid, "The request content needs 'properties.roleDefinitionId' and 'properties.principalId'.")
	}
	principal, err := objectID("The member 'properties.principalId'", p.PrincipalID)
	if err != nil {
		return none, err
	}
	if len(p.Description) > 2048 {
		return none, problem.Errorf(problem.Invalid, "The member 'properties.description' is over 2048 bytes long.")
	}
	condition, version, err := p.conditionBody.read("role assignment")
	if err != nil {
		return none, err
	}
	role, err := roleGUID(p.RoleDefinitionID)
	if err != nil {
		return none, err
	}
	now := a.Now()
	return RoleAssignment{
		Tenant:      c.Tenant,
		Assignment:  access.Assignment{ID: id, Role: role, Principal: principal, Scope: id.Scope(), Condition: condition},
		Description: p.Description, ConditionVersion: version,
		Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal,
	}, nil
}

// roleGUID reads the resource ID of a role definition, at whatever scope.
func roleGUID(definition string) (string, error) {
	id, err := resource.Parse(definition)
	if err != nil || !strings.EqualFold(id.Type(), typeDefinition) {
		return "", problem.Errorf(problem.Invalid, "The member 'properties.roleDefinitionId' is '%s'; /subscriptions/{id}/providers/Microsoft.Authorization/roleDefinitions/{guid} was expected.", problem.Clip(definition))
	}
	return strings.ToLower(id.Name()), nil
}

func (a *API) putAssignment(tx Tx, want RoleAssignment, called string) (RoleAssignment, bool, error) {
	if err := a.scopeExists(tx, want.Scope); err != nil {
		return want, false, err
	}
	if err := a.roleAssignable(tx, want.Role, want.Scope); err != nil {
		return want, false, err
	}
	var err error
	if want.PrincipalType, err = calledRightly(tx, want, called); err != nil {
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

// calledRightly finds what the principal is, which must be what the request
// calls it, if it calls it something.
func calledRightly(tx Tx, want RoleAssignment, called string) (string, error) {
	p, err := tx.Principal(want.Principal)
	if problem.Is(err, problem.NotFound) {
		return "", problem.Errorf(problem.PrincipalNotFound, "Principal %s does not exist in the directory %s.", want.Principal, want.Tenant)
	}
	if err != nil {
		return "", err
	}
	is := principalType(p.Kind)
	switch {
	case called == "" || strings.EqualFold(called, is):
		return is, nil
	case strings.EqualFold(called, "ServicePrincipal") || strings.EqualFold(called, "Group"):
		return "", problem.Errorf(problem.BadIdentity, "The PrincipalId '%s' has type '%s', which is different from the specified PrincipalType '%s'.", want.Principal, is, called)
	case slices.ContainsFunc([]string{"User", "ForeignGroup", "Device"}, func(s string) bool { return strings.EqualFold(s, called) }):
		return "", problem.Errorf(problem.PrincipalNotFound, "Principal %s of type %s does not exist in the directory %s, which has no principals of that type.", want.Principal, called, want.Tenant)
	}
	return "", problem.Errorf(problem.Invalid, "The member 'properties.principalType' is '%s'; ServicePrincipal or Group was expected.", problem.Clip(called))
}

// scopeExists checks that the node is there. A scope may also name an object
// within a resource (one secret of a vault), which the tree does not know: then
// the resource must be there.
func (a *API) scopeExists(tx Tx, scope resource.ID) error {
	if scope.IsRoot() || scope.Equal(RootGroup(tx.Tenant())) {
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
	op := access.Operation{Action: actionAssignmentDelete, Scope: id.Scope()}
	was, err := a.Store.RoleAssignment(ctx, c.Tenant, id.Key())
	switch {
	case err == nil:
		op.Attributes.Resource = giving(was.Role, was.Principal, was.PrincipalType)
	case !problem.Is(err, problem.NotFound):
		return nil, false, fmt.Errorf("reading role assignment %s: %w", id, err)
	}
	ev, err := a.permitOperation(ctx, c, op)
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
		if old.Role != was.Role || old.Principal != was.Principal {
			return problem.Errorf(problem.Conflict, "The role assignment '%s' was changed at the same time; read it again and retry.", id.Name())
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
	return assignmentView(ra), a.read(ctx, ev)
}

// RoleAssignments lists those that count at scope and, unless the filter says
// atScope(), those below it, as far as no denial hides them.
func (a *API) RoleAssignments(ctx context.Context, c access.Caller, scope resource.ID, f AssignmentFilter, after string) (List, error) {
	ev, err := a.permit(ctx, c, actionAssignmentRead, scope)
	if err != nil {
		return List{}, err
	}
	hidden := a.denials(c)
	out := List{Value: []View{}}
	ras, next, err := sift(after,
		func(p Page) ([]RoleAssignment, error) { return a.assignmentsOf(ctx, c.Tenant, scope, f, p) },
		func(x RoleAssignment) string { return x.ID.Key() },
		func(x RoleAssignment) (bool, error) {
			hide, err := hidden.hide(ctx, scope, Need{actionAssignmentRead, x.Scope}, x.Scope)
			return !hide, err
		})
	if err != nil {
		return List{}, fmt.Errorf("listing role assignments at %s: %w", scope, err)
	}
	out.Next = next
	for _, ra := range ras {
		out.Value = append(out.Value, assignmentView(ra))
	}
	return out, a.read(ctx, ev)
}

// assignmentsOf reads a page of those that the filter asks for.
func (a *API) assignmentsOf(ctx context.Context, tenant string, scope resource.ID, f AssignmentFilter, p Page) ([]RoleAssignment, error) {
	scopes, below, err := a.rightsListed(ctx, tenant, scope, f.AtScope)
	if err != nil {
		return nil, err
	}
	who := []string{strings.ToLower(f.Principal)}
	if f.Groups {
		groups, err := a.Store.GroupsOf(ctx, tenant, f.Principal, true)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			who = append(who, g.ID)
		}
	}
	var all []RoleAssignment
	for _, principal := range who {
		// The first of each are enough for the first of all.
		some, err := a.Store.RoleAssignments(ctx, tenant, scopes, below, principal, p)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b RoleAssignment) int { return cmp.Compare(a.ID.Key(), b.ID.Key()) })
	return all[:min(len(all), p.Limit)], nil
}

// rightsListed are the scopes that a list at scope is about: it and those above,
// whose assignments count here whoever may read there; and, unless at alone is
// asked for, what lies below.
func (a *API) rightsListed(ctx context.Context, tenant string, scope resource.ID, at bool) (scopes []string, below string, err error) {
	groups, err := a.Store.Above(ctx, tenant, scope)
	for _, s := range slices.Concat(scope.Ancestors(), groups) {
		scopes = append(scopes, s.Key())
	}
	if at {
		return scopes, "", err
	}
	return scopes, scope.Key(), err
}

func assignmentView(r RoleAssignment) View {
	return View{"id": r.ID.String(), "name": r.ID.Name(), "type": "Microsoft.Authorization/roleAssignments", "properties": map[string]any{
		"roleDefinitionId": definitionID(r.Scope, r.Role), "principalId": r.Principal, "principalType": r.PrincipalType,
		"scope": r.Scope.String(), "createdOn": stamp(r.Created), "updatedOn": stamp(r.Updated),
		"createdBy": r.CreatedBy, "updatedBy": r.UpdatedBy,
		"condition": orNull(r.Condition), "conditionVersion": orNull(r.ConditionVersion),
		"delegatedManagedIdentityResourceId": nil, "description": orNull(r.Description),
	}}
}

// orNull is s, or null where it is empty.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// Assign is PutRoleAssignment for callers within the program: role by its GUID.
func (a *API) Assign(ctx context.Context, c access.Caller, id resource.ID, role, principal string) error {
	var b assignmentBody
	b.Properties.RoleDefinitionID, b.Properties.PrincipalID = definitionID(id.Scope(), role), principal
	_, _, err := a.PutRoleAssignment(ctx, c, id, b)
	return err
}
