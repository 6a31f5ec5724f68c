package graph_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/sts"
)

const (
	tenantA = "aaaaaaaa-0000-4000-8000-00000000000a"
	tenantB = "bbbbbbbb-0000-4000-8000-00000000000b"
	sub     = "/subscriptions/51515151-0000-4000-8000-000000000005"
	g1      = sub + "/resourceGroups/g1"
	g2      = sub + "/resourceGroups/g2"
	vms     = "/providers/Microsoft.Compute/virtualMachines/"
	uais    = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"

	roleOwner   = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	roleReader  = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	roleSecrets = "4633458b-17de-408a-b874-0445c86b69e6" // Key Vault Secrets User
	nobody      = "99999999-9999-4999-8999-999999999999"
)

var update = flag.Bool("update", false, "write the golden files anew")

// start is when every test begins.
var start = time.Unix(1_790_000_000, 0).UTC()

// world is a whole control plane on loopback with two tenants of the same
// resources.
type world struct {
	t    testing.TB
	srv  *server.Server
	http *http.Client
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t}
	dir := t.TempDir()
	if _, err := seal.CreateFile(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	now := func() time.Time { return start }
	srv, err := server.Open(ctx, server.Config{
		Domain: "innate.test", Listen: "127.0.0.1:0", Port: 8443, RootKeyFile: filepath.Join(dir, "root.key"), Replica: "test", TokenLife: "1h",
		Database: server.Database{SQLite: filepath.Join(dir, "innate.db")}, TLS: server.TLS{LocalCA: true}, PublicNames: true,
	}, slog.New(slog.DiscardHandler), now)
	if err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	pool := x509.NewCertPool()
	pool.AddCert(srv.CA.Certificate())
	pool.AddCert(srv.PublicCA.Certificate())
	w.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Time: now},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, srv.Addr())
		},
	}}
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	for _, tenant := range []string{tenantA, tenantB} {
		_, err := srv.Bootstrap(t.Context(), server.Bootstrap{
			Tenant: tenant, Subscription: strings.TrimPrefix(sub, "/subscriptions/"), TenantName: "Test", Group: "g1", Location: "local", Host: "boot", Owner: "ops",
		})
		if err != nil {
			t.Fatal(err)
		}
		w.put(tenant, g2, map[string]any{"location": "local"})
	}
	return w
}

func (w *world) builder(tenant string) *server.Builder {
	return &server.Builder{Server: w.srv, Caller: access.SystemCaller(tenant, "test")}
}

func (w *world) put(tenant, id string, body map[string]any) {
	w.t.Helper()
	if err := w.builder(tenant).Put(w.t.Context(), resource.MustParse(id), body); err != nil {
		w.t.Fatal(err)
	}
}

// vm makes a virtual machine with an identity and roles, each "{role} {scope}".
func (w *world) vm(tenant, group, name string, roles ...string) *caller {
	w.t.Helper()
	id := group + vms + name
	w.put(tenant, id, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}})
	for _, r := range roles {
		role, scope, _ := strings.Cut(r, " ")
		if err := w.builder(tenant).Assign(w.t.Context(), resource.MustParse(id), role, resource.MustParse(scope)); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.caller(tenant, id)
}

// identity makes a user-assigned identity.
func (w *world) identity(tenant, group, name string) *caller {
	w.t.Helper()
	w.put(tenant, group+uais+name, map[string]any{"location": "local"})
	return w.caller(tenant, group+uais+name)
}

// ops owns the subscription.
func (w *world) ops(tenant string) *caller {
	return w.caller(tenant, g1+"/providers/Innate.Build/agentPools/ops")
}

// caller is the principal of a resource.
func (w *world) caller(tenant, id string) *caller {
	w.t.Helper()
	p, err := w.srv.DB.PrincipalOf(w.t.Context(), tenant, resource.MustParse(id).Key())
	if err != nil {
		w.t.Fatal(err)
	}
	return &caller{w: w, tenant: tenant, id: id, oid: p.ID, client: p.Client}
}

type caller struct {
	w                            *world
	tenant, id, oid, client, raw string
}

// token is a real one, for Graph.
func (c *caller) token() string {
	c.w.t.Helper()
	if c.raw == "" {
		got, err := c.w.srv.STS.ForWorkload(c.w.t.Context(), access.Caller{Tenant: c.tenant, Principal: "host:test"},
			sts.Request{Audience: "https://graph.microsoft.com/", Workload: resource.MustParse(c.id)})
		if err != nil {
			c.w.t.Fatal(err)
		}
		c.raw = got.Token
	}
	return c.raw
}

type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (r reply) values() (out []map[string]any) {
	l, _ := r.body["value"].([]any)
	for _, v := range l {
		m, _ := v.(map[string]any)
		out = append(out, m)
	}
	return out
}

// each are the values of a member of all objects.
func (r reply) each(member string) []string {
	out := []string{}
	for _, v := range r.values() {
		s, _ := v[member].(string)
		out = append(out, s)
	}
	return out
}

func (r reply) code() string {
	e, _ := r.body["error"].(map[string]any)
	s, _ := e["code"].(string)
	return s
}

func (c *caller) do(method, path, body string, header ...string) reply {
	c.w.t.Helper()
	if !strings.HasPrefix(path, "https://") {
		path = c.w.srv.Names.Graph() + "/v1.0/" + path
	}
	req, err := http.NewRequestWithContext(c.w.t.Context(), method, strings.ReplaceAll(path, " ", "%20"), strings.NewReader(body))
	if err != nil {
		c.w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token())
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.w.http.Do(req)
	if err != nil {
		c.w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	out := reply{status: res.StatusCode, header: res.Header, text: string(b)}
	_ = json.Unmarshal(b, &out.body) // nil if it is none
	return out
}

func (c *caller) get(path string) reply { c.w.t.Helper(); return c.must(200, "GET", path, "") }

func (c *caller) must(status int, method, path, body string) reply {
	c.w.t.Helper()
	r := c.do(method, path, body)
	if r.status != status {
		c.w.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, r.status, r.text, status)
	}
	return r
}

// refused is an answer with an error of Graph's shape.
func (c *caller) refused(status int, code, method, path, body string) reply {
	c.w.t.Helper()
	r := c.do(method, path, body)
	e, _ := r.body["error"].(map[string]any)
	inner, _ := e["innerError"].(map[string]any)
	if r.status != status || r.code() != code || e["message"] == "" || inner["request-id"] != r.header.Get("Request-Id") ||
		inner["client-request-id"] != r.header.Get("Client-Request-Id") || inner["date"] != "2026-09-21T14:13:20" || r.header.Get("Request-Id") == "" {
		c.w.t.Errorf("%s %.200s %.200s = %d %.300s, want %d %s", method, path, body, r.status, r.text, status, code)
	}
	return r
}

// events are those of the request that r answered.
func (w *world) events(tenant string, r reply) []audit.Event {
	w.t.Helper()
	bs, err := w.srv.DB.Batches(w.t.Context(), tenant, nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []audit.Event
	for _, b := range bs {
		evs, err := b.Events()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, ev := range evs {
			if ev.Request == r.header.Get("X-Ms-Request-Id") {
				out = append(out, ev)
			}
		}
	}
	return out
}

// golden compares an answer with a file; what differs from run to run stands
// there by its name.
func golden(t testing.TB, name string, r reply, names ...string) {
	t.Helper()
	text := strings.NewReplacer(names...).Replace(r.text)
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(b)+"\n"); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
