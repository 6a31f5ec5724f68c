package arm

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const actionTagNames = typeSubscription + "/tagNames/read"

// serveTagNames serves /subscriptions/{s}/tagNames: which tags are in use. There
// is nothing to create first, as ARM has it: a tag is there while something has it.
func (a *API) serveTagNames(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	l, err := a.TagNames(r.Context(), q.c, sub)
	return a.answerList(w, r, q, l, err)
}

// TagNames lists the tags of a subscription, its groups and its resources, each
// with its values and how many have them.
func (a *API) TagNames(ctx context.Context, c access.Caller, sub resource.ID) (List, error) {
	ev, err := a.permit(ctx, c, actionTagNames, sub)
	if err != nil {
		return List{}, err
	}
	self, err := a.Store.Resource(ctx, c.Tenant, sub.Key())
	if problem.Is(err, problem.NotFound) {
		return List{}, a.refuse(ctx, ev, problem.Of(notFound(sub)))
	}
	if err != nil {
		return List{}, fmt.Errorf("reading %s: %w", sub, err)
	}
	use, hidden := tagUse{}, a.denials(c)
	use.add(self)
	for after, more := "", true; more; {
		rows, err := a.Store.Resources(ctx, c.Tenant, sub.Key(), "", Page{After: after, Limit: PageSize})
		if err != nil {
			return List{}, fmt.Errorf("reading the tags in %s: %w", sub, err)
		}
		for _, r := range rows {
			after = r.ID.Key()
			if denied, err := hidden.refuse(ctx, r.Type+"/read", r.ID); err != nil {
				return List{}, err
			} else if !denied {
				use.add(r)
			}
		}
		more = len(rows) == PageSize
	}
	return List{Value: use.views(sub)}, a.read(ctx, ev)
}

// tagUse counts values by the tag's name in lower case: names compare without
// case, values with it.
type tagUse map[string]*usedTag

type usedTag struct {
	name   string // as the first one has it
	values map[string]int
}

func (u tagUse) add(r Resource) {
	for name, value := range tagsOf(r.Body) {
		t := u[lower(name)]
		if t == nil {
			t = &usedTag{name, map[string]int{}}
			u[lower(name)] = t
		}
		t.values[value]++
	}
}

func (u tagUse) views(sub resource.ID) []View {
	out := []View{}
	for _, key := range slices.Sorted(maps.Keys(u)) {
		t := u[key]
		id := sub.String() + "/tagNames/" + t.name
		total, values := 0, []View{}
		for _, v := range slices.Sorted(maps.Keys(t.values)) {
			total += t.values[v]
			values = append(values, View{"id": id + "/tagValues/" + v, "tagValue": v, "count": tagCount(t.values[v])})
		}
		out = append(out, View{"id": id, "tagName": t.name, "count": tagCount(total), "values": values})
	}
	return out
}

func tagCount(n int) View { return View{"type": "Total", "value": n} }
