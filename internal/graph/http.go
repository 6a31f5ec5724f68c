package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// request is one request whose caller is known.
type request struct {
	*http.Request
	w http.ResponseWriter
	c access.Caller
	// base is the API as it was asked, "https://graph.D/v1.0"; rest is the path
	// below it.
	base, rest string
	options
}

// handler gets what the stars of its path stand for.
type handler func(g *Graph, q *request, args []string) error

type route struct {
	method, path string
	// options are the query options that it has.
	options []string
	do      handler
}

var (
	listOptions = []string{"$filter", "$select", "$top", "$count", "$skiptoken"}
	pageOptions = []string{"$select", "$top", "$skiptoken"}
	oneOptions  = []string{"$select"}
)

// routes is the whole surface; segments compare without case.
func routes() []route {
	out := []route{
		{"GET", "servicePrincipals", listOptions, list(typeServicePrincipal)},
		{"GET", "servicePrincipals/*", oneOptions, one(typeServicePrincipal, isServicePrincipal)},
		{"GET", "groups", listOptions, list(typeGroup)},
		{"POST", "groups", nil, createGroup},
		{"GET", "groups/*", oneOptions, one(typeGroup, isGroup)},
		{"PATCH", "groups/*", nil, updateGroup},
		{"DELETE", "groups/*", nil, func(g *Graph, q *request, a []string) error {
			return q.done(g.deleteGroup(q.Context(), q.c, a[0]))
		}},
		{"GET", "groups/*/members", pageOptions, members(false)},
		{"GET", "groups/*/transitiveMembers", pageOptions, members(true)},
		{"POST", "groups/*/members/$ref", nil, addMember},
		{"DELETE", "groups/*/members/*/$ref", nil, func(g *Graph, q *request, a []string) error {
			return q.done(g.removeMember(q.Context(), q.c, a[0], a[1]))
		}},
		{"GET", "directoryObjects/*", oneOptions, object1},
		{"POST", "directoryObjects/getByIds", oneOptions, getByIDs},
		{"GET", "organization", oneOptions, organizations},
		{"GET", "organization/*", oneOptions, organization},
		{"GET", "users", nil, func(g *Graph, q *request, _ []string) error { return noUsers(g, q, "") }},
		{"GET", "users/*", nil, func(g *Graph, q *request, a []string) error { return noUsers(g, q, a[0]) }},
		{"GET", "me", nil, me},
	}
	for _, of := range []string{"servicePrincipals", "groups", "directoryObjects"} {
		out = append(out,
			route{"GET", of + "/*/memberOf", pageOptions, memberOf(false)},
			route{"GET", of + "/*/transitiveMemberOf", pageOptions, memberOf(true)},
			route{"POST", of + "/*/getMemberGroups", nil, memberGroups},
			route{"POST", of + "/*/getMemberObjects", nil, memberGroups},
			route{"POST", of + "/*/checkMemberGroups", nil, checkMemberGroups},
		)
	}
	for _, roles := range []string{"appRoleAssignments", "appRoleAssignedTo"} {
		for _, path := range []string{"servicePrincipals/*/" + roles, "servicePrincipals/*/" + roles + "/*"} {
			for _, m := range []string{"GET", "POST", "DELETE"} {
				out = append(out, route{m, path, listOptions, noAppRoles})
			}
		}
	}
	return out
}

// Handler serves graph.{domain}, below /v1.0 and /beta, which are one here.
// authenticate finds the caller behind a request's token.
func (g *Graph) Handler(log *slog.Logger, authenticate func(ctx context.Context, r *http.Request) (access.Caller, error)) http.Handler {
	table := routes()
	s := &web.Surface{Name: "graph", Log: log, Write: g.writeProblem, Again: arm.Again}
	return s.Handle(func(w http.ResponseWriter, r *http.Request) error {
		c, err := authenticate(r.Context(), r)
		if err != nil {
			return err
		}
		// The same principal's requests of the tenant at the management API and
		// here go into one bucket: neither is a way around the other's limit.
		if _, err = g.ARM.Admit(r.Context(), c, r.Method, resource.ID{}); err == nil {
			err = g.serve(&request{Request: r, w: w, c: c}, table)
		}
		return g.onRecord(r.Context(), c, err)
	})
}

