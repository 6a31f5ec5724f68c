package token_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/token"
)

// TestKeySetsAreSifted: what cannot verify a signature is left out, and no
// reason to lose the others.
func TestKeySetsAreSifted(t *testing.T) {
	t.Parallel()
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	var raw []json.RawMessage
	for _, k := range []jose.JSONWebKey{
		{Key: good.Public(), KeyID: "good", Use: "sig"}, {Key: good.Public(), KeyID: "any use"}, {Key: good.Public(), KeyID: "to encrypt", Use: "enc"},
		{Key: weak.Public(), KeyID: "weak"}, {Key: []byte("a secret"), KeyID: "symmetric"}, {Key: good, KeyID: "private"},
	} {
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, b)
	}
	raw = append(raw, json.RawMessage(`{"kty":"nonsense","kid":"unknown"}`), json.RawMessage(`5`), json.RawMessage(`{"kty":"RSA","kid":"broken","n":"","e":""}`))
	set, err := json.Marshal(map[string]any{"keys": raw})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.ParseKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.ID)
	}
	if len(got) != 2 || got[0] != "good" || got[1] != "any use" {
		t.Errorf("keys are %q, want good and any use", got)
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"keys":5}`, `{"keys":null}`} {
		if _, err := token.ParseKeys([]byte(bad)); !problem.Is(err, problem.Unavailable) {
			t.Errorf("ParseKeys(%s): %v, want unavailable", bad, err)
		}
	}
}

// FuzzAssertion: nothing that was not signed with the key verifies.
func FuzzAssertion(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		f.Fatal(err)
	}
	payload := []byte(`{"iss":"https://i.example","sub":"s"}`)
	jws, err := signer.Sign(payload)
	if err != nil {
		f.Fatal(err)
	}
	good, err := jws.CompactSerialize()
	if err != nil {
		f.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
	if err != nil {
		f.Fatal(err)
	}
	keys, err := token.ParseKeys(set)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := token.ParseAssertion(raw)
		if err != nil {
			return
		}
		k, ok := a.Find(keys)
		if !ok {
			return
		}
		if got, err := a.Verify(k); err == nil && (raw != good || !bytes.Equal(got, payload)) {
			t.Errorf("%q verifies", raw)
		}
	})
}
