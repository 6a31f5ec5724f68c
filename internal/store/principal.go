package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const principalColumns = `tenant, id, client, kind, name, resource, system, enabled, valid_from_ms, created_ms`

func scanPrincipal(r row) (directory.Principal, error) {
	var p directory.Principal
	var res string
	var validFrom, created int64
	err := r.Scan(&p.Tenant, &p.ID, &p.Client, &p.Kind, &p.Name, &res, &p.System, &p.Enabled, &validFrom, &created)
	if err != nil {
		return p, err
	}
	p.ValidFrom, p.Created = at(validFrom), at(created)
	p.Resource, err = parseID(res)
	return p, err
}

const getPrincipal = `SELECT ` + principalColumns + ` FROM principal WHERE tenant = $1 AND id = $2`

func principal(ctx context.Context, q querier, tenant, id string) (directory.Principal, error) {
	none := problem.Errorf(problem.NotFound, "there is no principal %q", id)
	return one(ctx, q, none, scanPrincipal, getPrincipal, tenant, fold(id))
}

// Principal returns [problem.NotFound] if the tenant has none with this object id.
func (db *DB) Principal(ctx context.Context, tenant, id string) (directory.Principal, error) {
	return principal(ctx, db.read, tenant, id)
}

// Principal is as in [DB.Principal], within the transaction.
func (t *writeTx) Principal(id string) (directory.Principal, error) {
	return principal(t.ctx, t.q, t.tenant, id)
}

const getPrincipalOf = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND resource_key = $2 AND resource_key <> ''`

func principalOf(ctx context.Context, q querier, tenant, resourceKey string) (directory.Principal, error) {
	none := problem.Errorf(problem.NotFound, "resource %s has no principal of its own", resourceKey)
	return one(ctx, q, none, scanPrincipal, getPrincipalOf, tenant, fold(resourceKey))
}

// PrincipalOf returns the principal that belongs to the resource;
// [problem.NotFound] if none.
func (db *DB) PrincipalOf(ctx context.Context, tenant, resourceKey string) (directory.Principal, error) {
	return principalOf(ctx, db.read, tenant, resourceKey)
}

// PrincipalOf is as in [DB.PrincipalOf], within the transaction.
func (t *writeTx) PrincipalOf(resourceKey string) (directory.Principal, error) {
	return principalOf(t.ctx, t.q, t.tenant, resourceKey)
}

// getIdentities joins by the key of the user-assigned identity's resource,
// which its principal belongs to. A cross join is SQLite's word for "in this
// order": from the few that are attached to the one that each is.
const getIdentities = `
	SELECT p.tenant, p.id, p.client, p.kind, p.name, p.resource, p.system, p.enabled, p.valid_from_ms, p.created_ms
	FROM attachment a CROSS JOIN principal p
	WHERE a.tenant = $1 AND a.resource_key = $2 AND p.tenant = a.tenant AND p.resource_key = a.identity_key
		AND p.resource_key <> '' AND p.system = 0
	ORDER BY a.identity_key`

const getSystemIdentity = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND resource_key = $2 AND resource_key <> '' AND system = 1`

func identities(ctx context.Context, q querier, tenant, resourceKey string) ([]directory.Principal, error) {
	system, err := many(ctx, q, scanPrincipal, getSystemIdentity, tenant, fold(resourceKey))
	if err != nil {
		return nil, fmt.Errorf("reading the identity of %s: %w", resourceKey, err)
	}
	attached, err := many(ctx, q, scanPrincipal, getIdentities, tenant, fold(resourceKey))
	if err != nil {
		return nil, fmt.Errorf("reading the identities attached to %s: %w", resourceKey, err)
	}
	return append(system, attached...), nil
}

// Identities returns the identities of the resource with this key: the
// system-assigned one first, if any, then the attached user-assigned ones by
// resource ID. No resource means none.
func (db *DB) Identities(ctx context.Context, tenant, resourceKey string) ([]directory.Principal, error) {
	return identities(ctx, db.read, tenant, resourceKey)
}

// Identities is as in [DB.Identities], within the transaction.
func (t *writeTx) Identities(resourceKey string) ([]directory.Principal, error) {
	return identities(t.ctx, t.q, t.tenant, resourceKey)
}

const putPrincipal = `
	INSERT INTO principal (tenant, id, client, kind, name, resource, resource_key, system, enabled, valid_from_ms, created_ms)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
	ON CONFLICT (tenant, id) DO UPDATE SET
		client = excluded.client, kind = excluded.kind, name = excluded.name,
		resource = excluded.resource, resource_key = excluded.resource_key, system = excluded.system,
		enabled = excluded.enabled, valid_from_ms = excluded.valid_from_ms, created_ms = excluded.created_ms`

