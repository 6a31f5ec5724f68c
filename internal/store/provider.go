package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
)

const (
	getUnregistered    = `SELECT namespace_key FROM unregistered WHERE tenant = $1 AND subscription_key = $2 ORDER BY namespace_key`
	putUnregistered    = `INSERT INTO unregistered (tenant, subscription_key, namespace_key) VALUES ($1, $2, $3) ON CONFLICT (tenant, subscription_key, namespace_key) DO NOTHING`
	deleteUnregistered = `DELETE FROM unregistered WHERE tenant = $1 AND subscription_key = $2 AND namespace_key = $3`
)

// Unregistered lists the namespaces that a subscription said it does not use.
func (db *DB) Unregistered(ctx context.Context, tenant, subscriptionKey string) ([]string, error) {
	out, err := many(ctx, db.read, scanned[string], getUnregistered, tenant, fold(subscriptionKey))
	if err != nil {
		return nil, fmt.Errorf("reading what %s does not use: %w", subscriptionKey, err)
	}
	return out, nil
}

// PutRegistration says whether a subscription uses a namespace.
func (t *writeTx) PutRegistration(subscriptionKey, namespace string, registered bool) error {
	stmt := putUnregistered
	if registered {
		stmt = deleteUnregistered
	}
	if _, err := t.exec(stmt, t.tenant, fold(subscriptionKey), fold(namespace)); err != nil {
		return fmt.Errorf("writing whether %s uses %s: %w", subscriptionKey, namespace, err)
	}
	t.change(arm.ChangeResource, fold(subscriptionKey))
	return nil
}
