package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/vault"
)

func secrets() []test {
	return []test{
		{"SecretRoundTrip", secretRoundTrip},
		{"SecretNamesCompareWithoutCase", secretNamesFold},
		{"SecretsPageByName", secretPages},
		{"VersionsNewestFirst", versionsPage},
		{"SecretUpdate", secretUpdate},
		{"SecretDeleteRecoverPurge", secretLife},
		{"SecretNeedsItsVault", secretNeedsVault},
		{"SecretNeedsTheVaultThatWasFound", secretNeedsItsOwnVault},
		{"ReadOfAnUnknownNameLeavesNothing", unknownName},
		{"ConcurrentWritersOfOneSecretKeepAllVersions", concurrentSecrets},
		{"DecisionOnAnAbsentNameHolds", createOnce},
		{"SweepPurgesWhatIsDue", sweepSecrets},
	}
}

const vaultID = "/subscriptions/S/resourceGroups/G/providers/Microsoft.KeyVault/vaults/V"

var (
	vaultKey = id(vaultID).Key()
	place    = placeOf(vaultID)
)

// placeOf is the vault that node makes.
func placeOf(s string) vault.Place {
	n := node(s)
	return vault.Place{Tenant: n.Tenant, ID: n.ID, UID: n.UID}
}

// version is version n of a secret.
func version(name string, n int) vault.Secret {
	return vault.Secret{
		Name: name, Version: fmt.Sprintf("%032x", n), Sealed: []byte{0, 1, byte(n), 0xff}, ContentType: "text/plain",
		Tags: map[string]string{"n": fmt.Sprint(n), "nul": "\x00"}, Enabled: true,
		NotBefore: noon, Expires: noon.Add(time.Hour), Created: noon, Updated: noon.Add(time.Duration(n) * time.Second),
	}
}

// secret runs fn in a write of secrets, which must succeed.
func (f *fixture) secret(fn func(tx vault.Tx) error) {
	f.t.Helper()
	if err := f.db.WriteSecrets(f.t.Context(), event(tenant, "write"), fn); err != nil {
		f.t.Fatalf("WriteSecrets: %v", err)
	}
}

func (f *fixture) add(ss ...vault.Secret) {
	f.t.Helper()
	f.secret(func(tx vault.Tx) error {
		return each(ss, func(s vault.Secret) error { return tx.AddVersion(place, s) })
	})
}

func secretNames(ss []vault.Secret) []string {
	var out []string
	for _, s := range ss {
		out = append(out, s.Name)
	}
	return out
}

func secretRoundTrip(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.put(node(vaultID))
	first, second := version("db", 1), version("db", 2)
	second.Tags, second.Expires = nil, time.Time{}
	f.add(first)
	f.add(second)
	got, err := f.db.Secret(ctx, tenant, vaultKey, "db", "")
	must(t, err)
	same(t, "the latest", got, second)
	got, err = f.db.Secret(ctx, tenant, upper(vaultKey), "db", upper(first.Version))
	must(t, err)
	same(t, "the first", got, first)
	for _, of := range []struct{ tenant, vault, name, version string }{
		{tenant, vaultKey, "none", ""}, {tenant, vaultKey, "db", version("", 3).Version},
		{tenant, vaultKey + "2", "db", ""}, {other, vaultKey, "db", ""},
	} {
		_, err := f.db.Secret(ctx, of.tenant, of.vault, of.name, of.version)
		refused(t, "Secret", err, problem.NotFound)
	}
	f.secret(func(tx vault.Tx) error {
		got, err := tx.Latest(place, "db")
		must(t, err)
		same(t, "Latest within a write", got, second)
		got, err = tx.Version(place, "db", first.Version)
		must(t, err)
		same(t, "Version within a write", got, first)
		_, err = tx.Version(place, "db", "none")
		refused(t, "Version(none)", err, problem.NotFound)
		return nil
	})
}

