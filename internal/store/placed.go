package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/resource"
)

// placementsBelow are the placements with keys between $3 and $4; $2 is their type.
const placementsBelow = ` FROM resource WHERE tenant = $1 AND (type_key, key) > ($2, $3) AND (type_key, key) < ($2, $4)`

// listPlaced is one statement, so that it shows one moment: rules read page by
// page while one takes another's place could show neither. The rules are found
// by what they are bound to; that their type is compared as an expression keeps
// SQLite from reading all the rules of the tenant instead.
const listPlaced = `SELECT ` + resourceColumns + placementsBelow + `
	UNION ALL
	SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND bound_key <> '' AND type_key || '' = $5 AND bound_key IN (SELECT bound_key` + placementsBelow + `)`

// Placed returns, by key, the placements of a host and the caller rules of what
// they place, all as of one moment.
func (db *DB) Placed(ctx context.Context, tenant, hostKey string) ([]arm.Resource, error) {
	lo, hi := below(fold(hostKey))
	out, err := many(ctx, db.read, scanResource, listPlaced, tenant, fold(fleet.TypePlacement), lo, hi, fold(fleet.TypeCallerRule))
	if err != nil {
		return nil, fmt.Errorf("listing what is placed on %s: %w", hostKey, err)
	}
	return byKey(out, func(r arm.Resource) resource.ID { return r.ID }), nil
}

const listBoundTo = `SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND bound_key <> '' AND bound_key = $2 AND type_key || '' = $3`

// BoundTo lists, by key, the resources of a type that are bound to the key.
func (db *DB) BoundTo(ctx context.Context, tenant, key, typ string) ([]arm.Resource, error) {
	out, err := many(ctx, db.read, scanResource, listBoundTo, tenant, fold(key), fold(typ))
	if err != nil {
		return nil, fmt.Errorf("listing what is bound to %s: %w", key, err)
	}
	return byKey(out, func(r arm.Resource) resource.ID { return r.ID }), nil
}
