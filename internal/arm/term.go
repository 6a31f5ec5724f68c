package arm

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// maxTerm bounds a term, in characters: an index holds no long ones. A term
// finds who may match, and who does is decided on the document.
const maxTerm = 200

// TermName, TermTag and TermTagged are the terms that resources are found by
// besides their IDs.
func TermName(name string) string { return term("name=" + lower(name)) }

// TermTag is the term of resources with a tag of this name.
func TermTag(name string) string { return term("tag=" + lower(name)) }

// TermTagged is the term of resources with a tag of this name and value.
func TermTagged(name, value string) string { return term("tagged=" + lower(name) + "=" + value) }

func term(s string) string {
	if utf8.RuneCountInString(s) <= maxTerm {
		return s
	}
	return string([]rune(s)[:maxTerm])
}

// lower is ASCII lower case, as names compare.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// Terms are all terms of a resource.
func (r Resource) Terms() []string {
	out := []string{TermName(r.ID.Name())}
	for name, value := range tagsOf(r.Body) {
		if strings.Contains(name+value, "\x00") {
			continue // which no database can hold as text, and so no filter finds
		}
		out = append(out, TermTag(name), TermTagged(name, value))
	}
	return out
}

// tagsOf are the tags of a document.
func tagsOf(body map[string]json.RawMessage) map[string]string {
	var tags map[string]string
	if raw := Document(body).Member("tags"); !isNull(raw) && json.Unmarshal(raw, &tags) != nil {
		return nil // clean lets nothing else in
	}
	return tags
}