func secretNamesFold(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	f.add(version("Db-Password", 1))
	f.add(version("DB-PASSWORD", 2))
	got, err := f.db.Secret(t.Context(), tenant, vaultKey, "db-password", "")
	must(t, err)
	same(t, "first author's spelling", got.Name, "Db-Password")
	same(t, "version", got.Version, version("", 2).Version)
	f.secret(func(tx vault.Tx) error {
		if _, err := tx.Latest(place, "NEW"); !problem.Is(err, problem.NotFound) {
			return err
		}
		return tx.AddVersion(place, version("New", 1))
	})
	got, err = f.db.Secret(t.Context(), tenant, vaultKey, "new", "")
	must(t, err)
	same(t, "spelling of who wrote, not of who asked", got.Name, "New")
}

func secretPages(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	for _, name := range []string{"b", "A", "d", "C", "e"} {
		f.add(version(name, 1))
		f.add(version(name, 2))
	}
	var got []string
	for after := ""; ; {
		some, err := f.db.Secrets(t.Context(), tenant, vaultKey, false, after, 2)
		must(t, err)
		for _, s := range some {
			same(t, "latest version", s.Version, version("", 2).Version)
			same(t, "no value in a list", len(s.Sealed), 0)
		}
		got = append(got, secretNames(some)...)
		if len(some) < 2 {
			break
		}
		after = some[1].Name
	}
	same(t, "all pages", got, []string{"A", "b", "C", "d", "e"})
}

func versionsPage(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	for _, n := range []int{3, 1, 2} { // neither the order of numbers nor of times
		f.add(version("s", n))
	}
	all, err := f.db.Versions(t.Context(), tenant, vaultKey, "S", "", 10)
	must(t, err)
	var got []string
	for _, v := range all {
		same(t, "no value in a list", len(v.Sealed), 0)
		got = append(got, v.Version[31:])
	}
	same(t, "Versions", got, []string{"2", "1", "3"})
	some, err := f.db.Versions(t.Context(), tenant, vaultKey, "s", "", 2)
	must(t, err)
	same(t, "first page", some, all[:2])
	some, err = f.db.Versions(t.Context(), tenant, vaultKey, "s", some[1].Version, 2)
	must(t, err)
	same(t, "second page", some, all[2:])
	for _, q := range []struct{ name, after string }{{"none", ""}, {"s", "none"}} {
		some, err := f.db.Versions(t.Context(), tenant, vaultKey, q.name, q.after, 2)
		must(t, err)
		same(t, "Versions of nothing", len(some), 0)
	}
}

func secretUpdate(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	s := version("s", 1)
	f.add(s)
	want := s
	want.ContentType, want.Tags, want.Enabled, want.Expires, want.Updated = "new", nil, false, time.Time{}, noon.Add(time.Minute)
	f.secret(func(tx vault.Tx) error {
		change := want
		change.Name, change.Sealed = "S", []byte("another")
		none := change
		none.Version = "none"
		refused(t, "UpdateVersion(none)", tx.UpdateVersion(place, none), problem.NotFound)
		none.Name = "none"
		refused(t, "UpdateVersion(no secret)", tx.UpdateVersion(place, none), problem.NotFound)
		return tx.UpdateVersion(place, change)
	})
	got, err := f.db.Secret(t.Context(), tenant, vaultKey, "s", s.Version)
	must(t, err)
	same(t, "updated", got, want)
}

