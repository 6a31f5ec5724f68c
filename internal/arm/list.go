package arm

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// PageSize is how many items a list answer has.
const PageSize = 100

// scanned is how many rows one page looks at where no index serves the filter.
// Then a page can be short, or empty, and have a next one.
const scanned = 2000

// List is one page of a list and where the next begins.
type List struct {
	Value []View
	// Next is where the next page begins: mostly the key of the last that was
	// looked at. Clients get it sealed. "" on the last.
	Next string
}

// ListQuery is what is asked of a list of resources.
type ListQuery struct {
	// Type is the one type asked for; "" is the mixed list of all.
	Type string
	// After is the key that the page begins after.
	After string
	// Top is how many items the page may have.
	Top    int
	Filter odata.Filter
	// Expand adds createdTime, changedTime and provisioningState.
	Expand []string
}

// listQuery reads the query of a list.
func listQuery(q url.Values, typ string) (ListQuery, error) {
	out := ListQuery{Type: typ, Top: PageSize}
	var err error
	if out.Filter, err = odata.Parse(q.Get("$filter")); err != nil {
		return out, err
	}
	if err := out.Filter.Check(filterable, out.knows); err != nil {
		return out, err
	}
	out.After = q.Get("$skiptoken")
	if out.Top, err = top(q); err != nil {
		return out, err
	}
	if s := q.Get("$expand"); s != "" && typ == "" { // a type's own list ignores what it does not know, as services do
		out.Expand = strings.Split(s, ",")
	}
	for i, e := range out.Expand {
		j := slices.IndexFunc(expandable, func(have string) bool { return strings.EqualFold(have, strings.TrimSpace(e)) })
		if j < 0 {
			return out, problem.Errorf(problem.Invalid, "The query parameter '$expand' has '%s'; %s were expected, with commas between.", problem.Clip(e), strings.Join(expandable, ", ")).At("$expand")
		}
		out.Expand[i] = expandable[j]
	}
	return out, nil
}

var expandable = []string{"createdTime", "changedTime", "provisioningState"}

// top reads $top, which can make a page smaller and not larger.
func top(q url.Values) (int, error) {
	s := q.Get("$top")
	if s == "" {
		return PageSize, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, problem.Errorf(problem.Invalid, "The query parameter '$top' is '%s'; a number from 1 on was expected.", problem.Clip(s)).At("$top")
	}
	return min(n, PageSize), nil
}

const filterable = "resourceType, name, resourceGroup, location, tagName and tagValue with eq or ne, identity/principalId with eq, " +
	"startswith(tagName, 'x') and substringof('x', name or resourceGroup)"

// knows reports whether a list can be asked this.
func (l ListQuery) knows(t odata.Term) bool {
	_, text := t.Text()
	switch {
	case t.Op == odata.Eq || t.Op == odata.Ne:
		for _, p := range []string{"name", "resourceGroup", "location", "tagName", "tagValue"} {
			if text && strings.EqualFold(t.Name, p) {
				return true
			}
		}
		return text && (l.Type == "" && strings.EqualFold(t.Name, "resourceType") || t.Is("identity/principalId", odata.Eq))
	case t.Calls("startswith", odata.Property, odata.Text):
		return strings.EqualFold(t.Values[0].Text, "tagName")
	case t.Calls("substringof", odata.Text, odata.Property):
		return strings.EqualFold(t.Values[1].Text, "name") || strings.EqualFold(t.Values[1].Text, "resourceGroup")
	}
	return false
}

// tag is one tag of a resource; the zero tag is none.
type tag struct {
	name, value string
	there       bool
}

// matches decides on a resource. tagName and tagValue speak of one tag: the
// filter holds if it does for some tag, or without any.
func (l ListQuery) matches(r Resource, identities func() []directory.Principal) bool {
	if l.Filter.IsZero() {
		return true
	}
	holds := func(of tag) bool {
		return l.Filter.Match(func(t odata.Term) bool { return l.holds(t, r, of, identities) })
	}
	for name, value := range tagsOf(r.Body) {
		if holds(tag{name, value, true}) {
			return true
		}
	}
	return holds(tag{})
}

