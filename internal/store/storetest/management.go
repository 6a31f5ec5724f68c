package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/vault"
)

func management() []test {
	return []test{
		{"Tenants", tenants},
		{"TenantIsMadeByItsFirstWriteOnly", tenantOnce},
		{"ResourceRoundTrip", resourceRoundTrip},
		{"ResourceETagIsTheRevision", etagIsRevision},
		{"ResourcesPageByKey", resourcePages},
		{"ResourcesBelowAKeyAreNotThoseBesideIt", resourceRanges},
		{"ResourcesAreFoundByTheirTerms", resourceTerms},
		{"ResourcesBoundDieTogether", boundResources},
		{"DeletedResourceLeavesNoAttachment", deleteDetaches},
		{"Principals", principals},
		{"PrincipalsByClientID", principalOfClient},
		{"IdentitiesInOrder", identitiesInOrder},
		{"HoldingsAreWhatEachHas", holdingsAreWhatEachHas},
		{"NamesAreUniqueInTheInstallation", uniqueNames},
		{"AudiencesBelongToOneApplication", audiences},
		{"ErrorInWriteUndoesEverything", writeUndone},
		{"PanicInWriteUndoesEverything", writePanics},
		{"WriteEndsWithItsContext", writeCancelled},
		{"TextThatOneDatabaseCannotHoldIsRefusedByBoth", badText},
		{"ClosedDatabaseRefusesWrites", closed},
		{"SchemaVersion", schemaVersion},
	}
}

func tenants(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.createTenant(other)
	f.put(node("/subscriptions/S"))
	got, err := f.db.Tenants(ctx)
	must(t, err)
	want := []directory.Tenant{
		{ID: tenant, Name: "of 1111", Created: noon, Revision: 2},
		{ID: other, Name: "of 2222", Created: noon, Revision: 1},
	}
	same(t, "Tenants()", got, want)
	one, err := f.db.Tenant(ctx, upper(tenant))
	must(t, err)
	same(t, "Tenant(upper case)", one, want[0])
	_, err = f.db.Tenant(ctx, "none")
	refused(t, "Tenant(none)", err, problem.UnknownTenant)
	_, err = f.db.Revision(ctx, "none")
	refused(t, "Revision(none)", err, problem.UnknownTenant)
}

func tenantOnce(t *testing.T, f *fixture) {
	again := func(tx arm.Tx) error { return tx.CreateTenant(directory.Tenant{ID: tenant}) }
	refused(t, "creating it again", f.db.Write(t.Context(), event(tenant, "again"), again), problem.Exists)
	refused(t, "creating another", f.db.Write(t.Context(), event(other, "another"), again), problem.Invalid)
	nothing := func(arm.Tx) error { return nil }
	refused(t, "a write of no tenant", f.db.Write(t.Context(), event(other, "none"), nothing), problem.UnknownTenant)
	put := func(tx arm.Tx) error { return tx.PutResource(node("/subscriptions/S")) }
	refused(t, "a resource of no tenant", f.db.Write(t.Context(), event(other, "none"), put), problem.UnknownTenant)
	same(t, "actions on record", len(f.actions(tenant))+len(f.actions(other)), 0)
	same(t, "revision", f.revision(), int64(1))
}

func resourceRoundTrip(t *testing.T, f *fixture) {
	ctx := t.Context()
	r := node(machine("G", "Web"))
	r.BoundTo = id("/subscriptions/S/resourceGroups/Other")
	r.Body["tags"] = json.RawMessage(`{"a":"<b> & \u0000"}`)
	f.put(r)
	r.ETag = 2
	for _, key := range []string{r.ID.Key(), r.ID.String(), upper(r.ID.Key())} {
		got, err := f.db.Resource(ctx, tenant, key)
		must(t, err)
		same(t, "Resource("+key+")", got, r)
	}
	_, err := f.db.Resource(ctx, tenant, r.ID.Key()+"x")
	refused(t, "Resource(absent)", err, problem.NotFound)
	_, err = f.db.Resource(ctx, other, r.ID.Key())
	refused(t, "Resource(of another tenant)", err, problem.NotFound)

	bare := arm.Resource{Tenant: tenant, ID: id("/subscriptions/S"), ETag: 3, Body: map[string]json.RawMessage{}}
	f.put(arm.Resource{ID: bare.ID})
	got, err := f.db.Resource(ctx, tenant, "/subscriptions/s")
	must(t, err)
	same(t, "a resource of zero values", got, bare)
}

