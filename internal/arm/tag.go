package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// typeTags is the tags of a scope as a resource of their own: who may write
// them need not be allowed to write the resource.
const typeTags = "Microsoft.Resources/tags"

// tagsBody is the body of PUT and PATCH of tags.
type tagsBody struct {
	// Operation is Merge, Replace or Delete, for PATCH.
	Operation  string `json:"operation"`
	Properties struct {
		Tags json.RawMessage `json:"tags"`
	} `json:"properties"`
}

// UnmarshalJSON reads a body as strictly as a [Document].
func (b *tagsBody) UnmarshalJSON(raw []byte) error {
	var d Document
	if err := d.UnmarshalJSON(raw); err != nil {
		return err
	}
	type plain tagsBody
	return json.Unmarshal(raw, (*plain)(b))
}

// serveTags serves {scope}/providers/Microsoft.Resources/tags/default.
func (a *API) serveTags(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if !strings.EqualFold(id.Name(), "default") {
		return problem.Errorf(problem.BadName, "The tags of a scope have the name 'default', not '%s'.", problem.Clip(id.Name()))
	}
	b := tagsBody{Operation: "Replace"}
	switch r.Method {
	case http.MethodGet:
		v, err := a.Tags(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	case http.MethodPatch:
		b.Operation = ""
		fallthrough
	case http.MethodPut:
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
	case http.MethodDelete:
	default:
		return notAllowed(r, "GET, PUT, PATCH and DELETE")
	}
	if r.Method == http.MethodPut {
		b.Operation = "Replace"
	}
	v, err := a.PutTags(r.Context(), q.c, id, b, r.Method == http.MethodDelete)
	return answer(w, http.StatusOK, v, err)
}

// tagged finds the row whose tags id is.
func (a *API) tagged(read func(key string) (Resource, error), id resource.ID) (Resource, error) {
	if _, err := a.typeOf(id.Scope()); err != nil {
		return Resource{}, err
	}
	r, err := read(id.Scope().Key())
	if problem.Is(err, problem.NotFound) {
		return r, notFound(id.Scope())
	}
	return r, err
}

func tagsView(r Resource) View {
	tags := tagsOf(r.Body)
	if tags == nil {
		tags = map[string]string{}
	}
	return View{"id": r.ID.String() + "/providers/" + typeTags + "/default", "name": "default", "type": typeTags, "properties": map[string]any{"tags": tags}}
}

// Tags returns the tags of a scope.
func (a *API) Tags(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	ev, err := a.permit(ctx, c, typeTags+"/read", id.Scope())
	if err != nil {
		return nil, err
	}
	r, err := a.tagged(func(key string) (Resource, error) { return a.Store.Resource(ctx, c.Tenant, key) }, id)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return nil, a.refuse(ctx, ev, p)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the tags of %s: %w", id.Scope(), err)
	}
	return tagsView(r), a.read(ctx, ev)
}

// PutTags changes the tags of a scope and nothing else of it; with all it
// deletes them.
func (a *API) PutTags(ctx context.Context, c access.Caller, id resource.ID, b tagsBody, all bool) (View, error) {
	action := typeTags + "/write"
	if all {
		action = typeTags + "/delete"
	}
	ev, err := a.permit(ctx, c, action, id.Scope())
	if err != nil {
		return nil, err
	}
	if !all && isNull(b.Properties.Tags) {
		err = problem.Errorf(problem.Invalid, "The member 'properties.tags' is missing; an object whose values are strings was expected.").At("properties.tags")
	} else if !all {
		err = cleanTags(b.Properties.Tags)
	}
	if err != nil {
		return nil, a.refuse(ctx, ev, problem.Of(err))
	}
	var v View
	err = a.write(ctx, ev, func(tx Tx) error {
		r, err := a.tagged(tx.Resource, id)
		if err != nil {
			return err
		}
		tags := map[string]string{}
		if !all {
			if tags, err = b.apply(tagsOf(r.Body)); err != nil {
				return err
			}
		}
		Document(r.Body).take("tags")
		Document(r.Body).set("tags", tags)
		if err := cleanTags(r.Body["tags"]); err != nil {
			return err
		}
		if err := compact(r.Body); err != nil {
			return err
		}
		r.Updated, r.UpdatedBy = a.Now(), c.Principal
		v = tagsView(r)
		return tx.PutResource(r)
	})
	return v, err
}

// apply makes of the tags that are those that will be. Names compare without
// case; Delete takes those out that have this value too.
func (b tagsBody) apply(have map[string]string) (map[string]string, error) {
	var want map[string]string
	if err := json.Unmarshal(b.Properties.Tags, &want); err != nil {
		return nil, fmt.Errorf("decoding tags: %w", err) // cleanTags read them
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	switch lower(b.Operation) {
	case "replace":
		return want, nil
	case "merge", "delete":
	default:
		return nil, problem.Errorf(problem.Invalid, "The member 'operation' is '%s'; Merge, Replace or Delete was expected.", problem.Clip(b.Operation)).At("operation")
	}
	for name, value := range want {
		for old, was := range out {
			if lower(old) == lower(name) && (lower(b.Operation) == "merge" || was == value) {
				delete(out, old)
			}
		}
		if lower(b.Operation) == "merge" {
			out[name] = value
		}
	}
	return out, nil
}
