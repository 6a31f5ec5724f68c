package arm

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const (
	actionDefinitionRead   = "Microsoft.Authorization/roleDefinitions/read"
	actionDefinitionWrite  = "Microsoft.Authorization/roleDefinitions/write"
	actionDefinitionDelete = "Microsoft.Authorization/roleDefinitions/delete"
)

// definitionBody is the body of PUT .../roleDefinitions/{guid}.
type definitionBody struct {
	Properties struct {
		RoleName         string           `json:"roleName"`
		Type             string           `json:"type"`
		Description      string           `json:"description"`
		Permissions      []permissionBody `json:"permissions"`
		AssignableScopes []string         `json:"assignableScopes"`
	} `json:"properties"`
}

// UnmarshalJSON reads a body as strictly as a [Document].
func (b *definitionBody) UnmarshalJSON(raw []byte) error {
	type plain definitionBody
	return readStrictly(raw, (*plain)(b))
}

// permissionBody is one block of a role or of a deny assignment.
type permissionBody struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
	conditionBody
}

// The bounds of what a role or a deny assignment says; Azure's, or wider.
const (
	maxBlocks   = 20
	maxPatterns = 1000
	maxScopes   = 200
)

// readPermissions checks the blocks of what, of which at least one must say
// something.
func readPermissions(what string, blocks []permissionBody) ([]access.Permission, error) {
	if len(blocks) == 0 || len(blocks) > maxBlocks {
		return nil, problem.Errorf(problem.Invalid, "The member 'properties.permissions' has %d entries; 1 to %d were expected.", len(blocks), maxBlocks)
	}
	var out []access.Permission
	said := 0
	for _, b := range blocks {
		p := access.Permission{Actions: []string{}, NotActions: []string{}, DataActions: []string{}, NotDataActions: []string{}}
		for _, l := range []struct {
			name string
			from []string
			to   *[]string
		}{{"actions", b.Actions, &p.Actions}, {"notActions", b.NotActions, &p.NotActions}, {"dataActions", b.DataActions, &p.DataActions}, {"notDataActions", b.NotDataActions, &p.NotDataActions}} {
			if len(l.from) > maxPatterns {
				return nil, problem.Errorf(problem.Invalid, "The member '%s' has %d entries; at most %d are allowed.", l.name, len(l.from), maxPatterns)
			}
			for _, pattern := range l.from {
				if why := badPattern(pattern); why != "" {
					return nil, problem.Errorf(problem.Invalid, "The member '%s' has '%s', %s; one like Microsoft.KeyVault/vaults/*/read was expected.", l.name, problem.Clip(pattern), why)
				}
				*l.to = append(*l.to, pattern)
			}
		}
		var err error
		if p.Condition, p.ConditionVersion, err = b.conditionBody.read(what); err != nil {
			return nil, err
		}
		said += len(p.Actions) + len(p.DataActions)
		out = append(out, p)
	}
	if said == 0 {
		return nil, problem.Errorf(problem.Invalid, "The member 'properties.permissions' has neither 'actions' nor 'dataActions'.")
	}
	return out, nil
}

var patternSegment = regexp.MustCompile(`^[A-Za-z0-9*._-]+$`)

// badPattern says why s is no pattern of actions; "" if it is one.
func badPattern(s string) string {
	segs := strings.Split(s, "/")
	switch {
	case s == "*":
		return ""
	case len(s) > 512:
		return "which is over 512 bytes long"
	case strings.Contains(s, "**"):
		return "which has two stars side by side"
	case len(segs) == 1 && !strings.Contains(s, "*"):
		return "which is no action: namespace, type and verb have slashes between them"
	}
	for _, seg := range segs {
		if seg == "" {
			return "which has a slash at an end or two side by side"
		}
		if !patternSegment.MatchString(seg) {
			return "which has a character that no action has"
		}
	}
	verb := strings.ToLower(segs[len(segs)-1])
	if !strings.Contains(verb, "*") && !slices.Contains([]string{"read", "write", "delete", "action"}, verb) {
		return "which ends in no verb: read, write, delete, action or a star"
	}
	return ""
}