func (l ListQuery) holds(t odata.Term, r Resource, of tag, identities func() []directory.Principal) bool {
	switch {
	case t.Calls("startswith", odata.Property, odata.Text):
		return of.there && strings.HasPrefix(lower(of.name), lower(t.Values[1].Text))
	case t.Calls("substringof", odata.Text, odata.Property):
		in := r.ID.Name()
		if !strings.EqualFold(t.Values[1].Text, "name") {
			in = r.ID.Group()
		}
		return strings.Contains(lower(in), lower(t.Values[0].Text))
	}
	want, _ := t.Text()
	var is bool
	switch lower(t.Name) {
	case "resourcetype":
		is = lower(r.Type) == lower(want)
	case "name":
		is = lower(r.ID.Name()) == lower(want)
	case "resourcegroup":
		is = lower(r.ID.Group()) == lower(want)
	case "location":
		is = normal(location(r.Body)) == normal(want)
	case "tagname":
		is = of.there && lower(of.name) == lower(want)
	case "tagvalue":
		is = of.there && of.value == want
	case "identity/principalid":
		is = slices.ContainsFunc(identities(), func(p directory.Principal) bool { return strings.EqualFold(p.ID, want) })
	}
	return is == (t.Op == odata.Eq)
}

// source is where rows come from: the narrowest index that the filter needs.
type source struct{ under, typ, term string }

// source picks the index.
func (l ListQuery) source(parent resource.ID) source {
	s := source{under: parent.Key(), typ: l.Type}
	terms := map[string]string{}
	for _, t := range l.Filter.Needed() {
		if text, ok := t.Text(); ok && t.Op == odata.Eq {
			terms[lower(t.Name)] = text
		}
	}
	if g, ok := terms["resourcegroup"]; ok && parent.Group() == "" && !parent.SubscriptionID().IsZero() {
		if id, err := resource.Parse(parent.SubscriptionID().String() + "/resourceGroups/" + g); err == nil {
			s.under = id.Key()
		}
	}
	if l.Type == "" {
		s.typ = terms["resourcetype"]
	}
	name, named := terms["name"]
	tagName, tagged := terms["tagname"]
	value, valued := terms["tagvalue"]
	switch {
	case named:
		s.term = TermName(name)
	case tagged && valued:
		s.term = TermTagged(tagName, value)
	case tagged:
		s.term = TermTag(tagName)
	}
	return s
}

// rows reads some rows after a key.
func (a *API) rowsFrom(ctx context.Context, tenant string, s source, p Page) ([]Resource, error) {
	if s.term != "" {
		return a.Store.ResourcesWith(ctx, tenant, s.under, s.term, p)
	}
	return a.Store.Resources(ctx, tenant, s.under, s.typ, p)
}

// List lists the resources below parent.
func (a *API) List(ctx context.Context, c access.Caller, parent resource.ID, l ListQuery) (List, error) {
	action := "Microsoft.Resources/subscriptions/resources/read"
	if l.Type != "" {
		t, err := a.typeNamed(l.Type)
		if err != nil {
			return List{}, err
		}
		l.Type, action = t.Name, t.Name+"/read"
	}
	ev, err := a.permit(ctx, c, action, parent)
	if err != nil {
		return List{}, err
	}
	if err := a.knownTypes(l.Filter); err != nil {
		return List{}, a.refuse(ctx, ev, problem.Of(err))
	}
	if !parent.IsRoot() {
		if _, err := a.Store.Resource(ctx, c.Tenant, parent.Key()); problem.Is(err, problem.NotFound) {
			return List{}, a.refuse(ctx, ev, problem.Of(notFound(parent)))
		} else if err != nil {
			return List{}, fmt.Errorf("reading %s: %w", parent, err)
		}
	}
	out, err := a.page(ctx, c, parent, l)
	if err != nil {
		return List{}, err
	}
	return out, a.read(ctx, ev)
}

