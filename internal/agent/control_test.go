package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
)

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func control(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// start asks the control socket for a start; end closes its connection.
func start(t *testing.T, socket, resource string) (status int, ok agent.StartResponse, fail fleetapi.Error, end func()) {
	t.Helper()
	body, err := json.Marshal(agent.StartRequest{Resource: resource})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := control(socket).Post("http://agent/starts", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { resp.Body.Close() })
	t.Cleanup(end)
	into := any(&ok)
	if resp.StatusCode != http.StatusOK {
		into = &fail
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, ok, fail, end
}

func TestStartSecretDiesWithItsConnection(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(ours(), fleetapi.Placement{Name: "all", Door: "main", Resource: shop})
	cfg := config(t, cp)
	a := begin(t, cfg)
	status, s, fail, end := start(t, cfg.ControlSocket, strings.ToUpper(shop[:14])+shop[14:])
	if status != http.StatusOK {
		t.Fatalf("POST /starts = %d %+v", status, fail)
	}
	if want := "http://" + a.AppAddr() + "/msi/token"; s.Endpoint != want {
		t.Errorf("endpoint = %q, want %q", s.Endpoint, want)
	}
	if want := "http://" + a.DoorAddr("main"); s.IMDS != want {
		t.Errorf("imds = %q, want %q", s.IMDS, want)
	}
	if len(s.Header) != 43 {
		t.Errorf("secret has %d characters, want 43 (32 bytes in base64url)", len(s.Header))
	}
	_, other, _, _ := start(t, cfg.ControlSocket, shop)
	if other.Header == s.Header {
		t.Error("two starts have one secret")
	}
	wantToken(t, app(t, s.Endpoint, s.Header), "token-1")
	end()
	agenttest.Eventually(t, "the secret is dead", func() bool { return app(t, s.Endpoint, s.Header).Status == 401 })
	wantToken(t, app(t, other.Endpoint, other.Header), "token-1") // the other start lives on
}

func TestAnotherUsersPlacementIsNotUsable(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	theirs := ours()
	theirs.Selectors = []string{fmt.Sprintf("unix:uid:%d", os.Getuid()+1)}
	onDoor := fleetapi.Placement{Name: "p-door", Door: "main", Resource: shop} // another door's
	cp.Place(theirs, onDoor)
	cfg := config(t, cp)
	begin(t, cfg)
	status, _, fail, _ := start(t, cfg.ControlSocket, shop)
	if status != http.StatusForbidden || fail.Kind != "caller_refused" || !strings.Contains(fail.Detail, "lets this user run as "+shop) {
		t.Errorf("POST /starts = %d %+v, want 403 with what to do", status, fail)
	}
	if strings.Contains(fail.Detail, theirs.Selectors[0]) || strings.Contains(fail.Detail, theirs.Name) {
		t.Errorf("refusal tells of another's placement: %s", fail.Detail)
	}
	agenttest.Eventually(t, "the refusal was shipped", func() bool {
		_, _, refused := cp.Recorded("run as")
		return refused == 1
	})
}

func TestStartEndsWithItsPlacement(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(ours())
	cfg := config(t, cp)
	a := begin(t, cfg)
	_, s, _, _ := start(t, cfg.ControlSocket, shop)
	wantToken(t, app(t, s.Endpoint, s.Header), "token-1")
	synced(t, a, cp.Place())
	if r := app(t, s.Endpoint, s.Header); r.Status != 403 {
		t.Errorf("answer after the placement went = %d %s, want 403", r.Status, r.Body)
	}
}

func TestNewStartChecksTheNamedPlacement(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(ours())
	a := begin(t, config(t, cp))
	mine := evidence.Evidence{Selectors: []evidence.Selector{evidence.Selector(ours().Selectors[0])}}
	for _, tt := range []struct {
		resource, placement string
		ev                  evidence.Evidence
		ok                  bool
	}{
		{shop, "p-shop", mine, true},
		{shop, "", mine, true},
		{web1, "p-shop", mine, false},
		{shop, "p-other", mine, false},
		{shop, "p-shop", evidence.Evidence{}, false},
		{"no id", "p-shop", mine, false},
	} {
		header, release, err := a.NewStart(tt.resource, tt.ev, tt.placement)
		if (err == nil) != tt.ok {
			t.Errorf("NewStart(%q, %v, %q) = %v, want ok = %v", tt.resource, tt.ev, tt.placement, err, tt.ok)
		}
		if err == nil {
			release()
			release() // once more changes nothing
			if r := app(t, "http://"+a.AppAddr()+"/msi/token", header); r.Status != 401 {
				t.Errorf("answer after release = %d, want 401", r.Status)
			}
		}
	}
}

func TestControlSocket(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cfg := config(t, cp)
	a := begin(t, cfg)
	info, err := os.Stat(cfg.ControlSocket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket = %v, %v; want mode 0600", info.Mode(), err)
	}
	resp, err := control(cfg.ControlSocket).Get("http://agent/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s agent.Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	if s.Host != agenttest.HostID || !s.Connected || len(s.Doors) != 1 || s.Doors[0].Addr != a.DoorAddr("main") || s.AgeMS < 0 {
		t.Errorf("status = %+v", s)
	}
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/starts", ``, 400},
		{"POST", "/starts", `{"resource":"x"}`, 400},
		{"POST", "/starts", `{"resource":"` + shop + `"} {}`, 400},
		{"POST", "/starts", `{"resource":"` + shop + `","more":1}`, 400},
		{"POST", "/starts", `{"resource":"` + strings.Repeat("x", 20<<10) + `"}`, 400},
		{"GET", "/other", ``, 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://agent"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := control(cfg.ControlSocket).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var e fleetapi.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != tt.want || e.Kind == "" || e.Detail == "" {
			t.Errorf("%s %s %.40s = %d %+v %v, want %d", tt.method, tt.path, tt.body, resp.StatusCode, e, err, tt.want)
		}
		resp.Body.Close()
	}
}

// A start holds its connection open for long; stopping must not wait for it.
func TestCloseEndsStarts(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(ours())
	cfg := config(t, cp)
	a := begin(t, cfg)
	conn, err := net.Dial("unix", cfg.ControlSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"resource":"` + shop + `"}`
	fmt.Fprintf(conn, "POST /starts HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("answer = %q, %v", line, err)
	}
	a.Close()
	if _, err := os.Stat(cfg.ControlSocket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestParallelRequestsWithDrops(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	cfg := config(t, cp)
	a := begin(t, cfg)
	_, s, _, _ := start(t, cfg.ControlSocket, shop)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 40 {
			cp.Push(fleetapi.Change{Resources: []string{strings.ToLower([]string{web1, shop}[i%2])}})
			if i%10 == 5 {
				cp.EndStreams()
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			// 503: rights changed twice while the token was on its way.
			if i%2 == 0 {
				if r := imds(t, a, ""); r.Status != 200 && r.Status != 503 {
					t.Errorf("imds = %d %s", r.Status, r.Body)
				}
			} else if r := app(t, s.Endpoint, s.Header); r.Status != 200 && r.Status != 503 {
				t.Errorf("app = %d %s", r.Status, r.Body)
			}
		})
	}
	wg.Wait()
	<-done
}