func etagIsRevision(t *testing.T, f *fixture) {
	r := node("/subscriptions/S")
	r.ETag = 99 // what the caller says does not count
	f.put(r)
	var during int64
	f.write(func(tx arm.Tx) error {
		during = tx.Revision()
		r.UpdatedBy = "later"
		if err := tx.PutResource(r); err != nil {
			return err
		}
		got, err := tx.Resource(r.ID.Key())
		same(t, "etag within the write", got.ETag, during)
		return err
	})
	got, err := f.db.Resource(t.Context(), tenant, r.ID.Key())
	must(t, err)
	same(t, "etag", got.ETag, f.revision())
	same(t, "revision during the write", during, f.revision())
	same(t, "what was replaced", got.UpdatedBy, "later")
}

func resourcePages(t *testing.T, f *fixture) {
	for _, name := range numbered("vm", 7) {
		f.put(node(machine("G", upper(name))))
	}
	f.put(node(identity("a")), node("/subscriptions/S"))
	var got []string
	page := arm.Page{Limit: 3}
	for {
		rs, err := f.db.Resources(t.Context(), tenant, "/SUBSCRIPTIONS/s", "microsoft.compute/VirtualMachines", page)
		must(t, err)
		if len(rs) > 3 {
			t.Fatalf("a page of %d, want at most 3", len(rs))
		}
		got = append(got, names(rs, resourceID)...)
		if len(rs) < 3 {
			break
		}
		page.After = rs[2].ID.Key()
	}
	same(t, "all pages", got, []string{"VM000", "VM001", "VM002", "VM003", "VM004", "VM005", "VM006"})
	all, err := f.db.Resources(t.Context(), tenant, "", "", arm.Page{})
	must(t, err)
	same(t, "how many without a limit", len(all), 9)
}

func resourceRanges(t *testing.T, f *fixture) {
	f.put(node("/subscriptions/s/resourceGroups/a"), node("/subscriptions/s/resourceGroups/ab"), node("/subscriptions/s/resourceGroups/a-b"),
		node(machine("a", "in")), node(machine("A", "In2")), node(machine("ab", "beside")), node(machine("a-b", "before")))
	for _, tt := range []struct {
		under string
		want  []string
	}{
		{"/subscriptions/s/resourcegroups/a", []string{"in", "In2"}},
		{"/subscriptions/s/resourcegroups/A", []string{"in", "In2"}},
		{"/subscriptions/s/resourcegroups/ab", []string{"beside"}},
		{"/subscriptions/s/resourcegroups", []string{"a", "a-b", "before", "in", "In2", "ab", "beside"}}, // "-" < "/"
		{"/", []string{"a", "a-b", "before", "in", "In2", "ab", "beside"}},
		{"", []string{"a", "a-b", "before", "in", "In2", "ab", "beside"}},
		{"/subscriptions/t", nil},
	} {
		got, err := f.db.Resources(t.Context(), tenant, tt.under, "", arm.Page{Limit: 100})
		must(t, err)
		same(t, "Resources("+tt.under+")", names(got, resourceID), tt.want)
		f.write(func(tx arm.Tx) error {
			got, err := tx.Resources(tt.under, false)
			same(t, "in a write: Resources("+tt.under+")", names(got, resourceID), tt.want)
			return err
		})
	}
}

