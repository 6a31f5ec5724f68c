package store

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

const groupColumns = `g.tenant, g.id, g.name, g.description, g.created_ms, g.updated_ms, g.created_by, g.updated_by`

func scanGroup(r row) (arm.Group, error) {
	var g arm.Group
	var created, updated int64
	err := r.Scan(&g.Tenant, &g.ID, &g.Name, &g.Description, &created, &updated, &g.CreatedBy, &g.UpdatedBy)
	g.Created, g.Updated = at(created), at(updated)
	return g, err
}

const getGroup = `SELECT ` + groupColumns + ` FROM directory_group g WHERE g.tenant = $1 AND g.id = $2`

func groupOf(ctx context.Context, q querier, tenant, id string) (arm.Group, error) {
	none := problem.Errorf(problem.NotFound, "there is no group %s", problem.Clip(id))
	return one(ctx, q, none, scanGroup, getGroup, tenant, fold(id))
}

// Group returns [problem.NotFound] if there is none with this object id.
func (db *DB) Group(ctx context.Context, tenant, id string) (arm.Group, error) {
	return groupOf(ctx, db.read, tenant, id)
}

// Group is as in [DB.Group], within the transaction.
func (t *writeTx) Group(id string) (arm.Group, error) { return groupOf(t.ctx, t.q, t.tenant, id) }

const (
	listGroups = `SELECT ` + groupColumns + ` FROM directory_group g
	WHERE g.tenant = $1 AND g.id > $2 ORDER BY g.id LIMIT $3`

	listGroupsNamed = `SELECT ` + groupColumns + ` FROM directory_group g
	WHERE g.tenant = $1 AND g.name_key = $4 AND g.id > $2 ORDER BY g.id LIMIT $3`
)

// Groups lists by object id; name "" means all names (without case).
func (db *DB) Groups(ctx context.Context, tenant, name string, p arm.Page) ([]arm.Group, error) {
	stmt, args := listGroups, []any{tenant, fold(p.After), limit(p.Limit)}
	if name != "" {
		stmt, args = listGroupsNamed, append(args, fold(name))
	}
	out, err := many(ctx, db.read, scanGroup, stmt, args...)
	if err != nil {
		return nil, fmt.Errorf("listing groups: %w", err)
	}
	return out, nil
}

const listMembers = `
	SELECT p.tenant, p.id, p.client, p.kind, p.name, p.resource, p.system, p.enabled, p.valid_from_ms, p.created_ms
	FROM group_member m CROSS JOIN principal p
	WHERE m.tenant = $1 AND m.group_id = $2 AND m.member > $3 AND p.tenant = m.tenant AND p.id = m.member
	ORDER BY m.member LIMIT $4`

// Members lists who is in the group itself, by object id.
func (db *DB) Members(ctx context.Context, tenant, group string, p arm.Page) ([]directory.Principal, error) {
	out, err := many(ctx, db.read, scanPrincipal, listMembers, tenant, fold(group), fold(p.After), limit(p.Limit))
	if err != nil {
		return nil, fmt.Errorf("listing the members of group %s: %w", group, err)
	}
	return out, nil
}

const (
	groupsOf = `SELECT ` + groupColumns + `
	FROM group_member m CROSS JOIN directory_group g
	WHERE m.tenant = $1 AND m.member = $2 AND g.tenant = m.tenant AND g.id = m.group_id ORDER BY g.id`

	groupsOfThrough = `
	WITH RECURSIVE above (id) AS (
		SELECT m.group_id FROM group_member m WHERE m.tenant = $1 AND m.member = $2
		UNION
		SELECT m.group_id FROM above CROSS JOIN group_member m WHERE m.tenant = $1 AND m.member = above.id
	)
	SELECT ` + groupColumns + ` FROM above CROSS JOIN directory_group g WHERE g.tenant = $1 AND g.id = above.id ORDER BY g.id`
)

func groupsOfPrincipal(ctx context.Context, q querier, tenant, id string, through bool) ([]arm.Group, error) {
	stmt := groupsOf
	if through {
		stmt = groupsOfThrough
	}
	out, err := many(ctx, q, scanGroup, stmt, tenant, fold(id))
	if err != nil {
		return nil, fmt.Errorf("listing the groups of %s: %w", id, err)
	}
	return out, nil
}

