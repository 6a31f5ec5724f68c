package storetest

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/vault"
)

// Replicas tests what several processes on one database promise each other.
// open gives each test two replicas on a new database, the second with the
// audit chain's name that is asked for.
func Replicas(t *testing.T, open func(t *testing.T, chainA, chainB string) (a, b *store.DB)) {
	for _, tt := range []struct {
		name           string
		chainA, chainB string
		run            func(t *testing.T, a, b *fixture)
	}{
		{"HearEachOther", "a", "b", hearEachOther},
		{"FeedHasOneOrder", "a", "b", oneOrder},
		{"TenantsDoNotWaitForEachOther", "a", "b", tenantsApart},
		{"ChainsOfTheirOwn", "a", "b", mixed},
		{"OneChainIsNeverForked", "same", "same", mixed},
		{"SecretsCreatedOnce", "a", "b", createdOnce},
		{"TokensAndKeysHaveOneWinner", "a", "b", oneWinner},
		{"CrossingSecretsAllGetThrough", "a", "b", crossing},
		{"VaultIsNotDeletedUnderANewSecret", "a", "b", vaultRace},
		{"TenantIsMadeOnce", "a", "b", tenantRace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := open(t, tt.chainA, tt.chainB)
			fa, fb := &fixture{t: t, db: a}, &fixture{t: t, db: b}
			fa.createTenant(tenant)
			tt.run(t, fa, fb)
		})
	}
}

func hearEachOther(t *testing.T, a, b *fixture) {
	for i := range 5 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		changed, recorded := to.db.Changed(), to.db.Recorded()
		from.put(node(machine("G", fmt.Sprint(i))))
		await(t, "the other replica's change", changed)
		await(t, "the other replica's record of it", recorded)
		_, err := to.db.Resource(t.Context(), tenant, machine("G", fmt.Sprint(i)))
		must(t, err)
		recorded = to.db.Recorded()
		must(t, from.db.Record(t.Context(), *event(tenant, "told")))
		await(t, "the other replica's record", recorded)
	}
}

func oneOrder(t *testing.T, a, b *fixture) {
	const each = 30
	var g errgroup.Group
	for w, f := range []*fixture{a, b, a, b} {
		g.Go(func() error {
			for i := range each {
				put := func(tx arm.Tx) error { return tx.PutResource(node(machine("G", fmt.Sprintf("vm-%d-%d", w, i)))) }
				if err := f.db.Write(t.Context(), event(tenant, "managed"), put); err != nil {
					return err
				}
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	last, rows := int64(1), 0
	for running := true; running || rows < 4*each; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
		}
		changed := b.db.Changed()
		some, err := b.db.Changes(t.Context(), tenant, last, 5)
		must(t, err)
		for _, c := range some {
			if c.Revision != last+1 {
				t.Fatalf("revision %d came after %d", c.Revision, last)
			}
			last = c.Revision
			rows++
		}
		if running && len(some) == 0 {
			await(t, "a change", changed)
		}
		if !running && len(some) == 0 {
			break
		}
	}
	same(t, "rows", rows, 4*each)
}

// tenantsApart has more writes wait for one tenant than there are connections.
// Other tenants' writes, and all that takes no revision, go on.
func tenantsApart(t *testing.T, a, b *fixture) {
	a.createTenant(other)
	a.put(node(vaultID))
	inside, leave := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return a.slow(tenant, inside, leave) })
	<-inside
	for range 40 {
		g.Go(func() error {
			return a.db.Write(t.Context(), event(tenant, "waits"), func(arm.Tx) error { return nil })
		})
	}
	for n, f := range []*fixture{a, b} {
		must(t, f.db.Write(t.Context(), event(other, "goes on"), func(arm.Tx) error { return nil }))
		must(t, f.db.Record(t.Context(), *event(tenant, "goes on")))
		f.add(version("s", n))
		_, err := f.db.Resource(t.Context(), tenant, vaultKey)
		must(t, err)
	}
	close(leave)
	must(t, g.Wait())
	a.chains(tenant)
}

