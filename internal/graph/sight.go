package graph

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// maxNamed is how many of a principal's role assignments are looked at for one
// that the caller may read.
const maxNamed = 20

// sight is what the caller of one request may see. It remembers what it asked,
// so that a list does not ask the same a hundred times.
type sight struct {
	g     *Graph
	c     access.Caller
	asked map[string]bool
	// some is whether there is anything to see beside oneself; nil until asked.
	some *bool
}

func (g *Graph) sight(c access.Caller) *sight { return &sight{g: g, c: c, asked: map[string]bool{}} }

// may asks for a right at a scope.
func (s *sight) may(ctx context.Context, action string, scope resource.ID) (bool, error) {
	key := action + " " + scope.Key()
	if have, ok := s.asked[key]; ok {
		return have, nil
	}
	d, err := s.g.Directory.Authorize(ctx, s.c, access.Operation{Action: action, Scope: scope})
	if err != nil {
		return false, err
	}
	s.asked[key] = d.Allowed
	return d.Allowed, nil
}

// reads reports whether the caller may read p because of what p belongs to. It
// reads itself in any case.
func (s *sight) reads(ctx context.Context, p directory.Principal) (bool, error) {
	switch {
	case p.ID == s.c.Principal:
		return true, nil
	case p.Kind == directory.Group:
		return s.may(ctx, actionGroupRead, resource.Root)
	case p.Resource.IsZero():
		return s.may(ctx, actionRead, resource.Root)
	}
	return s.may(ctx, actionRead, p.Resource)
}

// knows is reads, or that the caller may read a role assignment that names p:
// who sees the assignment may know whose it is.
func (s *sight) knows(ctx context.Context, p directory.Principal) (bool, error) {
	ok, err := s.reads(ctx, p)
	if ok || err != nil {
		return ok, err
	}
	// Without a role of its own there is nothing that the caller could read.
	if some, err := s.anything(ctx); err != nil || !some {
		return false, err
	}
	named, err := s.g.Store.RoleAssignments(ctx, s.c.Tenant, nil, "/", p.ID, arm.Page{Limit: maxNamed})
	if err != nil {
		return false, fmt.Errorf("reading the role assignments of %s: %w", p.ID, err)
	}
	for _, a := range named {
		if ok, err := s.may(ctx, actionAssignment, a.Scope); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// anything reports whether the caller could see anybody beside itself.
func (s *sight) anything(ctx context.Context) (bool, error) {
	if s.some == nil {
		some, err := s.g.Directory.Somewhere(ctx, s.c, actionRead, actionGroupRead, actionAssignment)
		if err != nil {
			return false, err
		}
		s.some = &some
	}
	return *s.some, nil
}

// unseen says that there is no id, to who could see it if there were one; to
// anybody else it says no.
func (s *sight) unseen(ctx context.Context, id string) error {
	some, err := s.anything(ctx)
	if err != nil {
		return err
	}
	p := denied()
	if some {
		p = notFound(id)
	}
	return s.g.refuse(ctx, s.c, p)
}

func denied() *problem.Error {
	return problem.Errorf(problem.Denied, "Insufficient privileges to complete the operation.")
}

func notFound(id string) *problem.Error {
	return problem.Errorf(problem.NotFound, "Resource '%s' does not exist or one of its queried reference-property objects are not present.", problem.Clip(id))
}

// principal finds the principal with this object id that the caller may know,
// of one of the kinds; no kind means any.
func (s *sight) principal(ctx context.Context, id string, of func(directory.Principal) bool) (directory.Principal, error) {
	p, err := s.g.Store.Principal(ctx, s.c.Tenant, id)
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Invalid) || err == nil && !of(p) {
		return p, s.unseen(ctx, id)
	}
	if err != nil {
		return p, fmt.Errorf("reading principal %s: %w", id, err)
	}
	ok, err := s.knows(ctx, p)
	if err != nil {
		return p, err
	}
	if !ok {
		return p, s.unseen(ctx, id)
	}
	return p, nil
}

func anyKind(directory.Principal) bool { return true }

func isGroup(p directory.Principal) bool { return p.Kind == directory.Group }

func isServicePrincipal(p directory.Principal) bool { return p.Kind != directory.Group }
