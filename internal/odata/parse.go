package odata

import (
	"regexp"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Bounds of a filter. No client comes near them.
const (
	maxLen   = 4096
	maxDepth = 32
	maxTerms = 100
)

// Parse reads a filter. Text without any is no filter. Errors are
// [problem.BadFilter] and say where the text is wrong, and what was expected.
func Parse(s string) (Filter, error) {
	if strings.TrimSpace(s) == "" {
		return Filter{}, nil
	}
	if len(s) > maxLen {
		return Filter{}, problem.Errorf(problem.BadFilter, "The $filter is %d bytes long; at most %d are allowed.", len(s), maxLen)
	}
	p := &parser{lexer: lexer{text: s}}
	if err := p.next(); err != nil {
		return Filter{}, err
	}
	f, err := p.joined(Or, 0)
	if err == nil && p.tok.kind != end {
		err = p.expected("and, or, or the end")
	}
	if err != nil {
		return Filter{}, err
	}
	return f, nil
}

// tokenKind is what a token is: punctuation is itself.
type tokenKind string

const (
	end     tokenKind = "the end"
	word    tokenKind = "a name"
	literal tokenKind = "a value"
)

type token struct {
	kind  tokenKind
	at    int    // where it begins, in bytes
	text  string // a word, or as written
	value Value  // of a literal
}

// lexer takes tokens off a text.
type lexer struct {
	text string
	pos  int
	tok  token
}

var (
	guid   = regexp.MustCompile(`^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$`)
	number = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	moment = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?$`)
	// name is a property, also one within another, or a function.
	name = regexp.MustCompile(`^[A-Za-z_$@][A-Za-z0-9_.$@-]*(/[A-Za-z_$@][A-Za-z0-9_.$@-]*)*$`)
)

// next reads the next token.
func (l *lexer) next() error {
	for l.pos < len(l.text) && strings.IndexByte(" \t\r\n", l.text[l.pos]) >= 0 {
		l.pos++
	}
	l.tok = token{kind: end, at: l.pos}
	if l.pos == len(l.text) {
		return nil
	}
	switch c := l.text[l.pos]; c {
	case '(', ')', ',':
		l.pos++
		l.tok = token{kind: tokenKind(c), at: l.tok.at, text: string(c)}
		return nil
	case '\'':
		return l.quoted(l.pos)
	}
	return l.bare()
}

// quoted reads a text in quotes, in which a quote is written twice; the token
// begins at from.
func (l *lexer) quoted(from int) error {
	var b strings.Builder
	for i := l.pos + 1; i < len(l.text); i++ {
		if l.text[i] != '\'' {
			b.WriteByte(l.text[i])
			continue
		}
		if i+1 < len(l.text) && l.text[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		l.pos = i + 1
		l.tok = token{kind: literal, at: from, text: l.text[from:l.pos], value: Value{Text, b.String()}}
		return nil
	}
	return problem.Errorf(problem.BadFilter, "The $filter has a text that begins at character %d and does not end; a closing quote was expected.", l.pos+1)
}

// bare reads what has no quotes: a name, a number, a GUID, a time.
func (l *lexer) bare() error {
	from := l.pos
	for l.pos < len(l.text) && strings.IndexByte(" \t\r\n(),'", l.text[l.pos]) < 0 {
		l.pos++
	}
	text := l.text[from:l.pos]
	l.tok = token{kind: literal, at: from, text: text}
	switch lower := strings.ToLower(text); {
	case l.pos < len(l.text) && l.text[l.pos] == '\'' && (lower == "datetime" || lower == "guid"):
		return l.typed(from, lower)
	case lower == "true" || lower == "false":
		l.tok.value = Value{Bool, lower}
	case lower == "null":
		l.tok.value = Value{Null, lower}
	case guid.MatchString(text):
		l.tok.value = Value{GUID, text}
	case number.MatchString(text):
		l.tok.value = Value{Number, text}
	case moment.MatchString(text):
		l.tok.value = Value{Time, text}
	case name.MatchString(text):
		l.tok.kind = word
	default:
		return problem.Errorf(problem.BadFilter, "The $filter has '%s' at character %d; a name, or a value in quotes, was expected.", problem.Clip(text), from+1)
	}
	return nil
}

// typed reads datetime'...' and guid'...', as older clients write them.
func (l *lexer) typed(from int, typ string) error {
	if err := l.quoted(from); err != nil {
		return err
	}
	kind, form := GUID, guid
	if typ == "datetime" {
		kind, form = Time, moment
	}
	if !form.MatchString(l.tok.value.Text) {
		return problem.Errorf(problem.BadFilter, "The $filter has '%s' at character %d, which is no %s.", problem.Clip(l.tok.text), from+1, kind)
	}
	l.tok.value.Kind = kind
	return nil
}

type parser struct {
	lexer
	terms int
}

// keyword reports whether the token is this word.
func (p *parser) keyword(s string) bool {
	return p.tok.kind == word && strings.EqualFold(p.tok.text, s)
}

func (p *parser) expected(what string) error {
	have := "ends"
	if p.tok.kind != end {
		have = "has '" + problem.Clip(p.tok.text) + "'"
	}
	return problem.Errorf(problem.BadFilter, "The $filter %s at character %d, where %s was expected.", have, p.tok.at+1, what)
}

// joined reads parts that are joined by or, or within those by and.
func (p *parser) joined(by Join, depth int) (Filter, error) {
	part := func() (Filter, error) {
		if by == Or {
			return p.joined(And, depth)
		}
		return p.part(depth)
	}
	first, err := part()
	if err != nil || !p.keyword(string(by)) {
		return first, err
	}
	out := Filter{Join: by, Of: []Filter{first}}
	for p.keyword(string(by)) {
		if err := p.next(); err != nil {
			return Filter{}, err
		}
		more, err := part()
		if err != nil {
			return Filter{}, err
		}
		out.Of = append(out.Of, more)
	}
	return out, nil
}

// part reads a term, a filter in parentheses, or what is not.
func (p *parser) part(depth int) (Filter, error) {
	if depth > maxDepth {
		return Filter{}, problem.Errorf(problem.BadFilter, "The $filter is nested more than %d deep.", maxDepth)
	}
	switch {
	case p.keyword("not"):
		if err := p.next(); err != nil {
			return Filter{}, err
		}
		of, err := p.part(depth + 1)
		return Filter{Join: Not, Of: []Filter{of}}, err
	case p.tok.kind == "(":
		if err := p.next(); err != nil {
			return Filter{}, err
		}
		f, err := p.joined(Or, depth+1)
		if err != nil {
			return Filter{}, err
		}
		return f, p.take(")", "and, or, or ')'")
	}
	return p.term()
}

// take takes one token of punctuation.
func (p *parser) take(kind tokenKind, what string) error {
	if p.tok.kind != kind {
		return p.expected(what)
	}
	return p.next()
}

// term reads a comparison or a call.
func (p *parser) term() (Filter, error) {
	if p.terms++; p.terms > maxTerms {
		return Filter{}, problem.Errorf(problem.BadFilter, "The $filter has more than %d terms.", maxTerms)
	}
	left, at := p.tok, p.tok.at
	if left.kind != word && left.kind != literal {
		return Filter{}, p.expected("a property, as in name eq 'value',")
	}
	if err := p.next(); err != nil {
		return Filter{}, err
	}
	if left.kind == word && p.tok.kind == "(" {
		return p.call(left.text)
	}
	if left.kind == word && p.keyword("in") {
		if err := p.next(); err != nil {
			return Filter{}, err
		}
		values, err := p.list(false)
		if err == nil && len(values) == 0 {
			err = problem.Errorf(problem.BadFilter, "The $filter has an empty list after '%s in'; at least one value was expected.", problem.Clip(left.text))
		}
		return Filter{Term: Term{Name: left.text, Op: In, Values: values}}, err
	}
	op, err := p.operator()
	if err != nil {
		return Filter{}, err
	}
	right := p.tok
	switch {
	case left.kind == word && right.kind == literal:
		return Filter{Term: Term{Name: left.text, Op: op, Values: []Value{right.value}}}, p.next()
	case left.kind == literal && right.kind == word:
		return Filter{Term: Term{Name: right.text, Op: turned[op], Values: []Value{left.value}}}, p.next()
	case left.kind == word:
		return Filter{}, p.expected("a value in quotes")
	case right.kind == literal:
		return Filter{}, problem.Errorf(problem.BadFilter, "The $filter compares two values at character %d; a property was expected on one side.", at+1)
	}
	return Filter{}, p.expected("a property")
}

// turned is each operator with its sides exchanged.
var turned = map[Op]Op{Eq: Eq, Ne: Ne, Gt: Lt, Ge: Le, Lt: Gt, Le: Ge}

func (p *parser) operator() (Op, error) {
	op := Op(strings.ToLower(p.tok.text))
	if _, ok := turned[op]; !ok || p.tok.kind != word {
		return "", p.expected("one of eq, ne, gt, ge, lt, le and in")
	}
	return op, p.next()
}

// call reads the arguments of a function, and a comparison with true or false
// behind them, as some clients write it.
func (p *parser) call(function string) (Filter, error) {
	args, err := p.list(true)
	if err != nil {
		return Filter{}, err
	}
	f := Filter{Term: Term{Name: function, Op: Call, Values: args}}
	if !p.keyword("eq") {
		return f, nil
	}
	if err := p.next(); err != nil {
		return Filter{}, err
	}
	if p.tok.kind != literal || p.tok.value.Kind != Bool {
		return Filter{}, p.expected("true or false")
	}
	if p.tok.value.Text == "false" {
		f = Filter{Join: Not, Of: []Filter{f}}
	}
	return f, p.next()
}

// list reads values in parentheses; with properties also names.
func (p *parser) list(properties bool) ([]Value, error) {
	if err := p.take("(", "'('"); err != nil {
		return nil, err
	}
	if p.tok.kind == ")" {
		return nil, p.next()
	}
	var out []Value
	for {
		switch {
		case p.tok.kind == literal:
			out = append(out, p.tok.value)
		case p.tok.kind == word && properties:
			out = append(out, Value{Property, p.tok.text})
		default:
			return nil, p.expected("a value in quotes")
		}
		if err := p.next(); err != nil {
			return nil, err
		}
		if p.tok.kind == ")" {
			return out, p.next()
		}
		if err := p.take(",", "',' or ')'"); err != nil {
			return nil, err
		}
	}
}
