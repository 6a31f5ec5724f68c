package access

import "slices"

// Narrowed reports whether anything of f has a condition, and so asks for
// attributes.
func (f Facts) Narrowed() bool {
	return slices.ContainsFunc(f.Denials, func(d Denial) bool { return d.Condition != "" || narrows(d.Permissions) }) ||
		slices.ContainsFunc(f.Assignments, func(a Assignment) bool {
			role, _ := f.role(a.Role)
			return a.Condition != "" || narrows(role.Permissions)
		})
}

// Unnarrowed is f without the role assignments, and the blocks of roles, that
// have a condition. Denials stay.
func (f Facts) Unnarrowed() Facts {
	out := f
	out.Assignments, out.Roles = nil, map[string]Role{}
	for _, a := range f.Assignments {
		role, ok := f.role(a.Role)
		if !ok || a.Condition != "" {
			continue
		}
		if narrows(role.Permissions) {
			role.Permissions = slices.DeleteFunc(slices.Clone(role.Permissions), narrowed)
		}
		out.Assignments = append(out.Assignments, a)
		out.Roles[lower(a.Role)] = role
	}
	return out
}

func narrowed(p Permission) bool { return p.Condition != "" }

func narrows(all []Permission) bool { return slices.ContainsFunc(all, narrowed) }