// PutRoleDefinition creates or replaces a role of the tenant's own. It gives
// whoever has the role, or may be given it, what the role then says. So it is
// for those alone who have the right to it, and the right to give any role, at
// each scope where the role can be or could be assigned; and by role assignments
// that no condition narrows, for a condition may name this role as harmless.
func (a *API) PutRoleDefinition(ctx context.Context, c access.Caller, id resource.ID, b definitionBody) (View, error) {
	ev, err := a.permit(ctx, c, actionDefinitionWrite, id.Scope())
	if err != nil {
		return nil, err
	}
	ev.Target = id.String()
	want, err := a.definition(c, id, b)
	if err != nil {
		return nil, a.refuse(ctx, ev, problem.Of(err))
	}
	old, err := a.Store.RoleDefinition(ctx, c.Tenant, want.ID)
	if err != nil && !problem.Is(err, problem.RoleNotFound) {
		return nil, fmt.Errorf("reading role %s: %w", want.ID, err)
	}
	scopes := slices.Concat(want.AssignableScopes, old.AssignableScopes)
	if err := a.mayDefine(ctx, c, id, scopes, actionDefinitionWrite, actionAssignmentWrite); err != nil {
		return nil, err
	}
	ev.Reason += fmt.Sprintf("; %q, assignable at %s", want.Name, want.AssignableScopes)
	err = a.write(ctx, ev, func(tx Tx) error { return a.putDefinition(tx, &want, scopes) })
	if err != nil {
		return nil, err
	}
	return definitionView(id.Scope(), want), nil
}

// definition checks a body and makes the row that it asks for.
func (a *API) definition(c access.Caller, id resource.ID, b definitionBody) (RoleDefinition, error) {
	p := b.Properties
	now := a.Now()
	r := RoleDefinition{Tenant: c.Tenant, Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal}
	if _, err := uuid.Parse(id.Name()); err != nil || len(id.Name()) != 36 {
		return r, problem.Errorf(problem.Invalid, "The role definition ID '%s' is not valid. The role definition ID must be a GUID.", problem.Clip(id.Name()))
	}
	r.ID = strings.ToLower(id.Name())
	if have, ok := access.BuiltIn(r.ID); ok {
		return r, problem.Errorf(problem.NotSupported, "The role '%s' is built in and cannot be changed; make one of your own under a new GUID.", have.Name)
	}
	if p.Type != "" && !strings.EqualFold(p.Type, "CustomRole") {
		return r, problem.Errorf(problem.Invalid, "The member 'properties.type' is '%s'; CustomRole was expected.", problem.Clip(p.Type))
	}
	if err := checkRoleName(p.RoleName); err != nil {
		return r, err
	}
	if len(p.Description) > 2048 {
		return r, problem.Errorf(problem.Invalid, "The member 'properties.description' is over 2048 bytes long.")
	}
	var err error
	r.Name, r.Description, r.Custom = p.RoleName, p.Description, true
	if r.Permissions, err = readPermissions("role definition", p.Permissions); err != nil {
		return r, err
	}
	if len(p.AssignableScopes) == 0 || len(p.AssignableScopes) > maxScopes {
		return r, problem.Errorf(problem.Invalid, "The member 'properties.assignableScopes' has %d entries; 1 to %d were expected.", len(p.AssignableScopes), maxScopes)
	}
	for _, s := range p.AssignableScopes {
		scope, err := resource.Parse(s)
		if err != nil {
			return r, problem.Errorf(problem.Invalid, "The member 'properties.assignableScopes' has '%s', which is no scope: %s.", problem.Clip(s), problem.Of(err).Detail)
		}
		if !slices.ContainsFunc(r.AssignableScopes, scope.Equal) {
			r.AssignableScopes = append(r.AssignableScopes, scope)
		}
	}
	return r, nil
}

