package arm

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Groups are the tenant's, so the rights to them are asked for at its root: who
// owns a subscription decides nothing about who is in a group that has a role in
// another one.
const (
	typeDirectoryGroup = "Innate.Directory/groups"
	typeMember         = "Innate.Directory/groups/members"
	actionGroupRead    = "Innate.Directory/groups/read"
	actionGroupWrite   = "Innate.Directory/groups/write"
	actionGroupDelete  = "Innate.Directory/groups/delete"
)

// GroupProperties are what a client says of a group.
type GroupProperties struct {
	// DisplayName is for people; two groups may have the same. 1 to 256 characters.
	DisplayName string `json:"displayName"`
	// Description has at most 1024 characters.
	Description string `json:"description"`
}

func (p GroupProperties) check() error {
	switch n := utf8.RuneCountInString(p.DisplayName); {
	case n == 0 || n > 256 || strings.TrimSpace(p.DisplayName) != p.DisplayName || strings.ContainsFunc(p.DisplayName, unicode.IsControl):
		return problem.Errorf(problem.Invalid, "The member 'displayName' of a group is '%s'; 1 to 256 characters were expected, none of them control characters, and no spaces around them.", problem.Clip(p.DisplayName))
	case utf8.RuneCountInString(p.Description) > 1024:
		return problem.Errorf(problem.Invalid, "The member 'description' of a group is over 1024 characters long.")
	}
	return nil
}

// objectID reads a GUID as the client wrote it; what is the word for it in an error.
func objectID(what, s string) (string, error) {
	if _, err := uuid.Parse(s); err != nil || len(s) != 36 {
		return "", problem.Errorf(problem.Invalid, "%s is '%s'; an object id (a GUID) was expected.", what, problem.Clip(s))
	}
	return strings.ToLower(s), nil
}

// groupID is the text of a group's resource ID.
func groupID(id string) string { return "/providers/" + typeDirectoryGroup + "/" + id }

// permitGroup asks whether c may do action on groups; id "" is none in
// particular.
func (a *API) permitGroup(ctx context.Context, c access.Caller, action, id string) (audit.Event, string, error) {
	ev, err := a.permit(ctx, c, action, resource.Root)
	if err != nil || id == "" {
		return ev, "", err
	}
	oid, err := objectID("The group's id", id)
	if err != nil {
		return ev, "", a.refuse(ctx, ev, problem.Of(err))
	}
	ev.Target = groupID(oid)
	return ev, oid, nil
}

// PutGroup creates a group with this object id, or changes what it is called.
func (a *API) PutGroup(ctx context.Context, c access.Caller, id string, p GroupProperties) (out Group, created bool, err error) {
	ev, id, err := a.permitGroup(ctx, c, actionGroupWrite, id)
	if err != nil {
		return Group{}, false, err
	}
	if err := p.check(); err != nil {
		return Group{}, false, a.refuse(ctx, ev, problem.Of(err))
	}
	now := a.Now()
	err = a.write(ctx, ev, func(tx Tx) error {
		out = Group{Tenant: c.Tenant, ID: id, Created: now, CreatedBy: c.Principal}
		old, err := tx.Group(id)
		switch {
		case err == nil:
			out, created = old, false
		case problem.Is(err, problem.NotFound):
			created = true
			if err := unkept(tx, id); err != nil {
				return err
			}
		default:
			return err
		}
		out.Name, out.Description, out.Updated, out.UpdatedBy = p.DisplayName, p.Description, now, c.Principal
		return tx.PutGroup(out)
	})
	return out, created, err
}

// unkept refuses the object id of a deleted identity to another principal: it can
// come back, and the group's members would have its roles.
func unkept(tx Tx, id string) error {
	_, err := tx.DeletedIdentity(id)
	if err == nil {
		return problem.Errorf(problem.Conflict, "the object id %s is a principal's that is no group", id)
	}
	if problem.Is(err, problem.NotFound) {
		return nil
	}
	return err
}

