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

// GroupFilter is what $filter can ask of a list of groups: all zero means all.
type GroupFilter struct {
	// Name: only those that are called so.
	Name string
	// Member: only those that this object id is in, also through groups.
	Member string
}

const groupFilters = "displayName eq '{name}' or hasMember('{object id}') was expected"

func groupFilter(text string) (f GroupFilter, err error) {
	clauses, err := parseFilter(text, groupFilters)
	if err != nil {
		return f, err
	}
	for _, c := range clauses {
		switch {
		case len(clauses) == 1 && c.is("displayname", false):
			f.Name = c.value
		case len(clauses) == 1 && c.is("hasmember", true):
			f.Member = c.value
		default:
			return f, unknownFilter(text, groupFilters)
		}
	}
	return f, nil
}

func unknownFilter(text, have string) error {
	return problem.Errorf(problem.NotSupported, "The $filter '%s' is not supported; %s.", problem.Clip(text), have)
}

// is reports whether the clause has this name, and a value.
func (c clause) is(name string, call bool) bool {
	return c.name == name && c.call == call && c.value != ""
}

// AssignmentFilter is what $filter can ask of a list of role assignments.
type AssignmentFilter struct {
	// AtScope: only at the scope and above it, not below.
	AtScope bool
	// Principal: only this object id's; with Groups also those of the groups
	// that it is in, and of the groups that these are in.
	Principal string
	Groups    bool
}

const assignmentFilters = "atScope() and one of principalId eq '{object id}' and assignedTo('{object id}') were expected"

func assignmentFilter(text string) (f AssignmentFilter, err error) {
	clauses, err := parseFilter(text, assignmentFilters)
	if err != nil {
		return f, err
	}
	for _, c := range clauses {
		switch {
		case c.name == "atscope" && c.call && c.value == "":
			f.AtScope = true
		case c.is("principalid", false) && f.Principal == "":
			f.Principal = c.value
		case c.is("assignedto", true) && f.Principal == "":
			f.Principal, f.Groups = c.value, true
		default:
			return f, unknownFilter(text, assignmentFilters)
		}
	}
	return f, nil
}

// DefinitionFilter is what $filter can ask of a list of roles.
type DefinitionFilter struct {
	// Below: also roles that can only be assigned below the scope.
	Below bool
	// Name: only the role of this name, compared without case.
	Name string
	// BuiltIn and Custom leave the other ones out.
	BuiltIn, Custom bool
}

const definitionFilters = "atScope(), atScopeAndBelow(), roleName eq '{name}' and type eq 'BuiltInRole' or 'CustomRole' were expected"

func definitionFilter(text string) (f DefinitionFilter, err error) {
	clauses, err := parseFilter(text, definitionFilters)
	if err != nil {
		return f, err
	}
	for _, c := range clauses {
		switch {
		case c.name == "atscope" && c.call && c.value == "":
		case c.name == "atscopeandbelow" && c.call && c.value == "":
			f.Below = true
		case c.is("rolename", false) && f.Name == "":
			f.Name = c.value
		case c.is("type", false) && strings.EqualFold(c.value, "BuiltInRole"):
			f.BuiltIn = true
		case c.is("type", false) && strings.EqualFold(c.value, "CustomRole"):
			f.Custom = true
		default:
			return f, unknownFilter(text, definitionFilters)
		}
	}
	return f, nil
}

// DenialFilter is what $filter can ask of a list of deny assignments.
type DenialFilter struct {
	// AtScope: only at the scope and above it, not below.
	AtScope bool
	// Name: only those of this name, compared without case.
	Name string
	// Principal: only those that name this object id, as denied or as left out;
	// with Groups, those that hit it, also as everyone and by its groups.
	Principal string
	Groups    bool
}

const denialFilters = "atScope(), denyAssignmentName eq '{name}' and one of principalId eq '{object id}' and assignedTo('{object id}') were expected"

func denialFilter(text string) (f DenialFilter, err error) {
	clauses, err := parseFilter(text, denialFilters)
	if err != nil {
		return f, err
	}
	for _, c := range clauses {
		switch {
		case c.name == "atscope" && c.call && c.value == "":
			f.AtScope = true
		case c.is("denyassignmentname", false) && f.Name == "":
			f.Name = c.value
		case c.is("principalid", false) && f.Principal == "":
			f.Principal = strings.ToLower(c.value)
		case c.is("assignedto", true) && f.Principal == "":
			f.Principal, f.Groups = strings.ToLower(c.value), true
		default:
			return f, unknownFilter(text, denialFilters)
		}
	}
	return f, nil
}
