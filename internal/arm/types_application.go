package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

// ApplicationProperties are the properties of an Innate.Directory/applications
// resource: an API of the tenant's own, which tokens can be for.
type ApplicationProperties struct {
	// IdentifierURIs are the audiences; each is one application's alone.
	IdentifierURIs []string `json:"identifierUris"`
	// AccessTokenVersion is 1 (the default; aud is the URI) or 2 (aud is the
	// application's client id).
	AccessTokenVersion int `json:"accessTokenVersion"`
}

func application(reserved func(string) bool) *Type {
	return &Type{
		Name: "Innate.Directory/applications", OwnPrincipal: directory.Application, NoLocation: true,
		NamePattern: names, NameRule: namesRule, Computed: []string{"appId", "principalId"},
		Check: func(_ context.Context, _ *Resource, r *Resource) error {
			_, err := applicationProperties(*r, reserved)
			return err
		},
		Written: func(tx Tx, r Resource) error {
			p, err := applicationProperties(r, reserved)
			if err != nil {
				return err
			}
			return registerAPIs(tx, r, p)
		},
		View: func(_ Resource, own directory.Principal, p map[string]any) {
			p["appId"], p["principalId"] = own.Client, own.ID
		},
	}
}

// registerAPIs makes the application's audiences what its properties say. One
// that changes none leaves no change: every agent drops its tokens for one.
func registerAPIs(tx Tx, r Resource, p ApplicationProperties) error {
	own, err := tx.PrincipalOf(r.ID.Key())
	if err != nil {
		return err
	}
	have, err := tx.APIs(r.ID.Key())
	if err != nil {
		return err
	}
	var was, is []string
	for _, a := range have {
		was = append(was, fmt.Sprint(a.TokenVersion, " ", a.Audience))
	}
	for _, aud := range p.IdentifierURIs {
		is = append(is, fmt.Sprint(p.AccessTokenVersion, " ", aud))
	}
	slices.Sort(was)
	slices.Sort(is)
	if slices.Equal(was, slices.Compact(is)) {
		return nil
	}
	if err := tx.DeleteAPIs(r.ID.Key()); err != nil {
		return err
	}
	for _, aud := range p.IdentifierURIs {
		api := directory.API{Tenant: r.Tenant, Audience: aud, Client: own.Client, TokenVersion: p.AccessTokenVersion, Resource: r.ID}
		if err := tx.PutAPI(api); problem.Is(err, problem.Exists) {
			return problem.Errorf(problem.Exists, "The identifier URI '%s' is another application's.", aud)
		} else if err != nil {
			return err
		}
	}
	return nil
}

var uri = regexp.MustCompile(`^(https|api)://[A-Za-z0-9][A-Za-z0-9._~:/-]{0,250}$`)

func applicationProperties(r Resource, reserved func(string) bool) (ApplicationProperties, error) {
	var p ApplicationProperties
	if raw := Document(r.Body).Member("properties"); !isNull(raw) {
		if err := json.Unmarshal(raw, &p); err != nil {
			return p, problem.Errorf(problem.Invalid, "The member 'properties' needs 'identifierUris' (strings) and may have 'accessTokenVersion' (1 or 2).")
		}
	}
	if p.AccessTokenVersion == 0 {
		p.AccessTokenVersion = 1
	}
	if p.AccessTokenVersion != 1 && p.AccessTokenVersion != 2 {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.accessTokenVersion' is %d; 1 or 2 was expected.", p.AccessTokenVersion)
	}
	if len(p.IdentifierURIs) == 0 || len(p.IdentifierURIs) > 20 {
		return p, problem.Errorf(problem.Invalid, "The member 'properties.identifierUris' has %d entries; 1 to 20 were expected.", len(p.IdentifierURIs))
	}
	for _, u := range p.IdentifierURIs {
		if !uri.MatchString(u) || strings.HasSuffix(u, "/.default") {
			return p, problem.Errorf(problem.Invalid, "The identifier URI '%s' is not of the form api://name or https://name.", problem.Clip(u))
		}
		if reserved(u) {
			return p, problem.Errorf(problem.Invalid, "The identifier URI '%s' belongs to a public API or to this installation; choose one of your own.", u)
		}
	}
	return p, nil
}
