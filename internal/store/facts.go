package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// assignmentsOfSome takes eight principals at a time: most callers have one, and
// some groups.
const assignmentsOfSome = `SELECT ` + assignmentColumns + ` FROM assignment
	WHERE tenant = $1 AND principal IN ($2, $3, $4, $5, $6, $7, $8, $9)`

// Facts returns what decides about the principal's rights at scope.
func (db *DB) Facts(ctx context.Context, tenant, principal string, _ resource.ID) (access.Facts, error) {
	out := access.Facts{Principals: []string{fold(principal)}}
	var err error
	out.Assignments, err = db.assignmentsOf(ctx, tenant, out.Principals)
	return out, err
}

// assignmentsOf returns all role assignments of the principals, in the order of
// their IDs.
func (db *DB) assignmentsOf(ctx context.Context, tenant string, principals []string) ([]access.Assignment, error) {
	ids := make([]string, len(principals))
	for i, p := range principals {
		ids[i] = fold(p)
	}
	slices.Sort(ids)
	var rows []arm.RoleAssignment
	for some := range slices.Chunk(slices.Compact(ids), 8) {
		args := []any{tenant}
		for i := range 8 {
			args = append(args, some[min(i, len(some)-1)])
		}
		found, err := many(ctx, db.read, scanAssignment, assignmentsOfSome, args...)
		if err != nil {
			return nil, fmt.Errorf("reading role assignments: %w", err)
		}
		rows = append(rows, found...)
	}
	rows = byKey(rows, assignmentID)
	out := make([]access.Assignment, len(rows))
	for i, a := range rows {
		out[i] = a.Assignment
	}
	return out, nil
}
