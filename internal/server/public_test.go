package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

// by is an HTTP client that every name leads to s, and that trusts pool.
func by(s *Server, pool *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Addr())
		},
	}}
}

// get returns the answer's text, header and JSON, if it is any.
func get(t *testing.T, hc *http.Client, url, token string) (*http.Response, string, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	_ = json.Unmarshal(b, &doc) // nil if it is none
	return resp, string(b), doc
}

// public is a control plane that answers for the public cloud's names, with one
// tenant that has a vault, and its owner's token for an API.
func public(t *testing.T) (s *Server, boot Bootstrapped, token func(aud string) string) {
	t.Helper()
	cfg := config(t)
	cfg.PublicNames = true
	s = open(t, cfg)
	boot, err := s.Bootstrap(t.Context(), Bootstrap{TenantName: "Test", Group: "g", Location: "local", Host: "h", Owner: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{Server: s, Caller: access.SystemCaller(boot.Tenant, "test")}
	vault, err := boot.Group.Extension("Microsoft.KeyVault/vaults", "demo")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), vault, map[string]any{"location": "local", "properties": map[string]any{"vaulturi": "https://elsewhere"}}); err != nil {
		t.Fatal(err)
	}
	return s, boot, func(aud string) string {
		got, err := s.STS.ForWorkload(t.Context(), access.Caller{Tenant: boot.Tenant, Principal: "host:test"}, sts.Request{Audience: aud, Workload: boot.Owner})
		if err != nil {
			t.Fatal(err)
		}
		return got.Token
	}
}

// both trusts the local CA and that of the public names.
func both(s *Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.CA.Certificate())
	pool.AddCert(s.PublicCA.Certificate())
	return pool
}

// A client that came by the public cloud's names stays on them: every URL in an
// answer is by the same. One that came by ours stays on ours.
func TestAnswersGoByTheNameThatWasAsked(t *testing.T) {
	t.Parallel()
	s, boot, token := public(t)
	hc := by(s, both(s))
	n := s.Names
	own := map[string]string{"login": n.Login(), "issuer": n.Login(), "arm": n.Management(), "vault": n.Vault("demo"), "vaults": n.Vaults(), "graph": n.Graph()}
	cloud := map[string]string{
		"login": "https://login.microsoftonline.com", "issuer": "https://sts.windows.net", "arm": "https://management.azure.com",
		"vault": "https://demo.vault.azure.net", "vaults": "https://vault.azure.net", "graph": "https://graph.microsoft.com",
	}
	for _, at := range []map[string]string{own, cloud} {
		tenant := "/" + boot.Tenant
		_, _, doc := get(t, hc, at["login"]+tenant+"/v2.0/.well-known/openid-configuration", "")
		for member, want := range map[string]string{
			"issuer": at["login"] + tenant + "/v2.0", "token_endpoint": at["login"] + tenant + "/oauth2/v2.0/token",
			"jwks_uri": at["login"] + tenant + "/discovery/v2.0/keys",
		} {
			if doc[member] != want {
				t.Errorf("%s: %s = %v, want %s", at["login"], member, doc[member], want)
			}
		}
		if _, _, doc := get(t, hc, at["login"]+tenant+"/.well-known/openid-configuration", ""); doc["issuer"] != at["issuer"]+tenant+"/" {
			t.Errorf("%s: version 1's issuer = %v", at["login"], doc["issuer"])
		}
		_, text, _ := get(t, hc, at["arm"]+"/metadata/endpoints?api-version=2022-09-01", "")
		for _, want := range []string{at["arm"], at["login"], at["graph"] + "/", strings.TrimPrefix(at["vaults"], "https://")} {
			if !strings.Contains(text, `"`+want+`"`) {
				t.Errorf("%s/metadata/endpoints = %s, want %s in it", at["arm"], text, want)
			}
		}
		vault := at["arm"] + boot.Group.String() + "/providers/Microsoft.KeyVault/vaults"
		for _, url := range []string{vault + "/demo", vault} {
			if _, text, _ := get(t, hc, url+"?api-version=2024-11-01", token("https://management.azure.com/")); !strings.Contains(text, `"vaultUri":"`+at["vault"]+`/"`) || strings.Contains(text, "elsewhere") {
				t.Errorf("GET %s = %s, want the vaultUri %s/", url, text, at["vault"])
			}
		}
		resp, _, _ := get(t, hc, at["vault"]+"/secrets/x?api-version=7.4", "")
		want := `Bearer authorization="` + at["login"] + tenant + `", resource="` + at["vaults"] + `"`
		if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != 401 || got != want {
			t.Errorf("%s challenges with %d %s, want %s", at["vault"], resp.StatusCode, got, want)
		}
		resp, _, _ = get(t, hc, at["arm"]+"/subscriptions?api-version=2022-12-01", "")
		if got := resp.Header.Get("WWW-Authenticate"); !strings.Contains(got, `"`+at["login"]+`/common"`) {
			t.Errorf("%s challenges with %s", at["arm"], got)
		}
	}
}

