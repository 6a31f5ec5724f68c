package storetest

import (
	"errors"
	"slices"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

func assignments() []test {
	return []test{
		{"AssignmentRoundTrip", assignmentRoundTrip},
		{"AssignmentsOfManyPrincipals", assignmentsOfMany},
		{"AssignmentsByScope", assignmentsByScope},
		{"AssignmentsPage", assignmentPages},
		{"SameAssignmentIsFoundAndRefused", sameAssignment},
		{"DeletedPrincipalLosesItsAssignments", cascade},
		{"AssignmentsWithinAScopeAreDeleted", deleteWithin},
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// grants creates assignments.
func (f *fixture) grants(as ...arm.RoleAssignment) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error { return each(as, tx.PutRoleAssignment) })
}

func assignmentRoundTrip(t *testing.T, f *fixture) {
	a := grant("/subscriptions/S/resourceGroups/G", "One", "role-1", "oid-1")
	f.grants(a)
	got, err := f.db.RoleAssignment(t.Context(), tenant, upper(a.ID.Key()))
	must(t, err)
	same(t, "RoleAssignment", got, a)
	_, err = f.db.RoleAssignment(t.Context(), tenant, a.ID.Key()+"x")
	refused(t, "RoleAssignment(none)", err, problem.NotFound)
	_, err = f.db.RoleAssignment(t.Context(), other, a.ID.Key())
	refused(t, "RoleAssignment(of another tenant)", err, problem.NotFound)
	a.Description = "changed"
	f.write(func(tx arm.Tx) error {
		if err := tx.PutRoleAssignment(a); err != nil {
			return err
		}
		got, err := tx.RoleAssignment(a.ID.Key())
		same(t, "within the write", got, a)
		return err
	})
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.DeleteRoleAssignment(a.ID.String()), tx.DeleteRoleAssignment(a.ID.String()))
	})
	_, err = f.db.RoleAssignment(t.Context(), tenant, a.ID.Key())
	refused(t, "RoleAssignment(deleted)", err, problem.NotFound)
}

func assignmentsOfMany(t *testing.T, f *fixture) {
	who := numbered("oid-", 20)
	want := numbered("a", 20)
	for i, p := range who {
		f.grants(grant("/", want[i], "role", p))
	}
	f.grants(grant("/", "zz", "role", "stranger"))
	for i, p := range who {
		got, err := f.db.Facts(t.Context(), tenant, upper(p), resource.Root)
		must(t, err)
		same(t, "Facts("+p+")", got, access.Facts{Principals: []string{p}, Assignments: []access.Assignment{grant("/", want[i], "role", p).Assignment}})
	}
	none, err := f.db.Facts(t.Context(), tenant, "none", resource.Root)
	must(t, err)
	same(t, "Facts(none)", len(none.Assignments), 0)
}

const group = "/subscriptions/S/resourceGroups/G"

func assignmentsByScope(t *testing.T, f *fixture) {
	f.grants(grant("/", "root", "r", "p1"), grant("/subscriptions/S", "sub", "r", "p1"), grant(group, "group", "r", "p1"),
		grant(group, "group2", "r", "p2"), grant(machine("G", "vm"), "vm", "r", "p1"), grant(group+"2", "beside", "r", "p1"))
	for _, tt := range []struct {
		scopes    []string
		under     string
		principal string
		want      []string
	}{
		{scopes: []string{"/", "/subscriptions/s", group}, want: []string{"root", "sub", "group", "group2"}},
		{scopes: []string{"/", "/subscriptions/S", group}, principal: "P2", want: []string{"group2"}},
		{scopes: []string{group}, under: group, want: []string{"group", "group2", "vm"}},
		{scopes: []string{group, group}, want: []string{"group", "group2"}},
		{under: group, want: []string{"vm"}},
		{under: group, principal: "p2"},
		{under: "/", want: []string{"root", "sub", "group", "group2", "vm", "beside"}},
		{under: "/", principal: "p2", want: []string{"group2"}},
		{},
	} {
		got, err := f.db.RoleAssignments(t.Context(), tenant, tt.scopes, tt.under, tt.principal, arm.Page{Limit: 100})
		must(t, err)
		keys := names(got, assignmentID)
		same(t, "RoleAssignments", sorted(keys), sorted(tt.want))
		same(t, "by key", slices.IsSortedFunc(got, func(a, b arm.RoleAssignment) int {
			return slices.Compare([]byte(a.ID.Key()), []byte(b.ID.Key()))
		}), true)
	}
}

