package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// getFacts is one statement, so that all it says is of one moment and costs one
// round trip. Its rows are of several kinds, which the first column says. Each
// part goes from the few (a principal, its groups) to the many by an index: a
// cross join is SQLite's word for "in this order".
const getFacts = `
	WITH RECURSIVE
	member_of (id) AS (
		SELECT m.group_id FROM group_member m CROSS JOIN principal g
		WHERE m.tenant = $1 AND m.member = $2 AND g.tenant = $1 AND g.id = m.group_id AND g.enabled = 1
		UNION
		SELECT m.group_id FROM member_of CROSS JOIN group_member m CROSS JOIN principal g
		WHERE m.tenant = $1 AND m.member = member_of.id AND g.tenant = $1 AND g.id = m.group_id AND g.enabled = 1
	),
	held (id, role, principal, scope, condition) AS (
		SELECT a.id, a.role, a.principal, a.scope, a.condition FROM assignment a
		WHERE a.tenant = $1 AND a.principal = $2
		UNION ALL
		SELECT a.id, a.role, a.principal, a.scope, a.condition FROM member_of CROSS JOIN assignment a
		WHERE a.tenant = $1 AND a.principal = member_of.id
	),
	denied (key) AS (
		SELECT p.key FROM deny_principal p
		WHERE p.tenant = $1 AND p.principal IN ($2, '` + access.Everyone + `') AND p.excluded = 0
		UNION
		SELECT p.key FROM member_of CROSS JOIN deny_principal p
		WHERE p.tenant = $1 AND p.principal = member_of.id AND p.excluded = 0
	)
	SELECT 'group', id, '', '', '', '', '', '', '', '', 0, 0 FROM member_of
	UNION ALL
	SELECT 'assignment', id, role, principal, scope, condition, '', '', '', '', 0, 0 FROM held
	UNION ALL
	SELECT 'role', r.id, r.name, r.description, r.permissions, r.scopes, '', '', '', '', 0, 0
	FROM (SELECT DISTINCT role FROM held) h CROSS JOIN role_definition r WHERE r.tenant = $1 AND r.id = h.role
	UNION ALL
	SELECT 'denial', d.id, d.name, d.description, d.permissions, d.scope, d.principals, d.excluded, d.condition, '', d.scope_only, d.system
	FROM denied CROSS JOIN deny_assignment d WHERE d.tenant = $1 AND d.key = denied.key`

// fact is a row of getFacts.
type fact struct {
	kind              string
	text              [9]string
	scopeOnly, system bool
}

func scanFact(r row) (fact, error) {
	var f fact
	dest := []any{&f.kind}
	for i := range f.text {
		dest = append(dest, &f.text[i])
	}
	err := r.Scan(append(dest, &f.scopeOnly, &f.system)...)
	return f, err
}

// Facts returns what decides about the principal's rights at scope, all of one
// moment: what is its own and its groups', directly or through groups in
// groups. A group that is disabled gives nothing. Assignments and denials are
// in the order of their IDs.
func (db *DB) Facts(ctx context.Context, tenant, principal string, _ resource.ID) (access.Facts, error) {
	out := access.Facts{Principals: []string{fold(principal)}}
	rows, err := many(ctx, db.read, scanFact, getFacts, tenant, out.Principals[0])
	if err != nil {
		return out, fmt.Errorf("reading what decides about %s: %w", principal, err)
	}
	for _, r := range rows {
		if err := r.into(&out); err != nil {
			return out, err
		}
	}
	slices.Sort(out.Principals[1:])
	slices.SortFunc(out.Assignments, func(a, b access.Assignment) int { return cmp.Compare(a.ID.Key(), b.ID.Key()) })
	slices.SortFunc(out.Denials, func(a, b access.Denial) int { return cmp.Compare(a.ID.Key(), b.ID.Key()) })
	return out, nil
}

func (r fact) into(f *access.Facts) (err error) {
	t := r.text
	switch r.kind {
	case "group":
		f.Principals = append(f.Principals, t[0])
	case "assignment":
		a := access.Assignment{Role: t[1], Principal: t[2], Condition: t[4]}
		if a.ID, err = parseID(t[0]); err != nil {
			return err
		}
		if a.Scope, err = parseID(t[3]); err != nil {
			return err
		}
		f.Assignments = append(f.Assignments, a)
	case "role":
		role := access.Role{ID: t[0], Name: t[1], Description: t[2]}
		if err := readRole(&role, t[3], t[4]); err != nil {
			return err
		}
		if f.Roles == nil {
			f.Roles = map[string]access.Role{}
		}
		f.Roles[role.ID] = role
	case "denial":
		d := access.Denial{Name: t[1], Description: t[2], Condition: t[7], ScopeOnly: r.scopeOnly, System: r.system}
		if err := readDenial(&d, t[0], t[4], t[3], t[5], t[6], nil); err != nil {
			return err
		}
		f.Denials = append(f.Denials, d)
	}
	return nil
}

// assignmentsOfSome takes eight principals at a time.
const assignmentsOfSome = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND principal IN ($2, $3, $4, $5, $6, $7, $8, $9)`

// AssignmentsOf lists the role assignments of the principals, by key.
func (t *writeTx) AssignmentsOf(principals []string) ([]arm.RoleAssignment, error) {
	rows, err := eightAtATime(t.ctx, t.q, scanAssignment, assignmentsOfSome, t.tenant, principals)
	if err != nil {
		return nil, fmt.Errorf("reading role assignments: %w", err)
	}
	return byKey(rows, assignmentID), nil
}

// eightAtATime asks a statement that takes a tenant and eight ids: most callers
// have one, and some groups.
func eightAtATime[T any](ctx context.Context, q querier, scan func(row) (T, error), stmt, tenant string, principals []string) ([]T, error) {
	ids := make([]string, len(principals))
	for i, p := range principals {
		ids[i] = fold(p)
	}
	slices.Sort(ids)
	var rows []T
	for some := range slices.Chunk(slices.Compact(ids), 8) {
		args := []any{tenant}
		for i := range 8 {
			args = append(args, some[min(i, len(some)-1)])
		}
		found, err := many(ctx, q, scan, stmt, args...)
		if err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	return rows, nil
}
