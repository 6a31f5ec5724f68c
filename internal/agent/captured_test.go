package agent_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/fleetapi"
)

// host is a machine of the test's own: a network namespace, and a cgroup whose
// programs are captured.
type host struct {
	cfg agent.Config
	net *agenttest.Netns
	dir string // the cgroup's folder
}

func newHost(t *testing.T, cp *agenttest.ControlPlane) *host {
	t.Helper()
	needRoot(t)
	h := &host{cfg: config(t, cp), net: agenttest.NewNetns(t)}
	own, err := agenttest.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	var chosen string
	chosen, h.dir = agenttest.Cgroup(t, t.Name())
	h.cfg.Capture = &agent.CaptureConfig{StartGroup: own + "/starts-" + t.Name(), Config: capture.Config{
		BPFFS: agenttest.BPFFS(t), Root: own, Cgroups: []string{chosen}, Listen: netip.MustParseAddrPort("127.254.169.254:0"),
	}}
	t.Cleanup(func() {
		if err := capture.Remove(h.cfg.Capture.BPFFS); err != nil {
			t.Error(err)
		}
	})
	return h
}

// begin starts an agent whose doors are in the host's network namespace.
func (h *host) begin(t *testing.T) *agent.Agent {
	t.Helper()
	a, err := agent.New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	h.net.In(t, func() error { return a.Start(t.Context()) })
	return a
}

// curl asks for a token as a user, from the captured cgroup, at a URL's
// beginning.
func (h *host) curl(t *testing.T, uid uint32, at string) string {
	t.Helper()
	cmd := agenttest.Process(t, h.dir, uid, "curl", "-sS", "-H", "Metadata: true", at+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault)
	return h.output(t, cmd)
}

func (h *host) output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	return printed(t, h.net, cmd)
}

func printed(t *testing.T, in *agenttest.Netns, cmd *exec.Cmd) string {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	in.In(t, cmd.Start)
	_ = cmd.Wait() // curl's exit code says less than its words
	return out.String()
}

const imdsAt = "http://169.254.169.254"

// TestCapturedProgramIsAnsweredAsWhatItIs: nothing configured in the program,
// its user and nobody else is placed.
func TestCapturedProgramIsAnsweredAsWhatItIs(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-web1", Door: agent.CapturedDoor, Resource: web1, Selectors: []string{"unix:uid:12345"}})
	h := newHost(t, cp)
	a := h.begin(t)
	var callers []string
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		callers = append(callers, req.Caller)
		return cp.Mint(req), nil
	})
	if got := h.curl(t, 12345, imdsAt); !strings.Contains(got, `"access_token":"token-1"`) {
		t.Errorf("user 12345 was answered %s", got)
	}
	if got := h.curl(t, 23456, imdsAt); !strings.Contains(got, "access_denied") {
		t.Errorf("user 23456 was answered %s, want access_denied", got)
	}
	if len(callers) != 1 || !strings.Contains(callers[0], "door:host ") || !strings.Contains(callers[0], "unix:uid:12345") || !strings.HasSuffix(callers[0], "grade:kernel") {
		t.Errorf("the control plane was asked for %q, want one caller with user 12345 and the kernel's word", callers)
	}
	i := slices.IndexFunc(a.Status().Doors, func(d agent.DoorStatus) bool { return d.Name == agent.CapturedDoor })
	if i < 0 || a.Status().Doors[i].Captured != "169.254.169.254:80" {
		t.Errorf("status = %+v, want the captured door in it", a.Status().Doors)
	}
}

// At loopback doors too the kernel's record counts, and who has none is
// refused.
func TestLoopbackDoorsAreRecordedWhereCaptureIsOn(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-web1", Door: "main", Resource: web1, Selectors: []string{"unix:uid:12345"}})
	h := newHost(t, cp)
	a := h.begin(t)
	var caller string
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		caller = req.Caller
		return cp.Mint(req), nil
	})
	at := "http://" + a.DoorAddr("main")
	if got := h.curl(t, 12345, at); !strings.Contains(got, "token-1") || !strings.HasSuffix(caller, "grade:kernel") {
		t.Errorf("answer = %s for %q, want a token on the kernel's word", got, caller)
	}
	if got := h.curl(t, 23456, at); !strings.Contains(got, "access_denied") {
		t.Errorf("user 23456 was answered %s, want access_denied", got)
	}
}

// An agent that stops leaves the address refused, and the next one answers.
func TestCaptureOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-web1", Door: agent.CapturedDoor, Resource: web1})
	h := newHost(t, cp)
	h.begin(t).Close()
	if got := h.curl(t, 12345, imdsAt); strings.Contains(got, "token") || !strings.Contains(got, "curl: (7)") {
		t.Errorf("without an agent: %s, want a refused connect", got)
	}
	h.begin(t)
	if got := h.curl(t, 12345, imdsAt); !strings.Contains(got, "token-1") {
		t.Errorf("the next agent answered %s", got)
	}
}

