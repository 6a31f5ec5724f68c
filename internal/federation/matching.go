package federation

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// maxClaim is the longest claim that a pattern is held against, in bytes.
const maxClaim = 4096

// maxTerms bounds the terms of one expression.
const maxTerms = 16

// term is one comparison of the matching language:
//
//	claims['sub'] matches 'repo:org/*'
type term struct {
	claim string
	// pattern has * for any run of characters and ? for any one, unless exact.
	pattern string
	exact   bool
}

// text is the term as it was written.
func (t term) text() string {
	op := "matches"
	if t.exact {
		op = "eq"
	}
	return fmt.Sprintf("claims['%s'] %s '%s'", t.claim, op, strings.ReplaceAll(t.pattern, "'", "''"))
}

// scanner reads an expression of the matching language.
type scanner struct {
	text string
	at   int // bytes read
}

// errAt is the refusal of an expression: where, what was expected, what is there.
func (s *scanner) errAt(at int, want string) error {
	have := "the end"
	if rest := s.text[at:]; rest != "" {
		have = "'" + firstRunes(rest, 20) + "'"
	}
	return problem.Errorf(problem.Invalid, "The member 'properties.claimsMatchingExpression.value' is wrong at character %d: %s was expected, and there is %s.",
		utf8.RuneCountInString(s.text[:at])+1, want, have)
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i] + "..."
		}
		n--
	}
	return s
}

// take reads a word that must come next.
func (s *scanner) take(word, want string) error {
	if !strings.HasPrefix(s.text[s.at:], word) {
		return s.errAt(s.at, want)
	}
	s.at += len(word)
	return nil
}

// parseTerms reads a whole expression:
//
//	expression = term *( " and " term )
//	term       = "claims['" name "'] " ( "eq" / "matches" ) " '" comparand "'"
//
// One space stands where one is shown, as the language has it. In a comparand
// two quotes are one.
func parseTerms(text string) ([]term, error) {
	s := &scanner{text: text}
	var out []term
	for {
		start := s.at
		t, err := s.term()
		if err != nil {
			return nil, err
		}
		if out = append(out, t); len(out) > maxTerms {
			return nil, s.errAt(start, fmt.Sprintf("the end, after %d comparisons,", maxTerms))
		}
		if s.at == len(text) {
			return out, nil
		}
		if err := s.take(" and ", "\" and \" or the end"); err != nil {
			return nil, err
		}
	}
}

func (s *scanner) term() (t term, err error) {
	if err := s.take("claims['", "claims['"); err != nil {
		return t, err
	}
	if t.claim, err = s.claim(); err != nil {
		return t, err
	}
	if err := s.take("'] ", "'] and one space"); err != nil {
		return t, err
	}
	switch rest := s.text[s.at:]; {
	case strings.HasPrefix(rest, "eq "):
		t.exact, s.at = true, s.at+len("eq ")
	case strings.HasPrefix(rest, "matches "):
		s.at += len("matches ")
	default:
		return t, s.errAt(s.at, "the operator eq or matches and one space")
	}
	start := s.at
	if t.pattern, err = s.comparand(); err != nil {
		return t, err
	}
	switch {
	case t.pattern == "":
		return t, s.errAt(start, "a text that is not empty")
	case len(t.pattern) > MaxSubject:
		return t, s.errAt(start, fmt.Sprintf("a text of at most %d bytes", MaxSubject))
	case !t.exact && strings.Trim(t.pattern, "*?") == "":
		return t, s.errAt(start, "a pattern with more than wildcards, which would match everything,")
	}
	return t, nil
}

// claim reads the name of a claim.
func (s *scanner) claim() (string, error) {
	start := s.at
	for s.at < len(s.text) && claimChar(s.text[s.at]) {
		s.at++
	}
	name := s.text[start:s.at]
	if name == "" || len(name) > 120 {
		return "", s.errAt(start, "the name of a claim, 1 to 120 letters, digits and _ - . : / @,")
	}
	return name, nil
}

func claimChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_-.:/@", c) >= 0
}

// comparand reads a text in single quotes.
func (s *scanner) comparand() (string, error) {
	if err := s.take("'", "a text in single quotes"); err != nil {
		return "", err
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s.text[s.at:], '\'')
		if i < 0 {
			return "", s.errAt(len(s.text), "a single quote")
		}
		b.WriteString(s.text[s.at : s.at+i])
		s.at += i + 1
		if !strings.HasPrefix(s.text[s.at:], "'") {
			return b.String(), nil
		}
		b.WriteByte('\'')
		s.at++
	}
}

// holds reports whether the claims satisfy the term, and why not.
func (t term) holds(c Claims) (bool, string) {
	v, there := c.All[t.claim]
	s, ok := v.(string)
	switch {
	case !there:
		return false, fmt.Sprintf("%s: the token has no claim %s", t.text(), t.claim)
	case !ok:
		return false, fmt.Sprintf("%s: the token's %s is not a string", t.text(), t.claim)
	case len(s) > maxClaim:
		return false, fmt.Sprintf("%s: the token's %s is over %d bytes long", t.text(), t.claim, maxClaim)
	case t.exact && s != t.pattern:
		return false, t.text() + ": " + differs(t.pattern, s)
	case !t.exact && !wild(t.pattern, s):
		return false, fmt.Sprintf("%s: the token has %q", t.text(), problem.Clip(s))
	}
	return true, ""
}

// wild reports whether all of s matches the pattern. A star that was passed is
// gone back to when what follows does not fit, and only the last one: what an
// earlier star could take, it could take as well.
func wild(pattern, s string) bool {
	p, r := []rune(pattern), []rune(s)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(r) {
		switch {
		// The star first: the text can hold one too, which is no wildcard.
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == r[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(string(p[i:]), "*") == ""
}
