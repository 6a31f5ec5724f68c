package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/fleetapi"
)

// grouped is a start that a process asked for.
type grouped struct {
	agent.StartResponse
	cmd *exec.Cmd
	// dir is the folder of the cgroup that the process is in since.
	dir string
}

// startFrom has a process in the cgroup at dir ask for a start, as root.
func (h *host) startFrom(t *testing.T, dir, resource string) *grouped {
	t.Helper()
	cmd := agenttest.Process(t, dir, 0, "curl", "-sSN", "--unix-socket", h.cfg.ControlSocket, "http://agent/starts", "-d", `{"resource":"`+resource+`"}`)
	return h.grouped(t, cmd)
}

func (h *host) grouped(t *testing.T, cmd *exec.Cmd) *grouped {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.net.In(t, cmd.Start)
	g := &grouped{cmd: cmd}
	t.Cleanup(g.end)
	if err := json.NewDecoder(out).Decode(&g.StartResponse); err != nil {
		t.Fatal("asking for a start:", err)
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own, err := agenttest.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"+own); ok {
			g.dir = filepath.Join(filepath.Dir(h.dir), strings.TrimSpace(path))
		}
	}
	return g
}

func (g *grouped) end() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}

// sleeps runs a program in the start's cgroup until the test ends.
func (h *host) sleeps(t *testing.T, dir string) (end func()) {
	t.Helper()
	cmd := agenttest.Process(t, dir, 0, "sleep", "60")
	h.net.In(t, cmd.Start)
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return end
}

func (h *host) curlIn(t *testing.T, dir string) string {
	t.Helper()
	return h.output(t, agenttest.Process(t, dir, 0, "curl", "-sS", "-H", "Metadata: true",
		imdsAt+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault))
}

// What a start leaves running is nobody once it is over: not even what its user
// is without a start.
func TestWhatAStartLeavesIsNobody(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-web1", Door: agent.CapturedDoor, Resource: web1, Selectors: []string{"unix:uid:0"}},
		fleetapi.Placement{Name: "p-shop", Door: agent.RunDoor, Resource: shop, Selectors: []string{"unix:uid:0"}})
	h := newHost(t, cp)
	a := h.begin(t)
	st := h.startFrom(t, h.dir, shop)
	if !st.Captured || st.dir == h.dir {
		t.Fatalf("the start is in %s: %+v, want a group of its own", st.dir, st.StartResponse)
	}
	end := h.sleeps(t, st.dir) // it stays behind
	if got := h.curlIn(t, st.dir); !strings.Contains(got, "token-1") {
		t.Fatalf("a program of the start was answered %s", got)
	}
	if asked := cp.Asked(); len(asked) != 1 || asked[0].Workload != shop {
		t.Fatalf("it was taken for %+v, want %s", asked, shop)
	}
	st.end()
	agenttest.Eventually(t, "the start is over", func() bool { return a.Status().Starts == 0 })
	if got := h.curlIn(t, st.dir); !strings.Contains(got, "access_denied") || !strings.Contains(got, "start") {
		t.Errorf("after its start a program was answered %s, want access_denied and why", got)
	}
	a.Close()
	h.begin(t) // which knows of no start
	if got := h.curlIn(t, st.dir); !strings.Contains(got, "access_denied") {
		t.Errorf("the next agent answered a program that was left %s", got)
	}
	if asked := cp.Asked(); len(asked) != 1 {
		t.Errorf("the control plane was asked %d times, want once", len(asked))
	}
	end()
}

// Nobody fills the machine with groups by leaving something in each for a
// while, also not over a restart.
func TestGroupsGoWhenWhatWasLeftHasEnded(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-shop", Door: agent.RunDoor, Resource: shop, Selectors: []string{"unix:uid:0"}})
	h := newHost(t, cp)
	a := h.begin(t)
	st := h.startFrom(t, h.dir, shop)
	end := h.sleeps(t, st.dir)
	st.end()
	agenttest.Eventually(t, "the start is over", func() bool { return a.Status().Starts == 0 })
	a.Close()
	h.begin(t)
	end()
	agenttest.Eventually(t, "the group is gone", func() bool { _, err := os.Stat(st.dir); return err != nil })
}

