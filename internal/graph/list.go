package graph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// maxScan is how many principals one request looks at: a page can be short, or
// empty, and have a next one.
const maxScan = 1000

// maxIDs is how many principals can be asked for by id at once.
const maxIDs = 1000

// page is one page of a list.
type page struct {
	value []object
	// next is where the next page begins; nil on the last.
	next *Place
}

// list lists the principals of a type that c may see.
func (g *Graph) list(ctx context.Context, c access.Caller, typ string, o options) (page, error) {
	s := g.sight(c)
	of := isServicePrincipal
	if typ == typeGroup {
		of = isGroup
	}
	if err := checkFilter(typ, o.filter); err != nil {
		return page{}, g.onRecord(ctx, c, err)
	}
	some, err := s.anything(ctx)
	if err != nil {
		return page{}, err
	}
	matches := func(p directory.Principal) bool {
		return of(p) && o.filter.Match(func(t odata.Term) bool { return holds(t, p) })
	}
	var out page
	switch ids, byID := pinned(o.filter); {
	case byID:
		out, err = s.pinned(ctx, typ, ids, matches, o)
	case some:
		out, err = s.scan(ctx, typ, matches, o)
	}
	if err != nil {
		return page{}, g.onRecord(ctx, c, err)
	}
	if len(out.value) == 0 && !some {
		return page{}, g.refuse(ctx, c, denied())
	}
	return out, g.allowed(ctx, c, resource.Root, "a list of %ss, of which the caller may see %d", typ, len(out.value))
}

// onRecord puts a refusal on record that is not yet.
func (g *Graph) onRecord(ctx context.Context, c access.Caller, err error) error {
	if err == nil {
		return nil
	}
	p := problem.Of(err)
	if _, ok := errors.AsType[refused](err); ok || arm.OnRecord(err) || p.Kind == problem.Internal || p.Kind == problem.Unavailable {
		return err
	}
	return g.refuse(ctx, c, p)
}

// pinned looks principals up that were named. Who may read a role assignment may
// know whose it is, and so asks for it by id.
func (s *sight) pinned(ctx context.Context, typ string, asked []Query, matches func(directory.Principal) bool, o options) (page, error) {
	if len(asked) > maxIDs {
		return page{}, problem.Errorf(problem.Invalid, "The filter names %d ids; at most %d can be asked for at once.", len(asked), maxIDs)
	}
	found := map[string]directory.Principal{}
	for _, q := range asked {
		p, ok, err := s.lookup(ctx, q)
		if err != nil {
			return page{}, err
		}
		if ok && matches(p) && p.ID > o.after.ID {
			found[p.ID] = p
		}
	}
	var out page
	for _, p := range sorted(found) {
		if ok, err := s.knows(ctx, p); err != nil {
			return page{}, err
		} else if !ok {
			continue
		}
		if full, err := s.add(ctx, &out, typ, p, o); err != nil || full {
			return out, err
		}
	}
	out.next = nil
	return out, nil
}

func sorted(m map[string]directory.Principal) []directory.Principal {
	var out []directory.Principal
	for _, p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b directory.Principal) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// lookup finds one principal by id or client id.
func (s *sight) lookup(ctx context.Context, q Query) (p directory.Principal, ok bool, err error) {
	if q.Client == "" {
		p, err = s.g.Store.Principal(ctx, s.c.Tenant, q.After.ID)
		if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Invalid) {
			return p, false, nil
		}
		if err != nil {
			return p, false, fmt.Errorf("reading principal %s: %w", q.After.ID, err)
		}
		return p, true, nil
	}
	all, err := s.g.Store.Principals(ctx, s.c.Tenant, q)
	if problem.Is(err, problem.Invalid) {
		return p, false, nil
	}
	if err != nil || len(all) == 0 {
		return p, false, err
	}
	return all[0], true, nil
}

