package token_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/token"
)

// attack is a token that nobody may believe. All are refused in the same
// words: an attacker learns nothing from them, and nothing of the token is in them.
type attack struct{ name, raw string }

func refuseAll(t *testing.T, attacks []attack) {
	t.Helper()
	if _, err := token.Verify(forge(t, keys().a, header, payload), expect()); err != nil {
		t.Fatalf("the token that the attacks change is itself refused: %v", err)
	}
	for _, tt := range attacks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := token.Verify(tt.raw, expect())
			if !problem.Is(err, problem.Unauthenticated) {
				t.Fatalf("Verify(%s) = %+v, %v; want %s", tt.raw, c, err, problem.Unauthenticated)
			}
			for part := range strings.SplitSeq(tt.raw, ".") {
				if len(part) > 12 && strings.Contains(err.Error(), part) {
					t.Errorf("the error repeats the token: %v", err)
				}
			}
		})
	}
}

func TestAlgorithmsAreNotTheTokensChoice(t *testing.T) {
	t.Parallel()
	der, err := x509.MarshalPKIXPublicKey(keys().a.Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(&keys().a.PublicKey)
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	none := func([]byte) ([]byte, error) { return nil, nil }
	hs := headerWith("HS256", "")
	attacks := []attack{
		{"HS256 with the public key's DER", forgeAs(t, hs, payload, hmacWith(der))},
		{"HS256 with the public key's PKCS#1", forgeAs(t, hs, payload, hmacWith(pkcs1))},
		{"HS256 with the public key's PEM", forgeAs(t, hs, payload, hmacWith(text))},
		{"HS256 with the PEM, trimmed", forgeAs(t, hs, payload, hmacWith([]byte(strings.TrimSpace(string(text)))))},
		{"HS256 with the modulus", forgeAs(t, hs, payload, hmacWith(keys().a.N.Bytes()))},
		{"HS256 with an empty secret", forgeAs(t, hs, payload, hmacWith(nil))},
		{"RS384 with the right key", forgeAs(t, headerWith("RS384", ""), payload, rsaWith(crypto.SHA384, false))},
		{"RS512 with the right key", forgeAs(t, headerWith("RS512", ""), payload, rsaWith(crypto.SHA512, false))},
		{"PS256 with the right key", forgeAs(t, headerWith("PS256", ""), payload, rsaWith(crypto.SHA256, true))},
		{"RS1 with the right key", forgeAs(t, headerWith("RS1", ""), payload, rsaWith(crypto.SHA1, false))},
		{"PS256 that says RS256", forgeAs(t, header, payload, rsaWith(crypto.SHA256, true))},
		{"RS512 that says RS256", forgeAs(t, header, payload, rsaWith(crypto.SHA512, false))},
		{"ES256", forgeAs(t, headerWith("ES256", ""), payload, ecdsaSign)},
		{"ES256 that says RS256", forgeAs(t, header, payload, ecdsaSign)},
		{"no algorithm", forge(t, keys().a, `{"typ":"JWT","kid":"key-a"}`, payload)},
		{"an algorithm that is no text", forge(t, keys().a, `{"alg":["RS256"],"kid":"key-a"}`, payload)},
		{"two algorithms", forge(t, keys().a, `{"alg":"none","alg":"RS256","kid":"key-a"}`, payload)},
		{"the algorithm in another case", forge(t, keys().a, headerWith("rs256", ""), payload)},
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		attacks = append(attacks,
			attack{"alg " + alg + " without signature", forgeAs(t, headerWith(alg, ""), payload, none)},
			attack{"alg " + alg + " with signature", forge(t, keys().a, headerWith(alg, ""), payload)})
	}
	refuseAll(t, attacks)
}

// TestKeysAreNotTheTokensChoice: the headers that bring or name a key. The
// stranger's key is good, only not ours.
func TestKeysAreNotTheTokensChoice(t *testing.T) {
	t.Parallel()
	stranger := keys().stranger
	jwk, err := (&jose.JSONWebKey{Key: stranger.Public(), KeyID: "key-a", Algorithm: "RS256", Use: "sig"}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var attacks []attack
	for name, more := range map[string]string{
		"no more than kid":                "",
		"jwk":                             `,"jwk":` + string(jwk),
		"jku":                             `,"jku":"https://evil.test/keys"`,
		"x5u":                             `,"x5u":"https://evil.test/cert.pem"`,
		"x5c":                             `,"x5c":["` + base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&stranger.PublicKey)) + `"]`,
		"x5t of the tenant's key":         `,"x5t":"key-a"`,
		"iss in the header":               `,"iss":"https://evil.test"`,
		"jwk as text":                     `,"jwk":"` + b64(string(jwk)) + `"`,
		"jku into the installation's net": `,"jku":"http://169.254.169.254/keys"`,
	} {
		attacks = append(attacks, attack{name, forge(t, stranger, headerWith("RS256", more), payload)})
	}
	for name, kid := range map[string]string{
		"kid of another tenant's key": `"key-b"`, "unknown kid": `"key-c"`, "empty kid": `""`, "kid that is no text": `7`,
		"kid as a path": `"../../../../dev/null"`, "kid as SQL": `"' OR '1'='1"`, "kid with NUL": `"key-a\u0000"`, "kid in another case": `"KEY-A"`,
	} {
		attacks = append(attacks, attack{name, forge(t, keys().a, `{"alg":"RS256","kid":`+kid+`}`, payload)})
	}
	ofB := strings.ReplaceAll(payload, tenantA, tenantB)
	attacks = append(attacks,
		attack{"no kid", forge(t, keys().a, `{"alg":"RS256","typ":"JWT"}`, payload)},
		attack{"two kids", forge(t, keys().a, `{"alg":"RS256","kid":"key-b","kid":"key-a"}`, payload)},
		attack{"A's key and kid, B's tenant", forge(t, keys().a, header, ofB)},
		attack{"A's key, B's kid and tenant", forge(t, keys().a, `{"alg":"RS256","kid":"key-b"}`, ofB)},
		attack{"B's key and kid, A's tenant", forge(t, keys().b, `{"alg":"RS256","kid":"key-b"}`, payload)},
		attack{"B's key, kid and tid, A's issuer", forge(t, keys().b, `{"alg":"RS256","kid":"key-b"}`, strings.ReplaceAll(payload, `"tid":"`+tenantA, `"tid":"`+tenantB))},
	)
	refuseAll(t, attacks)
}

