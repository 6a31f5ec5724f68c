package federation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

const token = `{"iss":"https://oidc.cluster.example/id","sub":"system:serviceaccount:prod:web","aud":["other","api://AzureADTokenExchange"],
	"exp":1790000000,"kubernetes.io":{"namespace":"prod"},"groups":["ops","dev"],"job_workflow_ref":"org/x/.github/workflows/d.yml@refs/heads/main",
	"repository_id":"456789","n":9007199254740993,"star":"a*b","admin":true}`

// TestMatchSubject: what comes near is refused, and is told why.
func TestMatchSubject(t *testing.T) {
	t.Parallel()
	const sub = "system:serviceaccount:prod:web"
	cl := claims(t, token)
	for _, tt := range []struct {
		issuer, subject, part, why string
	}{
		{cluster, sub, "", ""},
		{cluster + "/", sub, "issuer", "differs in a slash at the end alone, which counts"},
		{"https://OIDC.cluster.example/id", sub, "issuer", "differs in case alone, which counts"},
		{"https://oidc.cluster.example/idx", sub, "issuer", `differs at character 32: expected "x", the token has its end`},
		{"https://oidc.cluster.example.evil.test/id", sub, "issuer", `differs at character 29: expected ".evil.test/id", the token has "/id"`},
		{cluster, "system:serviceaccount:prod:we", "subject", `differs at character 30: expected its end, the token has "b"`},
		{cluster, "system:serviceaccount:prod:web2", "subject", `expected "2", the token has its end`},
		{cluster, "System:serviceaccount:prod:web", "subject", "differs in case alone"},
		{cluster, "system:serviceaccount:prod:*", "subject", `expected "*", the token has "web"`}, // no wildcards in a subject
		{cluster, "systém:serviceaccount:prod:web", "subject", `differs at character 5: expected "é`},
	} {
		v := fic(tt.issuer, tt.subject).Match(cl)
		if v.Matches != (tt.part == "") {
			t.Errorf("%s %s: matches = %v", tt.issuer, tt.subject, v.Matches)
		}
		for _, f := range v.Findings {
			if f.Matches != (f.Part != tt.part) || f.Part == tt.part && !strings.Contains(f.Why, tt.why) {
				t.Errorf("%s %s: %+v, want %s: %s", tt.issuer, tt.subject, f, tt.part, tt.why)
			}
		}
	}
	if fic(cluster, "").Match(claims(t, `{"iss":"https://oidc.cluster.example/id","aud":"api://AzureADTokenExchange"}`)).Matches {
		t.Error("a token without a subject matches a credential without one")
	}
}

func TestMatchAudience(t *testing.T) {
	t.Parallel()
	for aud, want := range map[string]bool{
		`"api://AzureADTokenExchange"`:                    true,
		`["api://AzureADTokenExchange"]`:                  true,
		`["a","api://AzureADTokenExchange"]`:              true,
		`"API://azureadtokenexchange"`:                    false,
		`"api://AzureADTokenExchange/"`:                   false,
		`"a api://AzureADTokenExchange"`:                  false, // one text with a space
		`"[\"api://AzureADTokenExchange\"]"`:              false,
		`["a,api://AzureADTokenExchange"]`:                false,
		`[]`:                                              false,
		`null`:                                            false,
		`["x","xx","xxx","xxxx","xxxxx","xxxxxx","xxxx"]`: false,
	} {
		v := fic(cluster, "s").Match(claims(t, `{"iss":"`+cluster+`","sub":"s","aud":`+aud+`}`))
		if v.Matches != want {
			t.Errorf("aud %s: %+v, want %v", aud, v, want)
		}
	}
}

