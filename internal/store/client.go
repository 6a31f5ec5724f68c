package store

import (
	"context"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

const getPrincipalOfClient = `SELECT ` + principalColumns + ` FROM principal WHERE tenant = $1 AND client = $2 AND client <> ''`

// PrincipalOfClient returns the principal with this client id;
// [problem.UnknownClient] if the tenant has none.
func (db *DB) PrincipalOfClient(ctx context.Context, tenant, client string) (directory.Principal, error) {
	none := problem.Errorf(problem.UnknownClient, "there is no principal with the client id %q", problem.Clip(client))
	return one(ctx, db.read, none, scanPrincipal, getPrincipalOfClient, tenant, fold(client))
}