// Group returns a group.
func (a *API) Group(ctx context.Context, c access.Caller, id string) (Group, error) {
	ev, id, err := a.permitGroup(ctx, c, actionGroupRead, id)
	if err != nil {
		return Group{}, err
	}
	g, err := a.Store.Group(ctx, c.Tenant, id)
	if err != nil {
		return Group{}, a.unread(ctx, ev, err)
	}
	return g, a.read(ctx, ev)
}

// unread records that a read was refused, if err is a problem of the client's.
func (a *API) unread(ctx context.Context, ev audit.Event, err error) error {
	if p := problem.Of(err); p.Kind != problem.Internal && p.Kind != problem.Unavailable {
		return a.refuse(ctx, ev, p)
	}
	return fmt.Errorf("reading %s: %w", ev.Target, err)
}

// Groups lists the groups by object id, with name only those that are called
// so. next is where the next page begins, "" on the last.
func (a *API) Groups(ctx context.Context, c access.Caller, name, after string) (out []Group, next string, err error) {
	ev, _, err := a.permitGroup(ctx, c, actionGroupRead, "")
	if err != nil {
		return nil, "", err
	}
	out, err = a.Store.Groups(ctx, c.Tenant, name, Page{After: after, Limit: PageSize + 1})
	if err != nil {
		return nil, "", fmt.Errorf("listing groups: %w", err)
	}
	out, next = cut(out, func(x Group) string { return x.ID })
	return out, next, a.read(ctx, ev)
}

// GroupsOf lists the groups that a principal is in: with through, also those
// that these are in, and so on.
func (a *API) GroupsOf(ctx context.Context, c access.Caller, member string, through bool) ([]Group, error) {
	ev, _, err := a.permitGroup(ctx, c, actionGroupRead, "")
	if err != nil {
		return nil, err
	}
	if member, err = objectID("The member", member); err != nil {
		return nil, a.refuse(ctx, ev, problem.Of(err))
	}
	out, err := a.Store.GroupsOf(ctx, c.Tenant, member, through)
	if err != nil {
		return nil, err
	}
	return out, a.read(ctx, ev)
}

// Members lists who is in the group itself, by object id.
func (a *API) Members(ctx context.Context, c access.Caller, group, after string) (out []directory.Principal, next string, err error) {
	ev, group, err := a.permitGroup(ctx, c, actionGroupRead, group)
	if err != nil {
		return nil, "", err
	}
	if _, err := a.Store.Group(ctx, c.Tenant, group); err != nil {
		return nil, "", a.unread(ctx, ev, err)
	}
	out, err = a.Store.Members(ctx, c.Tenant, group, Page{After: after, Limit: PageSize + 1})
	if err != nil {
		return nil, "", err
	}
	out, next = cut(out, func(x directory.Principal) string { return x.ID })
	return out, next, a.read(ctx, ev)
}

// DeleteGroup deletes a group, its role assignments and all membership of it.
// One that a deny assignment names, or a group that it is in, stays: without it
// whom it denies would not be denied any more. existed false is no error.
func (a *API) DeleteGroup(ctx context.Context, c access.Caller, id string) (existed bool, err error) {
	ev, id, err := a.permitGroup(ctx, c, actionGroupDelete, id)
	if err != nil {
		return false, err
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		existed = false
		if _, err := tx.Group(id); problem.Is(err, problem.NotFound) {
			return nil
		} else if err != nil {
			return err
		}
		above, err := tx.GroupsOf(id, true)
		if err != nil {
			return err
		}
		naming, err := tx.DenialsNaming(membership{group: id}.all(above))
		if err != nil {
			return err
		}
		if len(naming) > 0 {
			return problem.Errorf(problem.Conflict, "The deny assignment '%s' names the group, or one that it is in; change or delete that first.", naming[0].ID)
		}
		existed = true
		return tx.DeletePrincipal(id)
	})
	return existed, err
}

