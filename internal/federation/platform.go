package federation

import (
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// platform is what is known of an issuer that issues to strangers: everybody
// can have a token of it, so an expression must say whose. The field documents
// the claims of each (flexible federated identity credentials).
type platform struct {
	name string
	// wild are the claims that can be matched with wildcards; exact those that
	// can only be compared.
	wild, exact []string
	// oneOf are exact claims of which one must be compared: they name an owner
	// for ever, where a name can be taken by another.
	oneOf []string
	// owner is how a subject begins, up to whose it is; ends is what ends the
	// owner's name. "" where oneOf says whose it is.
	owner, ends string
}

var platforms = map[string]platform{
	"https://token.actions.githubusercontent.com": {
		name: "GitHub", wild: []string{"sub", "job_workflow_ref"}, exact: []string{"repository_id", "repository_owner_id"},
		oneOf: []string{"repository_id", "repository_owner_id"},
	},
	"https://gitlab.com":          {name: "GitLab", wild: []string{"sub"}, owner: "project_path:", ends: "/"},
	"https://app.terraform.io":    {name: "Terraform Cloud", wild: []string{"sub"}, owner: "organization:", ends: ":"},
	"https://app.eu.terraform.io": {name: "Terraform Cloud", wild: []string{"sub"}, owner: "organization:", ends: ":"},
}

// platformOf is the platform of an issuer; of any other it is one that asks
// nothing.
func platformOf(issuer string) platform { return platforms[issuer] }

// check checks an expression against what the platform's tokens can be told by.
func (p platform) check(terms []term) error {
	if p.name == "" {
		return nil
	}
	bad := func(format string, args ...any) error {
		return problem.Errorf(problem.Invalid, "The member 'properties.claimsMatchingExpression.value' "+format, args...)
	}
	sub, named := false, len(p.oneOf) == 0
	for _, t := range terms {
		switch {
		case slices.Contains(p.wild, t.claim):
		case slices.Contains(p.exact, t.claim) && t.exact:
		case slices.Contains(p.exact, t.claim):
			return bad("compares '%s' with wildcards; for %s only eq is possible.", t.claim, p.name)
		default:
			return bad("is about the claim '%s'; for %s there are: %s.", problem.Clip(t.claim), p.name, strings.Join(slices.Concat(p.wild, p.exact), ", "))
		}
		named = named || slices.Contains(p.oneOf, t.claim)
		if t.claim != "sub" {
			continue
		}
		sub = true
		if p.owner != "" && !p.owned(t) {
			return bad("compares 'sub' with '%s', which does not say whose token it is: everybody can have one of %s. It must begin with %s, a name without wildcards and %s", problem.Clip(t.pattern), p.name, p.owner, p.ends)
		}
	}
	if !sub {
		return bad("is not about the claim 'sub', and for %s it must be.", p.name)
	}
	if !named {
		return bad("is about none of %s; for %s it must be about one: a name can be taken by another.", strings.Join(p.oneOf, ", "), p.name)
	}
	return nil
}

// owned reports whether the term fixes the owner in the subject.
func (p platform) owned(t term) bool {
	rest, ok := strings.CutPrefix(t.pattern, p.owner)
	name, _, ends := strings.Cut(rest, p.ends)
	return ok && ends && name != "" && (t.exact || !strings.ContainsAny(name, "*?"))
}
