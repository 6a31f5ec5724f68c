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

// named is the text that a term asks a property to be; "" if it asks something else.
func named(t odata.Term, property string) string {
	text, _ := t.Text()
	if !t.Is(property, odata.Eq) {
		return ""
	}
	return text
}

// called is the text that a term calls a function with; "" if it does not.
func called(t odata.Term, function string) string {
	if !t.Calls(function, odata.Text) {
		return ""
	}
	return t.Values[0].Text
}

// GroupFilter is what $filter can ask of a list of groups: all zero means all.
type GroupFilter struct {
	// Name: only those that are called so.
	Name string
	// Member: only those that this object id is in, also through groups.
	Member string
}

func groupFilter(text string) (f GroupFilter, err error) {
	const can = "one of displayName eq '{name}' and hasMember('{object id}')"
	all, err := terms(text, can)
	if err != nil || len(all) == 0 {
		return f, err
	}
	if len(all) > 1 {
		return f, all[1].Unknown(can)
	}
	f.Name, f.Member = named(all[0], "displayName"), called(all[0], "hasMember")
	if f == (GroupFilter{}) {
		return f, all[0].Unknown(can)
	}
	return f, nil
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

// assignmentFilter reads the filter of a list of role assignments.
func assignmentFilter(text string) (f AssignmentFilter, err error) {
	const can = "atScope() and one of principalId eq '{id}' and assignedTo('{id}'), joined by and,"
	all, err := terms(text, can)
	if err != nil {
		return f, err
	}
	for _, t := range all {
		id, to := named(t, "principalId"), called(t, "assignedTo")
		switch {
		case t.Calls("atScope"):
			f.AtScope = true
		case id+to != "" && f.Principal == "":
			f.Principal, f.Groups = id+to, to != ""
		default:
			return AssignmentFilter{}, t.Unknown(can)
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

func definitionFilter(text string) (f DefinitionFilter, err error) {
	const can = "atScope(), atScopeAndBelow(), roleName eq '{name}' and type eq 'BuiltInRole' or 'CustomRole', joined by and,"
	all, err := terms(text, can)
	if err != nil {
		return f, err
	}
	for _, t := range all {
		name, typ := named(t, "roleName"), named(t, "type")
		switch {
		case t.Calls("atScope"):
		case t.Calls("atScopeAndBelow"):
			f.Below = true
		case name != "" && f.Name == "":
			f.Name = name
		case strings.EqualFold(typ, "BuiltInRole"):
			f.BuiltIn = true
		case strings.EqualFold(typ, "CustomRole"):
			f.Custom = true
		default:
			return DefinitionFilter{}, t.Unknown(can)
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

func denialFilter(text string) (f DenialFilter, err error) {
	const can = "atScope(), denyAssignmentName eq '{name}' and one of principalId eq '{id}' and assignedTo('{id}'), joined by and,"
	all, err := terms(text, can)
	if err != nil {
		return f, err
	}
	for _, t := range all {
		name, id, to := named(t, "denyAssignmentName"), named(t, "principalId"), called(t, "assignedTo")
		switch {
		case t.Calls("atScope"):
			f.AtScope = true
		case name != "" && f.Name == "":
			f.Name = name
		case id+to != "" && f.Principal == "":
			f.Principal, f.Groups = strings.ToLower(id+to), to != ""
		default:
			return DenialFilter{}, t.Unknown(can)
		}
	}
	return f, nil
}
