package sts_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/web"
)

const (
	tenantA = "aaaaaaaa-0000-0000-0000-00000000000a"
	tenantB = "bbbbbbbb-0000-0000-0000-00000000000b"
	nowhere = "cccccccc-0000-0000-0000-00000000000c"
	group   = "/subscriptions/s1/resourceGroups/G1"

	// The port is not the default one, to see it in every URL.
	login = "https://login.innate.test:8443"
)

var (
	start = time.Unix(1_790_000_000, 0).UTC()
	vm    = resource.MustParse(group + "/providers/Microsoft.Compute/virtualMachines/vm1")
	ident = resource.MustParse(group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1")
)

// world is a token service over a real store with two tenants. In tenant A the
// machine vm1 has a system-assigned identity and the user-assigned id1, and two
// APIs are registered.
type world struct {
	db           *store.DB
	sts          *sts.Service
	http         *http.Client
	system, user directory.Principal
	other        directory.Principal // of tenant B
	log          *logged

	mu  sync.Mutex
	now time.Time
}

// logged is the log, all of it.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: start, log: &logged{}}
	db, err := store.Open(t.Context(), store.Config{SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "test", Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	root, err := seal.CreateFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	w.sts = &sts.Service{
		Directory: &directory.Directory{Store: db, Now: w.clock},
		Ring:      &keyring.Ring{Store: db, Box: &seal.Box{Root: root}, Config: keyring.DefaultConfig, Now: w.clock},
		Names:     web.Names{Domain: "innate.test", Port: 8443}, Now: w.clock,
	}
	w.fill(t)
	w.serve(t)
	return w
}

func (w *world) fill(t testing.TB) {
	t.Helper()
	for _, id := range []string{tenantA, tenantB} {
		w.write(t, id, func(tx arm.Tx) error {
			return tx.CreateTenant(directory.Tenant{ID: id, Name: id, Created: start})
		})
	}
	w.system = directory.NewPrincipal(tenantA, directory.ManagedIdentity, vm, true, start)
	w.user = directory.NewPrincipal(tenantA, directory.ManagedIdentity, ident, false, start)
	w.other = directory.NewPrincipal(tenantB, directory.ManagedIdentity, vm, true, start)
	w.write(t, tenantA, func(tx arm.Tx) error {
		for _, p := range []directory.Principal{w.system, w.user} {
			if err := tx.PutPrincipal(p); err != nil {
				return err
			}
		}
		for _, a := range []directory.API{
			{Audience: "api://orders", Client: "0d000000-0000-0000-0000-000000000001", TokenVersion: 1},
			{Audience: "https://api.example.test/v2", Client: "0d000000-0000-0000-0000-000000000002", TokenVersion: 2},
		} {
			a.Tenant, a.Resource = tenantA, resource.MustParse(group+"/providers/Innate.Directory/applications/app"+a.Client[35:])
			if err := tx.PutAPI(a); err != nil {
				return err
			}
		}
		return tx.Attach(vm.Key(), ident.Key())
	})
	w.put(t, w.other)
}

func (w *world) put(t testing.TB, p directory.Principal) {
	t.Helper()
	w.write(t, p.Tenant, func(tx arm.Tx) error { return tx.PutPrincipal(p) })
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = at
}

func (w *world) write(t testing.TB, tenant string, fn func(arm.Tx) error) {
	t.Helper()
	ev := audit.Event{Tenant: tenant, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	if err := w.db.Write(t.Context(), &ev, fn); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serve(t testing.TB) {
	t.Helper()
	srv := httptest.NewTLSServer(web.Identify(w.sts.Handler(slog.New(slog.NewJSONHandler(w.log, nil)))))
	t.Cleanup(srv.Close)
	w.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the certificate is httptest's
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			},
		},
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
}

func (a answer) json(t testing.TB, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(a.text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("the answer %d %s: %v", a.status, a.text, err)
	}
}

// do sends a request to the login host; headers are "Name: value".
func (w *world) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, login+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := w.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

// host is the agent's machine, as the fleet says who asks for a workload.
var host = access.Caller{Tenant: tenantA, Principal: "host:h1", Name: "h1", Request: "req-1"}

// issue asks for a token of the machine, as its agent does.
func (w *world) issue(t testing.TB, audience string) sts.Issued {
	t.Helper()
	out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{Audience: audience, Workload: vm, Host: "h1", Evidence: "unix:uid:0"})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// events are what tokens left on record in a tenant.
func (w *world) events(t testing.TB, tenant string) []audit.Event {
	t.Helper()
	batches, err := w.db.Batches(t.Context(), tenant, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []audit.Event
	for _, b := range batches {
		if b.Chain == audit.ManagementChain {
			continue
		}
		evs, err := b.Events()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, evs...)
	}
	return out
}
