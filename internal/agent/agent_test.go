package agent_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	web1  = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1"
	shop  = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/shop"
	vault = "https://vault.azure.net"
)

// onMain places every caller of the door "main" at web1.
var onMain = fleetapi.Placement{Name: "p-web1", Door: "main", Resource: web1}

// ours places programs of this test's user, started through the socket, at shop.
func ours() fleetapi.Placement {
	return fleetapi.Placement{Name: "p-shop", Door: "run", Resource: shop, Selectors: []string{"unix:uid:" + strconv.Itoa(os.Getuid())}}
}

func config(t *testing.T, cp *agenttest.ControlPlane) agent.Config {
	t.Helper()
	// A socket's path must be short, which t.TempDir is not always.
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return agent.Config{
		ControlPlane: cp.URL, CA: cp.CA, StateDir: filepath.Join(dir, "state"), EnrolToken: agenttest.EnrolToken,
		Doors: []agent.DoorConfig{{Name: "main", Listen: "127.0.0.1:0"}}, ControlSocket: filepath.Join(dir, "a.sock"),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func begin(t *testing.T, cfg agent.Config) *agent.Agent {
	t.Helper()
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

type reply struct {
	Status int
	Header http.Header
	Body   string
	Token  struct {
		AccessToken string `json:"access_token"`
	}
}

func send(t *testing.T, req *http.Request) reply {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
	if err := json.Unmarshal(body, &r.Token); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	return r
}

func request(t *testing.T, url string, headers ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// imds asks the door "main" for a token.
func imds(t *testing.T, a *agent.Agent, query string) reply {
	t.Helper()
	return send(t, request(t, "http://"+a.DoorAddr("main")+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault+query, "Metadata", "true"))
}

func app(t *testing.T, endpoint, header string) reply {
	t.Helper()
	return send(t, request(t, endpoint+"?api-version=2019-08-01&resource="+vault, "X-IDENTITY-HEADER", header))
}

func wantToken(t *testing.T, r reply, token string) {
	t.Helper()
	if r.Status != 200 || r.Token.AccessToken != token {
		t.Fatalf("answer = %d %s, want token %s", r.Status, r.Body, token)
	}
}

func synced(t *testing.T, a *agent.Agent, revision int64) {
	t.Helper()
	agenttest.Eventually(t, "the agent heard of revision "+strconv.FormatInt(revision, 10), func() bool {
		s := a.Status()
		return s.Connected && s.Revision >= revision
	})
}

func TestFirstTokenThenFromMemory(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	wantToken(t, imds(t, a, ""), "token-1")
	wantToken(t, imds(t, a, "&bypass_cache=true"), "token-2")
	if got := cp.Calls(fleetapi.PathToken); got != 2 {
		t.Errorf("the control plane was asked %d times, want 2", got)
	}
	agenttest.Eventually(t, "the answer from memory was shipped", func() bool {
		served, stale, _ := cp.Recorded("")
		return served == 1 && stale == 0
	})
}

func TestTokenNamedByItsHashIsNotGivenAgain(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	wantToken(t, imds(t, a, "&token_sha256_to_refresh="+sha("another's")), "token-1")
	wantToken(t, imds(t, a, "&token_sha256_to_refresh="+sha("token-1")), "token-2")
}

func TestChangeTakesTokenAwayBeforeNextCall(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	synced(t, a, cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(web1)}}))
	wantToken(t, imds(t, a, ""), "token-2")
	synced(t, a, cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(shop)}})) // another's
	wantToken(t, imds(t, a, ""), "token-2")
	synced(t, a, cp.Push(fleetapi.Change{All: true}))
	wantToken(t, imds(t, a, ""), "token-3")
}

func TestRefusalDropsWhatWasRemembered(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	cp.Decide(func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		return fleetapi.TokenResponse{}, problem.Errorf(problem.IdentityNotFound, "web1 has no identity")
	})
	if r := imds(t, a, "&bypass_cache=true"); r.Status != 400 {
		t.Fatalf("refused answer = %d %s, want 400", r.Status, r.Body)
	}
	if r := imds(t, a, ""); r.Status != 400 {
		t.Errorf("answer after a refusal = %d %s, want 400", r.Status, r.Body)
	}
	cp.Decide(nil) // put right: works at once
	wantToken(t, imds(t, a, ""), "token-2")
}

func TestPlacementMadeJustNowIsFound(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	a := begin(t, config(t, cp))
	r := imds(t, a, "")
	if r.Status != 403 || !strings.Contains(r.Body, `"error":"access_denied"`) {
		t.Fatalf("answer without placement = %d %s, want 403 access_denied", r.Status, r.Body)
	}
	cp.PlaceUnsaid(onMain) // the stream has not said it
	wantToken(t, imds(t, a, ""), "token-1")
	agenttest.Eventually(t, "the refusal was shipped", func() bool {
		_, _, refused := cp.Recorded("no placement")
		return refused == 1
	})
}

