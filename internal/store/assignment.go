package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const assignmentColumns = `tenant, id, role, principal, principal_type, scope, description, condition, condition_version, created_ms, updated_ms, created_by, updated_by`

func scanAssignment(r row) (arm.RoleAssignment, error) {
	var a arm.RoleAssignment
	var id, scope string
	var created, updated int64
	err := r.Scan(&a.Tenant, &id, &a.Role, &a.Principal, &a.PrincipalType, &scope, &a.Description, &a.Condition, &a.ConditionVersion, &created, &updated, &a.CreatedBy, &a.UpdatedBy)
	if err != nil {
		return a, err
	}
	a.Created, a.Updated = at(created), at(updated)
	if a.ID, err = parseID(id); err != nil {
		return a, err
	}
	a.Scope, err = parseID(scope)
	return a, err
}

func assignmentID(a arm.RoleAssignment) resource.ID { return a.ID }

const getAssignment = `SELECT ` + assignmentColumns + ` FROM assignment WHERE tenant = $1 AND key = $2`

func assignment(ctx context.Context, q querier, tenant, key string) (arm.RoleAssignment, error) {
	none := problem.Errorf(problem.NotFound, "there is no role assignment %s", key)
	return one(ctx, q, none, scanAssignment, getAssignment, tenant, fold(key))
}

// RoleAssignment returns [problem.NotFound] if there is none with this key.
func (db *DB) RoleAssignment(ctx context.Context, tenant, key string) (arm.RoleAssignment, error) {
	return assignment(ctx, db.read, tenant, key)
}

// RoleAssignment is as in [DB.RoleAssignment], within the transaction.
func (t *writeTx) RoleAssignment(key string) (arm.RoleAssignment, error) {
	return assignment(t.ctx, t.q, t.tenant, key)
}

// Where these compare pairs it is for the index that has them in this order:
// by scope, or by principal. Where everybody's below a scope are asked for, no
// order serves both, and the tenant's are read by key.
const (
	listAssignmentsAt = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND (scope_key, key) > ($3, $2) AND scope_key <= $3
	ORDER BY scope_key, key LIMIT $4`

	listAssignmentsBelow = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND key > $2 AND scope_key > $3 AND scope_key < $5
	ORDER BY key LIMIT $4`

	listAssignmentsOfAt = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND scope_key = $3 AND principal = $5 AND key > $2
	ORDER BY key LIMIT $4`

	listAssignmentsOfBelow = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND (principal, key) > ($6, $2) AND principal <= $6 AND scope_key > $3 AND scope_key < $5
	ORDER BY principal, key LIMIT $4`
)

// RoleAssignments lists the assignments at exactly the scopes (keys), and those
// at scopes below the key under ("" for none; "/" for all); principal "" means
// everybody's. By key of their ID. A limit that is not positive means all.
func (db *DB) RoleAssignments(ctx context.Context, tenant string, scopes []string, under, principal string, p arm.Page) ([]arm.RoleAssignment, error) {
	at, within := listAssignmentsAt, listAssignmentsBelow
	var who []any
	if principal != "" {
		at, within, who = listAssignmentsOfAt, listAssignmentsOfBelow, []any{fold(principal)}
	}
	var rows []arm.RoleAssignment
	list := func(stmt, scope string, more ...any) error {
		args := slices.Concat([]any{tenant, fold(p.After), scope, limit(p.Limit)}, more, who)
		found, err := many(ctx, db.read, scanAssignment, stmt, args...)
		if err != nil {
			return fmt.Errorf("listing role assignments: %w", err)
		}
		rows = append(rows, found...)
		return nil
	}
	if under == "/" {
		scopes = append(slices.Clone(scopes), under)
	}
	for _, scope := range scopes {
		if err := list(at, fold(scope)); err != nil {
			return nil, err
		}
	}
	if under != "" {
		lo, hi := below(fold(under))
		if err := list(within, lo, hi); err != nil {
			return nil, err
		}
	}
	// Each list has its first rows, so the first rows of all are among them.
	rows = byKey(rows, assignmentID)
	return rows[:min(int64(len(rows)), limit(p.Limit))], nil
}

