package access

import (
	"strings"
)

// The words of the language. They are read without case.
const (
	wordAction       = "ActionMatches"
	wordSubOperation = "SubOperationMatches"
	wordExists       = "Exists"
)

// parser reads a condition by recursive descent:
//
//	any    = one { AND one } | one { OR one }
//	one    = { ! } ( "(" any ")" | ActionMatches{'...'} | SubOperationMatches{'...'} | Exists attr | side operator side )
//	side   = attr | value | "{" value { "," value } "}"
//
// AND is also written &&, OR || and ! NOT.
type parser struct {
	scanner
	// tok is the next token.
	tok token
	// open is how many parentheses are.
	open int
}

func parseCondition(text string) (*Condition, error) {
	p := &parser{scanner: scanner{text: text}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	root, err := p.any()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != end {
		return nil, p.unexpected("AND, OR or the end")
	}
	if root.depth() > maxDepth {
		return nil, p.fault(0, "its parts lie over %d deep in one another; a flatter one was expected", maxDepth)
	}
	return &Condition{root: root}, nil
}

func (p *parser) advance() (err error) {
	p.tok, err = p.next()
	return err
}

func (p *parser) unexpected(want string) error {
	return p.fault(p.tok.at, "it has %s where %s was expected", p.tok, want)
}

// is reports whether the next token is the mark or the keyword.
func (p *parser) is(words ...string) bool {
	for _, w := range words {
		if p.tok.kind == mark && p.tok.text == w || p.tok.kind == bare && lower(p.tok.text) == lower(w) {
			return true
		}
	}
	return false
}

// take goes on if the next token is one of words.
func (p *parser) take(words ...string) (bool, error) {
	if !p.is(words...) {
		return false, nil
	}
	return true, p.advance()
}

func (p *parser) must(m string) error {
	if ok, err := p.take(m); ok || err != nil {
		return err
	}
	return p.unexpected(m)
}

func (p *parser) any() (expr, error) {
	first, err := p.one()
	if err != nil {
		return nil, err
	}
	and, or := []string{"AND", "&&"}, []string{"OR", "||"}
	this, other := and, or
	if p.is(or...) {
		this, other = or, and
	}
	parts := []expr{first}
	for {
		ok, err := p.take(this...)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		next, err := p.one()
		if err != nil {
			return nil, err
		}
		parts = append(parts, next)
	}
	switch {
	case p.is(other...):
		return nil, p.fault(p.tok.at, "AND and OR stand beside each other, which can be read in two ways; parentheses around one of them were expected")
	case len(parts) == 1:
		return first, nil
	case this[0] == "OR":
		return some(parts), nil
	}
	return every(parts), nil
}

// one reads a part. Two negations are none.
func (p *parser) one() (expr, error) {
	not := false
	for {
		ok, err := p.take("!", "NOT")
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		not = !not
	}
	e, err := p.positive()
	if err != nil || !not {
		return e, err
	}
	if inner, ok := e.(negate); ok {
		return inner.part, nil
	}
	return negate{e}, nil
}

func (p *parser) positive() (expr, error) {
	switch {
	case p.is("("):
		return p.grouped()
	case p.is(wordAction, wordSubOperation):
		return p.matches()
	case p.is(wordExists):
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.tok.kind != attrToken {
			return nil, p.unexpected("an attribute like @Resource[...]")
		}
		return exists{p.tok.attr}, p.advance()
	}
	return p.comparison()
}

func (p *parser) grouped() (expr, error) {
	at := p.tok.at
	if p.open++; p.open > 4*maxDepth {
		return nil, p.fault(at, "there are over %d parentheses in one another; fewer were expected", 4*maxDepth)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	e, err := p.any()
	if err != nil {
		return nil, err
	}
	p.open--
	if !p.is(")") {
		return nil, p.unexpected("AND, OR or )")
	}
	return e, p.advance()
}

func (p *parser) matches() (expr, error) {
	e := matches{sub: p.is(wordSubOperation)}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if err := p.must("{"); err != nil {
		return nil, err
	}
	if p.tok.kind != quoted || p.tok.text == "" {
		return nil, p.unexpected("an action in single quotation marks, like 'Microsoft.KeyVault/vaults/read',")
	}
	e.pattern = p.tok.text
	if err := p.advance(); err != nil {
		return nil, err
	}
	return e, p.must("}")
}

func (p *parser) comparison() (expr, error) {
	left, err := p.side()
	if err != nil {
		return nil, err
	}
	var e comparison
	if e.quantifier, e.operator, err = p.operator(); err != nil {
		return nil, err
	}
	right, err := p.side()
	if err != nil {
		return nil, err
	}
	if e.left, err = left.operand(p, e); err != nil {
		return nil, err
	}
	e.right, err = right.operand(p, e)
	return e, err
}

// operator reads one, perhaps with a quantifier before it.
func (p *parser) operator() (quantifier, operator, error) {
	q, name := plainly, p.tok.text
	if word, rest, ok := strings.Cut(name, ":"); ok {
		for _, have := range quantifiers {
			if lower(have.name) == lower(word) {
				q, name = have, rest
			}
		}
		if q == plainly {
			return q, operator{}, p.unexpected("ForAnyOfAnyValues:, ForAllOfAnyValues:, ForAnyOfAllValues: or ForAllOfAllValues:")
		}
	}
	o, ok := operators()[lower(name)]
	if !ok || p.tok.kind != bare {
		return q, o, p.unexpected("an operator, like StringEquals, NumericLessThan or ForAnyOfAnyValues:GuidEquals,")
	}
	return q, o, p.advance()
}

// side is an operand before its operator is known, which says how to read it.
type side struct {
	at     int
	attr   *attribute
	values []token
	set    bool
}

func (p *parser) side() (side, error) {
	s := side{at: p.tok.at}
	if p.tok.kind == attrToken {
		attr := p.tok.attr
		s.attr = &attr
		return s, p.advance()
	}
	set, err := p.take("{")
	if err != nil {
		return s, err
	}
	s.set = set
	for {
		if p.tok.kind != bare && p.tok.kind != quoted {
			want := "a part (an attribute like @Resource[...], a value, ActionMatches{'...'}, Exists, ! or a parenthesis)"
			if set {
				want = "a value"
			}
			return s, p.unexpected(want)
		}
		s.values = append(s.values, p.tok)
		if err := p.advance(); err != nil || !set {
			return s, err
		}
		more, err := p.take(",")
		if err != nil {
			return s, err
		}
		if !more {
			return s, p.must("}")
		}
	}
}

// operand reads the values of s as the operator of e takes them.
func (s side) operand(p *parser, e comparison) (operand, error) {
	if s.attr != nil {
		return operand{attr: s.attr}, nil
	}
	if len(s.values) > 1 && e.quantifier == plainly {
		return operand{}, p.fault(s.at, "%s compares one value with one; ForAnyOfAnyValues:%s, or another of its kind, was expected for a set", e.operator.name, e.operator.name)
	}
	c := e.operator.class
	var out operand
	for _, t := range s.values {
		canonical, ok := c.read(t.text)
		if !ok || !c.loose && c.quoted != (t.kind == quoted) {
			return out, p.fault(t.at, "%s has %s where %s was expected", e.operator.name, t, c.word)
		}
		out.values = append(out.values, canonical)
	}
	return out, nil
}
