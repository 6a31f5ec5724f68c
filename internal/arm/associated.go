package arm

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// associated is an item of listAssociatedResources.
type associated struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Type           string `json:"type"`
	ResourceGroup  string `json:"resourceGroup"`
	SubscriptionID string `json:"subscriptionId"`
	Subscription   string `json:"subscriptionDisplayName"`
}

// associatedFields are what $filter and $orderby know, by lower-case name.
var associatedFields = map[string]func(associated) string{
	"id":                      func(r associated) string { return r.ID },
	"name":                    func(r associated) string { return r.Name },
	"type":                    func(r associated) string { return r.Type },
	"resourcegroup":           func(r associated) string { return r.ResourceGroup },
	"subscriptionid":          func(r associated) string { return r.SubscriptionID },
	"subscriptiondisplayname": func(r associated) string { return r.Subscription },
}

const associatedWords = "id, name, type, resourceGroup, subscriptionId, subscriptionDisplayName"

// associatedResources lists what a user-assigned identity is attached to. Who
// may ask is told of all of it, also of what they could not read: everything
// listed can be the identity, and that is its owner's to know.
func associatedResources(ctx context.Context, a *API, r Resource, q url.Values) (any, error) {
	keep, err := associatedFilter(q.Get("$filter"))
	if err != nil {
		return nil, err
	}
	order, err := associatedOrder(q.Get("$orderby"))
	if err != nil {
		return nil, err
	}
	page, err := window(q)
	if err != nil {
		return nil, err
	}
	ids, err := a.Store.AttachedTo(ctx, r.Tenant, r.ID.Key())
	if err != nil {
		return nil, fmt.Errorf("reading what %s is attached to: %w", r.ID, err)
	}
	all, err := a.associated(ctx, r.Tenant, ids)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(i associated) bool { return !keep(i) })
	slices.SortStableFunc(all, order)
	begin := min(page.skip, len(all))
	end := min(begin+page.top, len(all))
	out := onward{View: View{"totalCount": len(all), "value": all[begin:end]}}
	if end < len(all) {
		out.Next = strconv.Itoa(end)
	}
	return out, nil
}

func (a *API) associated(ctx context.Context, tenant string, ids []resource.ID) ([]associated, error) {
	out := []associated{}
	names := map[string]string{}
	for _, id := range ids {
		sub := id.SubscriptionID()
		name, ok := names[sub.Key()]
		if !ok {
			r, err := a.Store.Resource(ctx, tenant, sub.Key())
			if err != nil && !problem.Is(err, problem.NotFound) {
				return nil, fmt.Errorf("reading %s: %w", sub, err)
			}
			if err == nil {
				name, _ = subscriptionView(r)["displayName"].(string)
			}
			names[sub.Key()] = name
		}
		typ := id.Type()
		if t, ok := a.Types[strings.ToLower(typ)]; ok {
			typ = t.Name
		}
		out = append(out, associated{
			ID: id.String(), Name: id.Name(), Type: strings.ToLower(typ), ResourceGroup: id.Group(), SubscriptionID: id.Subscription(), Subscription: name,
		})
	}
	return out, nil
}

var associatedTerm = regexp.MustCompile(`^\s*(?:(contains|startswith|endswith)\(\s*([A-Za-z]+)\s*,\s*'((?:[^']|'')*)'\s*\)|([A-Za-z]+)\s+(eq|ne)\s+'((?:[^']|'')*)')\s*(?:$|and\s)`)

// associatedFilter reads a $filter: terms "name eq 'x'", "name ne 'x'" and
// "contains(name, 'x')", "startswith", "endswith", joined by and. Text compares
// without case.
func associatedFilter(s string) (func(associated) bool, error) {
	bad := problem.Errorf(problem.NotSupported, "The $filter '%s' is not supported; name eq 'x', name ne 'x', contains(name,'x'), startswith(name,'x') and endswith(name,'x') are, joined by and, of the fields %s.", problem.Clip(s), associatedWords)
	var terms []func(associated) bool
	for rest := s; strings.TrimSpace(rest) != ""; {
		m := associatedTerm.FindStringSubmatch(rest)
		if m == nil {
			return nil, bad
		}
		field, known := associatedFields[strings.ToLower(m[2]+m[4])]
		if !known {
			return nil, bad
		}
		want := strings.ToLower(strings.ReplaceAll(m[3]+m[6], "''", "'"))
		holds := map[string]func(is, want string) bool{
			"contains": strings.Contains, "startswith": strings.HasPrefix, "endswith": strings.HasSuffix,
			"eq": func(is, want string) bool { return is == want }, "ne": func(is, want string) bool { return is != want },
		}[m[1]+m[5]]
		terms = append(terms, func(r associated) bool { return holds(strings.ToLower(field(r)), want) })
		if rest = rest[len(m[0]):]; strings.HasSuffix(strings.TrimSpace(m[0]), "and") && strings.TrimSpace(rest) == "" {
			return nil, bad // it ends in "and"
		}
	}
	return func(r associated) bool {
		return !slices.ContainsFunc(terms, func(holds func(associated) bool) bool { return !holds(r) })
	}, nil
}

// associatedOrder reads an $orderby: fields, each perhaps with asc or desc.
// Without one it is by name.
func associatedOrder(s string) (func(a, b associated) int, error) {
	if strings.TrimSpace(s) == "" {
		s = "name"
	}
	type by struct {
		field func(associated) string
		sign  int
	}
	var keys []by
	for _, part := range strings.Split(s, ",") {
		words := strings.Fields(part)
		sign := 1
		if len(words) == 2 && strings.EqualFold(words[1], "desc") {
			sign = -1
		}
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && sign == 1 && !strings.EqualFold(words[1], "asc") || associatedFields[strings.ToLower(words[0])] == nil {
			return nil, problem.Errorf(problem.NotSupported, "The $orderby '%s' is not supported; fields of %s are, each with asc or desc after it, joined by commas.", problem.Clip(s), associatedWords)
		}
		keys = append(keys, by{associatedFields[strings.ToLower(words[0])], sign})
	}
	return func(a, b associated) int {
		for _, k := range keys {
			if c := strings.Compare(strings.ToLower(k.field(a)), strings.ToLower(k.field(b))); c != 0 {
				return k.sign * c
			}
		}
		return strings.Compare(strings.ToLower(a.ID), strings.ToLower(b.ID)) // pages need an order of all
	}, nil
}

// pageWindow is which part of a list is asked for.
type pageWindow struct{ skip, top int }

// maxTop bounds $top.
const maxTop = 1000

// window reads $skip, $top and $skiptoken, which says where the page before
// ended.
func window(q url.Values) (pageWindow, error) {
	out := pageWindow{top: PageSize}
	number := func(name string, least, most int, to *int) error {
		s := q.Get(name)
		if s == "" {
			return nil
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return problem.Errorf(problem.Invalid, "The query parameter '%s' is '%s'; a number from %d to %d was expected.", name, problem.Clip(s), least, most)
		}
		*to = n
		return nil
	}
	if err := number("$top", 1, maxTop, &out.top); err != nil {
		return out, err
	}
	const most = 1_000_000_000
	if err := number("$skip", 0, most, &out.skip); err != nil {
		return out, err
	}
	text := q.Get("$skiptoken")
	if text == "" {
		return out, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return out, problem.Errorf(problem.Invalid, "The query parameter '$skiptoken' is not one that this API gave out.")
	}
	out.skip = n
	return out, nil
}
