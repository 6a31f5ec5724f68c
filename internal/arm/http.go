package arm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// Handler serves management.{domain}. authenticate finds the caller behind a
// request's token.
func (a *API) Handler(log *slog.Logger, authenticate func(ctx context.Context, r *http.Request) (access.Caller, error)) http.Handler {
	table := router{nouns: nouns(), paths: paths()}
	s := &web.Surface{Name: "management", Log: log, Write: a.writeProblem, Again: Again}
	return s.Handle(func(w http.ResponseWriter, r *http.Request) error {
		sayHeaders(w, r, a.Now())
		segs, ok := web.Path(r)
		if strings.EqualFold(strings.Join(segs, "/"), "metadata/endpoints") {
			return a.serveEndpoints(w, r)
		}
		c, err := authenticate(r.Context(), r)
		if err != nil {
			return err
		}
		q := request{c: c, path: "/" + strings.Join(segs, "/")}
		left, err := a.Admit(r.Context(), c, r.Method, q.subscription())
		left.say(w.Header())
		if err == nil {
			err = a.serve(table, w, r, q, ok && len(segs) > 0)
		}
		return a.onRecord(r, q, err)
	})
}

// serve serves a request of a known caller; ok says that its path is one.
func (a *API) serve(table router, w http.ResponseWriter, r *http.Request, q request, ok bool) (err error) {
	if !ok {
		return problem.Errorf(problem.BadID, "The path is not a resource ID.")
	}
	if q.q, err = query(r); err != nil {
		return err
	}
	if err := apiVersion(q.q); err != nil {
		return err
	}
	if err := a.openPlace(r.Context(), q); err != nil {
		return err
	}
	return table.route(a, w, r, q)
}

// recorded is a refusal that is on record.
type recorded struct{ p *problem.Error }

func (e recorded) Error() string { return e.p.Error() }

func (e recorded) Unwrap() error { return e.p }

// OnRecord reports whether err is a refusal that is on record: another surface
// over the API has only to write it.
func OnRecord(err error) bool {
	_, ok := errors.AsType[recorded](err)
	return ok
}

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
		return nil, problem.Errorf(problem.Invalid, "The query string cannot be decoded; percent-encoded UTF-8 was expected.")
	}
	out := url.Values{}
	for k, v := range q {
		out[strings.ToLower(k)] = append(out[strings.ToLower(k)], v...)
	}
	for _, k := range []string{"api-version", "$filter", "$expand", "$recurse", "$orderby", "$top", "$skip", "$skiptoken", "follow", "after"} {
		if len(out[k]) > 1 {
			return nil, problem.Errorf(problem.Invalid, "The query parameter '%s' is there more than once.", k).At(k)
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
		return problem.Errorf(problem.MissingAPIVersion, "The api-version query parameter (?api-version=) is required for all requests.").At("api-version")
	}
	if !version.MatchString(v) {
		return problem.Errorf(problem.BadAPIVersion, "The api-version '%s' is invalid; a date (2024-11-30) was expected, perhaps with -preview.", problem.Clip(v)).At("api-version")
	}
	return nil
}

func (a *API) serveResource(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	switch r.Method {
	case http.MethodGet:
		v, err := a.GetExpanded(r.Context(), q.c, id, q.q.Get("$expand"))
		if v.changes() { // without, clients that poll wait for half a minute
			w.Header().Set("Retry-After", "1")
		}
		return answer(w, http.StatusOK, v, err)
	case http.MethodHead:
		v, err := a.Get(r.Context(), q.c, id)
		if err != nil {
			return err
		}
		if e, ok := v["etag"].(string); ok {
			w.Header().Set("ETag", `"`+e+`"`)
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
	cond, err := condition(r)
	if err != nil {
		return err
	}
	o := longOperation{target: id, action: t.Name + "/write", style: t.polling(r.Method)}
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
		return problem.Errorf(problem.Invalid, "The request content is null; an object was expected.").At("$")
	}
	o.begun = t.begun(r.Method)
	o.do = func(ctx context.Context) (reply, error) {
		v, created, err := a.Put(ctx, q.c, id, doc, r.Method == http.MethodPatch, cond)
		return reply{t.made(created), v}, err
	}
	return a.longRunning(w, r, q, o)
}

// polling is how clients wait for what a method does.
func (t *Type) polling(method string) Polling {
	if slices.Contains(t.Waited, method) {
		return PollNever
	}
	return t.Polling
}

// begun is the status of what goes on: clients of Compute take no 202 for a PUT
// or PATCH, and those that take no 201 take 202.
func (t *Type) begun(method string) int {
	switch {
	case method == http.MethodPatch:
		return http.StatusOK
	case t.Made != 0:
		return http.StatusAccepted
	}
	return http.StatusCreated
}

// made is the status of a PUT that made a resource or not.
func (t *Type) made(created bool) int {
	if created && t.Made != 0 {
		return t.Made
	}
	return status(created)
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
	e, ok := v["etag"].(string)
	if !ok {
		e, ok = v["eTag"].(string)
	}
	if ok {
		w.Header().Set("ETag", `"`+e+`"`)
	}
	return web.WriteJSON(w, status, v)
}

// serveCollection serves .../{type}; probe is the ID of an imagined member.
func (a *API) serveCollection(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	if on := probe.Parent(); a.Types[strings.ToLower(on.Type())] != nil {
		_, name, _ := cutLast(probe.Type())
		if read, ok := a.Types[strings.ToLower(on.Type())].Reads[strings.ToLower(name)]; ok {
			return a.serveRead(w, r, q, on, read)
		}
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

// answerList writes a page with the absolute URL of the next.
func (a *API) answerList(w http.ResponseWriter, r *http.Request, q request, l List, err error) error {
	if err != nil {
		return err
	}
	out := map[string]any{"value": l.Value}
	if l.Next != "" {
		if out["nextLink"], err = a.nextLink(r.Context(), q, l.Next); err != nil {
			return err
		}
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

func (a *API) serveAction(w http.ResponseWriter, r *http.Request, q request, id resource.ID, name string) error {
	t, err := a.typeOf(id)
	if err != nil {
		return err
	}
	if read, ok := t.Reads[strings.ToLower(name)]; ok && read.Post {
		return a.serveRead(w, r, q, id, read)
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
	if !strings.HasSuffix(needs, "/read") && !c.System {
		locks, err := a.Store.Locks(ctx, c.Tenant, keysOf(id.Ancestors()))
		if err != nil {
			return nil, fmt.Errorf("reading the locks of %s: %w", id, err)
		}
		if err := stops(locks, id, false); err != nil {
			return nil, a.refuse(ctx, ev, problem.Of(err))
		}
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