func (g *Graph) serve(q *request, table []route) error {
	segs, ok := web.Path(q.Request)
	if !ok || len(segs) < 2 || segs[0] != "v1.0" && segs[0] != "beta" {
		return problem.Errorf(problem.NotFound, "There is nothing at this path; /v1.0/servicePrincipals was expected, or another collection of the directory.")
	}
	q.base, q.rest = g.Names.Asked(q.c.Asked).Graph()+"/"+segs[0], strings.Join(segs[1:], "/")
	segs, err := g.keys(q, segs[1:])
	if err != nil {
		return err
	}
	var allow []string
	for _, rt := range table {
		args, ok := match(strings.Split(rt.path, "/"), segs)
		if !ok {
			continue
		}
		if rt.method != q.Method {
			allow = append(allow, rt.method)
			continue
		}
		if q.options, err = readOptions(q.URL.RawQuery); err != nil {
			return err
		}
		if err := q.only(rt.options...); err != nil {
			return err
		}
		if q.after, err = g.openPlace(q.Context(), q.c, q.skip); err != nil {
			return err
		}
		return rt.do(g, q, args)
	}
	if allow != nil {
		slices.Sort(allow)
		return problem.Errorf(problem.MethodNotAllowed, "Specified HTTP method is not allowed for the request target; there is %s.", strings.Join(slices.Compact(allow), ", "))
	}
	return problem.Errorf(problem.NotFound, "Resource not found for the segment '%s'. There are servicePrincipals, groups, directoryObjects and organization; service principals come and go with the resources that they belong to.", problem.Clip(segs[0]))
}

func match(pattern, segs []string) ([]string, bool) {
	if len(pattern) != len(segs) {
		return nil, false
	}
	var args []string
	for i, p := range pattern {
		if p == "*" {
			args = append(args, segs[i])
		} else if !strings.EqualFold(p, segs[i]) {
			return nil, false
		}
	}
	return args, true
}

// keys turns a key in parentheses, servicePrincipals(appId='x') or groups('x'),
// into a segment with an object id (OData 4.01 part 2, section 4.3).
func (g *Graph) keys(q *request, segs []string) ([]string, error) {
	name, key, ok := strings.Cut(segs[0], "(")
	if !ok {
		return segs, nil
	}
	member, value, eq := strings.Cut(strings.TrimSuffix(key, ")"), "=")
	if !eq {
		member, value = "id", member
	}
	text, rest, ok := quoted(strings.TrimPrefix(value, "'"))
	if !ok || rest != "" || !strings.HasPrefix(value, "'") || !strings.HasSuffix(key, ")") {
		return nil, problem.Errorf(problem.Invalid, "The key in '%s' is not one; servicePrincipals(appId='...') was expected.", problem.Clip(segs[0]))
	}
	switch {
	case strings.EqualFold(member, "id"):
	case strings.EqualFold(member, "appId") && strings.EqualFold(name, "servicePrincipals"):
		id, err := g.byClient(q.Context(), q.c, text)
		if err != nil {
			return nil, err
		}
		text = id
	default:
		return nil, problem.Errorf(problem.Invalid, "The key '%s' is not one of %s.", problem.Clip(member), problem.Clip(name))
	}
	return append([]string{name, text}, segs[1:]...), nil
}

// quoted reads a text up to its closing quote; two quotes are one.
func quoted(s string) (text, rest string, ok bool) {
	for {
		before, after, ok := strings.Cut(s, "'")
		if !ok {
			return "", "", false
		}
		text += before
		if !strings.HasPrefix(after, "'") {
			return text, after, true
		}
		text, s = text+"'", after[1:]
	}
}

// answer writes an object or a list with its annotations.
func (q *request) answer(status int, context string, body object) error {
	out := object{"@odata.context": q.base + "/$metadata#" + context}
	for k, v := range body {
		out[k] = v
	}
	identify(q.w, q.Request)
	return web.WriteJSON(q.w, status, out)
}

// answerPage writes a page. A count of what has more pages would take reading
// all of them.
func (g *Graph) answerPage(q *request, set string, p page) error {
	if p.value == nil {
		p.value = []object{}
	}
	body := object{"value": p.value}
	if q.count {
		if p.next != nil || q.after != (Place{}) {
			return problem.Errorf(problem.NotSupported, "$count is supported for lists of one page; this one has more.")
		}
		body["@odata.count"] = len(p.value)
	}
	if p.next != nil {
		next := url.Values{}
		for k, v := range q.raw {
			next[k] = v
		}
		token, err := g.token(q.Context(), q.c, *p.next)
		if err != nil {
			return err
		}
		next.Set("$skiptoken", token)
		body["@odata.nextLink"] = q.base + (&url.URL{Path: "/" + q.rest}).EscapedPath() + "?" + next.Encode()
	}
	return q.answer(http.StatusOK, set+q.projection(), body)
}

