package evidence

import (
	"slices"
	"strings"
)

// Rule is a caller rule: on its resource, callers that match it may have an
// identity for some audiences. With no rule that is enforced, any caller of a
// placement may have any identity of the resource; with one or more, everything
// that none of them allows is refused.
type Rule struct {
	// Name is the rule's name on its resource.
	Name string
	// Selectors must all hold.
	Selectors []Selector
	// Identity is the resource ID of the one identity that the rule gives (the
	// resource's own for its system-assigned one); "" means any that it has.
	Identity string
	// Audiences are what the rule is for; none means every audience.
	Audiences []string
	// Grade is how good the evidence must be at least.
	Grade Grade
	// Enforce false makes the rule count as absent, but for the record.
	Enforce bool
}

// Want is what a program asks for.
type Want struct {
	// Audience is the API as asked for.
	Audience string
	// Named says that the program named an identity, Identity which, by its
	// resource ID; "" while that is not known.
	Named    bool
	Identity string
}

// Miss is why a rule does not allow something.
type Miss struct {
	Rule, Why string
}

// Verdict is what the rules of a resource say.
type Verdict struct {
	Allowed bool
	// Rule is the name of the rule that allows it; "" if none is enforced.
	Rule string
	// Identity is the resource ID of what a program that names none is given;
	// "" leaves it to the resource.
	Identity string
	// Reason says why it is refused; "" if it is not.
	Reason string
	// Would says why it would be refused if the rules in audit mode were
	// enforced, "" if it would not be.
	Would string
	// Misses are the rules that do not allow it, in their order.
	Misses []Miss
}

// Decide judges what a caller wants by the rules of a resource. It is asked
// again when the identity is known.
func Decide(rules []Rule, ev Evidence, want Want) Verdict {
	return decide(rules, ev, want, true)
}

// Judge is [Decide] without the misses, for every request: it makes no text
// about rules that are none of the caller's.
func Judge(rules []Rule, ev Evidence, want Want) Verdict {
	return decide(rules, ev, want, false)
}

func decide(rules []Rule, ev Evidence, want Want, misses bool) Verdict {
	enforced := 0
	for i := range rules {
		if rules[i].Enforce {
			enforced++
		}
	}
	v := Verdict{Allowed: true}
	if enforced > 0 {
		v = choose(rules, true, ev, want, misses)
	}
	if enforced < len(rules) {
		all := choose(rules, false, ev, want, misses)
		if v.Allowed {
			v.Would = all.Reason
		}
		v.Misses = all.Misses
	}
	return v
}

// choose takes every rule as enforced, or leaves out those that are not. Of
// those that match, the one with the most selectors counts.
func choose(rules []Rule, enforced bool, ev Evidence, want Want, misses bool) Verdict {
	var v Verdict
	var best *Rule
	tied := false
	for i := range rules {
		r := &rules[i]
		if enforced && !r.Enforce {
			continue
		}
		if f, s := r.flaw(ev, want); f != flawless {
			if misses {
				v.Misses = append(v.Misses, Miss{r.Name, r.say(f, s, ev)})
			}
			continue
		}
		switch {
		case best == nil || len(r.Selectors) > len(best.Selectors):
			best, tied = r, false
		case len(r.Selectors) == len(best.Selectors) && !strings.EqualFold(r.Identity, best.Identity):
			tied = true
		}
	}
	switch {
	case best == nil:
		v.Reason = "no caller rule of the resource allows it"
	case tied && !want.Named:
		v.Reason = "several caller rules match equally well and give different identities: name one in the request"
	default:
		v.Allowed, v.Rule = true, best.Name
		if !want.Named {
			v.Identity = best.Identity
		}
	}
	return v
}

// What else can be wrong between a rule and a request.
const (
	flawEmpty flaw = iota + 100
	flawGrade
	flawAudience
	flawIdentity
)

// flaw finds why r does not allow it.
func (r *Rule) flaw(ev Evidence, want Want) (flaw, Selector) {
	if len(r.Selectors) == 0 {
		return flawEmpty, ""
	}
	if f, s := ev.flaw(r.Selectors); f != flawless {
		return f, s
	}
	switch {
	case ev.Grade < r.Grade:
		return flawGrade, ""
	case len(r.Audiences) > 0 && !slices.ContainsFunc(r.Audiences, func(a string) bool { return sameAudience(a, want.Audience) }):
		return flawAudience, ""
	case r.Identity != "" && want.Identity != "" && !strings.EqualFold(r.Identity, want.Identity):
		return flawIdentity, ""
	}
	return flawless, ""
}

func (r *Rule) say(f flaw, s Selector, ev Evidence) string {
	switch f {
	case flawEmpty:
		return "it has no selector"
	case flawGrade:
		return "it asks for evidence of grade " + r.Grade.String() + ", and this is " + ev.Grade.String()
	case flawAudience:
		return "it is not for this audience"
	case flawIdentity:
		return "it gives another identity"
	}
	return f.say(s)
}

// sameAudience compares audiences as a rule means them: without case and
// without a trailing slash, which some SDKs add.
func sameAudience(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
