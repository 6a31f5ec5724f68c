package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/arm"
)

const (
	getTerms   = `SELECT term FROM resource_term WHERE tenant = $1 AND resource_key = $2`
	putTerm    = `INSERT INTO resource_term (tenant, resource_key, term) VALUES ($1, $2, $3)`
	deleteTerm = `DELETE FROM resource_term WHERE tenant = $1 AND resource_key = $2 AND term = $3`
)

// putTerms makes the terms that a resource is found by what its document says.
// Most writes change none of them.
func (t *writeTx) putTerms(r arm.Resource) error {
	key := r.ID.Key()
	have, err := many(t.ctx, t.q, scanned[string], getTerms, t.tenant, key)
	if err != nil {
		return fmt.Errorf("reading the terms of %s: %w", r.ID, err)
	}
	want := r.Terms()
	slices.Sort(want)
	for _, term := range slices.Compact(want) {
		if i := slices.Index(have, term); i >= 0 {
			have = slices.Delete(have, i, i+1)
		} else if _, err := t.exec(putTerm, t.tenant, key, term); err != nil {
			return fmt.Errorf("writing a term of %s: %w", r.ID, err)
		}
	}
	for _, term := range have {
		if _, err := t.exec(deleteTerm, t.tenant, key, term); err != nil {
			return fmt.Errorf("forgetting a term of %s: %w", r.ID, err)
		}
	}
	return nil
}

// listResourcesWith goes from the term to those that have it: a cross join is
// SQLite's word for "in this order".
const listResourcesWith = `
	SELECT r.tenant, r.id, r.type, r.uid, r.body, r.bound_to, r.etag, r.created_ms, r.updated_ms, r.created_by, r.updated_by
	FROM resource_term m CROSS JOIN resource r
	WHERE m.tenant = $1 AND m.term = $5 AND m.resource_key > $2 AND m.resource_key < $3
		AND r.tenant = m.tenant AND r.key = m.resource_key
	ORDER BY m.resource_key LIMIT $4`

// ResourcesWith is [DB.Resources] of those that have a term ([arm.Resource.Terms]).
func (db *DB) ResourcesWith(ctx context.Context, tenant, under, term string, p arm.Page) ([]arm.Resource, error) {
	lo, hi := below(fold(under))
	out, err := many(ctx, db.read, scanResource, listResourcesWith, tenant, max(lo, fold(p.After)), hi, limit(p.Limit), term)
	if err != nil {
		return nil, fmt.Errorf("listing resources by a term: %w", err)
	}
	return out, nil
}
