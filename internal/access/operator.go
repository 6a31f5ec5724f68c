package access

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// class is what an operator compares.
type class struct {
	// word is for errors: "a number, like 10".
	word string
	// read says whether a value is one, and how it is printed.
	read func(text string) (canonical string, ok bool)
	// quoted values stand in quotation marks.
	quoted bool
	// loose: they may be written either way.
	loose bool
}

var (
	texts   = &class{word: "a text in single quotation marks", read: func(s string) (string, bool) { return s, true }, quoted: true}
	numbers = &class{word: "a number without quotation marks, like 10", read: func(s string) (string, bool) { _, ok := number(s); return s, ok }}
	bools   = &class{word: "true or false", read: boolean, loose: true}
	guids   = &class{word: "a GUID, like 00000000-0000-0000-0000-000000000000", read: guid, loose: true}
	times   = &class{word: "a time in single quotation marks, like '2030-01-31T00:00:00.0Z'", quoted: true,
		read: func(s string) (string, bool) { _, ok := moment(s); return s, ok }}
)

// operator compares two values.
type operator struct {
	name  string
	class *class
	// holds is asked about values that the class can read.
	holds func(left, right string) bool
}

// operators by lower-case name; every comparison of a condition asks it.
var operators = sync.OnceValue(func() map[string]operator {
	m := map[string]operator{}
	for _, o := range slices.Concat(
		textOperators("Equals", func(a, b string) bool { return a == b }),
		textOperators("StartsWith", strings.HasPrefix),
		textOperators("Like", like),
		ordered("Numeric", numbers, func(a, b string) int {
			x, _ := number(a)
			y, _ := number(b)
			return x.Cmp(y)
		}),
		ordered("DateTime", times, func(a, b string) int {
			x, _ := moment(a)
			y, _ := moment(b)
			return x.Compare(y)
		}),
		alike("Bool", bools), alike("Guid", guids),
	) {
		m[lower(o.name)] = o
	}
	return m
})

// textOperators are String{verb} with and without case, and their negations.
func textOperators(verb string, holds func(left, right string) bool) []operator {
	folded := func(a, b string) bool { return holds(foldText(a), foldText(b)) }
	not := func(f func(a, b string) bool) func(a, b string) bool {
		return func(a, b string) bool { return !f(a, b) }
	}
	return []operator{
		{"String" + verb, texts, holds},
		{"String" + verb + "IgnoreCase", texts, folded},
		{"StringNot" + verb, texts, not(holds)},
		{"StringNot" + verb + "IgnoreCase", texts, not(folded)},
	}
}

func ordered(prefix string, c *class, compare func(a, b string) int) []operator {
	op := func(verb string, holds func(sign int) bool) operator {
		return operator{prefix + verb, c, func(a, b string) bool { return holds(compare(a, b)) }}
	}
	return []operator{
		op("Equals", func(n int) bool { return n == 0 }),
		op("NotEquals", func(n int) bool { return n != 0 }),
		op("GreaterThan", func(n int) bool { return n > 0 }),
		op("GreaterThanEquals", func(n int) bool { return n >= 0 }),
		op("LessThan", func(n int) bool { return n < 0 }),
		op("LessThanEquals", func(n int) bool { return n <= 0 }),
	}
}

// alike are the operators of what has no order.
func alike(prefix string, c *class) []operator {
	return ordered(prefix, c, func(a, b string) int {
		x, _ := c.read(a)
		y, _ := c.read(b)
		return cmp.Compare(x, y)
	})[:2]
}

// foldText makes texts equal that differ in case only. A letter beyond ASCII
// that folds to an ASCII one (the Kelvin sign to k) stays: it is another letter
// to whoever reads the two.
func foldText(s string) string {
	return strings.Map(func(r rune) rune {
		if l := unicode.ToLower(r); l < 0x80 == (r < 0x80) {
			return l
		}
		return r
	}, s)
}

// like matches "*" with any run of characters and "?" with one; a backslash
// before either means the character itself.
func like(text, pattern string) bool {
	t, p := []rune(text), likePattern(pattern)
	i, k := 0, 0
	star, from := -1, 0 // the last star, and where what it stands for ends
	for i < len(t) {
		switch {
		case k < len(p) && p[k] == anyRun:
			star, from = k, i
			k++
		case k < len(p) && (p[k] == anyOne || p[k] == t[i]):
			i, k = i+1, k+1
		case star >= 0:
			from++
			i, k = from, star+1
		default:
			return false
		}
	}
	return !slices.ContainsFunc(p[k:], func(r rune) bool { return r != anyRun })
}

// No text has these as characters.
const (
	anyRun rune = -1 - iota
	anyOne
)

func likePattern(pattern string) []rune {
	var out []rune
	escaped := false
	for _, r := range pattern {
		special := r == '*' || r == '?'
		switch {
		case escaped && special:
			out[len(out)-1] = r // in the place of the backslash
		case r == '*':
			out = append(out, anyRun)
		case r == '?':
			out = append(out, anyOne)
		default:
			out = append(out, r)
		}
		escaped = r == '\\'
	}
	return out
}

// number reads a decimal number. What else big.Rat reads ("1e999999999") would
// take as long to read as somebody likes.
func number(s string) (*big.Rat, bool) {
	if len(s) > 40 || strings.Trim(s, "-.0123456789") != "" || strings.HasSuffix(s, ".") {
		return nil, false
	}
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func boolean(s string) (string, bool) {
	s = lower(s)
	return s, s == "true" || s == "false"
}

func guid(s string) (string, bool) {
	s = lower(s)
	if len(s) != 36 {
		return s, false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') {
			return s, false
		} else if !dash && strings.IndexByte("0123456789abcdef", s[i]) < 0 {
			return s, false
		}
	}
	return s, true
}

func moment(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}
