package arm

import (
	"net/http"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// noun is how the API serves what is no row of the table of types: things that
// are not documents, with rules of their own. A nil member means that what a
// document would do is done.
type noun struct {
	// resource serves {scope}/providers/{type}/{name}.
	resource func(a *API, w http.ResponseWriter, r *http.Request, q request, id resource.ID) error
	// collection serves {scope}/providers/{type}; probe is the ID of an
	// imagined member.
	collection func(a *API, w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error
	// action serves POST {resource}/{name}.
	action func(a *API, w http.ResponseWriter, r *http.Request, q request, id resource.ID, name string) error
}

// path is a fixed path that is no resource ID.
type path struct {
	// pattern has * for a segment that can be anything; segments compare
	// without case.
	pattern string
	methods []string
	// serve gets what the stars stand for.
	serve func(a *API, w http.ResponseWriter, r *http.Request, q request, args []string) error
}

// nouns by lower-case type.
func nouns() map[string]noun {
	return map[string]noun{
		typeAssignment:                                          {resource: (*API).serveAssignment, collection: (*API).serveAssignments},
		typeDefinition:                                          {resource: (*API).serveDefinition, collection: (*API).serveDefinitions},
		"microsoft.managedidentity/identities":                  {resource: (*API).serveDefaultIdentity},
		"innate.audit/events":                                   {collection: (*API).serveEventsOf},
		strings.ToLower(typeDirectoryGroup):                     {resource: (*API).serveGroup, collection: (*API).serveGroups},
		strings.ToLower(typeMember):                             {resource: (*API).serveMember, collection: (*API).serveMembers},
		strings.ToLower(TypeManagementGroup):                    {resource: (*API).serveManagementGroup, collection: (*API).serveManagementGroups},
		strings.ToLower(TypeManagementGroup + "/subscriptions"): {resource: (*API).serveGroupSubscription},
		strings.ToLower(typeLock):                               {collection: (*API).serveLocks},
		strings.ToLower(typeTags):                               {resource: (*API).serveTags},
		strings.ToLower(typeAlias):                              {resource: (*API).serveAlias},
		strings.ToLower(typeSubscription):                       {resource: (*API).serveSubscription},
		typeDenial:                                              {resource: (*API).serveDenial, collection: (*API).serveDenials},
		typePermission:                                          {collection: (*API).servePermissions},
		typeDecision:                                            {resource: (*API).serveDecision},
		"innate.directory/orphans":                              {collection: (*API).serveOrphans},
	}
}

func paths() []path {
	return slices.Concat([]path{
		{"subscriptions", []string{"GET"}, (*API).serveRoot},
		{"tenants", []string{"GET"}, (*API).serveRoot},
		{deletedPath, []string{"GET"}, (*API).serveDeletedList},
		{deletedIn + "/*", []string{"GET", "DELETE"}, (*API).serveDeleted},
		{deletedIn + "/*/recover", []string{"POST"}, (*API).serveRecover},
		{"subscriptions/*/resourceGroups/*/moveResources", []string{"POST"}, (*API).serveMove},
		{"subscriptions/*/resourceGroups/*/validateMoveResources", []string{"POST"}, (*API).serveMove},
		{"subscriptions/*/providers/Microsoft.Insights/eventtypes/management/values", []string{"GET"}, (*API).serveActivity},
		{"subscriptions/*/locations", []string{"GET"}, (*API).serveLocations},
		{"subscriptions/*/tagNames", []string{"GET"}, (*API).serveTagNames},
		{"subscriptions/*/providers/Microsoft.Subscription/rename", []string{"POST"}, (*API).serveSubscriptionAction},
		{"subscriptions/*/providers/Microsoft.Subscription/cancel", []string{"POST"}, (*API).serveSubscriptionAction},
		{"providers/Microsoft.ManagedIdentity/operations", []string{"GET"}, (*API).serveIdentityOperations},
		{"subscriptions/*/providers/*/checkNameAvailability", []string{"POST"}, (*API).serveNameAvailability},
	}, operationPaths(), providerPaths(), groupPaths())
}

// router has the two tables; one is made with the handler.
type router struct {
	nouns map[string]noun
	paths []path
}

// fixed finds the row of a fixed path, and what its stars stand for.
func (t router) fixed(text string) (path, []string, bool) {
	segs := strings.Split(strings.TrimPrefix(text, "/"), "/")
	for _, p := range t.paths {
		if args, ok := match(strings.Split(p.pattern, "/"), segs); ok {
			return p, args, true
		}
	}
	return path{}, nil, false
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

// route finds out whether the path is a fixed one, a resource, a collection or
// an action.
func (t router) route(a *API, w http.ResponseWriter, r *http.Request, q request) error {
	if p, args, ok := t.fixed(q.path); ok {
		if !slices.Contains(p.methods, r.Method) {
			return notAllowed(r, strings.Join(p.methods, ", "))
		}
		return p.serve(a, w, r, q, args)
	}
	if r.Method == http.MethodPost {
		if i := strings.LastIndexByte(q.path, '/'); i > 0 {
			if id, err := resource.Parse(q.path[:i]); err == nil {
				if n := t.nouns[strings.ToLower(id.Type())]; n.action != nil {
					return n.action(a, w, r, q, id, q.path[i+1:])
				}
				return a.serveAction(w, r, q, id, q.path[i+1:])
			}
		}
	}
	id, err := resource.Parse(q.path)
	if err == nil {
		if n := t.nouns[strings.ToLower(id.Type())]; n.resource != nil {
			return n.resource(a, w, r, q, id)
		}
		return a.serveResource(w, r, q, id)
	}
	if probe, cerr := resource.Parse(q.path + "/-"); cerr == nil {
		if n := t.nouns[strings.ToLower(probe.Type())]; n.collection != nil {
			return n.collection(a, w, r, q, probe)
		}
		return a.serveCollection(w, r, q, probe)
	}
	if scope, ok := cutSuffixFold(q.path, "/resources"); ok {
		if id, serr := resource.Parse(scope); serr == nil {
			return a.serveList(w, r, q, id, "")
		}
	}
	return &problem.Error{Kind: problem.BadID, Detail: problem.Of(err).Detail}
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return s, false
	}
	return s[:len(s)-len(suffix)], true
}