func resourceTerms(t *testing.T, f *fixture) {
	tagged := func(name, tags string) arm.Resource {
		r := node(machine("G", name))
		r.Body["tags"] = json.RawMessage(tags)
		return r
	}
	find := func(under, term string, want ...string) {
		t.Helper()
		got, err := f.db.ResourcesWith(t.Context(), tenant, under, term, arm.Page{})
		must(t, err)
		same(t, "ResourcesWith("+under+", "+term+")", names(got, resourceID), want)
	}
	long := strings.Repeat("\u00e9", 300)
	f.put(tagged("a", `{"Env":"Prod","x=y":"z"}`), tagged("B", `{"env":"test","long":"`+long+`"}`), node(machine("GG", "b")), node("/subscriptions/S"))
	find("", arm.TermName("A"), "a")
	find("", arm.TermName("b"), "B", "b")
	find(upper(group), arm.TermName("b"), "B")
	find("", arm.TermName("S"), "S")
	find("", arm.TermTag("ENV"), "a", "B")
	find("", arm.TermTagged("ENV", "Prod"), "a")
	find("", arm.TermTagged("env", "prod"))
	find("", arm.TermTagged("x=y", "z"), "a")
	find("", arm.TermTagged("long", long), "B")
	find("/subscriptions/t", arm.TermTag("env"))
	got, err := f.db.ResourcesWith(t.Context(), tenant, "", arm.TermTag("env"), arm.Page{Limit: 1, After: id(machine("G", "a")).Key()})
	must(t, err)
	same(t, "the page after a", names(got, resourceID), []string{"B"})
	got, err = f.db.ResourcesWith(t.Context(), other, "", arm.TermTag("env"), arm.Page{})
	must(t, err)
	same(t, "of another tenant", len(got), 0)

	f.put(tagged("a", `{"env":"test"}`))
	find("", arm.TermTagged("env", "Prod"))
	find("", arm.TermTagged("env", "test"), "a", "B")
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(machine("G", "B")) })
	find("", arm.TermTagged("env", "test"), "a")
	f.put(node(machine("G", "B")))
	find("", arm.TermTag("long"))
}

func boundResources(t *testing.T, f *fixture) {
	bind := func(name, to string) arm.Resource {
		r := node("/subscriptions/S/resourceGroups/Hosts/providers/Innate.Fleet/hosts/h/placements/" + name)
		r.BoundTo = id(to)
		return r
	}
	f.put(node(machine("G", "vm")), node(machine("G", "vm2")), bind("toVM", machine("g", "VM")), bind("toVM2", machine("G", "vm2")),
		bind("toGroup", "/subscriptions/S/resourceGroups/G"), bind("elsewhere", machine("GG", "vm")))
	for _, tt := range []struct {
		under string
		bound bool
		want  []string
	}{
		{machine("G", "vm"), true, []string{"toVM"}},
		{machine("G", "vm"), false, nil},
		{"/subscriptions/S/resourceGroups/G", true, []string{"toGroup", "toVM", "toVM2", "vm", "vm2"}},
		{"/subscriptions/S/resourceGroups/G", false, []string{"vm", "vm2"}},
	} {
		f.write(func(tx arm.Tx) error {
			got, err := tx.Resources(tt.under, tt.bound)
			same(t, "Resources("+tt.under+")", sorted(names(got, resourceID)), sorted(tt.want))
			return err
		})
	}
}

func deleteDetaches(t *testing.T, f *fixture) {
	vm, uai := machine("G", "vm"), identity("u")
	f.put(node(vm), node(uai))
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.PutPrincipal(principalOf("u", uai, false)), tx.Attach(id(vm).Key(), id(uai).Key()))
	})
	before := f.revision()
	f.write(func(tx arm.Tx) error {
		// Absent is no error.
		return errors.Join(tx.DeleteTree(id(vm).Key()), tx.DeleteTree("/subscriptions/none"))
	})
	same(t, "changes", f.changes(before), []string{"identity " + id(vm).Key(), "resource " + id(vm).Key()})
	f.put(node(vm))
	got, err := f.db.Identities(t.Context(), tenant, id(vm).Key())
	must(t, err)
	same(t, "identities of a machine made again", len(got), 0)
}