// add puts p into the page, and reports that it is full: then p begins the next.
func (s *sight) add(ctx context.Context, out *page, typ string, p directory.Principal, o options) (full bool, err error) {
	if len(out.value) == o.top {
		return true, nil
	}
	obj, err := s.object(ctx, p)
	if err != nil {
		return false, err
	}
	if obj, err = o.pick(typ, obj); err != nil {
		return false, err
	}
	out.value = append(out.value, obj)
	if len(out.value) == o.top {
		out.next = &Place{Name: fold(p.Name), ID: p.ID}
	}
	return false, nil
}

// object says what p is: all of it to who may read it, and its name to who may
// only know it.
func (s *sight) object(ctx context.Context, p directory.Principal) (object, error) {
	obj, err := s.whole(ctx, p)
	if err != nil {
		return nil, err
	}
	ok, err := s.reads(ctx, p)
	if err == nil && !ok {
		obj = named(obj)
	}
	return obj, err
}

func (s *sight) whole(ctx context.Context, p directory.Principal) (object, error) {
	if p.Kind != directory.Group {
		return servicePrincipal(p), nil
	}
	gr, err := s.g.Store.Group(ctx, s.c.Tenant, p.ID)
	if problem.Is(err, problem.NotFound) { // deleted since
		gr = arm.Group{ID: p.ID, Name: p.Name, Created: p.Created}
	} else if err != nil {
		return nil, fmt.Errorf("reading group %s: %w", p.ID, err)
	}
	return group(gr), nil
}

// scan reads principals until the page is full or enough was looked at.
func (s *sight) scan(ctx context.Context, typ string, matches func(directory.Principal) bool, o options) (page, error) {
	var out page
	var shown Place // a place at one who is not shown tells something to who keeps its token
	q := query(typ, o.filter)
	q.After, q.Limit = o.after, 200
	for looked := 0; ; {
		some, err := s.g.Store.Principals(ctx, s.c.Tenant, q)
		if err != nil {
			return page{}, err
		}
		for _, p := range some {
			if matches(p) {
				ok, err := s.reads(ctx, p)
				if err != nil {
					return page{}, err
				}
				if ok {
					full, err := s.add(ctx, &out, typ, p, o)
					if err != nil || full {
						return out, err
					}
					shown = Place{Name: fold(p.Name), ID: p.ID}
				}
			}
			q.After = Place{Name: fold(p.Name), ID: p.ID}
			looked++
		}
		switch {
		case len(some) < q.Limit:
			out.next = nil
			return out, nil
		case looked >= maxScan:
			at := cmp.Or(shown, q.After)
			out.next = &at
			return out, nil
		}
	}
}

// byIDs finds the principals with these object ids that the caller may know;
// the others are left out, whether they are there or not.
func (g *Graph) byIDs(ctx context.Context, c access.Caller, ids []string, wanted func(typ string) bool) ([]object, error) {
	s := g.sight(c)
	out := []object{}
	for _, id := range ids {
		p, ok, err := s.lookup(ctx, Query{After: Place{ID: id}})
		if err == nil && ok && wanted(typeOf(p)) {
			ok, err = s.knows(ctx, p)
		} else {
			ok = false
		}
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		obj, err := s.object(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, typed(typeOf(p), obj))
	}
	if some, err := s.anything(ctx); err != nil {
		return nil, err
	} else if len(out) == 0 && !some {
		return nil, g.refuse(ctx, c, denied())
	}
	return out, g.allowed(ctx, c, resource.Root, "%d of %d principals that were asked for by id", len(out), len(ids))
}

// get finds one principal.
func (g *Graph) get(ctx context.Context, c access.Caller, id string, of func(directory.Principal) bool) (directory.Principal, object, error) {
	s := g.sight(c)
	p, err := s.principal(ctx, id, of)
	if err != nil {
		return p, nil, err
	}
	obj, err := s.object(ctx, p)
	if err != nil {
		return p, nil, err
	}
	return p, obj, g.allowed(ctx, c, p.Resource, "%s %s", typeOf(p), p.ID)
}

// byClient finds the object id of a client id.
func (g *Graph) byClient(ctx context.Context, c access.Caller, client string) (string, error) {
	p, ok, err := g.sight(c).lookup(ctx, Query{Client: client, Limit: 1})
	if err == nil && !ok {
		err = g.sight(c).unseen(ctx, client)
	}
	return p.ID, err
}
