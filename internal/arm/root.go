package arm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// serveRoot serves /subscriptions and /tenants: what a client sees first.
func (a *API) serveRoot(w http.ResponseWriter, r *http.Request, q request, _ []string) error {
	if strings.EqualFold(q.path, "/subscriptions") {
		l, err := a.Subscriptions(r.Context(), q.c)
		return a.answerList(w, r, q, l, err)
	}
	t, err := a.Directory.Store.Tenant(r.Context(), q.c.Tenant)
	if err != nil {
		return fmt.Errorf("reading the tenant: %w", err)
	}
	if err := a.read(r.Context(), a.event(q.c, "Microsoft.Resources/tenants/read", resource.Root)); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"value": []any{map[string]any{
		"id": "/tenants/" + t.ID, "tenantId": t.ID, "displayName": t.Name, "countryCode": "", "domains": []string{},
		"tenantCategory": "Home", "defaultDomain": "", "tenantType": "AAD",
	}}})
}

func (a *API) serveSubscription(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if r.Method != http.MethodGet {
		return a.serveResource(w, r, q, id)
	}
	if _, err := a.Get(r.Context(), q.c, id); err != nil {
		return err
	}
	res, err := a.Store.Resource(r.Context(), q.c.Tenant, id.Key())
	if err != nil {
		return fmt.Errorf("reading %s: %w", id, err)
	}
	return web.WriteJSON(w, http.StatusOK, subscriptionView(res))
}

const actionReadSystem = "Microsoft.ManagedIdentity/identities/read"

// serveDefaultIdentity serves {scope}/providers/Microsoft.ManagedIdentity/identities/default:
// the system-assigned identity of a resource.
func (a *API) serveDefaultIdentity(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	scope := id.Scope()
	ev, err := a.permit(r.Context(), q.c, actionReadSystem, scope)
	if err != nil {
		return err
	}
	none := problem.Errorf(problem.NotFound, "The resource '%s' has no system-assigned identity.", scope)
	if !strings.EqualFold(id.Name(), "default") {
		return a.refuse(r.Context(), ev, none)
	}
	res, err := a.Store.Resource(r.Context(), q.c.Tenant, scope.Key())
	if problem.Is(err, problem.NotFound) {
		return a.refuse(r.Context(), ev, problem.Of(notFound(scope)))
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", scope, err)
	}
	have, err := a.Store.Identities(r.Context(), q.c.Tenant, directory.Holder(scope).Key())
	if err != nil {
		return fmt.Errorf("reading the identities of %s: %w", scope, err)
	}
	if len(have) == 0 || !have[0].System {
		return a.refuse(r.Context(), ev, none)
	}
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	p := have[0]
	v := View{
		"id": id.String(), "name": "default", "type": "Microsoft.ManagedIdentity/identities",
		"properties": map[string]any{
			"tenantId": p.Tenant, "principalId": p.ID, "clientId": p.Client,
			// Where clients expect to fetch a certificate of the identity. There is
			// none to fetch: no key of an identity ever leaves.
			"clientSecretUrl": a.Names.Management() + (&url.URL{Path: id.String() + "/credentials"}).EscapedPath() + "?tid=" + p.Tenant + "&oid=" + p.ID + "&aid=" + p.Client,
		},
	}
	if loc := location(res.Body); loc != "" {
		v["location"] = loc
	}
	return web.WriteJSON(w, http.StatusOK, v)
}

// serveEndpoints serves /metadata/endpoints, where tools learn the other
// addresses of this installation. It needs no token.
func (a *API) serveEndpoints(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	here := cloud(a.Names.Asked(web.HostName(r)))
	// One object is what newer clients read; the array of clouds, what azure-cli
	// iterates over and asks for with an older version.
	if v := r.URL.Query().Get("api-version"); v >= "2018" && v < "2022-09-01" {
		return web.WriteJSON(w, http.StatusOK, []any{here})
	}
	return web.WriteJSON(w, http.StatusOK, here)
}

// cloud is what a client learns of this installation. What is not served here
// is not named.
func cloud(names web.Names) map[string]any {
	arm, login, graph := names.Management(), names.Login(), names.Graph()+"/"
	return map[string]any{
		"name": "Innate", "resourceManager": arm, "portal": names.Portal(),
		"microsoftGraphResourceId": graph, "graphEndpoint": graph, "graphAudience": graph, "graph": graph,
		"gallery": arm,
		"authentication": map[string]any{
			"loginEndpoint": login, "audiences": []string{arm, "https://management.core.windows.net/", "https://management.azure.com/"},
			"tenant": "common", "identityProvider": "AAD",
		},
		"suffixes": map[string]any{
			"keyVaultDns": names.VaultSuffix(), "storage": names.StorageSuffix(), "mhsmDns": "managedhsm." + names.Authority(),
			"acrLoginServer": "acr." + names.Authority(), "sqlServerHostname": "sql." + names.Authority(),
		},
	}
}