func principals(t *testing.T, f *fixture) {
	ctx := t.Context()
	p := principalOf("aaaa-1", machine("G", "vm"), true)
	f.write(func(tx arm.Tx) error { return tx.PutPrincipal(p) })
	got, err := f.db.Principal(ctx, tenant, "AAAA-1")
	must(t, err)
	same(t, "Principal", got, p)
	got, err = f.db.PrincipalOf(ctx, tenant, upper(machine("G", "vm")))
	must(t, err)
	same(t, "PrincipalOf", got, p)
	_, err = f.db.Principal(ctx, tenant, "none")
	refused(t, "Principal(none)", err, problem.NotFound)
	_, err = f.db.Principal(ctx, other, p.ID)
	refused(t, "Principal(of another tenant)", err, problem.NotFound)
	_, err = f.db.PrincipalOf(ctx, tenant, id(machine("G", "none")).Key())
	refused(t, "PrincipalOf(none)", err, problem.NotFound)
	_, err = f.db.PrincipalOf(ctx, tenant, "")
	refused(t, "PrincipalOf()", err, problem.NotFound)

	p.Enabled = false
	f.write(func(tx arm.Tx) error {
		if _, err := tx.PrincipalOf(p.Resource.Key()); err != nil {
			return err
		}
		refused(t, "a second principal of a resource", tx.PutPrincipal(principalOf("bbbb-2", machine("g", "VM"), true)), problem.Conflict)
		return tx.PutPrincipal(p)
	})
	got, err = f.db.Principal(ctx, tenant, p.ID)
	must(t, err)
	same(t, "Enabled", got.Enabled, false)
	f.write(func(tx arm.Tx) error { return errors.Join(tx.DeletePrincipal("AAAA-1"), tx.DeletePrincipal("none")) })
	_, err = f.db.Principal(ctx, tenant, p.ID)
	refused(t, "Principal(deleted)", err, problem.NotFound)
}

func principalOfClient(t *testing.T, f *fixture) {
	p, q := principalOf("aaaa-1", machine("G", "vm"), true), principalOf("bbbb-2", machine("G", "vm2"), true)
	none := principalOf("cccc-3", machine("G", "vm3"), true)
	none.Client = ""
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.PutPrincipal(p), tx.PutPrincipal(q), tx.PutPrincipal(none))
	})
	got, err := f.db.PrincipalOfClient(t.Context(), tenant, upper(p.Client))
	must(t, err)
	same(t, "PrincipalOfClient", got, p)
	for _, client := range []string{"", p.ID, "none"} {
		_, err = f.db.PrincipalOfClient(t.Context(), tenant, client)
		refused(t, "PrincipalOfClient("+client+")", err, problem.UnknownClient)
	}
	_, err = f.db.PrincipalOfClient(t.Context(), other, p.Client)
	refused(t, "PrincipalOfClient(of another tenant)", err, problem.UnknownClient)
}

func identitiesInOrder(t *testing.T, f *fixture) {
	vm, vm2 := machine("G", "vm"), machine("G", "Vm2")
	f.put(node(vm), node(vm2), node(identity("B")), node(identity("a")))
	f.write(func(tx arm.Tx) error {
		for oid, res := range map[string]string{"oid-b": identity("B"), "oid-a": identity("a")} {
			if err := tx.PutPrincipal(principalOf(oid, res, false)); err != nil {
				return err
			}
		}
		if err := tx.PutPrincipal(principalOf("oid-vm", vm, true)); err != nil {
			return err
		}
		for range 2 { // attaching twice is attaching once
			if err := errors.Join(tx.Attach(id(vm).Key(), id(identity("B")).Key()), tx.Attach(vm, identity("a")), tx.Attach(vm2, identity("a"))); err != nil {
				return err
			}
		}
		got, err := tx.Identities(vm)
		same(t, "within the write", oids(got), []string{"oid-vm", "oid-a", "oid-b"})
		return err
	})
	got, err := f.db.Identities(t.Context(), tenant, upper(vm))
	must(t, err)
	same(t, "Identities", oids(got), []string{"oid-vm", "oid-a", "oid-b"})
	for _, key := range []string{"", id(machine("G", "none")).Key()} {
		got, err := f.db.Identities(t.Context(), tenant, key)
		must(t, err)
		same(t, "Identities("+key+")", len(got), 0)
	}
	at, err := f.db.AttachedTo(t.Context(), tenant, identity("A"))
	must(t, err)
	same(t, "AttachedTo", at, []resource.ID{id(vm), id(vm2)})
	f.write(func(tx arm.Tx) error {
		if err := errors.Join(tx.Detach(vm, identity("a")), tx.Detach(vm, identity("a"))); err != nil {
			return err
		}
		at, err := tx.AttachedTo(identity("a"))
		same(t, "AttachedTo after Detach", at, []resource.ID{id(vm2)})
		return err
	})
}

