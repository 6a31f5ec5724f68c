package sts

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// Handler serves login.{domain}:
//
//	GET  /{tenant}/v2.0/.well-known/openid-configuration    (and without v2.0: version 1)
//	GET  /{tenant}/discovery/v2.0/keys                      (and /discovery/keys)
//	GET  /{tenant}/discovery/metadata-ca.pem                whom to trust for attested documents
//	GET  /common/discovery/instance
//	POST /{tenant}/oauth2/v2.0/token                        (and /oauth2/token: version 1)
func (s *Service) Handler(log *slog.Logger) http.Handler {
	surface := &web.Surface{Name: "login", Log: log, Write: s.writeProblem}
	return surface.Handle(func(w http.ResponseWriter, r *http.Request) error {
		segs, ok := web.Path(r)
		if !ok || len(segs) < 2 {
			return notFound(r)
		}
		tenant, rest := segs[0], strings.ToLower(strings.Join(segs[1:], "/"))
		switch rest {
		case "oauth2/v2.0/token", "oauth2/token":
			return s.serveToken(w, r, tenant, rest == "oauth2/token")
		case "v2.0/.well-known/openid-configuration", ".well-known/openid-configuration":
			return s.serveMetadata(w, r, tenant, strings.HasPrefix(rest, "v2.0/"))
		case "discovery/v2.0/keys", "discovery/keys":
			return s.serveKeys(w, r, tenant)
		case "discovery/metadata-ca.pem":
			return s.serveMetadataCA(w, r, tenant)
		case "discovery/instance":
			return s.serveInstance(w, r)
		}
		return notFound(r)
	})
}

func notFound(r *http.Request) error {
	return problem.Errorf(problem.NotFound, "AADSTS900439: there is nothing at %s %s; the token endpoint is /{tenant}/oauth2/v2.0/token", r.Method, problem.Clip(r.URL.Path))
}

func method(r *http.Request, want string) error {
	if r.Method == want || want == http.MethodGet && r.Method == http.MethodHead {
		return nil
	}
	return problem.Errorf(problem.MethodNotAllowed, "AADSTS900561: the endpoint only accepts %s requests; received a %s request", want, r.Method)
}

// tenantNamed resolves the tenant in a path.
func (s *Service) tenantNamed(r *http.Request, name string) (string, error) {
	switch strings.ToLower(name) {
	case "common", "organizations", "consumers":
		return "", problem.Errorf(problem.Invalid, "AADSTS50059: No tenant-identifying information found in the request: use the tenant's id instead of %q", name)
	}
	if !guid(name) {
		return "", unknownTenant(name)
	}
	t, err := s.Directory.Store.Tenant(r.Context(), strings.ToLower(name))
	if problem.Is(err, problem.UnknownTenant) {
		return "", unknownTenant(name)
	}
	if err != nil {
		return "", fmt.Errorf("reading tenant %s: %w", name, err)
	}
	return t.ID, nil
}

// tenantOf resolves the tenant in the path of a discovery document. Programs
// that came by the public cloud's names also ask about "common": that is the
// only tenant, if there is one only.
func (s *Service) tenantOf(r *http.Request, name string) (string, error) {
	any := strings.EqualFold(name, "common") || strings.EqualFold(name, "organizations")
	if !any || !s.Names.Serves(web.HostName(r)) {
		return s.tenantNamed(r, name)
	}
	all, err := s.Directory.Store.Tenants(r.Context())
	if err != nil {
		return "", fmt.Errorf("reading the tenants: %w", err)
	}
	if len(all) != 1 {
		return s.tenantNamed(r, name)
	}
	return all[0].ID, nil
}

// guid reports whether name is a GUID in the form that tenants' ids have.
func guid(name string) bool {
	_, err := uuid.Parse(name)
	return err == nil && len(name) == 36
}