// AddMember puts a principal into a group, which may be a group itself. It has
// what the group has from then on, so that the caller must be one who could
// give it those roles. added is false if it is in the group already.
func (a *API) AddMember(ctx context.Context, c access.Caller, group, member string) (added bool, err error) {
	return a.changeMember(ctx, c, group, member, true)
}

// RemoveMember takes a principal out of a group. removed false is no error.
func (a *API) RemoveMember(ctx context.Context, c access.Caller, group, member string) (removed bool, err error) {
	return a.changeMember(ctx, c, group, member, false)
}

func (a *API) changeMember(ctx context.Context, c access.Caller, group, member string, add bool) (changed bool, err error) {
	ev, group, err := a.permitGroup(ctx, c, actionGroupWrite, group)
	if err != nil {
		return false, err
	}
	if member, err = objectID("The member's id", member); err != nil {
		return false, a.refuse(ctx, ev, problem.Of(err))
	}
	verb := "out of"
	if add {
		verb = "into"
	}
	ev.Reason += fmt.Sprintf("; %s %s the group", member, verb)
	g, err := a.membership(ctx, c.Tenant, group, member, add)
	if err != nil {
		return false, a.unread(ctx, ev, err)
	}
	checked, err := a.mayChange(ctx, c, g)
	if err != nil {
		return false, err
	}
	err = a.write(ctx, ev, func(tx Tx) error {
		changed, err = a.putMember(tx, c.Tenant, g, checked)
		return err
	})
	return changed, err
}

// membership is a change of who is in a group, with what hangs on it.
type membership struct {
	group, member string
	// kind is what the member is.
	kind directory.PrincipalKind
	add  bool
	// roles are what the group has, itself or by groups that it is in; denials
	// are those that name one of these.
	roles   []RoleAssignment
	denials []DenyAssignment
}

func (a *API) membership(ctx context.Context, tenant, group, member string, add bool) (membership, error) {
	m := membership{group: group, member: member, add: add}
	if _, err := a.Store.Group(ctx, tenant, group); err != nil {
		return m, err
	}
	p, err := a.Store.Principal(ctx, tenant, member)
	switch {
	case err == nil:
		m.kind = p.Kind
	case !problem.Is(err, problem.NotFound):
		return m, err
	case add:
		return m, problem.Errorf(problem.PrincipalNotFound, "Principal %s does not exist in the directory %s.", member, tenant)
	}
	above, err := a.Store.GroupsOf(ctx, tenant, group, true)
	if err != nil {
		return m, err
	}
	if m.denials, err = a.Store.DenialsNaming(ctx, tenant, m.all(above)); err != nil || !add {
		return m, err
	}
	for _, g := range m.all(above) {
		roles, err := a.Store.RoleAssignments(ctx, tenant, nil, "/", g, Page{})
		if err != nil {
			return m, err
		}
		m.roles = append(m.roles, roles...)
	}
	return m, nil
}

// read fills in, within a write, what hangs on the membership now. It returns the
// groups that the group is in.
func (m *membership) read(tx Tx) (above []Group, err error) {
	if above, err = tx.GroupsOf(m.group, true); err != nil {
		return nil, err
	}
	if m.denials, err = tx.DenialsNaming(m.all(above)); err != nil || !m.add {
		return above, err
	}
	m.roles, err = tx.AssignmentsOf(m.all(above))
	return above, err
}

// all is the group and those that it is in.
func (m membership) all(above []Group) []string {
	out := []string{m.group}
	for _, g := range above {
		out = append(out, g.ID)
	}
	return out
}

// needs are the operations that the change amounts to, by a text that tells
// them apart: giving the member each role of the group; and, as it changes whom
// a deny assignment hits, writing that.
func (m membership) needs() map[string]access.Operation {
	out := map[string]access.Operation{}
	for _, r := range m.roles {
		to := giving(r.Role, m.member, principalType(m.kind))
		out[actionAssignmentWrite+" "+r.Scope.Key()+" "+r.Role] = access.Operation{
			Action: actionAssignmentWrite, Scope: r.Scope, Attributes: access.Attributes{Request: to},
		}
	}
	for _, d := range m.denials {
		out[actionDenialWrite+" "+d.ID.Key()] = access.Operation{Action: actionDenialWrite, Scope: d.Scope}
	}
	return out
}

