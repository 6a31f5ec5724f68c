package arm

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// Handler serves management.{domain}. authenticate finds the caller behind a
// request's token.
func (a *API) Handler(log *slog.Logger, authenticate func(ctx context.Context, r *http.Request) (access.Caller, error)) http.Handler {
	table := router{nouns: nouns(), paths: paths()}
	s := &web.Surface{Name: "management", Log: log, Write: a.writeProblem}
	return s.Handle(func(w http.ResponseWriter, r *http.Request) error {
		segs, ok := web.Path(r)
		if strings.EqualFold(strings.Join(segs, "/"), "metadata/endpoints") {
			return a.serveEndpoints(w, r)
		}
		c, err := authenticate(r.Context(), r)
		if err != nil {
			return err
		}
		q := request{c: c, path: "/" + strings.Join(segs, "/")}
		if !ok || len(segs) == 0 {
			err = problem.Errorf(problem.Invalid, "The path is not a resource ID.")
		} else if q.q, err = query(r); err == nil {
			err = apiVersion(q.q)
		}
		if err == nil {
			err = table.route(a, w, r, q)
		}
		return a.onRecord(r, q, err)
	})
}

// recorded is a refusal that is on record.
type recorded struct{ p *problem.Error }

func (e recorded) Error() string { return e.p.Error() }

func (e recorded) Unwrap() error { return e.p }

// onRecord records a refusal that the API came to before it knew what was
// asked: an unknown type, a body that cannot be read. The others are on record.
func (a *API) onRecord(r *http.Request, q request, err error) error {
	if err == nil {
		return nil
	}
	p := problem.Of(err)
	if _, ok := errors.AsType[recorded](err); ok || p.Kind == problem.Internal || p.Kind == problem.Unavailable {
		return err
	}
	verb, ok := map[string]string{"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}[r.Method]
	if !ok {
		verb = "action"
	}
	return a.refuse(r.Context(), a.event(q.c, "Innate.Management/requests/"+verb, q.on()), p)
}

type request struct {
	c    access.Caller
	q    url.Values
	path string
}

// on is the resource that the path names, the root if it names none: for the
// record of what is not known to be of any.
func (q request) on() resource.ID {
	id, err := resource.Parse(q.path)
	if err != nil {
		return resource.Root
	}
	return id
}

// query decodes the query; keys compare without case, and one that is read
// may be there once.
func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem.Errorf(problem.Invalid, "The query string cannot be decoded.")
	}
	out := url.Values{}
	for k, v := range q {
		out[strings.ToLower(k)] = append(out[strings.ToLower(k)], v...)
	}
	for _, k := range []string{"api-version", "$filter", "$skiptoken", "$top", "$expand", "follow", "after"} {
		if len(out[k]) > 1 {
			return nil, problem.Errorf(problem.Invalid, "The query parameter '%s' is there more than once.", k)
		}
	}
	return out, nil
}

