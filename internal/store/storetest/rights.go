package storetest

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

func rights() []test {
	return []test{
		{"RoleDefinitionRoundTrip", definitionRoundTrip},
		{"RoleDefinitionNamesAreUnique", definitionNames},
		{"AssignmentsOfARole", assignmentsOfRole},
		{"DenyAssignmentRoundTrip", denialRoundTrip},
		{"DenyAssignmentsByScope", denialsByScope},
		{"DenialsNamingSomebody", denialsNaming},
		{"GroupRoundTrip", groupRoundTrip},
		{"GroupMembers", groupMembers},
		{"GroupsOfAndThrough", groupsThrough},
		{"DeletedPrincipalLeavesItsGroups", memberDeleted},
		{"DeletedGroupLosesAll", groupDeleted},
		{"AssignmentsOfPrincipals", assignmentsOfPrincipals},
		{"TagsOfAResource", tagsOf},
		{"FactsOfGroups", factsOfGroups},
		{"FactsHaveRolesAndConditions", factsOfRoles},
		{"FactsHaveDenials", factsOfDenials},
		{"FactsAreOfOneMoment", factsOfOneMoment},
	}
}

// custom is a role of the tenant's own.
func custom(guid, name, action string, scopes ...string) arm.RoleDefinition {
	r := arm.RoleDefinition{
		Tenant: tenant,
		Role: access.Role{
			ID: guid, Name: name, Description: "for a test", Custom: true,
			Permissions: []access.Permission{{Actions: []string{action}, NotActions: []string{}, DataActions: []string{}, NotDataActions: []string{}}},
		},
		Created: noon, Updated: noon, CreatedBy: "someone", UpdatedBy: "another",
	}
	for _, s := range scopes {
		r.AssignableScopes = append(r.AssignableScopes, id(s))
	}
	return r
}

func (f *fixture) roles(rs ...arm.RoleDefinition) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error { return each(rs, tx.PutRoleDefinition) })
}

func definitionRoundTrip(t *testing.T, f *fixture) {
	before := f.revision()
	r := custom("role-1", "Operator", "a/b/read", "/subscriptions/S", group)
	f.roles(r, custom("role-2", "Other", "*", "/"))
	got, err := f.db.RoleDefinition(t.Context(), tenant, "ROLE-1")
	must(t, err)
	same(t, "RoleDefinition", got, r)
	got, err = f.db.RoleDefinitionNamed(t.Context(), tenant, "OPERATOR")
	must(t, err)
	same(t, "RoleDefinitionNamed", got, r)
	_, err = f.db.RoleDefinition(t.Context(), other, "role-1")
	refused(t, "RoleDefinition(of another tenant)", err, problem.RoleNotFound)
	r.Description, r.AssignableScopes = "changed", nil
	f.write(func(tx arm.Tx) error {
		if err := tx.PutRoleDefinition(r); err != nil {
			return err
		}
		got, err := tx.RoleDefinition("role-1")
		same(t, "within the write", got, r)
		return err
	})
	some, err := f.db.RoleDefinitions(t.Context(), tenant, arm.Page{Limit: 1})
	must(t, err)
	same(t, "the first page", len(some), 1)
	some, err = f.db.RoleDefinitions(t.Context(), tenant, arm.Page{After: some[0].ID, Limit: 5})
	must(t, err)
	same(t, "the second page", len(some), 1)
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.DeleteRoleDefinition("Role-1"), tx.DeleteRoleDefinition("role-1"))
	})
	_, err = f.db.RoleDefinition(t.Context(), tenant, "role-1")
	refused(t, "RoleDefinition(deleted)", err, problem.RoleNotFound)
	same(t, "changes", f.changes(before), []string{"role role-1", "role role-2", "role role-1", "role role-1"})
}

func definitionNames(t *testing.T, f *fixture) {
	f.roles(custom("role-1", "Operator", "*", "/"))
	f.write(func(tx arm.Tx) error {
		refused(t, "the name again", tx.PutRoleDefinition(custom("role-2", "oPERATOR", "*", "/")), problem.Exists)
		return errors.Join(tx.PutRoleDefinition(custom("role-1", "OPERATOR", "*", "/")), tx.DeleteRoleDefinition("role-1"),
			tx.PutRoleDefinition(custom("role-2", "Operator", "*", "/")))
	})
}

