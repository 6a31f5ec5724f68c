package agent

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// book is what the control plane decided about this host, as of one reading.
// It is made ready once and never changes, so that a request is judged by
// placements and rules that belong together.
type book struct {
	revision int64
	doors    map[string]*doorPlacements
	// rules are by resource ID in lower case.
	rules map[string]*rules
}

// placed is a placement with its selectors parsed and the rules of its
// resource, nil if there are none.
type placed struct {
	fleetapi.Placement
	required []evidence.Selector
	rules    *rules
}

// doorPlacements are the placements of one door. Each is found by one of its
// selectors, the one that fewest others have: a caller is compared with those
// that could match it, and not with a thousand.
type doorPlacements struct {
	all []*placed // as they came
	any []*placed // those without selectors
	by  map[evidence.Selector][]*placed
}

// rules are the caller rules of one resource.
type rules struct {
	list []evidence.Rule
	// by finds a rule by one of its selectors, as placements are found. Each
	// list, and the one for nobody, ends with rules that match nobody, so that
	// it is never empty of what counts: no rule at all would mean yes.
	by     map[evidence.Selector][]evidence.Rule
	nobody []evidence.Rule
	// broken says why nothing on the resource is given to anybody: its rules
	// cannot be read, and none must count as half of what was meant.
	broken string
}

func newBook(p fleetapi.Placements, log *slog.Logger) *book {
	b := &book{revision: p.Revision, doors: map[string]*doorPlacements{}, rules: map[string]*rules{}}
	for _, r := range p.Rules {
		k := resourceKey(r.Resource)
		if b.rules[k] == nil {
			b.rules[k] = &rules{}
		}
		b.rules[k].add(r)
	}
	for k, r := range b.rules {
		r.index()
		if r.broken != "" {
			log.Error("caller rules cannot be read; nothing is given to any caller of the resource", "resource", k, "fault", r.broken)
		}
	}
	for _, pl := range p.Placements {
		d := b.doors[pl.Door]
		if d == nil {
			d = &doorPlacements{by: map[evidence.Selector][]*placed{}}
			b.doors[pl.Door] = d
		}
		d.all = append(d.all, &placed{pl, selectors(pl.Selectors), b.rules[resourceKey(pl.Resource)]})
	}
	for _, d := range b.doors {
		d.index()
	}
	return b
}

func (d *doorPlacements) index() {
	var count tally
	for _, p := range d.all {
		count.add(p.required)
	}
	for _, p := range d.all {
		if len(p.required) == 0 {
			d.any = append(d.any, p)
			continue
		}
		k := count.rarest(p.required)
		d.by[k] = append(d.by[k], p)
	}
}

func (r *rules) index() {
	var count tally
	for _, x := range r.list {
		count.add(x.Selectors)
		if !slices.ContainsFunc(r.nobody, func(n evidence.Rule) bool { return n.Enforce == x.Enforce }) {
			r.nobody = append(r.nobody, evidence.Rule{Enforce: x.Enforce})
		}
	}
	r.by = map[evidence.Selector][]evidence.Rule{}
	for _, x := range r.list {
		if len(x.Selectors) == 0 {
			continue // it matches nobody, and spoils the list
		}
		k := count.rarest(x.Selectors)
		r.by[k] = append(r.by[k], x)
	}
	for k, list := range r.by {
		r.by[k] = append(list, r.nobody...)
	}
}

// about returns the rules that could match a caller, and some that do not.
func (r *rules) about(ev evidence.Evidence) []evidence.Rule {
	found, several := r.nobody, false
	for _, s := range ev.Selectors {
		switch list := r.by[s]; {
		case len(list) == 0:
		case several:
			found = append(found, list...)
		case len(found) > len(r.nobody):
			found, several = slices.Concat(found, list), true
		default:
			found = list
		}
	}
	return found
}

// tally counts how many have a selector.
type tally map[evidence.Selector]int

func (t *tally) add(selectors []evidence.Selector) {
	if *t == nil {
		*t = tally{}
	}
	for _, s := range selectors {
		(*t)[s]++
	}
}

// rarest is the one of the selectors that fewest have.
func (t tally) rarest(selectors []evidence.Selector) evidence.Selector {
	return slices.MinFunc(selectors, func(a, b evidence.Selector) int { return t[a] - t[b] })
}

