// Package graph is the part of Microsoft Graph that tools call to show names
// and to keep groups: a second surface over the directory, in another API's
// words.
//
// What a newcomer would get wrong: the directory is not everybody's to read. A
// program with a token learns of itself and its groups; of another principal only
// if it may read what that belongs to, or a role assignment that names it. To who
// may not see it, a principal that is there and one that is not are the same.
package graph

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// Graph answers from the directory; it changes groups through the management
// API, which has their rules.
type Graph struct {
	Store     Store
	Directory *directory.Directory
	ARM       *arm.API
	Names     web.Names
	Cursors   cursor.Sealer
	Now       func() time.Time
}

// Query says which principals a list has: of Client, Name, Prefix and Kind the
// first that is set.
type Query struct {
	// Client is a client id; Name a name and Prefix the beginning of one, both
	// without case.
	Client, Name, Prefix string
	Kind                 directory.PrincipalKind
	// After is where the list goes on: after this one.
	After Place
	Limit int
}

// Place is a place in a list of principals.
type Place struct{ Name, ID string }

// Store is what Graph needs of the database. *store.DB implements it.
type Store interface {
	// Tenant and Principal are as in directory.Store.
	Tenant(ctx context.Context, id string) (directory.Tenant, error)
	Principal(ctx context.Context, tenant, id string) (directory.Principal, error)
	// Principals lists the tenant's principals. Those with a name or the
	// beginning of one are in the order of names and ids, all others in that of
	// ids.
	Principals(ctx context.Context, tenant string, q Query) ([]directory.Principal, error)
	// RoleAssignments, Group, Members and GroupsOf are as in arm.Store.
	RoleAssignments(ctx context.Context, tenant string, scopes []string, below, principal string, p arm.Page) ([]arm.RoleAssignment, error)
	Group(ctx context.Context, tenant, id string) (arm.Group, error)
	Members(ctx context.Context, tenant, group string, p arm.Page) ([]directory.Principal, error)
	GroupsOf(ctx context.Context, tenant, principal string, through bool) ([]arm.Group, error)
	// Record commits events.
	Record(ctx context.Context, evs ...audit.Event) error
}

// The rights that Graph asks for. A principal is read where the resource is that
// it belongs to; a group belongs to none, and is the tenant's.
const (
	actionRead       = "Innate.Directory/principals/read"
	actionGroupRead  = "Innate.Directory/groups/read"
	actionAssignment = "Microsoft.Authorization/roleAssignments/read"
)

// event begins the record of a read by c.
func (g *Graph) event(c access.Caller, target resource.ID) audit.Event {
	return audit.Event{
		Tenant: c.Tenant, At: g.Now(), Action: actionRead, Target: target.String(), Outcome: audit.Allowed,
		Principal: c.Principal, Name: c.Name, Via: c.Via, Request: c.Request,
	}
}

// allowed records that c read something, before it is answered.
func (g *Graph) allowed(ctx context.Context, c access.Caller, target resource.ID, format string, args ...any) error {
	ev := g.event(c, target)
	ev.Reason = fmt.Sprintf(format, args...)
	if err := g.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a read: %w", err)
	}
	return nil
}

// refused is a refusal that is on record.
type refused struct{ p *problem.Error }

func (e refused) Error() string { return e.p.Error() }

func (e refused) Unwrap() error { return e.p }

// refuse records that c was refused with p, and returns p.
func (g *Graph) refuse(ctx context.Context, c access.Caller, p *problem.Error) error {
	ev := g.event(c, resource.Root)
	ev.Outcome, ev.Reason = audit.Refused, p.Detail
	if p.Kind == problem.Denied {
		ev.Outcome, ev.Reason = audit.Denied, "no role assignment allows it"
	}
	if err := g.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a refusal: %w", err)
	}
	return refused{p}
}