var version = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(-[a-z]+)?$`)

// apiVersion checks the parameter. Its value changes nothing: what clients of
// all versions need is in the one shape.
func apiVersion(q url.Values) error {
	v := q.Get("api-version")
	if v == "" {
		return problem.Errorf(problem.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if !version.MatchString(v) {
		return problem.Errorf(problem.BadAPIVersion, "The api-version '%s' is invalid; a date (2024-11-30) was expected, perhaps with -preview.", problem.Clip(v))
	}
	return nil
}

func (a *API) serveResource(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	switch r.Method {
	case http.MethodGet:
		v, err := a.Get(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodHead:
		if _, err := a.Get(r.Context(), q.c, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case http.MethodPut, http.MethodPatch, http.MethodDelete:
		return a.serveWrite(w, r, q, id)
	}
	return notAllowed(r, "GET, HEAD, PUT, PATCH and DELETE")
}

// serveWrite serves what changes a resource, and may take long.
func (a *API) serveWrite(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	t, err := a.typeOf(id)
	if err != nil {
		return err
	}
	cond := condition(r)
	o := longOperation{target: id, action: t.Name + "/write", style: t.Polling}
	if r.Method == http.MethodDelete {
		o.action = t.Name + "/delete"
		o.do = func(ctx context.Context) (reply, error) {
			existed, err := a.Delete(ctx, q.c, id, cond)
			if err == nil && !existed {
				return reply{status: http.StatusNoContent}, nil
			}
			return reply{http.StatusOK, View{}}, err
		}
		return a.longRunning(w, r, q, o)
	}
	var doc Document
	if err := web.ReadJSON(r, &doc); err != nil {
		return err
	}
	if doc == nil {
		return problem.Errorf(problem.Invalid, "The request content is null; an object was expected.")
	}
	o.do = func(ctx context.Context) (reply, error) {
		v, created, err := a.Put(ctx, q.c, id, doc, r.Method == http.MethodPatch, cond)
		return reply{status(created), v}, err
	}
	return a.longRunning(w, r, q, o)
}

func condition(r *http.Request) Condition {
	return Condition{Match: r.Header.Get("If-Match"), NoneMatch: r.Header.Get("If-None-Match") == "*"}
}

func status(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func notAllowed(r *http.Request, have string) error {
	return problem.Errorf(problem.MethodNotAllowed, "The method %s is not possible here; there are %s.", r.Method, have)
}

// answer writes a view, with its ETag as a header too.
func answer(w http.ResponseWriter, status int, v View, err error) error {
	if err != nil {
		return err
	}
	if e, ok := v["etag"].(string); ok {
		w.Header().Set("ETag", `"`+e+`"`)
	}
	return web.WriteJSON(w, status, v)
}

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
		if err == nil && !existed {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		return answer(w, http.StatusOK, v, err)
	}
	return notAllowed(r, "GET, PUT and DELETE")
}

func (a *API) serveDefinition(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if r.Method != http.MethodGet {
		return problem.Errorf(problem.NotSupported, "Custom roles are not supported in this version; the built-in roles are at %s/providers/Microsoft.Authorization/roleDefinitions.", strings.TrimSuffix(id.Scope().String(), "/"))
	}
	v, err := a.RoleDefinition(r.Context(), q.c, id)
	return answer(w, http.StatusOK, v, err)
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

func (a *API) serveDefinitions(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	name, err := definitionFilter(q.q.Get("$filter"))
	if err != nil {
		return err
	}
	l, err := a.RoleDefinitions(r.Context(), q.c, probe.Scope(), name)
	return a.answerList(w, r, q, l, err)
}

// serveCollection serves .../{type}; probe is the ID of an imagined member.
func (a *API) serveCollection(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	return a.serveList(w, r, q, probe.Parent(), probe.Type())
}

func (a *API) serveList(w http.ResponseWriter, r *http.Request, q request, parent resource.ID, typ string) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	l, err := listQuery(q.q, typ)
	if err != nil {
		return err
	}
	out, err := a.List(r.Context(), q.c, parent, l)
	return a.answerList(w, r, q, out, err)
}

// assignmentFilter reads the filter of a list of role assignments.
func assignmentFilter(s string) (AssignmentFilter, error) {
	var out AssignmentFilter
	f, err := odata.Parse(s)
	if err != nil {
		return out, err
	}
	const can = "atScope() and one of principalId eq '{id}' and assignedTo('{id}'), joined by and,"
	terms, ok := f.Terms()
	if !ok {
		return out, problem.Errorf(problem.BadFilter, "The $filter has or or not; %s can be asked here.", can).At("$filter")
	}
	for _, t := range terms {
		id, _ := t.Text()
		if t.Calls("assignedTo", odata.Text) {
			id = t.Values[0].Text
		}
		switch {
		case t.Calls("atScope"):
			out.AtScope = true
		case id != "" && out.Principal == "" && (t.Is("principalId", odata.Eq) || t.Is("assignedTo", odata.Call)):
			out.Principal = id
		default:
			return AssignmentFilter{}, t.Unknown(can)
		}
	}
	return out, nil
}

// definitionFilter reads the filter of a list of role definitions: a role's
// name, "" for all.
func definitionFilter(s string) (name string, err error) {
	f, err := odata.Parse(s)
	if err != nil {
		return "", err
	}
	err = f.Check("atScopeAndBelow(), type eq 'BuiltInRole' and roleName eq '{name}'", func(t odata.Term) bool {
		text, _ := t.Text()
		switch {
		case f.Join != odata.Leaf:
			return false
		case t.Is("roleName", odata.Eq):
			name = text
			return name != ""
		}
		return t.Calls("atScopeAndBelow") || t.Calls("atScope") || t.Is("type", odata.Eq) && strings.EqualFold(text, "BuiltInRole")
	})
	return name, err
}

// answerList writes a page with the absolute URL of the next.
func (a *API) answerList(w http.ResponseWriter, r *http.Request, q request, l List, err error) error {
	if err != nil {
		return err
	}
	out := map[string]any{"value": l.Value}
	if l.Next != "" {
		next := q.q
		next.Set("$skiptoken", l.Next)
		out["nextLink"] = a.Names.Management() + (&url.URL{Path: q.path}).EscapedPath() + "?" + next.Encode()
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

func (a *API) serveAction(w http.ResponseWriter, r *http.Request, q request, id resource.ID, name string) error {
	t, err := a.typeOf(id)
	if err != nil {
		return err
	}
	act, ok := t.Actions[strings.ToLower(name)]
	if !ok && !id.GroupID().IsZero() && !id.Equal(id.GroupID()) {
		act, ok = a.Common[strings.ToLower(name)]
	}
	if !ok {
		return problem.Errorf(problem.NotFound, "The action '%s' is not one of %s.", problem.Clip(name), t.Name)
	}
	var body json.RawMessage
	if act.With != nil {
		if err := web.ReadJSON(r, &body); err != nil {
			return err
		}
	}
	v, err := a.act(r.Context(), q.c, t, act, id, body)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, v)
}

func (a *API) act(ctx context.Context, c access.Caller, t *Type, act Action, id resource.ID, body json.RawMessage) (any, error) {
	needs := act.Needs
	if needs == "" {
		needs = t.Name + "/" + act.Name + "/action"
	}
	ev, err := a.permit(ctx, c, needs, id)
	if err != nil {
		return nil, err
	}
	res, err := a.Store.Resource(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, a.refuse(ctx, ev, problem.Of(notFound(id)))
	}
	if err != nil {
		return nil, err
	}
	var v any
	if act.With != nil {
		v, err = act.With(ctx, c, res, body, &ev)
	} else {
		v, err = act.Do(ctx, c, res, &ev)
	}
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		ev.Outcome = audit.Refused
		return nil, a.refuse(ctx, ev, p)
	}
	return v, err
}
