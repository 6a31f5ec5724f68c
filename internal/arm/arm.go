// Package arm is the management API: the tree of resources, their identities,
// and who has which role where.
//
// A resource type is one row of a table ([Type]); the code that puts, patches,
// lists and deletes knows no type by name. What a newcomer would get wrong: a
// system-assigned identity is not a member of a resource but a principal that
// is born and dies with it in the same transaction, and so are the role
// assignments that it holds; nothing is ever left dangling for a sweep.
package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// Type is a row of the table of resource types.
type Type struct {
	// Name is "Namespace/type" or "Namespace/type/child", in the family's spelling.
	Name string
	// System and User say which identities a resource of the type can have;
	// Separator is between the two words in identity.type ("," or ", ").
	System, User bool
	Separator    string
	// Shared marks types whose resources have the identities of
	// [directory.Holder] and none of their own: a scale set's instances.
	Shared bool
	// Without is what a PUT without an identity block does to identities.
	Without Without
	// SaysNone has reads say "None" where there are no identities; others leave
	// the block out.
	SaysNone bool
	// NoLocation marks types that have no location.
	NoLocation bool
	// Polling is how the family's clients wait for a long-running operation.
	Polling Polling
	// Waited are the methods whose answer the family's clients take for the end
	// all the same.
	Waited []string
	// Extension marks types whose resources say something of another resource
	// in a group: {resource}/providers/{type}/{name}. Check says of which.
	Extension bool
	// AnyScope marks extension types that say something of any scope: a lock.
	AnyScope bool
	// OwnPrincipal is the kind of principal that the resource itself is: a
	// user-assigned identity, an application. "" for none.
	OwnPrincipal directory.PrincipalKind
	// NamePattern is what a name must match; NameRule says it in words.
	NamePattern *regexp.Regexp
	NameRule    string
	// Unique is the kind of names that are unique in the installation, as host
	// names are; "" for names that are unique where they are.
	Unique string
	// Computed are the members of properties that the type makes itself, and
	// Members those beside properties: a client's values for them are dropped.
	Computed, Members []string
	// WriteOnly are secrets that clients send in properties and must not read
	// again: passwords, keys. They are dropped, since nothing here needs them:
	// "a.b" is member b of a, "a[].b" that of each element of the array a, and
	// "a.*" every member of a.
	WriteOnly []string
	// Sticky are the members of properties that a PUT without them leaves as
	// they are; null removes one.
	Sticky []string
	// Made is the status of a PUT that makes a resource where clients of the
	// family do not take 201.
	Made int
	// Check validates a document before it is written and may complete it.
	// old is nil for a new resource.
	Check func(ctx context.Context, old *Resource, r *Resource) error
	// Linked lists what else the caller must be allowed to do for this write,
	// on other resources: a placement gives its host another resource's
	// identity. It is asked before the write and again within it, when all that
	// can be read is what was before.
	Linked func(ctx context.Context, tenant string, id resource.ID, r Document) ([]Need, error)
	// Unlinked is the same of a delete, where that gives somebody something.
	Unlinked func(id resource.ID) []Need
	// Changing runs within the write, before the row is written. old is nil for
	// a new resource.
	Changing func(tx Tx, old *Resource, r Resource) error
	// Written runs within the write, after the row and the principal are there.
	Written func(tx Tx, r Resource) error
	// Deleting runs within the delete, before the row goes; an error keeps all.
	Deleting func(tx Tx, r Resource) error
	// Moved runs within a move for a row of the type that moved, is bound to what
	// moved, or belongs to a resource with an identity that moved. It brings up to
	// date what r.Body says of other resources' IDs, and reports whether it did.
	Moved func(ctx context.Context, tx Tx, r Resource, m Move) (bool, error)
	// Useless says why a row can come to nothing, given the identities of what it
	// is bound to; "" if it can.
	Useless func(r Resource, have []directory.Principal) string
	// View adds the computed members to properties, Whole those beside them.
	View  func(r Resource, own directory.Principal, properties map[string]any)
	Whole func(r Resource, v View)
	// Links adds the computed members that are URLs of this installation, by
	// the names that it was asked by.
	Links func(names web.Names, r Resource, properties map[string]any)
	// Reads are what can be read below a resource that is no resource, by
	// lower-case name.
	Reads map[string]Read
	// Expand are the members of properties that are there if $expand asks for
	// them, by lower-case name.
	Expand map[string]func(r Resource) any
	// Attributes are what conditions can ask about the resource, or about
	// something of it (a secret of a vault) whose ID at is: the same as where
	// the operations are done. Of who may not read the resource, r has no body.
	Attributes func(r Resource, at resource.ID) (access.Values, error)
	// Actions are the POST operations, by lower-case name; the caller needs
	// {type}/{name}/action.
	Actions map[string]Action
}