// mayChange checks that the caller may do all that the change amounts to. It
// returns what it checked.
func (a *API) mayChange(ctx context.Context, c access.Caller, m membership) (map[string]access.Operation, error) {
	var mine []Group
	if len(m.denials) > 0 {
		var err error
		if mine, err = a.Store.GroupsOf(ctx, c.Tenant, c.Principal, true); err != nil {
			return nil, err
		}
	}
	lacks, p, err := a.lacks(ctx, c, m, mine)
	if err != nil {
		return nil, err
	}
	if p != nil {
		return nil, a.refuse(ctx, a.event(c, lacks.Action, lacks.Scope), p)
	}
	return m.needs(), nil
}

// lacks finds what the caller, who is in the groups mine, may not do of what the
// change amounts to, and says so in p; p is nil if it may do all. It records
// nothing: it is asked within writes too.
func (a *API) lacks(ctx context.Context, c access.Caller, m membership, mine []Group) (op access.Operation, p *problem.Error, err error) {
	for _, d := range m.denials {
		if err := d.changeableBy(c, mine); err != nil {
			return access.Operation{Action: actionDenialWrite, Scope: d.Scope}, problem.Of(err), nil
		}
	}
	for _, op := range m.needs() {
		decide := a.Directory.Authorize
		if op.Action == actionDenialWrite {
			decide = a.Directory.AuthorizeUnconditionally
		}
		d, err := decide(ctx, c, op)
		if err != nil {
			return op, nil, err
		}
		if !d.Allowed {
			return op, problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' may change groups; however, who is in the group '%s' decides about access, and it does not have authorization to perform action '%s' over scope '%s'.",
				c.Client, c.Principal, m.group, op.Action, op.Scope), nil
		}
	}
	return op, nil, nil
}

// putMember changes the membership, within the write. What was checked before
// it must be all that is needed now.
func (a *API) putMember(tx Tx, tenant string, m membership, checked map[string]access.Operation) (bool, error) {
	if _, err := tx.Group(m.group); err != nil {
		return false, err
	}
	if m.add {
		if _, err := tx.Principal(m.member); problem.Is(err, problem.NotFound) {
			return false, problem.Errorf(problem.PrincipalNotFound, "Principal %s does not exist in the directory %s.", m.member, tenant)
		} else if err != nil {
			return false, err
		}
	}
	above, err := m.read(tx)
	if err != nil {
		return false, err
	}
	for key := range m.needs() {
		if _, ok := checked[key]; !ok {
			return false, problem.Errorf(problem.Conflict, "What the group %s has was changed at the same time; retry.", m.group)
		}
	}
	if !m.add {
		return tx.RemoveMember(m.group, m.member)
	}
	for _, g := range m.all(above) {
		if g == m.member {
			return false, problem.Errorf(problem.Invalid, "The group %s is in the group %s already, or is that group; a group cannot be in itself.", m.group, m.member)
		}
	}
	return tx.AddMember(m.group, m.member)
}

// principalType is ARM's word for what a principal is.
func principalType(k directory.PrincipalKind) string {
	if k == directory.Group {
		return "Group"
	}
	return "ServicePrincipal"
}

func groupView(g Group) View {
	return View{
		"id": groupID(g.ID), "name": g.ID, "type": typeDirectoryGroup,
		"properties": map[string]any{
			"displayName": g.Name, "description": g.Description,
			"createdOn": stamp(g.Created), "updatedOn": stamp(g.Updated), "createdBy": g.CreatedBy, "updatedBy": g.UpdatedBy,
		},
	}
}

func memberView(group string, p directory.Principal) View {
	return View{
		"id": groupID(group) + "/members/" + p.ID, "name": p.ID, "type": typeMember,
		"properties": map[string]any{"principalId": p.ID, "principalType": principalType(p.Kind), "displayName": p.Name},
	}
}
