package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const denialColumns = `d.tenant, d.id, d.name, d.description, d.permissions, d.scope, d.scope_only, d.system, d.principals, d.excluded,
	d.condition, d.condition_version, d.created_ms, d.updated_ms, d.created_by, d.updated_by`

// named is a principal as the columns principals and excluded have it.
type named struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

func scanDenial(r row) (arm.DenyAssignment, error) {
	d := arm.DenyAssignment{Types: map[string]string{}}
	var id, permissions, scope, principals, excluded string
	var created, updated int64
	err := r.Scan(&d.Tenant, &id, &d.Name, &d.Description, &permissions, &scope, &d.ScopeOnly, &d.System, &principals, &excluded,
		&d.Condition, &d.ConditionVersion, &created, &updated, &d.CreatedBy, &d.UpdatedBy)
	if err != nil {
		return d, err
	}
	d.Created, d.Updated = at(created), at(updated)
	return d, readDenial(&d.Denial, id, scope, permissions, principals, excluded, d.Types)
}

// readDenial fills in what is text in the row; types may be nil.
func readDenial(d *access.Denial, id, scope, permissions, principals, excluded string, types map[string]string) (err error) {
	if d.ID, err = parseID(id); err != nil {
		return err
	}
	if d.Scope, err = parseID(scope); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(permissions), &d.Permissions); err != nil {
		return fmt.Errorf("decoding the permissions of denial %s: %w", id, err)
	}
	if d.Principals, err = readNamed(principals, types); err != nil {
		return fmt.Errorf("decoding whom %s denies: %w", id, err)
	}
	if d.Excluded, err = readNamed(excluded, types); err != nil {
		return fmt.Errorf("decoding whom %s leaves out: %w", id, err)
	}
	return nil
}

func readNamed(text string, types map[string]string) ([]string, error) {
	var all []named
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, err
	}
	var out []string
	for _, n := range all {
		out = append(out, n.ID)
		if types != nil {
			types[n.ID] = n.Type
		}
	}
	return out, nil
}

func writeNamed(ids []string, types map[string]string) (string, error) {
	all := []named{}
	for _, id := range ids {
		all = append(all, named{ID: fold(id), Type: types[id]})
	}
	return encode(all)
}

func denialID(d arm.DenyAssignment) resource.ID { return d.ID }

const getDenial = `SELECT ` + denialColumns + ` FROM deny_assignment d WHERE d.tenant = $1 AND d.key = $2`

func denial(ctx context.Context, q querier, tenant, key string) (arm.DenyAssignment, error) {
	none := problem.Errorf(problem.NotFound, "there is no deny assignment %s", key)
	return one(ctx, q, none, scanDenial, getDenial, tenant, fold(key))
}

// DenyAssignment returns [problem.NotFound] if there is none with this key.
func (db *DB) DenyAssignment(ctx context.Context, tenant, key string) (arm.DenyAssignment, error) {
	return denial(ctx, db.read, tenant, key)
}

// DenyAssignment is as in [DB.DenyAssignment], within the transaction.
func (t *writeTx) DenyAssignment(key string) (arm.DenyAssignment, error) {
	return denial(t.ctx, t.q, t.tenant, key)
}

// As for role assignments, pairs are compared for the index that has them so.
const (
	listDenialsAt = `SELECT ` + denialColumns + ` FROM deny_assignment d
	WHERE d.tenant = $1 AND (d.scope_key, d.key) > ($3, $2) AND d.scope_key <= $3
	ORDER BY d.scope_key, d.key LIMIT $4`

	listDenialsBelow = `SELECT ` + denialColumns + ` FROM deny_assignment d
	WHERE d.tenant = $1 AND d.key > $2 AND d.scope_key > $3 AND d.scope_key < $5
	ORDER BY d.key LIMIT $4`
)

// DenyAssignments lists those at exactly the scopes (keys), and those at scopes
// below the key under ("" for none; "/" for all). By key of their ID.
func (db *DB) DenyAssignments(ctx context.Context, tenant string, scopes []string, under string, p arm.Page) ([]arm.DenyAssignment, error) {
	var rows []arm.DenyAssignment
	list := func(stmt, scope string, more ...any) error {
		found, err := many(ctx, db.read, scanDenial, stmt, slices.Concat([]any{tenant, fold(p.After), scope, limit(p.Limit)}, more)...)
		if err != nil {
			return fmt.Errorf("listing deny assignments: %w", err)
		}
		rows = append(rows, found...)
		return nil
	}
	if under == "/" {
		scopes = append(slices.Clone(scopes), under)
	}
	for _, scope := range scopes {
		if err := list(listDenialsAt, fold(scope)); err != nil {
			return nil, err
		}
	}
	if under != "" {
		lo, hi := below(fold(under))
		if err := list(listDenialsBelow, lo, hi); err != nil {
			return nil, err
		}
	}
	rows = byKey(rows, denialID)
	return rows[:min(int64(len(rows)), limit(p.Limit))], nil
}

const denialsNaming = `SELECT ` + denialColumns + `
	FROM deny_principal p CROSS JOIN deny_assignment d
	WHERE p.tenant = $1 AND p.principal IN ($2, $3, $4, $5, $6, $7, $8, $9) AND d.tenant = p.tenant AND d.key = p.key`

