package arm

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Registered is a resource type that an installation adds by its configuration:
// its resources are documents like all others, with an identity block.
type Registered struct {
	// Name is "Namespace/type", or "Namespace/type/child" of a type that there is.
	Name string
	// Identity is identity.type as clients of the family spell it:
	// "SystemAssigned, UserAssigned" (or without the space), "SystemAssigned",
	// "UserAssigned", or "None", which "" is too.
	Identity string
	// NoLocation marks a type whose resources need no location.
	NoLocation bool
	// Extension marks a type whose resources are of another resource:
	// {resource}/providers/{type}/{name}.
	Extension bool
}

// closed are the namespaces of which the rows are code: what is called so
// decides who is who and who may what.
var closed = []string{"Microsoft.Authorization", "Microsoft.Resources", "Microsoft.ManagedIdentity", "Microsoft.Management", "Innate"}

var typeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)+(/[A-Za-z][A-Za-z0-9]*){1,4}$`)

// Rows returns the rows of the types, which join those that there are by
// themselves. All that is wrong with them is in the error.
func Rows(own []*Type, add []Registered) ([]*Type, error) {
	have := map[string]string{}
	for _, t := range own {
		have[strings.ToLower(t.Name)] = "is one of Innate's own types"
	}
	for name := range nouns() {
		have[name] = "is one of Innate's own types"
	}
	for _, r := range add {
		if _, ok := have[strings.ToLower(r.Name)]; !ok {
			have[strings.ToLower(r.Name)] = ""
		}
	}
	var out []*Type
	var errs []error
	for _, r := range add {
		why := have[strings.ToLower(r.Name)]
		t, err := r.row(have)
		if why != "" {
			err = errors.New(why)
		}
		have[strings.ToLower(r.Name)] = "is there more than once"
		if err != nil {
			errs = append(errs, fmt.Errorf("the type %q %w", r.Name, err))
			continue
		}
		out = append(out, t)
	}
	return out, errors.Join(errs...)
}

func (r Registered) row(have map[string]string) (*Type, error) {
	if !typeName.MatchString(r.Name) || len(r.Name) > 200 {
		return nil, errors.New(`is not a resource type: "Namespace.Part/type" was expected, or "Namespace.Part/type/child"`)
	}
	namespace, _, _ := strings.Cut(r.Name, "/")
	if slices.ContainsFunc(closed, func(c string) bool {
		return strings.EqualFold(namespace, c) || strings.HasPrefix(strings.ToLower(namespace), strings.ToLower(c)+".")
	}) {
		return nil, fmt.Errorf("is in a namespace that nothing can be added to (%s)", strings.Join(closed, ", "))
	}
	t := &Type{Name: r.Name, NamePattern: names, NameRule: namesRule, NoLocation: r.NoLocation, Extension: r.Extension, Polling: PollAsync}
	if above, _, _ := cutLast(r.Name); above != namespace {
		if _, ok := have[strings.ToLower(above)]; !ok {
			return nil, fmt.Errorf("is a child of %s, which is no type: add that one too", above)
		}
		if r.Extension {
			return nil, errors.New("is a child of another type, and so no extension")
		}
	}
	switch r.Identity {
	case "", "None":
	case "SystemAssigned":
		t.System = true
	case "UserAssigned":
		t.User = true
	case "SystemAssigned" + commaSpace + "UserAssigned":
		t.System, t.User, t.Separator = true, true, commaSpace
	case "SystemAssigned" + comma + "UserAssigned":
		t.System, t.User, t.Separator = true, true, comma
	default:
		return nil, fmt.Errorf(`has the identity %q; "None", "SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned" or the same without the space was expected`, r.Identity)
	}
	return t, nil
}