// Need is an action that a caller must have at a scope.
type Need struct {
	Action string
	Scope  resource.ID
}

// Action is a POST operation on a resource.
type Action struct {
	// Name is the action's spelling.
	Name string
	// Needs is what the caller must be allowed to do, if that is not
	// {type}/{name}/action: an action that only reads.
	Needs string
	Do    func(ctx context.Context, c access.Caller, r Resource, ev *audit.Event) (any, error)
	// With is Do for an action that takes a request body.
	With func(ctx context.Context, c access.Caller, r Resource, body json.RawMessage, ev *audit.Event) (any, error)
}

// Without is what a PUT without an identity block means: services differ.
type Without int

const (
	// Keeps leaves the identities: virtual machines, web apps, most others.
	Keeps Without = iota
	// Removes takes them away: the document is all that there is.
	Removes
	// Refuses answers an error while there are any: a data factory.
	Refuses
)

// Read is something to be read of a resource that is no resource itself.
type Read struct {
	// Name is its spelling.
	Name string
	// Post has it read with POST. Its further pages are read with GET.
	Post bool
	// Needs is what the caller must be allowed to do; "" is to read the resource.
	Needs string
	// Do answers; the caller was found to have the right.
	Do func(ctx context.Context, a *API, r Resource, q url.Values) (any, error)
}

// API is the management API.
type API struct {
	Store     Store
	Directory *directory.Directory
	Names     web.Names
	Cursors   cursor.Sealer
	Now       func() time.Time
	// Types by lower-case name.
	Types map[string]*Type
	// Common are the actions that every resource in a group has, by lower-case
	// name; a type's own come first.
	Common map[string]Action
	// Places says where programs are a resource, of what c may read, and how
	// many other places there are; nil if there are no hosts to be on.
	Places func(ctx context.Context, c access.Caller, id resource.ID) (places []Place, hidden int, err error)
	// Retention is how long a deleted user-assigned identity can be recovered;
	// zero keeps none.
	Retention time.Duration
	// Limits is how much each principal may ask; nil for no limit.
	Limits *Limits
	// FollowLife is how long one answer follows the record; zero means an hour.
	FollowLife time.Duration
	// Patience is how long a client waits before an operation goes on without
	// it; zero means 20 seconds.
	Patience time.Duration
	// Many is how many resources a delete may take with it before its client is
	// not made to wait; zero means 500.
	Many int
	// Log hears of what nobody waits for; nil discards.
	Log *slog.Logger
}

// Register adds types to the table.
func (a *API) Register(types ...*Type) {
	if a.Types == nil {
		a.Types = map[string]*Type{}
	}
	for _, t := range types {
		a.Types[strings.ToLower(t.Name)] = t
	}
}

// typeOf finds id's row; [problem.UnknownType] lists what the namespace has.
func (a *API) typeOf(id resource.ID) (*Type, error) { return a.typeNamed(id.Type()) }

func (a *API) typeNamed(name string) (*Type, error) {
	t, ok := a.Types[strings.ToLower(name)]
	if ok {
		return t, nil
	}
	ns, _, _ := strings.Cut(name, "/")
	var known []string
	for _, t := range a.Types {
		if n, _, _ := strings.Cut(t.Name, "/"); strings.EqualFold(n, ns) {
			known = append(known, t.Name)
		}
	}
	sort.Strings(known)
	if len(known) == 0 {
		return nil, problem.Errorf(problem.UnknownType, "The resource namespace '%s' is not known here.", problem.Clip(ns))
	}
	return nil, problem.Errorf(problem.UnknownType, "The resource type '%s' is not known here; %s has: %s.", problem.Clip(name), ns, strings.Join(known, ", "))
}

// event begins the record of an operation by c.
func (a *API) event(c access.Caller, action string, on resource.ID) audit.Event {
	return audit.Event{
		Tenant: c.Tenant, At: a.Now(), Action: action, Target: on.String(), Outcome: audit.Allowed,
		Principal: c.Principal, Name: c.Name, Via: c.Via, Request: c.Request,
	}
}

