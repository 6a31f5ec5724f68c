package fleet_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// someone is an object id.
const someone = "5b6f5a3e-0000-4000-8000-00000000000a"

func TestShippedEventsAreRecordedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, h2 := w.owner.enrol("h1"), w.owner.enrol("h2")
	served := fleetapi.Served{At: start, Count: 3, Workload: vms + "/vm1", Principal: someone, Audience: api, TokenID: "t", Caller: "door:run", Stale: true}
	ship := func(a *agent, batch int64, count int) int {
		t.Helper()
		req := fleetapi.EventsRequest{Batch: batch, Refusals: []fleetapi.Refusal{{At: start, Count: 2, Caller: "door:run", Reason: "no placement"}}}
		for range count {
			req.Served = append(req.Served, served)
		}
		before := len(w.last(tenantA, 1<<30))
		a.must(204, "POST", fleetapi.PathEvents, req, nil)
		return len(w.last(tenantA, 1<<30)) - before
	}
	for i, tt := range []struct {
		of          *agent
		batch       int64
		count, want int
	}{
		{h, 1, 2, 3},
		{h, 1, 2, 0}, // sent again
		{h, 1, 5, 0}, // the number counts, not what is in it
		{h, 2, 1, 2},
		{h, 1, 1, 0},
		{h2, 1, 1, 2}, // each host counts for itself
		{h, 10, 1, 2},
		{h, 9, 1, 0},
	} {
		if got := ship(tt.of, tt.batch, tt.count); got != tt.want {
			t.Errorf("step %d: batch %d of %d recorded %d events, want %d", i, tt.batch, tt.count, got, tt.want)
		}
	}
	evs := w.last(tenantA, 2)
	for _, ev := range evs {
		if ev.Host != "h1" || !strings.Contains(ev.Action, "Innate.Token/serve") {
			t.Errorf("recorded as %+v", ev)
		}
	}
	if ev := evs[0]; ev.Outcome != audit.Allowed || ev.Count != 3 || ev.Token != "t" || !strings.Contains(ev.Reason, "as it reports") || !strings.Contains(ev.Reason, "could not be asked") {
		t.Errorf("an answer from memory is recorded as %+v", ev)
	}
	if ev := evs[1]; ev.Outcome != audit.Denied || ev.Count != 2 || ev.Target != hosts+"/h1" || !strings.Contains(ev.Reason, "no placement") {
		t.Errorf("a refusal is recorded as %+v", ev)
	}
	// A machine that is enrolled anew counts from the beginning.
	h = w.owner.enrol("h1")
	if got := ship(h, 1, 1); got != 2 {
		t.Errorf("after enrolling anew, batch 1 recorded %d events", got)
	}
}

func TestShippedEventsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	// Longer than a body may be, and more than a batch may have.
	h.refused(problem.TooLarge, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 1, Refusals: make([]fleetapi.Refusal, 15_000)})
	h.refused(problem.TooLarge, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 1, Refusals: []fleetapi.Refusal{{Reason: strings.Repeat("x", 1<<20)}}})
	for what, r := range map[string]fleetapi.EventsRequest{
		"a count below zero":  {Batch: 1, Served: []fleetapi.Served{{At: start, Count: -1}}},
		"refusals below zero": {Batch: 1, Refusals: []fleetapi.Refusal{{At: start, Count: math.MinInt64}}},
		"no batch number":     {Refusals: []fleetapi.Refusal{{At: start}}},
		"one below zero":      {Batch: -1, Refusals: []fleetapi.Refusal{{At: start}}},
	} {
		before := len(w.last(tenantA, 1<<30))
		h.refused(problem.Invalid, "POST", fleetapi.PathEvents, r)
		if len(w.last(tenantA, 1<<30)) != before {
			t.Errorf("%s: something is recorded", what)
		}
	}
	// A host whose clock is ahead: what it reports has happened, and not later.
	h.must(204, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 1, Refusals: []fleetapi.Refusal{{At: start.Add(48 * time.Hour)}}}, nil)
	if ev := w.last(tenantA, 1)[0]; !ev.At.Equal(start) {
		t.Errorf("an event of the future is recorded at %s, want %s", ev.At, start)
	}
	long := strings.Repeat("é", 4000)
	h.must(204, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 2, Served: []fleetapi.Served{
		{At: start, Workload: vms + "/vm1", Principal: someone, Audience: long, TokenID: long, Caller: long},
	}}, nil)
	ev := w.last(tenantA, 1)[0]
	for _, s := range []string{ev.Target, ev.Principal, ev.Audience, ev.Token, ev.Via} {
		if len(s) > 2050 || strings.Contains(s, "\ufffd") {
			t.Errorf("recorded with a text of %d bytes, ending %q", len(s), s[len(s)-6:])
		}
	}
}

// TestAHostCannotWriteAnothersWords: what a host ships has the shape of what it
// is, so that no line of the record says more than one thing; and no number of
// a batch silences the host for long.
func TestAHostCannotWriteAnothersWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	good := fleetapi.Served{At: start, Count: 1, Workload: vms + "/vm1", Principal: someone}
	for what, change := range map[string]func(*fleetapi.EventsRequest){
		"a principal of several words":   func(r *fleetapi.EventsRequest) { r.Served[0].Principal = "root allowed by nobody" },
		"no principal":                   func(r *fleetapi.EventsRequest) { r.Served[0].Principal = "" },
		"a workload that is no ID":       func(r *fleetapi.EventsRequest) { r.Served[0].Workload = "vm1 because I say so" },
		"a number of the distant future": func(r *fleetapi.EventsRequest) { r.Batch = 1 << 62 },
	} {
		r := fleetapi.EventsRequest{Batch: 7, Served: []fleetapi.Served{good}}
		change(&r)
		before := len(w.last(tenantA, 1<<30))
		h.refused(problem.Invalid, "POST", fleetapi.PathEvents, r)
		if len(w.last(tenantA, 1<<30)) != before {
			t.Errorf("%s: something is recorded", what)
		}
	}
	h.must(204, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 7, Served: []fleetapi.Served{good}}, nil)
}