// An agent that is told to capture and cannot does not serve at all.
func TestAgentWithoutItsCaptureDoesNotStart(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	h := newHost(t, cp)
	h.cfg.Capture.Cgroups = []string{"/no/such.slice"}
	a, err := agent.New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.net.In(t, func() error {
		if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "/no/such.slice") {
			t.Errorf("Start = %v, want an error with the cgroup", err)
		}
		return nil
	})
	if _, err := os.Stat(h.cfg.ControlSocket); err == nil {
		t.Error("the control socket is there")
	}
	if n := cp.Calls(fleetapi.PathEnrol); n != 0 {
		t.Error("the enrolment token was spent")
	}
}

func TestCaptureFaultsAreReported(t *testing.T) {
	t.Parallel()
	_, err := agent.New(agent.Config{
		ControlPlane: "https://x", StateDir: "x", AppListen: "[::1]:0", Doors: []agent.DoorConfig{{Name: "main", Listen: "127.0.0.1:0"}},
		Capture: &agent.CaptureConfig{Door: "main", Config: capture.Config{Cgroups: []string{"shop.slice"}, Listen: netip.MustParseAddrPort("10.0.0.1:80")}},
	})
	if err == nil {
		t.Fatal("New succeeded")
	}
	for _, want := range []string{"shop.slice", "10.0.0.1", `"main"`, "[::1]:0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want also %q", err, want)
		}
	}
}

// With capture on, a container with a door of its own is answered there, on the
// kernel's record, and one without is refused.
func TestCapturedContainersHaveDoorsOfTheirOwn(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(
		fleetapi.Placement{Name: "p-web1", Door: agent.CapturedDoor, Resource: web1},
		fleetapi.Placement{Name: "p-shop", Door: "web", Resource: shop, Selectors: []string{"container:name:web", "unix:uid:12345"}},
	)
	var asked []string
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		asked = append(asked, req.Workload+" "+req.Evidence.Grade)
		return cp.Mint(req), nil
	})
	h := newHost(t, cp)
	web, bare := agenttest.NewNetns(t), agenttest.NewNetns(t)
	h.cfg.Doors = append(h.cfg.Doors, agent.DoorConfig{Name: "web", Kind: agent.KindNamespace, Namespace: web.Path(t), Container: "web"})
	a := h.begin(t)
	curl := func(in *agenttest.Netns, uid uint32) string {
		return printed(t, in, agenttest.Process(t, h.dir, uid, "curl", "-sS", "--max-time", "5", "-H", "Metadata: true",
			imdsAt+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault))
	}
	if got := curl(web, 12345); !strings.Contains(got, "token-1") || !slices.Equal(asked, []string{shop + " kernel"}) {
		t.Errorf("a program of the container was answered %s, by the question %q", got, asked)
	}
	if got := curl(web, 23456); !strings.Contains(got, "access_denied") {
		t.Errorf("another user of the container was answered %s", got)
	}
	if got := curl(bare, 12345); !strings.Contains(got, "curl: (7)") {
		t.Errorf("a container without a door was answered %s", got)
	}
	a.Close()
	if got := curl(web, 12345); !strings.Contains(got, "curl: (7)") {
		t.Errorf("without an agent a container was answered %s", got)
	}
	h.begin(t)
	if got := curl(web, 12345); !strings.Contains(got, "token-2") {
		t.Errorf("the next agent answered the container %s", got)
	}
}

// Two units under one rule, as init makes their control groups: the one that it
// names is answered, the other is not, nor what calls itself so below its own
// group.
func TestUnitsAreToldApart(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	h := newHost(t, cp)
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	name := "innate-test-" + strconv.Itoa(os.Getpid())
	group := func(path string) string {
		dir := filepath.Join(mount, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			agenttest.Eventually(t, path+" is empty", func() bool { return os.Remove(dir) == nil })
		})
		return dir
	}
	shopUnit, otherUnit := group("/system.slice/"+name+"-shop.service"), group("/system.slice/"+name+"-other.service")
	forged := group("/system.slice/" + name + "-other.service/" + name + "-shop.service")
	h.cfg.Capture.Root = "/"
	h.cfg.Capture.Cgroups = []string{"/system.slice/" + name + "-shop.service", "/system.slice/" + name + "-other.service"}
	cp.Place(fleetapi.Placement{Name: "p-shop", Door: agent.CapturedDoor, Resource: shop})
	cp.Rule(fleetapi.CallerRule{Resource: shop, Name: "unit", Selectors: []string{"systemd:id:" + name + "-shop.service"}, Grade: "kernel", Mode: fleetapi.ModeEnforce})
	h.begin(t)
	for _, tt := range []struct {
		in, want string
	}{{shopUnit, "token-1"}, {otherUnit, "access_denied"}, {forged, "access_denied"}, {shopUnit, "token-1"}} {
		h.dir = tt.in
		if got := h.curl(t, 12345, imdsAt); !strings.Contains(got, tt.want) {
			t.Errorf("a program in %s was answered %s, want %s", tt.in, got, tt.want)
		}
	}
}