// holdingsAreWhatEachHas holds the reading of many to that of each, with more
// keys than one statement takes.
func holdingsAreWhatEachHas(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.createTenant(other)
	names := []string{"", machine("G", "none"), identity("B"), identity("a")}
	f.write(func(tx arm.Tx) error {
		err := errors.Join(tx.PutPrincipal(principalOf("oid-b", identity("B"), false)), tx.PutPrincipal(principalOf("oid-a", identity("a"), false)))
		for i := range 300 {
			vm := machine("G", fmt.Sprintf("Vm%d", i))
			names = append(names, vm)
			if i%2 == 0 {
				err = errors.Join(err, tx.PutPrincipal(principalOf(fmt.Sprintf("oid-%d", i), vm, true)))
			}
			if i%3 == 0 {
				err = errors.Join(err, tx.Attach(vm, identity("B")), tx.Attach(vm, identity("a")), tx.Attach(vm, identity("gone")))
			}
		}
		return err
	})
	asked := []string{upper(names[4]), names[5]} // as spelt otherwise, and twice
	asked = append(asked, names...)
	all, err := f.db.Holdings(ctx, tenant, asked)
	must(t, err)
	for _, n := range names {
		key := strings.ToLower(n)
		want, err := f.db.Identities(ctx, tenant, key)
		must(t, err)
		same(t, "identities of "+key, all[key].Identities, want)
		own, err := f.db.PrincipalOf(ctx, tenant, key)
		if !problem.Is(err, problem.NotFound) {
			must(t, err)
		}
		same(t, "principal of "+key, all[key].Own, own)
	}
	same(t, "those with somebody", len(all), 2+200) // half of the machines and a third, not twice
	for who, keys := range map[string][]string{other: asked, tenant: nil} {
		none, err := f.db.Holdings(ctx, who, keys)
		must(t, err)
		same(t, "of another tenant, or of none", len(none), 0)
	}
}

func oids(ps []directory.Principal) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.ID)
	}
	return out
}

func uniqueNames(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.createTenant(other)
	v := node("/subscriptions/S/resourceGroups/G/providers/Microsoft.KeyVault/vaults/Main")
	f.put(v)
	claim := func(tenant, res string) error {
		return f.db.Write(ctx, event(tenant, "claim"), func(tx arm.Tx) error { return tx.ClaimName("vault", "Main", res) })
	}
	must(t, claim(tenant, v.ID.String()))
	must(t, claim(tenant, v.ID.Key())) // it has it
	refused(t, "another resource's claim", claim(tenant, v.ID.Key()+"2"), problem.Exists)
	refused(t, "another tenant's claim", claim(other, v.ID.Key()), problem.Exists)
	f.write(func(tx arm.Tx) error { return tx.ClaimName("storage", "main", v.ID.Key()+"2") }) // another kind
	for name, want := range map[string]bool{"vault main": true, "vault MAIN": true, "storage main": true, "vault other": false, "web main": false} {
		kind, name, _ := strings.Cut(name, " ")
		got, err := f.db.NameTaken(ctx, kind, name)
		must(t, err)
		same(t, "NameTaken("+kind+", "+name+")", got, want)
	}
	got, err := f.db.VaultNamed(ctx, "MAIN")
	must(t, err)
	same(t, "VaultNamed", got, vault.Place{Tenant: tenant, ID: v.ID, UID: v.UID, Name: "Main", Location: "north"})
	_, err = f.db.VaultNamed(ctx, "none")
	refused(t, "VaultNamed(none)", err, problem.VaultNotFound)
	f.write(func(tx arm.Tx) error { return tx.ReleaseNames(v.ID.Key()) })
	taken, err := f.db.NameTaken(ctx, "vault", "main")
	must(t, err)
	same(t, "NameTaken(released)", taken, false)
	_, err = f.db.VaultNamed(ctx, "main")
	refused(t, "VaultNamed(released)", err, problem.VaultNotFound)
	must(t, claim(other, "/subscriptions/X"))
	_, err = f.db.VaultNamed(ctx, "main")
	refused(t, "VaultNamed(without a resource)", err, problem.VaultNotFound)
}

