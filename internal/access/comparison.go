package access

import (
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// quantifier says how many of the values on each side must hold.
type quantifier struct {
	name                string
	everyLeft, everyRgt bool
}

// plain compares one value with one.
var plainly = quantifier{}

var quantifiers = []quantifier{
	{"ForAnyOfAnyValues", false, false},
	{"ForAllOfAnyValues", true, false},
	{"ForAnyOfAllValues", false, true},
	{"ForAllOfAllValues", true, true},
}

// operand is one side of a comparison: an attribute, or values.
type operand struct {
	attr   *attribute
	values []string
}

func (o operand) find(op *Operation) []string {
	if o.attr != nil {
		return o.attr.find(op)
	}
	return o.values
}

// comparison is left operator right.
type comparison struct {
	left, right operand
	quantifier  quantifier
	operator    operator
}

func (e comparison) eval(op *Operation) Truth {
	t, _ := e.judge(op)
	return t
}

// flaw is why a comparison is unknown, by the operand that it is about.
type flaw struct {
	of     operand
	value  string // that the class cannot read
	number int    // of values, where one was expected; 0 is none at all
}

func (e comparison) judge(op *Operation) (Truth, flaw) {
	left, right := e.left.find(op), e.right.find(op)
	for _, side := range []struct {
		of     operand
		values []string
	}{{e.left, left}, {e.right, right}} {
		if n := len(side.values); n == 0 || n > 1 && e.quantifier == plainly {
			return Unknown, flaw{of: side.of, number: n}
		}
		for _, v := range side.values {
			if _, ok := e.operator.class.read(v); !ok {
				return Unknown, flaw{of: side.of, value: v, number: 1}
			}
		}
	}
	return truth(quantify(left, e.quantifier.everyLeft, func(l string) bool {
		return quantify(right, e.quantifier.everyRgt, func(r string) bool { return e.operator.holds(l, r) })
	})), flaw{}
}

// quantify asks about values until the answer is clear: the first that does
// not hold where every one must, the first that does where one is enough.
func quantify(values []string, every bool, holds func(string) bool) bool {
	for _, v := range values {
		if holds(v) != every {
			return !every
		}
	}
	return every
}

func (e comparison) explain(op *Operation) (Truth, string) {
	t, f := e.judge(op)
	text := clip(printed(e))
	switch {
	case t == True:
		return t, text + " holds"
	case t == False:
		return t, text + " does not hold" + e.seen(op)
	case f.number == 0:
		return t, text + " is unknown: " + f.of.attr.String() + " is not there"
	case f.number > 1:
		return t, fmt.Sprintf("%s is unknown: %s has %d values; one was expected, or ForAnyOfAnyValues: before the operator", text, f.of.attr, f.number)
	}
	return t, text + " is unknown: " + quote(clip(f.value)) + " is not " + e.operator.class.word
}

// seen says what the attributes were.
func (e comparison) seen(op *Operation) string {
	var b strings.Builder
	for _, o := range []operand{e.left, e.right} {
		if o.attr == nil {
			continue
		}
		values := o.attr.find(op)
		between := ": "
		if b.Len() > 0 {
			between = " and "
		}
		b.WriteString(between + o.attr.String() + " is ")
		for i, v := range values[:min(len(values), 8)] {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quote(clip(v)))
		}
		if len(values) > 8 {
			b.WriteString(", ...")
		}
	}
	return b.String()
}

func (e comparison) print(b *strings.Builder) {
	e.operand(b, e.left)
	b.WriteByte(' ')
	if e.quantifier != plainly {
		b.WriteString(e.quantifier.name + ":")
	}
	b.WriteString(e.operator.name + " ")
	e.operand(b, e.right)
}

func (e comparison) operand(b *strings.Builder, o operand) {
	if o.attr != nil {
		b.WriteString(o.attr.String())
		return
	}
	open, shut := "{", "}"
	if e.quantifier == plainly {
		open, shut = "", ""
	}
	b.WriteString(open)
	for i, v := range o.values {
		if i > 0 {
			b.WriteString(", ")
		}
		if e.operator.class.quoted {
			v = quote(v)
		}
		b.WriteString(v)
	}
	b.WriteString(shut)
}

func (comparison) depth() int { return 0 }

func printed(e expr) string {
	var b strings.Builder
	e.print(&b)
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// clip keeps words short: a condition may be long, and so may a value.
func clip(s string) string { return problem.Clip(s) }
