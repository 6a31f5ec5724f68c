package sts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/issuer"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/testkit"
	"github.com/innate-id/innate/internal/token"
)

const exchangeAudience = "api://AzureADTokenExchange"

// federated is a world with an issuer that the identity w.user trusts for the
// subject "pod:web", and by an expression for the subjects of "job:".
type federated struct {
	*world
	issuer *testkit.Issuer
}

func newFederated(t testing.TB) *federated {
	t.Helper()
	w := &federated{newWorld(t), testkit.NewIssuer(t)}
	w.trustIssuers(w.issuer)
	w.trust(t, w.user, "web", "pod:web", "")
	w.trust(t, w.user, "jobs", "", "claims['sub'] matches 'job:*' and claims['env'] eq 'prod'")
	return w
}

func (w *federated) trustIssuers(all ...*testkit.Issuer) {
	roots := x509.NewCertPool()
	for _, i := range all {
		roots.AppendCertsFromPEM(i.PEM())
	}
	w.sts.Issuers = issuer.New(issuer.Config{Reach: issuer.Loopback, Roots: roots, Now: w.clock})
}

// trust gives p a credential of w.issuer. It says something new each time.
func (w *federated) trust(t testing.TB, p directory.Principal, name, subject, expression string) {
	t.Helper()
	c := federation.Credential{Trust: "trust of " + name + subject + expression, Name: name, Issuer: w.issuer.URL, Subject: subject, Audiences: []string{exchangeAudience}}
	if expression != "" {
		c.Expression = federation.Expression{Language: federation.Matching, Text: expression}
	}
	w.credential(t, p, c)
}

func (w *federated) credential(t testing.TB, p directory.Principal, c federation.Credential) {
	t.Helper()
	w.write(t, p.Tenant, func(tx arm.Tx) error { return tx.PutFederatedCredential(p.ID, c) })
}

// good is a token that w.user's credential trusts, with claims changed.
func (w *federated) good(changes map[string]any) string {
	return w.issuer.Token(w.issuer.Claims(w.clock(), "pod:web", changes))
}

// show posts the assertion as a client does.
func (w *federated) show(t testing.TB, client, assertion string, changes ...string) answer {
	t.Helper()
	f := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {"https://vault.azure.net/.default"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	for i := 0; i+1 < len(changes); i += 2 {
		f[changes[i]] = []string{changes[i+1]}
	}
	return w.do(t, http.MethodPost, "/"+tenantA+"/oauth2/v2.0/token", f.Encode())
}

// refused checks an OAuth error: status, error and AADSTS number.
func (w *federated) refused(t testing.TB, what string, a answer, status int, word string, code int) string {
	t.Helper()
	var e struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
	}
	if err := json.Unmarshal([]byte(a.text), &e); err != nil {
		t.Fatalf("%s: %s", what, a.text)
	}
	if a.status != status || e.Error != word || !slices.Equal(e.Codes, []int{code}) || strings.Contains(a.text, "access_token") {
		t.Errorf("%s: %d %s, want %d %s %d", what, a.status, a.text, status, word, code)
	}
	return e.Description
}

// token is the token that was issued.
func (a answer) token(t testing.TB) string {
	t.Helper()
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(a.text), &out); err != nil || a.status != http.StatusOK || out.Token == "" {
		t.Fatalf("no token: %d %s", a.status, a.text)
	}
	return out.Token
}

func (w *federated) use(t testing.TB, raw string) error {
	t.Helper()
	_, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+raw), sts.KeyVault, tenantA)
	return err
}

func (w *federated) last(t testing.TB) audit.Event {
	t.Helper()
	evs := w.events(t, tenantA)
	if len(evs) == 0 {
		t.Fatal("nothing is on record")
	}
	return evs[len(evs)-1]
}

