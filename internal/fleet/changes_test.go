package fleet_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// changes is an open change stream.
type changes struct {
	t     testing.TB
	lines *bufio.Scanner
}

func (a *agent) changes(after int64) *changes {
	a.w.t.Helper()
	// A stream that says nothing for so long does not end by itself.
	ctx, cancel := context.WithTimeout(a.w.t.Context(), 30*time.Second)
	a.w.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", a.w.srv.Names.Fleet()+fleetapi.PathChanges+"?after="+strconv.FormatInt(after, 10), nil)
	if err != nil {
		a.w.t.Fatal(err)
	}
	res, err := a.http.Do(req)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.w.t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != 200 {
		a.w.t.Fatalf("the change stream answers %d", res.StatusCode)
	}
	return &changes{t: a.w.t, lines: bufio.NewScanner(res.Body)}
}

func (c *changes) next() fleetapi.Change {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatalf("the change stream ended: %v", c.lines.Err())
	}
	var out fleetapi.Change
	if err := json.Unmarshal(c.lines.Bytes(), &out); err != nil {
		c.t.Fatalf("%s: %v", c.lines.Text(), err)
	}
	return out
}

// caughtUp reads until the stream says that this is all, and returns what all
// of it said together.
func (c *changes) caughtUp() fleetapi.Change {
	c.t.Helper()
	var all fleetapi.Change
	for {
		m := c.next()
		if m.Revision < all.Revision {
			c.t.Fatalf("revision %d comes after %d", m.Revision, all.Revision)
		}
		add(&all, m)
		if !m.More {
			return all
		}
	}
}

// to reads until the stream has come to a revision.
func (c *changes) to(revision int64) fleetapi.Change {
	c.t.Helper()
	var all fleetapi.Change
	for all.Revision < revision || all.More {
		m := c.next()
		add(&all, m)
		all.More = m.More
	}
	return all
}

// untilEnd reads to the end, which a timeout is not.
func (c *changes) untilEnd() error {
	for c.lines.Scan() {
	}
	if err := c.lines.Err(); err != nil && strings.Contains(err.Error(), "deadline") {
		return err
	}
	return nil
}

func add(all *fleetapi.Change, m fleetapi.Change) {
	all.Revision = m.Revision
	all.Resources = append(all.Resources, m.Resources...)
	all.Principals = append(all.Principals, m.Principals...)
	all.Placements = all.Placements || m.Placements
	all.All = all.All || m.All
}

func (w *world) revision(tenant string) int64 {
	w.t.Helper()
	rev, err := w.srv.DB.Revision(w.t.Context(), tenant)
	if err != nil {
		w.t.Fatal(err)
	}
	return rev
}

func TestTheChangeStreamSaysWhatConcernsTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	vm1, vm2 := vms+"/vm1", vms+"/vm2"
	key1, key2 := strings.ToLower(vm1), strings.ToLower(vm2)
	oid := func(v map[string]any) string {
		id, _ := v["identity"].(map[string]any)
		s, _ := id["principalId"].(string)
		return s
	}
	oid1 := oid(w.owner.must(201, "PUT", vm1, machine))
	oid2 := oid(w.owner.must(201, "PUT", vm2, machine))
	w.owner.place("h1", "p1", strings.ToUpper(vm1))
	s := h.changes(w.revision(tenantA))
	if m := s.caughtUp(); m.Placements || len(m.Resources) > 0 || m.All {
		t.Errorf("a stream from now on begins with %+v", m)
	}
	for _, step := range []struct {
		what       string
		do         func()
		resource   string // whose tokens must go, "" for none
		principal  string
		placements bool
	}{
		{"a machine placed here changes", func() { w.owner.must(200, "PUT", vm1, machine) }, key1, "", false},
		{"one placed nowhere changes", func() { w.owner.must(200, "PUT", vm2, machine) }, "", "", false},
		{"an identity of one placed here goes", func() { w.owner.must(200, "PATCH", vm1, `{"identity":{"type":"None"}}`) }, key1, oid1, false},
		{"an identity of one placed nowhere goes", func() { w.owner.must(200, "PATCH", vm2, `{"identity":{"type":"None"}}`) }, "", oid2, false},
		{"one more is placed here", func() { w.owner.place("h1", "p2", vm2) }, "", "", true},
		{"what is placed here now changes", func() { w.owner.must(200, "PATCH", vm2, `{"identity":{"type":"SystemAssigned"}}`) }, key2, "", false},
		{"a placement here goes", func() { w.owner.must(200, "DELETE", hosts+"/h1/placements/p2", "") }, "", "", true},
		{"another host gets a placement", func() { w.owner.place("boot", "p2", vm1) }, "", "", false},
		{"what is placed here goes, and its placement", func() { w.owner.must(200, "DELETE", vm1, "") }, key1, "", true},
	} {
		step.do()
		m := s.to(w.revision(tenantA))
		if m.Placements != step.placements || slices.Contains(m.Resources, key1) != (step.resource == key1) ||
			slices.Contains(m.Resources, key2) != (step.resource == key2) || step.principal != "" && !slices.Contains(m.Principals, step.principal) || m.All {
			t.Errorf("%s: the stream says %+v", step.what, m)
		}
	}
	// Without anything to say it says so.
	rev := w.revision(tenantA)
	for range 3 {
		if m := s.next(); m.Revision != rev || m.More || m.Placements {
			t.Errorf("the heartbeat is %+v, want revision %d", m, rev)
		}
	}
}

