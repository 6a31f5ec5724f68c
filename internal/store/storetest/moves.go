package storetest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/vault"
)

func moves() []test {
	return []test{
		{"MoveTakesEverythingAlong", moveTakesAll},
		{"MoveIsInTheFeedUnderBothKeys", moveInFeed},
		{"MovedIsFollowedUntilAnotherIsThere", movedIsFollowed},
		{"MoveToIDsTooLongChangesNothing", moveTooLong},
		{"MoveLosesNoSecretThatIsBeingSet", moveAndSet},
	}
}

func moveTakesAll(t *testing.T, f *fixture) {
	ctx := t.Context()
	vm, slot, other := machine("G", "Vm"), machine("G", "Vm")+"/slots/S1", machine("G", "Vm2")
	uai, app := identity("Uai"), "/subscriptions/S/resourceGroups/G/providers/Innate.Directory/applications/App"
	bound := node("/subscriptions/S/resourceGroups/H/providers/Innate.Fleet/hosts/h/placements/p")
	bound.BoundTo = id(vm)
	f.put(node(vm), node(slot), node(other), node(uai), node(app), node(vaultID), bound)
	f.write(func(tx arm.Tx) error {
		return firstError(
			tx.PutPrincipal(principalOf("sys", vm, true)), tx.PutPrincipal(principalOf("usr", uai, false)), tx.PutPrincipal(principalOf("app", app, false)),
			tx.Attach(id(vm).Key(), id(uai).Key()), tx.Attach(id(other).Key(), id(uai).Key()),
			tx.PutRoleAssignment(grant(vm, "at", "r", "usr")), tx.PutRoleAssignment(grant(slot, "below", "r", "sys")),
			tx.PutRoleAssignment(grant(other, "beside", "r", "sys")),
			tx.ClaimName("vault", "kv", id(vaultID).Key()),
			tx.PutAPI(directory.API{Tenant: tenant, Audience: "api://a", Client: "client-app", TokenVersion: 1, Resource: id(app)}),
		)
	})
	f.add(version("Db", 1), version("Db", 2))

	there := func(s string) string { return strings.Replace(s, "resourceGroups/G", "resourceGroups/New", 1) }
	f.write(func(tx arm.Tx) error {
		return each([]string{vm, uai, app, vaultID}, func(s string) error { return tx.Move(id(s), id(there(s)), noon) })
	})
	for _, s := range []string{vm, slot, uai, app, vaultID} {
		_, err := f.db.Resource(ctx, tenant, id(s).Key())
		refused(t, "Resource("+s+") after it moved", err, problem.NotFound)
		got, err := f.db.Resource(ctx, tenant, id(there(s)).Key())
		must(t, err)
		want := node(there(s))
		want.UID, want.ETag = node(s).UID, f.revision()
		same(t, "Resource("+there(s)+")", got, want)
	}
	have, err := f.db.Identities(ctx, tenant, id(there(vm)).Key())
	must(t, err)
	same(t, "Identities(moved)", have, []directory.Principal{principalOf("sys", there(vm), true), principalOf("usr", there(uai), false)})
	users, err := f.db.AttachedTo(ctx, tenant, id(there(uai)).Key())
	must(t, err)
	same(t, "AttachedTo(moved)", users, []resource.ID{id(other), id(there(vm))})
	for old, want := range map[string]arm.RoleAssignment{
		vm: grant(there(vm), "at", "r", "usr"), slot: grant(there(slot), "below", "r", "sys"), other: grant(other, "beside", "r", "sys"),
	} {
		got, err := f.db.RoleAssignment(ctx, tenant, want.ID.Key())
		must(t, err)
		same(t, "the role assignment that was at "+old, got, want)
	}
	p, err := f.db.Resource(ctx, tenant, bound.ID.Key())
	must(t, err)
	same(t, "BoundTo", p.BoundTo, id(there(vm)))
	kv, err := f.db.VaultNamed(ctx, "kv")
	must(t, err)
	same(t, "VaultNamed", kv.ID, id(there(vaultID)))
	for n := range 2 {
		got, err := f.db.Secret(ctx, tenant, id(there(vaultID)).Key(), "db", version("Db", n+1).Version)
		must(t, err)
		same(t, "a version of a secret", got.Sealed, version("Db", n+1).Sealed)
	}
	api, err := f.db.API(ctx, tenant, "api://a")
	must(t, err)
	same(t, "API", api.Resource, id(there(app)))
	f.write(func(tx arm.Tx) error {
		got, err := tx.ResourceWithUID(node(vm).UID)
		same(t, "ResourceWithUID", got.ID, id(there(vm)))
		return err
	})
}

func firstError(errs ...error) error {
	return each(errs, func(err error) error { return err })
}

