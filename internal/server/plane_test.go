package server_test

import (
	"bytes"
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
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/testkit"
)

// databases are both, each as a server's configuration has it.
var databases = map[string]func(t *testing.T) server.Database{
	"sqlite": func(t *testing.T) server.Database { return server.Database{SQLite: filepath.Join(t.TempDir(), "db")} },
	"postgres": func(t *testing.T) server.Database {
		file := filepath.Join(t.TempDir(), "url")
		if err := os.WriteFile(file, []byte(testkit.Postgres(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		return server.Database{PostgresFile: file}
	},
}

// plane is a control plane with one host that runs the real agent. All that a
// test does it does over HTTP: as the owner, and as programs at the agent's doors.
type plane struct {
	*server.Builder
	t     *testing.T
	group resource.ID
	host  resource.ID
	ops   resource.ID
	dir   string
	roots *x509.CertPool
	agent *agent.Agent
	tr    *http.Transport
}

func newPlane(t *testing.T, db server.Database) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), roots: x509.NewCertPool()}
	key := filepath.Join(p.dir, "root.key")
	if _, err := seal.CreateFile(key); err != nil {
		t.Fatal(err)
	}
	s, err := server.Open(t.Context(), server.Config{Domain: "innate.test", Listen: "127.0.0.1:0", Database: db,
		RootKeyFile: key, TLS: server.TLS{LocalCA: true}, Replica: "one", TokenLife: "1h"}, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	boot, err := s.Bootstrap(ctx, server.Bootstrap{TenantName: "test", Group: "g", Location: "local", Host: "h", Owner: "ops"})
	if err != nil {
		t.Fatal(err)
	}
	p.Builder = &server.Builder{Server: s, Caller: access.SystemCaller(boot.Tenant, "test")}
	p.group, p.host, p.ops = boot.Group, boot.Host, boot.Owner
	p.roots.AppendCertsFromPEM(s.CA.PEM())
	p.tr = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}, DialContext: p.dial, MaxIdleConnsPerHost: 64}
	t.Cleanup(p.tr.CloseIdleConnections)
	return p
}

func (p *plane) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, p.Server.Addr())
}

// in is a resource of the first group.
func (p *plane) in(typ, name string) resource.ID {
	p.t.Helper()
	id, err := p.group.Extension(typ, name)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

// serve starts the host's agent, with a door for each resource, and one for the
// owner of the subscription.
func (p *plane) serve(doors map[string]resource.ID) {
	p.t.Helper()
	var cfg []agent.DoorConfig
	doors["ops"] = p.ops
	for name, what := range doors {
		if err := p.Place(p.t.Context(), p.host, name, name, nil, what); err != nil {
			p.t.Fatal(err)
		}
		cfg = append(cfg, agent.DoorConfig{Name: name, Listen: "127.0.0.1:0"})
	}
	tok, _, err := p.Server.Enrolment(p.t.Context(), p.Caller.Tenant, p.host)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.agent, err = agent.New(agent.Config{ControlPlane: p.Server.Names.Fleet(), CA: p.roots, Dial: p.dial,
		StateDir: filepath.Join(p.dir, "agent"), EnrolToken: tok, Doors: cfg}); err != nil {
		p.t.Fatal(err)
	}
	if err := p.agent.Start(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.agent.Close)
}

// program is somebody at a door of the agent. It keeps its connections.
type program struct {
	p    *plane
	door *http.Client
	addr string
	api  *http.Client
	// mgmt is a token for the management API, if it has one.
	mgmt string
}

func (p *plane) program(door string) *program {
	tr := &http.Transport{}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &program{p: p, door: &http.Client{Transport: tr}, addr: p.agent.DoorAddr(door), api: &http.Client{Transport: p.tr}}
}

// owner is the subscription's owner, with a token.
func (p *plane) owner() *program {
	p.t.Helper()
	o := p.program("ops")
	var err error
	if o.mgmt, err = o.token(p.Server.Names.Management(), ""); err != nil {
		p.t.Fatal(err)
	}
	return o
}

// token asks the door for a token, as SDKs do.
func (g *program) token(audience, client string) (string, error) {
	url := "http://" + g.addr + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + audience
	if client != "" {
		url += "&client_id=" + client
	}
	req, err := http.NewRequestWithContext(g.p.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Metadata", "true")
	var out struct {
		AccessToken string `json:"access_token"`
	}
	status, text, err := send(g.door, req, &out)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("a token for %s: %d %s", client, status, text)
	}
	return out.AccessToken, err
}

// call sends a request with a token; out may be nil. It returns the status and
// the answer's text, for who wants to say what went wrong.
func (g *program) call(token, method, url, body string, out any, header ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(g.p.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return send(g.api, req, out)
}

func send(hc *http.Client, req *http.Request, out any) (int, string, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && out != nil && resp.StatusCode < 300 && len(b) > 0 {
		err = json.Unmarshal(b, out)
	}
	return resp.StatusCode, string(bytes.TrimSpace(b)), err
}

// arm calls the management API.
func (g *program) arm(method, path, body string, out any, header ...string) (int, string, error) {
	return g.call(g.mgmt, method, g.p.Server.Names.Management()+path+"?api-version=2024-11-30", body, out, header...)
}

// must is arm with one of the statuses that are wanted.
func (g *program) must(method, path, body string, out any, want ...int) error {
	status, text, err := g.arm(method, path, body, out)
	if err != nil {
		return err
	}
	for _, w := range want {
		if status == w {
			return nil
		}
	}
	return fmt.Errorf("%s %s = %d %s, want %v", method, path, status, text, want)
}