// add reads one rule. An unknown mode or grade makes one that counts and
// matches nobody; anything else that is not as it should be spoils the list.
func (r *rules) add(w fleetapi.CallerRule) {
	out := evidence.Rule{Name: w.Name, Selectors: make([]evidence.Selector, 0, len(w.Selectors)), Identity: strings.TrimSuffix(w.Identity, "/"),
		Audiences: w.Audiences, Enforce: w.Mode != fleetapi.ModeAudit}
	spoil := func(format string, args ...any) {
		if r.broken == "" {
			r.broken = fmt.Sprintf("caller rule %q: ", problem.Clip(w.Name)) + fmt.Sprintf(format, args...)
		}
	}
	if len(w.Selectors) == 0 {
		spoil("it has no selector")
	}
	for _, s := range w.Selectors {
		sel, err := evidence.Parse(s)
		if err != nil {
			spoil("%s", problem.Of(err).Detail)
		}
		out.Selectors = append(out.Selectors, sel)
	}
	if w.Identity != "" {
		if _, err := resource.Parse(w.Identity); err != nil {
			spoil("its identity is not a resource ID")
		}
	}
	if w.Grade != "" {
		g, err := evidence.ParseGrade(w.Grade)
		if err != nil {
			g = unknownGrade
		}
		out.Grade = g
	}
	if w.Mode != fleetapi.ModeAudit && w.Mode != fleetapi.ModeEnforce {
		out.Grade = unknownGrade
	}
	r.list = append(r.list, out)
}

// unknownGrade is better than any evidence is.
const unknownGrade = evidence.GradeKernel + 1

func selectors(words []string) []evidence.Selector {
	out := make([]evidence.Selector, len(words))
	for i, s := range words {
		out[i] = evidence.Selector(s)
	}
	return out
}

// resourceKey is a resource ID as the book's maps have it: IDs have no case.
func resourceKey(id string) string { return strings.ToLower(strings.TrimSuffix(id, "/")) }

// sought is a caller whose placement is looked for.
type sought struct {
	ev evidence.Evidence
	// resource and placement, if not empty, are the only ones that will do.
	resource, placement string
	// uid is the placement's that does as well, wherever that and its resource
	// have moved to; "" if it is not known.
	uid string
	// was is how the same was found before; may be nil.
	was *found
}

// found is a placement as a book has it. A book never changes, so that the same
// caller is found there again.
type found struct {
	*placed
	in *book
	// asked is what the caller asked for last.
	asked request
	// caller is who was found, for the dialects.
	caller metadata.Caller
}

// admits reports whether p is about the caller. A selector of a kind that this
// agent does not know never holds.
func (s *sought) admits(p *placed) bool {
	return s.names(p) && s.ev.Matches(p.required)
}

// names reports whether p is the placement that is asked for, if any is.
func (s *sought) names(p *placed) bool {
	return s.uid != "" && s.uid == p.UID || (s.placement == "" || p.Name == s.placement) && (s.resource == "" || sameResource(p.Resource, s.resource))
}

// find returns the placement of a caller: of those that admit it, the one with
// the most selectors. [problem.CallerRefused] if there is none, or if two
// equally good ones disagree about the workload.
func (b *book) find(s sought) (*placed, error) {
	if s.was != nil && s.was.in == b {
		return s.was.placed, nil
	}
	var best *placed
	var tied bool
	look := func(candidates []*placed) {
		for _, p := range candidates {
			switch {
			case p == best || !s.admits(p):
			case best == nil || len(p.required) > len(best.required):
				best, tied = p, false
			case len(p.required) == len(best.required) && !sameResource(p.Resource, best.Resource):
				tied = true
			}
		}
	}
	if d := b.doors[s.ev.Door]; d != nil {
		look(d.any)
		for _, sel := range s.ev.Selectors {
			look(d.by[sel])
		}
	}
	if best == nil {
		return nil, problem.Errorf(problem.CallerRefused, "no placement on this host admits this caller")
	}
	if tied {
		return nil, problem.Errorf(problem.CallerRefused, "several placements on this host match this caller equally well and name different resources: give one of them another selector")
	}
	return best, nil
}

// judge says what the caller rules of a resource say to a caller; r is nil
// where there are none.
func (r *rules) judge(ev evidence.Evidence, want evidence.Want) evidence.Verdict {
	switch {
	case r == nil:
		return evidence.Verdict{Allowed: true}
	case r.broken != "":
		return evidence.Verdict{Reason: "the caller rules of the resource cannot be read by this agent (" + r.broken + ")"}
	}
	return evidence.Judge(r.about(ev), ev, want)
}

// decision is a placement and what the rules of its resource say.
type decision struct {
	by *book
	*placed
	evidence.Verdict
}

// decide finds a caller's placement and judges what it wants.
// [problem.CallerRefused] if the answer is no.
func (b *book) decide(s sought, want evidence.Want) (decision, error) {
	p, err := b.find(s)
	if err != nil {
		return decision{}, err
	}
	v := p.rules.judge(s.ev, want)
	if !v.Allowed {
		return decision{}, problem.Errorf(problem.CallerRefused, "%s: %s", p.Resource, v.Reason)
	}
	return decision{b, p, v}, nil
}
