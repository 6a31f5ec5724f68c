package token

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// elsewhere are the vectors that are refused for what their JWK says. Our keys
// never come as JWKs: they are read from the ring, which made them, and are all
// for signing.
var elsewhere = map[string]bool{
	"rejectWrongUse":                  true,
	"rejectWrongKeyOps":               true,
	"rejectsKeyWithRocaVulnerability": true,
}

// TestWycheproof runs the vectors through the same two steps as [Verify]. Their
// payloads are no claims, so it looks at whether the signature verified.
func TestWycheproof(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"json_web_signature_test.json", "json_web_crypto_test.json"} {
		b, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var vectors struct {
			TestGroups []struct {
				Comment string
				Public  jose.JSONWebKey
				Tests   []struct {
					ID      int `json:"tcId"`
					Comment string
					JWS     string
					Result  string
				}
			}
		}
		if err := json.Unmarshal(b, &vectors); err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for _, g := range vectors.TestGroups {
			for _, tt := range g.Tests {
				if elsewhere[tt.Comment] {
					continue
				}
				count[tt.Result]++
				if got, want := verifies(tt.JWS, g.Public.Key), tt.Result == "valid"; got != want {
					t.Errorf("%s: %s %d (%s) verifies = %v, want %v: %s", file, g.Comment, tt.ID, tt.Comment, got, want, tt.JWS)
				}
				if _, err := Verify(tt.JWS, Expect{}); err == nil {
					t.Errorf("%s: Verify takes %s %d (%s) for an access token", file, g.Comment, tt.ID, tt.Comment)
				}
			}
		}
		if count["valid"] == 0 || count["invalid"] == 0 {
			t.Errorf("%s: ran %v", file, count)
		}
	}
}

func verifies(raw string, key any) bool {
	tok, err := parse(raw)
	if err != nil {
		return false
	}
	var payload any
	err = tok.Claims(key, &payload)
	syntax := err != nil && !errors.Is(err, jose.ErrCryptoFailure) // what was signed is no JSON
	return err == nil || syntax
}
