package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
)

// listUses reads principals in the order of their resources, each with whether
// anything uses it: a page costs the same wherever it begins.
const listUses = `
	SELECT p.tenant, p.id, p.client, p.kind, p.name, p.resource, p.system, p.enabled, p.valid_from_ms, p.created_ms,
		CASE WHEN EXISTS (SELECT 1 FROM attachment a WHERE a.tenant = p.tenant AND a.identity_key = p.resource_key) THEN 1 ELSE 0 END,
		CASE WHEN EXISTS (SELECT 1 FROM assignment a WHERE a.tenant = p.tenant AND a.principal = p.id) THEN 1 ELSE 0 END,
		CASE WHEN EXISTS (SELECT 1 FROM group_member m WHERE m.tenant = p.tenant AND m.member = p.id) THEN 1 ELSE 0 END,
		CASE WHEN EXISTS (SELECT 1 FROM federated_credential f WHERE f.tenant = p.tenant AND f.principal = p.id) THEN 1 ELSE 0 END
	FROM principal p
	WHERE p.tenant = $1 AND p.resource_key <> '' AND p.resource_key > $2 AND p.resource_key < $3
	ORDER BY p.resource_key LIMIT $4`

// usesRow is a row whose last columns are not a principal's.
type usesRow struct {
	row
	uses *arm.Uses
}

func (r usesRow) Scan(dest ...any) error {
	return r.row.Scan(append(dest, &r.uses.Attached, &r.uses.Role, &r.uses.Member, &r.uses.Federated)...)
}

func scanUses(r row) (arm.Uses, error) {
	var u arm.Uses
	p, err := scanPrincipal(usesRow{r, &u})
	u.Principal = p
	return u, err
}

// Uses lists the principals of the resources below a key, after p.After, each
// with what uses it.
func (db *DB) Uses(ctx context.Context, tenant, under string, p arm.Page) ([]arm.Uses, error) {
	lo, hi := below(fold(under))
	out, err := many(ctx, db.read, scanUses, listUses, tenant, max(lo, fold(p.After)), hi, limit(p.Limit))
	if err != nil {
		return nil, fmt.Errorf("listing what is used: %w", err)
	}
	return out, nil
}
