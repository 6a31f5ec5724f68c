package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// The fleet's resource types.
const (
	TypeHost      = "Innate.Fleet/hosts"
	TypePlacement = "Innate.Fleet/hosts/placements"
)

// PlacementProperties are the properties of a placement.
type PlacementProperties struct {
	// Door is the name of the agent's door; "run" is the control socket.
	Door string `json:"door"`
	// Selectors must all hold of a caller; none means every caller of the door.
	Selectors []string `json:"selectors,omitempty"`
	// ResourceID is what the callers are.
	ResourceID string `json:"resourceId"`
}

var name = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?$`)

const nameRule = "1 to 64 letters, digits and - _ . are allowed, beginning with a letter or digit"

// Bounds of what an agent holds and compares for each caller.
const (
	maxSelectors  = 64
	maxPlacements = 1000
)

// Types are the rows that the fleet adds to the management API.
func (f *Fleet) Types() []*arm.Type {
	return []*arm.Type{
		{
			Name: TypeHost, NoLocation: true, NamePattern: name, NameRule: nameRule,
			Linked:   f.knownNeeds,
			Written:  claimKnown,
			Deleting: func(tx arm.Tx, r arm.Resource) error { return tx.DeleteHost(r.UID) },
			Actions: map[string]arm.Action{
				"createenrolmenttoken": {Name: "createEnrolmentToken", Do: f.createToken},
				"evict":                {Name: "evict", Do: f.evict},
				"readmit":              {Name: "readmit", Do: f.readmit},
			},
		},
		{
			Name: TypePlacement, NoLocation: true, NamePattern: name, NameRule: nameRule,
			Linked: func(_ context.Context, _ string, _ resource.ID, d arm.Document) ([]arm.Need, error) {
				p, err := placement(d)
				if err != nil {
					return nil, err
				}
				id := resource.MustParse(p.ResourceID) // placement checked it
				return []arm.Need{toBe(id)}, nil
			},
			Check: func(_ context.Context, old *arm.Resource, r *arm.Resource) error {
				p, err := placement(r.Body)
				if err != nil {
					return err
				}
				r.BoundTo = resource.MustParse(p.ResourceID)
				if old != nil && !old.BoundTo.Equal(r.BoundTo) {
					return problem.Errorf(problem.Immutable, "A placement cannot be moved to another resource; delete it and create another.")
				}
				return nil
			},
			Moved: func(_ context.Context, _ arm.Tx, r arm.Resource, m arm.Move) (bool, error) {
				return m.Rewrite(r.Body, "resourceId")
			},
			Written: func(tx arm.Tx, r arm.Resource) error {
				siblings, err := tx.Resources(r.ID.Parent().Key(), false)
				if err != nil {
					return err
				}
				if len(siblings) > maxPlacements {
					return problem.Errorf(problem.Conflict, "The host '%s' has %d placements, and at most that many are allowed.", r.ID.Parent().Name(), maxPlacements)
				}
				if _, err := tx.Resource(r.BoundTo.Key()); problem.Is(err, problem.NotFound) {
					return problem.Errorf(problem.Invalid, "The resource '%s' does not exist; create it before it is placed.", r.BoundTo)
				} else if err != nil {
					return err
				}
				return nil
			},
		},
		ruleType(),
	}
}

// placement reads and checks a placement's document.
func placement(d arm.Document) (PlacementProperties, error) {
	var p PlacementProperties
	if raw := d.Member("properties"); len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return p, problem.Errorf(problem.Invalid, "The member 'properties' needs 'door' and 'resourceId' (strings) and may have 'selectors' (strings).")
		}
	}
	if !name.MatchString(p.Door) {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.door' is '%s'; the name of one of the agent's doors was expected, or \"run\".", clip(p.Door))
	}
	id, err := resource.Parse(p.ResourceID)
	if err != nil {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.resourceId' is not a resource ID: %s.", problem.Of(err).Detail)
	}
	if !placeable(id) {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.resourceId' must be a resource in a resource group that can have an identity.")
	}
	p.ResourceID = id.String()
	if len(p.Selectors) > maxSelectors {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.selectors' has %d entries; at most %d are allowed.", len(p.Selectors), maxSelectors)
	}
	for _, s := range p.Selectors {
		if _, err := evidence.Parse(s); err != nil {
			return p, err
		}
	}
	return p, nil
}

// tokenAnswer is the answer of createEnrolmentToken.
type tokenAnswer struct {
	// Token is shown this once; only its hash is kept.
	Token string `json:"token"`
	// Expires is in RFC 3339.
	Expires string `json:"expires"`
}

func (f *Fleet) createToken(ctx context.Context, c access.Caller, r arm.Resource, ev *audit.Event) (any, error) {
	h := Host{Tenant: r.Tenant, ID: r.ID, UID: r.UID}
	if err := f.mayBe(ctx, c, h); err != nil {
		return nil, err
	}
	tok, exp, err := f.NewEnrolment(ctx, c, h, ev)
	if err != nil {
		return nil, err
	}
	return tokenAnswer{Token: tok, Expires: exp.UTC().Format("2006-01-02T15:04:05Z")}, nil
}

// toBe is what somebody needs who makes a machine be a resource: whoever may
// write a resource can have programs of theirs run as it. An instance of a scale
// set is the whole set in all that its identities may do.
func toBe(id resource.ID) arm.Need {
	id = directory.Holder(id)
	return arm.Need{Action: id.Type() + "/write", Scope: id}
}

// mayBe checks that c may be everything that is placed on the host: with a
// token for the host it would be.
func (f *Fleet) mayBe(ctx context.Context, c access.Caller, h Host) error {
	ps, err := f.Placements(ctx, h)
	if err != nil {
		return err
	}
	for _, p := range ps.Placements {
		id, err := resource.Parse(p.Resource)
		if err != nil {
			return fmt.Errorf("reading placement %s: %w", p.Name, err)
		}
		need := toBe(id)
		d, err := f.Authorize(ctx, c, access.Operation{Action: need.Action, Scope: need.Scope})
		if err != nil {
			return err
		}
		if !d.Allowed {
			return problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' may enrol the host '%s'; however, '%s' is placed on it, and the client does not have permission to perform action '%s' there.",
				c.Client, c.Principal, h.ID, id, need.Action)
		}
	}
	return nil
}

func (f *Fleet) evict(ctx context.Context, _ access.Caller, r arm.Resource, ev *audit.Event) (any, error) {
	if err := f.Store.Evict(ctx, Host{Tenant: r.Tenant, ID: r.ID, UID: r.UID}, ev); err != nil {
		return nil, err
	}
	return struct{}{}, nil
}