func assignmentPages(t *testing.T, f *fixture) {
	for i, name := range numbered("a", 10) {
		scope := "/"
		if i%3 > 0 {
			scope = machine("G", name)
		}
		f.grants(grant(scope, name, "role", "p"+name))
	}
	var got []string
	page := arm.Page{Limit: 3}
	for {
		some, err := f.db.RoleAssignments(t.Context(), tenant, []string{"/"}, "/", "", page)
		must(t, err)
		if len(some) > 3 {
			t.Fatalf("a page of %d, want at most 3", len(some))
		}
		got = append(got, names(some, assignmentID)...)
		if len(some) < 3 {
			break
		}
		page.After = some[2].ID.Key()
	}
	same(t, "all pages", sorted(got), numbered("a", 10))
}

func sameAssignment(t *testing.T, f *fixture) {
	a := grant(group, "one", "role", "p")
	f.grants(a)
	f.write(func(tx arm.Tx) error {
		got, err := tx.SameAssignment(upper(group), "ROLE", "P")
		must(t, err)
		same(t, "SameAssignment", got, a)
		for _, scope := range []string{"/", "/subscriptions/s", machine("G", "vm")} {
			_, err := tx.SameAssignment(scope, "role", "p")
			refused(t, "SameAssignment("+scope+")", err, problem.NotFound)
		}
		refused(t, "the same under another name", tx.PutRoleAssignment(grant(group, "two", "role", "p")), problem.AssignmentExists)
		return nil
	})
}

func cascade(t *testing.T, f *fixture) {
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.PutPrincipal(principalOf("p1", machine("G", "vm"), true)), tx.PutPrincipal(principalOf("p2", machine("G", "vm2"), true)))
	})
	f.grants(grant("/", "one", "r", "p1"), grant(group, "two", "r", "p1"), grant("/", "three", "r", "p2"))
	before := f.revision()
	f.write(func(tx arm.Tx) error { return tx.DeletePrincipal("p1") })
	for p, want := range map[string]int{"p1": 0, "p2": 1} {
		got, err := f.db.Facts(t.Context(), tenant, p, resource.Root)
		must(t, err)
		same(t, "assignments left to "+p, len(got.Assignments), want)
	}
	same(t, "changes", f.changes(before), []string{"assignment p1", "identity " + id(machine("G", "vm")).Key(), "principal p1"})
}

func deleteWithin(t *testing.T, f *fixture) {
	all := []arm.RoleAssignment{
		grant("/", "root", "r", "p"), grant(group, "at", "r", "p"), grant(machine("G", "vm"), "below", "r", "q"),
		grant(group+"2", "beside", "r", "p"), grant("/subscriptions/S", "above", "r", "p"),
	}
	f.grants(all...)
	left := func() []string {
		got, err := f.db.RoleAssignments(t.Context(), tenant, nil, "/", "", arm.Page{})
		must(t, err)
		return sorted(names(got, assignmentID))
	}
	before := f.revision()
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(upper(group)) })
	same(t, "left", left(), []string{"above", "beside", "root"})
	same(t, "changes", f.changes(before), []string{"assignment p", "assignment q"})
	f.write(func(tx arm.Tx) error { return tx.DeleteTree("/") })
	same(t, "left of the root", left(), []string(nil))
}
