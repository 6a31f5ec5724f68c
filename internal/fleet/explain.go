package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Actions are what every resource can be asked that can be placed.
//
//	POST {resource}/explainCaller  ExplainRequest -> Explanation
//
// It says what would come of a caller's request, as things are now: of one that
// is on record, or of one that somebody thinks of. It only reads, and needs the
// right to read the resource's caller rules.
func (f *Fleet) Actions() map[string]arm.Action {
	return map[string]arm.Action{
		"explaincaller": {Name: "explainCaller", Needs: TypeCallerRule + "/read", With: f.explain},
	}
}

// ExplainRequest asks about a caller. One of Via and Evidence is set.
type ExplainRequest struct {
	// Via is a caller's description as events have it.
	Via string `json:"via,omitempty"`
	// Evidence is the caller's, where more is known than words say.
	Evidence *fleetapi.Evidence `json:"evidence,omitempty"`
	// Audience is the API that it asks for a token for; "" is none that a rule
	// could name.
	Audience string `json:"audience,omitempty"`
	// Identity is the resource ID of the identity that it names (the resource's
	// own for the system-assigned one); "" if it names none.
	Identity string `json:"identity,omitempty"`
}

// Explanation says what comes of the request and why.
type Explanation struct {
	// Caller is the evidence in words.
	Caller string `json:"caller"`
	// Note says what could not be taken into account; "" for nothing.
	Note string `json:"note,omitempty"`
	// Placements are where the resource is placed, of those that the client may
	// read. Hidden is how many others there are.
	Placements []ExplainedPlacement `json:"placements"`
	Hidden     int                  `json:"hiddenPlacements"`
	Verdict    ExplainedVerdict     `json:"verdict"`
}

// ExplainedPlacement is a placement of the resource and whether it is about the
// caller.
type ExplainedPlacement struct {
	ID      string `json:"id"`
	Door    string `json:"door"`
	Matches bool   `json:"matches"`
	// Why says why it does not.
	Why string `json:"why,omitempty"`
}

// ExplainedVerdict is what the caller rules say: evidence.Verdict.
type ExplainedVerdict struct {
	Allowed  bool            `json:"allowed"`
	Rule     string          `json:"rule,omitempty"`
	Identity string          `json:"identity,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Would    string          `json:"would,omitempty"`
	Misses   []ExplainedMiss `json:"misses"`
}

// ExplainedMiss is a rule that does not allow it and why.
type ExplainedMiss struct {
	Rule string `json:"rule"`
	Why  string `json:"why"`
}

const wordsNote = "A description leaves out cgroup paths, container ids and scopes, and whether the executable is an interpreter: selectors of those do not match here, and an interpreter is taken for a program."

func (f *Fleet) explain(ctx context.Context, c access.Caller, r arm.Resource, body json.RawMessage, ev *audit.Event) (any, error) {
	if !placeable(r.ID) {
		return nil, problem.Errorf(problem.Invalid, "'%s' is no resource that can be placed on a host, and so has no callers.", r.ID)
	}
	q, who, err := explainRequest(body)
	if err != nil {
		return nil, err
	}
	out := Explanation{Caller: who.String(), Placements: []ExplainedPlacement{}}
	if q.Evidence == nil {
		out.Note = wordsNote
	}
	rules, err := f.rules(ctx, r.Tenant, r.ID)
	if err != nil {
		return nil, err
	}
	out.Verdict = explained(evidence.Decide(rules, who, evidence.Want{Audience: q.Audience, Named: q.Identity != "", Identity: q.Identity}))
	if out.Placements, out.Hidden, err = f.explainPlacements(ctx, c, r, who); err != nil {
		return nil, err
	}
	return out, f.Store.Record(ctx, *ev)
}

func explainRequest(body json.RawMessage) (ExplainRequest, evidence.Evidence, error) {
	var q ExplainRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return q, evidence.Evidence{}, &problem.Error{Kind: problem.Invalid, Err: err,
			Detail: "The request must be an object with 'via' (a caller's description, as events have it) or 'evidence' (door, selectors, grade, interpreter), and perhaps 'audience' and 'identity'."}
	}
	if (q.Via == "") == (q.Evidence == nil) {
		return q, evidence.Evidence{}, problem.Errorf(problem.Invalid, "One of 'via' and 'evidence' was expected.")
	}
	if q.Identity != "" {
		id, err := resource.Parse(q.Identity)
		if err != nil {
			return q, evidence.Evidence{}, err
		}
		q.Identity = id.String()
	}
	if q.Evidence == nil {
		who, err := evidence.ParseDescription(q.Via)
		return q, who, err
	}
	for _, s := range q.Evidence.Selectors {
		if _, err := evidence.Parse(s); err != nil {
			return q, evidence.Evidence{}, err
		}
	}
	who, err := callerOf(*q.Evidence, "")
	return q, who.Evidence, err
}

// Places are where programs are the resource: its placements on hosts, of
// those that c may read, and how many others there are.
func (f *Fleet) Places(ctx context.Context, c access.Caller, id resource.ID) (out []arm.Place, hidden int, err error) {
	out = []arm.Place{}
	hidden, err = f.placementsOf(ctx, c, id, func(row arm.Resource, p PlacementProperties) {
		out = append(out, arm.Place{ID: row.ID.String(), Host: row.ID.Parent().String(), Door: p.Door, Selectors: append([]string{}, p.Selectors...)})
	})
	return out, hidden, err
}

// explainPlacements holds the caller against where the resource is placed.
func (f *Fleet) explainPlacements(ctx context.Context, c access.Caller, r arm.Resource, who evidence.Evidence) (out []ExplainedPlacement, hidden int, err error) {
	out = []ExplainedPlacement{}
	hidden, err = f.placementsOf(ctx, c, r.ID, func(row arm.Resource, p PlacementProperties) {
		e := ExplainedPlacement{ID: row.ID.String(), Door: p.Door, Why: who.Lacks(selectors(p.Selectors))}
		if p.Door != who.Door {
			e.Why = "the caller came through the door " + problem.Clip(who.Door)
		}
		e.Matches = e.Why == ""
		out = append(out, e)
	})
	return out, hidden, err
}

// placementsOf calls each with the placements of a resource that c may read;
// hidden is how many others there are.
func (f *Fleet) placementsOf(ctx context.Context, c access.Caller, id resource.ID, each func(arm.Resource, PlacementProperties)) (hidden int, err error) {
	all, err := f.Store.BoundTo(ctx, c.Tenant, id.Key(), TypePlacement)
	if err != nil {
		return 0, err
	}
	for _, row := range all {
		d, err := f.Authorize(ctx, c, access.Operation{Action: TypePlacement + "/read", Scope: row.ID})
		if err != nil {
			return 0, err
		}
		if !d.Allowed {
			hidden++
			continue
		}
		p, err := placement(row.Body)
		if err != nil {
			return 0, fmt.Errorf("reading placement %s: %w", row.ID, internal(err))
		}
		each(row, p)
	}
	return hidden, nil
}

func explained(v evidence.Verdict) ExplainedVerdict {
	out := ExplainedVerdict{Allowed: v.Allowed, Rule: v.Rule, Identity: v.Identity, Reason: v.Reason, Would: v.Would, Misses: []ExplainedMiss{}}
	for _, m := range v.Misses {
		out.Misses = append(out.Misses, ExplainedMiss{Rule: m.Rule, Why: m.Why})
	}
	return out
}
