package e2e

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// each runs a test with every SDK.
func each(t *testing.T, test func(t *testing.T, l language)) {
	for _, l := range languages {
		t.Run(string(l), func(t *testing.T) { test(t, l) })
	}
}

func TestWorkloadReadsASecret(t *testing.T) {
	t.Parallel()
	in := start(t)
	each(t, func(t *testing.T, l language) {
		r := in.as(t, "vm1", l.command(t, "readsecret")...)
		if r.code != 0 || r.out != greeting+"\n" || r.err != "" {
			t.Errorf("readsecret as vm1: %s", r)
		}
	})
}

// A machine without an identity: each SDK says so in its own words. For Go a
// refusal by App Service's endpoint ends the chain of the default credential.
func TestWorkloadWithoutIdentityIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	const ours = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId. vm2 has no managed identity; enable one on it"
	words := map[language][]string{
		"go":         {"ManagedIdentityCredential authentication failed.", "RESPONSE 400: 400 Bad Request", ours},
		"javascript": {"CredentialUnavailableError: ManagedIdentityCredential: Authentication failed.", ours},
	}
	each(t, func(t *testing.T, l language) {
		r := in.as(t, "vm2", l.command(t, "readsecret")...)
		if r.code != 1 || r.out != "" || !r.says(words[l]...) {
			t.Errorf("readsecret as vm2: %s\nwant %q", r, words[l])
		}
	})
}

// A virtual machine has the metadata endpoint at 169.254.169.254 alone. SDKs
// for JavaScript can be told of another address; Go's cannot, so it gets there
// through a proxy that stands in for the captured address.
func TestMetadataEndpoint(t *testing.T) {
	t.Parallel()
	in := start(t)
	words := map[language][]string{
		// "Unavailable", after which the chain goes on to the next credential.
		"go":         {"ManagedIdentityCredential: failed to authenticate a system assigned identity. The endpoint responded with", `"Identity not found"`, "AzureCLICredential: "},
		"javascript": {"CredentialUnavailableError: ManagedIdentityCredential: Authentication failed.", "Identity not found"},
	}
	each(t, func(t *testing.T, l language) {
		imds := func(workload string) []string {
			env := []string{"env", "-u", "IDENTITY_ENDPOINT", "-u", "IDENTITY_HEADER"}
			if l == "go" {
				door := in.Resources[workload].Env["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
				env = append(env, "HTTP_PROXY="+captured(t, door), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
			}
			return append(env, l.command(t, "readsecret")...)
		}
		if r := in.as(t, "vm1", imds("vm1")...); r.code != 0 || r.out != greeting+"\n" {
			t.Errorf("readsecret as vm1: %s", r)
		}
		if r := in.as(t, "vm2", imds("vm2")...); r.code != 1 || !r.says(words[l]...) {
			t.Errorf("readsecret as vm2: %s\nwant %q", r, words[l])
		}
	})
}

// captured is a proxy that takes what is sent to 169.254.169.254 to a door, as
// it came.
func captured(t *testing.T, door string) string {
	t.Helper()
	to, err := url.Parse(door)
	if err != nil {
		t.Fatal(err)
	}
	relay := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "169.254.169.254" {
			t.Errorf("the program sent %s to its HTTP proxy", r.URL)
		}
		relay.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// An identity without the role: the vault's own words say who, what and where.
func TestWorkloadWithoutTheRoleIsForbidden(t *testing.T) {
	t.Parallel()
	in := start(t)
	app := in.site(t, "app1")
	words := []string{
		"Caller is not authorized to perform action on resource.",
		"oid=" + app.Identity.PrincipalID + ";iss=" + in.Endpoints.Login + "/" + in.TenantID + "/",
		"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'",
		"Resource: '" + in.id("Microsoft.KeyVault/vaults", "demo") + "/secrets/greeting'",
		"Assignment: (not found)", "Vault: demo;location=local",
	}
	own := map[language][]string{
		"go":         {"RESPONSE 403: 403 Forbidden", "ERROR CODE: Forbidden", `"code": "ForbiddenByRbac"`},
		"javascript": {"RestError: "},
	}
	each(t, func(t *testing.T, l language) {
		r := in.as(t, "app1", l.command(t, "readsecret")...)
		if r.code != 1 || r.out != "" || !r.says(words...) || !r.says(own[l]...) {
			t.Errorf("readsecret as app1: %s\nwant %q and %q", r, words, own[l])
		}
		_, appid, _ := strings.Cut(r.err, "Caller: appid=")
		if appid, _, _ = strings.Cut(appid, ";"); len(appid) != 36 || appid == app.Identity.PrincipalID {
			t.Errorf("the caller's appid is %q, want a client id", appid)
		}
	})
}

func TestWorkloadReadsWithItsUserAssignedIdentity(t *testing.T) {
	t.Parallel()
	in := start(t)
	id := in.manage(t, "identity", "get", "shared").Properties.ClientID
	each(t, func(t *testing.T, l language) {
		program := l.command(t, "readsecret")
		r := in.as(t, "app1", append([]string{"env", "AZURE_CLIENT_ID=" + id}, program...)...)
		if r.code != 0 || r.out != greeting+"\n" {
			t.Errorf("readsecret as app1 with shared: %s", r)
		}
		// vm1 may read the secret, but not with somebody else's identity.
		r = in.as(t, "vm1", append([]string{"env", "AZURE_CLIENT_ID=" + id}, program...)...)
		if r.code != 1 || !r.says("No User Assigned or Delegated Managed Identity found") {
			t.Errorf("readsecret as vm1 with shared: %s", r)
		}
	})
}
