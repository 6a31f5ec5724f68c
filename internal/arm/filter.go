package arm

import (
	"strings"

	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
)

// terms reads a $filter that is terms joined by and, and nothing else; can says
// what can be asked, for the error.
func terms(text, can string) ([]odata.Term, error) {
	f, err := odata.Parse(text)
	if err != nil {
		return nil, err
	}
	out, ok := f.Terms()
	if !ok {
		return nil, problem.Errorf(problem.BadFilter, "The $filter has or or not; %s can be asked here.", can).At("$filter")
	}
	return out, nil
}

// assignmentFilter reads the filter of a list of role assignments.
func assignmentFilter(s string) (AssignmentFilter, error) {
	const can = "atScope() and one of principalId eq '{id}' and assignedTo('{id}'), joined by and,"
	var out AssignmentFilter
	all, err := terms(s, can)
	if err != nil {
		return out, err
	}
	for _, t := range all {
		id, _ := t.Text()
		if t.Calls("assignedTo", odata.Text) {
			id = t.Values[0].Text
		}
		switch {
		case t.Calls("atScope"):
			out.AtScope = true
		case id != "" && out.Principal == "" && (t.Is("principalId", odata.Eq) || t.Is("assignedTo", odata.Call)):
			out.Principal = id
		default:
			return AssignmentFilter{}, t.Unknown(can)
		}
	}
	return out, nil
}

// definitionFilter reads the filter of a list of role definitions: a role's
// name, "" for all.
func definitionFilter(s string) (name string, err error) {
	const can = "atScopeAndBelow(), type eq 'BuiltInRole' and roleName eq '{name}'"
	all, err := terms(s, can)
	if err != nil || len(all) == 0 {
		return "", err
	}
	text, _ := all[0].Text()
	switch t := all[0]; {
	case len(all) > 1:
		return "", all[1].Unknown("one of " + can)
	case t.Is("roleName", odata.Eq) && text != "":
		return text, nil
	case t.Calls("atScopeAndBelow"), t.Calls("atScope"), t.Is("type", odata.Eq) && strings.EqualFold(text, "BuiltInRole"):
		return "", nil
	}
	return "", all[0].Unknown(can)
}

// wantedGroups is what a list of groups is asked for.
type wantedGroups struct{ name, member string }

const groupFilters = "displayName eq '{name}' or hasMember('{object id}')"

func groupFilter(text string) (f wantedGroups, err error) {
	all, err := terms(text, groupFilters)
	if err != nil {
		return f, err
	}
	for _, t := range all {
		name, _ := t.Text()
		switch {
		case len(all) == 1 && t.Is("displayName", odata.Eq) && name != "":
			f.name = name
		case len(all) == 1 && t.Calls("hasMember", odata.Text) && t.Values[0].Text != "":
			f.member = t.Values[0].Text
		default:
			return f, t.Unknown(groupFilters)
		}
	}
	return f, nil
}
