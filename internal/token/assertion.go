package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/innate-id/innate/internal/problem"
)

// What follows is of tokens that others sign, to be shown as a client's credential
// (RFC 7523): other algorithms than ours, keys that the issuer publishes, and
// claims that mean nothing here until their signature verifies.

// foreignAlgs are how a foreign token may be signed: with a private key. "none",
// and HMAC under what is public, never get as far as a key.
var foreignAlgs = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512,
}

// maxKeys bounds the keys of one issuer.
const maxKeys = 100

// Assertion is a foreign token that nothing vouches for yet.
type Assertion struct {
	// KeyID is the header's kid; "" if it has none.
	KeyID string
	jws   *jose.JSONWebSignature
}

// ParseAssertion reads a foreign token. Its errors are [problem.Unauthenticated]
// and never hold the token.
func ParseAssertion(raw string) (*Assertion, error) {
	if len(raw) > MaxLen {
		return nil, problem.Errorf(problem.Unauthenticated, "the assertion is over %d bytes long", MaxLen)
	}
	parts := strings.Split(raw, ".")
	for _, part := range parts {
		if _, err := strict.DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, notSigned()
		}
	}
	if len(parts) != 3 {
		return nil, notSigned()
	}
	jws, err := jose.ParseSignedCompact(raw, foreignAlgs)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, notSigned()
	}
	h := jws.Signatures[0].Protected
	if _, ok := h.ExtraHeaders["crit"]; ok {
		return nil, problem.Errorf(problem.Unauthenticated, "the assertion has a critical header, and Innate knows none")
	}
	return &Assertion{KeyID: h.KeyID, jws: jws}, nil
}

func notSigned() error {
	return problem.Errorf(problem.Unauthenticated, "the assertion is not a JWT signed with RS, PS or ES and SHA-256, 384 or 512")
}

// Unverified is the payload, of which nothing is true yet: it says whom to ask
// for the key.
func (a *Assertion) Unverified() []byte { return a.jws.UnsafePayloadWithoutVerification() }

// Verify returns the payload if the key signed it.
func (a *Assertion) Verify(k Key) ([]byte, error) {
	bad := problem.Errorf(problem.Unauthenticated, "the assertion's signature does not verify")
	if k.alg != "" && k.alg != a.jws.Signatures[0].Protected.Algorithm {
		return nil, bad
	}
	payload, err := a.jws.Verify(k.key)
	if err != nil {
		return nil, bad
	}
	return payload, nil
}

// Key is a public key that an issuer publishes.
type Key struct {
	ID  string
	alg string // the one that it is for; "" for any of its kind
	key crypto.PublicKey
}

// ParseKeys reads a JSON Web Key Set (RFC 7517 section 5) and leaves out what
// verifies no signature here: keys of other kinds or uses, secrets, RSA under
// 2048 bits. The error says that it is no key set.
func ParseKeys(set []byte) ([]Key, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(set, &doc); err != nil || doc.Keys == nil {
		return nil, problem.Errorf(problem.Unavailable, "the key set is not one: JSON with a list \"keys\" was expected")
	}
	if len(doc.Keys) > maxKeys {
		return nil, problem.Errorf(problem.Unavailable, "the key set has %d keys; at most %d are looked at", len(doc.Keys), maxKeys)
	}
	var out []Key
	for _, raw := range doc.Keys {
		var k jose.JSONWebKey
		// One key that is not understood is no reason to lose the others.
		if err := json.Unmarshal(raw, &k); err == nil && k.Valid() && k.IsPublic() && (k.Use == "" || k.Use == "sig") && strong(k.Key) {
			out = append(out, Key{ID: k.KeyID, alg: k.Algorithm, key: k.Key})
		}
	}
	return out, nil
}

func strong(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192
	case *ecdsa.PublicKey:
		return true
	}
	return false
}

// Find returns the key that the assertion names. One that names none is taken
// for the only key's, where there is but one.
func (a *Assertion) Find(keys []Key) (Key, bool) {
	if a.KeyID == "" && len(keys) == 1 {
		return keys[0], true
	}
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == a.KeyID && a.KeyID != "" })
	if i < 0 {
		return Key{}, false
	}
	return keys[i], true
}
