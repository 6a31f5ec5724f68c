package federation_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/federation"
)

// FuzzMatchingLanguage: an expression that is accepted means what a plain
// translation into a regular expression means.
func FuzzMatchingLanguage(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("repo:org/*", "repo:org/app")
	f.Add("it's", "it's")
	f.Add("**?*a", "aaa")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		c := by(federation.Matching, cluster, "claims['sub'] matches '"+strings.ReplaceAll(pattern, "'", "''")+"'")
		if c.Check() != nil || len(value) > 4096 || !utf8.ValidString(value) {
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)^`)
		for _, r := range pattern {
			switch r {
			case '*':
				re.WriteString(".*")
			case '?':
				re.WriteString(".")
			default:
				re.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
		want := regexp.MustCompile(re.String() + `$`).MatchString(value)
		got := c.Match(federation.Claims{Issuer: cluster, Audience: []string{exchange}, All: map[string]any{"sub": value}})
		if got.Matches != want {
			t.Errorf("%q matches %q = %v, want %v", pattern, value, got.Matches, want)
		}
	})
}

// FuzzExpression: whatever the texts, nothing panics, what is refused at a write
// holds for no token, and there is a reason.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		"claims['sub'] eq 'a' and claims['b'] matches '*c'", `sub == "a" && claims.x.all(y, y > 1)`, `sub.matches("^a$")`,
		`claims.x + claims.x == claims["x"] ? true : sub == ""`, `[1,2].map(x, x).exists(x, x == size(sub))`, `{"a": sub}["a"] == sub`,
	} {
		f.Add(true, s, token)
		f.Add(false, s, token)
	}
	f.Fuzz(func(t *testing.T, cel bool, text, payload string) {
		cl, err := federation.ParseClaims([]byte(payload))
		if err != nil {
			return
		}
		c := by(federation.Matching, cluster, text)
		if cel {
			c.Expression.Language = federation.CEL
		}
		good := c.Check() == nil
		v := c.Match(cl)
		for _, f := range v.Findings {
			if f.Why == "" || f.Part == "expression" && f.Matches && !good {
				t.Errorf("%q: %+v, though it is refused: %v", text, f, !good)
			}
		}
	})
}

// FuzzClaims: what is read is what encoding/json reads.
func FuzzClaims(f *testing.F) {
	f.Add(token)
	f.Add(`{"aud":["a"],"exp":1.5,"x":{"y":[null,true]}}`)
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := federation.ParseClaims([]byte(payload))
		if err != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(payload), &m); err != nil {
			t.Fatalf("%q is no JSON, and was read: %v", payload, err)
		}
		if s, _ := m["sub"].(string); s != c.Subject || len(m) != len(c.All) {
			t.Errorf("%q: subject %q and %d claims, want %q and %d", payload, c.Subject, len(c.All), s, len(m))
		}
	})
}
