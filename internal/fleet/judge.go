package fleet

import (
	"context"
	"strings"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Bounds of the evidence that a host sends.
const (
	// maxEvidence bounds a caller's description, in bytes.
	maxEvidence = 4096
	// maxFacts bounds the selectors of a caller, and factBytes all their text.
	maxFacts  = 512
	factBytes = 64 << 10
)

// caller is what a host says of a local caller. It is the host's word: a host
// can say of its own programs what it likes, and of no other host's.
type caller struct {
	evidence.Evidence
	// said is false where the host sent no evidence but the words.
	said  bool
	words string
}

// callerOf reads what a host says of a caller. The words on record are made
// here from what was judged, not taken from the host.
func callerOf(e fleetapi.Evidence, words string) (caller, error) {
	c := caller{words: words}
	if len(words) > maxEvidence {
		return c, problem.Errorf(problem.TooLarge, "the caller's evidence is over %d bytes long", maxEvidence)
	}
	if e.Door == "" && e.Grade == "" && len(e.Selectors) == 0 && !e.Interpreter {
		return c, nil // an agent that knows of no caller rules
	}
	size := len(e.Door)
	for _, s := range e.Selectors {
		size += len(s)
		c.Selectors = append(c.Selectors, evidence.Selector(s))
	}
	if len(e.Selectors) > maxFacts || size > factBytes {
		return c, problem.Errorf(problem.TooLarge, "the caller's evidence has over %d selectors or %d bytes", maxFacts, factBytes)
	}
	g, err := evidence.ParseGrade(e.Grade)
	if err != nil {
		return c, err
	}
	c.said, c.Door, c.Grade, c.Interpreter = true, e.Door, g, e.Interpreter
	c.words = c.String()
	if len(c.words) > maxEvidence {
		return c, problem.Errorf(problem.TooLarge, "the caller's evidence is over %d bytes long", maxEvidence)
	}
	return c, nil
}

// admits checks that the placement is about this caller.
func (p PlacementProperties) admits(placement string, c caller) error {
	if !c.said {
		return nil // the agent compared them, as all did before they sent their evidence
	}
	if p.Door != c.Door {
		return problem.Errorf(problem.CallerRefused, "the placement %s is for another door than the caller came through", placement)
	}
	if why := c.Lacks(selectors(p.Selectors)); why != "" {
		return problem.Errorf(problem.CallerRefused, "the placement %s is not about this caller: %s", placement, why)
	}
	return nil
}

func selectors(in []string) []evidence.Selector {
	out := make([]evidence.Selector, len(in))
	for i, s := range in {
		out[i] = evidence.Selector(s)
	}
	return out
}

// judgement is a caller's request held against the rules of a resource.
type judgement struct {
	workload resource.ID
	rules    []evidence.Rule
	caller   caller
	want     evidence.Want
	verdict  evidence.Verdict
}

// judge holds a request against the rules as they are now. An agent that sends
// no evidence has, where a rule is enforced, nothing to be let through by.
func (f *Fleet) judge(ctx context.Context, h Host, workload resource.ID, c caller, want evidence.Want) (judgement, error) {
	rules, err := f.rules(ctx, h.Tenant, workload)
	j := judgement{workload: workload, rules: rules, caller: c, want: want}
	if err != nil {
		return j, err
	}
	return j, j.decide()
}

func (j *judgement) decide() error {
	j.verdict = evidence.Decide(j.rules, j.caller.Evidence, j.want)
	if j.verdict.Allowed {
		return nil
	}
	return problem.Errorf(problem.CallerRefused, "%s", j.refusal())
}

// refusal says why the rules refuse it.
func (j *judgement) refusal() string {
	if !j.caller.said {
		return j.verdict.Reason + " (the agent of this host sends no evidence: update it)"
	}
	return j.verdict.Reason
}

// identity is what the token service is asked for: what the program named, or
// else what the rule gives.
func (j *judgement) identity(named directory.Selector) directory.Selector {
	holder := directory.Holder(j.workload)
	switch given := j.verdict.Identity; {
	case given == "" && !holder.Equal(j.workload) && strings.EqualFold(named.Resource, holder.String()):
		return directory.Selector{System: true} // an agent that a rule of the set gave it
	case given == "":
		return named
	case strings.EqualFold(given, holder.String()):
		return directory.Selector{System: true}
	default:
		return directory.Selector{Resource: given}
	}
}

// check decides again when the identity is known. It returns what is on record.
func (j *judgement) check(p directory.Principal) (string, error) {
	j.want.Named, j.want.Identity = true, p.Resource.String()
	err := j.decide()
	return j.reason(), err
}

// maxMisses bounds the rules that a record tells of.
const maxMisses = 10

// reason is what the record says of the rules. Why each of them does not match
// is there and not in the answer: it would tell a program what to pretend.
func (j *judgement) reason() string {
	v := j.verdict
	var parts []string
	switch {
	case !v.Allowed:
		parts = append(parts, j.refusal())
	case v.Rule != "":
		parts = append(parts, "allowed by caller rule "+v.Rule)
	}
	if v.Would != "" {
		parts = append(parts, would(v.Would))
	}
	if !v.Allowed || v.Would != "" {
		for i, m := range v.Misses {
			if i == maxMisses {
				parts = append(parts, "and more rules")
				break
			}
			parts = append(parts, "rule "+m.Rule+": "+m.Why)
		}
	}
	return clip(strings.Join(parts, "; "))
}

func would(why string) string {
	return "would be refused if the rules in audit mode were enforced: " + why
}
