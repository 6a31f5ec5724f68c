package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// upTheTree walks from the subscription or management group $3 to the root
// group, which has no row. It is bounded: a circle, which no write makes, must
// not hold a reader. It is part of a WITH RECURSIVE.
const upTheTree = `
	up (parent, depth) AS (
		SELECT t.parent_key, 1 FROM management_tree t WHERE t.tenant = $1 AND t.key = $3
		UNION ALL
		SELECT t.parent_key, up.depth + 1 FROM up CROSS JOIN management_tree t
		WHERE t.tenant = $1 AND t.key = up.parent AND up.depth < 16
	)`

// treeKey is the subscription or the management group that a scope lies in; ""
// if it lies in none.
func treeKey(scope resource.ID) string {
	if s := scope.SubscriptionID(); !s.IsZero() {
		return s.Key()
	}
	for _, n := range scope.Ancestors() {
		if strings.EqualFold(n.Type(), arm.TypeManagementGroup) {
			return n.Key()
		}
	}
	return ""
}

// aboveOf completes what the tree has above a scope: keys, the nearest first.
// Everything but what belongs to the tenant as a whole is below its root group.
func aboveOf(tenant string, scope resource.ID, keys []string) ([]resource.ID, error) {
	start := treeKey(scope)
	root := arm.RootGroup(tenant)
	if start == "" || start == root.Key() {
		return nil, nil
	}
	var out []resource.ID
	for _, k := range keys {
		if k == root.Key() {
			break
		}
		id, err := parseID(k)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return append(out, root), nil
}

const getAbove = `WITH RECURSIVE ` + upTheTree + ` SELECT parent FROM up WHERE $2 = '' ORDER BY depth`

// Above returns the management groups above a scope, the nearest first.
func (db *DB) Above(ctx context.Context, tenant string, scope resource.ID) ([]resource.ID, error) {
	keys, err := many(ctx, db.read, scanned[string], getAbove, tenant, "", treeKey(scope))
	if err != nil {
		return nil, fmt.Errorf("reading the management groups above %s: %w", scope, err)
	}
	return aboveOf(tenant, scope, keys)
}

const getTree = `SELECT key, parent_key FROM management_tree WHERE tenant = $1`

func tree(ctx context.Context, q querier, tenant string) (arm.Tree, error) {
	rows, err := many(ctx, q, scanPair, getTree, tenant)
	if err != nil {
		return nil, fmt.Errorf("reading the tree of management groups: %w", err)
	}
	out := arm.Tree{}
	for _, r := range rows {
		out[r[0]] = r[1]
	}
	return out, nil
}

func scanPair(r row) (p [2]string, err error) {
	err = r.Scan(&p[0], &p[1])
	return p, err
}

// Tree returns the tenant's tree of management groups and subscriptions.
func (db *DB) Tree(ctx context.Context, tenant string) (arm.Tree, error) {
	return tree(ctx, db.read, tenant)
}

// Tree is as in [DB.Tree], within the transaction.
func (t *writeTx) Tree() (arm.Tree, error) { return tree(t.ctx, t.q, t.tenant) }

const (
	putParent = `
	INSERT INTO management_tree (tenant, key, parent_key) VALUES ($1, $2, $3)
	ON CONFLICT (tenant, key) DO UPDATE SET parent_key = excluded.parent_key`
	deleteParent = `DELETE FROM management_tree WHERE tenant = $1 AND key = $2`
)

// PutParent puts a subscription or a management group below another group;
// parentKey "" forgets where it was.
func (t *writeTx) PutParent(key, parentKey string) error {
	stmt, args := putParent, []any{t.tenant, fold(key), fold(parentKey)}
	if parentKey == "" {
		stmt, args = deleteParent, args[:2]
	}
	n, err := t.exec(stmt, args...)
	if err != nil {
		return fmt.Errorf("putting %s below a management group: %w", key, err)
	}
	if n > 0 {
		t.change(arm.ChangeResource, fold(key))
	}
	return nil
}