// projection is what of the members an answer has, in its context.
func (q *request) projection() string {
	if len(q.selected) == 0 {
		return ""
	}
	return "(" + strings.Join(q.selected, ",") + ")"
}

// done answers what has nothing to say.
func (q *request) done(err error) error {
	if err != nil {
		return err
	}
	identify(q.w, q.Request)
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func list(typ string) handler {
	return func(g *Graph, q *request, _ []string) error {
		p, err := g.list(q.Context(), q.c, typ, q.options)
		if err != nil {
			return err
		}
		return g.answerPage(q, typ+"s", p)
	}
}

func one(typ string, of func(directory.Principal) bool) handler {
	return func(g *Graph, q *request, args []string) error {
		_, obj, err := g.get(q.Context(), q.c, args[0], of)
		if err == nil {
			obj, err = q.pick(typ, obj)
		}
		if err != nil {
			return err
		}
		return q.answer(http.StatusOK, typ+"s"+q.projection()+"/$entity", obj)
	}
}

func object1(g *Graph, q *request, args []string) error {
	p, obj, err := g.get(q.Context(), q.c, args[0], anyKind)
	if err == nil {
		obj, err = q.pick(typeOf(p), obj)
	}
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, "directoryObjects"+q.projection()+"/$entity", typed(typeOf(p), obj))
}

func getByIDs(g *Graph, q *request, _ []string) error {
	var b struct{ IDs, Types []string }
	if err := web.ReadJSON(q.Request, &b); err != nil {
		return err
	}
	if len(b.IDs) == 0 || len(b.IDs) > maxIDs {
		return problem.Errorf(problem.Invalid, "The property 'ids' has %d object ids; 1 to %d were expected.", len(b.IDs), maxIDs)
	}
	for _, id := range b.IDs {
		if _, err := uuid.Parse(id); err != nil || len(id) != 36 {
			return problem.Errorf(problem.Invalid, "Invalid GUID:%s", problem.Clip(id))
		}
	}
	found, err := g.byIDs(q.Context(), q.c, b.IDs, func(typ string) bool {
		return len(b.Types) == 0 || slices.ContainsFunc(b.Types, func(t string) bool {
			return strings.EqualFold(t, typ) || strings.EqualFold(t, "directoryObject")
		})
	})
	if err != nil {
		return err
	}
	for i, obj := range found {
		typ := strings.TrimPrefix(fmt.Sprint(obj["@odata.type"]), "#microsoft.graph.")
		if found[i], err = q.pick(typ, obj); err != nil {
			return err
		}
	}
	return g.answerPage(q, "directoryObjects", page{value: found})
}

// body reads an object whose members are read one by one.
func (q *request) body() (out map[string]json.RawMessage, err error) {
	if err := web.ReadJSON(q.Request, &out); err != nil {
		return nil, err
	}
	if out == nil {
		return nil, problem.Errorf(problem.Invalid, "The request content is null; an object was expected.")
	}
	return out, nil
}

func createGroup(g *Graph, q *request, _ []string) error {
	raw, err := q.body()
	if err != nil {
		return err
	}
	b, err := readGroup(raw)
	if err != nil {
		return err
	}
	obj, err := g.createGroup(q.Context(), q.c, b)
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", q.base+"/groups/"+fmt.Sprint(obj["id"]))
	return q.answer(http.StatusCreated, "groups/$entity", obj)
}

func updateGroup(g *Graph, q *request, args []string) error {
	raw, err := q.body()
	if err != nil {
		return err
	}
	b, err := readGroup(raw)
	if err != nil {
		return err
	}
	return q.done(g.updateGroup(q.Context(), q.c, args[0], b))
}

func members(through bool) handler {
	return func(g *Graph, q *request, args []string) error {
		p, err := g.members(q.Context(), q.c, args[0], through, q.options)
		if err != nil {
			return err
		}
		return g.answerPage(q, "directoryObjects", p)
	}
}

// addMember reads a reference to an object of ours, by whatever host and
// version of the API it is named.
func addMember(g *Graph, q *request, args []string) error {
	var b struct {
		Ref string `json:"@odata.id"`
	}
	if err := web.ReadJSON(q.Request, &b); err != nil {
		return err
	}
	u, err := url.Parse(b.Ref)
	segs := strings.Split(strings.Trim(b.Ref, "/"), "/")
	if err == nil {
		segs = strings.Split(strings.Trim(u.Path, "/"), "/")
	}
	n := len(segs)
	if n < 2 || !slices.ContainsFunc([]string{"directoryObjects", "servicePrincipals", "groups", "users"}, func(s string) bool { return strings.EqualFold(s, segs[n-2]) }) {
		return problem.Errorf(problem.Invalid, "The property '@odata.id' is '%s'; %s/directoryObjects/{id} was expected.", problem.Clip(b.Ref), q.base)
	}
	return q.done(g.addMember(q.Context(), q.c, args[0], segs[n-1]))
}

