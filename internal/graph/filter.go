package graph

import (
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/odata"
)

// The members that a $filter can be about.
const (
	memberID   = "id"
	memberApp  = "appId"
	memberName = "displayName"
	memberOn   = "accountEnabled"
	memberKind = "servicePrincipalType"
)

// filterable are the members of a type, by its name.
func filterable(typ string) []string {
	if typ == typeGroup {
		return []string{memberID, memberName}
	}
	return []string{memberID, memberApp, memberName, memberOn, memberKind}
}

// member is the value of a member.
func member(p directory.Principal, name string) string {
	switch {
	case strings.EqualFold(name, memberID):
		return p.ID
	case strings.EqualFold(name, memberApp):
		return p.Client
	case strings.EqualFold(name, memberName):
		return p.Name
	case strings.EqualFold(name, memberOn):
		return strconv.FormatBool(p.Enabled)
	}
	return string(p.Kind)
}

// checkFilter refuses what cannot be asked of a type.
func checkFilter(typ string, f odata.Filter) error {
	names := filterable(typ)
	has := func(name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
	}
	can := strings.Join(names, ", ") + " with eq, ne and in, and startswith(displayName, 'x')"
	return f.Check(can, func(t odata.Term) bool {
		if t.Calls("startswith", odata.Property, odata.Text) {
			return has(t.Values[0].Text) && !strings.EqualFold(t.Values[0].Text, memberOn)
		}
		if !has(t.Name) || t.Op != odata.Eq && t.Op != odata.Ne && t.Op != odata.In {
			return false
		}
		return !slices.ContainsFunc(t.Values, func(v odata.Value) bool {
			return (v.Kind == odata.Bool) != strings.EqualFold(t.Name, memberOn) || v.Kind != odata.Bool && v.Kind != odata.Text && v.Kind != odata.GUID
		})
	})
}

// holds reports whether a term that was checked holds of p. Values compare
// without case, as Graph's do.
func holds(t odata.Term, p directory.Principal) bool {
	if t.Op == odata.Call {
		return strings.HasPrefix(fold(member(p, t.Values[0].Text)), fold(t.Values[1].Text))
	}
	have := fold(member(p, t.Name))
	is := slices.ContainsFunc(t.Values, func(v odata.Value) bool { return fold(v.Text) == have })
	return is != (t.Op == odata.Ne)
}

// pinned are the queries of a filter that names principals by id or client id:
// a few, looked up one by one.
func pinned(f odata.Filter) ([]Query, bool) {
	for _, t := range f.Needed() {
		if t.Op != odata.Eq && t.Op != odata.In {
			continue
		}
		var out []Query
		for _, v := range t.Values {
			switch {
			case strings.EqualFold(t.Name, memberID):
				out = append(out, Query{After: Place{ID: v.Text}})
			case strings.EqualFold(t.Name, memberApp):
				out = append(out, Query{Client: v.Text, Limit: 1})
			}
		}
		if len(out) > 0 {
			return out, true
		}
	}
	return nil, false
}

// query is what of a filter the database answers by an index; the rest is
// looked at row by row.
func query(typ string, f odata.Filter) Query {
	var q Query
	if typ == typeGroup {
		q.Kind = directory.Group
	}
	for _, t := range f.Needed() {
		text, one := t.Text()
		switch {
		case t.Calls("startswith", odata.Property, odata.Text) && strings.EqualFold(t.Values[0].Text, memberName):
			q.Prefix = t.Values[1].Text
		case one && t.Is(memberName, odata.Eq):
			q.Name = text
		case one && t.Is(memberKind, odata.Eq):
			for _, k := range []directory.PrincipalKind{directory.ManagedIdentity, directory.Application} {
				if fold(text) == fold(string(k)) {
					q.Kind = k
				}
			}
		}
	}
	return q
}

// fold is ASCII lower case, by which names compare in the database.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