const (
	actionEvents = "Innate.Audit/events/read"
	// sendTimeout is how long a reader may take for a hundred events. One that
	// reads no more, and has not gone away either, would be waited for for ever.
	sendTimeout = 10 * time.Second
	// followLife is how long one answer follows the record. A caller does not
	// say when its token ends, and one that leaked must not be good for the
	// record for as long as its role stays: whoever follows on asks anew, with
	// a token of then.
	followLife = time.Hour
)

func (a *API) serveEventsOf(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	return a.serveEvents(w, r, q, probe.Scope())
}

// serveEvents serves {scope}/providers/Innate.Audit/events: the record of what
// was asked at the scope and below, one JSON object a line, oldest first. With
// follow=true it goes on as events are recorded, for an hour; with after={time}
// (RFC 3339) it begins with what was committed then, without it at the
// beginning. An event may be older than its commit: a host may have been offline.
func (a *API) serveEvents(w http.ResponseWriter, r *http.Request, q request, scope resource.ID) error {
	ev, err := a.permit(r.Context(), q.c, actionEvents, scope)
	if err != nil {
		return err
	}
	var from time.Time
	if s := q.q.Get("after"); s != "" {
		if from, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return a.refuse(r.Context(), ev, problem.Errorf(problem.Invalid, "The query parameter 'after' is not a time as RFC 3339 has it, 2026-01-31T12:00:00Z."))
		}
	}
	begin, err := a.Store.HeadsBefore(r.Context(), q.c.Tenant, from)
	if err != nil {
		return fmt.Errorf("finding %s in the record: %w", from, err)
	}
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	t := tail{a: a, c: q.c, scope: scope, after: begin, out: json.NewEncoder(w), flush: http.NewResponseController(w)}
	var end <-chan time.Time
	if q.q.Get("follow") == "true" {
		life := time.NewTimer(cmp.Or(a.FollowLife, followLife))
		defer life.Stop()
		end = life.C
	}
	return t.run(r, end)
}

// tail writes the events of one reader, in the order of their times across the
// tenant's chains.
type tail struct {
	a     *API
	c     access.Caller
	scope resource.ID
	// after is the last batch of each chain that was read.
	after map[string]int64
	// pending are events that a chain with more to read may still precede.
	pending []audit.Event
	sent    int
	out     *json.Encoder
	flush   *http.ResponseController
}

// run writes what there is, and with end what comes until then.
func (t *tail) run(r *http.Request, end <-chan time.Time) error {
	for {
		more := t.a.Store.Recorded()
		for {
			n, err := t.batch(r)
			if err != nil {
				cutOff()
			}
			if n == 0 {
				break
			}
		}
		_ = t.flush.SetWriteDeadline(time.Now().Add(sendTimeout))
		_ = t.flush.Flush() // an error here is a client that left; the context says so
		if end == nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-end:
			return nil
		case <-more:
		}
		// The right is asked for again before anything new is shown.
		if d, err := t.a.Directory.Authorize(r.Context(), t.c, access.Operation{Action: actionEvents, Scope: t.scope}); err != nil || !d.Allowed {
			cutOff()
		}
	}
}

// cutOff ends an answer that has begun: only its end can say that it is not whole.
func cutOff() { panic(http.ErrAbortHandler) }

// tailPage is how many batches of each chain are read at once.
const tailPage = 200

// batch writes the next events; n is how many batches there were.
func (t *tail) batch(r *http.Request) (n int, err error) {
	bs, err := t.a.Store.Batches(r.Context(), t.c.Tenant, t.after, tailPage)
	if err != nil {
		return 0, err
	}
	var horizon time.Time // what is later may have to wait for a chain that has more
	got := map[string]int{}
	for _, b := range bs {
		t.after[b.Chain] = b.Seq
		evs, err := b.Events()
		if err != nil {
			return 0, err
		}
		t.pending = append(t.pending, evs...)
		if got[b.Chain]++; got[b.Chain] == tailPage && len(evs) > 0 {
			if last := evs[len(evs)-1].At; horizon.IsZero() || last.Before(horizon) {
				horizon = last
			}
		}
	}
	return len(bs), t.write(horizon)
}

// write writes the pending events up to the horizon; zero means all.
func (t *tail) write(horizon time.Time) error {
	slices.SortStableFunc(t.pending, func(a, b audit.Event) int { return a.At.Compare(b.At) })
	for i, ev := range t.pending {
		if !horizon.IsZero() && ev.At.After(horizon) {
			t.pending = t.pending[i:]
			return nil
		}
		if !t.sees(ev) {
			continue
		}
		if t.sent%100 == 0 {
			// An error says that the connection has no deadline to set.
			_ = t.flush.SetWriteDeadline(time.Now().Add(sendTimeout)) // the wall clock: a socket's, not ours
		}
		t.sent++
		if err := t.out.Encode(ev); err != nil {
			return err
		}
	}
	t.pending = nil
	return nil
}

// sees reports whether the event is of the scope: the root sees all.
func (t *tail) sees(ev audit.Event) bool {
	if t.scope.IsRoot() {
		return true
	}
	id, err := resource.Parse(ev.Target)
	return err == nil && t.scope.Contains(id)
}
