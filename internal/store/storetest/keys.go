package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
)

func keys() []test {
	return []test{
		{"KeysOldestFirst", keysInOrder},
		{"KeyOneWinnerOfMany", keyRace},
		{"KeyOfNoTenantIsRefused", keyWithoutTenant},
	}
}

func key(tenant, id string) keyring.Record {
	return keyring.Record{
		Tenant: tenant, Kind: keyring.KindSigning, ID: id, Sealed: []byte("sealed " + id), Public: []byte("public " + id),
		Created: noon, NotBefore: noon.Add(time.Hour),
	}
}

func keysInOrder(t *testing.T, f *fixture) {
	for _, of := range []string{tenant, ""} { // of a tenant, of the installation
		retire := noon.Add(2 * time.Hour)
		a, b, c := key(of, "z"), key(of, "y"), key(of, "x")
		add := func(rec keyring.Record, known int, retire time.Time) error {
			return f.db.AddKey(t.Context(), rec, known, retire, *event(of, "key"))
		}
		must(t, add(a, 0, time.Time{}))
		refused(t, "a second first key", add(b, 0, retire), problem.Conflict)
		must(t, add(b, 1, time.Time{}))
		must(t, add(c, 2, retire))
		ca := key(of, "ca")
		ca.Kind, ca.Retire = keyring.KindFleetCA, noon.Add(time.Minute)
		must(t, add(ca, 0, noon))
		a.Retire, b.Retire = retire, retire
		got, err := f.db.Keys(t.Context(), of, keyring.KindSigning)
		must(t, err)
		same(t, "Keys", got, []keyring.Record{a, b, c})
		d := key(of, "w")
		must(t, add(d, 3, noon.Add(3*time.Hour)))
		got, err = f.db.Keys(t.Context(), of, keyring.KindSigning)
		must(t, err)
		same(t, "a retirement that was set stays", []time.Time{got[0].Retire, got[2].Retire}, []time.Time{retire, noon.Add(3 * time.Hour)})
		got, err = f.db.Keys(t.Context(), of, keyring.KindFleetCA)
		must(t, err)
		same(t, "of another kind", got, []keyring.Record{ca})
		same(t, "on record", len(f.actions(of)), 5)
	}
	none, err := f.db.Keys(t.Context(), other, keyring.KindSigning)
	must(t, err)
	same(t, "of another tenant", len(none), 0)
}

func keyRace(t *testing.T, f *fixture) {
	for _, of := range []string{tenant, ""} {
		won, err := race(8, func(n int) error {
			return f.db.AddKey(t.Context(), key(of, fmt.Sprint(n)), 0, time.Time{}, *event(of, "key"))
		})
		must(t, err)
		same(t, "how many were first", won, 1)
		same(t, "on record", f.actions(of), []string{"key"})
	}
}

func keyWithoutTenant(t *testing.T, f *fixture) {
	err := f.db.AddKey(t.Context(), key(other, "k"), 0, time.Time{}, *event(other, "key"))
	refused(t, "AddKey", err, problem.UnknownTenant)
}