func TestForeignTokenIsExchanged(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	assertion := w.good(nil)
	raw := w.show(t, strings.ToUpper(w.user.Client), assertion).token(t)
	c, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+raw), sts.KeyVault, tenantA)
	if err != nil || c.Principal != w.user.ID || c.Client != w.user.Client {
		t.Errorf("the token is of %+v, %v; want %s", c, err, w.user.ID)
	}
	ev := w.last(t)
	if ev.Outcome != audit.Allowed || ev.Principal != w.user.ID || ev.Target != ident.String() || ev.Token == "" ||
		!strings.Contains(ev.Reason, w.issuer.URL) || !strings.Contains(ev.Reason, `"pod:web"`) || !strings.Contains(ev.Reason, `federated credential "web"`) {
		t.Errorf("on record: %+v", ev)
	}
	w.show(t, w.user.Client, assertion).token(t) // again, until it expires
	w.show(t, w.user.Client, w.good(map[string]any{"sub": "job:7", "env": "prod"})).token(t)
	if ev := w.last(t); !strings.Contains(ev.Reason, `federated credential "jobs"`) {
		t.Errorf("on record: %+v", ev)
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS512, jose.PS256} {
		key, kid := w.issuer.Key()
		got := w.show(t, w.user.Client, w.issuer.Sign(w.issuer.Claims(start, "pod:web", nil), alg, key, kid))
		w.refused(t, string(alg)+", where the key is for RS256", got, 401, "invalid_client", 50027)
	}
	if strings.Contains(w.log.String(), strings.Split(assertion, ".")[2]) {
		t.Error("the log holds the assertion")
	}
}

func TestForeignTokenOfOtherAlgorithms(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa, _ := w.issuer.Key()
	w.issuer.Serve = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/keys" {
			return false
		}
		_ = json.NewEncoder(rw).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: ec.Public(), KeyID: "e"}, {Key: rsa.Public(), KeyID: "r"}, {Key: []byte("secret"), KeyID: "s"}}})
		return true
	}
	claims := w.issuer.Claims(start, "pod:web", nil)
	w.show(t, w.user.Client, w.issuer.Sign(claims, jose.ES256, ec, "e")).token(t)
	w.show(t, w.user.Client, w.issuer.Sign(claims, jose.PS256, rsa, "r")).token(t)
	w.show(t, w.user.Client, w.issuer.Sign(claims, jose.RS384, rsa, "r")).token(t)
	for what, raw := range map[string]string{
		"another key's kid": w.issuer.Sign(claims, jose.RS256, rsa, "e"),
		"no kid of several": w.issuer.Sign(claims, jose.RS256, rsa, ""),
		"a secret's kid":    w.issuer.Sign(claims, jose.RS256, rsa, "s"),
	} {
		w.refused(t, what, w.show(t, w.user.Client, raw), 401, "invalid_client", 50027)
	}
}

