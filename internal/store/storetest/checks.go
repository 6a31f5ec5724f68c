package storetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

func checks() []test {
	return []test{
		{"CheckFindsWhatDangles", checkFinds},
		{"UsesAreByResource", usesByResource},
		{"DeletedIdentitiesPageByKey", deletedPages},
	}
}

// credentials is between an identity's ID and the name of a federated credential.
const credentials = "/federatedIdentityCredentials/"

func checkFinds(t *testing.T, f *fixture) {
	vm, uai := machine("G", "vm"), identity("uai")
	f.put(node("/subscriptions/S"), node("/subscriptions/S/resourceGroups/G"), node(vm), node(uai), node(vaultID))
	f.write(func(tx arm.Tx) error {
		_, err := tx.AddMember("g", "usr")
		return firstError(tx.PutPrincipal(principalOf("usr", uai, false)), tx.Attach(id(vm).Key(), id(uai).Key()),
			tx.PutRoleAssignment(grant(vaultID+"/secrets/s", "good", "r", "usr")), tx.PutRoleAssignment(grant("/", "root", "r", "usr")),
			tx.PutFederatedCredential("usr", trusting("Good", "s1", "")), tx.PutResource(node(uai+credentials+"Good")),
			tx.PutGroup(arm.Group{Tenant: tenant, ID: "g", Name: "g", Created: noon}), err)
	})
	found, err := f.db.Check(t.Context())
	must(t, err)
	same(t, "Check() of what is whole", len(found), 0)

	bound := node(machine("G", "bound"))
	bound.BoundTo = id(machine("G", "none"))
	f.put(bound, node(identity("lost")), node(uai+credentials+"unmatched"))
	f.write(func(tx arm.Tx) error {
		_, err := tx.AddMember("none", "usr")
		_, merr := tx.AddMember("g", "nobody")
		return firstError(err, merr,
			tx.PutFederatedCredential("nobody", trusting("strays", "s2", "")), tx.PutFederatedCredential("usr", trusting("unsaid", "s3", "")),
			tx.PutRoleAssignment(grant(vm, "p", "r", "nobody")),
			tx.PutRoleAssignment(grant(machine("G", "none"), "s1", "r", "usr")),
			tx.PutRoleAssignment(grant(machine("G", "vm")+"/a/b/c/d", "s2", "r", "usr")),
			tx.PutPrincipal(principalOf("sys", machine("G", "gone"), true)),
			tx.Attach(id(machine("G", "none")).Key(), id(uai).Key()), tx.Attach(id(vm).Key(), id(identity("none")).Key()),
			tx.ClaimName("vault", "x", id(machine("G", "none")).Key()),
			tx.PutAPI(directory.API{Tenant: tenant, Audience: "api://x", Client: "c", Resource: id(machine("G", "none"))}),
			tx.KeepIdentity(arm.DeletedIdentity{Tenant: tenant, Resource: node(uai), Identity: principalOf("usr", uai, false), Deleted: noon, PurgeAt: noon}),
		)
	})
	found, err = f.db.Check(t.Context())
	must(t, err)
	var got []string
	for _, x := range found {
		key := x.Key[strings.LastIndexAny(x.Key, "/ ")+1:]
		got = append(got, x.Kind+" "+key)
	}
	slices.Sort(got)
	same(t, "Check()", got, []string{
		"a deleted identity that lives usr",
		"a federated credential that nothing is matched with unmatched",
		"a federated credential without its identity strays",
		"a federated credential without its resource unsaid",
		"a membership without its group usr",
		"a membership without its member g",
		"a name claimed for a resource that is not there x",
		"a principal without its resource sys",
		"a role assignment without its principal p",
		"a role assignment without its scope s1",
		"a role assignment without its scope s2",
		"a row bound to a resource that is not there bound",
		"an attachment without its identity vm",
		"an attachment without its resource none",
		"an audience of an application that is not there x",
		"an identity without its principal lost",
	})
}

func usesByResource(t *testing.T, f *fixture) {
	f.put(node(identity("a")), node(identity("b")), node(identity("c")), node(identity("d")))
	f.write(func(tx arm.Tx) error {
		return firstError(
			tx.PutPrincipal(principalOf("a", identity("a"), false)), tx.PutPrincipal(principalOf("b", identity("b"), false)),
			tx.PutPrincipal(principalOf("c", identity("c"), false)), tx.PutGroup(arm.Group{Tenant: tenant, ID: "g", Name: "g", Created: noon}),
			tx.Attach(id(machine("G", "vm")).Key(), id(identity("a")).Key()), tx.PutRoleAssignment(grant("/", "x", "r", "b")),
			tx.PutPrincipal(principalOf("d", identity("d"), false)), tx.PutFederatedCredential("d", trusting("c", "s", "")))
	})
	f.write(func(tx arm.Tx) error { _, err := tx.AddMember("g", "c"); return err })
	first, err := f.db.Uses(t.Context(), tenant, "/subscriptions/S", arm.Page{Limit: 2})
	must(t, err)
	rest, err := f.db.Uses(t.Context(), tenant, "/subscriptions/S", arm.Page{After: id(identity("b")).Key()})
	must(t, err)
	same(t, "Uses", append(first, rest...), []arm.Uses{
		{Principal: principalOf("a", identity("a"), false), Attached: true},
		{Principal: principalOf("b", identity("b"), false), Role: true},
		{Principal: principalOf("c", identity("c"), false), Member: true},
		{Principal: principalOf("d", identity("d"), false), Federated: true},
	})
}

func deletedPages(t *testing.T, f *fixture) {
	keep := func(name, oid string) arm.DeletedIdentity {
		return arm.DeletedIdentity{Tenant: tenant, Resource: node(identity(name)), Identity: principalOf(oid, identity(name), false), DeletedBy: "someone", Deleted: noon, PurgeAt: noon,
			Roles:       []arm.KeptRole{{RoleAssignment: grant("/", oid, "r", oid), Node: id("/")}},
			Credentials: []arm.Resource{node(identity(name) + credentials + "c")}, Groups: []arm.KeptGroup{{ID: "g", Created: noon}},
			Attached: []arm.KeptResource{{ID: id(machine("G", "vm")), UID: "u"}}, Denials: []arm.DenyAssignment{deny(identity(name), "no", "p1")}}
	}
	want := []arm.DeletedIdentity{keep("A", "p1"), keep("A", "p2"), keep("b", "p0")}
	f.write(func(tx arm.Tx) error { return each(want, tx.KeepIdentity) })
	var got []arm.DeletedIdentity
	key, oid := "", ""
	for range want {
		page, err := f.db.DeletedIdentities(t.Context(), tenant, "/subscriptions/s", key, oid, 1)
		must(t, err)
		got = append(got, page...)
		key, oid = page[0].Resource.ID.Key(), page[0].Identity.ID
	}
	same(t, "DeletedIdentities", got, want)
	named, err := f.db.DeletedNamed(t.Context(), tenant, "/subscriptions/S", "a")
	must(t, err)
	same(t, "DeletedNamed", named, want[:2])
}