func TestCriticalHeadersAreRefused(t *testing.T) {
	t.Parallel()
	var attacks []attack
	for _, more := range []string{
		`,"crit":["exp"],"exp":1`, `,"crit":["b64"],"b64":false`, `,"crit":[]`, `,"crit":"exp"`, `,"crit":["alg"]`,
		`,"crit":["kid"]`, `,"crit":["exp","exp"],"exp":1`, `,"crit":["innate"],"innate":true`, `,"b64":false`, `,"zip":"DEF","crit":["zip"]`,
	} {
		attacks = append(attacks, attack{more, forge(t, keys().a, headerWith("RS256", more), payload)})
	}
	refuseAll(t, attacks)
}

// TestOneTokenHasOneText: another text of the same token would pass by whatever
// knows tokens by their text.
func TestOneTokenHasOneText(t *testing.T) {
	t.Parallel()
	raw := forge(t, keys().a, header, payload)
	h, p, s := parts(raw)
	sig, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	// 256 bytes leave four bits in the last of 342 letters.
	last := strings.IndexByte(letters, s[len(s)-1])
	other := s[:len(s)-1] + string(letters[last|1])
	if b, err := base64.RawURLEncoding.DecodeString(other); err != nil || string(b) != string(sig) || other == s {
		t.Fatal("the test's other text is not one")
	}
	refuseAll(t, []attack{
		{"empty", ""}, {"a dot", "."}, {"two dots", ".."}, {"three dots", "..."},
		{"space before", " " + raw}, {"space after", raw + " "}, {"line break after", raw + "\n"}, {"tab before", "\t" + raw},
		{"line break in the header", h[:4] + "\n" + h[4:] + "." + p + "." + s},
		{"line break in the claims", h + "." + p[:4] + "\r\n" + p[4:] + "." + s},
		{"line break in the signature", h + "." + p + "." + s[:4] + "\n" + s[4:]},
		{"padded signature", raw + "=="}, {"padded header", h + "=." + p + "." + s},
		{"loose bits in the signature", h + "." + p + "." + other},
		{"standard base64", h + "." + p + "." + base64.RawStdEncoding.EncodeToString(sig)},
		{"without signature", h + "." + p}, {"empty signature", h + "." + p + "."}, {"signature cut", raw[:len(raw)-4]},
		{"signature twice", raw + "." + s}, {"signature longer", raw + "AAAA"}, {"NUL", raw + "\x00"}, {"Bearer", "Bearer " + raw},
		{"percent-encoded", strings.ReplaceAll(raw, ".", "%2E")},
		{"letter outside ASCII", raw[:len(raw)-1] + "Ａ"},
		{"JSON, flattened", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, p, s)},
		{"JSON, general", fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p, h, s)},
		{"JSON, two signatures", fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":"AAAA"},{"protected":%q,"signature":%q}]}`, p, h, h, s)},
		{"JSON, unprotected header", fmt.Sprintf(`{"header":%s,"payload":%q,"signature":%q}`, header, p, s)},
		{"encrypted", encrypted(t)},
	})
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// encrypted is the claims as a JWE for the tenant's own key, which anybody can make.
func encrypted(t *testing.T) string {
	t.Helper()
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: keys().a.Public(), KeyID: "key-a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := enc.Encrypt([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := obj.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSignatureIsOfThisTextByThisKey(t *testing.T) {
	t.Parallel()
	raw := forge(t, keys().a, header, payload)
	h, p, s := parts(raw)
	_, otherP, otherS := parts(forge(t, keys().a, header, strings.Replace(payload, oid, tenantB, 1)))
	zero := b64(string(make([]byte, 256)))
	plusN := new(big.Int).SetBytes(decode(t, s))
	plusN.Add(plusN, keys().a.N) // the same number to the mathematics
	refuseAll(t, []attack{
		{"claims of another", h + "." + otherP + "." + s},
		{"signature of another", h + "." + p + "." + otherS},
		{"all zero", h + "." + p + "." + zero},
		{"plus the modulus", h + "." + p + "." + b64(string(plusN.Bytes()))},
		{"shorter by its first byte", h + "." + p + "." + b64(string(decode(t, s)[1:]))},
		{"with a zero before", h + "." + p + "." + b64("\x00"+string(decode(t, s)))},
		{"header with the members in another order", b64(`{"typ":"JWT","alg":"RS256","kid":"key-a"}`) + "." + p + "." + s},
	})
	for i := range len(raw) {
		if raw[i] == '.' {
			continue
		}
		c := letters[(strings.IndexByte(letters, raw[i])+1)%64]
		if _, err := token.Verify(raw[:i]+string(c)+raw[i+1:], expect()); err == nil {
			t.Errorf("with letter %d of %d changed it verifies", i, len(raw))
		}
	}
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