// TestForgedAssertions: what no issuer signed.
func TestForgedAssertions(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	claims := w.issuer.Claims(start, "pod:web", nil)
	good := strings.Split(w.good(nil), ".")
	enc := base64.RawURLEncoding.EncodeToString
	head := func(h string) string { return enc([]byte(h)) + "." + good[1] }
	key, kid := w.issuer.Key()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	stranger := testkit.NewIssuer(t)
	strangerKey, _ := stranger.Key()
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: strangerKey}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := embedded.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	withKey, _ := jws.CompactSerialize()
	other, _ := json.Marshal(w.issuer.Claims(start, "pod:admin", nil))
	for what, raw := range map[string]string{
		"alg none":                     head(`{"alg":"none"}`) + ".",
		"alg none, signed":             head(`{"alg":"none","kid":"key-1"}`) + "." + good[2],
		"alg NoNe":                     head(`{"alg":"NoNe","kid":"key-1"}`) + ".",
		"HS256 with the public key":    w.issuer.Sign(claims, jose.HS256, public, kid),
		"HS256 with the public DER":    w.issuer.Sign(claims, jose.HS256, der, kid),
		"a stranger's key":             w.issuer.Sign(claims, jose.RS256, strangerKey, kid),
		"a stranger's key, its kid":    w.issuer.Sign(claims, jose.RS256, strangerKey, "key-99"),
		"a key in the token":           withKey,
		"a key at an address":          head(`{"alg":"RS256","kid":"key-1","jku":"`+stranger.URL+`/keys"}`) + "." + good[2],
		"other claims":                 good[0] + "." + enc(other) + "." + good[2],
		"no signature":                 good[0] + "." + good[1] + ".",
		"two parts":                    good[0] + "." + good[1],
		"four parts":                   strings.Join(good, ".") + ".",
		"not base64":                   good[0] + "." + good[1] + ".*",
		"padding":                      strings.Join(good, ".") + "=",
		"a line end":                   strings.Join(good, ".") + "\n",
		"a critical header":            head(`{"alg":"RS256","kid":"key-1","crit":["b64"],"b64":false}`) + "." + good[2],
		"JSON serialization":           `{"payload":"` + good[1] + `","protected":"` + good[0] + `","signature":"` + good[2] + `"}`,
		"huge":                         w.good(map[string]any{"x": strings.Repeat("x", 20<<10)}),
		"deep":                         w.issuer.Sign([]byte(`{"iss":"`+w.issuer.URL+`","x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`), jose.RS256, key, kid),
		"the subject twice":            w.issuer.Sign([]byte(strings.Replace(string(payload), `"sub"`, `"sub":"pod:web","sub"`, 1)), jose.RS256, key, kid),
		"no claims":                    w.issuer.Sign([]byte(`{}`), jose.RS256, key, kid),
		"no expiry":                    w.good(map[string]any{"exp": nil}),
		"an audience that is a number": w.good(map[string]any{"aud": []any{exchangeAudience, 5}}),
		"nothing":                      "x",
	} {
		w.refused(t, what, w.show(t, w.user.Client, raw), 401, "invalid_client", 50027)
	}
	if n := stranger.Asked.Load(); n != 0 {
		t.Errorf("a stranger was asked %d times", n)
	}
}

