package arm

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
)

// RoleDefinition is a role of the tenant's own, with what ARM says about it.
type RoleDefinition struct {
	Tenant string
	access.Role
	Created, Updated time.Time
	CreatedBy        string
	UpdatedBy        string
}

// DenyAssignment is a deny assignment with what ARM says about it.
type DenyAssignment struct {
	Tenant string
	access.Denial
	ConditionVersion string
	// Types says what those are whom the denial names: "Group",
	// "ServicePrincipal", "SystemDefined" for everyone. By object id.
	Types            map[string]string
	Created, Updated time.Time
	CreatedBy        string
	UpdatedBy        string
}

// Group is a group of principals, and a principal itself: a role that it has
// is its members', and theirs who are in a group that is its member.
type Group struct {
	Tenant string
	// ID is the object id, a GUID in lower case.
	ID               string
	Name             string
	Description      string
	Created, Updated time.Time
	CreatedBy        string
	UpdatedBy        string
}

// accessStore is the part of [Store] about who may do what.
type accessStore interface {
	// RoleDefinition returns [problem.RoleNotFound] if the tenant has no role
	// of its own with this GUID; RoleDefinitionNamed, if none with this name.
	RoleDefinition(ctx context.Context, tenant, id string) (RoleDefinition, error)
	RoleDefinitionNamed(ctx context.Context, tenant, name string) (RoleDefinition, error)
	// RoleDefinitions lists the tenant's own roles by GUID.
	RoleDefinitions(ctx context.Context, tenant string, p Page) ([]RoleDefinition, error)

	// DenyAssignment returns [problem.NotFound] if there is none with this key.
	DenyAssignment(ctx context.Context, tenant, key string) (DenyAssignment, error)
	// DenyAssignments lists as RoleAssignments does, those of all principals.
	DenyAssignments(ctx context.Context, tenant string, scopes []string, below string, p Page) ([]DenyAssignment, error)
	// DenialsNaming lists the denials that name one of the principals, as
	// denied or as excluded. By key.
	DenialsNaming(ctx context.Context, tenant string, principals []string) ([]DenyAssignment, error)

	// Group returns [problem.NotFound] if there is none with this object id.
	Group(ctx context.Context, tenant, id string) (Group, error)
	// Groups lists by object id; name "" means all names (without case).
	Groups(ctx context.Context, tenant, name string, p Page) ([]Group, error)
	// Members lists who is in the group itself, by object id.
	Members(ctx context.Context, tenant, group string, p Page) ([]directory.Principal, error)
	// GroupsOf lists the groups that the principal is in, by object id: with
	// through, also those that these are in, and so on.
	GroupsOf(ctx context.Context, tenant, principal string, through bool) ([]Group, error)
}

// accessTx is the part of [Tx] about who may do what.
type accessTx interface {
	// RoleDefinition and RoleDefinitionNamed are as in Store.
	RoleDefinition(id string) (RoleDefinition, error)
	RoleDefinitionNamed(name string) (RoleDefinition, error)
	// PutRoleDefinition creates or replaces a role; [problem.Exists] if another
	// one has its name.
	PutRoleDefinition(r RoleDefinition) error
	// DeleteRoleDefinition deletes one; no error if absent. That nobody has it
	// is the caller's to see to.
	DeleteRoleDefinition(id string) error
	// AssignmentsOfRole lists who has a role, by the key of the scope: those at
	// scopes whose key is > p.After.
	AssignmentsOfRole(role string, p Page) ([]RoleAssignment, error)

	// DenyAssignment and DenialsNaming are as in Store.
	DenyAssignment(key string) (DenyAssignment, error)
	DenialsNaming(principals []string) ([]DenyAssignment, error)
	// DenialsWithin lists those at the scope and below it, by key.
	DenialsWithin(scopeKey string) ([]DenyAssignment, error)
	PutDenyAssignment(d DenyAssignment) error
	DeleteDenyAssignment(key string) error

	// Group and GroupsOf are as in Store.
	Group(id string) (Group, error)
	GroupsOf(principal string, through bool) ([]Group, error)
	// PutGroup creates or replaces a group and its principal. [DeletePrincipal]
	// deletes it.
	PutGroup(g Group) error
	// AddMember and RemoveMember change who is in a group; changed is false
	// where nothing had to be done.
	AddMember(group, member string) (changed bool, err error)
	RemoveMember(group, member string) (changed bool, err error)
	// AssignmentsOf lists the role assignments of the principals, by key.
	AssignmentsOf(principals []string) ([]RoleAssignment, error)
}
