package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// locksAt takes eight scopes at a time: a scope and those above it are seldom
// more. A lock is bound to what it locks.
const locksAt = `SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND bound_key IN ($2, $3, $4, $5, $6, $7, $8, $9) AND bound_key <> '' AND type_key = 'microsoft.authorization/locks'`

func locks(ctx context.Context, q querier, tenant string, scopes []string) ([]arm.Resource, error) {
	rows, err := eightAtATime(ctx, q, scanResource, locksAt, tenant, scopes)
	if err != nil {
		return nil, fmt.Errorf("reading locks: %w", err)
	}
	return byKey(rows, func(r arm.Resource) resource.ID { return r.ID }), nil
}

// Locks returns the locks at exactly these scopes (keys), by key.
func (db *DB) Locks(ctx context.Context, tenant string, scopes []string) ([]arm.Resource, error) {
	return locks(ctx, db.read, tenant, scopes)
}

// Locks is as in [DB.Locks], within the transaction.
func (t *writeTx) Locks(scopes []string) ([]arm.Resource, error) {
	return locks(t.ctx, t.q, t.tenant, scopes)
}

// ResourcesOf lists the resources of a type below a key.
func (t *writeTx) ResourcesOf(under, typ string) ([]arm.Resource, error) {
	lo, hi := below(fold(under))
	out, err := many(t.ctx, t.q, scanResource, listResourcesOfType, t.tenant, lo, hi, limit(0), fold(typ))
	if err != nil {
		return nil, fmt.Errorf("listing what is below %s: %w", under, err)
	}
	return out, nil
}
