package federation_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

const (
	cluster  = "https://oidc.cluster.example/id"
	github   = "https://token.actions.githubusercontent.com"
	exchange = "api://AzureADTokenExchange"
)

// fic is a credential for a subject.
func fic(issuer, subject string) federation.Credential {
	return federation.Credential{Name: "one", Issuer: issuer, Subject: subject, Audiences: []string{exchange}}
}

// by is a credential with an expression.
func by(l federation.Language, issuer, text string) federation.Credential {
	c := fic(issuer, "")
	c.Expression = federation.Expression{Language: l, Text: text}
	return c
}

func claims(t testing.TB, text string) federation.Claims {
	t.Helper()
	c, err := federation.ParseClaims([]byte(text))
	if err != nil {
		t.Fatalf("ParseClaims(%s): %v", text, err)
	}
	return c
}

func TestCheckIssuer(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		cluster, github, "https://h", "https://h/", "https://h:8443/a/b", "https://10.0.0.1/x", "https://[fd00::1]:443/x", "https://h/%7Ex", "https://UPPER.example/Path",
	} {
		if err := fic(s, "s").Check(); err != nil {
			t.Errorf("issuer %q: %v", s, err)
		}
	}
	for s, why := range map[string]string{
		"":                                  "is empty",
		"http://h":                          "does not begin with https://",
		"HTTPS://h":                         "does not begin with https://", // what is compared is the text
		"ftp://h":                           "does not begin with https://",
		"https://":                          "not a URL with a host",
		"https:///path":                     "not a URL with a host",
		"https://:443":                      "not a URL with a host",
		"https://h?":                        "has a query",
		"https://h?x=1":                     "has a query",
		"https://h#":                        "has a query or a fragment",
		"https://h/#f":                      "has a query or a fragment",
		"https://u@h":                       "has a user name",
		"https://u:p@h":                     "has a user name",
		"https://@h":                        "has a user name",
		"https://h:0":                       "has a port that is none",
		"https://h:99999":                   "has a port that is none",
		"https://h:":                        "has a colon without a port",
		"https://h:x":                       "not a URL with a host",
		"https://h\\evil":                   "not a URL with a host",
		"https://h /":                       "not a URL with a host",
		" https://h":                        "begins or ends with a space",
		"https://h\n":                       "begins or ends with a space",
		"https://h/%zz":                     "not a URL with a host",
		"https://ħ":                         "not a URL with a host",
		"https://h/" + pad(600):             "at most 600",
		"https://h/\x00":                    "control characters",
		"https://169.254.169.254@h/":        "has a user name",
		"https://h/;@x?y":                   "has a query",
		"file:///etc/passwd":                "does not begin with https://",
		"https://\u2024\u2024/":             "not a URL with a host",
		"https://h/\u202e":                  "not a URL with a host",
		"https://[::1%25eth0]/":             "",
		"https://[fe80::1%25et h0]/":        "not a URL with a host",
		"//h":                               "does not begin with https://",
		"https:h":                           "does not begin with https://",
		"https://h/a b":                     "not a URL with a host",
		"https://h\t":                       "begins or ends with a space",
		"https://a,b/":                      "",
		"https://h/" + "\"":                 "not a URL with a host",
		"https://h/<":                       "not a URL with a host",
		"javascript:alert(1)//https://h":    "does not begin with https://",
		"https://h:443@evil.example":        "has a user name",
		"https://h%2f.evil.example/":        "not a URL with a host",
		"https://token.example:65535/realm": "",
	} {
		err := fic(s, "s").Check()
		if why == "" && err == nil {
			continue
		}
		if !problem.Is(err, problem.Invalid) || why == "" || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "properties.issuer") {
			t.Errorf("issuer %q: %v, want %q", s, err, why)
		}
	}
}

func pad(n int) string { return strings.Repeat("x", n) }