// PutPrincipal creates or replaces a principal. A resource has at most one of
// its own: [problem.Conflict] for a second.
func (t *writeTx) PutPrincipal(p directory.Principal) error {
	key := p.Resource.Key()
	if key != "" {
		other, err := t.PrincipalOf(key)
		if err == nil && other.ID != fold(p.ID) {
			return problem.Errorf(problem.Conflict, "resource %s has the principal %s", p.Resource, other.ID)
		}
		if err != nil && !problem.Is(err, problem.NotFound) {
			return err
		}
	}
	_, err := t.exec(putPrincipal, t.tenant, fold(p.ID), fold(p.Client), string(p.Kind), p.Name, p.Resource.String(), key,
		bit(p.System), bit(p.Enabled), ms(p.ValidFrom), ms(p.Created))
	if err != nil {
		return fmt.Errorf("writing principal %s: %w", p.ID, err)
	}
	t.principalChanged(p)
	return nil
}

func (t *writeTx) principalChanged(p directory.Principal) {
	t.change(arm.ChangePrincipal, fold(p.ID))
	if p.System {
		t.change(arm.ChangeIdentity, p.Resource.Key())
	}
}

const deletePrincipal = `DELETE FROM principal WHERE tenant = $1 AND id = $2 RETURNING ` + principalColumns

const deleteAssignmentsOf = `DELETE FROM assignment WHERE tenant = $1 AND principal = $2`

// DeletePrincipal deletes the principal, its role assignments, its federated
// credentials and its memberships. No error if absent. Deny assignments go on
// naming it: an object id is nobody else's, and who comes back by the same one
// is denied again.
func (t *writeTx) DeletePrincipal(id string) error {
	id = fold(id)
	gone, err := many(t.ctx, t.q, scanPrincipal, deletePrincipal, t.tenant, id)
	if err != nil {
		return fmt.Errorf("deleting principal %s: %w", id, err)
	}
	for _, p := range gone {
		t.principalChanged(p)
	}
	n, err := t.exec(deleteAssignmentsOf, t.tenant, id)
	if err != nil {
		return fmt.Errorf("deleting the role assignments of principal %s: %w", id, err)
	}
	if n > 0 {
		t.change(arm.ChangeAssignment, id)
	}
	if err := t.deleteFederatedOf(id); err != nil {
		return err
	}
	return t.leaveGroups(id)
}

const attach = `
	INSERT INTO attachment (tenant, resource_key, identity_key) VALUES ($1, $2, $3)
	ON CONFLICT (tenant, resource_key, identity_key) DO NOTHING`

// Attach gives the resource a user-assigned identity. It is idempotent.
func (t *writeTx) Attach(resourceKey, identityKey string) error {
	return t.attachment(attach, resourceKey, identityKey)
}

const detach = `DELETE FROM attachment WHERE tenant = $1 AND resource_key = $2 AND identity_key = $3`

// Detach takes a user-assigned identity from the resource. It is idempotent.
func (t *writeTx) Detach(resourceKey, identityKey string) error {
	return t.attachment(detach, resourceKey, identityKey)
}

func (t *writeTx) attachment(stmt, resourceKey, identityKey string) error {
	n, err := t.exec(stmt, t.tenant, fold(resourceKey), fold(identityKey))
	if err != nil {
		return fmt.Errorf("changing whether %s has the identity %s: %w", resourceKey, identityKey, err)
	}
	if n > 0 {
		t.change(arm.ChangeIdentity, fold(resourceKey))
	}
	return nil
}

// attachedTo falls back to the key where an identity was attached before its
// resource was put.
const attachedTo = `
	SELECT COALESCE(r.id, a.resource_key)
	FROM attachment a LEFT JOIN resource r ON r.tenant = a.tenant AND r.key = a.resource_key
	WHERE a.tenant = $1 AND a.identity_key = $2 ORDER BY a.resource_key`

func scanID(r row) (resource.ID, error) {
	s, err := scanned[string](r)
	if err != nil {
		return resource.ID{}, err
	}
	return parseID(s)
}

// AttachedTo lists the resources that a user-assigned identity is attached to,
// by key.
func (db *DB) AttachedTo(ctx context.Context, tenant, identityKey string) ([]resource.ID, error) {
	return many(ctx, db.read, scanID, attachedTo, tenant, fold(identityKey))
}

// AttachedTo lists the resources that have the identity.
func (t *writeTx) AttachedTo(identityKey string) ([]resource.ID, error) {
	return many(t.ctx, t.q, scanID, attachedTo, t.tenant, fold(identityKey))
}