// A start is no way out of a container or of a service: their control groups
// bound what devices, addresses and memory they have.
func TestAStartIsNoWayOutOfAContainerOrAService(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-shop", Door: agent.RunDoor, Resource: shop, Selectors: []string{"unix:uid:0"}})
	h := newHost(t, cp)
	h.cfg.Capture.Root = "/" // below which are the container and the services
	a := h.begin(t)
	unique := fmt.Sprintf("%064x", os.Getpid())
	for _, at := range []string{"system.slice/innate-test-" + unique + ".service", "system.slice/innate-test-" + unique + ".scope", "libpod_parent/libpod-" + unique} {
		dir := topCgroup(t, at)
		st := h.startFrom(t, dir, shop)
		wantInPlace(t, st, "/"+at)
		for in, want := range map[string]string{dir: "access_token", h.dir: "no part of"} { // its secret is good where it is
			got := h.output(t, agenttest.Process(t, in, 0, "curl", "-sS", "-H", "X-IDENTITY-HEADER: "+st.Header, st.Endpoint+"?api-version=2019-08-01&resource="+vault))
			if !strings.Contains(got, want) {
				t.Errorf("the secret of a start in %s, shown in %s, was answered %s, want %s", at, in, got, want)
			}
		}
	}
	cmd := agenttest.Process(t, h.dir, 0, "unshare", "--mount", "curl", "-sSN", "--unix-socket", h.cfg.ControlSocket, "http://agent/starts", "-d", `{"resource":"`+shop+`"}`)
	wantInPlace(t, h.grouped(t, cmd), h.cfg.Capture.Cgroups[0])
	if n := a.Status().Starts; n != 4 {
		t.Errorf("%d starts live, want 4", n)
	}
}

// topCgroup makes a cgroup at the top of the hierarchy.
func topCgroup(t *testing.T, at string) (dir string) {
	t.Helper()
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(mount, at)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agenttest.Eventually(t, "cgroup "+at+" is empty", func() bool { return os.Remove(dir) == nil })
	})
	return dir
}

func wantInPlace(t *testing.T, st *grouped, path string) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(st.cmd.Process.Pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if st.Captured || !strings.Contains(string(text), "0::"+path+"\n") {
		t.Errorf("who asked from %s was moved, captured = %v: %s", path, st.Captured, text)
	}
}

// Who is a resource for a moment alone, as "innate exec --as" is, goes on as
// what it was, and so does what it runs then.
func TestAStartThatStaysChangesNobody(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p-web1", Door: agent.RunDoor, Resource: web1, Selectors: []string{"unix:uid:0"}},
		fleetapi.Placement{Name: "p-shop", Door: agent.RunDoor, Resource: shop, Selectors: []string{"unix:uid:0"}})
	h := newHost(t, cp)
	a := h.begin(t)
	outer := h.startFrom(t, h.dir, web1)
	inner := h.grouped(t, agenttest.Process(t, outer.dir, 0, "curl", "-sSN", "--unix-socket", h.cfg.ControlSocket, "http://agent/starts", "-d", `{"resource":"`+shop+`","stay":true}`))
	if inner.Captured || inner.dir != outer.dir {
		t.Errorf("who asked to stay was moved to %s: %+v", inner.dir, inner.StartResponse)
	}
	inner.end()
	agenttest.Eventually(t, "the inner start is over", func() bool { return a.Status().Starts == 1 })
	if got := h.curlIn(t, outer.dir); !strings.Contains(got, "token-1") {
		t.Errorf("after it the outer start was answered %s", got)
	}
	if asked := cp.Asked(); len(asked) != 1 || asked[0].Workload != web1 {
		t.Errorf("it was taken for %+v, want %s", asked, web1)
	}
}