func TestMovedPlacementIsFollowed(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	cp.PlaceUnsaid(fleetapi.Placement{Name: "p-web1", Door: "main", Resource: shop})
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		if req.Workload != shop {
			return fleetapi.TokenResponse{}, problem.Errorf(problem.CallerRefused, "the placement is another's")
		}
		return cp.Mint(req), nil
	})
	wantToken(t, imds(t, a, ""), "token-1")
}

func TestMostSelectorsWinAndTiesAreRefused(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	general := fleetapi.Placement{Name: "general", Door: "run", Resource: shop}
	cp.Place(general, ours())
	cfg := config(t, cp)
	a := begin(t, cfg)
	ev := evidence.Evidence{Selectors: []evidence.Selector{evidence.Selector(ours().Selectors[0])}, Grade: evidence.GradeKernel}
	var asked fleetapi.TokenRequest
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		asked = req
		return cp.Mint(req), nil
	})
	header, release, err := a.NewStart(shop, ev, "")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	wantToken(t, app(t, "http://"+a.AppAddr()+"/msi/token", header), "token-1")
	if asked.Placement != "p-shop" {
		t.Errorf("placement = %q, want p-shop, which says more", asked.Placement)
	}
	other := onMain
	other.Name, other.Resource = "p-other", shop
	synced(t, a, cp.Place(onMain, other))
	if r := imds(t, a, ""); r.Status != 403 || !strings.Contains(r.Body, "equally well") {
		t.Errorf("answer with two placements = %d %s, want 403", r.Status, r.Body)
	}
}

func TestAddDoor(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p", Door: "late", Resource: web1})
	a := begin(t, config(t, cp))
	addr, err := a.AddDoor(t.Context(), "late", "127.0.0.1:0")
	if err != nil || addr != a.DoorAddr("late") {
		t.Fatalf("AddDoor = %q, %v; DoorAddr = %q", addr, err, a.DoorAddr("late"))
	}
	wantToken(t, send(t, request(t, "http://"+addr+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault, "Metadata", "true")), "token-1")
	for name, listen := range map[string]string{"late": "127.0.0.1:0", "run": "127.0.0.1:0", "wide": "0.0.0.0:0", "a b": "127.0.0.1:0"} {
		if _, err := a.AddDoor(t.Context(), name, listen); err == nil {
			t.Errorf("AddDoor(%q, %q) succeeded, want an error", name, listen)
		}
	}
}

func TestCertificateIsRenewedAtHalfLife(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.CertLife(2e9) // 2 s: half of it is over half a second after enrolment
	a := begin(t, config(t, cp))
	cp.CertLife(24 * 3600e9)
	agenttest.Eventually(t, "the certificate was renewed", func() bool { return cp.Calls(fleetapi.PathRenew) == 1 })
	wantToken(t, imds(t, a, ""), "token-1")
}

func TestRestartNeedsNoToken(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cfg := config(t, cp)
	begin(t, cfg).Close()
	cfg.EnrolToken = ""
	a := begin(t, cfg)
	wantToken(t, imds(t, a, ""), "token-1")
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for name, tt := range map[string]struct {
		change func(*agent.Config, *agenttest.ControlPlane)
		want   string
	}{
		"no token":      {func(c *agent.Config, _ *agenttest.ControlPlane) { c.EnrolToken = "" }, "one-time enrolment token"},
		"wrong token":   {func(c *agent.Config, _ *agenttest.ControlPlane) { c.EnrolToken = "wrong" }, "unknown or spent"},
		"unreachable":   {func(_ *agent.Config, cp *agenttest.ControlPlane) { cp.Down(true) }, "cannot be reached"},
		"untrusted":     {func(c *agent.Config, _ *agenttest.ControlPlane) { c.CA = nil }, "certificate"},
		"door is taken": {func(c *agent.Config, _ *agenttest.ControlPlane) { c.Doors[0].Listen = taken.Addr().String() }, "in use"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := agenttest.New(t)
			cfg := config(t, cp)
			tt.change(&cfg, cp)
			a, err := agent.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = a.Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v, want an error with %q", err, tt.want)
			}
			if err != nil && cfg.EnrolToken != "" && strings.Contains(err.Error(), cfg.EnrolToken) {
				t.Errorf("the error has the token in it: %v", err)
			}
		})
	}
}

func TestTwoAgentsDoNotShareState(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cfg := config(t, cp)
	begin(t, cfg)
	cfg.ControlSocket = ""
	second, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("second Start = %v, want another agent", err)
	}
}

func TestNewReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := agent.New(agent.Config{ControlPlane: "http://x/y", Offline: "maybe", AppListen: "0.0.0.0:80", EnrolKeyFile: "k",
		Doors: []agent.DoorConfig{{Name: "run", Listen: "192.168.0.1:80"}, {Name: "a", Listen: "localhost:1"}, {Name: "a", Listen: "127.0.0.1:0"}}})
	if err == nil {
		t.Fatal("New succeeded")
	}
	for _, want := range []string{"https://", "state directory", "maybe", "0.0.0.0:80", `"run"`, "192.168.0.1", "localhost:1", "two doors", "both or none"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want also %q", err, want)
		}
	}
}