// TestAssertionThatMatchesNoCredential: each with the code that clients know.
func TestAssertionThatMatchesNoCredential(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	other := testkit.NewIssuer(t)
	w.trustIssuers(w.issuer, other)
	for _, tt := range []struct {
		what, client, raw string
		status            int
		word              string
		code              int
		says              string
	}{
		{"another issuer", w.user.Client, other.Token(other.Claims(start, "pod:web", nil)), 401, "invalid_client", 700211, other.URL},
		{"its issuer with a slash", w.user.Client, w.good(map[string]any{"iss": w.issuer.URL + "/"}), 401, "invalid_client", 700211, ""},
		{"its issuer in upper case", w.user.Client, w.good(map[string]any{"iss": strings.ToUpper(w.issuer.URL)}), 401, "invalid_client", 700211, ""},
		{"its issuer without TLS", w.user.Client, w.good(map[string]any{"iss": strings.Replace(w.issuer.URL, "https", "http", 1)}), 401, "invalid_client", 700211, ""},
		{"another audience", w.user.Client, w.good(map[string]any{"aud": "https://vault.azure.net"}), 401, "invalid_client", 700212, "https://vault.azure.net"},
		{"audiences in one text", w.user.Client, w.good(map[string]any{"aud": exchangeAudience + " x"}), 401, "invalid_client", 700212, ""},
		{"its audience in lower case", w.user.Client, w.good(map[string]any{"aud": []string{strings.ToLower(exchangeAudience)}}), 401, "invalid_client", 700212, ""},
		{"a longer subject", w.user.Client, w.good(map[string]any{"sub": "pod:web2"}), 401, "invalid_client", 70021, "pod:web2"},
		{"a shorter subject", w.user.Client, w.good(map[string]any{"sub": "pod:we"}), 401, "invalid_client", 70021, ""},
		{"its subject in upper case", w.user.Client, w.good(map[string]any{"sub": "POD:WEB"}), 401, "invalid_client", 70021, ""},
		{"a huge subject", w.user.Client, w.good(map[string]any{"sub": strings.Repeat("x", 5000)}), 401, "invalid_client", 70021, ""},
		{"half of an expression", w.user.Client, w.good(map[string]any{"sub": "job:1"}), 401, "invalid_client", 70021, ""},
		{"expired", w.user.Client, w.good(map[string]any{"exp": start.Add(-5 * time.Minute).Unix()}), 401, "invalid_client", 700024, "it expired at"},
		{"not yet valid", w.user.Client, w.good(map[string]any{"nbf": start.Add(6 * time.Minute).Unix()}), 401, "invalid_client", 700024, "not valid before"},
		{"issued in the future", w.user.Client, w.good(map[string]any{"iat": start.Add(6 * time.Minute).Unix()}), 401, "invalid_client", 700024, "issued at"},
		{"an unknown client", nowhere, w.good(nil), 400, "unauthorized_client", 700016, nowhere},
		{"no GUID", "shared", w.good(nil), 400, "unauthorized_client", 700016, ""},
		{"the object id", w.user.ID, w.good(nil), 400, "unauthorized_client", 700016, ""},
		{"another tenant's client", w.other.Client, w.good(nil), 400, "unauthorized_client", 700016, ""},
		{"an identity without credentials", w.system.Client, w.good(nil), 401, "invalid_client", 700211, ""},
	} {
		before := len(w.events(t, tenantA))
		got := w.refused(t, tt.what, w.show(t, tt.client, tt.raw), tt.status, tt.word, tt.code)
		if !strings.Contains(got, tt.says) {
			t.Errorf("%s: %s, want %q", tt.what, got, tt.says)
		}
		if evs := w.events(t, tenantA); len(evs) != before+1 || evs[before].Outcome != audit.Refused || evs[before].Reason == "" {
			t.Errorf("%s: on record: %+v", tt.what, evs[before:])
		}
	}
	if n := other.Asked.Load(); n != 0 {
		t.Errorf("an issuer that no credential trusts was asked %d times", n)
	}
	for what, changes := range map[string]map[string]any{
		"within the leeway of expiry": {"exp": start.Add(-4 * time.Minute).Unix()},
		"within that of nbf":          {"nbf": start.Add(4 * time.Minute).Unix()},
		"one of several audiences":    {"aud": []string{"x", exchangeAudience}},
	} {
		if got := w.show(t, w.user.Client, w.good(changes)); got.status != 200 {
			t.Errorf("%s: %s", what, got.text)
		}
	}
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeleteFederatedCredential(w.user.ID, "jobs") })
	w.refused(t, "a subject, without expressions", w.show(t, w.user.Client, w.good(map[string]any{"sub": "pod:web2"})), 401, "invalid_client", 700213)
	for what, change := range map[string][2]string{"no type": {"client_assertion_type", ""}, "another type": {"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}} {
		if got := w.show(t, w.user.Client, w.good(nil), change[0], change[1]); got.status != 400 {
			t.Errorf("%s: %d %s, want 400", what, got.status, got.text)
		}
	}
}

// TestIssuerIsAskedForTrustedTokensOnly: nobody's word but a credential's makes
// us open a connection, and a disabled identity's does not.
func TestIssuerIsAskedForTrustedTokensOnly(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	w.show(t, nowhere, w.good(nil))
	w.show(t, w.system.Client, w.good(nil))
	w.show(t, w.user.Client, "x.y.z")
	p := w.user
	p.Enabled = false
	w.put(t, p)
	w.refused(t, "disabled", w.show(t, w.user.Client, w.good(nil)), 401, "unauthorized_client", 7000112)
	if n := w.issuer.Asked.Load(); n != 0 {
		t.Errorf("the issuer was asked %d times", n)
	}
}

// TestIssuerIsDown: clients try again, soon, and it is on record.
func TestIssuerIsDown(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	w.issuer.Serve = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(500); return true }
	got := w.show(t, w.user.Client, w.good(nil))
	w.refused(t, "down", got, 503, "temporarily_unavailable", 90033)
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After = %q: clients in JavaScript stay away for a minute without one", got.header.Get("Retry-After"))
	}
	if ev := w.last(t); ev.Outcome != audit.Refused || !strings.Contains(ev.Reason, "status 500") || !strings.Contains(ev.Reason, w.issuer.URL) {
		t.Errorf("on record: %+v", ev)
	}
	w.issuer.Serve = nil
	w.set(start.Add(issuer.Again))
	w.show(t, w.user.Client, w.good(nil)).token(t)
}

