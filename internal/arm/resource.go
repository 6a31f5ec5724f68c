package arm

import (
	"context"
	"encoding/json"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/resource"
)

// Resource is a node of the management tree as stored.
type Resource struct {
	Tenant string
	ID     resource.ID
	// Type is the registered type's spelling.
	Type string
	// UID names this life of the resource: a resource deleted and made again
	// under the same ID has another one. A GUID.
	UID string
	// Body is the client's document (location, tags, kind, sku, properties and
	// whatever else it sent), without id, name, type, identity and the members
	// that the type computes.
	Body map[string]json.RawMessage
	// BoundTo is a resource that this one dies with, beside its parent; the
	// zero ID if none. A placement is bound to the machine it places.
	BoundTo resource.ID
	// ETag is the tenant revision of its last change.
	ETag             int64
	Created, Updated time.Time
	CreatedBy        string
	UpdatedBy        string
}

// RoleAssignment is a role assignment with what ARM says about it.
type RoleAssignment struct {
	Tenant string
	access.Assignment
	PrincipalType    string
	Description      string
	ConditionVersion string
	Created, Updated time.Time
	CreatedBy        string
	UpdatedBy        string
}

// Change kinds, the kinds of rows in a tenant's change feed. The key is a
// resource key or an object id.
const (
	ChangeResource   = "resource"   // created, changed, deleted; key: resource key
	ChangeIdentity   = "identity"   // its identities changed; key: resource key
	ChangePrincipal  = "principal"  // created, disabled, revoked, deleted; key: object id
	ChangeAssignment = "assignment" // role assignment; key: the principal's object id
	ChangeCredential = "credential" // its federated credentials changed; key: the principal's object id
	ChangeAPI        = "api"        // an application's audiences changed; key: its resource key
	ChangeRole       = "role"       // a role of the tenant's own; key: its GUID
	ChangeDenial     = "denial"     // a deny assignment; key: its ID's key
	ChangeGroup      = "group"      // a group or who is in it; key: its object id
)

// Change is a row of the feed: reading what has revision > n misses nothing,
// since revisions and commits have the same order.
type Change struct {
	Revision int64
	Kind     string
	Key      string
}

// Page bounds a list: items whose key is > After, at most Limit of them.
type Page struct {
	After string
	Limit int
}

// Holding is who belongs to a resource.
type Holding struct {
	// Own is the principal that belongs to it, and is as in [Store.PrincipalOf]:
	// what the resource itself is, or its system-assigned identity. The zero
	// Principal is none.
	Own directory.Principal
	// Identities are as in [Store.Identities].
	Identities []directory.Principal
}

// Store is what the management API needs of the database. *store.DB
// implements it.
type Store interface {
	accessStore
	// Resource returns [problem.NotFound] if there is none with this key.
	Resource(ctx context.Context, tenant, key string) (Resource, error)
	// Resources lists by key. under "" means the whole tenant, else only what
	// lies below that key; typ "" means all types (compared without case).
	Resources(ctx context.Context, tenant, under, typ string, p Page) ([]Resource, error)
	// ResourcesWith is Resources of those that have a term: [TermName].
	ResourcesWith(ctx context.Context, tenant, under, term string, p Page) ([]Resource, error)
	// Identities is as in directory.Store.
	Identities(ctx context.Context, tenant, resourceKey string) ([]directory.Principal, error)
	// PrincipalOf returns the principal that belongs to the resource;
	// [problem.NotFound] if none.
	PrincipalOf(ctx context.Context, tenant, resourceKey string) (directory.Principal, error)
	// Holdings is PrincipalOf and Identities of many resources at once, by key;
	// who has neither is left out.
	Holdings(ctx context.Context, tenant string, resourceKeys []string) (map[string]Holding, error)
	// AttachedTo lists the resources that a user-assigned identity is
	// attached to, by key.
	AttachedTo(ctx context.Context, tenant, identityKey string) ([]resource.ID, error)
	// NameTaken reports whether a name that is unique in the installation is
	// some resource's, of whichever tenant.
	NameTaken(ctx context.Context, kind, name string) (bool, error)
	// RoleAssignment returns [problem.NotFound] if there is none with this key.
	RoleAssignment(ctx context.Context, tenant, key string) (RoleAssignment, error)
	// RoleAssignments lists the assignments at exactly the scopes (keys), and
	// those at scopes below the key below ("" for none; "/" for all);
	// principal "" means everybody's. By key of their ID.
	RoleAssignments(ctx context.Context, tenant string, scopes []string, below, principal string, p Page) ([]RoleAssignment, error)
	// Principal is as in directory.Store.
	Principal(ctx context.Context, tenant, id string) (directory.Principal, error)
	// PrincipalOfClient returns the principal with this client id;
	// [problem.UnknownClient] if the tenant has none.
	PrincipalOfClient(ctx context.Context, tenant, client string) (directory.Principal, error)
	// FederatedCredentials lists the principal's federated credentials by name.
	FederatedCredentials(ctx context.Context, tenant, principal string, p Page) ([]federation.Credential, error)
	// Uses lists the principals of the resources below a key, by those, each with
	// what uses it.
	Uses(ctx context.Context, tenant, under string, p Page) ([]Uses, error)
	// DeletedIdentity finds a deleted identity by its object id;
	// [problem.NotFound]. DeletedNamed finds those of a name below a key.
	// DeletedIdentities lists those below a key, after one of them.
	DeletedIdentity(ctx context.Context, tenant, principal string) (DeletedIdentity, error)
	DeletedNamed(ctx context.Context, tenant, under, name string) ([]DeletedIdentity, error)
	DeletedIdentities(ctx context.Context, tenant, under, afterKey, afterPrincipal string, most int) ([]DeletedIdentity, error)
	// Write runs fn in one transaction that has the tenant's next revision
	// (and so runs alone in its tenant), records *ev in the management chain and
	// commits. An error from fn undoes everything and is returned as it is. fn may run more
	// than once. fn may fill in what it learns in *ev.
	Write(ctx context.Context, ev *audit.Event, fn func(Tx) error) error
	Record(ctx context.Context, evs ...audit.Event) error

	// HeadsBefore returns, of each of the tenant's audit chains, the sequence
	// number of the last batch that was committed before at; Batches returns,
	// of each chain, up to limit batches after a sequence number; Recorded
	// returns a channel that is closed at the next batch that this process
	// hears of.
	HeadsBefore(ctx context.Context, tenant string, at time.Time) (map[string]int64, error)
	Batches(ctx context.Context, tenant string, after map[string]int64, limit int) ([]audit.Batch, error)
	Recorded() <-chan struct{}

	OperationStore
	treeStore
	lockStore
	providerStore
}

