package sts_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
)

const (
	metadataV1 = `{"issuer":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/",` +
		`"authorization_endpoint":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/oauth2/authorize",` +
		`"token_endpoint":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/oauth2/token",` +
		`"jwks_uri":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/discovery/keys",` + metadataRest
	metadataV2 = `{"issuer":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/v2.0",` +
		`"authorization_endpoint":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/oauth2/v2.0/authorize",` +
		`"token_endpoint":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/oauth2/v2.0/token",` +
		`"jwks_uri":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/discovery/v2.0/keys",` + metadataRest
	metadataRest = `"response_types_supported":["none"],"response_modes_supported":["query","fragment","form_post"],` +
		`"subject_types_supported":["pairwise"],"id_token_signing_alg_values_supported":["RS256"],"scopes_supported":["openid"],` +
		`"grant_types_supported":["client_credentials"],` +
		`"token_endpoint_auth_methods_supported":["client_secret_post","private_key_jwt","client_secret_basic"],` +
		`"claims_supported":["aud","iss","iat","nbf","exp","oid","sub","tid","appid","azp","uti","ver","idtyp","xms_mirid","innate_caller","innate_host","innate_placement"],` +
		`"tenant_region_scope":"local","cloud_instance_name":"innate.test:8443"}`
)

func TestDiscoveryDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, want := range map[string]string{
		"/.well-known/openid-configuration":       metadataV1,
		"/v2.0/.well-known/openid-configuration":  metadataV2,
		"/v2.0/.well-known/openid-configuration?": metadataV2, // Go's client
		"/V2.0/.Well-Known/OpenID-Configuration":  metadataV2,
	} {
		// The issuer is compared as text: it has one spelling, however the tenant was asked for.
		for _, tenant := range []string{tenantA, strings.ToUpper(tenantA)} {
			a := w.do(t, http.MethodGet, "/"+tenant+path, "")
			if diff := cmp.Diff(want, a.text); diff != "" || a.status != 200 {
				t.Errorf("GET /%s%s = %d (-want +got):\n%s", tenant, path, a.status, diff)
			}
			if got := a.header.Get("Cache-Control"); got != "public, max-age=300" {
				t.Errorf("GET /%s%s: Cache-Control %q", tenant, path, got)
			}
			var doc map[string]any
			a.json(t, &doc)
			for _, member := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"} {
				s, _ := doc[member].(string)
				u, err := url.Parse(s)
				if err != nil || u.Scheme+"://"+u.Host != login {
					t.Errorf("GET /%s%s: %s = %v, want it at the authority %s", tenant, path, member, doc[member], login)
				}
			}
		}
	}
}

func TestUnknownTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, v := range []string{"", "/v2.0"} {
		meta := v + "/.well-known/openid-configuration"
		w.do(t, http.MethodGet, "/"+nowhere+meta, "").problem(t, 400, 90002, "invalid_tenant")
		w.do(t, http.MethodGet, "/contoso.test"+meta, "").problem(t, 400, 90002, "invalid_tenant")
		w.do(t, http.MethodGet, "/common"+meta, "").problem(t, 400, 50059, "invalid_request")
		w.do(t, http.MethodGet, "/organizations"+meta, "").problem(t, 400, 50059, "invalid_request")
		w.do(t, http.MethodGet, "/"+nowhere+"/discovery"+v+"/keys", "").problem(t, 400, 90002, "invalid_request")
	}
	long := w.do(t, http.MethodGet, "/"+strings.Repeat("x", 5000)+"/v2.0/.well-known/openid-configuration", "")
	if long.problem(t, 400, 90002, "invalid_tenant"); len(long.text) > 2000 {
		t.Errorf("the answer repeats %d bytes", len(long.text))
	}
}