func TestCheckMembers(t *testing.T) {
	t.Parallel()
	with := func(f func(c *federation.Credential)) federation.Credential {
		c := fic(cluster, "s")
		f(&c)
		return c
	}
	for why, c := range map[string]federation.Credential{
		"Exactly one of":          fic(cluster, ""),
		"Exactly one of the":      with(func(c *federation.Credential) { c.Expression.Text = "x" }),
		"has 0 entries":           with(func(c *federation.Credential) { c.Audiences = nil }),
		"has 11 entries":          with(func(c *federation.Credential) { c.Audiences = make([]string, 11) }),
		"audiences[1]' is empty":  with(func(c *federation.Credential) { c.Audiences = []string{"a", ""} }),
		"more than once":          with(func(c *federation.Credential) { c.Audiences = []string{"a", "b", "a"} }),
		"audiences[0]' is 601":    with(func(c *federation.Credential) { c.Audiences[0] = pad(601) }),
		"subject' is 601 bytes":   fic(cluster, pad(601)),
		"begins or ends with":     fic(cluster, "s "),
		"control characters":      fic(cluster, "a\x1bb"),
		"are allowed":             by(federation.CEL, cluster, `sub == "`+pad(2100)+`"`),
		"Matching is not a":       {},
		"value' is wrong at char": by(federation.Matching, cluster, "sub == 'x'"),
	} {
		if err := c.Check(); !problem.Is(err, problem.Invalid) || why != "Matching is not a" && !strings.Contains(err.Error(), why) {
			t.Errorf("%+v: %v, want %q", c, err, why)
		}
	}
	if err := fic(cluster, pad(600)).Check(); err != nil {
		t.Error(err)
	}
}