func unknownTenant(name string) error {
	return problem.Errorf(problem.UnknownTenant, "AADSTS90002: Tenant '%s' not found. Check to make sure you have the correct tenant ID.", problem.Clip(name))
}

func (s *Service) serveToken(w http.ResponseWriter, r *http.Request, tenant string, v1 bool) error {
	if err := method(r, http.MethodPost); err != nil {
		return err
	}
	id, err := s.tenantNamed(r, tenant)
	if err != nil {
		return err
	}
	req, g, err := readRequest(r, v1)
	if err != nil {
		// Refused, and recorded, as what cannot be granted is.
		g = func(context.Context, *Service, Request) (subject, error) { return subject{}, err }
	}
	req.Tenant, req.Asked = id, web.HostName(r)
	out, err := s.Issue(r.Context(), access.Caller{Tenant: id, Request: web.RequestID(r.Context())}, req, g)
	if err != nil {
		return err
	}
	return s.writeToken(w, out, v1)
}

// readRequest reads what a client posted.
func readRequest(r *http.Request, v1 bool) (Request, grant, error) {
	f, err := readForm(r)
	if err != nil {
		return Request{}, nil, err
	}
	if f.GrantType == "" {
		return Request{}, nil, problem.Errorf(problem.MissingParameter, "AADSTS900144: The request body must contain the following parameter: 'grant_type'.")
	}
	g, ok := grants[f.GrantType]
	if !ok {
		return Request{}, nil, problem.Errorf(problem.UnsupportedGrant, "AADSTS70003: The app requested an unsupported grant type '%s'. Supported: client_credentials.", problem.Clip(f.GrantType))
	}
	aud, err := f.audience(v1)
	return Request{Audience: aud, Form: &f}, g, err
}

// tokenAnswer is the token endpoint's success (RFC 6749 section 5.1).
type tokenAnswer struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	ExtExpiresIn int64  `json:"ext_expires_in"`
	AccessToken  string `json:"access_token"`
}

// tokenAnswerV1 is version 1's, in which all numbers are text.
type tokenAnswerV1 struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in,string"`
	ExtExpiresIn int64  `json:"ext_expires_in,string"`
	ExpiresOn    int64  `json:"expires_on,string"`
	NotBefore    int64  `json:"not_before,string"`
	Resource     string `json:"resource"`
	AccessToken  string `json:"access_token"`
}

func (s *Service) writeToken(w http.ResponseWriter, out Issued, v1 bool) error {
	life := int64(out.Expires.Sub(s.Now()).Seconds())
	w.Header().Set("Cache-Control", "no-store, no-cache")
	w.Header().Set("Pragma", "no-cache")
	if v1 {
		return web.WriteJSON(w, http.StatusOK, tokenAnswerV1{
			TokenType: "Bearer", ExpiresIn: life, ExtExpiresIn: life, ExpiresOn: out.Expires.Unix(), NotBefore: out.NotBefore.Unix(),
			Resource: out.Resource, AccessToken: out.Token,
		})
	}
	return web.WriteJSON(w, http.StatusOK, tokenAnswer{TokenType: "Bearer", ExpiresIn: life, ExtExpiresIn: life, AccessToken: out.Token})
}