func assignmentsOfRole(t *testing.T, f *fixture) {
	f.grants(grant("/", "root", "mine", "p"), grant(group, "at", "mine", "p"), grant(group, "other", "theirs", "p"))
	f.write(func(tx arm.Tx) error {
		got, err := tx.AssignmentsOfRole("MINE", arm.Page{Limit: 10})
		must(t, err)
		same(t, "who has it", names(got, assignmentID), []string{"root", "at"})
		got, err = tx.AssignmentsOfRole("mine", arm.Page{After: "/", Limit: 10})
		must(t, err)
		same(t, "below the root", names(got, assignmentID), []string{"at"})
		return nil
	})
}

// deny is a denial of an action to principals at a scope.
func deny(scope, name string, principals ...string) arm.DenyAssignment {
	n, err := id(scope).Extension("Microsoft.Authorization/denyAssignments", name)
	if err != nil {
		panic(err)
	}
	d := arm.DenyAssignment{
		Tenant: tenant,
		Denial: access.Denial{
			ID: n, Name: "no " + name, Description: "for a test", Scope: id(scope), Principals: principals,
			Permissions: []access.Permission{{Actions: []string{"a/b/read"}, NotActions: []string{}, DataActions: []string{}, NotDataActions: []string{}}},
		},
		Types:   map[string]string{},
		Created: noon, Updated: noon, CreatedBy: "someone", UpdatedBy: "another",
	}
	for _, p := range principals {
		d.Types[p] = "ServicePrincipal"
	}
	return d
}

func (f *fixture) denies(ds ...arm.DenyAssignment) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error { return each(ds, tx.PutDenyAssignment) })
}

func denialName(d arm.DenyAssignment) resource.ID { return d.ID }

func denialRoundTrip(t *testing.T, f *fixture) {
	before := f.revision()
	d := deny(group, "One", "p1", access.Everyone)
	d.Excluded, d.Types["g1"], d.Types[access.Everyone] = []string{"g1"}, "Group", "SystemDefined"
	d.ScopeOnly, d.System, d.Condition, d.ConditionVersion = true, true, "@x", "2.0"
	f.denies(d)
	got, err := f.db.DenyAssignment(t.Context(), tenant, upper(d.ID.Key()))
	must(t, err)
	same(t, "DenyAssignment", got, d)
	_, err = f.db.DenyAssignment(t.Context(), other, d.ID.Key())
	refused(t, "DenyAssignment(of another tenant)", err, problem.NotFound)
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.DeleteDenyAssignment(d.ID.String()), tx.DeleteDenyAssignment(d.ID.String()))
	})
	_, err = f.db.DenyAssignment(t.Context(), tenant, d.ID.Key())
	refused(t, "DenyAssignment(deleted)", err, problem.NotFound)
	same(t, "changes", f.changes(before), []string{"denial " + d.ID.Key(), "denial " + d.ID.Key()})
}

func denialsByScope(t *testing.T, f *fixture) {
	f.denies(deny("/", "root", "p"), deny(group, "at", "p"), deny(machine("G", "vm"), "below", "p"), deny(group+"2", "beside", "p"))
	list := func(scopes []string, under string) []string {
		got, err := f.db.DenyAssignments(t.Context(), tenant, scopes, under, arm.Page{Limit: 100})
		must(t, err)
		return sorted(names(got, denialName))
	}
	same(t, "at and above", list([]string{group, "/"}, ""), []string{"at", "root"})
	same(t, "and below", list([]string{upper(group)}, group), []string{"at", "below"})
	same(t, "all", list(nil, "/"), []string{"at", "below", "beside", "root"})
	f.write(func(tx arm.Tx) error {
		within, err := tx.DenialsWithin(upper(group))
		same(t, "DenialsWithin", names(within, denialName), []string{"at", "below"})
		return err
	})
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(upper(group)) })
	same(t, "left", list(nil, "/"), []string{"beside", "root"})
	facts, err := f.db.Facts(t.Context(), tenant, "p", resource.Root)
	must(t, err)
	same(t, "left to decide by", len(facts.Denials), 2)
}

