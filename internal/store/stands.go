package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/resource"
)

// stands counts the placement, unless its host was evicted at or after a time.
const stands = `
	SELECT COUNT(*) FROM resource p
	WHERE p.tenant = $1 AND p.key = $2 AND p.bound_key = $3 AND NOT EXISTS (
		SELECT 1 FROM resource h JOIN eviction e ON e.tenant = h.tenant AND e.host_uid = h.uid
		WHERE h.tenant = $1 AND h.key = $4 AND e.at_ms >= $5)`

// Stands reports whether a placement still says what it said when a token was
// made by it: it places the workload, and its host was not evicted since.
func (db *DB) Stands(ctx context.Context, tenant string, placement, workload resource.ID, since time.Time) (bool, error) {
	n, err := one(ctx, db.read, nil, scanned[int], stands, tenant, placement.Key(), workload.Key(), placement.Parent().Key(), ms(since))
	if err != nil {
		return false, fmt.Errorf("reading placement %s: %w", placement, err)
	}
	return n > 0, nil
}