// metadata is the discovery document (OpenID Connect Discovery 1.0 section 3).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	Algs                  []string `json:"id_token_signing_alg_values_supported"`
	Scopes                []string `json:"scopes_supported"`
	Grants                []string `json:"grant_types_supported"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	Claims                []string `json:"claims_supported"`
	TenantRegion          string   `json:"tenant_region_scope"`
	CloudInstance         string   `json:"cloud_instance_name"`
}

func (s *Service) serveMetadata(w http.ResponseWriter, r *http.Request, tenant string, v2 bool) error {
	if err := method(r, http.MethodGet); err != nil {
		return err
	}
	id, err := s.tenantOf(r, tenant)
	if err != nil {
		return err
	}
	names := s.Names.Asked(web.HostName(r))
	base, ver, keys, issuer := names.Login()+"/"+id, "", "/discovery/keys", issuerV1(names, id)
	if v2 {
		ver, keys, issuer = "/v2.0", "/discovery/v2.0/keys", issuerV2(names, id)
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	return web.WriteJSON(w, http.StatusOK, metadata{
		Issuer: issuer, AuthorizationEndpoint: base + "/oauth2" + ver + "/authorize", TokenEndpoint: base + "/oauth2" + ver + "/token",
		JWKSURI: base + keys, ResponseTypes: []string{"none"}, ResponseModes: []string{"query", "fragment", "form_post"},
		SubjectTypes: []string{"pairwise"}, Algs: []string{"RS256"}, Scopes: []string{"openid"}, Grants: []string{"client_credentials"},
		AuthMethods:  []string{"client_secret_post", "private_key_jwt", "client_secret_basic"},
		Claims:       []string{"aud", "iss", "iat", "nbf", "exp", "oid", "sub", "tid", "appid", "azp", "uti", "ver", "idtyp", "xms_mirid", "innate_caller", "innate_host", "innate_placement"},
		TenantRegion: "local", CloudInstance: s.Names.Authority(),
	})
}

func (s *Service) serveKeys(w http.ResponseWriter, r *http.Request, tenant string) error {
	if err := method(r, http.MethodGet); err != nil {
		return err
	}
	id, err := s.tenantOf(r, tenant)
	if err != nil {
		return err
	}
	set, err := s.Ring.JWKS(r.Context(), id)
	if err == nil && len(set.Keys) == 0 {
		// Before the first token: whoever keeps an empty set would refuse it.
		if err = s.Ring.Tend(r.Context(), id); err == nil {
			set, err = s.Ring.JWKS(r.Context(), id)
		}
	}
	if err != nil {
		return fmt.Errorf("reading the key set: %w", err)
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	return web.WriteJSON(w, http.StatusOK, set)
}

// serveInstance answers clients that ask whether an authority is genuine.
func (s *Service) serveInstance(w http.ResponseWriter, r *http.Request) error {
	if err := method(r, http.MethodGet); err != nil {
		return err
	}
	names, tenant, ok := s.instance(r.URL.Query().Get("authorization_endpoint"))
	if !ok {
		return problem.Errorf(problem.UnknownTenant, "AADSTS50049: Unknown or invalid instance: authorization_endpoint must begin with %s/", s.Names.Asked(web.HostName(r)).Login())
	}
	id, err := s.tenantOf(r, tenant)
	if err != nil {
		return err
	}
	hosts := names.Logins()
	return web.WriteJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": names.Login() + "/" + id + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  []map[string]any{{"preferred_network": hosts[0], "preferred_cache": hosts[0], "aliases": hosts}},
	})
}

// instance finds which of our names an authority goes by, and its tenant. A
// client asks login.microsoftonline.com about authorities that it does not know,
// and there we vouch for our own name too.
func (s *Service) instance(endpoint string) (names web.Names, tenant string, ok bool) {
	rest, ok := strings.CutPrefix(endpoint, "https://")
	if !ok {
		return names, "", false
	}
	host, path, _ := strings.Cut(rest, "/")
	names = s.Names.Asked(host)
	tenant, _, _ = strings.Cut(path, "/")
	return names, tenant, slices.Contains(names.Logins(), host)
}

// serveMetadataCA serves the certificate of the authority behind the tenant's
// attested documents.
func (s *Service) serveMetadataCA(w http.ResponseWriter, r *http.Request, tenant string) error {
	if err := method(r, http.MethodGet); err != nil {
		return err
	}
	id, err := s.tenantNamed(r, tenant)
	if err != nil {
		return err
	}
	ca, err := s.Ring.Authority(r.Context(), id, keyring.KindMetadataCA, s.Names.Domain)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(ca.PEM()) // who went away needs no answer
	return nil
}
