package vault_test

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

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/vault"
	"github.com/innate-id/innate/internal/web"
)

const (
	tenantA = "aaaaaaaa-0000-0000-0000-00000000000a"
	tenantB = "bbbbbbbb-0000-0000-0000-00000000000b"
	group   = "/subscriptions/s1/resourceGroups/g1"
	demoID  = group + "/providers/Microsoft.KeyVault/vaults/demo"

	// The port is not the default one, to see it in every URL.
	demoURL  = "https://demo.vault.innate.test:8443"
	otherURL = "https://other.vault.innate.test:8443"
)

// start is when every test begins.
var start = time.Unix(1_790_000_000, 0).UTC()

// world is a real store with two tenants that both have a resource group of
// the same ID, and a vault each: demo (tenant A) and other (tenant B).
type world struct {
	t     *testing.T
	db    *store.DB
	path  string
	vault *vault.Vault
	http  *http.Client

	mu      sync.Mutex
	now     time.Time
	callers map[string]access.Caller // by token
	revoked map[string]bool          // tokens
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: start, callers: map[string]access.Caller{}, revoked: map[string]bool{}, path: filepath.Join(t.TempDir(), "innate.db")}
	w.t, _ = t.(*testing.T)
	db, err := store.Open(t.Context(), store.Config{SQLite: w.path, Chain: "test", Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	t.Cleanup(func() { _ = db.Close() })
	root, err := seal.CreateFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	dir := &directory.Directory{Store: db, Now: w.clock}
	w.vault = &vault.Vault{Store: db, Box: &seal.Box{Root: root}, Authorize: dir.Authorize, Now: w.clock}
	w.addTenant(t, tenantA, "demo")
	w.addTenant(t, tenantB, "other")
	w.serve(t)
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

// addTenant makes a tenant with a vault.
func (w *world) addTenant(t testing.TB, tenant, name string) {
	t.Helper()
	id := resource.MustParse(group + "/providers/Microsoft.KeyVault/vaults/" + name)
	w.write(t, tenant, func(tx arm.Tx) error {
		if err := tx.CreateTenant(directory.Tenant{ID: tenant, Name: name, Created: start}); err != nil {
			return err
		}
		for _, r := range []arm.Resource{
			{ID: resource.MustParse("/subscriptions/s1"), Type: "Microsoft.Resources/subscriptions"},
			{ID: resource.MustParse(group), Type: "Microsoft.Resources/resourceGroups"},
			{ID: id, Type: "Microsoft.KeyVault/vaults"},
		} {
			r.Tenant, r.UID, r.Created, r.Updated = tenant, uuid.NewString(), start, start
			r.Body = map[string]json.RawMessage{"location": json.RawMessage(`"local"`)}
			if err := tx.PutResource(r); err != nil {
				return err
			}
		}
		return tx.ClaimName("vault", name, id.Key())
	})
}

func (w *world) write(t testing.TB, tenant string, fn func(arm.Tx) error) {
	t.Helper()
	ev := audit.Event{Tenant: tenant, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed}
	if err := w.db.Write(t.Context(), &ev, fn); err != nil {
		t.Fatal(err)
	}
}

// as makes a principal with the roles, each given as role at scope, and
// returns its token.
func (w *world) as(t testing.TB, tenant, name string, roles ...string) string {
	t.Helper()
	p := directory.NewPrincipal(tenant, directory.ManagedIdentity, resource.MustParse(group+"/providers/N.S/t/"+name), false, start)
	w.write(t, tenant, func(tx arm.Tx) error {
		if err := tx.PutPrincipal(p); err != nil {
			return err
		}
		for _, r := range roles {
			if err := tx.PutRoleAssignment(assignment(t, p, r)); err != nil {
				return err
			}
		}
		return nil
	})
	token := tenant + " " + name
	w.callers[token] = access.Caller{Tenant: tenant, Principal: p.ID, Client: p.Client, Issuer: "https://login.innate.test/" + tenant, Name: name}
	return token
}

// assignment reads "Key Vault Secrets User at /scope".
func assignment(t testing.TB, p directory.Principal, spec string) arm.RoleAssignment {
	t.Helper()
	role, at, _ := strings.Cut(spec, " at ")
	scope := resource.MustParse(at)
	id, err := scope.Extension("Microsoft.Authorization/roleAssignments", uuid.NewString())
	if err != nil {
		t.Fatal(err)
	}
	out := arm.RoleAssignment{Tenant: p.Tenant, PrincipalType: "ServicePrincipal", Created: start, Updated: start}
	out.ID, out.Scope, out.Principal = id, scope, p.ID
	for _, r := range access.BuiltIns() {
		if r.Name == role {
			out.Role = r.ID
			return out
		}
	}
	t.Fatalf("there is no role %q", role)
	return out
}

func (w *world) serve(t testing.TB) {
	t.Helper()
	h := w.vault.Handler(vault.Surface{
		Log:          slog.New(slog.DiscardHandler),
		Authenticate: w.authenticate,
		Names:        web.Names{Domain: "innate.test", Port: 8443},
	})
	srv := httptest.NewTLSServer(web.Identify(h))
	t.Cleanup(srv.Close)
	w.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // any vault's name leads here
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, srv.Listener.Addr().String())
			},
		},
	}
}

