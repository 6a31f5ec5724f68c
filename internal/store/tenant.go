package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

func scanTenant(r row) (directory.Tenant, error) {
	var t directory.Tenant
	var created int64
	err := r.Scan(&t.ID, &t.Name, &created, &t.Revision)
	t.Created = at(created)
	return t, err
}

const getTenant = `SELECT id, name, created_ms, revision FROM tenant WHERE id = $1`

// Tenant returns [problem.UnknownTenant] if there is none.
func (db *DB) Tenant(ctx context.Context, id string) (directory.Tenant, error) {
	return one(ctx, db.read, unknownTenant(id), scanTenant, getTenant, fold(id))
}

func unknownTenant(id string) error {
	return problem.Errorf(problem.UnknownTenant, "there is no tenant %q", id)
}

const listTenants = `SELECT id, name, created_ms, revision FROM tenant ORDER BY id`

// Tenants returns all tenants in the order of their IDs.
func (db *DB) Tenants(ctx context.Context) ([]directory.Tenant, error) {
	out, err := many(ctx, db.read, scanTenant, listTenants)
	if err != nil {
		return nil, fmt.Errorf("listing tenants: %w", err)
	}
	return out, nil
}

// createTenant waits for a transaction that is making the same tenant.
const createTenant = `
	INSERT INTO tenant (id, name, created_ms, revision) VALUES ($1, $2, $3, 1)
	ON CONFLICT (id) DO NOTHING`

// CreateTenant makes the tenant of the event; [problem.Exists] if it is there.
// The write that makes a tenant has its revision 1.
func (t *writeTx) CreateTenant(n directory.Tenant) error {
	if n.ID != t.tenant || n.ID == "" {
		return problem.Errorf(problem.Invalid, "a write of tenant %q cannot create tenant %q", t.tenant, n.ID)
	}
	if t.exists {
		return problem.Errorf(problem.Exists, "tenant %q exists", n.ID)
	}
	made, err := exec(t.ctx, t.q, createTenant, n.ID, n.Name, ms(n.Created))
	if err != nil {
		return fmt.Errorf("creating tenant %s: %w", n.ID, err)
	}
	if made == 0 {
		return problem.Errorf(problem.Exists, "tenant %q exists", n.ID)
	}
	t.exists, t.revision = true, 1
	t.change(arm.ChangeResource, "/")
	return nil
}

const getRevision = `SELECT revision FROM tenant WHERE id = $1`

// Revision returns the tenant's revision.
func (db *DB) Revision(ctx context.Context, tenant string) (int64, error) {
	return one(ctx, db.read, unknownTenant(tenant), scanned[int64], getRevision, tenant)
}

// listChanges ends with the revision that the row number $3 + 1 belongs to, so that
// a revision is never cut.
const listChanges = `
	SELECT revision, kind, key FROM change
	WHERE tenant = $1 AND revision > $2 AND revision <= COALESCE(
		(SELECT revision FROM change WHERE tenant = $1 AND revision > $2 ORDER BY revision LIMIT 1 OFFSET $3),
		9223372036854775807)
	ORDER BY revision, kind, key`

// Changes returns the feed after a revision, whole revisions only, about
// max rows.
func (db *DB) Changes(ctx context.Context, tenant string, after int64, max int) ([]arm.Change, error) {
	out, err := many(ctx, db.read, scanChange, listChanges, tenant, after, limit(max)-1)
	if err != nil {
		return nil, fmt.Errorf("reading the changes of tenant %q: %w", tenant, err)
	}
	return out, nil
}

func scanChange(r row) (arm.Change, error) {
	var c arm.Change
	err := r.Scan(&c.Revision, &c.Kind, &c.Key)
	return c, err
}
