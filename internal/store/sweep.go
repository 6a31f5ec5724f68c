package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/audit"
)

// purgeDue takes some at a time, so that nobody waits long behind it. It says
// twice what is due: the outer one holds for a secret that is being recovered.
const purgeDue = `
	DELETE FROM secret WHERE purge_ms > 0 AND purge_ms <= $1 AND (tenant, vault_key, name_key) IN (
		SELECT tenant, vault_key, name_key FROM secret WHERE purge_ms > 0 AND purge_ms <= $1 ORDER BY purge_ms LIMIT 100)
	RETURNING tenant, vault_key, name, purge_ms`

const (
	sweepEnrolments   = `DELETE FROM enrolment WHERE expires_ms <= $1`
	sweepCertificates = `DELETE FROM certificate WHERE expires_ms <= $1`
	// No token lives longer that names a resource by where it was.
	sweepMoved = `DELETE FROM moved WHERE at_ms <= $1`
)

// movedLife is a little more than the longest life of a token.
const movedLife = 25 * time.Hour

// Sweep purges the soft-deleted secrets and identities whose time has come, each on record,
// and forgets enrolment tokens and certificates that expired, and operations
// that ended a day ago. Any number of
// replicas may sweep at the same time.
func (db *DB) Sweep(ctx context.Context, now time.Time) error {
	for more := true; more; {
		err := db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) {
			gone, err := many(ctx, q, scanDuePurge, purgeDue, ms(now))
			more = len(gone) > 0
			var evs []audit.Event
			for _, d := range gone {
				evs = append(evs, d.event(now))
			}
			return evs, err
		}})
		if err != nil {
			return fmt.Errorf("purging deleted secrets: %w", err)
		}
	}
	if err := db.sweepIdentities(ctx, now); err != nil {
		return err
	}
	err := db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) {
		for stmt, before := range map[string]time.Time{sweepEnrolments: now, sweepCertificates: now, sweepMoved: now.Add(-movedLife)} {
			if _, err := exec(ctx, q, stmt, ms(before)); err != nil {
				return nil, err
			}
		}
		return nil, forgetOperations(ctx, q, now)
	}})
	if err != nil {
		return fmt.Errorf("forgetting what expired: %w", err)
	}
	return nil
}

// duePurge is a secret that a sweep removed.
type duePurge struct {
	tenant, vaultKey, name string
	due                    time.Time
}

func scanDuePurge(r row) (duePurge, error) {
	var d duePurge
	var due int64
	err := r.Scan(&d.tenant, &d.vaultKey, &d.name, &due)
	d.due = at(due)
	return d, err
}

func (d duePurge) event(now time.Time) audit.Event {
	return audit.Event{
		Tenant:    d.tenant,
		At:        now,
		Action:    "Microsoft.KeyVault/vaults/secrets/purge/action",
		Target:    d.vaultKey + "/secrets/" + d.name,
		Outcome:   audit.Allowed,
		Principal: "system:sweep",
		Reason:    "its recovery period ended " + d.due.Format(time.RFC3339),
	}
}
