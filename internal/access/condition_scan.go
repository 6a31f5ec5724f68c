package access

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// tokenKind says what a token of a condition is.
type tokenKind int

const (
	end       tokenKind = iota
	mark                // ( ) { } , ! && ||
	bare                // a keyword, an operator, a number, true, a GUID
	quoted              // 'text', with '' for a quotation mark
	attrToken           // @Source[name]
)

// token is one word of a condition.
type token struct {
	kind tokenKind
	// text is the token as written, but for a quoted one: what it stands for.
	text string
	attr attribute
	// at is where it begins, in bytes.
	at int
}

// String is the token for an error message.
func (t token) String() string {
	switch t.kind {
	case end:
		return "nothing more"
	case quoted:
		return quote(clip(t.text))
	}
	return clip(t.text)
}

// scanner cuts a condition into tokens.
type scanner struct {
	text string
	pos  int
}

// fault is an error about the text at a place. Places are counted in
// characters from 1, as editors do.
func (s *scanner) fault(at int, format string, args ...any) error {
	n := utf8.RuneCountInString(s.text[:at]) + 1
	return problem.Errorf(problem.Invalid, "The condition is not valid at character %d: %s.", n, fmt.Sprintf(format, args...))
}

func isBare(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("_:.+-", c) >= 0
}

func (s *scanner) next() (token, error) {
	for s.pos < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
	rest := s.text[s.pos:]
	t := token{at: s.pos}
	switch {
	case rest == "":
		return t, nil
	case strings.IndexByte("(){},!", rest[0]) >= 0:
		t.kind, t.text = mark, rest[:1]
	case strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||"):
		t.kind, t.text = mark, rest[:2]
	case isBare(rest[0]):
		n := 1
		for n < len(rest) && isBare(rest[n]) {
			n++
		}
		t.kind, t.text = bare, rest[:n]
	case rest[0] == '\'':
		return s.quoted(t)
	case rest[0] == '@':
		return s.attribute(t)
	default:
		r, _ := utf8.DecodeRuneInString(rest)
		return t, s.fault(s.pos, "%q begins nothing that a condition has; an attribute like @Resource[...], a value in single quotation marks, an operator or a parenthesis was expected", r)
	}
	s.pos += len(t.text)
	return t, nil
}

// quoted reads 'text'. A backslash is itself: only the Like operators take it
// as more than that.
func (s *scanner) quoted(t token) (token, error) {
	var b strings.Builder
	for i := s.pos + 1; i < len(s.text); i++ {
		if s.text[i] != '\'' {
			b.WriteByte(s.text[i])
			continue
		}
		if strings.HasPrefix(s.text[i:], "''") {
			b.WriteByte('\'')
			i++
			continue
		}
		t.kind, t.text, s.pos = quoted, b.String(), i+1
		if !utf8.ValidString(t.text) {
			return t, s.fault(t.at, "the text is not UTF-8")
		}
		return t, nil
	}
	return t, s.fault(t.at, "the quotation mark is never closed; another ' was expected")
}

// attribute reads @Source[name].
func (s *scanner) attribute(t token) (token, error) {
	open := strings.IndexByte(s.text[s.pos:], '[')
	if open < 0 {
		return t, s.fault(t.at, "the attribute has no name; @Source[name] was expected")
	}
	word := s.text[s.pos+1 : s.pos+open]
	src, ok := sourceNamed(word)
	if !ok {
		return t, s.fault(t.at, "there is no source @%s; @Principal, @Resource, @Request, @Environment or @Caller was expected", clip(word))
	}
	from := s.pos + open + 1
	n := strings.IndexByte(s.text[from:], ']')
	if n < 0 {
		return t, s.fault(t.at, "the attribute's bracket is never closed; @%s[name] was expected", src)
	}
	name, exact, flaw := attributeName(strings.TrimSpace(s.text[from : from+n]))
	if flaw != "" {
		return t, s.fault(from, "%s", flaw)
	}
	s.pos = from + n + 1
	t.kind, t.text, t.attr = attrToken, s.text[t.at:s.pos], attribute{source: src, name: name, exact: exact}
	return t, nil
}