func checkRoleName(s string) error {
	if n := utf8.RuneCountInString(s); n == 0 || n > 512 || strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
		return problem.Errorf(problem.Invalid, "The member 'properties.roleName' is '%s'; 1 to 512 characters were expected, none of them control characters, and no spaces around them.", problem.Clip(s))
	}
	for _, r := range access.BuiltIns() {
		if fold(r.Name) == fold(s) {
			return problem.Errorf(problem.Exists, "A role definition with the name '%s' exists already: it is built in.", r.Name)
		}
	}
	return nil
}

// mayDefine checks that the caller has all actions at all scopes, by role
// assignments without a condition.
func (a *API) mayDefine(ctx context.Context, c access.Caller, on resource.ID, scopes []resource.ID, actions ...string) error {
	for _, scope := range scopes {
		for _, action := range actions {
			d, err := a.Directory.AuthorizeUnconditionally(ctx, c, access.Operation{Action: action, Scope: scope})
			if err != nil {
				return err
			}
			if !d.Allowed {
				return a.refuse(ctx, a.event(c, action, scope), problem.Errorf(problem.LinkedDenied,
					"The client '%s' with object id '%s' may change '%s' only if it has authorization to perform action '%s' over scope '%s', by a role assignment without a condition: who may say what a role or a denial is decides what others may do.",
					c.Client, c.Principal, on, action, scope))
			}
		}
	}
	return nil
}

// putDefinition writes the role, within the write. scopes are those at which
// the caller's rights were checked.
func (a *API) putDefinition(tx Tx, want *RoleDefinition, scopes []resource.ID) error {
	old, err := tx.RoleDefinition(want.ID)
	switch {
	case err == nil:
		for _, s := range old.AssignableScopes {
			if !slices.ContainsFunc(scopes, s.Equal) {
				return problem.Errorf(problem.Conflict, "The role '%s' was changed at the same time; read it again and retry.", old.Name)
			}
		}
		want.Created, want.CreatedBy = old.Created, old.CreatedBy
		if err := stillAssignable(tx, old, *want); err != nil {
			return err
		}
	case !problem.Is(err, problem.RoleNotFound):
		return err
	}
	for _, s := range want.AssignableScopes {
		if err := a.scopeExists(tx, s); err != nil {
			return err
		}
	}
	err = tx.PutRoleDefinition(*want)
	if problem.Is(err, problem.Exists) {
		return problem.Errorf(problem.Exists, "A role definition with the name '%s' exists already. Role names are unique in the tenant.", want.Name)
	}
	return err
}

// stillAssignable checks that the role stays assignable where somebody has it.
func stillAssignable(tx Tx, old, want RoleDefinition) error {
	tree, err := tx.Tree()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(old.AssignableScopes, func(s resource.ID) bool { return !want.assignable(tree, s) }) {
		return nil
	}
	have, err := tx.AssignmentsOfRole(want.ID, Page{})
	if err != nil {
		return err
	}
	for _, as := range have {
		if !want.assignable(tree, as.Scope) {
			return problem.Errorf(problem.Immutable, "There are existing role assignments of the role '%s' at '%s', which is not among its assignable scopes any more; delete them first.", want.Name, as.Scope)
		}
	}
	return nil
}

// stillAssignableIn checks, within a write that moved something, that the roles
// which are assigned there can be: who may say what a role is was only asked for
// rights where it can be assigned.
func (a *API) stillAssignableIn(ctx context.Context, tx Tx, moved func(scope resource.ID) bool) error {
	roles, err := a.Store.RoleDefinitions(ctx, tx.Tenant(), Page{})
	if err != nil || len(roles) == 0 {
		return err
	}
	tree, err := tx.Tree()
	if err != nil {
		return err
	}
	for _, r := range roles {
		have, err := tx.AssignmentsOfRole(r.ID, Page{})
		if err != nil {
			return err
		}
		for _, as := range have {
			if moved(as.Scope) && !r.assignable(tree, as.Scope) {
				return problem.Errorf(problem.Conflict, "The role '%s' is assigned at '%s', where it cannot be after the move: that would be in none of its assignable scopes. Add one, or delete the role assignment first.", r.Name, as.Scope)
			}
		}
	}
	return nil
}