// Tx is a management write under way. Every change leaves a row in the feed.
type Tx interface {
	accessTx
	// Tenant is whose write this is; Revision is the revision that it has.
	Tenant() string
	Revision() int64
	// EndOperation ends the operation that this write is all of, whether or not
	// it is written down yet; [problem.Conflict] if it was given up.
	EndOperation(o Operation) error
	treeTx
	lockTx
	providerTx
	// CreateTenant makes the tenant of the event; [problem.Exists] if it is there.
	CreateTenant(t directory.Tenant) error

	Resource(key string) (Resource, error)
	// Resources lists everything below the key "under", and with bound also what
	// is bound to under or to something below it.
	Resources(under string, bound bool) ([]Resource, error)
	// PutResource creates or replaces the row; the store sets ETag to Revision.
	PutResource(r Resource) error
	// Move gives the resource from, and all below it, IDs at and below to, with
	// everything that has one of the old IDs but the bodies of documents.
	// [problem.Invalid] if an ID would get too long.
	Move(from, to resource.ID, at time.Time) error
	// Reseal replaces the sealed value of each version of each secret of a vault.
	Reseal(vaultKey string, again func(name, version string, sealed []byte) ([]byte, error)) error
	// ResourceWithUID finds a resource by its UID; [problem.NotFound].
	ResourceWithUID(uid string) (Resource, error)
	// DeleteTree deletes the resource and all below it, with what is theirs: their
	// principals with what DeletePrincipal takes, attachments on both sides (who
	// keeps the other one has a new ETag), role and deny assignments at them,
	// names, audiences. What is bound to them stays. No error if absent;
	// [problem.Conflict] if a vault among them holds secrets.
	DeleteTree(key string) error

	// Identities is as in directory.Store, within the transaction.
	Identities(resourceKey string) ([]directory.Principal, error)
	// PrincipalOf returns the principal that belongs to the resource
	// (Principal.Resource); [problem.NotFound] if none.
	PrincipalOf(resourceKey string) (directory.Principal, error)
	Principal(id string) (directory.Principal, error)
	PutPrincipal(p directory.Principal) error
	// KeepIdentity keeps an identity that is being deleted; ForgetIdentity
	// removes it for good, or because it lives again ([problem.NotFound] if
	// somebody else was first).
	KeepIdentity(d DeletedIdentity) error
	DeletedIdentity(principal string) (DeletedIdentity, error)
	ForgetIdentity(principal string) error
	// DeletePrincipal deletes the principal, its role assignments, its federated
	// credentials, and its memberships: of groups that it is in and, if it is one,
	// of its members.
	DeletePrincipal(id string) error
	// Attach and Detach change which resources have a user-assigned identity.
	// Both are idempotent.
	Attach(resourceKey, identityKey string) error
	Detach(resourceKey, identityKey string) error
	// AttachedTo lists the resources that have the identity.
	AttachedTo(identityKey string) ([]resource.ID, error)

	RoleAssignment(key string) (RoleAssignment, error)
	// SameAssignment finds the assignment of role to principal at exactly scope;
	// [problem.NotFound] if none.
	SameAssignment(scopeKey, role, principal string) (RoleAssignment, error)
	PutRoleAssignment(a RoleAssignment) error
	DeleteRoleAssignment(key string) error

	// ClaimName takes a name that is unique in the installation (kind "vault":
	// host names) for a resource; [problem.Exists] if another resource has it.
	ClaimName(kind, name, resourceKey string) error
	// ReleaseNames gives back all names of the resource.
	ReleaseNames(resourceKey string) error
	// PutAPI registers an audience for an application; [problem.Exists] if
	// another application has it.
	PutAPI(a directory.API) error
	// APIs returns the audiences of an application, in their order.
	APIs(resourceKey string) ([]directory.API, error)
	// DeleteAPIs deletes the audiences of an application.
	DeleteAPIs(resourceKey string) error
	// FederatedCredential returns the principal's of this name;
	// [problem.NotFound] if none.
	FederatedCredential(principal, name string) (federation.Credential, error)
	// FederatedExpressions counts the principal's that have an expression.
	FederatedExpressions(principal string) (int, error)
	// PutFederatedCredential creates or replaces the principal's of this name;
	// [problem.Exists] if another has the same issuer and subject.
	PutFederatedCredential(principal string, c federation.Credential) error
	// DeleteFederatedCredential deletes the one; no error if absent.
	DeleteFederatedCredential(principal, name string) error
	// LiveSecrets counts the vault's secrets, soft-deleted ones included.
	LiveSecrets(vaultKey string) (int, error)
	// DeleteHost forgets the enrolment tokens and certificates of the host
	// with this UID.
	DeleteHost(uid string) error
}