// revoke makes a token one of an identity that is deleted.
func (w *world) revoke(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked[token] = true
}

func (w *world) authenticate(_ context.Context, r *http.Request, _ string) (access.Caller, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	w.mu.Lock()
	defer w.mu.Unlock()
	switch c, known := w.callers[token]; {
	case !ok:
		return access.Caller{}, problem.Errorf(problem.Unauthenticated, "no bearer token")
	case w.revoked[token]:
		return access.Caller{}, problem.Errorf(problem.Revoked, "its principal is deleted")
	case known:
		c.Request = web.RequestID(r.Context())
		return c, nil
	case strings.HasPrefix(token, "kind:"):
		return access.Caller{}, problem.Errorf(problem.Kind(token[5:]), "it is %s", token[5:])
	}
	return access.Caller{}, problem.Errorf(problem.Unauthenticated, "its signature does not verify")
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
	vault.Bundle
	vault.ErrorResult
	ListResult vault.ListResult
}

// do sends a request; url gets the api-version unless it has a query.
func (w *world) do(t testing.TB, token, method, url, body string) answer {
	t.Helper()
	if !strings.Contains(url, "?") {
		url += "?api-version=7.4"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
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
	a := answer{status: res.StatusCode, header: res.Header, text: string(b)}
	if len(b) > 0 {
		for _, v := range []any{&a.ErrorResult, &a.Bundle} {
			if err := json.Unmarshal(b, v); err != nil && !bytes.Contains(b, []byte(`"nextLink"`)) {
				t.Fatalf("%s %s answered %d %s: %v", method, url, res.StatusCode, b, err)
			}
		}
		_ = json.Unmarshal(b, &a.ListResult) // a bundle's value is no list
	}
	return a
}

// must is do with the status that is wanted.
func (w *world) must(token, method, url, body string, status int) answer {
	w.t.Helper()
	a := w.do(w.t, token, method, url, body)
	if a.status != status {
		w.t.Fatalf("%s %s = %d %s, want %d", method, url, a.status, a.text, status)
	}
	return a
}

// refused is must with the code and inner code that are wanted.
func (w *world) refused(token, method, url, body string, status int, code, inner string) answer {
	w.t.Helper()
	a := w.must(token, method, url, body, status)
	got := ""
	if a.Error.InnerError != nil {
		got = a.Error.InnerError.Code
	}
	if a.Error.Code != code || got != inner || a.Error.Message == "" {
		w.t.Fatalf("%s %s = %s, want code %s and inner code %q", method, url, a.text, code, inner)
	}
	return a
}

// events returns the data-plane events of a tenant, after checking the chain.
func (w *world) events(t testing.TB, tenant string) []audit.Event {
	t.Helper()
	batches, err := w.db.Batches(t.Context(), tenant, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ours []audit.Batch
	for _, b := range batches {
		if b.Chain != audit.ManagementChain {
			ours = append(ours, b)
		}
	}
	if err := audit.Verify(0, "", ours); err != nil {
		t.Fatal(err)
	}
	var out []audit.Event
	for _, b := range ours {
		evs, err := b.Events()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, evs...)
	}
	return out
}
