package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/graph"
)

// Names compare by lower(), which both databases apply to ASCII letters alone,
// as fold does: PostgreSQL because the column is collated "C".
const (
	listPrincipals = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`

	listPrincipalsOfKind = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND id > $2 AND kind = $4 ORDER BY id LIMIT $3`

	listPrincipalsOfClient = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND id > $2 AND client = $4 AND client <> '' ORDER BY id LIMIT $3`

	// listPrincipalsNamed has the names from $4 on and before $5; of those that
	// are $4 itself, what comes after the id $2.
	listPrincipalsNamed = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND lower(name) >= $4 AND lower(name) < $5 AND (lower(name) > $4 OR id > $2)
	ORDER BY lower(name), id LIMIT $3`
)

// lastRune is after every character that a name has.
const lastRune = "\U0010FFFF"

// Principals lists the tenant's principals. Those with a name or the beginning
// of one are in the order of names and ids, all others in that of ids.
func (db *DB) Principals(ctx context.Context, tenant string, q graph.Query) ([]directory.Principal, error) {
	stmt, args := listPrincipals, []any{tenant, fold(q.After.ID), limit(q.Limit)}
	switch {
	case q.Client != "":
		stmt, args = listPrincipalsOfClient, append(args, fold(q.Client))
	case q.Name != "":
		// No name is between this one and the next possible.
		stmt, args = listPrincipalsNamed, append(args, fold(q.Name), fold(q.Name)+"\x01")
	case q.Prefix != "":
		from := fold(q.Prefix)
		stmt, args = listPrincipalsNamed, append(args, max(from, fold(q.After.Name)), from+lastRune)
	case q.Kind != "":
		stmt, args = listPrincipalsOfKind, append(args, string(q.Kind))
	}
	out, err := many(ctx, db.read, scanPrincipal, stmt, args...)
	if err != nil {
		return nil, fmt.Errorf("listing principals: %w", err)
	}
	return out, nil
}
