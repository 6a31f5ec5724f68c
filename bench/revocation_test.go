package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/testkit"
)

const (
	hosts  = 100
	rounds = 24 // at most: run it with -benchtime 24x
	// askEvery is how often each host's program asks for its token.
	askEvery = 50 * time.Millisecond
)

// BenchmarkRevocation is how long a right outlives the answer that it was taken
// away: each of 100 agents has a token of one user-assigned identity and is asked
// for it all the time; the identity is deleted. From the acknowledgement it is
// dated when
//
//   - heard: the last agent has taken the change in;
//   - sent, answered: a request was sent, and its answer read, that was the last
//     that any agent answered with a token;
//   - accepted: a request was sent that was the last that our own API took with
//     one of the tokens that are out.
//
// The control plane and its database are the real ones, and so are the agents,
// each with its own host, certificate and stream; all share this machine.
func BenchmarkRevocation(b *testing.B) {
	for _, name := range []string{"sqlite", "postgres"} {
		database := benchDatabase(b, name)
		b.Run(name, func(b *testing.B) {
			f := newFleet(b, database)
			all := map[string][]time.Duration{}
			for round := 0; b.Loop(); round++ {
				if round < rounds { // each identity is deleted once
					for what, d := range f.revoke(b, f.identities[round]) {
						all[what] = append(all[what], d)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			for what, d := range all {
				slices.Sort(d)
				b.ReportMetric(ms(d[len(d)/2]), what+"-p50-ms")
				b.ReportMetric(ms(d[len(d)*99/100]), what+"-p99-ms")
				b.ReportMetric(ms(d[len(d)-1]), what+"-max-ms")
			}
		})
	}
}

// benchDatabase is a new database of the kind, as a configuration has it.
func benchDatabase(b *testing.B, kind string) func(dir string) server.Database {
	if kind == "sqlite" {
		return func(dir string) server.Database { return server.Database{SQLite: filepath.Join(dir, "db")} }
	}
	return func(dir string) server.Database {
		file := filepath.Join(dir, "url")
		if err := os.WriteFile(file, []byte(testkit.Postgres(b)), 0o600); err != nil {
			b.Fatal(err)
		}
		return server.Database{PostgresFile: file}
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// estate is an installation with its hosts.
type estate struct {
	*server.Builder
	agents     []*agent.Agent
	programs   []*client // one on each host, which keeps its connection
	identities []directory.Principal
	api        *http.Client
	vault      string // a path of the management API
}

func newFleet(b *testing.B, database func(dir string) server.Database) *estate {
	b.Helper()
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	e, boot := newPlane(b, dir, database)
	ctx := b.Context()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.Server.CA.PEM())
	attached := map[string]any{}
	for i := range rounds {
		id := must(boot.Group.Extension("Microsoft.ManagedIdentity/userAssignedIdentities", fmt.Sprint("shared-", i)))(b)
		e.put(b, id, map[string]any{"location": "local"})
		e.identities = append(e.identities, must(e.Principal(ctx, id))(b))
		attached[id.String()] = struct{}{}
	}
	for i := range hosts {
		e.agents = append(e.agents, e.host(b, dir, boot.Group, i, attached, pool))
		e.programs = append(e.programs, &client{addr: e.agents[i].DoorAddr("main"), keep: true})
	}
	return e
}

// newPlane starts a control plane.
func newPlane(b *testing.B, dir string, database func(dir string) server.Database) (*estate, server.Bootstrapped) {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	if _, err := seal.CreateFile(filepath.Join(dir, "root.key")); err != nil {
		b.Fatal(err)
	}
	s, err := server.Open(b.Context(), server.Config{Domain: "bench.test", Listen: "127.0.0.1:0", Database: database(dir),
		RootKeyFile: filepath.Join(dir, "root.key"), TLS: server.TLS{LocalCA: true}, Replica: "one", TokenLife: "1h"}, log, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	boot, err := s.Bootstrap(ctx, server.Bootstrap{TenantName: "bench", Group: "g", Location: "local", Host: "first", Owner: "ops"})
	if err != nil {
		b.Fatal(err)
	}
	e := &estate{Builder: &server.Builder{Server: s, Caller: access.SystemCaller(boot.Tenant, "bench")}}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA.PEM())
	e.api = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: e.dial}}
	e.vault = s.Names.Management() + boot.Group.String() + "?api-version=2021-04-01"
	return e, boot
}

func (e *estate) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, e.Server.Addr())
}

