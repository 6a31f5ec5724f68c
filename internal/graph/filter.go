package graph

import (
	"strings"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

// maxFilter is the longest $filter, in bytes.
const maxFilter = 16 << 10

// condition is one of a $filter's: what a member has to be. Values compare
// without case, as Graph's do.
type condition struct {
	member string // in lower case
	// begins says that the value need only begin with what is asked.
	begins bool
	values []string
}

// parseFilter reads conditions that are joined by "and":
//
//	displayName eq 'x' and servicePrincipalType eq 'ManagedIdentity'
//	startswith(displayName,'x')
//	id in ('a','b')
func parseFilter(s string) ([]condition, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if len(s) > maxFilter {
		return nil, badFilter("it is over 16 KiB long")
	}
	words, err := lex(s)
	if err != nil {
		return nil, err
	}
	p := &filterParser{words: words}
	var out []condition
	for {
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		if len(p.words) == 0 {
			return out, nil
		}
		if !p.word("and") {
			return nil, badFilter("'and' was expected where there is %s; conditions are joined by 'and' alone", p.here())
		}
	}
}

func badFilter(format string, args ...any) error {
	return problem.Errorf(problem.Invalid, "Invalid filter clause: "+format+". There are: name eq 'value', name in ('a','b') and startswith(name,'value').", args...)
}

// lexeme is a word, a sign or, quoted, a text.
type lexeme struct {
	text   string
	quoted bool
}

func lex(s string) ([]lexeme, error) {
	var out []lexeme
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		switch n := strings.IndexAny(s, " \t(),'"); {
		case s[0] == '\'':
			text, rest, ok := quoted(s[1:])
			if !ok {
				return nil, badFilter("a text has no end; %s begins it", problem.Clip(s))
			}
			out, s = append(out, lexeme{text, true}), rest
		case n < 0:
			out, s = append(out, lexeme{text: s}), ""
		case n == 0:
			out, s = append(out, lexeme{text: s[:1]}), s[1:]
		default:
			out, s = append(out, lexeme{text: s[:n]}), s[n:]
		}
	}
	return out, nil
}

// quoted reads a text up to its closing quote; two quotes are one.
func quoted(s string) (text, rest string, ok bool) {
	for {
		before, after, ok := strings.Cut(s, "'")
		if !ok {
			return "", "", false
		}
		text += before
		if !strings.HasPrefix(after, "'") {
			return text, after, true
		}
		text, s = text+"'", after[1:]
	}
}

type filterParser struct{ words []lexeme }

func (p *filterParser) here() string {
	if len(p.words) == 0 {
		return "its end"
	}
	return "'" + problem.Clip(p.words[0].text) + "'"
}

// word takes a word or a sign, if it is the next.
func (p *filterParser) word(w string) bool {
	if len(p.words) == 0 || p.words[0].quoted || !strings.EqualFold(p.words[0].text, w) {
		return false
	}
	p.words = p.words[1:]
	return true
}

// name takes the name of a member.
func (p *filterParser) name() (string, error) {
	if len(p.words) == 0 || p.words[0].quoted || strings.ContainsAny(p.words[0].text, "(),") {
		return "", badFilter("a property was expected where there is %s", p.here())
	}
	n := strings.ToLower(p.words[0].text)
	p.words = p.words[1:]
	return n, nil
}

// value takes a text; booleans and null are words.
func (p *filterParser) value() (string, error) {
	if len(p.words) == 0 || !p.words[0].quoted && !strings.EqualFold(p.words[0].text, "true") && !strings.EqualFold(p.words[0].text, "false") {
		return "", badFilter("a text in single quotes was expected where there is %s", p.here())
	}
	v := p.words[0].text
	p.words = p.words[1:]
	return v, nil
}

func (p *filterParser) signs(want ...string) error {
	for _, w := range want {
		if !p.word(w) {
			return badFilter("'%s' was expected where there is %s", w, p.here())
		}
	}
	return nil
}

func (p *filterParser) condition() (c condition, err error) {
	if p.word("startswith") {
		c.begins = true
		if err = p.signs("("); err != nil {
			return c, err
		}
		if c.member, err = p.name(); err != nil {
			return c, err
		}
		if err = p.signs(","); err != nil {
			return c, err
		}
		v, err := p.value()
		c.values = []string{v}
		if err != nil {
			return c, err
		}
		return c, p.signs(")")
	}
	if c.member, err = p.name(); err != nil {
		return c, err
	}
	if p.word("in") {
		c.values, err = p.list()
		return c, err
	}
	if err = p.signs("eq"); err != nil {
		return c, err
	}
	v, err := p.value()
	c.values = []string{v}
	return c, err
}

// list takes "('a','b')".
func (p *filterParser) list() (out []string, err error) {
	if err := p.signs("("); err != nil {
		return nil, err
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if p.word(")") {
			return out, nil
		}
		if err := p.signs(","); err != nil {
			return nil, err
		}
	}
}

// filterable are the members that a $filter can be about, and what each is.
var filterable = map[string]func(directory.Principal) string{
	"id":          func(p directory.Principal) string { return p.ID },
	"displayname": func(p directory.Principal) string { return p.Name },
	"appid":       func(p directory.Principal) string { return p.Client },
	"accountenabled": func(p directory.Principal) string {
		if p.Enabled {
			return "true"
		}
		return "false"
	},
	"serviceprincipaltype": func(p directory.Principal) string { return string(p.Kind) },
}

// groupFilterable are those of a group.
var groupFilterable = []string{"id", "displayname"}

func (c condition) holds(p directory.Principal) bool {
	have := fold(filterable[c.member](p))
	for _, v := range c.values {
		if v = fold(v); have == v || c.begins && strings.HasPrefix(have, v) {
			return true
		}
	}
	return false
}

// fold is ASCII lower case, by which names compare in the database.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
