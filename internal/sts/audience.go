package sts

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Family is what kind of API a token is for. A surface accepts the audiences
// of its family.
type Family string

// The families.
const (
	ARM        Family = "arm"
	KeyVault   Family = "vault"
	Storage    Family = "storage"
	Graph      Family = "graph"
	Exchange   Family = "exchange"   // a token to be shown as a client assertion
	Registered Family = "registered" // an API that the tenant registered
)

// Audience is an API that tokens can be issued for.
type Audience struct {
	Family Family
	// Value is the token's aud.
	Value string
	// Version is the token's version, the API's choice: 1 or 2.
	Version int
}

// public are the audiences that every tenant knows, by [canonical]; each API
// also by its published application id.
var public = map[string]Family{
	"https://management.azure.com":         ARM,
	"https://management.core.windows.net":  ARM,
	"797f4846-ba00-4fd7-ba43-dac1f8f63013": ARM,
	"https://vault.azure.net":              KeyVault,
	"cfa8b339-82a2-471a-a3c9-0fc0be7a4093": KeyVault,
	"https://storage.azure.com":            Storage,
	"e406a681-f3d4-42a8-90b6-c2b029497af1": Storage,
	"https://graph.microsoft.com":          Graph,
	"00000003-0000-0000-c000-000000000000": Graph,
	"api://azureadtokenexchange":           Exchange,
}

// canonical is how audiences compare: without case and trailing slashes. It is
// for identifiers only: letters outside ASCII can fold to letters of ASCII.
func canonical(aud string) string { return strings.ToLower(strings.TrimRight(aud, "/")) }

// identifier reports whether aud can be an audience at all: printable ASCII
// without spaces, at most 1024 bytes.
func identifier(aud string) bool {
	return len(aud) <= 1024 && strings.IndexFunc(aud, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// account is a storage account's name, or its secondary endpoint's.
var account = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// family returns the family of an audience that is not a tenant's own.
func (s *Service) family(aud string) (Family, bool) {
	if !identifier(aud) {
		return "", false
	}
	c := canonical(aud)
	if f, ok := public[c]; ok {
		return f, true
	}
	switch c {
	case canonical(s.Names.Management()):
		return ARM, true
	case canonical(s.Names.Vaults()):
		return KeyVault, true
	case canonical(s.Names.Graph()):
		return Graph, true
	}
	// A storage account's own name: https://{account}.blob.{suffix}.
	if host, ok := strings.CutPrefix(c, "https://"); ok {
		name, suffix, _ := strings.Cut(host, ".")
		if account.MatchString(name) && (suffix == "blob.core.windows.net" || suffix == "blob."+strings.ToLower(s.Names.Authority())) {
			return Storage, true
		}
	}
	return "", false
}

// audience resolves what a client asked for. [problem.UnknownAudience] carries
// the AADSTS text that clients know.
func (s *Service) audience(ctx context.Context, tenant, asked string) (Audience, error) {
	if asked == "" {
		return Audience{}, problem.Errorf(problem.MissingParameter, "AADSTS900144: The request must contain the following parameter: 'resource' or 'scope'.")
	}
	if !identifier(asked) {
		return Audience{}, problem.Errorf(problem.UnknownAudience, "AADSTS500011: The resource is not an identifier: it is over 1024 bytes long, or has spaces, control characters or letters outside ASCII.")
	}
	if f, ok := s.family(asked); ok {
		version := 1
		if f == Exchange {
			version = 2 // federated credentials name the issuer of version 2
		}
		return Audience{Family: f, Value: asked, Version: version}, nil
	}
	api, err := s.Directory.Store.API(ctx, tenant, asked)
	if problem.Is(err, problem.UnknownAudience) {
		return Audience{}, problem.Errorf(problem.UnknownAudience,
			"AADSTS500011: The resource principal named %s was not found in the tenant %s. Check the spelling, or register the API (Innate.Directory/applications) with this identifier URI.", asked, tenant)
	}
	if err != nil {
		return Audience{}, fmt.Errorf("looking up the audience: %w", err)
	}
	if api.TokenVersion == 2 {
		return Audience{Family: Registered, Value: api.Client, Version: 2}, nil
	}
	return Audience{Family: Registered, Value: asked, Version: 1}, nil
}

// foreign are the domains of the field's own APIs.
var foreign = []string{"azure.com", "azure.net", "windows.net", "microsoft.com", "microsoftonline.com", "azconfig.io"}

// Reserved reports whether a tenant may not register this audience: it is
// public, or ours, or some reader could take it for one that is.
func (s *Service) Reserved(aud string) bool {
	if _, ok := s.family(aud); ok || !identifier(aud) {
		return true
	}
	u, err := url.Parse(canonical(aud))
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(aud, "?#\\%") {
		return true
	}
	host := strings.TrimRight(u.Hostname(), ".")
	if _, ok := public[host]; ok { // a public API's application id, as api://{id}
		return true
	}
	for label := range strings.SplitSeq(host, ".") {
		// Punycode of nothing but ASCII: lenient readers make plain letters of it.
		if strings.HasPrefix(label, "xn--") && strings.HasSuffix(label, "-") {
			return true
		}
	}
	return slices.ContainsFunc(append([]string{strings.ToLower(s.Names.Domain)}, foreign...), func(d string) bool {
		return host == d || strings.HasSuffix(host, "."+d)
	})
}