// TestAnAPIsChangeConcernsEveryHost: any workload may hold a token of an API
// that changed; what changes nothing of its audiences concerns nobody.
func TestAnAPIsChangeConcernsEveryHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	app := hosts[:strings.LastIndex(hosts, "/providers/")] + "/providers/Innate.Directory/applications/orders"
	s := h.changes(w.revision(tenantA))
	s.caughtUp()
	for _, step := range []struct {
		what    string
		do      func()
		concern bool
	}{
		{"registered", func() { w.owner.must(201, "PUT", app, `{"properties":{"identifierUris":["api://orders"]}}`) }, true},
		{"put again", func() { w.owner.must(200, "PUT", app, `{"properties":{"identifierUris":["api://orders"]}}`) }, false},
		{"tagged", func() { w.owner.must(200, "PATCH", app, `{"tags":{"a":"b"}}`) }, false},
		{"of another version", func() { w.owner.must(200, "PATCH", app, `{"properties":{"accessTokenVersion":2}}`) }, true},
		{"of one more audience", func() {
			w.owner.must(200, "PATCH", app, `{"properties":{"identifierUris":["api://orders","api://more"]}}`)
		}, true},
		{"gone", func() { w.owner.must(200, "DELETE", app, "") }, true},
	} {
		step.do()
		if m := s.to(w.revision(tenantA)); m.All != step.concern {
			t.Errorf("an API %s: the stream says %+v, want all to go: %v", step.what, m, step.concern)
		}
	}
}

func TestTheChangeStreamCatchesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	from := w.revision(tenantA)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "p1", vms+"/vm1")
	for i := range 200 { // each some rows of the feed, of which a message has about 500
		w.owner.must(200, "PATCH", vms+"/vm1", fmt.Sprintf(`{"identity":{"type":"%s"}}`, []string{"None", "SystemAssigned"}[i%2]))
	}
	s := h.changes(from)
	first := s.next()
	if !first.More || first.Revision <= from || first.Revision == w.revision(tenantA) {
		t.Errorf("the first of several messages is of revision %d, more %v; there are %d to %d", first.Revision, first.More, from, w.revision(tenantA))
	}
	all := s.caughtUp()
	add(&all, first)
	if !all.Placements || len(all.Principals) < 200 || !slices.Contains(all.Resources, strings.ToLower(vms+"/vm1")) {
		t.Errorf("catching up, the stream says %d principals, resources %v, placements %v", len(all.Principals), all.Resources, all.Placements)
	}
	if got := h.changes(from).to(w.revision(tenantA)); got.Revision != w.revision(tenantA) {
		t.Errorf("caught up at %d", got.Revision)
	}
	// The database is older than what the agent has seen.
	restored := h.changes(w.revision(tenantA) + 1000)
	if m := restored.next(); !m.All || !m.Placements || m.Revision != w.revision(tenantA) {
		t.Errorf("after a restore the stream begins with %+v", m)
	}
	for _, after := range []string{"", "-1", "x", "9223372036854775808", "1.5"} {
		h.refused(problem.Invalid, "GET", fleetapi.PathChanges+"?after="+after, nil)
	}
	if m := h.changes(1<<63 - 1).next(); !m.All {
		t.Errorf("from the greatest revision the stream begins with %+v", m)
	}
}

// TestAStreamOfAnotherTenant hears nothing of this one.
func TestAStreamOfAnotherTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	hb := b.enrol("h1")
	b.must(201, "PUT", vms+"/vm1", machine)
	b.place("h1", "p1", vms+"/vm1")
	s := hb.changes(w.revision(tenantB))
	s.caughtUp()
	w.owner.must(201, "PUT", hosts+"/h1", `{}`)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "p1", vms+"/vm1")
	w.owner.must(200, "DELETE", vms+"/vm1", "")
	b.must(200, "PUT", vms+"/vm1", machine)
	if m := s.to(w.revision(tenantB)); m.Placements || len(m.Principals) > 0 || len(m.Resources) != 1 {
		t.Errorf("the stream of B says %+v", m)
	}
}