const sameAssignment = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND scope_key = $2 AND role = $3 AND principal = $4`

// SameAssignment finds the assignment of role to principal at exactly scope;
// [problem.NotFound] if none.
func (t *writeTx) SameAssignment(scopeKey, role, principal string) (arm.RoleAssignment, error) {
	none := problem.Errorf(problem.NotFound, "principal %s does not have the role %s at %s", principal, role, scopeKey)
	return one(t.ctx, t.q, none, scanAssignment, sameAssignment, t.tenant, fold(scopeKey), fold(role), fold(principal))
}

const putAssignment = `
	INSERT INTO assignment (tenant, key, id, role, principal, principal_type, scope, scope_key, description, condition, condition_version, created_ms, updated_ms, created_by, updated_by)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
	ON CONFLICT (tenant, key) DO UPDATE SET
		id = excluded.id, role = excluded.role, principal = excluded.principal, principal_type = excluded.principal_type,
		scope = excluded.scope, scope_key = excluded.scope_key, description = excluded.description,
		condition = excluded.condition, condition_version = excluded.condition_version, created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
		created_by = excluded.created_by, updated_by = excluded.updated_by`

// PutRoleAssignment creates or replaces an assignment;
// [problem.AssignmentExists] if another one gives the same role to the same
// principal at the same scope.
func (t *writeTx) PutRoleAssignment(a arm.RoleAssignment) error {
	if a.ID.IsZero() || a.Scope.IsZero() {
		return problem.Errorf(problem.Invalid, "a role assignment needs an ID and a scope")
	}
	key := a.ID.Key()
	same, err := t.SameAssignment(a.Scope.Key(), a.Role, a.Principal)
	if err == nil && !same.ID.Equal(a.ID) {
		return problem.Errorf(problem.AssignmentExists, "%s gives the same role to the same principal at the same scope", same.ID)
	}
	if err != nil && !problem.Is(err, problem.NotFound) {
		return err
	}
	before, err := t.RoleAssignment(key)
	switch {
	case err == nil:
		t.change(arm.ChangeAssignment, before.Principal)
	case !problem.Is(err, problem.NotFound):
		return err
	}
	_, err = t.exec(putAssignment, t.tenant, key, a.ID.String(), fold(a.Role), fold(a.Principal), a.PrincipalType, a.Scope.String(), a.Scope.Key(),
		a.Description, a.Condition, a.ConditionVersion, ms(a.Created), ms(a.Updated), a.CreatedBy, a.UpdatedBy)
	if err != nil {
		return fmt.Errorf("writing role assignment %s: %w", a.ID, err)
	}
	t.change(arm.ChangeAssignment, fold(a.Principal))
	return nil
}

const assignmentsOfRole = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND role = $2 AND scope_key > $3 ORDER BY scope_key, principal LIMIT $4`

// AssignmentsOfRole lists who has the role, by the key of the scope: those at
// scopes after p.After.
func (t *writeTx) AssignmentsOfRole(role string, p arm.Page) ([]arm.RoleAssignment, error) {
	out, err := many(t.ctx, t.q, scanAssignment, assignmentsOfRole, t.tenant, fold(role), fold(p.After), limit(p.Limit))
	if err != nil {
		return nil, fmt.Errorf("listing the assignments of role %s: %w", role, err)
	}
	return out, nil
}

const deleteAssignment = `DELETE FROM assignment WHERE tenant = $1 AND key = $2 RETURNING principal`

// DeleteRoleAssignment deletes one; no error if absent.
func (t *writeTx) DeleteRoleAssignment(key string) error {
	return t.deleteAssignments(deleteAssignment, t.tenant, fold(key))
}

func (t *writeTx) deleteAssignments(stmt string, args ...any) error {
	principals, err := many(t.ctx, t.q, scanned[string], stmt, args...)
	if err != nil {
		return fmt.Errorf("deleting role assignments: %w", err)
	}
	for _, p := range principals {
		t.change(arm.ChangeAssignment, p)
	}
	return nil
}