// GroupsOf lists the groups that the principal is in, by object id: with
// through, also those that these are in, and so on.
func (db *DB) GroupsOf(ctx context.Context, tenant, principal string, through bool) ([]arm.Group, error) {
	return groupsOfPrincipal(ctx, db.read, tenant, principal, through)
}

// GroupsOf is as in [DB.GroupsOf], within the transaction.
func (t *writeTx) GroupsOf(principal string, through bool) ([]arm.Group, error) {
	return groupsOfPrincipal(t.ctx, t.q, t.tenant, principal, through)
}

const putGroup = `
	INSERT INTO directory_group (tenant, id, name, name_key, description, created_ms, updated_ms, created_by, updated_by)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
	ON CONFLICT (tenant, id) DO UPDATE SET
		name = excluded.name, name_key = excluded.name_key, description = excluded.description,
		created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
		created_by = excluded.created_by, updated_by = excluded.updated_by`

// PutGroup creates or replaces a group and its principal. One that is disabled
// stays so.
func (t *writeTx) PutGroup(g arm.Group) error {
	id := fold(g.ID)
	p, err := t.Principal(id)
	switch {
	case problem.Is(err, problem.NotFound):
		p = directory.Principal{Tenant: t.tenant, ID: id, Kind: directory.Group, Enabled: true, Created: g.Created}
	case err != nil:
		return err
	case p.Kind != directory.Group:
		return problem.Errorf(problem.Conflict, "the object id %s is a principal's that is no group", id)
	}
	p.Name = g.Name
	if err := t.PutPrincipal(p); err != nil {
		return err
	}
	_, err = t.exec(putGroup, t.tenant, id, g.Name, fold(g.Name), g.Description, ms(g.Created), ms(g.Updated), g.CreatedBy, g.UpdatedBy)
	if err != nil {
		return fmt.Errorf("writing group %s: %w", id, err)
	}
	t.change(arm.ChangeGroup, id)
	return nil
}

const (
	addMember = `
	INSERT INTO group_member (tenant, group_id, member) VALUES ($1, $2, $3)
	ON CONFLICT (tenant, group_id, member) DO NOTHING`

	removeMember = `DELETE FROM group_member WHERE tenant = $1 AND group_id = $2 AND member = $3`
)

// AddMember puts somebody into a group; changed is false if it is in it.
func (t *writeTx) AddMember(group, member string) (changed bool, err error) {
	return t.member(addMember, group, member)
}

// RemoveMember takes somebody out of a group; changed is false if it is not in it.
func (t *writeTx) RemoveMember(group, member string) (changed bool, err error) {
	return t.member(removeMember, group, member)
}

func (t *writeTx) member(stmt, group, member string) (bool, error) {
	n, err := t.exec(stmt, t.tenant, fold(group), fold(member))
	if err != nil {
		return false, fmt.Errorf("changing whether %s is in group %s: %w", member, group, err)
	}
	if n > 0 {
		t.change(arm.ChangeGroup, fold(group))
	}
	return n > 0, nil
}

const (
	leaveAll     = `DELETE FROM group_member WHERE tenant = $1 AND member = $2 RETURNING group_id`
	emptyGroup   = `DELETE FROM group_member WHERE tenant = $1 AND group_id = $2`
	forgetAGroup = `DELETE FROM directory_group WHERE tenant = $1 AND id = $2`
)

// leaveGroups takes a deleted principal out of its groups and, if it was one,
// its members out of it.
func (t *writeTx) leaveGroups(id string) error {
	left, err := many(t.ctx, t.q, scanned[string], leaveAll, t.tenant, id)
	if err != nil {
		return fmt.Errorf("taking %s out of its groups: %w", id, err)
	}
	for _, g := range left {
		t.change(arm.ChangeGroup, g)
	}
	if _, err := t.exec(emptyGroup, t.tenant, id); err != nil {
		return fmt.Errorf("taking the members out of group %s: %w", id, err)
	}
	n, err := t.exec(forgetAGroup, t.tenant, id)
	if err != nil {
		return fmt.Errorf("deleting group %s: %w", id, err)
	}
	if n > 0 {
		t.change(arm.ChangeGroup, id)
	}
	return nil
}
