package arm

import (
	"net/http"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// serveGroup serves /providers/Innate.Directory/groups/{id}.
func (a *API) serveGroup(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if err := ofTenant(id.Scope()); err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		g, err := a.Group(r.Context(), q.c, id.Name())
		return answer(w, http.StatusOK, groupView(g), err)
	case http.MethodPut:
		var b strict[struct {
			Properties GroupProperties `json:"properties"`
		}]
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		g, created, err := a.PutGroup(r.Context(), q.c, id.Name(), b.is.Properties)
		return answer(w, status(created), groupView(g), err)
	case http.MethodDelete:
		existed, err := a.DeleteGroup(r.Context(), q.c, id.Name())
		return answerDelete(w, existed, err)
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

// serveGroups lists groups: all, those of a name, or those that somebody is in.
func (a *API) serveGroups(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if err := ofTenant(probe.Scope()); err != nil {
		return err
	}
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	f, err := groupFilter(q.q.Get("$filter"))
	if err != nil {
		return err
	}
	l := List{Value: []View{}}
	var groups []Group
	if f.member != "" {
		groups, err = a.GroupsOf(r.Context(), q.c, f.member, true)
	} else {
		groups, l.Next, err = a.Groups(r.Context(), q.c, f.name, q.q.Get("$skiptoken"))
	}
	for _, g := range groups {
		l.Value = append(l.Value, groupView(g))
	}
	return a.answerList(w, r, q, l, err)
}

// serveMember serves .../groups/{id}/members/{object id}.
func (a *API) serveMember(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if err := ofTenant(id.Scope()); err != nil {
		return err
	}
	group, member := id.Parent().Name(), id.Name()
	switch r.Method {
	case http.MethodPut:
		added, err := a.AddMember(r.Context(), q.c, group, member)
		return answer(w, status(added), View{"id": id.String(), "name": member, "type": typeMember, "properties": map[string]any{"principalId": member}}, err)
	case http.MethodDelete:
		removed, err := a.RemoveMember(r.Context(), q.c, group, member)
		return answerDelete(w, removed, err)
	}
	return notAllowed(r, "PUT and DELETE")
}

func (a *API) serveMembers(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if err := ofTenant(probe.Scope()); err != nil {
		return err
	}
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	group := probe.Parent().Name()
	members, next, err := a.Members(r.Context(), q.c, group, q.q.Get("$skiptoken"))
	l := List{Value: []View{}, Next: next}
	for _, m := range members {
		l.Value = append(l.Value, memberView(group, m))
	}
	return a.answerList(w, r, q, l, err)
}

// ofTenant checks that what only a tenant has is asked for at its root.
func ofTenant(scope resource.ID) error {
	if !scope.IsRoot() {
		return problem.Errorf(problem.Invalid, "Groups are the tenant's: /providers/%s was expected, not at the scope '%s'.", typeDirectoryGroup, scope)
	}
	return nil
}

func answerDelete(w http.ResponseWriter, existed bool, err error) error {
	if err != nil {
		return err
	}
	if !existed {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return web.WriteJSON(w, http.StatusOK, struct{}{})
}

// strict is a T that is read as strictly as a [Document] is: no member twice.
type strict[T any] struct{ is T }

func (s *strict[T]) UnmarshalJSON(raw []byte) error { return readStrictly(raw, &s.is) }