// must makes one value of a result and its error.
func must[T any](v T, err error) func(*testing.B) T {
	return func(b *testing.B) T {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
}

func (e *estate) put(b *testing.B, id resource.ID, body map[string]any) {
	b.Helper()
	if err := e.Put(b.Context(), id, body); err != nil {
		b.Fatal(err)
	}
}

// host makes one host with a virtual machine that has the identities, and starts
// its agent.
func (e *estate) host(b *testing.B, dir string, group resource.ID, i int, attached map[string]any, pool *x509.CertPool) *agent.Agent {
	b.Helper()
	vm := must(group.Extension("Microsoft.Compute/virtualMachines", fmt.Sprint("vm", i)))(b)
	e.put(b, vm, map[string]any{"location": "local", "identity": map[string]any{"type": "UserAssigned", "userAssignedIdentities": attached}})
	host := must(group.Extension("Innate.Fleet/hosts", fmt.Sprint("h", i)))(b)
	e.put(b, host, map[string]any{})
	if err := e.Place(b.Context(), host, "p", "main", nil, vm); err != nil {
		b.Fatal(err)
	}
	tok, _, err := e.Server.Enrolment(b.Context(), e.Caller.Tenant, host)
	if err != nil {
		b.Fatal(err)
	}
	a, err := agent.New(agent.Config{ControlPlane: e.Server.Names.Fleet(), CA: pool, Dial: e.dial, StateDir: filepath.Join(dir, fmt.Sprint("h", i)),
		EnrolToken: tok, Doors: []agent.DoorConfig{{Name: "main", Listen: "127.0.0.1:0"}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(a.Close)
	return a
}

// revoke deletes an identity while all use it.
func (e *estate) revoke(b *testing.B, who directory.Principal) map[string]time.Duration {
	var lastSent, lastAnswered, lastAccepted atomic.Int64 // Unix nanoseconds
	var out atomic.Pointer[string]
	var ready, all sync.WaitGroup
	var failed atomic.Pointer[error]
	fail := func(err error) { failed.CompareAndSwap(nil, &err) }
	stop := make(chan struct{})
	path := ask + e.Server.Names.Management() + "&client_id=" + who.Client
	for i, program := range e.programs {
		program.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nMetadata: true\r\n\r\n", path, program.addr)
		ready.Add(1)
		all.Go(func() {
			first := sync.OnceFunc(ready.Done)
			defer first()
			time.Sleep(askEvery * time.Duration(i) / hosts)
			tick := time.NewTicker(askEvery)
			defer tick.Stop()
			for {
				sent := time.Now()
				status, err := program.ask()
				if err != nil {
					fail(err)
					return
				}
				if status == "200" {
					raise(&lastSent, sent)
					raise(&lastAnswered, time.Now())
					if out.Load() == nil {
						keepToken(&out, program.body, fail)
					}
					first()
				} else {
					tick.Reset(10 * askEvery) // each refusal is asked for anew
				}
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
	}
	ready.Wait()
	if out.Load() == nil {
		b.Fatal("no agent had a token")
	}
	all.Go(func() {
		for {
			req, _ := http.NewRequest(http.MethodGet, e.vault, nil)
			req.Header.Set("Authorization", "Bearer "+*out.Load())
			sent := time.Now()
			resp, err := e.api.Do(req)
			if err != nil {
				fail(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized { // 403 is to be known
				raise(&lastAccepted, sent)
			}
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	time.Sleep(150 * time.Millisecond)
	if _, err := e.Server.ARM.Delete(b.Context(), e.Caller, who.Resource, arm.Condition{}); err != nil {
		b.Fatal(err)
	}
	acknowledged := time.Now()
	heard := e.heard(b, acknowledged)
	time.Sleep(time.Until(acknowledged.Add(1500 * time.Millisecond)))
	close(stop)
	all.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	after := func(last *atomic.Int64) time.Duration {
		return max(0, time.Unix(0, last.Load()).Sub(acknowledged))
	}
	return map[string]time.Duration{"heard": heard, "sent": after(&lastSent), "answered": after(&lastAnswered), "accepted": after(&lastAccepted)}
}

// heard waits until every agent has come to what the tenant is at, and says how
// long after at that was.
func (e *estate) heard(b *testing.B, at time.Time) time.Duration {
	b.Helper()
	revision, err := e.Server.DB.Revision(b.Context(), e.Caller.Tenant)
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range e.agents {
		for a.Status().Revision < revision {
			if time.Since(at) > 10*time.Second {
				b.Fatal("an agent has not heard of a deletion after 10 s")
			}
			time.Sleep(time.Millisecond)
		}
	}
	return time.Since(at)
}

// keepToken keeps the token of an answer, if none is kept yet.
func keepToken(out *atomic.Pointer[string], answer []byte, fail func(error)) {
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(answer, &body); err != nil {
		fail(err)
	}
	out.CompareAndSwap(nil, &body.AccessToken)
}

// raise makes at the latest.
func raise(last *atomic.Int64, at time.Time) {
	for {
		before := last.Load()
		if at.UnixNano() <= before || last.CompareAndSwap(before, at.UnixNano()) {
			return
		}
	}
}
