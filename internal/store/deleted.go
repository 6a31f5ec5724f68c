package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
)

const deletedColumns = `tenant, resource, identity, roles, credentials, memberships, attachments, denials, deleted_by, deleted_ms, purge_ms`

func scanDeleted(r row) (arm.DeletedIdentity, error) {
	var d arm.DeletedIdentity
	var raw [7][]byte
	var deleted, purge int64
	if err := r.Scan(&d.Tenant, &raw[0], &raw[1], &raw[2], &raw[3], &raw[4], &raw[5], &raw[6], &d.DeletedBy, &deleted, &purge); err != nil {
		return d, err
	}
	d.Deleted, d.PurgeAt = at(deleted), at(purge)
	for i, to := range []any{&d.Resource, &d.Identity, &d.Roles, &d.Credentials, &d.Groups, &d.Attached, &d.Denials} {
		if err := json.Unmarshal(raw[i], to); err != nil {
			return d, fmt.Errorf("decoding a deleted identity: %w", err)
		}
	}
	return d, nil
}

const keepIdentity = `
	INSERT INTO deleted_identity
		(tenant, principal, key, name_key, resource, identity, roles, credentials, memberships, attachments, denials, deleted_by, deleted_ms, purge_ms)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`

// KeepIdentity keeps an identity that is being deleted, to be recovered.
func (t *writeTx) KeepIdentity(d arm.DeletedIdentity) error {
	var parts [7][]byte
	for i, v := range []any{d.Resource, d.Identity, d.Roles, d.Credentials, d.Groups, d.Attached, d.Denials} {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encoding deleted identity %s: %w", d.Resource.ID, err)
		}
		parts[i] = b
	}
	_, err := t.exec(keepIdentity, t.tenant, fold(d.Identity.ID), d.Resource.ID.Key(), fold(d.Resource.ID.Name()),
		parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6], d.DeletedBy, ms(d.Deleted), ms(d.PurgeAt))
	if err != nil {
		return fmt.Errorf("keeping deleted identity %s: %w", d.Resource.ID, err)
	}
	return nil
}

const getDeleted = `SELECT ` + deletedColumns + ` FROM deleted_identity WHERE tenant = $1 AND principal = $2`

func deletedIdentity(ctx context.Context, q querier, tenant, principal string) (arm.DeletedIdentity, error) {
	none := problem.Errorf(problem.NotFound, "there is no deleted identity with the object id %s", principal)
	return one(ctx, q, none, scanDeleted, getDeleted, tenant, fold(principal))
}

// DeletedIdentity finds one by its object id; [problem.NotFound].
func (db *DB) DeletedIdentity(ctx context.Context, tenant, principal string) (arm.DeletedIdentity, error) {
	return deletedIdentity(ctx, db.read, tenant, principal)
}

// DeletedIdentity is as in [DB.DeletedIdentity], within the transaction.
func (t *writeTx) DeletedIdentity(principal string) (arm.DeletedIdentity, error) {
	return deletedIdentity(t.ctx, t.q, t.tenant, principal)
}

const deletedNamed = `SELECT ` + deletedColumns + ` FROM deleted_identity
	WHERE tenant = $1 AND name_key = $2 AND key > $3 AND key < $4 ORDER BY key, principal LIMIT 100`

// DeletedNamed finds those of a name below a key, at most 100.
func (db *DB) DeletedNamed(ctx context.Context, tenant, under, name string) ([]arm.DeletedIdentity, error) {
	lo, hi := below(fold(under))
	return many(ctx, db.read, scanDeleted, deletedNamed, tenant, fold(name), lo, hi)
}

const listDeleted = `SELECT ` + deletedColumns + ` FROM deleted_identity
	WHERE tenant = $1 AND (key, principal) > ($2, $3) AND key < $4 ORDER BY key, principal LIMIT $5`

// DeletedIdentities lists those below a key, after one of them (its key and its
// object id; "" from the first).
func (db *DB) DeletedIdentities(ctx context.Context, tenant, under, afterKey, afterPrincipal string, most int) ([]arm.DeletedIdentity, error) {
	lo, hi := below(fold(under))
	return many(ctx, db.read, scanDeleted, listDeleted, tenant, max(lo, fold(afterKey)), fold(afterPrincipal), hi, limit(most))
}

const forgetIdentity = `DELETE FROM deleted_identity WHERE tenant = $1 AND principal = $2`

// ForgetIdentity removes one for good, or because it lives again;
// [problem.NotFound] if somebody else was first.
func (t *writeTx) ForgetIdentity(principal string) error {
	n, err := t.exec(forgetIdentity, t.tenant, fold(principal))
	if err == nil && n == 0 {
		return problem.Errorf(problem.NotFound, "there is no deleted identity with the object id %s", principal)
	}
	return err
}

// purgeIdentities takes some at a time, as purgeDue does.
const purgeIdentities = `
	DELETE FROM deleted_identity WHERE purge_ms <= $1 AND (tenant, principal) IN (
		SELECT tenant, principal FROM deleted_identity WHERE purge_ms <= $1 ORDER BY purge_ms LIMIT 100)
	RETURNING tenant, key, principal, purge_ms`

// sweepIdentities removes the deleted identities whose time has come.
func (db *DB) sweepIdentities(ctx context.Context, now time.Time) error {
	for more := true; more; {
		err := db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) {
			gone, err := many(ctx, q, scanDuePurge, purgeIdentities, ms(now))
			more = len(gone) > 0
			var evs []audit.Event
			for _, d := range gone {
				evs = append(evs, audit.Event{
					Tenant: d.tenant, At: now, Action: arm.ActionPurgeIdentity, Target: d.vaultKey, Outcome: audit.Allowed, Principal: "system:sweep",
					Reason: "the recovery period of " + d.name + " ended " + d.due.Format(time.RFC3339),
				})
			}
			return evs, err
		}})
		if err != nil {
			return fmt.Errorf("purging deleted identities: %w", err)
		}
	}
	return nil
}
