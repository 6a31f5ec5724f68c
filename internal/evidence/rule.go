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
	enforced := make([]Rule, 0, len(rules))
	for _, r := range rules {
		if r.Enforce {
			enforced = append(enforced, r)
		}
	}
	v := Verdict{Allowed: true}
	if len(enforced) > 0 {
		v = decide(enforced, ev, want)
	}
	if len(enforced) < len(rules) {
		all := decide(rules, ev, want)
		if v.Allowed {
			v.Would = all.Reason
		}
		v.Misses = all.Misses
	}
	return v
}

// decide takes every rule as enforced. Of those that match, the one with the
// most selectors counts.
func decide(rules []Rule, ev Evidence, want Want) Verdict {
	var v Verdict
	var best *Rule
	tied := false
	for i := range rules {
		r := &rules[i]
		if why := r.misses(ev, want); why != "" {
			v.Misses = append(v.Misses, Miss{r.Name, why})
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

// misses says why r does not allow it; "" if it does.
func (r *Rule) misses(ev Evidence, want Want) string {
	if len(r.Selectors) == 0 {
		return "it has no selector"
	}
	if why := ev.Lacks(r.Selectors); why != "" {
		return why
	}
	if ev.Grade < r.Grade {
		return "it asks for evidence of grade " + r.Grade.String() + ", and this is " + ev.Grade.String()
	}
	if len(r.Audiences) > 0 && !slices.ContainsFunc(r.Audiences, func(a string) bool { return sameAudience(a, want.Audience) }) {
		return "it is not for this audience"
	}
	if r.Identity != "" && want.Identity != "" && !strings.EqualFold(r.Identity, want.Identity) {
		return "it gives another identity"
	}
	return ""
}

// sameAudience compares audiences as a rule means them: without case and
// without a trailing slash, which some SDKs add.
func sameAudience(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
