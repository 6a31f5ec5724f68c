package arm

import (
	"net/http"

	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

func (a *API) serveAssignment(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	switch r.Method {
	case http.MethodGet:
		v, err := a.RoleAssignment(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPut:
		var b assignmentBody
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		v, created, err := a.PutRoleAssignment(r.Context(), q.c, id, b)
		return answer(w, status(created), v, err)
	case http.MethodDelete:
		v, existed, err := a.DeleteRoleAssignment(r.Context(), q.c, id)
		return answerDeleted(w, v, existed, err)
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

func (a *API) serveAssignments(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	f, err := assignmentFilter(q.q.Get("$filter"))
	if err != nil {
		return err
	}
	l, err := a.RoleAssignments(r.Context(), q.c, probe.Scope(), f, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

func (a *API) serveDefinition(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	switch r.Method {
	case http.MethodGet:
		v, err := a.RoleDefinition(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPut:
		var b definitionBody
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		v, err := a.PutRoleDefinition(r.Context(), q.c, id, b)
		return answer(w, http.StatusCreated, v, err) // also of one that was there: clients take nothing else
	case http.MethodDelete:
		v, existed, err := a.DeleteRoleDefinition(r.Context(), q.c, id)
		return answerDeleted(w, v, existed, err)
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

func (a *API) serveDefinitions(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	f, err := definitionFilter(q.q.Get("$filter"))
	if err != nil {
		return err
	}
	l, err := a.RoleDefinitions(r.Context(), q.c, probe.Scope(), f, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

func (a *API) serveDenial(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	switch r.Method {
	case http.MethodGet:
		v, err := a.DenyAssignment(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPut:
		var b denialBody
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		v, created, err := a.PutDenyAssignment(r.Context(), q.c, id, b)
		return answer(w, status(created), v, err)
	case http.MethodDelete:
		v, existed, err := a.DeleteDenyAssignment(r.Context(), q.c, id)
		return answerDeleted(w, v, existed, err)
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

func (a *API) serveDenials(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	f, err := denialFilter(q.q.Get("$filter"))
	if err != nil {
		return err
	}
	l, err := a.DenyAssignments(r.Context(), q.c, probe.Scope(), f, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

func (a *API) servePermissions(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	l, err := a.Permissions(r.Context(), q.c, probe.Scope())
	return a.answerList(w, r, q, l, err)
}

// answerDeleted answers a DELETE with what was there, as ARM does of these.
func answerDeleted(w http.ResponseWriter, v View, existed bool, err error) error {
	if err == nil && !existed {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return answer(w, http.StatusOK, v, err)
}
