package arm

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// cutLast cuts a text at its last slash.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// onward is the answer of a [Read] that has pages: Next is where the next begins,
// "" on the last.
type onward struct {
	View
	Next string
}

// serveRead serves what can be read of a resource and is no resource.
func (a *API) serveRead(w http.ResponseWriter, r *http.Request, q request, id resource.ID, read Read) error {
	if r.Method != http.MethodGet && (r.Method != http.MethodPost || !read.Post) {
		return notAllowed(r, "GET")
	}
	t, err := a.typeOf(id)
	if err != nil {
		return err
	}
	needs := read.Needs
	if needs == "" {
		needs = t.Name + "/" + read.Name + "/read"
	}
	ev, err := a.permit(r.Context(), q.c, needs, id)
	if err != nil {
		return err
	}
	res, err := a.Store.Resource(r.Context(), q.c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return a.refuse(r.Context(), ev, problem.Of(notFound(id)))
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", id, err)
	}
	v, err := read.Do(r.Context(), a, res, q.q)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return a.refuse(r.Context(), ev, p)
	}
	if err != nil {
		return err
	}
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	if p, ok := v.(onward); ok {
		if v = p.View; p.Next != "" {
			if p.View["nextLink"], err = a.nextLink(r.Context(), q, p.Next); err != nil {
				return err
			}
		}
	}
	return web.WriteJSON(w, http.StatusOK, v)
}