func secretLife(t *testing.T, f *fixture) {
	ctx := t.Context()
	f.put(node(vaultID))
	f.add(version("s", 1), version("live", 1))
	gone, due := noon.Add(time.Hour), noon.Add(48*time.Hour)
	f.secret(func(tx vault.Tx) error { return tx.SetDeleted(place, "S", gone, due) })
	_, err := f.db.Secret(ctx, tenant, vaultKey, "s", "")
	refused(t, "Secret(deleted)", err, problem.NotFound)
	_, err = f.db.Secret(ctx, tenant, vaultKey, "s", version("", 1).Version)
	refused(t, "Secret(deleted, version)", err, problem.NotFound)
	versions, err := f.db.Versions(ctx, tenant, vaultKey, "s", "", 10)
	must(t, err)
	same(t, "versions of a deleted secret", len(versions), 0)
	listed := func(deleted bool) []vault.Secret {
		got, err := f.db.Secrets(ctx, tenant, vaultKey, deleted, "", 10)
		must(t, err)
		return got
	}
	same(t, "live", secretNames(listed(false)), []string{"live"})
	same(t, "deleted", secretNames(listed(true)), []string{"s"})
	same(t, "when", listed(true)[0].Deleted, gone)
	same(t, "until", listed(true)[0].PurgeAt, due)
	f.write(func(tx arm.Tx) error {
		n, err := tx.LiveSecrets(vaultID)
		same(t, "LiveSecrets", n, 2)
		return err
	})
	f.secret(func(tx vault.Tx) error {
		got, err := tx.Latest(place, "s")
		must(t, err)
		same(t, "Latest of a deleted secret", got.Deleted, gone)
		_, err = tx.Version(place, "s", got.Version)
		refused(t, "Version of a deleted secret", err, problem.NotFound)
		refused(t, "UpdateVersion of a deleted secret", tx.UpdateVersion(place, got), problem.NotFound)
		refused(t, "AddVersion to a deleted secret", tx.AddVersion(place, version("s", 2)), problem.DeletedRecoverable)
		return tx.SetDeleted(place, "s", time.Time{}, time.Time{})
	})
	got, err := f.db.Secret(ctx, tenant, vaultKey, "s", "")
	must(t, err)
	same(t, "recovered", got, version("s", 1))
	f.secret(func(tx vault.Tx) error {
		refused(t, "SetDeleted(none)", tx.SetDeleted(place, "none", gone, due), problem.NotFound)
		refused(t, "Purge(none)", tx.Purge(place, "none"), problem.NotFound)
		return tx.Purge(place, "S")
	})
	f.secret(func(tx vault.Tx) error {
		_, err := tx.Latest(place, "s")
		refused(t, "Latest(purged)", err, problem.NotFound)
		return tx.AddVersion(place, version("S", 1)) // as if it had never been
	})
	same(t, "made again", secretNames(listed(false)), []string{"live", "S"})
}

func secretNeedsVault(t *testing.T, f *fixture) {
	add := func(tx vault.Tx) error { return tx.AddVersion(place, version("s", 1)) }
	refused(t, "AddVersion without a vault", f.db.WriteSecrets(t.Context(), event(tenant, "add"), add), problem.VaultNotFound)
	f.secret(func(tx vault.Tx) error {
		_, err := tx.Latest(place, "s")
		refused(t, "Latest without a vault", err, problem.VaultNotFound)
		return nil
	})
	f.put(node(vaultID))
	f.add(version("s", 1))
	gone := func(tx arm.Tx) error { return tx.DeleteTree(vaultKey) }
	refused(t, "deleting a vault under its secrets", f.db.Write(t.Context(), event(tenant, "delete"), gone), problem.Conflict)
	f.secret(func(tx vault.Tx) error { return tx.Purge(place, "s") })
	f.write(gone)
	refused(t, "AddVersion to a deleted vault", f.db.WriteSecrets(t.Context(), event(tenant, "add"), add), problem.VaultNotFound)
}

// secretNeedsItsOwnVault: a right to a vault is none to the one that is made
// anew under its name.
func secretNeedsItsOwnVault(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(vaultKey) })
	anew := node(vaultID)
	anew.UID = "another uid"
	f.put(anew)
	now := place
	now.UID = anew.UID
	f.secret(func(tx vault.Tx) error { return tx.AddVersion(now, version("s", 1)) })
	for _, then := range []vault.Place{place, {Tenant: place.Tenant, ID: place.ID}} {
		for what, do := range map[string]func(vault.Tx) error{
			"AddVersion":    func(tx vault.Tx) error { return tx.AddVersion(then, version("s", 2)) },
			"a new secret":  func(tx vault.Tx) error { return tx.AddVersion(then, version("new", 1)) },
			"UpdateVersion": func(tx vault.Tx) error { return tx.UpdateVersion(then, version("s", 1)) },
			"SetDeleted":    func(tx vault.Tx) error { return tx.SetDeleted(then, "s", noon, noon) },
			"Purge":         func(tx vault.Tx) error { return tx.Purge(then, "s") },
			"Latest":        func(tx vault.Tx) error { _, err := tx.Latest(then, "s"); return err },
			"Version":       func(tx vault.Tx) error { _, err := tx.Version(then, "s", version("", 1).Version); return err },
		} {
			err := f.db.WriteSecrets(t.Context(), event(tenant, "late"), do)
			refused(t, what+" in another vault of the name, UID "+then.UID, err, problem.VaultNotFound)
		}
	}
	got, err := f.db.Secrets(t.Context(), tenant, vaultKey, false, "", 0)
	must(t, err)
	same(t, "the other vault's secrets", secretNames(got), []string{"s"})
	same(t, "on record", len(f.actions(tenant)), 0)
}