// TestKeysAreThereBeforeTheFirstToken: who reads the key set first keeps it for
// a while, and would refuse the first tokens if it were empty.
func TestKeysAreThereBeforeTheFirstToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var sets []string
	for _, path := range []string{"/discovery/v2.0/keys", "/discovery/keys", "/Discovery/V2.0/Keys/"} {
		a := w.do(t, http.MethodGet, "/"+tenantA+path, "")
		if a.status != 200 || a.header.Get("Cache-Control") != "public, max-age=300" {
			t.Errorf("GET %s = %d %v", path, a.status, a.header)
		}
		sets = append(sets, a.text)
	}
	var set struct {
		Keys []struct {
			Kty, Use, Kid, Alg, N, E, X5t string
			X5c                           []string
		}
	}
	if err := json.Unmarshal([]byte(sets[0]), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || set.Keys[0].Kid == "" || set.Keys[0].X5t != set.Keys[0].Kid || len(set.Keys[0].X5c) != 1 {
		t.Fatalf("before the first token the key set is %s", sets[0])
	}
	if sets[1] != sets[0] || sets[2] != sets[0] {
		t.Error("v1 and v2 publish different keys")
	}
	if strings.Contains(sets[0], `"d"`) || strings.Contains(sets[0], `"p"`) {
		t.Errorf("the key set holds a private key: %s", sets[0])
	}
	if b := w.do(t, http.MethodGet, "/"+tenantB+"/discovery/keys", ""); strings.Contains(b.text, set.Keys[0].Kid) {
		t.Error("two tenants share a key")
	}
}

func TestInstanceDiscovery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(endpoint string) answer {
		return w.do(t, http.MethodGet, "/common/discovery/instance?api-version=1.1&authorization_endpoint="+url.QueryEscape(endpoint), "")
	}
	a := ask(login + "/" + strings.ToUpper(tenantA) + "/oauth2/v2.0/authorize")
	want := `{"api-version":"1.1","metadata":[{"aliases":["login.innate.test:8443"],"preferred_cache":"login.innate.test:8443","preferred_network":"login.innate.test:8443"}],` +
		`"tenant_discovery_endpoint":"https://login.innate.test:8443/` + tenantA + `/v2.0/.well-known/openid-configuration"}`
	if diff := cmp.Diff(want, a.text); diff != "" || a.status != 200 {
		t.Errorf("instance discovery = %d (-want +got):\n%s", a.status, diff)
	}
	for _, endpoint := range []string{
		"", "https://login.evil.test/" + tenantA, login + ".evil.test/" + tenantA, strings.Replace(login, ":8443", "", 1) + "/" + tenantA,
		strings.Replace(login, "https://", "https://x@", 1) + "/" + tenantA, "http" + strings.TrimPrefix(login, "https") + "/" + tenantA,
	} {
		ask(endpoint).problem(t, 400, 50049, "invalid_instance")
	}
	ask(login+"/"+nowhere+"/oauth2/authorize").problem(t, 400, 90002, "invalid_request")
	ask(login+"/common/oauth2/authorize").problem(t, 400, 50059, "invalid_request")
}

// TestIndependentVerifier checks our tokens by another's library, which finds
// all that it needs by discovery over HTTPS.
func TestIndependentVerifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := oidc.ClientContext(t.Context(), w.http)
	for _, tt := range []struct{ asked, issuer, aud string }{
		{"https://vault.azure.net", w.sts.IssuerV1(tenantA), "https://vault.azure.net"},
		{"api://orders/", w.sts.IssuerV1(tenantA), "api://orders/"},
		{"https://api.example.test/v2", w.sts.IssuerV2(tenantA), "0d000000-0000-0000-0000-000000000002"},
	} {
		p, err := oidc.NewProvider(ctx, tt.issuer)
		if err != nil {
			t.Fatal(err)
		}
		raw := w.issue(t, tt.asked).Token
		tok, err := p.VerifierContext(ctx, &oidc.Config{ClientID: tt.aud, Now: w.clock}).Verify(ctx, raw)
		if err != nil {
			t.Errorf("%s: %v", tt.asked, err)
			continue
		}
		var claims struct{ Oid, Tid string }
		if err := tok.Claims(&claims); err != nil || claims.Oid != w.system.ID || claims.Tid != tenantA || tok.Subject != w.system.ID {
			t.Errorf("%s: claims %+v, sub %s, %v", tt.asked, claims, tok.Subject, err)
		}
		if _, err := p.VerifierContext(ctx, &oidc.Config{ClientID: "another", Now: w.clock}).Verify(ctx, raw); err == nil {
			t.Errorf("%s: it is good for another API", tt.asked)
		}
	}
	// The other tenant's issuer does not vouch for this one's tokens.
	p, err := oidc.NewProvider(ctx, w.sts.IssuerV1(tenantB))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.VerifierContext(context.WithoutCancel(ctx), &oidc.Config{SkipClientIDCheck: true, SkipIssuerCheck: true, Now: w.clock}).Verify(ctx, w.issue(t, "api://orders").Token); err == nil {
		t.Error("tenant B's keys verify tenant A's token")
	}
}
