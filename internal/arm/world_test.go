package arm_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/testkit"
)

const (
	tenantA = "aaaaaaaa-0000-4000-8000-00000000000a"
	tenantB = "bbbbbbbb-0000-4000-8000-00000000000b"
	// Both tenants have a subscription of this id: names are a tenant's own.
	sub  = "/subscriptions/51515151-0000-4000-8000-000000000005"
	g1   = sub + "/resourceGroups/g1"
	vms  = g1 + "/providers/Microsoft.Compute/virtualMachines"
	sets = g1 + "/providers/Microsoft.Compute/virtualMachineScaleSets"
	uais = g1 + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"

	roleOwner       = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	roleContributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	roleReader      = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	roleOperator    = "f1a07417-d97a-45cb-824c-7a7467783830" // Managed Identity Operator
	roleSecrets     = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7" // Key Vault Secrets Officer
	roleVaults      = "f25e0fa2-a7c8-4377-a976-54943a77a395" // Key Vault Contributor

	local = `{"location":"local"}`
)

// start is when every test begins.
var start = time.Unix(1_790_000_000, 0).UTC()

// world is a whole control plane on loopback, with the tenant A, whose
// subscription owner is w.owner, and the empty resource group g1.
type world struct {
	t     testing.TB
	srv   *server.Server
	http  *http.Client
	owner *caller
	tops  *caller // made by root

	// gate is what writes wait for; see hold.
	gate atomic.Pointer[chan struct{}]

	mu  sync.Mutex
	now time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, nil)
}

// newWorldWith has more resource types.
func newWorldWith(t testing.TB, types []arm.Registered) *world {
	t.Helper()
	return newWorldAs(t, registering(types))
}

// onBoth runs a test on SQLite and on PostgreSQL.
func onBoth(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, newWorld(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := filepath.Join(t.TempDir(), "url")
		if err := os.WriteFile(url, []byte(testkit.Postgres(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		test(t, newWorldAs(t, func(c *server.Config) { c.Database = server.Database{PostgresFile: url} }))
	})
}

func registering(types []arm.Registered) func(*server.Config) {
	return func(c *server.Config) {
		for _, r := range types {
			c.ResourceTypes = append(c.ResourceTypes, server.ResourceType{Type: r.Name, Identity: r.Identity, NoLocation: r.NoLocation, Extension: r.Extension})
		}
	}
}

// newWorldAs has another configuration.
func newWorldAs(t testing.TB, configure func(*server.Config)) *world {
	t.Helper()
	w := &world{t: t, now: start}
	dir := t.TempDir()
	if _, err := seal.CreateFile(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cfg := server.Config{
		Domain: "innate.test", Listen: "127.0.0.1:0", RootKeyFile: filepath.Join(dir, "root.key"), Replica: "test", TokenLife: "1h",
		Database: server.Database{SQLite: filepath.Join(dir, "innate.db")}, TLS: server.TLS{LocalCA: true},
	}
	configure(&cfg)
	srv, err := server.Open(ctx, cfg, slog.New(slog.DiscardHandler), w.clock)
	if err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	w.http = w.client("")
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	w.owner = w.addTenant(tenantA)
	w.owner.must(201, "PUT", g1, local)
	return w
}

// client trusts the world's CA and finds all its names; sni overrides the name
// that the handshake asks for.
func (w *world) client(sni string) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(w.srv.CA.Certificate())
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Time: w.clock, ServerName: sni},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.srv.Addr())
		},
		MaxIdleConnsPerHost: 64,
	}}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// addTenant makes a tenant and returns its subscription's owner.