func unknownName(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	f.secret(func(tx vault.Tx) error {
		_, err := tx.Latest(place, "asked")
		refused(t, "Latest", err, problem.NotFound)
		return nil
	})
	for _, deleted := range []bool{false, true} {
		got, err := f.db.Secrets(t.Context(), tenant, vaultKey, deleted, "", 10)
		must(t, err)
		same(t, "Secrets", len(got), 0)
	}
	f.write(func(tx arm.Tx) error {
		n, err := tx.LiveSecrets(vaultKey)
		same(t, "LiveSecrets", n, 0)
		return errors.Join(err, tx.DeleteTree(vaultKey)) // nothing holds the vault
	})
}

func concurrentSecrets(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	const writers, each = 8, 10
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range each {
				add := func(tx vault.Tx) error { return tx.AddVersion(place, version("one", w*each+i)) }
				if err := f.db.WriteSecrets(t.Context(), event(tenant, "add"), add); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	all, err := f.db.Versions(t.Context(), tenant, vaultKey, "one", "", 1000)
	must(t, err)
	same(t, "versions", len(all), writers*each)
	latest, err := f.db.Secrets(t.Context(), tenant, vaultKey, false, "", 1000)
	must(t, err)
	same(t, "the one latest", latest, all[:1])
	same(t, "on record", len(f.actions(tenant)), writers*each)
}

// createOnce has many writers who each create the secret if it is absent.
func createOnce(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	made, err := race(16, func(n int) error {
		return f.db.WriteSecrets(t.Context(), event(tenant, "create if absent"), createIfAbsent(n))
	})
	must(t, err)
	same(t, "how many created it", made, 1)
}

var errPresent = errors.New("it is there")

func createIfAbsent(n int) func(tx vault.Tx) error {
	return func(tx vault.Tx) error {
		_, err := tx.Latest(place, "once")
		if err == nil {
			return errPresent
		}
		if !problem.Is(err, problem.NotFound) {
			return err
		}
		return tx.AddVersion(place, version("once", n))
	}
}

// race runs n tries at once and counts those that succeeded. The others must
// have been refused.
func race(n int, try func(n int) error) (won int, err error) {
	results := make([]error, n)
	var g errgroup.Group
	for i := range n {
		g.Go(func() error { results[i] = try(i); return nil })
	}
	_ = g.Wait()
	for _, r := range results {
		switch {
		case r == nil:
			won++
		case !errors.Is(r, errPresent) && problem.Of(r).Kind == problem.Internal:
			err = errors.Join(err, r)
		}
	}
	return won, err
}

func sweepSecrets(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	for _, name := range numbered("old", 150) {
		f.add(version(name, 1))
	}
	f.add(version("young", 1), version("live", 1), version("kept", 1))
	f.secret(func(tx vault.Tx) error {
		err := each(numbered("OLD", 150), func(name string) error { return tx.SetDeleted(place, name, noon, noon.Add(time.Hour)) })
		return errors.Join(err, tx.SetDeleted(place, "young", noon, noon.Add(2*time.Hour)),
			tx.SetDeleted(place, "kept", noon, time.Time{}))
	})
	must(t, f.db.Sweep(t.Context(), noon.Add(time.Hour)))
	got, err := f.db.Secrets(t.Context(), tenant, vaultKey, true, "", 0)
	must(t, err)
	same(t, "deleted ones left", secretNames(got), []string{"kept", "young"})
	_, err = f.db.Secret(t.Context(), tenant, vaultKey, "live", "")
	must(t, err)
	same(t, "purges on record", len(f.actions(tenant)), 150)
	must(t, f.db.Sweep(t.Context(), noon.Add(time.Hour)))
	same(t, "purges on record", len(f.actions(tenant)), 150)
}