func memberOf(through bool) handler {
	return func(g *Graph, q *request, args []string) error {
		p, err := g.memberOf(q.Context(), q.c, args[0], through, q.options)
		if err != nil {
			return err
		}
		return g.answerPage(q, "directoryObjects", p)
	}
}

// memberGroups lists the ids of all groups, which are all security groups.
func memberGroups(g *Graph, q *request, args []string) error {
	var b struct{ SecurityEnabledOnly *bool }
	if err := web.ReadJSON(q.Request, &b); err != nil {
		return err
	}
	all, _, err := g.groupsOf(q.Context(), q.c, args[0], true)
	if err != nil {
		return err
	}
	return q.ids(all, func(string) bool { return true })
}

// checkMemberGroups tells which of some groups a principal is in.
func checkMemberGroups(g *Graph, q *request, args []string) error {
	var b struct{ GroupIDs []string }
	if err := web.ReadJSON(q.Request, &b); err != nil {
		return err
	}
	if len(b.GroupIDs) == 0 || len(b.GroupIDs) > 20 {
		return problem.Errorf(problem.Invalid, "The property 'groupIds' has %d object ids; 1 to 20 were expected.", len(b.GroupIDs))
	}
	all, _, err := g.groupsOf(q.Context(), q.c, args[0], true)
	if err != nil {
		return err
	}
	return q.ids(all, func(id string) bool {
		return slices.ContainsFunc(b.GroupIDs, func(want string) bool { return strings.EqualFold(want, id) })
	})
}

func (q *request) ids(all []arm.Group, want func(string) bool) error {
	out := []string{}
	for _, gr := range all {
		if want(gr.ID) {
			out = append(out, gr.ID)
		}
	}
	return q.answer(http.StatusOK, "Collection(Edm.String)", object{"value": out})
}

// organizations lists the caller's own tenant, which anybody may know whose
// token it made.
func organizations(g *Graph, q *request, _ []string) error {
	obj, err := g.organization(q)
	if err != nil {
		return err
	}
	return g.answerPage(q, "organization", page{value: []object{obj}})
}

func organization(g *Graph, q *request, args []string) error {
	if !strings.EqualFold(args[0], q.c.Tenant) { // another tenant's is nothing to this one
		return notFound(args[0])
	}
	obj, err := g.organization(q)
	if err != nil {
		return err
	}
	return q.answer(http.StatusOK, "organization"+q.projection()+"/$entity", obj)
}

func (g *Graph) organization(q *request) (object, error) {
	t, err := g.Store.Tenant(q.Context(), q.c.Tenant)
	if err != nil {
		return nil, fmt.Errorf("reading the tenant: %w", err)
	}
	none := []any{}
	obj, err := q.pick("organization", object{
		"id": t.ID, "displayName": t.Name, "createdDateTime": stamp(t.Created), "deletedDateTime": nil, "tenantType": "AAD",
		"verifiedDomains": none, "assignedPlans": none, "businessPhones": none, "provisionedPlans": none,
		"securityComplianceNotificationMails": none, "securityComplianceNotificationPhones": none, "technicalNotificationMails": none,
		"marketingNotificationEmails": none, "countryLetterCode": nil, "country": nil, "preferredLanguage": nil,
	})
	if err != nil {
		return nil, err
	}
	return obj, g.allowed(q.Context(), q.c, resource.Root, "the tenant")
}

// noUsers: the directory has none.
func noUsers(g *Graph, q *request, id string) error {
	s := g.sight(q.c)
	if id != "" {
		return s.unseen(q.Context(), id)
	}
	some, err := s.anything(q.Context())
	if err != nil {
		return err
	}
	if !some {
		return denied()
	}
	if err := g.allowed(q.Context(), q.c, resource.Root, "a list of users, of which there are none"); err != nil {
		return err
	}
	return g.answerPage(q, "users", page{})
}

func me(*Graph, *request, []string) error {
	return problem.Errorf(problem.Invalid, "/me request is only valid with delegated authentication flow.")
}

func noAppRoles(*Graph, *request, []string) error {
	return problem.Errorf(problem.NotSupported, "App roles are not supported: what a principal may do is said by role assignments, through the management API (Microsoft.Authorization/roleAssignments).")
}