func TestMatchExpressions(t *testing.T) {
	t.Parallel()
	cl := claims(t, token)
	for _, tt := range []struct {
		language federation.Language
		text     string
		why      string // "" if it holds
	}{
		{federation.Matching, "claims['sub'] eq 'system:serviceaccount:prod:web'", ""},
		{federation.Matching, "claims['sub'] matches 'system:serviceaccount:prod:*'", ""},
		{federation.Matching, "claims['sub'] matches '*:prod:*'", ""},
		{federation.Matching, "claims['sub'] matches 'system:serviceaccount:prod:???'", ""},
		{federation.Matching, "claims['sub'] matches 'system:serviceaccount:prod:??'", "the token has"},
		{federation.Matching, "claims['sub'] matches 'system:serviceaccount:prod:????'", "the token has"},
		{federation.Matching, "claims['sub'] matches 'serviceaccount:*'", "the token has"}, // anchored at both ends
		{federation.Matching, "claims['sub'] matches '*:prod'", "the token has"},
		{federation.Matching, "claims['sub'] matches '*:PROD:*'", "the token has"},
		{federation.Matching, "claims['sub'] eq '*'", "differs at character 1"},
		{federation.Matching, "claims['star'] eq 'a*b'", ""},
		{federation.Matching, "claims['star'] matches 'a*b'", ""},
		{federation.Matching, "claims['star'] matches '*b'", ""},
		{federation.Matching, "claims['repository_id'] eq '456789' and claims['job_workflow_ref'] matches 'org/x/.github/workflows/*@refs/heads/main'", ""},
		{federation.Matching, "claims['repository_id'] eq '456789' and claims['sub'] eq 'x'", "claims['sub'] eq 'x': differs at character 1"},
		{federation.Matching, "claims['none'] eq 'x'", "the token has no claim none"},
		{federation.Matching, "claims['Sub'] matches 'system*'", "the token has no claim Sub"},
		{federation.Matching, "claims['n'] eq '9007199254740993'", "the token's n is not a string"},
		{federation.Matching, "claims['groups'] matches '*ops*'", "the token's groups is not a string"},
		{"", "claims['sub'] matches '*s*'", "its language is unknown"},
		{federation.CEL, `sub == "system:serviceaccount:prod:web"`, ""},
		{federation.CEL, `claims.admin == true && claims["kubernetes.io"].namespace == "prod"`, ""},
		{federation.CEL, `claims.groups.exists(g, g == "ops") && "other" in aud`, ""},
		{federation.CEL, `claims.n == 9007199254740993`, ""},
		{federation.CEL, `claims.n == 9007199254740992`, "because this is: claims.n == 9007199254740992"}, // one as float64
		{federation.CEL, `sub.startsWith("system:") && claims.groups.exists(g, g == "root")`, `because this is: claims.groups.exists(`},
		{federation.CEL, `claims.none == "x"`, "the expression fails: no such key: none"},
		{federation.CEL, `claims.groups == "ops"`, "the expression is false"},
		{federation.CEL, `claims.sub.matches("^(` + strings.Repeat("(a?){9}", 30) + `)$")`, "regex program size"},
		{federation.CEL, `claims.groups.all(a, claims.groups.all(b, claims.groups.all(c, claims.groups.all(d, claims.groups.all(e, claims.groups.all(f, claims.groups.all(g, claims.groups.all(h, claims.groups.all(i, claims.groups.all(j, claims.groups.all(k, claims.groups.all(l, sub != a + b + c + d))))))))))))`, "cost limit exceeded"},
		{federation.CEL, `not CEL`, "is wrong at line 1"},
	} {
		v := by(tt.language, cluster, tt.text).Match(cl)
		i := slices.IndexFunc(v.Findings, func(f federation.Finding) bool { return f.Part == "expression" })
		if f := v.Findings[i]; v.Matches != (tt.why == "") || f.Matches != v.Matches || !strings.Contains(f.Why, tt.why) {
			t.Errorf("%s: %+v, want %q", tt.text, f, tt.why)
		}
	}
	long := claims(t, `{"iss":"`+cluster+`","sub":"a`+pad(5000)+`","aud":"`+exchange+`"}`)
	if v := by(federation.Matching, cluster, "claims['sub'] matches 'a*'").Match(long); v.Matches {
		t.Error("a claim of any length matches")
	}
}

func TestNearestComesFirst(t *testing.T) {
	t.Parallel()
	cl := claims(t, token)
	all := []federation.Credential{
		fic("https://else.example", "x"),
		fic("https://else.example", "system:serviceaccount:prod:web"),
		fic(cluster, "nothing like it"),
		fic(cluster, "system:serviceaccount:prod:db"),
		fic(cluster, "system:serviceaccount:prod:web"),
	}
	slices.SortStableFunc(all, func(a, b federation.Credential) int { return federation.Nearer(a.Match(cl), b.Match(cl)) })
	var got []string
	for _, c := range all {
		got = append(got, c.Subject)
	}
	want := []string{"system:serviceaccount:prod:web", "system:serviceaccount:prod:db", "nothing like it", "system:serviceaccount:prod:web", "x"}
	if !slices.Equal(got, want) {
		t.Errorf("in order: %q, want %q", got, want)
	}
}

// TestClaimsReadInOneWay: what another reader could read otherwise is refused.
func TestClaimsReadInOneWay(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		``, `null`, `[]`, `"x"`, `5`, `{`, `{}x`, `{}{}`, `{"iss":1}`, `{"sub":["a"]}`, `{"sub":null}`, `{"exp":"5"}`, `{"exp":-1}`, `{"exp":1e99}`, `{"nbf":null}`,
		`{"aud":5}`, `{"aud":[1]}`, `{"aud":[["a"]]}`, `{"aud":{"a":1}}`,
		`{"sub":"a","sub":"b"}`, `{"sub":"a","\u0073ub":"b"}`, `{"x":{"y":1,"y":2}}`, `{"x":[{"y":1,"y":2}]}`,
		`{"sub":"a\u0000b"}`, `{"a\u0000":1}`, `{"sub":"\ud800"}`, "{\"sub\":\"\xff\"}", `{"x":1e999}`,
		`{"x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
	} {
		if c, err := federation.ParseClaims([]byte(s)); !problem.Is(err, problem.Invalid) {
			t.Errorf("ParseClaims(%s) = %+v, %v; want a refusal", s, c, err)
		}
	}
	c := claims(t, `{"Sub":"x","ISS":"y","exp":1790000000.5}`)
	if c.Subject != "" || c.Issuer != "" || c.Expires.Unix() != 1790000000 {
		t.Errorf("claims are %+v; names compare exactly", c)
	}
}
