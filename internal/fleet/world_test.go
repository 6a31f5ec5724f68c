package fleet_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/sts"
)

const (
	tenantA = "aaaaaaaa-0000-4000-8000-00000000000a"
	tenantB = "bbbbbbbb-0000-4000-8000-00000000000b"
	sub     = "/subscriptions/51515151-0000-4000-8000-000000000005"
	ops     = sub + "/resourceGroups/ops" // the group that bootstrap makes
	vms     = ops + "/providers/Microsoft.Compute/virtualMachines"
	hosts   = ops + "/providers/Innate.Fleet/hosts"

	roleOwner       = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	roleContributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"

	api     = "https://management.azure.com/"
	machine = `{"location":"local","identity":{"type":"SystemAssigned"}}`
)

// start is when every test begins.
var start = time.Unix(1_790_000_000, 0).UTC()

// world is a whole control plane on loopback with the tenant A. Its fleet is
// called over mutual TLS, its management API with tokens of owner.
type world struct {
	t     testing.TB
	srv   *server.Server
	owner caller

	mu  sync.Mutex
	now time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, now: start}
	dir := t.TempDir()
	if _, err := seal.CreateFile(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	srv, err := server.Open(ctx, server.Config{
		Domain: "innate.test", Listen: "127.0.0.1:0", RootKeyFile: filepath.Join(dir, "root.key"), Replica: "test", TokenLife: "1h",
		Database: server.Database{SQLite: filepath.Join(dir, "innate.db")}, TLS: server.TLS{LocalCA: true},
	}, slog.New(slog.DiscardHandler), w.clock)
	if err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	w.owner = w.addTenant(tenantA)
	return w
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
func (w *world) addTenant(tenant string) caller {
	w.t.Helper()
	b, err := w.srv.Bootstrap(w.t.Context(), server.Bootstrap{
		Tenant: tenant, Subscription: strings.TrimPrefix(sub, "/subscriptions/"), TenantName: "Test",
		Group: "ops", Location: "local", Host: "boot", Owner: "root",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.caller(tenant, b.Owner)
}

// as makes a build agent with roles, each "{role} {scope}".
func (w *world) as(tenant, name string, roles ...string) caller {
	w.t.Helper()
	id := resource.MustParse(ops + "/providers/Innate.Build/agentPools/" + name)
	b := &server.Builder{Server: w.srv, Caller: access.SystemCaller(tenant, "test")}
	if err := b.Put(w.t.Context(), id, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}}); err != nil {
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

// caller is a client of the management API.
type caller struct {
	w             *world
	tenant, token string
}

func (w *world) caller(tenant string, id resource.ID) caller {
	w.t.Helper()
	got, err := w.srv.STS.ForWorkload(w.t.Context(), access.Caller{Tenant: tenant, Principal: "host:test"}, sts.Request{Audience: api, Workload: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return caller{w: w, tenant: tenant, token: got.Token}
}

// must sends a request to the management API, with headers (name, value, ...),
// and wants this status.
func (c caller) must(status int, method, path, body string, header ...string) map[string]any {
	c.w.t.Helper()
	req, err := http.NewRequestWithContext(c.w.t.Context(), method, c.w.srv.Names.Management()+path+"?api-version=2024-11-30", strings.NewReader(body))
	if err != nil {
		c.w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.w.client("", nil).Do(req)
	if err != nil {
		c.w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	if res.StatusCode != status {
		c.w.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, res.StatusCode, b, status)
	}
	var out map[string]any
	_ = json.Unmarshal(b, &out) // a 204 has none
	return out
}

// refused is must with the code of the error.
func (c caller) refused(status int, code, method, path, body string) {
	c.w.t.Helper()
	e, _ := c.must(status, method, path, body)["error"].(map[string]any)
	if e["code"] != code {
		c.w.t.Errorf("%s %s %s is refused with %v, want %s", method, path, body, e, code)
	}
}

// client shows cert, if any. sni overrides the name that the handshake asks for.
func (w *world) client(sni string, cert *tls.Certificate) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(w.srv.CA.Certificate())
	cfg := &tls.Config{RootCAs: pool, Time: w.clock, ServerName: sni}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	tr := &http.Transport{
		TLSClientConfig: cfg,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.srv.Addr())
		},
	}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// agent is one host's side.
type agent struct {
	w    *world
	id   string // the host's resource ID
	http *http.Client
	cert *tls.Certificate
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func csr(t testing.TB, key crypto.Signer, tmpl *x509.CertificateRequest) []byte {
	t.Helper()
	if tmpl == nil {
		tmpl = &x509.CertificateRequest{}
	}
	b, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// enrolmentToken makes a host, if it is not there, and a token for it.
func (c caller) enrolmentToken(host string) string {
	c.w.t.Helper()
	id := resource.MustParse(hosts + "/" + host)
	if _, err := c.w.srv.DB.Resource(c.w.t.Context(), c.tenant, id.Key()); problem.Is(err, problem.NotFound) {
		c.must(201, "PUT", id.String(), `{}`)
	}
	tok, _ := c.must(200, "POST", id.String()+"/createEnrolmentToken", "")["token"].(string)
	return tok
}

// enrol makes a host and enrols it.
func (c caller) enrol(host string) *agent {
	c.w.t.Helper()
	key := newKey(c.w.t)
	var out fleetapi.EnrolResponse
	nobody := &agent{w: c.w, http: c.w.client("", nil)}
	nobody.must(200, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{Token: c.enrolmentToken(host), CSR: csr(c.w.t, key, nil)}, &out)
	cert := &tls.Certificate{Certificate: [][]byte{out.Certificate}, PrivateKey: key}
	return &agent{w: c.w, id: out.Host, cert: cert, http: c.w.client("", cert)}
}

// place places a resource on a host.
func (c caller) place(host, name, what string) {
	c.w.t.Helper()
	c.must(201, "PUT", hosts+"/"+host+"/placements/"+name, `{"properties":{"door":"run","resourceId":"`+what+`"}}`)
}

// do sends a message to the fleet's API and returns the status and the body.
func (a *agent) do(method, path string, in any) (int, []byte) {
	a.w.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			a.w.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(a.w.t.Context(), method, a.w.srv.Names.Fleet()+path, body)
	if err != nil {
		a.w.t.Fatal(err)
	}
	res, err := a.http.Do(req)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return res.StatusCode, b
}

func (a *agent) must(status int, method, path string, in, out any) {
	a.w.t.Helper()
	got, b := a.do(method, path, in)
	if got != status {
		a.w.t.Fatalf("%s %s = %d %s, want %d", method, path, got, b, status)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			a.w.t.Fatalf("%s %s answers %s: %v", method, path, b, err)
		}
	}
}

// refused wants a refusal of this kind.
func (a *agent) refused(kind problem.Kind, method, path string, in any) {
	a.w.t.Helper()
	status, b := a.do(method, path, in)
	var e fleetapi.Error
	if err := json.Unmarshal(b, &e); err != nil || e.Kind != string(kind) || e.Detail == "" || status < 400 || status > 499 {
		a.w.t.Errorf("%s %s %.200v = %d %s, want %s", method, path, in, status, b, kind)
	}
}

// ask asks for a token of the workload that the placement places.
func ask(placement, workload string) fleetapi.TokenRequest {
	return fleetapi.TokenRequest{Workload: workload, Placement: placement, Audience: api, Caller: "door:run grade:kernel"}
}

// last returns the newest n events of a tenant's data chain.
func (w *world) last(tenant string, n int) []audit.Event {
	w.t.Helper()
	bs, err := w.srv.DB.Batches(w.t.Context(), tenant, nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []audit.Event
	for _, b := range bs {
		if b.Chain == audit.ManagementChain {
			continue
		}
		evs, err := b.Events()
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, evs...)
	}
	return out[max(0, len(out)-n):]
}

// unique makes a name that is not taken.
func unique(prefix string) string { return prefix + uuid.NewString()[:8] }

// rootAgent is the owner that bootstrap makes.
var rootAgent = resource.MustParse(ops + "/providers/Innate.Build/agentPools/root")

func pemCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
