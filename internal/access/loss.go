package access

import (
	"slices"

	"github.com/innate-id/innate/internal/resource"
)

// Loss is a pattern of actions that would be lost with an assignment.
type Loss struct {
	// Pattern is as in the role; Except are what the role takes out of it.
	Pattern string
	Except  []string
	Data    bool
	// Kept is what gives all of it as well, so that nothing is lost; zero if
	// no other assignment does.
	Kept resource.ID
	// Denied is a deny assignment that refuses all of it, so that there is
	// nothing to lose; zero if none.
	Denied resource.ID
	// Partly are other assignments that may give some of it: some of its
	// actions, at some of the scopes below, or under a condition.
	Partly []resource.ID
}

// Lost reports whether somebody who has it now would not have all of it.
func (l Loss) Lost() bool { return l.Kept.IsZero() && l.Denied.IsZero() }

// Losses says, pattern by pattern, what who the facts are of would lose at the
// scope of an assignment and below it if that assignment went. It is careful:
// what another assignment is not sure to give is lost.
func Losses(f Facts, id resource.ID) []Loss {
	i := slices.IndexFunc(f.Assignments, func(a Assignment) bool { return a.ID.Equal(id) })
	if i < 0 || !holds(f.Principals, f.Assignments[i].Principal) {
		return nil
	}
	gone := f.Assignments[i]
	role, _ := f.Role(gone.Role)
	var out []Loss
	for _, p := range role.Permissions {
		for _, data := range []bool{false, true} {
			yes, no := p.lists(data)
			for _, pattern := range yes {
				l := Loss{Pattern: pattern, Data: data}
				for _, n := range no {
					if overlap(n, pattern) {
						l.Except = append(l.Except, n)
					}
				}
				f.weigh(&l, gone)
				out = append(out, l)
			}
		}
	}
	return out
}

// weigh finds what else gives l, and what refuses it anyway.
func (f Facts) weigh(l *Loss, gone Assignment) {
	for _, d := range f.Denials {
		if f.deniedAs(d) == "" || slices.ContainsFunc(d.Excluded, func(p string) bool { return holds(f.Principals, p) }) {
			continue
		}
		if !d.ScopeOnly && f.Covers(d.Scope, gone.Scope) && d.Condition == "" && l.within(d.Permissions) {
			l.Denied = d.ID
		}
	}
	for _, a := range f.Assignments {
		if a.ID.Equal(gone.ID) || !holds(f.Principals, a.Principal) {
			continue
		}
		role, _ := f.Role(a.Role)
		switch {
		case f.Covers(a.Scope, gone.Scope) && a.Condition == "" && l.within(role.Permissions):
			if l.Kept.IsZero() {
				l.Kept = a.ID
			}
		case (f.Covers(a.Scope, gone.Scope) || gone.Scope.Contains(a.Scope)) && l.touches(role.Permissions):
			l.Partly = append(l.Partly, a.ID)
		}
	}
}

// within reports whether one block is sure to have all of l.
func (l Loss) within(blocks []Permission) bool {
	return slices.ContainsFunc(blocks, func(p Permission) bool {
		yes, no := p.lists(l.Data)
		if p.Condition != "" || !slices.ContainsFunc(yes, func(q string) bool { return includes(q, l.Pattern) }) {
			return false
		}
		return !slices.ContainsFunc(no, func(n string) bool {
			return overlap(n, l.Pattern) && !slices.ContainsFunc(l.Except, func(e string) bool { return includes(e, n) })
		})
	})
}

// touches reports whether a block may have some of l.
func (l Loss) touches(blocks []Permission) bool {
	return slices.ContainsFunc(blocks, func(p Permission) bool {
		yes, _ := p.lists(l.Data)
		return slices.ContainsFunc(yes, func(q string) bool { return overlap(q, l.Pattern) })
	})
}

func (p Permission) lists(data bool) (yes, no []string) {
	if data {
		return p.DataActions, p.NotDataActions
	}
	return p.Actions, p.NotActions
}

// includes reports that every action that matches pattern matches wide too. A
// star of the pattern stands for anything, which only a star of the wide one
// takes in: as a character it is in no action and no role's words.
func includes(wide, pattern string) bool { return Match(wide, pattern) }

// overlap reports whether some action may match both patterns. It takes the
// two slashes around a star for one, so it finds more than there is.
func overlap(a, b string) bool {
	a, b = loosen(a), loosen(b)
	// meets[j] says whether a's rest and b[j:] have a text in common.
	meets := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		next := slices.Clone(meets)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				meets[j] = true
			case i < len(a) && a[i] == '*':
				meets[j] = next[j] || j < len(b) && meets[j+1]
			case j < len(b) && b[j] == '*':
				meets[j] = meets[j+1] || i < len(a) && next[j]
			case i < len(a) && j < len(b):
				meets[j] = lowerByte(a[i]) == lowerByte(b[j]) && next[j+1]
			default:
				meets[j] = false
			}
		}
	}
	return meets[0]
}

// loosen drops the slash after "/*", which can be the one before it.
func loosen(pattern string) string {
	var out []byte
	for i := range len(pattern) {
		if pattern[i] == '/' && i >= 2 && pattern[i-2:i] == "/*" {
			continue
		}
		out = append(out, pattern[i])
	}
	return string(out)
}
