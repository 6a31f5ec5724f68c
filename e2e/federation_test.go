package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// cluster is somebody else's issuer, with its tokens, on loopback.
type cluster struct {
	url, ca string
	key     *rsa.PrivateKey
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{key: key, ca: filepath.Join(t.TempDir(), "issuer.pem")}
	mux := http.NewServeMux()
	answer := func(path string, v func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v())
		})
	}
	answer("/.well-known/openid-configuration", func() any { return map[string]any{"issuer": c.url, "jwks_uri": c.url + "/keys"} })
	answer("/keys", func() any {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Use: "sig", Algorithm: "RS256"}}}
	})
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	c.url = srv.URL
	if err := os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// token is a token of the cluster, as it gives one to each program, in a file.
func (c *cluster) token(t *testing.T, subject string) (raw, file string) {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: c.key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	payload, err := json.Marshal(map[string]any{"iss": c.url, "sub": subject, "aud": []string{"api://AzureADTokenExchange"}, "iat": now, "nbf": now, "exp": now + 600})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = jws.CompactSerialize(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return raw, file
}

// A program that runs elsewhere has a token of its own issuer, and no identity
// here; with it it reads a secret. Nothing secret was ever given to it by us.
func TestProgramElsewhereReadsASecret(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in := startIn(t, newFolder(t), []string{"SSL_CERT_FILE=" + c.ca})
	id := in.manage(t, "identity", "get", "shared").Properties.ClientID
	in.manage(t, "trust", "add", "shared", "web", c.url, "system:serviceaccount:prod:web")
	_, web := c.token(t, "system:serviceaccount:prod:web")
	_, other := c.token(t, "system:serviceaccount:prod:web2")
	each(t, func(t *testing.T, l language) {
		for _, kind := range []string{"workload", "assertion"} {
			run := func(file string) result {
				// vm2 has no identity; being run as it gives only names and the CA.
				return in.as(t, "vm2", append(append([]string{
					"env", "-u", "IDENTITY_ENDPOINT", "-u", "IDENTITY_HEADER",
					"AZURE_CLIENT_ID=" + id, "AZURE_TENANT_ID=" + in.TenantID, "AZURE_FEDERATED_TOKEN_FILE=" + file,
				}, l.command(t, "federated")...), kind)...)
			}
			if r := run(web); r.code != 0 || r.out != greeting+"\n" {
				t.Errorf("%s, with the token that is trusted: %s", kind, r)
			}
			if r := run(other); r.code != 1 || !r.says("AADSTS700213", "system:serviceaccount:prod:web2") {
				t.Errorf("%s, with another's: %s", kind, r)
			}
		}
	})
	var found bool
	for _, ev := range in.record(t) {
		found = found || ev.Action == "Innate.Token/issue/action" && ev.Outcome == "allowed" && ev.Name == "shared" && strings.Contains(ev.Reason, c.url) && strings.Contains(ev.Reason, "system:serviceaccount:prod:web")
	}
	if !found {
		t.Error("the record does not say by what the token was issued")
	}
}

// A credential that is taken away takes the tokens that are out, at once.
func TestRemovedTrustTakesItsTokens(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in := startIn(t, newFolder(t), []string{"SSL_CERT_FILE=" + c.ca})
	id := in.manage(t, "identity", "get", "shared").Properties.ClientID
	in.manage(t, "trust", "add", "shared", "web", c.url, "pod:web")
	in.manage(t, "trust", "add", "shared", "job", c.url, "pod:job")
	raw, _ := c.token(t, "pod:web")
	exchange := func() (int, string) {
		resp, err := in.client(t).PostForm(in.Endpoints.Login+"/"+in.TenantID+"/oauth2/v2.0/token", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {id}, "scope": {"https://vault.azure.net/.default"}, "client_assertion": {raw},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got struct {
			Token string `json:"access_token"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, got.Token
	}
	_, token := exchange()
	read := func() int { return in.call(t, http.MethodGet, in.secretURL("greeting"), token, "").status }
	if got := read(); got != http.StatusOK {
		t.Fatalf("reading with the token: %d", got)
	}
	in.manage(t, "trust", "delete", "shared", "job")
	if got := read(); got != http.StatusOK {
		t.Errorf("after another was taken away: %d, want 200", got)
	}
	in.manage(t, "trust", "delete", "shared", "web")
	if got := read(); got != http.StatusUnauthorized {
		t.Errorf("right after it was taken away: %d, want 401", got)
	}
	if status, _ := exchange(); status != http.StatusUnauthorized {
		t.Errorf("another token: %d, want 401", status)
	}
}

// What operators' programs do with the management libraries.
func TestTrustsAreManagedBySDKs(t *testing.T) {
	t.Parallel()
	in := start(t)
	const issuer = "https://issuer.example" // which nobody asks
	for _, name := range []string{"one", "two", "three"} {
		in.manage(t, "trust", "add", "shared", name, issuer, name)
	}
	var listed struct{ Names []string }
	if err := json.Unmarshal([]byte(in.must(t, "run", "ops", "--", "manage", "trust", "list", "shared")), &listed); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(listed.Names, []string{"one", "three", "two"}) {
		t.Errorf("Go lists %q", listed.Names)
	}
	r := in.as(t, "ops", append(language("javascript").command(t, "trusts"), "demo", "shared", issuer+"/js")...)
	var got struct {
		Made int
		Read struct {
			Name, Issuer, Subject string
			Audiences             []string
		}
		Pages [][]string
		After []string
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(r)
	}
	// The libraries' names replaced what was there by them.
	if got.Made != 5 || got.Read.Issuer != issuer+"/js" || got.Read.Subject != "one" || len(got.Read.Audiences) != 1 || len(got.Pages) != 3 || len(got.After) != 0 {
		t.Errorf("JavaScript: %s", r)
	}
}