// assignable reports whether the role may be assigned at a scope: it is at or
// below an assignable scope, in its ID or in the tree of management groups.
func (r RoleDefinition) assignable(tree Tree, scope resource.ID) bool {
	var up []string
	if node := treeNode(scope); node != "" {
		up = tree.above(node, RootGroup(r.Tenant).Key())
	}
	return slices.ContainsFunc(r.AssignableScopes, func(s resource.ID) bool { return s.Contains(scope) || slices.Contains(up, s.Key()) })
}

// treeNode is the key of the subscription or the management group that a scope
// lies in; "" if it lies in none.
func treeNode(scope resource.ID) string {
	if s := scope.SubscriptionID(); !s.IsZero() {
		return s.Key()
	}
	for _, n := range scope.Ancestors() {
		if strings.EqualFold(n.Type(), TypeManagementGroup) {
			return n.Key()
		}
	}
	return ""
}

// DeleteRoleDefinition deletes a role of the tenant's own that nobody has.
// existed false is no error.
func (a *API) DeleteRoleDefinition(ctx context.Context, c access.Caller, id resource.ID) (v View, existed bool, err error) {
	ev, err := a.permit(ctx, c, actionDefinitionDelete, id.Scope())
	if err != nil {
		return nil, false, err
	}
	ev.Target = id.String()
	guid := strings.ToLower(id.Name())
	if have, ok := access.BuiltIn(guid); ok {
		return nil, false, a.refuse(ctx, ev, problem.Errorf(problem.NotSupported, "The role '%s' is built in and cannot be deleted.", have.Name))
	}
	was, err := a.Store.RoleDefinition(ctx, c.Tenant, guid)
	if err != nil && !problem.Is(err, problem.RoleNotFound) {
		return nil, false, fmt.Errorf("reading role %s: %w", guid, err)
	}
	if err := a.mayDefine(ctx, c, id, was.AssignableScopes, actionDefinitionDelete); err != nil {
		return nil, false, err
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		existed = false
		old, err := tx.RoleDefinition(guid)
		if problem.Is(err, problem.RoleNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !slices.EqualFunc(old.AssignableScopes, was.AssignableScopes, resource.ID.Equal) {
			return problem.Errorf(problem.Conflict, "The role '%s' was changed at the same time; read it again and retry.", old.Name)
		}
		have, err := tx.AssignmentsOfRole(guid, Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(have) > 0 {
			return problem.Errorf(problem.Immutable, "There are existing role assignments referencing the role '%s', one of them at '%s'; delete them first.", old.Name, have[0].Scope)
		}
		v, existed = definitionView(id.Scope(), old), true
		return tx.DeleteRoleDefinition(guid)
	})
	return v, existed, err
}

// roleAssignable checks that there is the role, and that it may be assigned at
// the scope.
func (a *API) roleAssignable(tx Tx, role string, scope resource.ID) error {
	if _, ok := access.BuiltIn(role); ok {
		return nil
	}
	r, err := tx.RoleDefinition(role)
	if problem.Is(err, problem.RoleNotFound) {
		return roleNotFound(role)
	}
	if err != nil {
		return err
	}
	tree, err := tx.Tree()
	if err != nil {
		return err
	}
	if !r.assignable(tree, scope) {
		return problem.Errorf(problem.RoleNotFound, "The specified role definition with ID '%s' cannot be assigned at '%s': that is in none of its assignable scopes.", role, scope)
	}
	return nil
}

func roleNotFound(id string) error {
	return problem.Errorf(problem.RoleNotFound, "The specified role definition with ID '%s' does not exist.", problem.Clip(id))
}

// definitionID is a role's resource ID as seen from a scope.
func definitionID(scope resource.ID, role string) string {
	prefix := ""
	if s := scope.SubscriptionID(); !s.IsZero() {
		prefix = s.String()
	}
	return prefix + "/providers/Microsoft.Authorization/roleDefinitions/" + role
}

// RoleDefinition returns a role. One of the tenant's own is there for who asks
// at, above or below a scope where it can be assigned.
func (a *API) RoleDefinition(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	ev, err := a.permit(ctx, c, actionDefinitionRead, id.Scope())
	if err != nil {
		return nil, err
	}
	guid := strings.ToLower(id.Name())
	if r, ok := access.BuiltIn(guid); ok {
		return definitionView(id.Scope(), RoleDefinition{Role: r}), a.read(ctx, ev)
	}
	r, err := a.Store.RoleDefinition(ctx, c.Tenant, guid)
	if err != nil && !problem.Is(err, problem.RoleNotFound) {
		return nil, fmt.Errorf("reading role %s: %w", guid, err)
	}
	above, aerr := a.Store.Above(ctx, c.Tenant, id.Scope())
	if aerr != nil {
		return nil, aerr
	}
	if err != nil || !r.seenFrom(id.Scope(), above, true) {
		return nil, a.refuse(ctx, ev, problem.Of(roleNotFound(guid)))
	}
	return definitionView(id.Scope(), r), a.read(ctx, ev)
}

// seenFrom reports whether the role can be assigned at the scope, which has the
// management groups above, or, with below, somewhere below it.
func (r RoleDefinition) seenFrom(scope resource.ID, above []resource.ID, below bool) bool {
	return slices.ContainsFunc(r.AssignableScopes, func(s resource.ID) bool {
		return s.Contains(scope) || below && scope.Contains(s) || slices.ContainsFunc(above, s.Equal)
	})
}

// RoleDefinitions lists the roles that can be assigned at the scope: the
// built-in ones on the first page, then the tenant's own by GUID.
func (a *API) RoleDefinitions(ctx context.Context, c access.Caller, scope resource.ID, f DefinitionFilter, after string) (List, error) {
	ev, err := a.permit(ctx, c, actionDefinitionRead, scope)
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	for _, r := range access.BuiltIns() {
		if after == "" && !f.Custom && (f.Name == "" || fold(f.Name) == fold(r.Name)) {
			out.Value = append(out.Value, definitionView(scope, RoleDefinition{Role: r}))
		}
	}
	custom, err := a.customRoles(ctx, c.Tenant, f, after)
	if err != nil {
		return List{}, err
	}
	above, err := a.Store.Above(ctx, c.Tenant, scope)
	if err != nil {
		return List{}, err
	}
	custom, out.Next = cut(custom, func(x RoleDefinition) string { return x.ID })
	for _, r := range custom {
		if r.seenFrom(scope, above, f.Below) {
			out.Value = append(out.Value, definitionView(scope, r))
		}
	}
	return out, a.read(ctx, ev)
}

// customRoles reads a page of the tenant's own, or the one of a name.
func (a *API) customRoles(ctx context.Context, tenant string, f DefinitionFilter, after string) ([]RoleDefinition, error) {
	switch {
	case f.BuiltIn:
		return nil, nil
	case f.Name == "":
		return a.Store.RoleDefinitions(ctx, tenant, Page{After: after, Limit: PageSize + 1})
	}
	r, err := a.Store.RoleDefinitionNamed(ctx, tenant, f.Name)
	if problem.Is(err, problem.RoleNotFound) {
		return nil, nil
	}
	return []RoleDefinition{r}, err
}

func definitionView(scope resource.ID, r RoleDefinition) View {
	props := map[string]any{
		"roleName": r.Name, "type": "BuiltInRole", "description": r.Description,
		"assignableScopes": []string{"/"}, "permissions": r.Permissions,
	}
	if r.Custom {
		props["type"], props["assignableScopes"] = "CustomRole", r.AssignableScopes
		props["createdOn"], props["updatedOn"], props["createdBy"], props["updatedBy"] = stamp(r.Created), stamp(r.Updated), r.CreatedBy, r.UpdatedBy
	}
	return View{"id": definitionID(scope, r.ID), "name": r.ID, "type": "Microsoft.Authorization/roleDefinitions", "properties": props}
}