func denialsNaming(t *testing.T, f *fixture) {
	without := deny("/", "without", access.Everyone)
	without.Excluded = []string{"p2"}
	f.denies(deny("/", "of1", "p1"), without, deny("/", "of3", "p3"))
	got, err := f.db.DenialsNaming(t.Context(), tenant, []string{"P1", "p2", "p4"})
	must(t, err)
	same(t, "DenialsNaming", names(got, denialName), []string{"of1", "without"})
	again := deny("/", "of1", "p5")
	f.denies(again)
	f.write(func(tx arm.Tx) error {
		got, err := tx.DenialsNaming([]string{"p1"})
		same(t, "that it named before", len(got), 0)
		return err
	})
}

// team is a group.
func team(id, name string) arm.Group {
	return arm.Group{Tenant: tenant, ID: id, Name: name, Description: "for a test", Created: noon, Updated: noon.Add(time.Minute), CreatedBy: "someone", UpdatedBy: "another"}
}

// teams creates groups with members, {group: members}.
func (f *fixture) teams(all map[string][]string) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error {
		for id, members := range all {
			if err := tx.PutGroup(team(id, "group "+id)); err != nil {
				return err
			}
			for _, m := range members {
				if _, err := tx.AddMember(id, m); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func groupNames(all []arm.Group) []string {
	out := []string{}
	for _, g := range all {
		out = append(out, g.ID)
	}
	return out
}

func groupRoundTrip(t *testing.T, f *fixture) {
	g := team("g1", "Readers")
	f.write(func(tx arm.Tx) error { return errors.Join(tx.PutGroup(g), tx.PutGroup(team("g2", "Others"))) })
	got, err := f.db.Group(t.Context(), tenant, "G1")
	must(t, err)
	same(t, "Group", got, g)
	p, err := f.db.Principal(t.Context(), tenant, "g1")
	must(t, err)
	same(t, "its principal", p, directory.Principal{Tenant: tenant, ID: "g1", Kind: directory.Group, Name: "Readers", Enabled: true, Created: noon})
	_, err = f.db.Group(t.Context(), other, "g1")
	refused(t, "Group(of another tenant)", err, problem.NotFound)
	list := func(name, after string) []string {
		got, err := f.db.Groups(t.Context(), tenant, name, arm.Page{After: after, Limit: 1})
		must(t, err)
		return groupNames(got)
	}
	same(t, "the first page", list("", ""), []string{"g1"})
	same(t, "the second page", list("", "g1"), []string{"g2"})
	same(t, "by name", list("OTHERS", ""), []string{"g2"})
	same(t, "by no name", list("x", ""), []string{})
	f.write(func(tx arm.Tx) error {
		must(t, tx.PutPrincipal(principalOf("p1", machine("G", "vm"), true)))
		refused(t, "a group with a machine's object id", tx.PutGroup(team("p1", "x")), problem.Conflict)
		return nil
	})
}

func groupMembers(t *testing.T, f *fixture) {
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.PutPrincipal(principalOf("p1", machine("G", "vm1"), true)), tx.PutPrincipal(principalOf("p2", machine("G", "vm2"), true)))
	})
	f.teams(map[string][]string{"g1": {"p1", "p2", "g2"}, "g2": nil})
	list := func(p arm.Page) []string {
		got, err := f.db.Members(t.Context(), tenant, "G1", p)
		must(t, err)
		out := []string{}
		for _, p := range got {
			out = append(out, p.ID)
		}
		return out
	}
	same(t, "members", list(arm.Page{}), []string{"g2", "p1", "p2"})
	same(t, "a page", list(arm.Page{After: "g2", Limit: 1}), []string{"p1"})
	before := f.revision()
	f.write(func(tx arm.Tx) error {
		for _, want := range []bool{true, false} {
			changed, err := tx.RemoveMember("G1", "P1")
			must(t, err)
			same(t, "removed", changed, want)
		}
		changed, err := tx.AddMember("g1", "P2")
		same(t, "added again", changed, false)
		return err
	})
	same(t, "members left", list(arm.Page{}), []string{"g2", "p2"})
	same(t, "changes", f.changes(before), []string{"group g1"})
}

