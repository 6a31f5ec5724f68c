package arm

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// versions are offered to clients that choose one of a list: an api-version
// changes nothing here, and any date is good.
var versions = []string{"2025-04-01", "2024-11-30", "2024-04-01", "2023-01-31", "2022-12-01", "2022-04-01", "2021-04-01", "2020-06-01", "2019-12-01", "2018-11-30", "2018-06-01"}

// providerStore is the part of [Store] about the registration of namespaces.
type providerStore interface {
	// Unregistered lists the namespaces (lower case) that a subscription said
	// it does not use.
	Unregistered(ctx context.Context, tenant, subscriptionKey string) ([]string, error)
}

// providerTx is the part of [Tx] about it.
type providerTx interface {
	// PutRegistration says whether a subscription uses a namespace.
	PutRegistration(subscriptionKey, namespace string, registered bool) error
}

// namespaces are those of the table, each with its types.
func (a *API) namespaces() map[string][]*Type {
	out := map[string][]*Type{}
	for _, t := range a.Types {
		ns, _, _ := strings.Cut(t.Name, "/")
		out[ns] = append(out[ns], t)
	}
	for _, ts := range out {
		sort.Slice(ts, func(i, j int) bool { return ts[i].Name < ts[j].Name })
	}
	return out
}

// providerView is a namespace; sub is the zero ID for the tenant's.
func providerView(sub resource.ID, ns string, types []*Type, registered bool) View {
	state := "Registered"
	if !registered {
		state = "NotRegistered"
	}
	list := []View{}
	for _, t := range types {
		_, name, _ := strings.Cut(t.Name, "/")
		kind := View{"resourceType": name, "apiVersions": versions, "locations": []string{}, "capabilities": "SupportsTags, SupportsLocation"}
		if t.NoLocation {
			kind["capabilities"] = "None"
		} else {
			kind["locations"] = []string{"Local"}
		}
		list = append(list, kind)
	}
	v := View{"id": sub.String() + "/providers/" + ns, "namespace": ns, "resourceTypes": list}
	if !sub.IsZero() {
		v["registrationState"], v["registrationPolicy"] = state, "RegistrationRequired"
	}
	return v
}

// providerPaths are where clients ask for namespaces and register them.
func providerPaths() []path {
	return []path{
		{"providers", []string{"GET"}, (*API).serveProviders},
		{"subscriptions/*/providers", []string{"GET"}, (*API).serveProviders},
		{"providers/*", []string{"GET"}, (*API).serveProvider},
		{"subscriptions/*/providers/*", []string{"GET"}, (*API).serveProvider},
		{"subscriptions/*/providers/*/register", []string{"POST"}, (*API).serveRegistration},
		{"subscriptions/*/providers/*/unregister", []string{"POST"}, (*API).serveRegistration},
		{"providers/*/operations", []string{"GET"}, (*API).serveOperations},
	}
}

// providerScope is the subscription of a path, the zero ID of one without.
func providerScope(args []string, n int) (resource.ID, error) {
	if len(args) < n {
		return resource.ID{}, nil
	}
	id, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return id, &problem.Error{Kind: problem.BadID, Detail: problem.Of(err).Detail}
	}
	return id, nil
}

// unregistered checks the right to read a subscription's namespaces and finds
// which it does not use. The tenant's list says what the program can do, which
// is no secret.
func (a *API) unregistered(ctx context.Context, c access.Caller, sub resource.ID, action string) ([]string, error) {
	ev := a.event(c, action, resource.Root)
	var out []string
	if !sub.IsZero() {
		var err error
		if ev, err = a.permit(ctx, c, action, sub); err != nil {
			return nil, err
		}
		if _, err := a.Store.Resource(ctx, c.Tenant, sub.Key()); problem.Is(err, problem.NotFound) {
			return nil, a.refuse(ctx, ev, problem.Of(notFound(sub)))
		} else if err != nil {
			return nil, fmt.Errorf("reading %s: %w", sub, err)
		}
		if out, err = a.Store.Unregistered(ctx, c.Tenant, sub.Key()); err != nil {
			return nil, err
		}
	}
	return out, a.read(ctx, ev)
}

func (a *API) serveProviders(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := providerScope(args, 1)
	if err != nil {
		return err
	}
	off, err := a.unregistered(r.Context(), q.c, sub, "Microsoft.Resources/subscriptions/providers/read")
	if err != nil {
		return err
	}
	all := a.namespaces()
	l := List{Value: []View{}}
	for _, ns := range sortedKeys(all) {
		l.Value = append(l.Value, providerView(sub, ns, all[ns], !slices.Contains(off, lower(ns))))
	}
	return a.answerList(w, r, q, l, nil)
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// namespace finds a namespace by its name.
func (a *API) namespace(name string) (string, []*Type, error) {
	all := a.namespaces()
	for _, ns := range sortedKeys(all) {
		if strings.EqualFold(ns, name) {
			return ns, all[ns], nil
		}
	}
	return "", nil, problem.Errorf(problem.UnknownType, "The resource namespace '%s' is not known here; there are: %s.", problem.Clip(name), strings.Join(sortedKeys(all), ", "))
}

func (a *API) serveProvider(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := providerScope(args, 2)
	if err != nil {
		return err
	}
	ns, types, err := a.namespace(args[len(args)-1])
	if err != nil {
		return err
	}
	off, err := a.unregistered(r.Context(), q.c, sub, "Microsoft.Resources/subscriptions/providers/read")
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, providerView(sub, ns, types, !slices.Contains(off, lower(ns))))
}

// serveRegistration serves POST .../providers/{ns}/register and /unregister.
// What it says is kept and shown; everything works either way.
func (a *API) serveRegistration(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := providerScope(args, 2)
	if err != nil {
		return err
	}
	ns, types, err := a.namespace(args[1])
	if err != nil {
		return err
	}
	registered := !strings.HasSuffix(lower(q.path), "/unregister")
	action := ns + "/register/action"
	if !registered {
		action = ns + "/unregister/action"
	}
	ev, err := a.permit(r.Context(), q.c, action, sub)
	if err != nil {
		return err
	}
	err = a.write(r.Context(), ev, func(tx Tx) error {
		if _, err := tx.Resource(sub.Key()); problem.Is(err, problem.NotFound) {
			return notFound(sub)
		} else if err != nil {
			return err
		}
		return tx.PutRegistration(sub.Key(), ns, registered)
	})
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, providerView(sub, ns, types, registered))
}

// serveOperations lists the operations of a namespace, for who writes roles.
func (a *API) serveOperations(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	_, types, err := a.namespace(args[0])
	if err != nil {
		return err
	}
	if _, err := a.unregistered(r.Context(), q.c, resource.ID{}, "Microsoft.Authorization/providerOperations/read"); err != nil {
		return err
	}
	l := List{Value: []View{}}
	for _, t := range types {
		ns, name, _ := strings.Cut(t.Name, "/")
		verbs := []string{"read", "write", "delete"}
		for _, k := range sortedKeys(t.Actions) {
			verbs = append(verbs, t.Actions[k].Name+"/action")
		}
		for _, verb := range verbs {
			l.Value = append(l.Value, View{"name": t.Name + "/" + verb, "isDataAction": false, "display": map[string]string{
				"provider": ns, "resource": name, "operation": verb, "description": "",
			}})
		}
	}
	return a.answerList(w, r, q, l, nil)
}
