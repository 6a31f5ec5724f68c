package arm

import (
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// clause is one part of a $filter: "name eq 'value'" or "name('value')", of
// which the value may be missing. The name is lower case.
type clause struct {
	name, value string
	call        bool
}

// parseFilter reads clauses that are joined by "and", with any case and any
// spaces. A quote within a value is written twice, as OData has it. have says
// what there is, for the error.
func parseFilter(text, have string) ([]clause, error) {
	bad := func(what string) error {
		return problem.Errorf(problem.NotSupported, "The $filter '%s' is not supported: %s; %s, joined by and.", problem.Clip(text), what, have)
	}
	var out []clause
	for rest := strings.TrimSpace(text); rest != ""; {
		var c clause
		var what string
		if c, rest, what = readClause(rest); what != "" {
			return nil, bad(what)
		}
		out = append(out, c)
		if rest == "" {
			break
		}
		word, after := readWord(rest)
		if word != "and" || strings.TrimSpace(after) == "" {
			return nil, bad("'" + problem.Clip(rest) + "' is there where and was expected")
		}
		rest = strings.TrimSpace(after)
	}
	return out, nil
}

// readClause reads a clause and what comes after it; what says why it is none.
func readClause(s string) (c clause, rest, what string) {
	c.name, rest = readWord(s)
	if c.name == "" {
		return c, "", "'" + problem.Clip(s) + "' is there where a name was expected"
	}
	trimmed := strings.TrimLeft(rest, " \t")
	if inside, ok := strings.CutPrefix(trimmed, "("); ok {
		c.call = true
		inside = strings.TrimLeft(inside, " \t")
		if strings.HasPrefix(inside, "'") {
			if c.value, inside, ok = readQuoted(inside); !ok {
				return c, "", "a text's quotes do not end"
			}
		}
		inside, ok = strings.CutPrefix(strings.TrimLeft(inside, " \t"), ")")
		if !ok {
			return c, "", "the parenthesis after " + c.name + " does not end"
		}
		return c, strings.TrimLeft(inside, " \t"), ""
	}
	word, after := readWord(trimmed)
	if word != "eq" {
		return c, "", "after '" + c.name + "' eq was expected"
	}
	value, after, ok := readQuoted(strings.TrimLeft(after, " \t"))
	if !ok {
		return c, "", "after 'eq' a text in quotes was expected"
	}
	c.value = value
	return c, strings.TrimLeft(after, " \t"), ""
}

// readWord reads letters, and returns them in lower case.
func readWord(s string) (word, rest string) {
	n := strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if n < 0 {
		n = len(s)
	}
	return strings.ToLower(s[:n]), s[n:]
}

// readQuoted reads a text in single quotes.
func readQuoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, "'") {
		return "", s, false
	}
	var b strings.Builder
	for s = s[1:]; ; {
		before, after, found := strings.Cut(s, "'")
		if !found {
			return "", "", false
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, "'") {
			return b.String(), after, true
		}
		b.WriteByte('\'')
		s = after[1:]
	}
}

// wanted is what a list of groups is asked for.
type wantedGroups struct{ name, member string }

const groupFilters = "displayName eq '{name}' or hasMember('{object id}') was expected"

func groupFilter(text string) (f wantedGroups, err error) {
	clauses, err := parseFilter(text, groupFilters)
	if err != nil {
		return f, err
	}
	for _, c := range clauses {
		switch {
		case len(clauses) == 1 && c.name == "displayname" && !c.call && c.value != "":
			f.name = c.value
		case len(clauses) == 1 && c.name == "hasmember" && c.call && c.value != "":
			f.member = c.value
		default:
			return f, problem.Errorf(problem.NotSupported, "The $filter '%s' is not supported; %s.", problem.Clip(text), groupFilters)
		}
	}
	return f, nil
}