func moveInFeed(t *testing.T, f *fixture) {
	vm, uai, user := machine("G", "Vm"), identity("Uai"), machine("G", "User")
	f.put(node(vm), node(uai), node(user))
	f.write(func(tx arm.Tx) error {
		return firstError(tx.PutPrincipal(principalOf("sys", vm, true)), tx.PutPrincipal(principalOf("usr", uai, false)),
			tx.Attach(id(user).Key(), id(uai).Key()), tx.PutRoleAssignment(grant(vm, "at", "r", "holder")))
	})
	before := f.revision()
	newVM, newUAI := machine("New", "Vm"), strings.Replace(uai, "Groups/G", "Groups/New", 1)
	f.write(func(tx arm.Tx) error {
		return firstError(tx.Move(id(vm), id(newVM), noon), tx.Move(id(uai), id(newUAI), noon))
	})
	got := strings.Join(f.changes(before), "\n")
	for _, want := range []string{
		"resource " + id(vm).Key(), "resource " + id(newVM).Key(), "resource " + id(uai).Key(), "resource " + id(newUAI).Key(),
		"identity " + id(vm).Key(), "identity " + id(newVM).Key(), "identity " + id(user).Key(),
		"principal sys", "principal usr", "assignment holder",
	} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("the feed has not %q:\n%s", want, got)
		}
	}
}

func movedIsFollowed(t *testing.T, f *fixture) {
	a, b, c := machine("A", "vm"), machine("B", "vm"), machine("C", "vm")
	move := func(from, to string, at time.Time) {
		t.Helper()
		f.write(func(tx arm.Tx) error { return tx.Move(id(from), id(to), at) })
	}
	where := func(from string, since time.Time, want string) {
		t.Helper()
		got, err := f.db.Moved(t.Context(), tenant, id(from), since)
		must(t, err)
		if got.String() != want {
			t.Errorf("Moved(%s, %s) = %q, want %q", from, since, got, want)
		}
	}
	f.put(node(a), node(a+"/slots/s"))
	where(a, noon, "")
	move(a, b, noon)
	move(b, c, noon.Add(time.Minute))
	where(a, noon, c)
	where(a+"/slots/s", noon, c+"/slots/s")
	where(a, noon.Add(time.Second), "") // whoever was at A then was another one
	where(b, noon.Add(time.Second), c)
	move(c, a, noon.Add(2*time.Minute)) // back where it began
	where(b, noon, a)
	where(a, noon, "")
	f.put(node(b)) // another one is there now
	where(b, noon, "")
	must(t, f.db.Sweep(t.Context(), noon.Add(48*time.Hour)))
	where(c, noon, "")
}

func moveTooLong(t *testing.T, f *fixture) {
	deep := machine("G", "vm") + strings.Repeat("/t/"+strings.Repeat("n", 250), 7)
	f.put(node(machine("G", "vm")), node(deep))
	before := f.revision()
	err := f.db.Write(t.Context(), event(tenant, "write"), func(tx arm.Tx) error {
		return tx.Move(id(machine("G", "vm")), id(machine(strings.Repeat("g", 250), "vm")), noon)
	})
	refused(t, "a move that makes an ID too long", err, problem.Invalid)
	if f.revision() != before {
		t.Errorf("a refused move changed something")
	}
}

// moveAndSet moves a vault to and fro while secrets are set in it: what was
// acknowledged is there in the end.
func moveAndSet(t *testing.T, f *fixture) {
	there := strings.Replace(vaultID, "Groups/G", "Groups/H", 1)
	f.put(node(vaultID))
	f.write(func(tx arm.Tx) error { return tx.ClaimName("vault", "kv", id(vaultID).Key()) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		from, to := vaultID, there
		for ctx.Err() == nil {
			if err := f.db.Write(t.Context(), event(tenant, "write"), func(tx arm.Tx) error { return tx.Move(id(from), id(to), noon) }); err != nil {
				done <- err
				return
			}
			from, to = to, from
		}
		done <- nil
	}()
	set := map[string]bool{}
	for _, name := range numbered("s", 60) {
		at, err := f.db.VaultNamed(ctx, "kv")
		must(t, err)
		err = f.db.WriteSecrets(ctx, event(tenant, "set"), func(tx vault.Tx) error { return tx.AddVersion(at, version(name, 1)) })
		if err == nil {
			set[name] = true
		} else if !problem.Is(err, problem.VaultNotFound) {
			t.Errorf("AddVersion during a move: %v", err)
		}
	}
	cancel()
	must(t, <-done)
	at, err := f.db.VaultNamed(t.Context(), "kv")
	must(t, err)
	have, err := f.db.Secrets(t.Context(), tenant, at.ID.Key(), false, "", 0)
	must(t, err)
	if len(have) != len(set) {
		t.Errorf("%d secrets are there, %d were set", len(have), len(set))
	}
}
