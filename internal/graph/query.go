package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
)

// Page sizes, as Graph has them.
const (
	pageSize = 100
	maxPage  = 999
)

// options are the query options of a request (OData 4.01 part 2, section 5.1).
type options struct {
	filter odata.Filter
	// selected are the members that are wanted; none means all.
	selected []string
	top      int
	count    bool
	// skip is the token of the page, and after where it begins.
	skip  string
	after Place
	raw   url.Values
}

// known are the options that are read, and others that change nothing here.
var known = map[string]bool{"$filter": true, "$select": true, "$top": true, "$count": true, "$skiptoken": true, "api-version": true, "$format": true}

// readOptions reads the query. An option that is not known and would change the
// answer is refused: without it the answer would be another than was asked for.
func readOptions(raw string) (options, error) {
	o := options{top: pageSize}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return o, problem.Errorf(problem.Invalid, "The query string cannot be decoded.")
	}
	get := map[string]string{}
	for k, v := range q {
		name := strings.ToLower(k)
		if _, twice := get[name]; twice || len(v) > 1 {
			return o, problem.Errorf(problem.Invalid, "The query option '%s' is there more than once.", problem.Clip(k))
		}
		if strings.HasPrefix(name, "$") && !known[name] {
			return o, problem.Errorf(problem.NotSupported, "The query option '%s' is not supported; $filter, $select, $top, $count and $skiptoken are.", problem.Clip(k))
		}
		get[name] = v[0]
	}
	o.raw = q
	if o.filter, err = odata.Parse(get["$filter"]); err != nil {
		return o, err
	}
	for m := range strings.SplitSeq(get["$select"], ",") {
		if m = strings.TrimSpace(m); m != "" {
			o.selected = append(o.selected, m)
		}
	}
	if t, ok := get["$top"]; ok {
		if o.top, err = strconv.Atoi(t); err != nil || o.top < 1 || o.top > maxPage {
			return o, problem.Errorf(problem.Invalid, "Invalid page size specified: '%s'. Must be between 1 and %d inclusive.", problem.Clip(t), maxPage)
		}
	}
	switch c := get["$count"]; {
	case strings.EqualFold(c, "true"):
		o.count = true
	case c != "" && !strings.EqualFold(c, "false"):
		return o, problem.Errorf(problem.Invalid, "The query option '$count' is '%s'; true or false was expected.", problem.Clip(c))
	}
	o.skip = get["$skiptoken"]
	return o, nil
}

// openPlace reads where the page begins from the token that the client was given.
func (g *Graph) openPlace(ctx context.Context, c access.Caller, token string) (p Place, err error) {
	text, err := g.Cursors.Place(ctx, readerOf(c), token)
	if err != nil || text == "" {
		return Place{}, err
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return Place{}, fmt.Errorf("decoding a place in a list: %w", err)
	}
	return p, nil
}

// token is what the client goes on from p by.
func (g *Graph) token(ctx context.Context, c access.Caller, p Place) (string, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encoding a place in a list: %w", err)
	}
	return g.Cursors.Token(ctx, readerOf(c), string(b))
}

func readerOf(c access.Caller) cursor.Reader {
	return cursor.Reader{API: "graph", Tenant: c.Tenant, Principal: c.Principal}
}

// only refuses options that what is asked has not.
func (o options) only(names ...string) error {
	for k := range o.raw {
		name := strings.ToLower(k)
		if !strings.HasPrefix(name, "$") || name == "$format" {
			continue
		}
		ok := false
		for _, n := range names {
			ok = ok || n == name
		}
		if !ok {
			return problem.Errorf(problem.NotSupported, "The query option '%s' is not supported here.", problem.Clip(k))
		}
	}
	return nil
}

// pick leaves the members of o that were selected. Annotations are always there.
func (o options) pick(typ string, obj object) (object, error) {
	if len(o.selected) == 0 {
		return obj, nil
	}
	out := object{}
	for k, v := range obj {
		if strings.HasPrefix(k, "@") {
			out[k] = v
		}
	}
	for _, want := range o.selected {
		found := false
		for k, v := range obj {
			if strings.EqualFold(k, want) && !strings.HasPrefix(k, "@") {
				out[k], found = v, true
			}
		}
		if !found {
			return nil, problem.Errorf(problem.Invalid, "Parsing OData Select and Expand failed: Could not find a property named '%s' on type 'microsoft.graph.%s'.", problem.Clip(want), typ)
		}
	}
	return out, nil
}
