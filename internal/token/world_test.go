package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/token"
)

const (
	tenantA = "aaaaaaaa-0000-0000-0000-00000000000a"
	tenantB = "bbbbbbbb-0000-0000-0000-00000000000b"
	login   = "https://login.innate.test:8443"
	vault   = "https://vault.azure.net"
	oid     = "11111111-0000-0000-0000-000000000001"
)

// now is when every test happens.
var now = time.Unix(1_790_000_000, 0).UTC()

// keys are one for each tenant, and one that nobody published. They are made
// once: making RSA keys is most of this package's time.
var keys = sync.OnceValue(func() (k struct{ a, b, stranger *rsa.PrivateKey }) {
	for _, to := range []**rsa.PrivateKey{&k.a, &k.b, &k.stranger} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		*to = key
	}
	return k
})

var ecKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// expect is what a vault of this installation expects: any tenant's tokens.
func expect() token.Expect {
	return token.Expect{
		Issuers:  func(t string) []string { return []string{login + "/" + t + "/", login + "/" + t + "/v2.0"} },
		Audience: func(aud string) bool { return aud == vault || aud == vault+"/" },
		Key: func(tenant, kid string) (crypto.PublicKey, bool) {
			switch {
			case tenant == tenantA && kid == "key-a":
				return keys().a.Public(), true
			case tenant == tenantB && kid == "key-b":
				return keys().b.Public(), true
			}
			return nil, false
		},
		Now: now,
	}
}

// good are the claims of a token of tenant A that expect accepts.
func good() token.Claims {
	return token.Claims{
		Audience: vault, Issuer: login + "/" + tenantA + "/", IssuedAt: now.Unix(), NotBefore: now.Add(-token.Backdate).Unix(), Expires: now.Add(time.Hour).Unix(),
		AppID: "c1", AppIDACR: "2", IDP: login + "/" + tenantA + "/", IDType: "app", ObjectID: oid, Subject: oid, TenantID: tenantA, ID: "u", Version: "1.0",
	}
}

func mint(t testing.TB, c token.Claims) string {
	t.Helper()
	raw, err := token.Mint(c, token.Signer{KeyID: "key-a", Key: keys().a})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// mintWith is mint of good with a change.
func mintWith(t testing.TB, change func(*token.Claims)) string {
	t.Helper()
	c := good()
	change(&c)
	return mint(t, c)
}

const (
	header  = `{"alg":"RS256","typ":"JWT","kid":"key-a"}`
	payload = `{"aud":"` + vault + `","iss":"` + login + "/" + tenantA + `/","iat":1790000000,"nbf":1790000000,"exp":1790003600,"oid":"` + oid + `","tid":"` + tenantA + `"}`
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge signs a header and a payload as they are with RS256.
func forge(t testing.TB, key *rsa.PrivateKey, header, payload string) string {
	t.Helper()
	return forgeAs(t, header, payload, func(in []byte) ([]byte, error) {
		sum := sha256.Sum256(in)
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	})
}

func forgeAs(t testing.TB, header, payload string, sign func(in []byte) ([]byte, error)) string {
	t.Helper()
	in := b64(header) + "." + b64(payload)
	sig, err := sign([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	return in + "." + b64(string(sig))
}

// headerWith is header with another algorithm and more members.
func headerWith(alg, more string) string {
	return fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":"key-a"%s}`, alg, more)
}

// hmacWith signs with a secret that an attacker can know: the public key's text.
func hmacWith(secret []byte) func([]byte) ([]byte, error) {
	return func(in []byte) ([]byte, error) {
		h := hmac.New(sha256.New, secret)
		h.Write(in)
		return h.Sum(nil), nil
	}
}

// rsaWith signs with tenant A's own key, in another way than RS256.
func rsaWith(h crypto.Hash, pss bool) func([]byte) ([]byte, error) {
	return func(in []byte) ([]byte, error) {
		d := h.New()
		d.Write(in)
		var opts crypto.SignerOpts = h
		if pss {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
		}
		return keys().a.Sign(rand.Reader, d.Sum(nil), opts)
	}
}

func ecdsaSign(in []byte) ([]byte, error) {
	sum := sha256.Sum256(in)
	r, s, err := ecdsa.Sign(rand.Reader, ecKey(), sum[:])
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), nil
}

// parts splits a compact token.
func parts(raw string) (h, p, s string) {
	v := strings.SplitN(raw, ".", 3)
	return v[0], v[1], v[2]
}