func groupsThrough(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g1": {"p"}, "g2": {"g1"}, "g3": {"g2", "p"}, "g4": {"q"}})
	for _, tt := range []struct {
		of      string
		through bool
		want    []string
	}{{"P", false, []string{"g1", "g3"}}, {"p", true, []string{"g1", "g2", "g3"}}, {"g1", true, []string{"g2", "g3"}}, {"nobody", true, []string{}}} {
		got, err := f.db.GroupsOf(t.Context(), tenant, tt.of, tt.through)
		must(t, err)
		same(t, "GroupsOf("+tt.of+")", groupNames(got), tt.want)
		f.write(func(tx arm.Tx) error {
			within, err := tx.GroupsOf(tt.of, tt.through)
			same(t, "within the write", within, got)
			return err
		})
	}
}

func memberDeleted(t *testing.T, f *fixture) {
	f.write(func(tx arm.Tx) error { return tx.PutPrincipal(principalOf("p", machine("G", "vm"), true)) })
	f.teams(map[string][]string{"g1": {"p"}})
	before := f.revision()
	f.write(func(tx arm.Tx) error { return tx.DeletePrincipal("p") })
	got, err := f.db.GroupsOf(t.Context(), tenant, "p", true)
	must(t, err)
	same(t, "its groups", len(got), 0)
	same(t, "changes", f.changes(before), []string{"group g1", "identity " + id(machine("G", "vm")).Key(), "principal p"})
}

func groupDeleted(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g1": {"p"}, "g2": {"g1"}})
	f.grants(grant("/", "one", "r", "g1"), grant("/", "two", "r", "g2"))
	f.write(func(tx arm.Tx) error { return tx.DeletePrincipal("G1") })
	_, err := f.db.Group(t.Context(), tenant, "g1")
	refused(t, "Group(deleted)", err, problem.NotFound)
	facts, err := f.db.Facts(t.Context(), tenant, "p", resource.Root)
	must(t, err)
	same(t, "left of what its member had", facts, access.Facts{Principals: []string{"p"}})
	all, err := f.db.RoleAssignments(t.Context(), tenant, nil, "/", "", arm.Page{})
	must(t, err)
	same(t, "assignments", names(all, assignmentID), []string{"two"})
}

func assignmentsOfPrincipals(t *testing.T, f *fixture) {
	who := numbered("p", 10) // more than are asked at once
	for i, p := range who {
		f.grants(grant("/", numbered("a", 10)[i], "r", p))
	}
	f.grants(grant("/", "other", "r", "q"))
	f.write(func(tx arm.Tx) error {
		got, err := tx.AssignmentsOf(append([]string{upper(who[0])}, who...))
		same(t, "AssignmentsOf", names(got, assignmentID), numbered("a", 10))
		return err
	})
}

func tagsOf(t *testing.T, f *fixture) {
	n := node(vaultID)
	n.Body["tags"] = []byte(`{"team":"shop","":"<"}`)
	f.put(n, node(machine("G", "vm")))
	for of, want := range map[string]map[string]string{
		upper(vaultID): {"team": "shop", "": "<"}, id(machine("G", "vm")).Key(): nil, "/none": nil,
	} {
		got, err := f.db.Tags(t.Context(), tenant, of)
		must(t, err)
		same(t, "Tags("+of+")", got, want)
	}
	f.write(func(tx arm.Tx) error { return tx.ClaimName("vault", "v", id(vaultID).Key()) })
	at, err := f.db.VaultNamed(t.Context(), "v")
	must(t, err)
	same(t, "the tags of the vault that was found", at.Tags, map[string]string{"team": "shop", "": "<"})
}

