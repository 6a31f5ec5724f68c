package access

import (
	"slices"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Decide answers whether who the facts are of may do op: if no deny assignment
// applies and some role assignment allows it. An assignment of an unknown role
// grants nothing, and so does one whose condition cannot be read or is not
// known to hold; a deny assignment refuses unless its condition is known not to
// hold. Cost: linear in the facts, which are the principal's own, not the
// tenant's.
func Decide(op Operation, f Facts) Decision {
	var d Decision
	for _, deny := range f.Denials {
		r := Reason{Assignment: deny.ID, Role: deny.Name, Principal: f.deniedAs(deny)}
		v := f.denies(&op, deny)
		r.Denies, r.Why = v.what == grants, v.words(&op, deny.Scope, true)
		d.Reasons = append(d.Reasons, r)
		if r.Denies && d.By.IsZero() {
			d.By = deny.ID
		}
	}
	denied := !d.By.IsZero()
	for _, a := range f.Assignments {
		r := Reason{Assignment: a.ID, Principal: a.Principal}
		v := f.grants(&op, a)
		r.Role = v.role.Name
		if r.Role == "" {
			r.Role = a.Role
		}
		r.Grants, r.Why = v.what == grants, v.words(&op, a.Scope, false)
		d.Reasons = append(d.Reasons, r)
		if r.Grants && !denied && !d.Allowed {
			d.Allowed, d.By = true, a.ID
		}
	}
	return d
}

// Judge is Decide without the reasons, for every request: it stops at what
// decides, and makes no text.
func Judge(op Operation, f Facts) Decision {
	for _, deny := range f.Denials {
		if f.denies(&op, deny).what == grants {
			return Decision{By: deny.ID}
		}
	}
	for _, a := range f.Assignments {
		if f.grants(&op, a).what == grants {
			return Decision{Allowed: true, By: a.ID}
		}
	}
	return Decision{}
}

// String says the decision in a few words, for the record.
func (d Decision) String() string {
	switch {
	case d.Allowed && d.By.IsZero():
		return "Innate itself"
	case d.Allowed:
		return "allowed by " + d.By.String()
	case !d.By.IsZero():
		return "refused by the deny assignment " + d.By.String()
	}
	return "no role assignment allows it"
}

// finding is what became of one assignment, a role's or a deny one.
type finding int

const (
	otherPrincipal finding = iota
	excluded
	otherScope
	onlyAtScope
	unknownRole
	lacksAction
	takenOut
	unreadable
	conditionFails
	conditionUnknown
	// grants is the end: it allows or, for a deny assignment, refuses.
	grants
)

// verdict is a finding and what it stands on. Its words are made when somebody
// reads them.
type verdict struct {
	what finding
	role Role
	// pattern gives the action or, for takenOut, takes it out.
	pattern string
	// condition is the one that decided, or the one that holds.
	condition string
}

func (f Facts) grants(op *Operation, a Assignment) verdict {
	switch {
	case !holds(f.Principals, a.Principal):
		return verdict{what: otherPrincipal}
	case !f.covers(a.Scope, op.Scope):
		return verdict{what: otherScope}
	}
	role, ok := f.role(a.Role)
	if !ok {
		return verdict{what: unknownRole}
	}
	v := block(op, role.Permissions, a.Condition, True)
	v.role = role
	return v
}

func (f Facts) denies(op *Operation, d Denial) verdict {
	switch {
	case f.deniedAs(d) == "":
		return verdict{what: otherPrincipal}
	case slices.ContainsFunc(d.Excluded, func(p string) bool { return holds(f.Principals, p) }):
		return verdict{what: excluded}
	case !f.covers(d.Scope, op.Scope):
		return verdict{what: otherScope}
	case d.ScopeOnly && !d.Scope.Equal(op.Scope):
		return verdict{what: onlyAtScope}
	}
	return block(op, d.Permissions, d.Condition, Unknown)
}

// block finds the first permission block that counts, or says how far the one
// that came nearest got. Conditions must come to at least enough.
func block(op *Operation, blocks []Permission, condition string, enough Truth) verdict {
	nearest := verdict{what: lacksAction}
	for _, p := range blocks {
		v := p.has(op.Action, op.Data)
		if v.what == grants {
			pattern := v.pattern
			v = conditions(op, enough, p.Condition, condition)
			v.pattern = pattern
		}
		if v.what > nearest.what {
			nearest = v
		}
		if v.what == grants {
			break
		}
	}
	return nearest
}

// has says what the block has for the action, its condition aside.
func (p Permission) has(action string, data bool) verdict {
	yes, no := p.Actions, p.NotActions
	if data {
		yes, no = p.DataActions, p.NotDataActions
	}
	gives, ok := matchAny(yes, action)
	if !ok {
		return verdict{what: lacksAction}
	}
	if takes, ok := matchAny(no, action); ok {
		return verdict{what: takenOut, pattern: takes}
	}
	return verdict{what: grants, pattern: gives}
}

// conditions are those of a block and of its assignment; both must hold.
func conditions(op *Operation, enough Truth, texts ...string) verdict {
	out := verdict{what: grants}
	for _, text := range texts {
		if text == "" {
			continue
		}
		v := verdict{what: grants, condition: text}
		if c, err := ParseCondition(text); err != nil {
			v.what = unreadable
		} else {
			v.what = found(c.Holds(*op)) // a copy: what has no condition stays off the heap
		}
		if v.what != grants && (enough == True || v.what == conditionFails) {
			return v
		}
		out.condition = text
	}
	return out
}

func found(t Truth) finding {
	switch t {
	case True:
		return grants
	case Unknown:
		return conditionUnknown
	}
	return conditionFails
}

// words says the verdict for people.
func (v verdict) words(op *Operation, scope resource.ID, deny bool) string {
	its := "its role"
	if deny {
		its = "it"
	}
	switch v.what {
	case otherPrincipal:
		return "is for another principal"
	case excluded:
		return "takes the principal out"
	case otherScope:
		return "its scope " + scope.String() + " does not contain " + op.Scope.String()
	case onlyAtScope:
		return "counts at its scope " + scope.String() + " only"
	case unknownRole:
		return "its role is unknown"
	case lacksAction:
		return its + " does not have the action"
	case takenOut:
		return its + " takes the action out with " + v.pattern
	}
	return its + " has " + v.pattern + v.conditionWords(op, deny)
}

func (v verdict) conditionWords(op *Operation, deny bool) string {
	if v.condition == "" {
		return ""
	}
	but := ", but its condition "
	if deny {
		but = ", and its condition "
	}
	c, err := ParseCondition(v.condition)
	if err != nil {
		return but + "cannot be read: " + problem.Of(err).Detail
	}
	t, why := c.Explain(*op)
	switch t {
	case True:
		return ", and its condition holds: " + why
	case False:
		return ", but its condition does not hold: " + why
	}
	return but + "is not known to " + map[bool]string{false: "hold", true: "fail"}[deny] + ": " + why
}

// role finds a role among the tenant's own and the built-in ones.
func (f Facts) role(id string) (Role, bool) {
	if r, ok := f.Roles[lower(id)]; ok {
		return r, true
	}
	return BuiltIn(id)
}

// covers reports whether what is assigned at scope counts at target: it is
// above it, in its ID or as a management group.
func (f Facts) covers(scope, target resource.ID) bool {
	if scope.Contains(target) {
		return true
	}
	return !scope.IsZero() && !target.IsZero() && slices.ContainsFunc(f.Above, scope.Equal)
}

// deniedAs returns the principal that d names and the facts are of; "" if none.
func (f Facts) deniedAs(d Denial) string {
	for _, p := range d.Principals {
		if p == Everyone || holds(f.Principals, p) {
			return p
		}
	}
	return ""
}

func holds(principals []string, p string) bool {
	for _, have := range principals {
		if have != "" && equalFold(have, p) {
			return true
		}
	}
	return false
}
