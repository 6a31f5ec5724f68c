package fleet_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

func TestAHostGetsTokensOfWhatIsPlacedThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "P1", vms+"/vm1")
	for _, req := range []fleetapi.TokenRequest{ask("P1", vms+"/vm1"), ask("p1", strings.ToUpper(vms)+"/VM1/")} {
		var out fleetapi.TokenResponse
		h.must(200, "POST", fleetapi.PathToken, req, &out)
		if out.AccessToken == "" || out.Identity != vms+"/vm1" || out.Resource != api || out.Revision != w.revision(tenantA) {
			t.Errorf("asked with %+v: %+v", req, out)
		}
		ev := w.last(tenantA, 1)[0]
		if ev.Outcome != audit.Allowed || ev.Principal != out.Principal || ev.Token != out.TokenID || ev.Host != "h1" || ev.Via != req.Caller || strings.Contains(ev.Reason, out.AccessToken) {
			t.Errorf("the token is on record as %+v", ev)
		}
	}
	var ps fleetapi.Placements
	h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	if len(ps.Placements) != 1 || ps.Placements[0].Name != "P1" || ps.Placements[0].Resource != vms+"/vm1" || ps.Revision != w.revision(tenantA) {
		t.Errorf("placements are %+v", ps)
	}
	// With the placement gone the next request is refused.
	w.owner.must(200, "DELETE", hosts+"/h1/placements/p1", "")
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, ask("p1", vms+"/vm1"))
}

// TestAHostIsBelievedOnlyAboutItself: each refusal is on record, in one event
// that names the host.
func TestAHostIsBelievedOnlyAboutItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	h := w.owner.enrol("h1")
	w.owner.enrol("h2")
	for _, name := range []string{"vm1", "vm2", "none"} {
		w.owner.must(201, "PUT", vms+"/"+name, machine)
	}
	w.owner.must(200, "PATCH", vms+"/none", `{"identity":{"type":"None"}}`)
	w.owner.place("h1", "p1", vms+"/vm1")
	w.owner.place("h1", "none", vms+"/none")
	w.owner.place("h2", "p2", vms+"/vm2")
	b.must(201, "PUT", hosts+"/h1", `{}`)
	b.must(201, "PUT", vms+"/vm3", machine)
	b.place("h1", "p3", vms+"/vm3")
	from := func(change func(*fleetapi.TokenRequest)) fleetapi.TokenRequest {
		r := ask("p1", vms+"/vm1")
		change(&r)
		return r
	}
	for _, tt := range []struct {
		what string
		kind problem.Kind
		req  fleetapi.TokenRequest
	}{
		{"placed on another host", problem.CallerRefused, ask("p2", vms+"/vm2")},
		{"placed nowhere here, by its own placement", problem.CallerRefused, ask("p1", vms+"/vm2")},
		{"placed on the host of that name in another tenant", problem.CallerRefused, ask("p3", vms+"/vm3")},
		{"the host itself", problem.CallerRefused, ask("p1", hosts+"/h1")},
		{"the placement itself", problem.CallerRefused, ask("p1", hosts+"/h1/placements/p1")},
		{"the group", problem.CallerRefused, ask("p1", ops)},
		{"the root", problem.CallerRefused, ask("p1", "/")},
		{"below what is placed", problem.CallerRefused, ask("p1", vms+"/vm1/x/y")},
		{"no workload", problem.Invalid, ask("p1", "")},
		{"no resource ID", problem.Invalid, ask("p1", vms+"/../vm1")},
		{"no placement", problem.Invalid, ask("", vms+"/vm1")},
		{"no such placement", problem.CallerRefused, ask("p9", vms+"/vm1")},
		{"another host's placement, by its path", problem.Invalid, ask("../../h2/placements/p2", vms+"/vm2")},
		{"with slashes", problem.Invalid, ask("p1/placements/p1", vms+"/vm1")},
		{"dots", problem.Invalid, ask("..", vms+"/vm1")},
		{"a dot at the end", problem.Invalid, ask("p1.", vms+"/vm1")},
		{"encoded", problem.Invalid, ask("p1%2F", vms+"/vm1")},
		{"a space at the end", problem.Invalid, ask("p1 ", vms+"/vm1")},
		{"a NUL", problem.Invalid, ask("p1\x00", vms+"/vm1")},
		{"a letter that folds to another", problem.Invalid, ask("\u212a", vms+"/vm1")},
		{"a wildcard", problem.Invalid, ask("*", vms+"/vm1")},
		{"a long name", problem.Invalid, ask(strings.Repeat("p", 5000), vms+"/vm1")},
		{"no audience", problem.MissingParameter, from(func(r *fleetapi.TokenRequest) { r.Audience = "" })},
		{"an unknown audience", problem.UnknownAudience, from(func(r *fleetapi.TokenRequest) { r.Audience = "api://none" })},
		{"an identity that it has not", problem.IdentityNotFound, from(func(r *fleetapi.TokenRequest) { r.ClientID = "x" })},
		{"a machine without an identity", problem.IdentityNotFound, ask("none", vms+"/none")},
		{"too much evidence", problem.TooLarge, from(func(r *fleetapi.TokenRequest) { r.Caller = strings.Repeat("x", 4097) })},
	} {
		before := len(w.last(tenantA, 1<<30))
		h.refused(tt.kind, "POST", fleetapi.PathToken, tt.req)
		evs := w.last(tenantA, 1<<30)[before:]
		if len(evs) != 1 || evs[0].Outcome == audit.Allowed || evs[0].Host != "h1" || evs[0].Action != "Innate.Token/issue/action" || evs[0].Reason == "" || evs[0].Request == "" {
			t.Errorf("%s: on record as %+v", tt.what, evs)
		}
		for _, ev := range evs {
			if len(ev.Target)+len(ev.Reason)+len(ev.Via) > 8192 {
				t.Errorf("%s: the event has %d bytes", tt.what, len(ev.Target)+len(ev.Reason)+len(ev.Via))
			}
		}
	}
}

