package arm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// TestEachRequestIsOnRecordOnce: what was asked, by whom, and how it ended, in
// one event, which is there when the answer is.
func TestEachRequestIsOnRecordOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader, nobody := w.as(tenantA, "reader", roleReader+" "+g1), w.as(tenantA, "nobody")
	vm, uai, host := vms+"/vm1", uais+"/uai", g1+"/providers/Innate.Fleet/hosts/h1"
	list := sub + "/providers/Microsoft.Authorization/roleAssignments"
	const compute, identity, fleet, requests = "Microsoft.Compute/virtualMachines/", "Microsoft.ManagedIdentity/userAssignedIdentities/", "Innate.Fleet/hosts/", "Innate.Management/requests/"
	assignment := assignmentID(g1, name1)
	for _, tt := range []struct {
		c                   *caller
		method, path, body  string
		status              int
		action, on, outcome string
	}{
		{w.owner, "PUT", uai, local, 201, identity + "write", uai, audit.Allowed},
		{w.owner, "PUT", vm, local, 201, compute + "write", vm, audit.Allowed},
		{w.owner, "PATCH", vm, block("UserAssigned", on(uai)), 200, compute + "write", vm, audit.Allowed},
		{w.owner, "GET", vm, "", 200, compute + "read", vm, audit.Allowed},
		{w.owner, "HEAD", vm, "", 204, compute + "read", vm, audit.Allowed},
		{w.owner, "GET", vms, "", 200, compute + "read", g1, audit.Allowed},
		{w.owner, "GET", g1 + "/resources", "", 200, "Microsoft.Resources/subscriptions/resources/read", g1, audit.Allowed},
		{w.owner, "GET", "/subscriptions", "", 200, "Microsoft.Resources/subscriptions/read", "/", audit.Allowed},
		{w.owner, "GET", "/tenants", "", 200, "Microsoft.Resources/tenants/read", "/", audit.Allowed},
		{w.owner, "GET", sub, "", 200, "Microsoft.Resources/subscriptions/read", sub, audit.Allowed},
		{w.owner, "PUT", assignment, assignmentBody(roleReader, nobody.oid), 201, "Microsoft.Authorization/roleAssignments/write", assignment, audit.Allowed},
		{w.owner, "GET", assignment, "", 200, "Microsoft.Authorization/roleAssignments/read", g1, audit.Allowed},
		{w.owner, "GET", list, "", 200, "Microsoft.Authorization/roleAssignments/read", sub, audit.Allowed},
		{w.owner, "DELETE", assignment, "", 200, "Microsoft.Authorization/roleAssignments/delete", assignment, audit.Allowed},
		{w.owner, "DELETE", assignment, "", 204, "Microsoft.Authorization/roleAssignments/delete", assignment, audit.Allowed},
		{w.owner, "PUT", host, `{}`, 201, fleet + "write", host, audit.Allowed},
		{w.owner, "POST", host + "/createEnrolmentToken", "", 200, fleet + "createEnrolmentToken/action", host, audit.Allowed},
		{w.owner, "POST", host + "/EVICT", "", 200, fleet + "evict/action", host, audit.Allowed},
		{w.owner, "GET", vm + "/providers/Microsoft.ManagedIdentity/identities/default", "", 404, "Microsoft.ManagedIdentity/identities/read", vm, audit.Refused},
		{w.owner, "GET", g1 + "/providers/Innate.Audit/events", "", 200, "Innate.Audit/events/read", g1, audit.Allowed},
		{w.owner, "GET", g1 + "/providers/Innate.Audit/events?api-version=2024-11-30&after=x", "", 400, "Innate.Audit/events/read", g1, audit.Refused},

		{reader, "PUT", vm, local, 403, compute + "write", vm, audit.Denied},
		{reader, "DELETE", vm, "", 403, compute + "delete", vm, audit.Denied},
		{reader, "POST", host + "/evict", "", 403, fleet + "evict/action", host, audit.Denied},
		{reader, "PUT", assignment, assignmentBody(roleReader, nobody.oid), 403, "Microsoft.Authorization/roleAssignments/write", g1, audit.Denied},
		{nobody, "GET", vm, "", 403, compute + "read", vm, audit.Denied},
		{nobody, "GET", vm + "/providers/Innate.Audit/events", "", 403, "Innate.Audit/events/read", vm, audit.Denied},
		{nobody, "GET", vms + "/none", "", 403, compute + "read", vms + "/none", audit.Denied},

		{w.owner, "GET", vms + "/none", "", 404, compute + "read", vms + "/none", audit.Refused},
		{w.owner, "PATCH", vms + "/none", `{}`, 404, compute + "write", vms + "/none", audit.Refused},
		{w.owner, "PUT", vm, `{"location":7}`, 400, compute + "write", vm, audit.Refused},
		{w.owner, "PUT", vm, `{"location":"elsewhere"}`, 400, compute + "write", vm, audit.Refused},
		{w.owner, "PUT", assignment, assignmentBody(roleReader, uuid.NewString()), 400, "Microsoft.Authorization/roleAssignments/write", assignment, audit.Refused},
		// Refused before it was clear what was asked.
		{w.owner, "PUT", vm, `{"location":`, 400, requests + "write", vm, audit.Refused},
		{w.owner, "PUT", assignment, `[]`, 400, requests + "write", assignment, audit.Refused},
		{w.owner, "GET", vm + "?x=y", "", 400, requests + "read", vm, audit.Refused},
		{w.owner, "GET", vm + "?api-version=%zz", "", 400, requests + "read", vm, audit.Refused},
		{w.owner, "GET", vm + "/../vm2", "", 400, requests + "read", "/", audit.Refused},
		{w.owner, "GET", g1 + "/providers/Nobody.Knows/it/x", "", 404, requests + "read", g1 + "/providers/Nobody.Knows/it/x", audit.Refused},
		{w.owner, "POST", vm + "/nothing", "", 404, requests + "action", "/", audit.Refused},
		{w.owner, "BREW", vm, "", 405, requests + "action", vm, audit.Refused},
		{w.owner, "GET", list + "?api-version=2022-04-01&$filter=x", "", 400, requests + "read", "/", audit.Refused},
		{w.owner, "DELETE", sub, "", 409, "Microsoft.Resources/subscriptions/delete", sub, audit.Refused},
	} {
		r := tt.c.must(tt.status, tt.method, tt.path, tt.body)
		evs := w.of(tenantA, r)
		if len(evs) != 1 {
			t.Errorf("%s %s left %d events, want one: %+v", tt.method, tt.path, len(evs), evs)
			continue
		}
		got := evs[0]
		want := audit.Event{
			Tenant: tenantA, At: start, Action: tt.action, Target: tt.on, Outcome: tt.outcome,
			Principal: tt.c.oid, Name: tt.c.id.Name(), Reason: got.Reason, Request: r.header.Get("X-Ms-Request-Id"),
		}
		if diff := cmp.Diff(want, got); diff != "" || got.Reason == "" && tt.outcome != audit.Allowed {
			t.Errorf("%s %s is on record as (-want +got):\n%s", tt.method, tt.path, diff)
		}
	}
	// The identity is a right of its own, and the record says which was lacking.
	mallory := w.as(tenantA, "mallory", roleContributor+" "+vm)
	evs := w.of(tenantA, mallory.must(403, "PUT", vm, block("UserAssigned", on(uais+"/other"))))
	if len(evs) != 1 || evs[0].Action != identity+"assign/action" || evs[0].Target != uais+"/other" || evs[0].Outcome != audit.Denied {
		t.Errorf("an identity that may not be attached is on record as %+v", evs)
	}
}

