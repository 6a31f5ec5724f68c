package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
)

// An API of the tenant's own checks our tokens with a library that knows
// nothing of us but the issuer's address.
func TestOwnAPIVerifiesTokensByDiscovery(t *testing.T) {
	t.Parallel()
	in := start(t)
	appID := in.register(t, "api1", `["api://orders"]`, 2)
	issuer := in.Endpoints.Login + "/" + in.TenantID + "/v2.0"

	token := in.verified(t, issuer, appID, in.token(t, "vm1", "api://orders"))
	var claims struct {
		OID, TID, Ver, AZP, Idtyp string
	}
	if err := token.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	vm1 := in.manage(t, "vm", "get", "vm1").Identity.PrincipalID
	if claims.OID != vm1 || token.Subject != vm1 || claims.TID != in.TenantID || claims.Ver != "2.0" || claims.Idtyp != "app" || len(claims.AZP) != 36 {
		t.Errorf("claims %+v of subject %s, want those of %s", claims, token.Subject, vm1)
	}
	// A token for another API is no token for this one, whoever signed it.
	v := in.verifier(t, issuer, appID)
	if _, err := v.Verify(in.oidcContext(t), in.token(t, "vm1", "https://vault.azure.net")); err == nil {
		t.Error("a token for the vault is accepted by the API")
	}
}

// The older version has another issuer, and the audience as it was asked for.
func TestVaultTokenVerifiesAgainstTheV1Issuer(t *testing.T) {
	t.Parallel()
	in := start(t)
	issuer := in.Endpoints.Login + "/" + in.TenantID + "/"
	for _, aud := range []string{"https://vault.azure.net", "https://vault.azure.net/", strings.Replace(in.Vaults["demo"], "demo.", "", 1)} {
		token := in.verified(t, issuer, aud, in.token(t, "vm1", aud))
		var claims struct{ Ver, AppID, XmsMirID string }
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if claims.Ver != "1.0" || len(claims.AppID) != 36 {
			t.Errorf("the claims of a token for %s: %+v", aud, claims)
		}
	}
	// An API that chose version 1.
	in.register(t, "api-one", `["api://one"]`, 1)
	in.verified(t, issuer, "api://one", in.token(t, "vm1", "api://one"))
}

func TestUnknownAudienceIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, aud := range []string{"api://nobody", "https://example.org", "https://vault.azure.net.evil.example"} {
		r := in.exec(t, "", "innate", "token", "--as", "vm1", "--resource", aud)
		if r.code != 1 || r.out != "" || !r.says("AADSTS500011", aud, in.TenantID) {
			t.Errorf("a token for %s: %s", aud, r)
		}
	}
	// It becomes known at once, and is unknown again when it is gone: also to
	// vm1, whose agent has a token for it in memory.
	in.register(t, "api1", `["api://orders"]`, 2)
	in.token(t, "vm1", "api://orders")
	in.register(t, "api1", `["api://other"]`, 2)
	for _, workload := range []string{"app1", "vm1"} {
		if r := in.refusedWithinBound(t, "token", "--as", workload, "--resource", "api://orders"); !r.says("AADSTS500011") {
			t.Errorf("%s, for an audience that is registered no more: %s", workload, r)
		}
	}
}

// register registers an API of the tenant's own and returns its application id.
func (in *instance) register(t *testing.T, name, uris string, version int) string {
	t.Helper()
	url := in.Endpoints.Management + in.id("Innate.Directory/applications", name) + "?api-version=2026-01-01"
	body := fmt.Sprintf(`{"properties":{"identifierUris":%s,"accessTokenVersion":%d}}`, uris, version)
	r := in.call(t, http.MethodPut, url, in.token(t, "ops", in.Endpoints.Management), body)
	var app struct{ Properties struct{ AppID string } }
	if err := json.Unmarshal([]byte(r.body), &app); err != nil || r.status/100 != 2 || app.Properties.AppID == "" {
		t.Fatalf("PUT %s = %d %s", url, r.status, r.body)
	}
	return app.Properties.AppID
}

// oidcContext carries the client that finds the installation's names.
func (in *instance) oidcContext(t *testing.T) context.Context {
	return oidc.ClientContext(t.Context(), in.client(t))
}

func (in *instance) verifier(t *testing.T, issuer, audience string) *oidc.IDTokenVerifier {
	t.Helper()
	p, err := oidc.NewProvider(in.oidcContext(t), issuer)
	if err != nil {
		t.Fatal(err)
	}
	return p.Verifier(&oidc.Config{ClientID: audience})
}

func (in *instance) verified(t *testing.T, issuer, audience, token string) *oidc.IDToken {
	t.Helper()
	out, err := in.verifier(t, issuer, audience).Verify(in.oidcContext(t), token)
	if err != nil {
		t.Fatalf("a token of %s for %s: %v", issuer, audience, err)
	}
	return out
}
