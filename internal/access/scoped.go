package access

import "github.com/innate-id/innate/internal/resource"

// ByScope returns what finds those of f that count at a scope, for decisions at
// many scopes: who has a role at each of thousands would have each of them
// compared with all. above are the management groups over the scope.
func (f Facts) ByScope() func(scope resource.ID, above []resource.ID) Facts {
	assignments, denials := map[string][]Assignment{}, map[string][]Denial{}
	for _, a := range f.Assignments {
		assignments[a.Scope.Key()] = append(assignments[a.Scope.Key()], a)
	}
	for _, d := range f.Denials {
		denials[d.Scope.Key()] = append(denials[d.Scope.Key()], d)
	}
	return func(scope resource.ID, above []resource.ID) Facts {
		out := f
		out.Above, out.Assignments, out.Denials = above, nil, nil
		for _, over := range [][]resource.ID{scope.Ancestors(), above} {
			for _, n := range over {
				out.Assignments = append(out.Assignments, assignments[n.Key()]...)
				out.Denials = append(out.Denials, denials[n.Key()]...)
			}
		}
		return out
	}
}