func audiences(t *testing.T, f *fixture) {
	api := directory.API{Tenant: tenant, Audience: "api://Orders/", Client: "c1", TokenVersion: 2, Resource: id(machine("G", "app"))}
	f.write(func(tx arm.Tx) error { return errors.Join(tx.PutAPI(api), tx.PutAPI(api)) })
	for _, audience := range []string{"api://orders", "API://ORDERS//", "api://Orders/"} {
		got, err := f.db.API(t.Context(), tenant, audience)
		must(t, err)
		same(t, "API("+audience+")", got, api)
	}
	f.write(func(tx arm.Tx) error {
		got, err := tx.APIs(api.Resource.Key())
		same(t, "APIs", got, []directory.API{api})
		return err
	})
	_, err := f.db.API(t.Context(), tenant, "api://order")
	refused(t, "API(none)", err, problem.UnknownAudience)
	_, err = f.db.API(t.Context(), other, api.Audience)
	refused(t, "API(of another tenant)", err, problem.UnknownAudience)
	rival := api
	rival.Resource = id(machine("G", "rival"))
	err = f.db.Write(t.Context(), event(tenant, "rival"), func(tx arm.Tx) error { return tx.PutAPI(rival) })
	refused(t, "another application's claim", err, problem.Exists)
	f.write(func(tx arm.Tx) error {
		if err := tx.DeleteAPIs(api.Resource.Key()); err != nil {
			return err
		}
		return tx.PutAPI(rival)
	})
	got, err := f.db.API(t.Context(), tenant, "api://orders")
	must(t, err)
	same(t, "whose it is now", got.Resource, rival.Resource)
}

func writeUndone(t *testing.T, f *fixture) {
	f.put(node("/subscriptions/S"))
	before, fed := f.revision(), f.changes(0)
	mine := errors.New("mine")
	err := f.db.Write(t.Context(), event(tenant, "undone"), func(tx arm.Tx) error {
		if err := errors.Join(tx.PutResource(node(machine("G", "vm"))), tx.DeleteTree("/subscriptions/s")); err != nil {
			return err
		}
		return mine
	})
	same(t, "the error as it is", err == mine, true)
	same(t, "revision", f.revision(), before)
	same(t, "feed", f.changes(0), fed)
	same(t, "on record", len(f.actions(tenant)), 0)
	_, err = f.db.Resource(t.Context(), tenant, "/subscriptions/s")
	must(t, err)
	_, err = f.db.Resource(t.Context(), tenant, id(machine("G", "vm")).Key())
	refused(t, "what was put", err, problem.NotFound)
}

func writePanics(t *testing.T, f *fixture) {
	err := f.db.Write(t.Context(), event(tenant, "panics"), func(tx arm.Tx) error {
		must(t, tx.PutResource(node("/subscriptions/S")))
		panic("in a write")
	})
	if err == nil {
		t.Error("a write that panicked succeeded")
	}
	same(t, "revision", f.revision(), int64(1))
	f.put(node("/subscriptions/T")) // the database goes on
}

func writeCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	err := f.db.Write(ctx, event(tenant, "cancelled"), func(tx arm.Tx) error {
		must(t, tx.PutResource(node("/subscriptions/S")))
		cancel()
		return tx.PutResource(node("/subscriptions/T"))
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want %v", err, context.Canceled)
	}
	err = f.db.Write(ctx, event(tenant, "too late"), func(arm.Tx) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Write after the end = %v, want %v", err, context.Canceled)
	}
	same(t, "revision", f.revision(), int64(1))
	same(t, "on record", len(f.actions(tenant)), 0)
}

func badText(t *testing.T, f *fixture) {
	for _, text := range []string{"a\x00b", "a\xffb"} {
		p := principalOf("oid", machine("G", "vm"), true)
		p.Name = text
		err := f.db.Write(t.Context(), event(tenant, "bad"), func(tx arm.Tx) error { return tx.PutPrincipal(p) })
		refused(t, "a name", err, problem.Invalid)
		_, err = f.db.Principal(t.Context(), tenant, text)
		refused(t, "a key", err, problem.Invalid)
	}
}

func closed(t *testing.T, f *fixture) {
	must(t, f.db.Close())
	must(t, f.db.Close())
	if err := f.db.Write(t.Context(), event(tenant, "late"), func(arm.Tx) error { return nil }); err == nil {
		t.Error("Write after Close succeeded")
	}
	if err := f.db.Record(t.Context(), *event(tenant, "late")); err == nil {
		t.Error("Record after Close succeeded")
	}
}

func schemaVersion(t *testing.T, f *fixture) {
	got, err := f.db.SchemaVersion(t.Context())
	must(t, err)
	same(t, "SchemaVersion", got, int64(10))
}