// lines reads the events that a reader is answered.
func (c *caller) lines(path string) []audit.Event {
	c.w.t.Helper()
	r := c.must(200, "GET", path, "")
	var out []audit.Event
	for _, l := range strings.Split(strings.TrimSpace(r.text), "\n") {
		var ev audit.Event
		if err := json.Unmarshal([]byte(l), &ev); err != nil {
			c.w.t.Fatalf("%s: %v", l, err)
		}
		out = append(out, ev)
	}
	return out
}

func TestEventsAreOfTheScopeAndInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	reader := w.as(tenantA, "reader", roleReader+" "+g1)
	// Writes and reads are in different chains.
	for range 210 { // more than a page of each chain
		w.advance(time.Second)
		w.owner.must(200, "PUT", g1, local)
		w.advance(time.Second)
		w.owner.must(200, "GET", g1, "")
	}
	w.owner.must(200, "GET", g2, "")
	events := "/providers/Innate.Audit/events"
	all := reader.lines(g1 + events)
	if len(all) < 420 {
		t.Errorf("there are %d events of g1", len(all))
	}
	scope := resource.MustParse(g1)
	for i, ev := range all {
		if i > 0 && ev.At.Before(all[i-1].At) {
			t.Fatalf("event %d is of %s, after one of %s", i, ev.At, all[i-1].At)
		}
		if id, err := resource.Parse(ev.Target); err != nil || !scope.Contains(id) {
			t.Errorf("a reader of g1 sees an event on %s", ev.Target)
		}
	}
	half := start.Add(210 * time.Second)
	late := reader.lines(g1 + events + "?api-version=2024-11-30&after=" + half.Format(time.RFC3339))
	if late[0].At != half || len(late) < 210 || len(late) > 220 {
		t.Errorf("after %s there are %d events, the first of %s", half, len(late), late[0].At)
	}
	for _, after := range []string{"0", "yesterday", "2026-01-01", "99999-01-01T00:00:00Z"} {
		w.owner.refused(400, "InvalidRequestContent", "GET", g1+events+"?api-version=2024-11-30&after="+after, "")
	}
	reader.refused(403, "AuthorizationFailed", "GET", g2+events, "")
	reader.refused(403, "AuthorizationFailed", "GET", sub+events, "")
	w.owner.refused(403, "AuthorizationFailed", "GET", events, "")
	if n := len(w.root().lines(events)); n < 420 {
		t.Errorf("at the root there are %d events", n)
	}
}

