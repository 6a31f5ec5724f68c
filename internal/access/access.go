// Package access decides: given a principal's role assignments, may it do an
// action at a scope? It is a pure function with reasons ([Decide]); who reads
// the assignments, and who records the decision, is the caller's part. What a
// right can depend on beside that is a [Condition].
//
// Three things surprise newcomers. Data actions (reading a secret) and actions
// (managing a vault) are apart: Owner's "*" gives no data. And notActions take
// away only from the role that lists them, never from another role: what nobody
// may do, whatever roles they have, is what deny assignments say.
package access

import "github.com/innate-id/innate/internal/resource"

// Caller is the authenticated client of one request. Domain methods take it as
// an argument, so that none can be written without one.
type Caller struct {
	// Tenant is the directory that the caller belongs to.
	Tenant string
	// Principal is the object id (the token's oid).
	Principal string
	// Client is the client id (the token's appid or azp).
	Client string
	// Issuer is the token's iss.
	Issuer string
	// Name is for people to read: the resource that the identity belongs to.
	Name string
	// System marks Innate's own acts (bootstrap). It is never set from a token.
	System bool
	// Via is the local program that the token was given to, as the token
	// says (its innate_caller claim); empty if unknown.
	Via string
	// Request is the request id, for the record.
	Request string
}

// SystemCaller is Innate itself, doing task in tenant; it may do everything,
// and all of it is recorded under "system:task".
func SystemCaller(tenant, task string) Caller {
	return Caller{Tenant: tenant, Principal: "system:" + task, Name: task, System: true}
}

// Permission is one block of a role. Patterns match as [Match] says: without
// case, "*" for any run of characters, slashes too.
type Permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
	// Condition narrows the block, as an assignment's narrows the assignment;
	// empty for none. ConditionVersion is then "2.0".
	ConditionVersion string `json:"conditionVersion,omitempty"`
	Condition        string `json:"condition,omitempty"`
}

// Role is a role definition.
type Role struct {
	// ID is the role's GUID, lower case.
	ID          string
	Name        string
	Description string
	Permissions []Permission
	// Custom marks a role that the tenant made; AssignableScopes are where it,
	// and what it says of itself, may be used: those scopes and all below them.
	// A built-in role has the root.
	Custom           bool
	AssignableScopes []resource.ID
}

// Assignment gives a role to a principal at a scope and everything below it.
type Assignment struct {
	ID        resource.ID
	Role      string // the role's GUID
	Principal string // object id
	Scope     resource.ID
	// Condition narrows what the assignment gives, in the language of version
	// 2.0; empty for none. One that cannot be read gives nothing.
	Condition string
}

// Everyone stands for all principals in a [Denial].
const Everyone = "00000000-0000-0000-0000-000000000000"

// Denial is a deny assignment: what it names is refused, whatever role
// assignments give.
type Denial struct {
	ID          resource.ID
	Name        string
	Description string
	Permissions []Permission
	Scope       resource.ID
	// ScopeOnly: it counts at its scope, and not below.
	ScopeOnly bool
	// Principals are object ids, or [Everyone]; Excluded are taken out.
	Principals, Excluded []string
	// System marks one that Innate made and only Innate removes.
	System bool
	// Condition narrows it, as an assignment's does; one that cannot be read
	// denies.
	Condition string
}

// Values are attributes by name, each with what it is: one or more texts,
// decimal numbers, "true" and "false", GUIDs, or times as RFC 3339 has them.
// Names compare without case. An attribute without values is not there.
type Values map[string][]string

// Attributes are what conditions can ask about, by source.
type Attributes struct {
	// Request is what the operation would write; Resource is what it is done
	// to; Principal is who does it; Environment is when and from where; Caller
	// is the program that does it, by the evidence of its host.
	Request, Resource, Principal, Environment, Caller Values
}

// Operation is what somebody wants to do.
type Operation struct {
	// Action is the operation, "Microsoft.KeyVault/vaults/secrets/getSecret/action".
	Action string
	// Data says that Action is a data action.
	Data       bool
	Scope      resource.ID
	Attributes Attributes
}

// Facts are what a decision stands on: all that concerns one principal, and
// nothing of others.
type Facts struct {
	// Principals is the principal itself, first, and every group that it is
	// in, by object id.
	Principals []string
	// Above are the management groups over the scope's subscription, the
	// nearest first: their place in the tree is not in their IDs.
	Above []resource.ID
	// Assignments are those of Principals, at whatever scope.
	Assignments []Assignment
	// Denials are those of Principals and of everyone.
	Denials []Denial
	// Roles are the tenant's own roles that the assignments name; built-in
	// ones need not be there.
	Roles map[string]Role
}

// Reason says what one assignment contributed to a decision.
type Reason struct {
	// Assignment is a role assignment or, with Denies, a deny assignment.
	Assignment resource.ID
	Role       string
	// Principal is who the assignment is for: the principal itself or a group.
	Principal string
	// Grants says that this assignment allows the action; Denies that it
	// refuses it.
	Grants, Denies bool
	// Why is for people: "its scope does not contain ...".
	Why string
}

// Decision is the answer.
type Decision struct {
	Allowed bool
	// By is the first assignment that allows, or the deny assignment that
	// refuses; zero when nothing allows or when the system itself asked.
	By resource.ID
	// Reasons has one for each deny assignment, and then one for each role
	// assignment, that was considered; none from [Judge].
	Reasons []Reason
}
