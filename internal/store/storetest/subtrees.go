package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

func subtrees() []test {
	return []test{
		{"DeletedTreeTakesWhatIsTheirs", deleteTree},
		{"FeedHasEachOfManyChanges", manyChanges},
	}
}

// deleteTree deletes a group with a machine, an identity and an application in
// it; beside it is a group whose name goes on from the first one's.
func deleteTree(t *testing.T, f *fixture) {
	in, beside := "/subscriptions/S/resourceGroups/G", "/subscriptions/S/resourceGroups/G2"
	vm, user, api := machine("G", "vm"), machine("G2", "user"), in+"/providers/Innate.Directory/applications/api"
	uai := identity("u")
	f.put(node("/subscriptions/S"), node(in), node(vm), node(uai), node(api), node(beside), node(user))
	group := arm.Group{Tenant: tenant, ID: "readers", Name: "readers", Created: noon, Updated: noon}
	f.write(func(tx arm.Tx) error {
		for oid, res := range map[string]string{"vm": vm, "user": user} {
			if err := errors.Join(tx.PutPrincipal(principalOf(oid, res, true)), tx.Attach(id(res).Key(), id(uai).Key())); err != nil {
				return err
			}
		}
		_, err := tx.AddMember(group.ID, "uai")
		return firstError(err, tx.PutGroup(group), tx.PutPrincipal(principalOf("uai", uai, false)), tx.PutPrincipal(principalOf("api", api, false)),
			tx.PutFederatedCredential("uai", trusting("One", "s1", "")),
			tx.PutAPI(directory.API{Tenant: tenant, Audience: "api://x", Client: "c", Resource: id(api)}),
			tx.ClaimName("vault", "x", id(vm).Key()),
			tx.PutRoleAssignment(grant("/", "theirs", "r", "uai")), tx.PutRoleAssignment(grant(vm, "at", "r", "user")),
			tx.PutRoleAssignment(grant("/", "readers", "r", group.ID)), tx.PutRoleAssignment(grant(beside, "beside", "r", "user")))
	})
	f.denies(deny(vm, "below", "user"), deny(beside, "beside", "user"))
	was, err := f.db.Resource(t.Context(), tenant, user)
	must(t, err)
	before := f.revision()
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.DeleteTree(upper(in)), tx.DeleteTree("/subscriptions/none"))
	})

	found, err := f.db.Check(t.Context())
	must(t, err)
	same(t, "Check()", len(found), 0)
	left, err := f.db.Resources(t.Context(), tenant, "", "", arm.Page{})
	must(t, err)
	same(t, "resources", names(left, resourceID), []string{"S", "G2", "user"})
	grants, err := f.db.RoleAssignments(t.Context(), tenant, nil, "/", "", arm.Page{})
	must(t, err)
	same(t, "role assignments", sorted(names(grants, assignmentID)), []string{"beside", "readers"})
	is, err := f.db.Resource(t.Context(), tenant, user)
	must(t, err)
	same(t, "the ETag of who had an identity of it", is.ETag > was.ETag, true)
	key := func(s string) string { return id(s).Key() }
	same(t, "feed", f.changes(before), sorted([]string{
		"api " + key(api), "assignment uai", "assignment user", "credential uai", "denial " + deny(vm, "below", "user").ID.Key(), "group readers",
		"identity " + key(vm), "identity " + key(user), "principal api", "principal uai", "principal vm",
		"resource " + key(in), "resource " + key(vm), "resource " + key(uai), "resource " + key(api), "resource " + key(user),
	}))
	// Under the old IDs is nothing that somebody else would find there.
	f.put(node(in), node(vm), node(uai))
	ids, err := f.db.Identities(t.Context(), tenant, key(vm))
	must(t, err)
	same(t, "identities of a machine made again", len(ids), 0)
	f.write(func(tx arm.Tx) error {
		members, err := f.db.Members(t.Context(), tenant, group.ID, arm.Page{})
		same(t, "members", len(members), 0)
		return firstError(err, tx.ClaimName("vault", "x", key(user)), tx.PutAPI(directory.API{Tenant: tenant, Audience: "api://x", Client: "d", Resource: id(user)}))
	})
}

// manyChanges makes more rows than a statement takes, and some.
func manyChanges(t *testing.T, f *fixture) {
	before := f.revision()
	var want []string
	f.write(func(tx arm.Tx) error {
		for i := range 150 {
			n := node(machine("G", fmt.Sprintf("vm%03d", i)))
			want = append(want, "resource "+n.ID.Key())
			if err := tx.PutResource(n); err != nil {
				return err
			}
		}
		return nil
	})
	same(t, "feed", f.changes(before), want)
}