// TestLateEventsAreSeen: what a host could not ship for long is new to who
// reads from ten minutes ago on.
func TestLateEventsAreSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.advance(50 * time.Minute)
	late := audit.Event{Tenant: tenantA, At: start, Action: "Innate.Token/serve/action", Target: g1, Outcome: audit.Allowed, Host: "h1"}
	if err := w.srv.DB.Record(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	after := "?api-version=2024-11-30&after=" + start.Add(40*time.Minute).Format(time.RFC3339)
	got := w.owner.lines(g1 + "/providers/Innate.Audit/events" + after)
	if len(got) != 2 || got[0].Host != "h1" || got[1].Action != "Innate.Audit/events/read" {
		t.Errorf("after a while offline a reader sees %+v, want what the host shipped and the reading", got)
	}
}

// TestFollowingEndsInTime: a token ends, and so must what was opened with it.
func TestFollowingEndsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.ARM.FollowLife = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lines, closeStream := w.owner.follow(ctx, g1)
	defer closeStream()
	n := 0
	for lines.Scan() {
		n++
	}
	if err := lines.Err(); err != nil || n == 0 {
		t.Errorf("the stream ended with %v after %d events, want a whole answer", err, n)
	}
}

// follow opens a stream of events.
func (c *caller) follow(ctx context.Context, scope string) (*bufio.Scanner, func()) {
	c.w.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", c.w.url(scope+"/providers/Innate.Audit/events?api-version=2024-11-30&follow=true"), nil)
	if err != nil {
		c.w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.w.http.Do(req)
	if err != nil {
		c.w.t.Fatal(err)
	}
	if res.StatusCode != 200 {
		c.w.t.Fatalf("following %s answers %d", scope, res.StatusCode)
	}
	return bufio.NewScanner(res.Body), func() { _ = res.Body.Close() }
}

func TestFollowingEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reader := w.as(tenantA, "reader")
	assignment := w.owner.assign(roleReader, reader.oid, g1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lines, closeStream := reader.follow(ctx, g1)
	defer closeStream()
	until := func(target string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), `"target":"`+target+`"`) {
				return
			}
		}
		t.Fatalf("the stream ended before the event on %s: %v", target, lines.Err())
	}
	until(g1)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	until(vms + "/vm1")
	w.owner.must(403, "PUT", "/providers/Microsoft.Compute/virtualMachines/x", local) // is not of g1
	w.owner.must(404, "GET", vms+"/vm2", "")
	until(vms + "/vm2")

	// The right taken away ends the stream, before anything that came after.
	w.owner.must(200, "DELETE", assignment, "")
	w.owner.must(201, "PUT", vms+"/vm3", local)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "vm3") {
			t.Errorf("a reader without the right reads %s", lines.Text())
		}
	}
	if ctx.Err() != nil {
		t.Error("the stream of a reader who lost the right did not end")
	}
}

// TestNothingSecretIsOnRecord: no token, no secret and no enrolment token, also
// not where they were sent to a wrong place.
func TestNothingSecretIsOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	host, kv := g1+"/providers/Innate.Fleet/hosts/h1", g1+"/providers/Microsoft.KeyVault/vaults/kv3"
	w.owner.must(201, "PUT", host, `{}`)
	enrolment := w.owner.must(200, "POST", host+"/createEnrolmentToken", "").str("token")
	w.owner.must(201, "PUT", kv, local)
	w.owner.assign(roleSecrets, w.owner.oid, kv)
	data := *w.owner
	data.token = w.owner.tokenFor("https://vault.azure.net")
	data.must(200, "PUT", w.srv.Names.Vault("kv3")+"/secrets/db?api-version=7.4", `{"value":"hunter2"}`)
	w.owner.must(201, "PUT", vms+"/vm1", `{"location":"local","tags":{"password":"hunter2"},"properties":{"password":"hunter2"}}`)
	w.owner.must(400, "PUT", vms+"/vm1", `{"location":"local","properties":"hunter2"}`)
	w.owner.must(400, "PUT", vms+"/vm1", `{"location":"local","tags":{"password":["hunter2"]}}`)
	data.must(401, "GET", g1, "") // a token for another API
	for _, ev := range w.events(tenantA) {
		b, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hunter2", enrolment, w.owner.token, data.token, w.owner.token[len(w.owner.token)-40:]} {
			if strings.Contains(string(b), secret) {
				t.Errorf("the record has a secret: %s", b)
			}
		}
	}
}
