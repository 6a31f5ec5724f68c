package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Bootstrap is the beginning of an installation: a tenant with a subscription,
// a first machine, and on it a build agent whose identity owns the
// subscription. From there everything is done with roles.
type Bootstrap struct {
	// Tenant and Subscription are GUIDs; empty makes new ones.
	Tenant, Subscription string
	TenantName           string
	Group, Location      string
	// Host is the first machine's name; Selectors say which of its users the
	// owner's programs run as ("unix:uid:0").
	Host      string
	Selectors []string
	// Owner is the build agent's name.
	Owner string
}

// Bootstrapped is what Bootstrap made.
type Bootstrapped struct {
	Tenant, Subscription string
	Group, Host, Owner   resource.ID
}

// Builder does management writes as Innate itself, all of which can be done
// again without harm.
type Builder struct {
	Server *Server
	Caller access.Caller
}

// Put puts a resource.
func (b *Builder) Put(ctx context.Context, id resource.ID, body map[string]any) error {
	doc := arm.Document{}
	for k, v := range body {
		raw, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", k, err)
		}
		doc[k] = raw
	}
	if _, _, err := b.Server.ARM.Put(ctx, b.Caller, id, doc, false, arm.Condition{}); err != nil {
		return fmt.Errorf("creating %s: %w", id, err)
	}
	return nil
}

// Principal returns the identity that belongs to a resource.
func (b *Builder) Principal(ctx context.Context, id resource.ID) (directory.Principal, error) {
	p, err := b.Server.DB.PrincipalOf(ctx, b.Caller.Tenant, id.Key())
	if err != nil {
		return p, fmt.Errorf("finding the identity of %s: %w", id, err)
	}
	return p, nil
}

// assignments is the namespace of role assignments' names made from what they
// say, so that doing it twice is doing it once.
var assignments = uuid.MustParse("5c3a3a0e-5a4f-4c55-9b8e-6d2c6c3b1f52")

// Assign gives the identity of a resource a role at a scope.
func (b *Builder) Assign(ctx context.Context, of resource.ID, role string, scope resource.ID) error {
	p, err := b.Principal(ctx, of)
	if err != nil {
		return err
	}
	name := uuid.NewSHA1(assignments, []byte(scope.Key()+" "+role+" "+p.ID)).String()
	id, err := scope.Extension("Microsoft.Authorization/roleAssignments", name)
	if err != nil {
		return err
	}
	if err := b.Server.ARM.Assign(ctx, b.Caller, id, role, p.ID); err != nil && !problem.Is(err, problem.AssignmentExists) {
		return fmt.Errorf("assigning a role to %s: %w", of, err)
	}
	return nil
}

// Place says that what comes through a door of a host is a resource.
func (b *Builder) Place(ctx context.Context, host resource.ID, name, door string, selectors []string, what resource.ID) error {
	id, err := host.Child("placements", name)
	if err != nil {
		return err
	}
	props := map[string]any{"door": door, "resourceId": what.String()}
	if len(selectors) > 0 {
		props["selectors"] = selectors
	}
	return b.Put(ctx, id, map[string]any{"properties": props})
}

// ownerRole is the built-in role Owner.
const ownerRole = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

// BootstrapIDs fills in the names of what Bootstrap makes for q.
func (s *Server) BootstrapIDs(q Bootstrap, out *Bootstrapped) (err error) {
	out.Tenant, out.Subscription = q.Tenant, q.Subscription
	if out.Group, err = resource.Parse("/subscriptions/" + q.Subscription + "/resourceGroups/" + q.Group); err != nil {
		return err
	}
	if out.Host, err = out.Group.Extension(fleet.TypeHost, q.Host); err != nil {
		return err
	}
	out.Owner, err = out.Group.Extension("Innate.Build/agentPools", q.Owner)
	return err
}

// Bootstrap makes what q asks for. With the ids of an earlier run it completes
// that run.
func (s *Server) Bootstrap(ctx context.Context, q Bootstrap) (Bootstrapped, error) {
	if q.Tenant == "" {
		q.Tenant = uuid.NewString()
	}
	if q.Subscription == "" {
		q.Subscription = uuid.NewString()
	}
	var out Bootstrapped
	if err := s.BootstrapIDs(q, &out); err != nil {
		return out, err
	}
	b := &Builder{Server: s, Caller: access.SystemCaller(q.Tenant, "bootstrap")}
	t := directory.Tenant{ID: q.Tenant, Name: q.TenantName, Created: s.now()}
	if err := s.ARM.CreateTenant(ctx, b.Caller, t, q.Subscription, q.TenantName); err != nil && !problem.Is(err, problem.Exists) {
		return out, fmt.Errorf("creating the tenant: %w", err)
	}
	for _, step := range []func() error{
		func() error { return b.Put(ctx, out.Group, map[string]any{"location": q.Location}) },
		func() error { return b.Put(ctx, out.Host, map[string]any{}) },
		func() error {
			return b.Put(ctx, out.Owner, map[string]any{"location": q.Location, "identity": map[string]any{"type": "SystemAssigned"}})
		},
		// All of the tenant: groups and management groups are nobody's subscription's.
		func() error { return b.Assign(ctx, out.Owner, ownerRole, resource.Root) },
		func() error { return b.Place(ctx, out.Host, "run-"+q.Owner, "run", q.Selectors, out.Owner) },
	} {
		if err := step(); err != nil {
			return out, err
		}
	}
	return out, nil
}

// Enrolment makes a one-time token for a host.
func (s *Server) Enrolment(ctx context.Context, tenant string, host resource.ID) (string, time.Time, error) {
	r, err := s.DB.Resource(ctx, tenant, host.Key())
	if err != nil {
		return "", time.Time{}, fmt.Errorf("finding host %s: %w", host, err)
	}
	c := access.SystemCaller(tenant, "bootstrap")
	ev := s.Fleet.EnrolmentEvent(c, host)
	return s.Fleet.NewEnrolment(ctx, c, fleet.Host{Tenant: tenant, ID: r.ID, UID: r.UID}, &ev)
}

// Only returns the one tenant and its first subscription, or "" and "" in an
// empty database.
func (s *Server) Only(ctx context.Context) (tenant, subscription string, err error) {
	ts, err := s.DB.Tenants(ctx)
	if err != nil {
		return "", "", fmt.Errorf("reading the tenants: %w", err)
	}
	switch len(ts) {
	case 0:
		return "", "", nil
	case 1:
	default:
		return "", "", fmt.Errorf("there are %d tenants; bootstrap is for the first one alone", len(ts))
	}
	subs, err := s.DB.Resources(ctx, ts[0].ID, "", "Microsoft.Resources/subscriptions", arm.Page{Limit: 1})
	if err != nil {
		return "", "", fmt.Errorf("reading the subscriptions: %w", err)
	}
	if len(subs) == 0 {
		return "", "", fmt.Errorf("tenant %s has no subscription", ts[0].ID)
	}
	return ts[0].ID, subs[0].ID.Subscription(), nil
}