// mixed records on both replicas by every way there is.
func mixed(t *testing.T, a, b *fixture) {
	a.put(node(vaultID))
	const each = 20
	var g errgroup.Group
	for w, f := range []*fixture{a, b} {
		for range 2 {
			g.Go(func() error {
				for range each {
					if err := f.db.Record(t.Context(), *event(tenant, "recorded")); err != nil {
						return err
					}
				}
				return nil
			})
		}
		g.Go(func() error {
			for i := range each {
				add := func(tx vault.Tx) error { return tx.AddVersion(place, version("s", w*each+i)) }
				if err := f.db.WriteSecrets(t.Context(), event(tenant, "secret"), add); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	count := map[string]int{}
	for _, action := range b.actions(tenant) { // which verifies the chains
		count[action]++
	}
	same(t, "on record", count, map[string]int{"recorded": 4 * each, "secret": 2 * each})
	all, err := b.db.Versions(t.Context(), tenant, vaultKey, "s", "", 0)
	must(t, err)
	same(t, "versions", len(all), 2*each)
}

func createdOnce(t *testing.T, a, b *fixture) {
	a.put(node(vaultID))
	made, err := race(16, func(n int) error {
		return pick(n, a, b).db.WriteSecrets(t.Context(), event(tenant, "create if absent"), createIfAbsent(n))
	})
	must(t, err)
	same(t, "how many created it", made, 1)
}

func pick(n int, a, b *fixture) *fixture {
	if n%2 == 0 {
		return a
	}
	return b
}

func oneWinner(t *testing.T, a, b *fixture) {
	a.token("aa", a.host())
	won, err := race(16, func(n int) error { return pick(n, a, b).enrol("aa", fmt.Sprintf("%02x", n)) })
	must(t, err)
	same(t, "how many enrolled", won, 1)
	for _, of := range []string{tenant, ""} {
		won, err := race(8, func(n int) error {
			return pick(n, a, b).db.AddKey(t.Context(), key(of, fmt.Sprint(n)), 0, noon, *event(of, "key"))
		})
		must(t, err)
		same(t, "how many keys", won, 1)
		a.chains(of)
	}
}

// crossing has jobs that lock two secrets, in the one order on one replica and
// in the other on the other.
func crossing(t *testing.T, a, b *fixture) {
	a.put(node(vaultID))
	a.add(version("x", 1000), version("y", 1000))
	const each = 6
	var g errgroup.Group
	for w, f := range []*fixture{a, b} {
		order := [][]string{{"x", "y"}, {"y", "x"}}[w]
		g.Go(func() error {
			for i := range each {
				err := f.db.WriteSecrets(t.Context(), event(tenant, "both"), func(tx vault.Tx) error {
					for _, name := range order {
						if err := tx.AddVersion(place, version(name, w*each+i)); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	for _, name := range []string{"x", "y"} {
		got, err := a.db.Versions(t.Context(), tenant, vaultKey, name, "", 0)
		must(t, err)
		same(t, "versions", len(got), 1+2*each)
	}
	same(t, "on record", len(a.actions(tenant)), 2*each)
}

// vaultRace deletes empty vaults on one replica while the other sets their
// first secret: one of the two is refused.
func vaultRace(t *testing.T, a, b *fixture) {
	for i := range 10 {
		v := node(fmt.Sprintf("%s%d", vaultID, i))
		a.put(v)
		won, err := race(2, func(n int) error {
			if n == 0 {
				return a.db.Write(t.Context(), event(tenant, "delete"), func(tx arm.Tx) error { return tx.DeleteTree(v.ID.Key()) })
			}
			return b.db.WriteSecrets(t.Context(), event(tenant, "set"), func(tx vault.Tx) error {
				return tx.AddVersion(vault.Place{Tenant: tenant, ID: v.ID, UID: v.UID}, version("s", 1))
			})
		})
		must(t, err)
		same(t, "how many of the two", won, 1)
	}
}

func tenantRace(t *testing.T, a, b *fixture) {
	won, err := race(8, func(n int) error {
		return pick(n, a, b).db.Write(t.Context(), event(other, "create"), func(tx arm.Tx) error {
			return tx.CreateTenant(directory.Tenant{ID: other, Created: noon})
		})
	})
	must(t, err)
	same(t, "how many made it", won, 1)
	same(t, "management batches", len(a.chains(other)[audit.ManagementChain]), 1)
}
