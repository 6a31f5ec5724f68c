package sts_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/sts"
)

func TestAudiences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for asked, want := range map[string]sts.Family{
		"https://management.azure.com":              sts.ARM,
		"https://management.core.windows.net":       sts.ARM,
		"797f4846-ba00-4fd7-ba43-dac1f8f63013":      sts.ARM,
		"https://management.innate.test:8443":       sts.ARM,
		"https://vault.azure.net":                   sts.KeyVault,
		"cfa8b339-82a2-471a-a3c9-0fc0be7a4093":      sts.KeyVault,
		"https://vault.innate.test:8443":            sts.KeyVault,
		"https://storage.azure.com":                 sts.Storage,
		"e406a681-f3d4-42a8-90b6-c2b029497af1":      sts.Storage,
		"https://acct1.blob.core.windows.net":       sts.Storage,
		"https://acct1.blob.innate.test:8443":       sts.Storage,
		"https://a-secondary.blob.core.windows.net": sts.Storage,
		"https://graph.microsoft.com":               sts.Graph,
		"00000003-0000-0000-c000-000000000000":      sts.Graph,
		"api://AzureADTokenExchange":                sts.Exchange,
		"api://orders":                              sts.Registered,
	} {
		// aud is what was asked for, to the letter: the API compares it with what it was told.
		for _, asked := range []string{asked, asked + "/", strings.ToUpper(asked), strings.ToLower(asked)} {
			got, err := w.sts.Resolve(t.Context(), tenantA, asked)
			version := 1
			if want == sts.Exchange { // credentials name the issuer of version 2
				version = 2
			}
			if want := (sts.Audience{Family: want, Value: asked, Version: version}); err != nil || got != want {
				t.Errorf("audience %s = %+v, %v; want %+v", asked, got, err, want)
			}
		}
	}
	for _, asked := range []string{"https://api.example.test/v2", "https://api.example.test/v2/", "HTTPS://API.example.test/V2"} {
		got, err := w.sts.Resolve(t.Context(), tenantA, asked)
		if want := (sts.Audience{Family: sts.Registered, Value: "0d000000-0000-0000-0000-000000000002", Version: 2}); err != nil || got != want {
			t.Errorf("audience %s = %+v, %v; want %+v", asked, got, err, want)
		}
	}
}

