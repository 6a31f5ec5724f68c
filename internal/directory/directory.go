// Package directory is who exists: tenants, principals, and which identities a
// resource has. It answers the two questions behind every request: is this
// principal still there ([Directory.Alive]), and may it do that
// ([Directory.Authorize]).
//
// Nothing here is cached: a right given counts at the next call and a right
// taken is gone at the next call, because each call asks the database.
package directory

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/resource"
)

// Tenant is an isolated directory.
type Tenant struct {
	// ID is a GUID, lower case.
	ID      string
	Name    string
	Created time.Time
	// Revision counts the tenant's management writes.
	Revision int64
}

// PrincipalKind says what stands behind a principal.
type PrincipalKind string

// The kinds of principals.
const (
	// ManagedIdentity belongs to a resource.
	ManagedIdentity PrincipalKind = "ManagedIdentity"
	// Application is a registered API.
	Application PrincipalKind = "Application"
	// Group stands for its members, which have the roles that it has. It
	// belongs to no resource and gets no tokens.
	Group PrincipalKind = "Group"
)

// Principal can hold role assignments.
type Principal struct {
	Tenant string
	// ID is the object id and Client the client id: GUIDs, lower case.
	ID     string
	Client string
	Kind   PrincipalKind
	// Name is for people: the name of the resource.
	Name string
	// Resource is what the principal belongs to and dies with: the machine of
	// a system-assigned identity, the userAssignedIdentities resource of a
	// user-assigned one, the application's resource.
	Resource resource.ID
	// System marks a system-assigned identity.
	System bool
	// Enabled is false for a principal that is switched off.
	Enabled bool
	// ValidFrom is when its tokens begin to count: those issued before it are
	// refused. Zero means all count.
	ValidFrom time.Time
	Created   time.Time
}

// API is something that tokens are for: an audience that the tenant registered.
type API struct {
	Tenant string
	// Audience is the identifier URI as registered.
	Audience string
	// Client is the application's client id, the aud of version 2 tokens.
	Client string
	// TokenVersion is 1 or 2.
	TokenVersion int
	// Resource is the application's resource ID.
	Resource resource.ID
}

// Store is what Directory needs of the database. *store.DB implements it.
type Store interface {
	// Tenant returns [problem.UnknownTenant] if there is none.
	Tenant(ctx context.Context, id string) (Tenant, error)
	// Tenants returns all tenants in the order of their IDs.
	Tenants(ctx context.Context) ([]Tenant, error)
	// Principal returns [problem.NotFound] if the tenant has none with this
	// object id.
	Principal(ctx context.Context, tenant, id string) (Principal, error)
	// Identities returns the identities of the resource with this key: the
	// system-assigned one first, if any, then the attached user-assigned ones
	// by resource ID. No resource means none.
	Identities(ctx context.Context, tenant, resourceKey string) ([]Principal, error)
	// Tags returns the tags of the resource with this key; none if there is no
	// such resource.
	Tags(ctx context.Context, tenant, resourceKey string) (map[string]string, error)
	// Stands reports whether a placement still says what it said when a token
	// was made by it: it places the workload, and its host was not evicted since.
	Stands(ctx context.Context, tenant string, placement, workload resource.ID, since time.Time) (bool, error)
	// PrincipalOfClient returns the principal with this client id;
	// [problem.UnknownClient] if the tenant has none.
	PrincipalOfClient(ctx context.Context, tenant, client string) (Principal, error)
	// FederatedCandidates returns the principal's federated credentials that a
	// token of the issuer with this subject can match: the one with the subject
	// first, then those with an expression.
	FederatedCandidates(ctx context.Context, tenant, principal, issuer, subject string) ([]federation.Credential, error)
	// TrustsIssuer reports whether the principal has a federated credential of
	// the issuer.
	TrustsIssuer(ctx context.Context, tenant, principal, issuer string) (bool, error)
	// TrustStands reports whether the principal's federated credential still
	// says what it said when a token was issued by it.
	TrustStands(ctx context.Context, tenant, principal, trust string) (bool, error)
	// Moved follows a resource that was at an ID at a time to where it is now;
	// the zero ID if it did not move since, or if another one has been there
	// meanwhile.
	Moved(ctx context.Context, tenant string, from resource.ID, since time.Time) (resource.ID, error)
	// Facts returns what decides about the principal's rights at scope. All
	// of it is of one moment. Assignments are in the order of their IDs.
	Facts(ctx context.Context, tenant, principal string, scope resource.ID) (access.Facts, error)
	// API returns the registered API with this audience, compared without
	// case and without trailing slashes; [problem.UnknownAudience] if none.
	API(ctx context.Context, tenant, audience string) (API, error)
	// Revision returns the tenant's revision.
	Revision(ctx context.Context, tenant string) (int64, error)
	// Record commits events; it returns when they are on disk. All events of
	// one call are of one tenant.
	Record(ctx context.Context, evs ...audit.Event) error
}