// knownTypes refuses a filter for a type that is not known, which would list
// nothing without a word.
func (a *API) knownTypes(f odata.Filter) error {
	for _, t := range f.Needed() {
		if text, ok := t.Text(); ok && t.Is("resourceType", odata.Eq) {
			if _, err := a.typeNamed(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// page fills one page.
func (a *API) page(ctx context.Context, c access.Caller, parent resource.ID, l ListQuery) (List, error) {
	out := List{Value: []View{}}
	hidden := a.denials(c)
	s := l.source(parent)
	after, known := l.After, "" // known is the last row that the caller may know of
	for seen := 0; seen < scanned; {
		batch := l.Top - len(out.Value) + 1
		if !l.Filter.IsZero() {
			batch = max(batch, PageSize)
		}
		// Where some are not shown more of them may follow, or none.
		batch = max(batch, min(PageSize, 10*(seen-len(out.Value))))
		rs, err := a.rowsFrom(ctx, c.Tenant, s, Page{After: after, Limit: batch})
		if err != nil {
			return out, fmt.Errorf("listing below %s: %w", parent, err)
		}
		seen += len(rs)
		have, err := a.holdings(ctx, c.Tenant, l, rs)
		if err != nil {
			return out, err
		}
		for _, r := range rs {
			if len(out.Value) == l.Top {
				out.Next = known
				return out, nil
			}
			after = r.ID.Key()
			if denied, err := hidden.refuse(ctx, r.Type+"/read", r.ID); err != nil {
				return out, err
			} else if denied {
				continue // it is not read by itself, and so not here
			}
			known = after
			if v := a.listed(c, l, r, have); v != nil {
				out.Value = append(out.Value, v)
			}
		}
		if len(rs) < batch {
			return out, nil
		}
	}
	out.Next = cmp.Or(known, after)
	return out, nil
}

// holdings reads who belongs to the rows that the list may show, all at once: a
// page costs the same few queries however many items it has.
func (a *API) holdings(ctx context.Context, tenant string, l ListQuery, rs []Resource) (map[string]Holding, error) {
	var keys []string
	for _, r := range rs {
		if t := a.listable(l, r); t != nil {
			keys = append(keys, directory.Holder(r.ID).Key())
			if t.OwnPrincipal != "" {
				keys = append(keys, r.ID.Key())
			}
		}
	}
	have, err := a.Store.Holdings(ctx, tenant, keys)
	if err != nil {
		return nil, fmt.Errorf("reading the identities of a page: %w", err)
	}
	return have, nil
}

// listable is the type of a row that the list is about; nil if it is not.
func (a *API) listable(l ListQuery, r Resource) *Type {
	t, ok := a.Types[strings.ToLower(r.Type)]
	switch {
	case !ok, l.Type != "" && r.Type != l.Type:
		return nil
	case l.Type == "" && (r.Type == typeGroup || r.Type == typeSubscription || t.Extension || t.AnyScope):
		return nil // they are no "resources" to ARM's mixed list
	}
	return t
}

// listed is a row as the list shows it; nil if it does not.
func (a *API) listed(c access.Caller, l ListQuery, r Resource, all map[string]Holding) View {
	t := a.listable(l, r)
	if t == nil {
		return nil
	}
	have := all[directory.Holder(r.ID).Key()].Identities
	if !l.matches(r, func() []directory.Principal { return have }) {
		return nil
	}
	var own directory.Principal
	if t.OwnPrincipal != "" {
		if own = all[r.ID.Key()].Own; own.ID == "" {
			return nil // deleted since the row was read
		}
	}
	v := t.view(a.Names.Asked(c.Asked), r, have, own)
	for _, e := range l.Expand {
		v[e] = map[string]string{"createdTime": stamp(r.Created), "changedTime": stamp(r.Updated), "provisioningState": Succeeded}[e]
	}
	return v
}

// cut makes a page of what was read, one row more than a page, and where the
// next begins if there is one.
func cut[T any](rows []T, key func(T) string) (page []T, next string) {
	if len(rows) <= PageSize {
		return rows, ""
	}
	return rows[:PageSize], key(rows[PageSize-1])
}

// sift reads a page of the rows that shows lets through, after a key. Where it
// has looked at [scanned] of them the page is short, and there may be more. The
// next page begins after the last row that is shown: a place at one that is hidden
// tells something to who keeps its token, and only where none is shown it must.
func sift[T any](after string, read func(Page) ([]T, error), key func(T) string, shows func(T) (bool, error)) (page []T, next string, err error) {
	shown := ""
	for seen := 0; seen < scanned; {
		rows, err := read(Page{After: after, Limit: PageSize + 1})
		if err != nil {
			return nil, "", err
		}
		seen += len(rows)
		for _, r := range rows {
			if len(page) == PageSize {
				return page, shown, nil
			}
			after = key(r)
			ok, err := shows(r)
			if err != nil {
				return nil, "", err
			}
			if ok {
				page, shown = append(page, r), after
			}
		}
		if len(rows) <= PageSize {
			return page, "", nil
		}
	}
	return page, cmp.Or(shown, after), nil
}

// openPlace puts into the query, in the place of the token that the client was
// given, where the page begins: below, $skiptoken is a place.
func (a *API) openPlace(ctx context.Context, q request) error {
	if !q.q.Has("$skiptoken") {
		return nil
	}
	place, err := a.Cursors.Place(ctx, q.reader(), q.q.Get("$skiptoken"))
	q.q.Set("$skiptoken", place)
	return err
}

// nextLink is the absolute URL of the page that begins at place.
func (a *API) nextLink(ctx context.Context, q request, place string) (string, error) {
	token, err := a.Cursors.Token(ctx, q.reader(), place)
	if err != nil {
		return "", err
	}
	next := maps.Clone(q.q)
	next.Del("$skip") // the place says it
	next.Set("$skiptoken", token)
	return a.Names.Asked(q.c.Asked).Management() + (&url.URL{Path: q.path}).EscapedPath() + "?" + next.Encode(), nil
}

func (q request) reader() cursor.Reader {
	return cursor.Reader{API: "management", Tenant: q.c.Tenant, Principal: q.c.Principal}
}
