// Package token is access tokens: their claims, how they are made ([Mint]) and
// how they are checked ([Verify]). It is the only importer of the JOSE library
// beside keyring.
//
// The claims follow the two shapes that the field's clients and APIs expect:
// version 1 (ARM, Key Vault, Storage: aud is the resource as asked for) and
// version 2 (registered APIs that chose it: aud is the API's client id). Which
// one is the API's choice, never the client's.
package token

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/innate-id/innate/internal/problem"
)

// MaxLen is the longest token that is looked at, in bytes.
const MaxLen = 16 << 10

// Backdate is how far before its issue a token is already valid, so that a
// machine whose clock is a little behind does not refuse it.
const Backdate = 5 * time.Minute

// Claims are the claims of an access token, both versions. Times are unix
// seconds (RFC 7519 section 2, NumericDate).
type Claims struct {
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	IssuedAt int64  `json:"iat"`
	// NotBefore is [Backdate] before the issue.
	NotBefore int64 `json:"nbf"`
	Expires   int64 `json:"exp"`
	// AppID and AppIDACR are version 1's names, AZP and AZPACR version 2's, for
	// the client id and how the client authenticated ("2": a certificate or
	// key that it holds).
	AppID    string `json:"appid,omitempty"`
	AppIDACR string `json:"appidacr,omitempty"`
	AZP      string `json:"azp,omitempty"`
	AZPACR   string `json:"azpacr,omitempty"`
	// IDP is in version 1 only.
	IDP string `json:"idp,omitempty"`
	// IDType is "app": no user is behind the token.
	IDType string `json:"idtyp"`
	// Caller is the local program that the token was given to, as the agent's
	// evidence has it.
	Caller string `json:"innate_caller,omitempty"`
	// Host is the name of the machine that the token was asked for by, and
	// Placement the resource ID of the statement on it that said whose it is.
	Host      string `json:"innate_host,omitempty"`
	Placement string `json:"innate_placement,omitempty"`
	// Credential names the federated credential that the token was issued by, as
	// what it said then.
	Credential string `json:"innate_credential,omitempty"`
	// ObjectID and Subject are both the principal.
	ObjectID string `json:"oid"`
	Subject  string `json:"sub"`
	TenantID string `json:"tid"`
	// ID is unique to the token.
	ID      string `json:"uti"`
	Version string `json:"ver"`
	// IdentityResource is the resource ID that the identity belongs to.
	IdentityResource string `json:"xms_mirid,omitempty"`
	// AskedBy is the resource that asked with an identity that is not its own
	// alone: a user-assigned one, or that of its scale set.
	AskedBy string `json:"xms_az_rid,omitempty"`
}

// Client returns the client id of either version.
func (c Claims) Client() string {
	if c.AppID != "" {
		return c.AppID
	}
	return c.AZP
}

// Signer signs with one key. Key is an RSA private key's [crypto.Signer].
type Signer struct {
	KeyID string
	Key   crypto.Signer
}

// NewID returns a token id: 128 random bits in base64url, 22 characters.
func NewID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Mint signs claims with RS256 (RFC 7518 section 3.3). Version 1 tokens carry
// x5t beside kid, as their readers expect.
func Mint(c Claims, s Signer) (string, error) {
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", s.KeyID)
	if c.Version == "1.0" {
		opts = opts.WithHeader("x5t", s.KeyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: opaque(s)}, opts)
	if err != nil {
		return "", fmt.Errorf("preparing to sign a token with key %s: %w", s.KeyID, err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encoding the claims of a token: %w", err)
	}
	// Not the library's builder: it goes through a map, which has no order.
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing a token with key %s: %w", s.KeyID, err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("signing a token with key %s: %w", s.KeyID, err)
	}
	if len(raw) > MaxLen {
		return "", fmt.Errorf("signing a token with key %s: it is %d bytes long, and none over %d is looked at", s.KeyID, len(raw), MaxLen)
	}
	return raw, nil
}

// Expect is what a token must satisfy.
type Expect struct {
	// Tenant is the tenant's id; "" takes any tenant that Keys knows.
	Tenant string
	// Issuers are the accepted values of iss, given the token's tid.
	Issuers func(tenant string) []string
	// Audience reports whether aud names the API that checks.
	Audience func(aud string) bool
	// Key returns the public key with this kid in the tenant; ok is false if it
	// is not published.
	Key func(tenant, kid string) (key crypto.PublicKey, ok bool)
	Now time.Time
}

// leeway is what a verifier of ours forgives another clock of ours.
const leeway = 30 * time.Second

// Verify checks signature, issuer, tenant, audience and times. Its errors are
// [problem.Unauthenticated], [problem.TokenExpired] or [problem.WrongAudience],
// and never hold the token.
func Verify(raw string, e Expect) (Claims, error) {
	tok, err := parse(raw)
	if err != nil {
		return Claims{}, err
	}
	var c Claims
	if err := tok.UnsafeClaimsWithoutVerification(&c); err != nil {
		return Claims{}, problem.Errorf(problem.Unauthenticated, "the token's claims are not those of an access token")
	}
	if c.TenantID == "" || e.Tenant != "" && !strings.EqualFold(c.TenantID, e.Tenant) {
		return Claims{}, problem.Errorf(problem.Unauthenticated, "the token is of another tenant")
	}
	key, ok := e.Key(c.TenantID, tok.Headers[0].KeyID)
	if !ok {
		return Claims{}, problem.Errorf(problem.Unauthenticated, "the token's key is not one of the tenant's keys")
	}
	var verified Claims
	if err := tok.Claims(key, &verified); err != nil {
		return Claims{}, problem.Errorf(problem.Unauthenticated, "the token's signature does not verify")
	}
	return verified, e.check(verified)
}

// parse reads raw, which nothing vouches for yet.
func parse(raw string) (*jwt.JSONWebToken, error) {
	if len(raw) > MaxLen {
		return nil, problem.Errorf(problem.Unauthenticated, "the token is over %d bytes long", MaxLen)
	}
	// One token has one text. The library also takes line breaks between the
	// letters, and bits after the last byte that mean nothing.
	for part := range strings.SplitSeq(raw, ".") {
		if _, err := strict.DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, problem.Errorf(problem.Unauthenticated, "the token is not a JWT signed with RS256")
		}
	}
	// Only RS256: "none" and HMAC under a public key never get as far as a key.
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, problem.Errorf(problem.Unauthenticated, "the token is not a JWT signed with RS256")
	}
	if _, ok := tok.Headers[0].ExtraHeaders["crit"]; ok {
		return nil, problem.Errorf(problem.Unauthenticated, "the token has a critical header, and Innate knows none")
	}
	return tok, nil
}

var strict = base64.RawURLEncoding.Strict()

func (e Expect) check(c Claims) error {
	now := e.Now.Unix()
	slack := int64(leeway / time.Second)
	switch {
	case !slices.Contains(e.Issuers(c.TenantID), c.Issuer):
		return problem.Errorf(problem.Unauthenticated, "the token's issuer is not this installation")
	case c.ObjectID == "" || c.Expires == 0 || c.IssuedAt == 0:
		return problem.Errorf(problem.Unauthenticated, "the token lacks oid, iat or exp")
	case now >= c.Expires:
		return problem.Errorf(problem.TokenExpired, "the token expired at %s", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	// The time of issue is what a revocation is compared with.
	case now+slack < c.NotBefore || now+slack < c.IssuedAt:
		return problem.Errorf(problem.Unauthenticated, "the token is not valid yet")
	case !e.Audience(c.Audience):
		return problem.Errorf(problem.WrongAudience, "the token is for another API")
	}
	return nil
}