func denials(ctx context.Context, q querier, tenant string, principals []string) ([]arm.DenyAssignment, error) {
	rows, err := eightAtATime(ctx, q, scanDenial, denialsNaming, tenant, principals)
	if err != nil {
		return nil, fmt.Errorf("listing whom deny assignments name: %w", err)
	}
	return byKey(rows, denialID), nil
}

// DenialsNaming lists the denials that name one of the principals, as denied or
// as excluded. By key.
func (db *DB) DenialsNaming(ctx context.Context, tenant string, principals []string) ([]arm.DenyAssignment, error) {
	return denials(ctx, db.read, tenant, principals)
}

// DenialsNaming is as in [DB.DenialsNaming], within the transaction.
func (t *writeTx) DenialsNaming(principals []string) ([]arm.DenyAssignment, error) {
	return denials(t.ctx, t.q, t.tenant, principals)
}

var denialsWithin = `SELECT ` + denialColumns + ` FROM deny_assignment d WHERE ` + column{key: "scope_key"}.within() + ` ORDER BY d.key`

// DenialsWithin lists those at the scope and below it, by key.
func (t *writeTx) DenialsWithin(scopeKey string) ([]arm.DenyAssignment, error) {
	lo, hi := below(fold(scopeKey))
	out, err := many(t.ctx, t.q, scanDenial, denialsWithin, t.tenant, fold(scopeKey), lo, hi)
	if err != nil {
		return nil, fmt.Errorf("listing deny assignments within %s: %w", scopeKey, err)
	}
	return out, nil
}

const (
	putDenial = `
	INSERT INTO deny_assignment (tenant, key, id, name, description, permissions, scope, scope_key, scope_only, system, principals, excluded,
		condition, condition_version, created_ms, updated_ms, created_by, updated_by)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
	ON CONFLICT (tenant, key) DO UPDATE SET
		id = excluded.id, name = excluded.name, description = excluded.description, permissions = excluded.permissions,
		scope = excluded.scope, scope_key = excluded.scope_key, scope_only = excluded.scope_only, system = excluded.system,
		principals = excluded.principals, excluded = excluded.excluded,
		condition = excluded.condition, condition_version = excluded.condition_version,
		created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
		created_by = excluded.created_by, updated_by = excluded.updated_by`

	putDenied = `
	INSERT INTO deny_principal (tenant, principal, excluded, key) VALUES ($1, $2, $3, $4)
	ON CONFLICT (tenant, principal, excluded, key) DO NOTHING`

	dropDenied = `DELETE FROM deny_principal WHERE tenant = $1 AND key = $2`
)

// PutDenyAssignment creates or replaces a denial.
func (t *writeTx) PutDenyAssignment(d arm.DenyAssignment) error {
	if d.ID.IsZero() || d.Scope.IsZero() {
		return problem.Errorf(problem.Invalid, "a deny assignment needs an ID and a scope")
	}
	permissions, err := encode(d.Permissions)
	if err != nil {
		return fmt.Errorf("encoding the permissions of denial %s: %w", d.ID, err)
	}
	principals, err := writeNamed(d.Principals, d.Types)
	if err != nil {
		return fmt.Errorf("encoding whom %s denies: %w", d.ID, err)
	}
	left, err := writeNamed(d.Excluded, d.Types)
	if err != nil {
		return fmt.Errorf("encoding whom %s leaves out: %w", d.ID, err)
	}
	key := d.ID.Key()
	_, err = t.exec(putDenial, t.tenant, key, d.ID.String(), d.Name, d.Description, permissions, d.Scope.String(), d.Scope.Key(), bit(d.ScopeOnly), bit(d.System),
		principals, left, d.Condition, d.ConditionVersion, ms(d.Created), ms(d.Updated), d.CreatedBy, d.UpdatedBy)
	if err != nil {
		return fmt.Errorf("writing deny assignment %s: %w", d.ID, err)
	}
	t.change(arm.ChangeDenial, key)
	return t.putDenied(key, d)
}

func (t *writeTx) putDenied(key string, d arm.DenyAssignment) error {
	if _, err := t.exec(dropDenied, t.tenant, key); err != nil {
		return fmt.Errorf("writing whom %s names: %w", d.ID, err)
	}
	for excluded, ids := range map[bool][]string{false: d.Principals, true: d.Excluded} {
		for _, id := range ids {
			if _, err := t.exec(putDenied, t.tenant, fold(id), bit(excluded), key); err != nil {
				return fmt.Errorf("writing whom %s names: %w", d.ID, err)
			}
		}
	}
	return nil
}

const deleteDenial = `DELETE FROM deny_assignment WHERE tenant = $1 AND key = $2 RETURNING key`

// DeleteDenyAssignment deletes one; no error if absent.
func (t *writeTx) DeleteDenyAssignment(key string) error {
	return t.deleteDenials(deleteDenial, t.tenant, fold(key))
}

func (t *writeTx) deleteDenials(stmt string, args ...any) error {
	keys, err := many(t.ctx, t.q, scanned[string], stmt, args...)
	if err != nil {
		return fmt.Errorf("deleting deny assignments: %w", err)
	}
	for _, key := range keys {
		if _, err := t.exec(dropDenied, t.tenant, key); err != nil {
			return fmt.Errorf("deleting whom %s names: %w", key, err)
		}
		t.change(arm.ChangeDenial, key)
	}
	return nil
}