func TestUnknownAudiences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, asked := range []string{
		"https://nobody.test", "api://nobody", "orders", "https://vault.azure.net.evil.test", "https://evil.test/https://vault.azure.net", "http://vault.azure.net",
		"https://vault.azure.net:443", "https://vault.azure.net.", "https://x@vault.azure.net", "https://vault.azure.net?x", "https://vault.azure.net#x",
		"https://management.innate.test", "https://management.innate.test:443", "https://demo.vault.innate.test:8443", "https://login.innate.test:8443", "https://innate.test:8443",
		"https://blob.core.windows.net", "https://.blob.core.windows.net", "https://a.b.blob.core.windows.net", "https://x@acct.blob.core.windows.net", "https://x:y@acct.blob.core.windows.net",
		"https://acct.blob.core.windows.net?x", "https://acct.blob.core.windows.net#x", "https://acct.blob.core.windows.net/container", "https://acct.blob.core.windows.net:443",
		"https://-.blob.core.windows.net", "https://a_b.blob.core.windows.net", "https://" + strings.Repeat("a", 64) + ".blob.core.windows.net",
		// Letters that fold to ASCII: the Kelvin sign is k in lower case.
		"api://AzureADTo\u212aenExchange", "https://vault.azure.net\u3002", "\uff48ttps://vault.azure.net",
		"https://vault.azure.net ", " https://vault.azure.net", "https://vault.azure.net\n", "https://vault.azure.net\x00", "\xff", strings.Repeat("a", 1025), "/", "//",
	} {
		got, err := w.sts.Resolve(t.Context(), tenantA, asked)
		if !problem.Is(err, problem.UnknownAudience) || !strings.HasPrefix(problem.Of(err).Detail, "AADSTS500011: ") {
			t.Errorf("audience %q = %+v, %v; want AADSTS500011", asked, got, err)
		}
	}
	if _, err := w.sts.Resolve(t.Context(), tenantB, "api://orders"); !problem.Is(err, problem.UnknownAudience) {
		t.Errorf("another tenant's API: %v", err)
	}
	if _, err := w.sts.Resolve(t.Context(), tenantA, ""); !problem.Is(err, problem.MissingParameter) {
		t.Errorf("no audience: %v", err)
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, aud := range []string{
		// Microsoft's.
		"https://management.azure.com", "https://vault.azure.net", "https://VAULT.AZURE.NET/", "https://vault.azure.net/any/path", "https://new.azure.net", "https://azure.com",
		"https://database.windows.net", "https://ossrdbms-aad.database.windows.net", "https://graph.microsoft.com", "https://login.microsoftonline.com", "https://azconfig.io",
		"https://servicebus.azure.net", "https://containerregistry.azure.net", "https://acct.blob.core.windows.net", "api://azureadtokenexchange", "API://AzureADTokenExchange/",
		"797f4846-ba00-4fd7-ba43-dac1f8f63013", "api://797F4846-ba00-4fd7-ba43-dac1f8f63013", "api://vault.azure.net", "api://00000003-0000-0000-c000-000000000000/x",
		// Ours.
		"https://innate.test", "https://login.innate.test:8443", "https://management.innate.test", "https://demo.vault.innate.test:8443/", "https://new.innate.test", "HTTPS://Portal.Innate.Test", "api://innate.test",
		// The same names by other ways.
		"https://vault.azure.net:443", "https://vault.azure.net:", "https://vault.azure.net.", "https://vault.azure.net.:443", "https://vault.azure.net..", "https://management.innate.test.",
		"https://x@vault.azure.net", "https://x:y@vault.azure.net", "https://vault.azure.net@evil.test", "https://vault.azure.net%2f@evil.test", "https://vault%2eazure.net",
		"https://vault.azure.net\\@evil.test", "https:\\\\vault.azure.net", "https:/vault.azure.net", "https:///vault.azure.net", "https:vault.azure.net", "vault.azure.net",
		"https://evil.test?vault.azure.net", "https://evil.test#vault.azure.net", "https://evil.test?", "https://evil.test#",
		"https://vault.azure\u3002net", "https://vault.azure\uff0enet", "https://\uff56ault.azure.net", "https://vault.%EF%BC%A1zure.net", "https://vault.a\u200bzure.net", "https://mana\u0261ement.innate.test",
		"https://login.innate.\u1e97est", "https://login.innate.te\u017ft", "api://azureadto\u212aenexchange", "https://vault.xn--azure-.net", "https://xn--vault-.azure.net", "https://xn--vault-.evil.test",
		"https://vault.azure.net\x00.evil.test", "https://vault.azure.net\t", " https://vault.azure.net", "https://[::1]%25.azure.net", "", "/", "https://", "api://", "\xff",
	} {
		if !w.sts.Reserved(aud) {
			t.Errorf("a tenant may register %q", aud)
		}
	}
	for _, aud := range []string{
		"api://orders", "https://api.example.test/v2", "https://api.example.test:8443", "https://azure.net.example.test", "https://notazure.net", "https://myinnate.test", "https://innate.test.example.test",
		"https://example.test/vault.azure.net", "api://0d000000-0000-0000-0000-000000000001", "https://xn--bcher-kva.example", "https://10.0.0.1",
	} {
		if w.sts.Reserved(aud) {
			t.Errorf("a tenant may not register %q", aud)
		}
	}
}

func FuzzAudience(f *testing.F) {
	w := newWorld(f)
	for _, s := range []string{"https://vault.azure.net/", "api://orders", "https://acct.blob.core.windows.net", "https://x@y?z#w", "\u212a", "https://api.example.test/v2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, asked string) {
		got, err := w.sts.Resolve(t.Context(), tenantA, asked)
		switch {
		case err != nil && problem.Of(err).Kind == problem.Internal:
			t.Errorf("audience %q: %v", asked, err)
		case err == nil && got.Version == 1 && got.Value != asked:
			t.Errorf("audience %q has aud %q", asked, got.Value)
		case err == nil && got.Family != sts.Registered && !w.sts.Reserved(asked):
			t.Errorf("a tenant may register %q, which is a public API's", asked)
		}
		if w.sts.Reserved(asked) != w.sts.Reserved(asked+"/") {
			t.Errorf("a slash decides whether %q is reserved", asked)
		}
	})
}
