package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
)

// promise is a write that the server has acknowledged.
type promise struct {
	url, value, version string
	// request is the id that the record must have.
	request string
}

// promises collects the writers' promises.
type promises struct {
	mu   sync.Mutex
	kept []promise
	bad  []string
	// each is told of every promise.
	each chan struct{}
}

func (p *promises) add(status int, made promise) {
	p.mu.Lock()
	if status/100 == 2 && made.request != "" {
		p.kept = append(p.kept, made)
	} else {
		p.bad = append(p.bad, fmt.Sprintf("%s: status %d, request id %q", made.url, status, made.request))
	}
	p.mu.Unlock()
	p.each <- struct{}{}
}

// What was acknowledged is there after a power cut, and on record; three times
// over the same data.
func TestAcknowledgedWritesSurviveSIGKILL(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	var secrets, resources []promise
	for round := range 3 {
		in := startOn(t, dir)
		s, r := in.writeUntilKilled(t, round, 60)
		secrets, resources = append(secrets, s...), append(resources, r...)
	}
	in := startOn(t, dir)
	in.checkSecrets(t, secrets)
	in.checkResources(t, resources)
	in.checkRecord(t, append(secrets, resources...))
}

// writeUntilKilled has two writers of secrets and one of resources at work and
// kills the server amid them, after some writes.
func (in *instance) writeUntilKilled(t *testing.T, round, some int) (secrets, resources []promise) {
	t.Helper()
	vault, management := in.token(t, "ops", "https://vault.azure.net"), in.token(t, "ops", in.Endpoints.Management)
	s, r := &promises{each: make(chan struct{})}, &promises{each: make(chan struct{})}
	var writers sync.WaitGroup
	for w := range 2 {
		c, url := in.client(t), in.secretURL(fmt.Sprintf("crash-%d-%d", round, w))
		value := func(n int) string { return fmt.Sprintf("value %d of writer %d in round %d", n, w, round) }
		writers.Go(func() {
			_ = writes(t.Context(), c, vault, // it ends with an error: the server is killed
				func(n int) (string, string) { return url, `{"value":"` + value(n) + `"}` },
				func(n int, a response) { s.add(a.status, secretPromise(url, value(n), a)) })
		})
	}
	c := in.client(t)
	writers.Go(func() {
		_ = writes(t.Context(), c, management, // likewise
			func(n int) (string, string) {
				id := in.id("Microsoft.ManagedIdentity/userAssignedIdentities", fmt.Sprintf("crash-%d-%d", round, n))
				return in.Endpoints.Management + id + "?api-version=2024-11-30", `{"location":"local"}`
			},
			func(n int, a response) {
				name := fmt.Sprintf("crash-%d-%d", round, n)
				r.add(a.status, promise{url: name, value: managedBody(a.body).Properties.PrincipalID, request: a.header.Get("x-ms-request-id")})
			})
	})
	all := make(chan struct{})
	go func() { writers.Wait(); close(all) }()
	killed := false
	for open := true; open; {
		select {
		case <-s.each:
			some--
		case <-r.each:
			some--
		case <-all:
			open = false
		}
		if some <= 0 && !killed {
			in.kill(t)
			killed = true
		}
	}
	for _, bad := range append(s.bad, r.bad...) {
		t.Errorf("a write was answered, but not with success: %s", bad)
	}
	if len(s.kept) == 0 || len(r.kept) == 0 {
		t.Fatalf("%d secrets and %d resources were acknowledged, want some of each", len(s.kept), len(r.kept))
	}
	return s.kept, r.kept
}

// writes runs one PUT after the other until the server is gone, and reports
// each that was acknowledged on done.
func writes(ctx context.Context, c *http.Client, token string, next func(n int) (url, body string), done func(n int, r response)) error {
	for n := 0; ; n++ {
		url, body := next(n)
		r, err := call(ctx, c, http.MethodPut, url, token, body)
		if err != nil {
			return err
		}
		done(n, r)
	}
}

// secretPromise is what the answer to a PUT of a secret promises.
func secretPromise(url, value string, a response) promise {
	var b struct{ ID string }
	_ = json.Unmarshal([]byte(a.body), &b) // what is not JSON has no version, and is missed below
	name, _, _ := strings.Cut(path.Base(url), "?")
	return promise{url: name, value: value, version: path.Base(b.ID), request: a.header.Get("x-ms-request-id")}
}

func managedBody(body string) managed {
	var m managed
	_ = json.Unmarshal([]byte(body), &m) // what is not JSON has no members, and is missed below
	return m
}

func (in *instance) checkSecrets(t *testing.T, made []promise) {
	t.Helper()
	c, token := in.client(t), in.token(t, "ops", "https://vault.azure.net")
	for _, p := range made {
		url := in.secretURL(p.url + "/" + p.version)
		r, err := call(t.Context(), c, http.MethodGet, url, token, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.status != http.StatusOK || !strings.Contains(r.body, `"value":"`+p.value+`"`) {
			t.Errorf("acknowledged version %s/%s: %d %s, want %q", p.url, p.version, r.status, r.body, p.value)
		}
	}
}

func (in *instance) checkResources(t *testing.T, made []promise) {
	t.Helper()
	c, token := in.client(t), in.token(t, "ops", in.Endpoints.Management)
	for _, p := range made {
		url := in.Endpoints.Management + in.id("Microsoft.ManagedIdentity/userAssignedIdentities", p.url) + "?api-version=2024-11-30"
		r, err := call(t.Context(), c, http.MethodGet, url, token, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := managedBody(r.body).Properties.PrincipalID; r.status != http.StatusOK || got != p.value || got == "" {
			t.Errorf("acknowledged identity %s: %d, principal %q, want %q", p.url, r.status, got, p.value)
		}
	}
}

// checkRecord looks for one event of each request that was acknowledged.
func (in *instance) checkRecord(t *testing.T, made []promise) {
	t.Helper()
	events := map[string][]event{}
	for _, ev := range in.record(t) {
		events[ev.Request] = append(events[ev.Request], ev)
	}
	for _, p := range made {
		evs := events[p.request]
		if len(evs) != 1 || evs[0].Outcome != "allowed" || !strings.HasSuffix(evs[0].Target, "/"+p.url) || evs[0].Name != "ops" {
			t.Errorf("the record of request %s (%s): %+v, want one event", p.request, p.url, evs)
		}
	}
}
