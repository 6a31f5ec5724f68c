package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
)

func scanKey(r row) (keyring.Record, error) {
	var k keyring.Record
	var created, notBefore, retire int64
	err := r.Scan(&k.Tenant, &k.Kind, &k.ID, &k.Sealed, &k.Public, &created, &notBefore, &retire)
	k.Created, k.NotBefore, k.Retire = at(created), at(notBefore), at(retire)
	return k, err
}

const listKeys = `
	SELECT tenant, kind, id, sealed, public, created_ms, not_before_ms, retire_ms FROM ring_key
	WHERE tenant = $1 AND kind = $2 ORDER BY number`

// Keys returns the keys of a kind, oldest first.
func (db *DB) Keys(ctx context.Context, tenant, kind string) ([]keyring.Record, error) {
	out, err := many(ctx, db.read, scanKey, listKeys, tenant, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the %s keys of tenant %q: %w", kind, tenant, err)
	}
	return out, nil
}

const countKeys = `SELECT COUNT(*) FROM ring_key WHERE tenant = $1 AND kind = $2`

const retireKeys = `UPDATE ring_key SET retire_ms = $3 WHERE tenant = $1 AND kind = $2 AND retire_ms = 0`

const putKey = `
	INSERT INTO ring_key (tenant, kind, number, id, sealed, public, created_ms, not_before_ms, retire_ms)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

// AddKey adds rec and sets the Retire of the keys before it that have none to
// retire (zero leaves them). It returns [problem.Conflict] and changes nothing
// unless the tenant has exactly known keys of the kind: another replica was
// first.
func (db *DB) AddKey(ctx context.Context, rec keyring.Record, known int, retire time.Time, ev audit.Event) error {
	ev.Tenant = rec.Tenant
	return db.write(ctx, &ev, func(t *writeTx) error {
		have, err := one(t.ctx, t.q, nil, scanned[int], countKeys, rec.Tenant, rec.Kind)
		if err != nil {
			return fmt.Errorf("counting the %s keys: %w", rec.Kind, err)
		}
		if have != known {
			return problem.Errorf(problem.Conflict, "there are %d %s keys, not %d: another replica added one", have, rec.Kind, known)
		}
		if _, err := t.exec(retireKeys, rec.Tenant, rec.Kind, ms(retire)); err != nil {
			return fmt.Errorf("retiring the %s keys: %w", rec.Kind, err)
		}
		_, err = t.exec(putKey, rec.Tenant, rec.Kind, known+1, rec.ID, blob(rec.Sealed), blob(rec.Public),
			ms(rec.Created), ms(rec.NotBefore), ms(rec.Retire))
		if err != nil {
			return fmt.Errorf("adding the %s key %s: %w", rec.Kind, rec.ID, err)
		}
		return nil
	})
}