// TestAHostGetsNoOtherIdentity: of what is placed there it gets the identities
// that that has, however another's is named.
func TestAHostGetsNoOtherIdentity(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	h2 := w.owner.enrol("h2")
	w.owner.must(201, "PUT", shared, `{"location":"local"}`)
	w.owner.must(201, "PUT", second, `{"location":"local"}`)
	w.owner.must(200, "PATCH", vms+"/vm1", `{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"`+shared+`":{}}}}`)
	w.owner.must(201, "PUT", vms+"/vm2", `{"location":"local","identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"`+second+`":{}}}}`)
	w.owner.place("h2", "p2", vms+"/vm2")
	h2.must(200, "POST", fleetapi.PathToken, ask("p2", vms+"/vm2"), nil)
	principal := func(id string) (object, client string) {
		t.Helper()
		p, err := w.srv.DB.PrincipalOf(t.Context(), tenantA, strings.ToLower(id))
		if err != nil {
			t.Fatal(err)
		}
		return p.ID, p.Client
	}
	for _, id := range []string{vms + "/vm2", second, rootAgent.String()} {
		object, client := principal(id)
		for what, change := range map[string]func(*fleetapi.TokenRequest){
			"object id":   func(r *fleetapi.TokenRequest) { r.ObjectID = object },
			"client id":   func(r *fleetapi.TokenRequest) { r.ClientID = client },
			"resource ID": func(r *fleetapi.TokenRequest) { r.ResourceID = id },
			"all of them": func(r *fleetapi.TokenRequest) { r.ObjectID, r.ClientID, r.ResourceID = object, client, id },
			"one of its own beside it": func(r *fleetapi.TokenRequest) {
				r.ClientID, r.ResourceID = client, shared
			},
		} {
			r := ask("p1", vms+"/vm1")
			change(&r)
			status, b := h.do("POST", fleetapi.PathToken, r)
			var out fleetapi.TokenResponse
			_ = json.Unmarshal(b, &out) // a refusal has none of it
			if status == 200 || out.AccessToken != "" {
				t.Errorf("%s by its %s: %d, a token of %s", id, what, status, out.Identity)
			}
		}
	}
	// An identity that was its own until now.
	r := ask("p1", vms+"/vm1")
	_, r.ClientID = principal(shared)
	h.must(200, "POST", fleetapi.PathToken, r, nil)
	w.owner.must(200, "PATCH", vms+"/vm1", `{"identity":{"type":"SystemAssigned"}}`)
	h.refused(problem.IdentityNotFound, "POST", fleetapi.PathToken, r)
	// A resource of that name in place of the one that was placed is another.
	w.owner.must(200, "DELETE", vms+"/vm1", "")
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, ask("p1", vms+"/vm1"))
	// The host is nobody at the other APIs, whatever it shows there.
	for _, name := range []string{"management", "login", "x.vault"} {
		res, err := h.http.Get(strings.Replace(w.srv.Names.Fleet(), "fleet.", name+".", 1) + "/subscriptions?api-version=2024-11-30")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("a host at %s is answered with %s", name, res.Status)
		}
	}
}
