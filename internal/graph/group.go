package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// maxMembers is how many members of groups within a group are gathered.
const maxMembers = 5000

// groupBody is what a client says of a group. What a group here cannot be is
// refused, not dropped.
type groupBody struct {
	DisplayName *string
	Description *string
}

// fixed are the members that a group has with one value alone.
var fixed = map[string]string{"mailenabled": "false", "securityenabled": "true", "grouptypes": "[]", "isassignabletorole": "false"}

func readGroup(raw map[string]json.RawMessage) (b groupBody, err error) {
	for k, v := range raw {
		name := strings.ToLower(k)
		switch want, ok := fixed[name]; {
		case name == "displayname":
			err = text(k, v, &b.DisplayName)
		case name == "description":
			err = text(k, v, &b.Description)
		case name == "mailnickname":
			// Clients must send one; nothing here has mail.
		case ok && strings.Join(strings.Fields(string(v)), "") != want && string(v) != "null":
			err = problem.Errorf(problem.NotSupported, "The property '%s' of a group can only be %s: there are security groups without mail alone.", k, want)
		case strings.HasSuffix(name, "@odata.bind"):
			err = problem.Errorf(problem.NotSupported, "The property '%s' is not supported: add members one by one, with POST /groups/{id}/members/$ref; groups have no owners.", problem.Clip(k))
		case !ok && !strings.HasPrefix(k, "@"):
			err = problem.Errorf(problem.Invalid, "Property '%s' is not one that a group can be given; displayName, description, mailEnabled, mailNickname, securityEnabled and groupTypes are.", problem.Clip(k))
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func text(name string, raw json.RawMessage, to **string) error {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		return problem.Errorf(problem.Invalid, "The property '%s' is not a text.", name)
	}
	if s == nil {
		s = new(string)
	}
	*to = s
	return nil
}

// createGroup makes a group.
func (g *Graph) createGroup(ctx context.Context, c access.Caller, b groupBody) (object, error) {
	if b.DisplayName == nil {
		return nil, g.refuse(ctx, c, problem.Errorf(problem.Invalid, "A value is required for property 'displayName' of resource 'Group'."))
	}
	p := arm.GroupProperties{DisplayName: *b.DisplayName}
	if b.Description != nil {
		p.Description = *b.Description
	}
	out, _, err := g.ARM.PutGroup(ctx, c, uuid.NewString(), p)
	return group(out), err
}

// updateGroup changes what a group is called.
func (g *Graph) updateGroup(ctx context.Context, c access.Caller, id string, b groupBody) error {
	old, err := g.ARM.Group(ctx, c, id)
	if err != nil {
		return g.groupError(ctx, c, id, err)
	}
	p := arm.GroupProperties{DisplayName: old.Name, Description: old.Description}
	if b.DisplayName != nil {
		p.DisplayName = *b.DisplayName
	}
	if b.Description != nil {
		p.Description = *b.Description
	}
	_, _, err = g.ARM.PutGroup(ctx, c, id, p)
	return err
}

// groupError says in Graph's words that there is no such group.
func (g *Graph) groupError(ctx context.Context, c access.Caller, id string, err error) error {
	if problem.Is(err, problem.NotFound) {
		return notFound(id)
	}
	if _, bad := uuid.Parse(id); bad != nil && problem.Is(err, problem.Invalid) {
		return notFound(id)
	}
	return err
}

// deleteGroup deletes a group.
func (g *Graph) deleteGroup(ctx context.Context, c access.Caller, id string) error {
	existed, err := g.ARM.DeleteGroup(ctx, c, id)
	if err == nil && !existed {
		err = notFound(id)
	}
	return g.groupError(ctx, c, id, err)
}

// addMember puts somebody into a group. Doing it twice is an error to Graph.
func (g *Graph) addMember(ctx context.Context, c access.Caller, id, member string) error {
	added, err := g.ARM.AddMember(ctx, c, id, member)
	if err == nil && !added {
		return problem.Errorf(problem.Invalid, "One or more added object references already exist for the following modified properties: 'members'.")
	}
	if problem.Is(err, problem.PrincipalNotFound) {
		return notFound(member)
	}
	return g.groupError(ctx, c, id, err)
}

// removeMember takes somebody out of a group.
func (g *Graph) removeMember(ctx context.Context, c access.Caller, id, member string) error {
	removed, err := g.ARM.RemoveMember(ctx, c, id, member)
	if err == nil && !removed || problem.Is(err, problem.PrincipalNotFound) {
		err = notFound(member)
	}
	return g.groupError(ctx, c, id, err)
}

// members lists who is in a group: with through, also who is in groups that are
// in it. It takes the right to read groups, or to be in it.
func (g *Graph) members(ctx context.Context, c access.Caller, id string, through bool, o options) (page, error) {
	s := g.sight(c)
	gr, err := s.principal(ctx, id, isGroup)
	if err != nil {
		return page{}, err
	}
	ok, err := s.reads(ctx, gr)
	if err != nil {
		return page{}, err
	}
	if !ok {
		return page{}, g.refuse(ctx, c, denied())
	}
	read := func(after string, limit int) ([]directory.Principal, error) {
		return g.Store.Members(ctx, c.Tenant, gr.ID, arm.Page{After: after, Limit: limit})
	}
	if through {
		all, err := g.through(ctx, c, gr.ID)
		if err != nil {
			return page{}, g.onRecord(ctx, c, err)
		}
		read = func(after string, limit int) ([]directory.Principal, error) {
			i, _ := slices.BinarySearchFunc(all, after, func(p directory.Principal, id string) int { return strings.Compare(p.ID, id+"\x00") })
			return all[i:min(len(all), i+limit)], nil
		}
	}
	some, err := read(o.after.ID, o.top+1)
	if err != nil {
		return page{}, err
	}
	out := page{value: []object{}}
	if len(some) > o.top {
		some = some[:o.top]
		out.next = &Place{ID: some[o.top-1].ID}
	}
	for _, p := range some {
		obj, err := s.shown(ctx, p, o)
		if err != nil {
			return page{}, g.onRecord(ctx, c, err)
		}
		out.value = append(out.value, obj)
	}
	return out, g.allowed(ctx, c, resource.Root, "members of group %s", gr.ID)
}

// shown is p in a list of several types: of one that the caller may not read it
// says that it is there, and nothing else.
func (s *sight) shown(ctx context.Context, p directory.Principal, o options) (object, error) {
	obj := object{"id": p.ID}
	ok, err := s.reads(ctx, p)
	if err != nil {
		return nil, err
	}
	if ok {
		if obj, err = s.object(ctx, p); err != nil {
			return nil, err
		}
		if obj, err = o.pick(typeOf(p), obj); err != nil {
			return nil, err
		}
	}
	return typed(typeOf(p), obj), nil
}

// through gathers the members of a group and of all groups in it, by object id.
func (g *Graph) through(ctx context.Context, c access.Caller, id string) ([]directory.Principal, error) {
	found := map[string]directory.Principal{}
	for todo := []string{id}; len(todo) > 0; todo = todo[1:] {
		for after := ""; ; {
			some, err := g.Store.Members(ctx, c.Tenant, todo[0], arm.Page{After: after, Limit: 500})
			if err != nil {
				return nil, err
			}
			for _, p := range some {
				after = p.ID
				if _, have := found[p.ID]; !have && p.ID != id {
					found[p.ID] = p
					if p.Kind == directory.Group {
						todo = append(todo, p.ID)
					}
				}
			}
			if len(found) > maxMembers {
				return nil, problem.Errorf(problem.NotSupported, "The group has over %d members through others; ask for /members of each.", maxMembers)
			}
			if len(some) < 500 {
				break
			}
		}
	}
	return sorted(found), nil
}

// groupsOf lists the groups that a principal is in. What a caller is in itself
// it may know.
func (g *Graph) groupsOf(ctx context.Context, c access.Caller, id string, through bool) (all []arm.Group, own bool, err error) {
	p, err := g.sight(c).principal(ctx, id, anyKind)
	if err != nil {
		return nil, false, err
	}
	ok, err := g.sight(c).reads(ctx, p)
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return nil, false, g.refuse(ctx, c, denied())
	}
	if all, err = g.Store.GroupsOf(ctx, c.Tenant, p.ID, through); err != nil {
		return nil, false, fmt.Errorf("reading the groups of %s: %w", p.ID, err)
	}
	return all, p.ID == c.Principal, g.allowed(ctx, c, p.Resource, "groups of %s", p.ID)
}

// memberOf lists the groups that a principal is in, as objects.
func (g *Graph) memberOf(ctx context.Context, c access.Caller, id string, through bool, o options) (page, error) {
	all, own, err := g.groupsOf(ctx, c, id, through)
	if err != nil {
		return page{}, err
	}
	s := g.sight(c)
	ok := own
	if !ok {
		if ok, err = s.may(ctx, actionGroupRead, resource.Root); err != nil {
			return page{}, err
		}
	}
	out := page{value: []object{}}
	for _, gr := range all {
		if gr.ID <= o.after.ID {
			continue
		}
		if len(out.value) == o.top {
			break
		}
		obj := object{"id": gr.ID}
		if ok {
			if obj, err = o.pick(typeGroup, group(gr)); err != nil {
				return page{}, g.refuse(ctx, c, problem.Of(err))
			}
		}
		out.value = append(out.value, typed(typeGroup, obj))
		if len(out.value) == o.top && gr.ID != all[len(all)-1].ID {
			out.next = &Place{ID: gr.ID}
		}
	}
	return out, nil
}