// Pages of a list are by the name that was asked too.
func TestNextPageIsAtTheNameThatWasAsked(t *testing.T) {
	t.Parallel()
	s, boot, token := public(t)
	b := &Builder{Server: s, Caller: access.SystemCaller(boot.Tenant, "test")}
	for range 101 {
		id := resource.MustParse(boot.Group.String() + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i" + uuid.NewString())
		if err := b.Put(t.Context(), id, map[string]any{"location": "local"}); err != nil {
			t.Fatal(err)
		}
	}
	hc := by(s, both(s))
	for _, arm := range []string{"https://management.azure.com", s.Names.Management()} {
		_, text, doc := get(t, hc, arm+boot.Group.String()+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2023-01-31", token(arm))
		if next, _ := doc["nextLink"].(string); !strings.HasPrefix(next, arm+"/") {
			t.Errorf("the next page after one of %s is %q (%.100s)", arm, next, text)
		}
	}
}

// What the token service at the public cloud's name issues, the data planes
// take by either name; "common" is the only tenant, until there are two.
func TestDiscoveryByPublicNames(t *testing.T) {
	t.Parallel()
	s, boot, _ := public(t)
	hc := by(s, both(s))
	const login = "https://login.microsoftonline.com"
	ask := func(endpoint string) (int, map[string]any) {
		resp, _, doc := get(t, hc, login+"/common/discovery/instance?api-version=1.1&authorization_endpoint="+endpoint, "")
		return resp.StatusCode, doc
	}
	for endpoint, want := range map[string]string{
		login + "/" + boot.Tenant + "/oauth2/v2.0/authorize":                     login,
		"https://login.windows.net/" + boot.Tenant + "/oauth2/v2.0/authorize":    login,
		login + "/common/oauth2/v2.0/authorize":                                  login,
		s.Names.Login() + "/" + boot.Tenant + "/oauth2/v2.0/authorize":           s.Names.Login(),
		"https://evil.example/" + boot.Tenant + "/oauth2/v2.0/authorize":         "",
		"https://login.chinacloudapi.cn/" + boot.Tenant:                          "",
		"https://management.azure.com/" + boot.Tenant + "/oauth2/v2.0/authorize": "", // ours, and no authority
		"http://login.microsoftonline.com/" + boot.Tenant:                        "",
		"": "",
	} {
		code, doc := ask(endpoint)
		at, _ := doc["tenant_discovery_endpoint"].(string)
		if want == "" && (code != 400 || doc["error"] != "invalid_instance") || want != "" && at != want+"/"+boot.Tenant+"/v2.0/.well-known/openid-configuration" {
			t.Errorf("instance discovery of %q = %d %v, want %q", endpoint, code, doc, want)
		}
	}
	common := login + "/common/v2.0/.well-known/openid-configuration"
	if _, _, doc := get(t, hc, common, ""); doc["issuer"] != login+"/"+boot.Tenant+"/v2.0" {
		t.Errorf("GET %s: issuer %v", common, doc["issuer"])
	}
	// By our own name nobody is led to a tenant that he did not name.
	if resp, _, _ := get(t, hc, s.Names.Login()+"/common/v2.0/.well-known/openid-configuration", ""); resp.StatusCode != 400 {
		t.Errorf("common by our own name = %d, want 400", resp.StatusCode)
	}
	if _, err := s.Bootstrap(t.Context(), Bootstrap{TenantName: "Other", Group: "g", Location: "local", Host: "h", Owner: "ops"}); err != nil {
		t.Fatal(err)
	}
	if resp, _, _ := get(t, hc, common, ""); resp.StatusCode != 400 {
		t.Errorf("common of two tenants = %d, want 400", resp.StatusCode)
	}
}

// Whoever trusts the local CA has not trusted it with the public cloud's names,
// and the other way round.
func TestPublicNamesHaveAnAuthorityOfTheirOwn(t *testing.T) {
	t.Parallel()
	s, _, _ := public(t)
	local, other := s.CA.Trusts(), s.PublicCA.Trusts()
	for _, name := range []string{"management.azure.com", "login.microsoftonline.com", "demo.vault.azure.net", "graph.microsoft.com"} {
		if _, err := handshake(s, other, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := handshake(s, local, name); err == nil {
			t.Errorf("the local CA vouches for %s", name)
		}
	}
	if _, err := handshake(s, other, "management.innate.test"); err == nil {
		t.Error("the public names' authority vouches for our own names")
	}
	for _, name := range []string{"portal.azure.com", "azure.com", "vault.azure.net", "a.b.vault.azure.net", "x.blob.core.windows.net", "www.microsoft.com", "*.vault.azure.net"} {
		if _, err := handshake(s, other, name); err == nil {
			t.Errorf("there is a certificate for %s", name)
		}
	}
	for _, k := range []string{"server-ca", "passing server CA"} {
		recs, err := s.DB.Keys(t.Context(), "", k)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if string(r.Public) == string(s.PublicCA.Certificate().Raw) {
				t.Error("the public names' authority is stored")
			}
		}
	}
}

// Without them the names are nobody's here: no certificate, no answer.
func TestWithoutPublicNamesTheyAreNotOurs(t *testing.T) {
	t.Parallel()
	s := open(t, config(t))
	if s.PublicCA != nil {
		t.Error("there is an authority for them")
	}
	if _, err := handshake(s, s.CA.Trusts(), "management.azure.com"); err == nil {
		t.Error("there is a certificate for management.azure.com")
	}
	hc := by(s, s.CA.Trusts())
	for _, host := range []string{"management.azure.com", "login.microsoftonline.com", "demo.vault.azure.net", "graph.microsoft.com"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Names.Management()+"/metadata/endpoints", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("Host: %s = %d, want 421", host, resp.StatusCode)
		}
	}
}
