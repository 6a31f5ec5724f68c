package arm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const (
	memberRestrictions = "assignmentRestrictions"
	memberIsolation    = "isolationScope"
)

// restrictions are where a user-assigned identity may be attached, as its
// properties say (Microsoft.ManagedIdentity 2025-05-31-preview).
type restrictions struct {
	// Providers are resource providers ("Microsoft.Compute", all its types) and
	// types ("Microsoft.Web/sites", that one alone); none means all.
	Providers []string `json:"providers"`
	// regional identities go to resources of their own location alone.
	regional bool
	location string
}

// maxProviders bounds the list, which every attachment is held against.
const maxProviders = 64

var provider = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(\.[A-Za-z0-9]+)+(/[A-Za-z][A-Za-z0-9]*)*$`)

// restrictionsOf reads an identity's document, in which nothing may be that is
// not understood: what a misspelt member was to forbid would be allowed.
func restrictionsOf(r Resource) (restrictions, error) {
	var out restrictions
	props := Document(object(Document(r.Body).Member("properties")))
	if raw := props.Member(memberRestrictions); !isNull(raw) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&out); err != nil {
			return out, problem.Errorf(problem.Invalid, "The member 'properties.%s' must be an object with 'providers', a list of strings, and nothing else.", memberRestrictions)
		}
	}
	if len(out.Providers) > maxProviders {
		return out, problem.Errorf(problem.Invalid, "The member 'properties.%s.providers' has %d entries; at most %d are allowed.", memberRestrictions, len(out.Providers), maxProviders)
	}
	for _, p := range out.Providers {
		if !provider.MatchString(p) {
			return out, problem.Errorf(problem.Invalid, "The member 'properties.%s.providers' has '%s'; a resource provider (Microsoft.Compute) or a resource type (Microsoft.Web/sites) was expected.", memberRestrictions, problem.Clip(p))
		}
	}
	var scope string
	raw := props.Member(memberIsolation)
	if !isNull(raw) && (json.Unmarshal(raw, &scope) != nil || !strings.EqualFold(scope, "None") && !strings.EqualFold(scope, "Regional")) {
		return out, problem.Errorf(problem.Invalid, "The member 'properties.%s' is '%s'; \"None\" or \"Regional\" was expected.", memberIsolation, problem.Clip(string(raw)))
	}
	out.regional, out.location = strings.EqualFold(scope, "Regional"), location(r.Body)
	return out, nil
}

func checkRestrictions(_ context.Context, _ *Resource, r *Resource) error {
	_, err := restrictionsOf(*r)
	return err
}

// forbid says why the identity may not be attached to a resource; "" if it may.
func (q restrictions) forbid(on Resource) string {
	if !q.allows(on.ID) {
		return fmt.Sprintf("it is restricted to %s, and this is a %s", strings.Join(q.Providers, ", "), on.ID.Type())
	}
	if is := location(on.Body); q.regional && normal(is) != normal(q.location) {
		return fmt.Sprintf("it is for the location '%s' alone, and this is in '%s'", q.location, is)
	}
	return ""
}

func (q restrictions) allows(on resource.ID) bool {
	if len(q.Providers) == 0 {
		return true
	}
	namespace, _, _ := strings.Cut(on.Type(), "/")
	for _, p := range q.Providers {
		if strings.EqualFold(p, on.Type()) || strings.EqualFold(p, namespace) {
			return true
		}
	}
	return false
}

// mayHold checks, within the write, that an identity may be attached to r.
func mayHold(identity, r Resource) error {
	q, err := restrictionsOf(identity)
	if err != nil {
		// It was checked when it was written. One that is not understood must
		// not count as none.
		return &problem.Error{Kind: problem.Internal, Detail: "internal error", Err: fmt.Errorf("reading the restrictions of %s: %w", identity.ID, err)}
	}
	if why := q.forbid(r); why != "" {
		return problem.Errorf(problem.BadIdentity, "The identity '%s' may not be assigned to '%s': %s.", identity.ID, r.ID, why)
	}
	return nil
}

// maxNamed bounds how many resources an error names.
const maxNamed = 10

// restrictionsHold refuses restrictions that the identity's attachments break:
// a restriction that is written holds of all that there is.
func restrictionsHold(tx Tx, old *Resource, r Resource) error {
	q, err := restrictionsOf(r)
	if err != nil || old == nil || len(q.Providers) == 0 && !q.regional {
		return err
	}
	users, err := tx.AttachedTo(r.ID.Key())
	if err != nil {
		return err
	}
	var bad []string
	n := 0
	for _, u := range users {
		on, err := tx.Resource(u.Key())
		if err != nil {
			return fmt.Errorf("reading what the identity is attached to: %w", err)
		}
		if q.forbid(on) == "" {
			continue
		}
		if n++; n <= maxNamed {
			bad = append(bad, u.String())
		}
	}
	if n == 0 {
		return nil
	}
	more := ""
	if n > len(bad) {
		more = fmt.Sprintf(" and %d more", n-len(bad))
	}
	return problem.Errorf(problem.Conflict, "The identity '%s' is assigned where it may not be by these restrictions: %s%s. Detach it there first.", r.ID.Name(), strings.Join(bad, ", "), more)
}