func factsOfGroups(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g1": {"p"}, "g2": {"g1"}, "g3": {"g2"}, "g4": {"g3", "p"}, "aside": {"q"}})
	f.grants(grant("/", "a", "r", "p"), grant("/", "b", "r", "g1"), grant(group, "c", "r", "g3"), grant("/", "d", "r", "g4"), grant("/", "e", "r", "aside"))
	facts := func(of string) (principals, assignments []string) {
		t.Helper()
		got, err := f.db.Facts(t.Context(), tenant, of, resource.Root)
		must(t, err)
		for _, a := range got.Assignments {
			assignments = append(assignments, a.ID.Name())
		}
		return got.Principals, assignments
	}
	who, has := facts("P")
	same(t, "principals", who, []string{"p", "g1", "g2", "g3", "g4"})
	same(t, "assignments", has, []string{"a", "b", "d", "c"})
	// A disabled group gives nothing, and nothing is reached through it.
	f.write(func(tx arm.Tx) error {
		g, err := tx.Principal("g2")
		must(t, err)
		g.Enabled = false
		return tx.PutPrincipal(g)
	})
	who, has = facts("p")
	same(t, "principals without g2", who, []string{"p", "g1", "g4"})
	same(t, "assignments without g2", has, []string{"a", "b", "d"})
	f.write(func(tx arm.Tx) error { _, err := tx.RemoveMember("g4", "p"); return err })
	who, _ = facts("p")
	same(t, "principals outside g4", who, []string{"p", "g1"})
	f.write(func(tx arm.Tx) error { return tx.PutGroup(team("g2", "renamed")) })
	who, _ = facts("p")
	same(t, "principals with g2 renamed, which is still disabled", who, []string{"p", "g1"})
}

func factsOfRoles(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g": {"p"}})
	mine, theirs := custom("role-1", "Mine", "a/read", "/"), custom("role-2", "Theirs", "b/read", "/", group)
	f.roles(mine, theirs, custom("role-3", "Nobody's", "c/read", "/"))
	a := grant("/", "a", "ROLE-1", "p")
	a.Condition, a.ConditionVersion = "@x", "2.0"
	f.grants(a, grant("/", "b", "role-2", "g"), grant(group, "c", "role-2", "p"), grant("/", "d", "built-in", "p"), grant("/", "e", "role-3", "q"))
	stored, err := f.db.RoleAssignment(t.Context(), tenant, a.ID.Key())
	must(t, err)
	same(t, "the version", stored.ConditionVersion, "2.0")
	got, err := f.db.Facts(t.Context(), tenant, "p", resource.Root)
	must(t, err)
	same(t, "roles", got.Roles, map[string]access.Role{"role-1": mine.Role, "role-2": theirs.Role})
	same(t, "the condition", got.Assignments[0].Condition, "@x")
	same(t, "how many assignments", len(got.Assignments), 4)
}

func factsOfDenials(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g": {"p"}})
	everyone := deny("/", "all", access.Everyone, "p")
	everyone.Excluded = []string{"q"}
	condition := deny(group, "mine", "p")
	condition.Condition, condition.ScopeOnly, condition.System = "@x", true, true
	f.denies(everyone, condition, deny("/", "ours", "g"), deny("/", "theirs", "q"))
	got, err := f.db.Facts(t.Context(), tenant, "p", resource.Root)
	must(t, err)
	same(t, "denials", got.Denials, []access.Denial{everyone.Denial, deny("/", "ours", "g").Denial, condition.Denial})
	got, err = f.db.Facts(t.Context(), other, "p", resource.Root)
	must(t, err)
	same(t, "in another tenant", got, access.Facts{Principals: []string{"p"}})
}

// factsOfOneMoment gives somebody now one role by a group and now by itself, in
// one write each: a reader who sees both or none has seen two moments.
func factsOfOneMoment(t *testing.T, f *fixture) {
	f.teams(map[string][]string{"g": {"p"}})
	byGroup, byItself := grant("/", "a", "r", "g"), grant("/", "b", "r", "p")
	f.grants(byGroup)
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		for i := range 40 {
			err := f.db.Write(t.Context(), event(tenant, "swap"), func(tx arm.Tx) error {
				if i%2 == 0 {
					_, err := tx.RemoveMember("g", "p")
					return errors.Join(err, tx.PutRoleAssignment(byItself))
				}
				_, err := tx.AddMember("g", "p")
				return errors.Join(err, tx.DeleteRoleAssignment(byItself.ID.Key()))
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		got, err := f.db.Facts(t.Context(), tenant, "p", resource.Root)
		must(t, err)
		if len(got.Assignments) != 1 {
			t.Fatalf("there are %d assignments, want 1 at every moment", len(got.Assignments))
		}
	}
	must(t, g.Wait())
}
