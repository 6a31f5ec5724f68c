package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
)

const definitionColumns = `tenant, id, name, description, permissions, scopes, created_ms, updated_ms, created_by, updated_by`

func scanDefinition(r row) (arm.RoleDefinition, error) {
	var d arm.RoleDefinition
	var permissions, scopes string
	var created, updated int64
	err := r.Scan(&d.Tenant, &d.ID, &d.Name, &d.Description, &permissions, &scopes, &created, &updated, &d.CreatedBy, &d.UpdatedBy)
	if err != nil {
		return d, err
	}
	d.Created, d.Updated = at(created), at(updated)
	return d, readRole(&d.Role, permissions, scopes)
}

// readRole fills in the columns that are JSON.
func readRole(r *access.Role, permissions, scopes string) error {
	r.Custom = true
	if err := json.Unmarshal([]byte(permissions), &r.Permissions); err != nil {
		return fmt.Errorf("decoding the permissions of role %s: %w", r.ID, err)
	}
	if err := json.Unmarshal([]byte(scopes), &r.AssignableScopes); err != nil {
		return fmt.Errorf("decoding the scopes of role %s: %w", r.ID, err)
	}
	return nil
}

const (
	getDefinition      = `SELECT ` + definitionColumns + ` FROM role_definition WHERE tenant = $1 AND id = $2`
	getDefinitionNamed = `SELECT ` + definitionColumns + ` FROM role_definition WHERE tenant = $1 AND name_key = $2`
)

func definition(ctx context.Context, q querier, stmt, tenant, is string) (arm.RoleDefinition, error) {
	none := problem.Errorf(problem.RoleNotFound, "there is no role %s", problem.Clip(is))
	return one(ctx, q, none, scanDefinition, stmt, tenant, fold(is))
}

// RoleDefinition returns [problem.RoleNotFound] if the tenant has no role of
// its own with this GUID.
func (db *DB) RoleDefinition(ctx context.Context, tenant, id string) (arm.RoleDefinition, error) {
	return definition(ctx, db.read, getDefinition, tenant, id)
}

// RoleDefinitionNamed returns [problem.RoleNotFound] if the tenant has no role
// of its own with this name.
func (db *DB) RoleDefinitionNamed(ctx context.Context, tenant, name string) (arm.RoleDefinition, error) {
	return definition(ctx, db.read, getDefinitionNamed, tenant, name)
}

// RoleDefinition is as in [DB.RoleDefinition], within the transaction.
func (t *writeTx) RoleDefinition(id string) (arm.RoleDefinition, error) {
	return definition(t.ctx, t.q, getDefinition, t.tenant, id)
}

// RoleDefinitionNamed is as in [DB.RoleDefinitionNamed], within the transaction.
func (t *writeTx) RoleDefinitionNamed(name string) (arm.RoleDefinition, error) {
	return definition(t.ctx, t.q, getDefinitionNamed, t.tenant, name)
}

const listDefinitions = `SELECT ` + definitionColumns + ` FROM role_definition
	WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`

// RoleDefinitions lists the tenant's own roles by GUID.
func (db *DB) RoleDefinitions(ctx context.Context, tenant string, p arm.Page) ([]arm.RoleDefinition, error) {
	out, err := many(ctx, db.read, scanDefinition, listDefinitions, tenant, fold(p.After), limit(p.Limit))
	if err != nil {
		return nil, fmt.Errorf("listing roles: %w", err)
	}
	return out, nil
}

const putDefinition = `
	INSERT INTO role_definition (tenant, id, name, name_key, description, permissions, scopes, created_ms, updated_ms, created_by, updated_by)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
	ON CONFLICT (tenant, id) DO UPDATE SET
		name = excluded.name, name_key = excluded.name_key, description = excluded.description,
		permissions = excluded.permissions, scopes = excluded.scopes,
		created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
		created_by = excluded.created_by, updated_by = excluded.updated_by`

// PutRoleDefinition creates or replaces a role; [problem.Exists] if another one
// has its name.
func (t *writeTx) PutRoleDefinition(r arm.RoleDefinition) error {
	other, err := t.RoleDefinitionNamed(r.Name)
	if err == nil && other.ID != fold(r.ID) {
		return problem.Errorf(problem.Exists, "the role %s has the name %q", other.ID, r.Name)
	}
	if err != nil && !problem.Is(err, problem.RoleNotFound) {
		return err
	}
	permissions, err := encode(r.Permissions)
	if err != nil {
		return fmt.Errorf("encoding the permissions of role %s: %w", r.ID, err)
	}
	scopes, err := encode(r.AssignableScopes)
	if err != nil {
		return fmt.Errorf("encoding the scopes of role %s: %w", r.ID, err)
	}
	_, err = t.exec(putDefinition, t.tenant, fold(r.ID), r.Name, fold(r.Name), r.Description, permissions, scopes,
		ms(r.Created), ms(r.Updated), r.CreatedBy, r.UpdatedBy)
	if err != nil {
		return fmt.Errorf("writing role %s: %w", r.ID, err)
	}
	t.change(arm.ChangeRole, fold(r.ID))
	return nil
}

// encode is v as a column of JSON has it.
func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

const deleteDefinition = `DELETE FROM role_definition WHERE tenant = $1 AND id = $2`

// DeleteRoleDefinition deletes one; no error if absent.
func (t *writeTx) DeleteRoleDefinition(id string) error {
	n, err := t.exec(deleteDefinition, t.tenant, fold(id))
	if err != nil {
		return fmt.Errorf("deleting role %s: %w", id, err)
	}
	if n > 0 {
		t.change(arm.ChangeRole, fold(id))
	}
	return nil
}