// TestMatchingLanguageIsRead: where an expression is wrong, and what was
// expected there.
func TestMatchingLanguageIsRead(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"claims['sub'] eq 'a'",
		"claims['sub'] matches 'repo:org/*'",
		"claims['sub'] matches 'a?' and claims['job_workflow_ref'] eq 'x' and claims['https://x/y@z'] eq ' '",
		"claims['sub'] eq 'it''s'",
		"claims['sub'] eq ''''",
		"claims['sub'] eq ' and '",
		"claims['sub'] eq '*'", // no wildcard for eq
	} {
		if err := by(federation.Matching, cluster, s).Check(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		"":                                           "",
		"sub eq 'a'":                                 "at character 1: claims[' was expected, and there is 'sub eq 'a''",
		"claims[\"sub\"] eq 'a'":                     "at character 1: claims['",
		"claims[''] eq 'a'":                          "at character 9: the name of a claim",
		"claims['s b'] eq 'a'":                       "at character 10: '] and one space",
		"claims['sub']  eq 'a'":                      "at character 15: the operator",
		"claims['sub'] == 'a'":                       "at character 15: the operator eq or matches",
		"claims['sub'] EQ 'a'":                       "at character 15",
		"claims['sub'] eq a":                         "at character 18: a text in single quotes",
		"claims['sub'] eq 'a":                        "at character 20: a single quote was expected, and there is the end",
		"claims['sub'] eq 'it's'":                    "at character 22: \" and \" or the end",
		"claims['sub'] eq ''":                        "at character 18: a text that is not empty",
		"claims['sub'] matches '**?'":                "at character 23: a pattern with more than wildcards",
		"claims['sub'] eq 'a' or claims['x'] eq 'b'": "at character 21: \" and \"",
		"claims['sub'] eq 'a' and ":                  "begins or ends with a space",
		"claims['sub'] eq 'é' and claims['x'] eq b":  "at character 41: a text", // characters, not bytes
		"claims['sub'] eq '" + pad(601) + "'":        "at most 600 bytes",
		strings.Repeat("claims['a'] eq 'b' and ", 16) + "claims['a'] eq 'b'": "the end, after 16 comparisons",
	} {
		err := by(federation.Matching, cluster, s).Check()
		if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}

// TestPublicIssuerNeedsAnOwner: everybody can have a token of these issuers.
func TestPublicIssuerNeedsAnOwner(t *testing.T) {
	t.Parallel()
	const gitlab, terraform = "https://gitlab.com", "https://app.terraform.io"
	for _, tt := range []struct{ issuer, text, why string }{
		{github, "claims['sub'] matches 'repo:org/app:*' and claims['repository_id'] eq '1'", ""},
		{github, "claims['sub'] matches 'repo:org/*' and claims['repository_owner_id'] eq '1' and claims['job_workflow_ref'] matches 'org/x/*'", ""},
		{github, "claims['sub'] matches 'repo:org/app:*'", "is about none of repository_id, repository_owner_id"},
		{github, "claims['repository_id'] eq '1'", "is not about the claim 'sub'"},
		{github, "claims['sub'] matches 'repo:org/app:*' and claims['repository_id'] matches '1*'", "for GitHub only eq is possible"},
		{github, "claims['sub'] matches 'repo:org/app:*' and claims['actor'] eq 'me'", "is about the claim 'actor'; for GitHub there are"},
		{gitlab, "claims['sub'] matches 'project_path:org/app:*'", ""},
		{gitlab, "claims['sub'] matches 'project_path:org*'", "does not say whose token it is"},
		{gitlab, "claims['sub'] matches 'project_path:*/app:*'", "does not say whose token it is"},
		{gitlab, "claims['sub'] matches '*:org/app'", "does not say whose token it is"},
		{terraform, "claims['sub'] matches 'organization:o:project:*'", ""},
		{terraform, "claims['sub'] matches 'organization:o*'", "does not say whose"},
		{terraform, "claims['sub'] matches 'organization:?:*'", "does not say whose"},
		{cluster, "claims['sub'] matches 'system:serviceaccount:prod:*'", ""}, // one's own issuer
		{cluster, "claims['kubernetes.io'] eq 'x'", ""},
	} {
		err := by(federation.Matching, tt.issuer, tt.text).Check()
		if tt.why == "" && err != nil || tt.why != "" && (err == nil || !strings.Contains(err.Error(), tt.why)) {
			t.Errorf("%s for %s: %v, want %q", tt.text, tt.issuer, err, tt.why)
		}
	}
}

func TestCELIsChecked(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		`sub == "a"`,
		`claims.environment == "prod" && sub.startsWith("repo:org/")`,
		`claims["kubernetes.io"].namespace in ["a", "b"]`,
		`sub.matches("^(a|b)$") && "x" in aud && iss != ""`,
		`has(claims.groups) && claims.groups.exists(g, g == "ops")`,
		`sub.matches("^a$") || matches(claims.x, "^b.*$")`,
	} {
		if err := by(federation.CEL, cluster, s).Check(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for s, want := range map[string]string{
		`sub = "a"`:                            "at line 1, character 5",
		`sub == 5`:                             "at line 1, character 5: found no matching overload",
		"sub == 'a' &&\n  nobody == 'b'":       "at line 2, character 3: undeclared reference to 'nobody'",
		`sub`:                                  "its result, which is of type string; bool was expected",
		`claims.admin`:                         "its result, which is of type dyn; bool was expected",
		`true`:                                 "looks at neither sub nor claims",
		`iss == "https://x"`:                   "looks at neither sub nor claims",
		`sub.matches("repo:org/app")`:          "must begin with ^ and end with $",
		`sub.matches("^a|b$")`:                 "must begin with ^ and end with $",
		`sub.matches("^a$|^b$")`:               "must begin with ^ and end with $",
		`sub.matches("^a\\$")`:                 "must begin with ^ and end with $",
		`sub.matches("(?m)^a$")`:               "must begin with ^ and end with $", // of a line
		`sub.matches(claims.pattern)`:          "a pattern that is written out",
		`sub.matches("^(a$")`:                  "at line 1",
		`timestamp(sub) < timestamp("2020")`:   "undeclared reference to 'timestamp'",
		`duration(sub) == duration("1s")`:      "undeclared reference to 'duration'",
		`now() == sub`:                         "undeclared reference to 'now'",
		`sub.getHours() == 1`:                  "undeclared reference to 'getHours'",
		strings.Repeat("(", 200) + "sub":       "as a whole: expression recursion limit exceeded",
		strings.Repeat("!", 401) + "(sub=='')": "",
	} {
		err := by(federation.CEL, cluster, s).Check()
		if want == "" && err == nil {
			continue
		}
		if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", s, err, want)
		}
	}
}
