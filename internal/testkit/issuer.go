package testkit

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is somebody else's OpenID Connect issuer, on loopback with TLS. It has
// one key at a time. Its fields may be changed by the test while nobody asks.
type Issuer struct {
	// URL is the issuer's name, the iss of its tokens.
	URL string
	// Asked counts the requests that came.
	Asked atomic.Int64
	// Serve, if set, answers instead, and says whether it did.
	Serve func(w http.ResponseWriter, r *http.Request) bool

	t   testing.TB
	srv *httptest.Server
	mu  sync.Mutex
	n   int
	key *rsa.PrivateKey
}

// NewIssuer starts an issuer that ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t}
	i.Rotate()
	i.srv = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.srv.Close)
	i.URL = i.srv.URL + "/realm"
	return i
}

// PEM is the certificate to trust for the issuer.
func (i *Issuer) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.srv.Certificate().Raw})
}

// Rotate has the issuer sign with another key, and publish it alone.
func (i *Issuer) Rotate() {
	i.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n, i.key = i.n+1, key
}

// Key is the key that signs now, and its kid.
func (i *Issuer) Key() (*rsa.PrivateKey, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.key, "key-" + strconv.Itoa(i.n)
}

// JWKS is the issuer's key set.
func (i *Issuer) JWKS() jose.JSONWebKeySet {
	key, kid := i.Key()
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Use: "sig", Algorithm: "RS256"}}}
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.Asked.Add(1)
	if i.Serve != nil && i.Serve(w, r) {
		return
	}
	var v any
	switch r.URL.Path {
	case "/realm/.well-known/openid-configuration":
		v = map[string]any{"issuer": i.URL, "jwks_uri": i.srv.URL + "/keys"}
	case "/keys":
		v = i.JWKS()
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who went away needs no answer
}

// Claims are a good token's at a time, for a subject, with others besides.
func (i *Issuer) Claims(at time.Time, subject string, others map[string]any) map[string]any {
	c := map[string]any{
		"iss": i.URL, "sub": subject, "aud": "api://AzureADTokenExchange",
		"iat": at.Unix(), "nbf": at.Unix(), "exp": at.Add(10 * time.Minute).Unix(),
	}
	maps.Copy(c, others)
	return c
}

// Token is a token with these claims, signed by the key that signs now.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	key, kid := i.Key()
	return i.Sign(claims, jose.RS256, key, kid)
}

// Sign signs claims with any key. claims is encoded as JSON, unless it is bytes.
func (i *Issuer) Sign(claims any, alg jose.SignatureAlgorithm, key any, kid string) string {
	i.t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		i.t.Fatal(err)
	}
	payload, ok := claims.([]byte)
	if !ok {
		if payload, err = json.Marshal(claims); err != nil {
			i.t.Fatal(err)
		}
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		i.t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return raw
}