func (w *world) addTenant(tenant string) *caller {
	w.t.Helper()
	b, err := w.srv.Bootstrap(w.t.Context(), server.Bootstrap{
		Tenant: tenant, Subscription: strings.TrimPrefix(sub, "/subscriptions/"), TenantName: "Test",
		Group: "ops", Location: "local", Host: "boot", Owner: "root",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.ownsSubscription(tenant, b.Owner)
	return w.caller(tenant, b.Owner)
}

// ownsSubscription takes the tenant from its first owner and leaves the
// subscription: what tests do as the owner should take no more than that.
func (w *world) ownsSubscription(tenant string, owner resource.ID) {
	w.t.Helper()
	b := w.builder(tenant)
	p, err := b.Principal(w.t.Context(), owner)
	if err != nil {
		w.t.Fatal(err)
	}
	ev := audit.Event{Tenant: tenant, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed, Principal: "test"}
	if err := w.srv.DB.Write(w.t.Context(), &ev, func(tx arm.Tx) error {
		was, err := tx.SameAssignment("/", roleOwner, p.ID)
		if err != nil {
			return err
		}
		return tx.DeleteRoleAssignment(was.ID.Key())
	}); err != nil {
		w.t.Fatal(err)
	}
	if err := b.Assign(w.t.Context(), owner, roleOwner, resource.MustParse(sub)); err != nil {
		w.t.Fatal(err)
	}
}

// builder writes as Innate itself, for what no caller may do.
func (w *world) builder(tenant string) *server.Builder {
	return &server.Builder{Server: w.srv, Caller: access.SystemCaller(tenant, "test")}
}

// as makes a build agent with roles, each "{role} {scope}", and returns it.
func (w *world) as(tenant, name string, roles ...string) *caller {
	w.t.Helper()
	id := resource.MustParse(sub + "/resourceGroups/ops/providers/Innate.Build/agentPools/" + name)
	b := w.builder(tenant)
	err := b.Put(w.t.Context(), id, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range roles {
		role, scope, _ := strings.Cut(r, " ")
		if err := b.Assign(w.t.Context(), id, role, resource.MustParse(scope)); err != nil {
			w.t.Fatal(err)
		}
	}
	return w.caller(tenant, id)
}

// caller is the resource id as a client of the API.
func (w *world) caller(tenant string, id resource.ID) *caller {
	w.t.Helper()
	c := &caller{w: w, tenant: tenant, id: id}
	c.token = c.tokenFor(w.srv.Names.Management())
	p, err := w.srv.DB.PrincipalOf(w.t.Context(), tenant, id.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	c.oid, c.client = p.ID, p.Client
	return c
}

// caller is a principal with a real token.
type caller struct {
	w                          *world
	tenant, oid, client, token string
	id                         resource.ID
}

func (c *caller) tokenFor(audience string) string {
	c.w.t.Helper()
	got, err := c.w.srv.STS.ForWorkload(c.w.t.Context(), access.Caller{Tenant: c.tenant, Principal: "host:test"}, sts.Request{Audience: audience, Workload: c.id})
	if err != nil {
		c.w.t.Fatal(err)
	}
	return got.Token
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

// str follows keys into the answer.
func (r reply) str(path ...string) string {
	v := any(r.body)
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	s, _ := v.(string)
	return s
}

func (r reply) values() []map[string]any {
	var out []map[string]any
	l, _ := r.body["value"].([]any)
	for _, v := range l {
		m, _ := v.(map[string]any)
		out = append(out, m)
	}
	return out
}

// url is path at the management API, with an api-version unless it has a query.
func (w *world) url(path string) string {
	if !strings.HasPrefix(path, "https://") {
		path = w.srv.Names.Management() + path
	}
	if !strings.Contains(path, "?") {
		path += "?api-version=2024-11-30"
	}
	return path
}

// send sends a request; header is name, value, name, value. It may be called
// from any goroutine.
func (c *caller) send(method, path, body string, header ...string) (reply, error) {
	var out reply
	req, err := http.NewRequestWithContext(c.w.t.Context(), method, c.w.url(path), strings.NewReader(body))
	if err != nil {
		return out, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.w.http.Do(req)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return out, err
	}
	out = reply{status: res.StatusCode, header: res.Header, text: string(b)}
	if len(b) > 0 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		out.body = decode(b)
	}
	return out, nil
}

// decode reads an object; nil if b is none.
func decode(b []byte) map[string]any {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // a float cannot hold every number that a client may send
	var out map[string]any
	if dec.Decode(&out) != nil {
		return nil
	}
	return out
}

func (c *caller) do(method, path, body string, header ...string) reply {
	c.w.t.Helper()
	r, err := c.send(method, path, body, header...)
	if err != nil {
		c.w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// must is do with the status that is wanted.
func (c *caller) must(status int, method, path, body string, header ...string) reply {
	c.w.t.Helper()
	r := c.do(method, path, body, header...)
	if r.status != status {
		c.w.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, r.status, r.text, status)
	}
	return r
}

// refused is must with the error code that is wanted, in both its places.
func (c *caller) refused(status int, code, method, path, body string, header ...string) reply {
	c.w.t.Helper()
	r := c.do(method, path, body, header...)
	if problem := r.wrong(status, code); problem != "" {
		c.w.t.Errorf("%s %s %.200s = %d %.300s: %s", method, path, body, r.status, r.text, problem)
	}
	return r
}

// wrong says what an ARM error should have that r has not.
func (r reply) wrong(status int, code string) string {
	switch {
	case r.status != status || r.header.Get("X-Ms-Error-Code") != code:
		return "want " + http.StatusText(status) + " " + code + " in x-ms-error-code, which is " + r.header.Get("X-Ms-Error-Code")
	case r.text == "":
		return ""
	case r.str("error", "code") != code || r.str("error", "message") == "" || len(r.body) != 1:
		return "want the body to have error.code " + code + " and a message"
	}
	return ""
}

// assign gives a role through the API and returns the assignment's ID.
func (c *caller) assign(role, oid, scope string) string {
	c.w.t.Helper()
	id := assignmentID(scope, uuid.NewString())
	c.must(201, "PUT", id, assignmentBody(role, oid))
	return id
}

func assignmentID(scope, name string) string {
	return strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/roleAssignments/" + name
}

func assignmentBody(role, oid string) string {
	return `{"properties":{"roleDefinitionId":"` + sub + `/providers/Microsoft.Authorization/roleDefinitions/` + role + `","principalId":"` + oid + `","principalType":"ServicePrincipal"}}`
}

// events returns all events of a tenant, by chain and in order.
func (w *world) events(tenant string) []audit.Event {
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
		out = append(out, evs...)
	}
	return out
}

// of returns the events of the request that r answered.
func (w *world) of(tenant string, r reply) []audit.Event {
	w.t.Helper()
	var out []audit.Event
	for _, ev := range w.events(tenant) {
		if ev.Request == r.header.Get("X-Ms-Request-Id") {
			out = append(out, ev)
		}
	}
	return out
}

// indent makes JSON readable in a diff.
func indent(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// root is a caller that owns the tenant's root, and so everything.
func (w *world) root() *caller {
	w.t.Helper()
	if w.tops == nil {
		w.tops = w.as(tenantA, "top", roleOwner+" /")
	}
	return w.tops
}
