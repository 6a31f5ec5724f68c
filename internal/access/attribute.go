package access

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// source is where an attribute comes from.
type source int

const (
	fromPrincipal source = iota
	fromResource
	fromRequest
	fromEnvironment
	fromCaller
)

var sources = []string{"Principal", "Resource", "Request", "Environment", "Caller"}

func (s source) String() string { return sources[s] }

func sourceNamed(word string) (source, bool) {
	i := slices.IndexFunc(sources, func(s string) bool { return lower(s) == lower(word) })
	return source(i), i >= 0
}

// of returns what a says of this source.
func (s source) of(a *Attributes) Values {
	return []Values{a.Principal, a.Resource, a.Request, a.Environment, a.Caller}[s]
}

// attribute is @Source[name] in a condition.
type attribute struct {
	source source
	name   string
	// exact: what comes after the name's colon, a tag's name, compares with
	// case. It is written as keyMarker after the name.
	exact bool
}

const (
	keyMarker   = "<$key_case_sensitive$>"
	maxAttrName = 512
)

// attributeName reads what stands between the brackets; flaw says what is wrong.
func attributeName(text string) (name string, exact bool, flaw string) {
	name, exact = strings.CutSuffix(text, keyMarker)
	switch {
	case name == "":
		return "", false, "the attribute has no name; one like Microsoft.KeyVault/vaults/secrets:name was expected"
	case len(name) > maxAttrName:
		return "", false, fmt.Sprintf("the attribute's name is %d bytes long; at most %d are allowed", len(name), maxAttrName)
	case exact && !strings.Contains(name, ":"):
		return "", false, "the attribute's name has " + keyMarker + " without a key; one like Microsoft.Resources/tags:Project" + keyMarker + " was expected"
	case name != strings.TrimSpace(name):
		return "", false, "the attribute's name ends with a space"
	}
	for _, r := range name {
		if r == utf8.RuneError || !unicode.IsPrint(r) || strings.ContainsRune("[]'<>", r) {
			return "", false, fmt.Sprintf("the attribute's name has %q; letters, digits and . / : _ - $ & were expected", r)
		}
	}
	return name, exact, ""
}

func (a attribute) String() string {
	name := a.name
	if a.exact {
		name += keyMarker
	}
	return "@" + a.source.String() + "[" + name + "]"
}

// names reports whether key, of [Values], is this attribute.
func (a attribute) names(key string) bool {
	if len(key) != len(a.name) || lower(key) != lower(a.name) {
		return false
	}
	return !a.exact || key[strings.IndexByte(key, ':'):] == a.name[strings.IndexByte(a.name, ':'):]
}

// find returns the attribute's values; none means that it is not there. Where
// names differ in case only, all their values count, in the names' order.
func (a attribute) find(op *Operation) []string {
	all := a.source.of(&op.Attributes)
	var keys []string
	for k := range all {
		if a.names(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 1 {
		return all[keys[0]]
	}
	slices.Sort(keys)
	var out []string
	for _, k := range keys {
		out = append(out, all[k]...)
	}
	return out
}

// exists is Exists @Source[name].
type exists struct{ attr attribute }

func (e exists) eval(op *Operation) Truth { return truth(len(e.attr.find(op)) > 0) }

func (e exists) explain(op *Operation) (Truth, string) {
	t := e.eval(op)
	if t == True {
		return t, e.attr.String() + " is there"
	}
	return t, e.attr.String() + " is not there"
}

func (e exists) print(b *strings.Builder) { b.WriteString("Exists " + e.attr.String()) }
func (exists) depth() int                 { return 0 }

// subOperation is the request's attribute that SubOperationMatches asks about:
// which of the things that the action covers is done.
var subOperation = attribute{source: fromRequest, name: "subOperation"}

// matches is ActionMatches{'pattern'} or, with sub, SubOperationMatches.
type matches struct {
	pattern string
	sub     bool
}

func (e matches) eval(op *Operation) Truth {
	if !e.sub {
		return truth(Match(e.pattern, op.Action))
	}
	return truth(slices.ContainsFunc(subOperation.find(op), func(s string) bool { return Match(e.pattern, s) }))
}

func (e matches) explain(op *Operation) (Truth, string) {
	t := e.eval(op)
	what := "the action " + clip(op.Action)
	if e.sub {
		what = "the suboperation"
	}
	if t == True {
		return t, what + " matches '" + clip(e.pattern) + "'"
	}
	return t, what + " does not match '" + clip(e.pattern) + "'"
}

func (e matches) print(b *strings.Builder) {
	if e.sub {
		b.WriteString(wordSubOperation)
	} else {
		b.WriteString(wordAction)
	}
	b.WriteString("{" + quote(e.pattern) + "}")
}

func (matches) depth() int { return 0 }