func TestIssuerChangesItsKeys(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	old := w.good(nil)
	w.show(t, w.user.Client, old).token(t)
	w.issuer.Rotate()
	w.set(start.Add(issuer.Again))
	w.show(t, w.user.Client, w.good(nil)).token(t)
	w.refused(t, "signed with the old key", w.show(t, w.user.Client, old), 401, "invalid_client", 50027)
}

// TestRemovedCredentialTakesTheTokensThatAreOut, and so does one that trusts
// others from now on; one that is written again does not.
func TestRemovedCredentialTakesTheTokensThatAreOut(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	web := w.show(t, w.user.Client, w.good(nil)).token(t)
	job := w.show(t, w.user.Client, w.good(map[string]any{"sub": "job:1", "env": "prod"})).token(t)
	check := func(when, raw string, want problem.Kind) {
		t.Helper()
		if err := w.use(t, raw); want == "" && err != nil || want != "" && !problem.Is(err, want) {
			t.Errorf("%s: %v, want %q", when, err, want)
		}
	}
	w.trust(t, w.user, "web", "pod:web", "")
	check("written again", web, "")
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeleteFederatedCredential(w.user.ID, "web") })
	check("removed", web, problem.Revoked)
	check("another was removed", job, "")
	w.trust(t, w.user, "jobs", "", "claims['sub'] matches 'job:*'")
	check("changed", job, problem.Revoked)
	again := w.show(t, w.user.Client, w.good(map[string]any{"sub": "job:1"})).token(t)
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(w.user.ID) })
	check("its identity is deleted", again, problem.Revoked)
	w.refused(t, "after that", w.show(t, w.user.Client, w.good(nil)), 400, "unauthorized_client", 700016)
}

// TestOwnTokenIsAnAssertion: a machine's identity stands for another one, where a
// credential says so; its token is checked as every token of ours is, and
// nobody is asked.
func TestOwnTokenIsAnAssertion(t *testing.T) {
	t.Parallel()
	w := newFederated(t)
	own := func(issuer string) federation.Credential {
		return federation.Credential{Trust: "own", Name: "own", Issuer: issuer, Subject: w.system.ID, Audiences: []string{exchangeAudience}}
	}
	w.credential(t, w.user, own(w.sts.IssuerV2(tenantA)))
	raw := w.issue(t, exchangeAudience).Token
	out := w.show(t, w.user.Client, raw).token(t)
	if err := w.use(t, out); err != nil {
		t.Fatal(err)
	}
	if err := w.use(t, raw); !problem.Is(err, problem.WrongAudience) {
		t.Errorf("the token to exchange, at a vault: %v", err)
	}
	// One that was shown to an API is not one to exchange, though a credential
	// may have its audience.
	c := own(w.sts.IssuerV2(tenantA))
	c.Audiences, c.Trust = []string{"https://vault.azure.net", exchangeAudience}, "own2"
	w.credential(t, w.user, c)
	w.refused(t, "a vault's token", w.show(t, w.user.Client, w.issue(t, "https://vault.azure.net").Token), 401, "invalid_client", 700211)
	// One that is signed by another tenant's key.
	c = own(w.sts.IssuerV1(tenantA))
	c.Name, c.Trust = "v1", "v1"
	w.credential(t, w.user, c)
	foreign, err := w.sts.Ring.Signer(t.Context(), tenantB)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := token.Mint(token.Claims{
		Audience: exchangeAudience, Issuer: w.sts.IssuerV1(tenantA), IssuedAt: start.Unix(), Expires: start.Unix() + 60,
		ObjectID: w.system.ID, Subject: w.system.ID, TenantID: tenantA, Version: "1.0",
	}, foreign)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(t, "a forged one", w.show(t, w.user.Client, forged), 401, "invalid_client", 50027)
	w.refused(t, "a vault's token, version 1", w.show(t, w.user.Client, w.issue(t, "https://vault.azure.net").Token), 401, "invalid_client", 50027)
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(w.system.ID) })
	w.refused(t, "a deleted identity's", w.show(t, w.user.Client, raw), 401, "invalid_client", 50027)
	if n := w.issuer.Asked.Load(); n != 0 {
		t.Errorf("an issuer was asked %d times", n)
	}
}
