package arm

import (
	"context"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// TypeManagementGroup is the type of management groups: nodes above
// subscriptions, whose place in the tree is not in their IDs.
const TypeManagementGroup = "Microsoft.Management/managementGroups"

// maxLevels is how many levels of groups there may be below the root group.
const maxLevels = 6

// RootGroup is the group above all others. It is there with the tenant, and
// has its id for a name.
func RootGroup(tenant string) resource.ID {
	id, err := resource.Root.Extension(TypeManagementGroup, tenant)
	if err != nil {
		return resource.ID{} // a tenant whose id is no name, which none has
	}
	return id
}

// Tree says what each management group and subscription is below, by their
// keys. Every group but the root has an entry; a subscription without one is
// below the root.
type Tree map[string]string

// parent is what a node is below.
func (t Tree) parent(key, root string) string {
	if p, ok := t[key]; ok {
		return p
	}
	return root
}

// above lists the groups above a node, the nearest first, the root last.
func (t Tree) above(key, root string) []string {
	var out []string
	for key != root && len(out) <= len(t) {
		key = t.parent(key, root)
		out = append(out, key)
	}
	return out
}

// over are the keys of the scopes whose assignments count at a node, if it were
// below a group.
func (t Tree) over(node, group, root resource.ID) []string {
	return append(keysOf(node.Ancestors()), append(t.above(group.Key(), root.Key()), group.Key())...)
}

// children lists what is directly below a group, by key. Subscriptions that
// never were below any are not among the root's.
func (t Tree) children(key string) []string {
	var out []string
	for child, parent := range t {
		if parent == key {
			out = append(out, child)
		}
	}
	slices.Sort(out)
	return out
}

// levels is how many levels of groups a node and what is below it make.
func (t Tree) levels(key string) int {
	if isSubscription(key) {
		return 0
	}
	deepest := 0
	for _, c := range t.children(key) {
		deepest = max(deepest, t.levels(c))
	}
	return 1 + deepest
}

func isSubscription(key string) bool { return strings.HasPrefix(key, "/subscriptions/") }

// mayMove says whether a node can be put below a group.
func (t Tree) mayMove(key, parent, root string) error {
	up := append([]string{parent}, t.above(parent, root)...)
	if parent == root {
		up = []string{root}
	}
	if slices.Contains(up, key) {
		return problem.Errorf(problem.Invalid, "The management group '%s' is not put below '%s', which is below it.", key, parent).At("properties.details.parent.id")
	}
	if n := len(up) - 1 + t.levels(key); n > maxLevels {
		return problem.Errorf(problem.Invalid, "The management group would be at level %d; at most %d levels are below the root group.", n, maxLevels).At("properties.details.parent.id")
	}
	return nil
}

// treeStore is the part of [Store] about management groups.
type treeStore interface {
	// Above returns the management groups above a scope, the nearest first.
	Above(ctx context.Context, tenant string, scope resource.ID) ([]resource.ID, error)
	// Tree returns the whole tree.
	Tree(ctx context.Context, tenant string) (Tree, error)
}

// treeTx is the part of [Tx] about management groups.
type treeTx interface {
	Tree() (Tree, error)
	// PutParent puts a node below a group; "" forgets where it was.
	PutParent(key, parentKey string) error
}
