// Package odata reads the $filter of a list: the part of OData's language that
// the clients of the management API and of the directory use.
//
//	resourceType eq 'Microsoft.Compute/virtualMachines' and not (tagName eq 'env')
//	startswith(tagName, 'cost') or identity/principalId eq '5f0...'
//	eventTimestamp ge '2026-01-31T12:00:00Z' and id in ('a', 'b')
//
// A newcomer would match such texts with a regular expression, and that is how
// a filter that was not understood lists what it should have left out. Here
// every character is read, and what the list does not know is refused: who
// parses calls [Filter.Check] with what there is, or asks for [Filter.Terms].
package odata

import (
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Op is what a term says of its property.
type Op string

// The operators of terms. Call is a function: startswith(name, 'x').
const (
	Eq   Op = "eq"
	Ne   Op = "ne"
	Gt   Op = "gt"
	Ge   Op = "ge"
	Lt   Op = "lt"
	Le   Op = "le"
	In   Op = "in"
	Call Op = "call"
)

// Kind is what a value is written as.
type Kind string

// The kinds of values. A Property is a name among a function's arguments.
const (
	Text     Kind = "text"
	Number   Kind = "number"
	Bool     Kind = "bool"
	Null     Kind = "null"
	GUID     Kind = "guid"
	Time     Kind = "time"
	Property Kind = "property"
)

// Value is a literal, or the name of a property.
type Value struct {
	Kind Kind
	// Text is the value without quotes, the name of a property as written.
	Text string
}

// Term is a comparison or a call.
type Term struct {
	// Name is the property, "identity/principalId", or the function.
	Name string
	Op   Op
	// Values are what the property is compared with, one but for In; the
	// arguments of a call, in their order.
	Values []Value
}

// Is reports whether the term compares the property (without case) in this way.
func (t Term) Is(name string, op Op) bool { return t.Op == op && strings.EqualFold(t.Name, name) }

// Calls reports whether the term is a call of the function (without case) with
// arguments of these kinds.
func (t Term) Calls(function string, kinds ...Kind) bool {
	if !t.Is(function, Call) || len(t.Values) != len(kinds) {
		return false
	}
	for i, k := range kinds {
		if t.Values[i].Kind != k {
			return false
		}
	}
	return true
}

// Text returns the one value of a comparison with a text or a GUID.
func (t Term) Text() (string, bool) {
	if t.Op == Call || len(t.Values) != 1 || t.Values[0].Kind != Text && t.Values[0].Kind != GUID {
		return "", false
	}
	return t.Values[0].Text, true
}

// Join is how a filter is made of filters.
type Join string

// The joins. A leaf is a term.
const (
	Leaf Join = ""
	And  Join = "and"
	Or   Join = "or"
	Not  Join = "not"
)

// Filter is a filter as a tree. The zero Filter is none, which all match.
type Filter struct {
	Join Join
	// Of are the parts: two or more of And and Or, one of Not.
	Of []Filter
	// Term is a leaf's.
	Term Term
}

// IsZero reports whether there is no filter.
func (f Filter) IsZero() bool { return f.Join == Leaf && f.Term.Op == "" }

// Terms returns the terms of a filter that is one term, or terms joined by and
// alone: all of them must hold. ok is false for any other.
func (f Filter) Terms() (terms []Term, ok bool) {
	switch {
	case f.IsZero():
		return nil, true
	case f.Join == Leaf:
		return []Term{f.Term}, true
	case f.Join != And:
		return nil, false
	}
	for _, part := range f.Of {
		more, ok := part.Terms()
		if !ok {
			return nil, false
		}
		terms = append(terms, more...)
	}
	return terms, true
}

// Needed returns the terms that hold wherever the filter does: an index may be
// asked for one of them.
func (f Filter) Needed() []Term {
	var out []Term
	switch {
	case f.IsZero():
	case f.Join == Leaf:
		out = []Term{f.Term}
	case f.Join == And:
		for _, part := range f.Of {
			out = append(out, part.Needed()...)
		}
	}
	return out
}

// Check calls known for every term and returns the first that it does not
// know, as [problem.BadFilter]; can says what can be asked.
func (f Filter) Check(can string, known func(Term) bool) error {
	if f.Join != Leaf {
		for _, part := range f.Of {
			if err := part.Check(can, known); err != nil {
				return err
			}
		}
		return nil
	}
	if f.IsZero() || known(f.Term) {
		return nil
	}
	return f.Term.Unknown(can)
}

// Unknown is the refusal of a term that cannot be asked; can says what can be.
func (t Term) Unknown(can string) error {
	return problem.Errorf(problem.BadFilter, "The $filter has '%s', which cannot be asked here; %s can.", problem.Clip(t.String()), can).At("$filter")
}

// Match decides by what holds of each term.
func (f Filter) Match(holds func(Term) bool) bool {
	switch f.Join {
	case And:
		for _, part := range f.Of {
			if !part.Match(holds) {
				return false
			}
		}
		return true
	case Or:
		for _, part := range f.Of {
			if part.Match(holds) {
				return true
			}
		}
		return false
	case Not:
		return !f.Of[0].Match(holds)
	}
	return f.IsZero() || holds(f.Term)
}

// String is the filter as it can be parsed again.
func (f Filter) String() string {
	switch {
	case f.IsZero():
		return ""
	case f.Join == Leaf:
		return f.Term.String()
	case f.Join == Not:
		return "not (" + f.Of[0].String() + ")"
	}
	parts := make([]string, len(f.Of))
	for i, part := range f.Of {
		parts[i] = part.String()
		if part.Join == And || part.Join == Or {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " "+string(f.Join)+" ")
}

// String is the term as it can be parsed again.
func (t Term) String() string {
	values := make([]string, len(t.Values))
	for i, v := range t.Values {
		values[i] = v.String()
	}
	list := strings.Join(values, ", ")
	switch t.Op {
	case Call:
		return t.Name + "(" + list + ")"
	case In:
		return t.Name + " in (" + list + ")"
	}
	return t.Name + " " + string(t.Op) + " " + list
}

// String is the value as it can be parsed again.
func (v Value) String() string {
	if v.Kind == Text {
		return "'" + strings.ReplaceAll(v.Text, "'", "''") + "'"
	}
	return v.Text
}