// permit asks whether c may do action at id. It returns the event to record
// with what follows; a refusal is on record already.
func (a *API) permit(ctx context.Context, c access.Caller, action string, id resource.ID) (audit.Event, error) {
	return a.permitOperation(ctx, c, access.Operation{Action: action, Scope: id})
}

// permitOperation is permit where there is more to say of the operation.
func (a *API) permitOperation(ctx context.Context, c access.Caller, op access.Operation) (audit.Event, error) {
	ev := a.event(c, op.Action, op.Scope)
	d, err := a.Directory.Authorize(ctx, c, op)
	if err != nil {
		return ev, err
	}
	if d.Allowed {
		ev.Reason = d.String()
		return ev, nil
	}
	return ev, a.deny(ctx, ev, notAuthorized(c, op.Action, op.Scope), d)
}

func notAuthorized(c access.Caller, action string, scope resource.ID) *problem.Error {
	return problem.Errorf(problem.Denied, "The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid.",
		c.Client, c.Principal, action, scope)
}

// read records a read.
func (a *API) read(ctx context.Context, ev audit.Event) error {
	if err := a.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a read: %w", err)
	}
	return nil
}

// refuse records that the operation of ev was refused with p, and returns p.
func (a *API) refuse(ctx context.Context, ev audit.Event, p *problem.Error) error {
	if p.Kind == problem.Denied || p.Kind == problem.LinkedDenied {
		return a.deny(ctx, ev, p, access.Decision{})
	}
	ev.Outcome, ev.Reason = audit.Refused, p.Detail
	return a.record(ctx, ev, p)
}

// deny is refuse for want of a right: d says what refused it.
func (a *API) deny(ctx context.Context, ev audit.Event, p *problem.Error, d access.Decision) error {
	ev.Outcome, ev.Reason = audit.Denied, d.String()
	return a.record(ctx, ev, p)
}

func (a *API) record(ctx context.Context, ev audit.Event, p *problem.Error) error {
	if err := a.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a refusal: %w", err)
	}
	return recorded{p}
}

// write runs a management write; what it refuses is recorded too.
func (a *API) write(ctx context.Context, ev audit.Event, fn func(Tx) error) error {
	change := fn
	fn = func(tx Tx) error {
		if err := unlocked(tx, ev); err != nil {
			return err
		}
		return change(tx)
	}
	if n := runningIn(ctx); n != nil {
		if err := n.begin(ctx); err != nil {
			return err
		}
		fn = n.within(fn)
	}
	err := a.Store.Write(ctx, &ev, fn)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal && p.Kind != problem.Unavailable {
		return a.refuse(ctx, ev, p)
	}
	return err
}

// The types that the API itself knows by name.
const (
	typeSubscription = "Microsoft.Resources/subscriptions"
	typeGroup        = "Microsoft.Resources/resourceGroups"
	typeIdentity     = "Microsoft.ManagedIdentity/userAssignedIdentities"
	typeAssignment   = "microsoft.authorization/roleassignments"
	typeDefinition   = "microsoft.authorization/roledefinitions"
	typeDenial       = "microsoft.authorization/denyassignments"
	typePermission   = "microsoft.authorization/permissions"
)

// CreateTenant makes a tenant with its first subscription. Only Innate itself
// does so; [problem.Exists] if the tenant is there.
func (a *API) CreateTenant(ctx context.Context, c access.Caller, t directory.Tenant, subscription, name string) error {
	if !c.System {
		return problem.Errorf(problem.Denied, "only bootstrap makes tenants")
	}
	id, err := resource.Parse("/subscriptions/" + subscription)
	if err != nil {
		return err
	}
	now := a.Now()
	display, err := json.Marshal(name)
	if err != nil {
		return fmt.Errorf("encoding the subscription's name: %w", err)
	}
	return a.write(ctx, a.event(c, "Innate.Directory/tenants/write", resource.Root), func(tx Tx) error {
		if err := tx.CreateTenant(t); err != nil {
			return err
		}
		return tx.PutResource(Resource{
			Tenant: t.ID, ID: id, Type: typeSubscription, UID: subscription,
			Body:    map[string]json.RawMessage{"displayName": display},
			Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal,
		})
	})
}
