package federation

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// Finding is one part of a match.
type Finding struct {
	// Part is "issuer", "subject", "expression" or "audience".
	Part    string
	Matches bool
	// Why says for people what fits or what does not.
	Why string
}

// Verdict is whether claims match a credential.
type Verdict struct {
	Matches  bool
	Findings []Finding
	// near is how much of the subject fits, to tell which of several misses
	// came nearest.
	near int
}

// Match holds claims against the credential. Every part is looked at, also
// where one did not fit.
func (c Credential) Match(cl Claims) Verdict {
	v := Verdict{Matches: true}
	add := func(f Finding) {
		v.Findings = append(v.Findings, f)
		v.Matches = v.Matches && f.Matches
	}
	add(compare("issuer", c.Issuer, cl.Issuer))
	if c.Expression != (Expression{}) {
		ok, why := c.Expression.holds(cl)
		add(Finding{"expression", ok, why})
	} else {
		f := compare("subject", c.Subject, cl.Subject)
		// An empty subject is in no credential and matches none.
		f.Matches = f.Matches && c.Subject != ""
		add(f)
		v.near = shared(c.Subject, cl.Subject)
	}
	add(c.audience(cl))
	return v
}

// Part returns whether a part matches.
func (v Verdict) Part(name string) bool {
	return slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Part == name && f.Matches })
}

// Nearer orders verdicts: what matches first, then what has the right issuer,
// then what has more right parts, then what has more of the subject.
func Nearer(a, b Verdict) int {
	score := func(v Verdict) (n int) {
		for _, f := range v.Findings {
			if f.Matches {
				n++
			}
		}
		if v.Part("issuer") {
			n += 10
		}
		return n
	}
	if d := score(b) - score(a); d != 0 {
		return d
	}
	return b.near - a.near
}

func (c Credential) audience(cl Claims) Finding {
	for _, a := range cl.Audience {
		if slices.Contains(c.Audiences, a) {
			return Finding{"audience", true, fmt.Sprintf("the token is for %q", a)}
		}
	}
	if len(cl.Audience) == 0 {
		return Finding{"audience", false, fmt.Sprintf("the token has no aud; expected %s", quoted(c.Audiences))}
	}
	return Finding{"audience", false, fmt.Sprintf("the token is for %s; expected %s", quoted(cl.Audience), quoted(c.Audiences))}
}

// quoted lists texts, the first few of many.
func quoted(all []string) string {
	var out []string
	for i, s := range all {
		if i == 5 {
			out = append(out, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		out = append(out, fmt.Sprintf("%q", problem.Clip(s)))
	}
	return strings.Join(out, ", ")
}

func compare(part, want, got string) Finding {
	if want == got {
		return Finding{part, true, fmt.Sprintf("both are %q", problem.Clip(want))}
	}
	return Finding{part, false, differs(want, got)}
}

// differs says where the token's text is another than the expected one.
func differs(want, got string) string {
	switch {
	case got == "":
		return fmt.Sprintf("expected %q, and the token has none", problem.Clip(want))
	case strings.EqualFold(want, got):
		return fmt.Sprintf("differs in case alone, which counts: expected %q, the token has %q", problem.Clip(want), problem.Clip(got))
	case strings.TrimRight(want, "/") == strings.TrimRight(got, "/"):
		return fmt.Sprintf("differs in a slash at the end alone, which counts: expected %q, the token has %q", problem.Clip(want), problem.Clip(got))
	}
	n := shared(want, got)
	return fmt.Sprintf("differs at character %d: expected %s, the token has %s", utf8.RuneCountInString(want[:n])+1, rest(want, n), rest(got, n))
}

// shared is how many bytes, of whole characters, both begin with.
func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(a) && !utf8.RuneStart(a[n]) || n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return n
}

// rest is what a text goes on with.
func rest(s string, n int) string {
	if n == len(s) {
		return "its end"
	}
	return fmt.Sprintf("%q", firstRunes(s[n:], 40))
}

// holds evaluates the expression. One that does not compile, or that fails,
// does not hold.
func (e Expression) holds(cl Claims) (bool, string) {
	switch e.Language {
	case Matching:
		terms, err := parseTerms(e.Text)
		if err != nil {
			return false, problem.Of(err).Detail
		}
		for _, t := range terms {
			if ok, why := t.holds(cl); !ok {
				return false, why
			}
		}
		return true, "every comparison holds"
	case CEL:
		return evaluate(e.Text, cl)
	}
	return false, "its language is unknown"
}
