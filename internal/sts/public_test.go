package sts_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/sts"
)

// TestIssuerIsByTheNameThatWasAsked: a token that login.microsoftonline.com
// issued says so, and counts at our APIs where that name is ours; who was not
// asked by it says nothing of it.
func TestIssuerIsByTheNameThatWasAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sts.Names.Public = true
	for _, tt := range []struct{ asked, aud, issuer string }{
		{"login.microsoftonline.com", "https://vault.azure.net", "https://sts.windows.net/" + tenantA + "/"},
		{"login.windows.net", "https://api.example.test/v2", "https://login.microsoftonline.com/" + tenantA + "/v2.0"},
		{"login.innate.test", "https://vault.azure.net", w.sts.IssuerV1(tenantA)},
		{"login.evil.test", "https://vault.azure.net", w.sts.IssuerV1(tenantA)},
		{"", "https://api.example.test/v2", w.sts.IssuerV2(tenantA)},
	} {
		family := sts.KeyVault
		got, err := w.sts.ForWorkload(t.Context(), access.Caller{Tenant: tenantA, Principal: "host"}, sts.Request{Audience: tt.aud, Workload: vm, Asked: tt.asked})
		if err != nil {
			t.Fatal(err)
		}
		if tt.aud != "https://vault.azure.net" {
			if c := claims(t, got.Token); c.Issuer != tt.issuer {
				t.Errorf("asked as %q, iss is %s, want %s", tt.asked, c.Issuer, tt.issuer)
			}
			continue
		}
		r := httptest.NewRequest(http.MethodGet, "https://demo.vault.azure.net/", nil)
		r.Header.Set("Authorization", "Bearer "+got.Token)
		c, err := w.sts.Authenticate(t.Context(), r, family, tenantA)
		if err != nil || c.Issuer != tt.issuer || c.Asked != "demo.vault.azure.net" {
			t.Errorf("asked as %q, the token is of %+v, %v; want issuer %s", tt.asked, c, err, tt.issuer)
		}
		// Where the name is not ours, nor is what it issues.
		w.sts.Names.Public = false
		_, err = w.sts.Authenticate(t.Context(), r, family, tenantA)
		if own := tt.issuer == w.sts.IssuerV1(tenantA); own != (err == nil) || !own && !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("without public names, a token of %s: %v", tt.issuer, err)
		}
		w.sts.Names.Public = true
	}
}

// TestOwnTokenByAPublicNameIsAnAssertion: it is ours by whichever name it was
// asked for, and so nobody is asked for keys, and it counts while its identity does.
func TestOwnTokenByAPublicNameIsAnAssertion(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	w.sts.Names.Public = true
	w.credential(t, w.user, federation.Credential{
		Trust: "own", Name: "own", Issuer: "https://login.microsoftonline.com/" + tenantA + "/v2.0", Subject: w.system.ID, Audiences: []string{exchangeAudience},
	})
	got, err := w.sts.ForWorkload(t.Context(), access.Caller{Tenant: tenantA, Principal: "host"}, sts.Request{Audience: exchangeAudience, Workload: vm, Asked: "login.microsoftonline.com"})
	if err != nil {
		t.Fatal(err)
	}
	w.show(t, w.user.Client, got.Token).token(t)
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(w.system.ID) })
	w.refused(t, "a deleted identity's", w.show(t, w.user.Client, got.Token), 401, "invalid_client", 50027)
	// A directory of that cloud is not ours: its own keys are asked for.
	if _, ours, err := w.sts.Own(t.Context(), "https://login.microsoftonline.com/99999999-0000-4000-8000-000000000009/v2.0"); ours || err != nil {
		t.Errorf("a tenant that is not here is ours: %v, %v", ours, err)
	}
}
