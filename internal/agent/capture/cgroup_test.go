package capture_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
)

const mine = "uid 12345 gid 12345"

// below makes cgroups, one in the other.
func below(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, name := range names {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		made := dir
		t.Cleanup(func() {
			agenttest.Eventually(t, "cgroup "+made+" is empty", func() bool { return os.Remove(made) == nil })
		})
	}
	return dir
}

func TestChosenCgroupsAreCapturedAndOthersNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	long := strings.Repeat("x", 255)
	for name, tt := range map[string]struct{ dir, want string }{
		"chosen":           {w.dir, mine},
		"below it":         {below(t, w.dir, "a", "b"), mine},
		"with a long name": {below(t, w.dir, long), mine},
		"beside it":        {w.outside, "cloud"},
		"long, beside it":  {below(t, w.outside, long), "cloud"},
		"of the same name": {below(t, w.outside, filepath.Base(w.dir)), "cloud"},
		"above":            {filepath.Dir(w.dir), "cloud"},
	} {
		if got := w.ns.run(t, as(t, tt.dir, 12345, "plain")); got != tt.want {
			t.Errorf("a process in a cgroup %s was answered %q, want %q", name, got, tt.want)
		}
		if got := w.ns.run(t, as(t, tt.dir, 12345, "sendto")); (got == "EPERM") != (tt.want == mine) {
			t.Errorf("a datagram from a cgroup %s: %q", name, got)
		}
	}
}

// TestTooDeepToSayIsCaptured: whoever may make cgroups must not hide in their
// depth. Not parallel: such a process is captured by the other tests as well.
func TestTooDeepToSayIsCaptured(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.open(t))
	for _, top := range []string{w.dir, w.outside} {
		dir := below(t, top, strings.Split("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", " ")...)
		if got := w.ns.run(t, as(t, dir, 12345, "plain")); got != mine {
			t.Errorf("a process deep below %s was answered %q, want the agent", top, got)
		}
	}
}

// The root of the hierarchy is everybody.
func TestRootMeansEveryone(t *testing.T) {
	t.Parallel()
	for _, cgroups := range [][]string{nil, {"/"}} {
		t.Run(fmt.Sprint(cgroups), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.Cgroups, w.cfg.Root = cgroups, w.cgroup
			w.open(t)
			if got := w.ns.run(t, as(t, below(t, w.dir, "a"), 12345, "plain")); got != "EPERM" {
				t.Errorf("answered %q, want EPERM, for no agent listens", got)
			}
		})
	}
}

// The kernel goes by the cgroup in which a socket was made; whoever moves a
// process, or hands it a socket, must not thereby take it out of the capture.
func TestNeitherMovingNorHandingOverIsAWayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	socketMadeIn := func(dir string) *os.File {
		t.Helper()
		// A process leaves its socket behind as another's standard input.
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[0]), "pair")
		defer theirs.Close()
		defer unix.Close(pair[1])
		cmd := as(t, dir, 12345, "make socket")
		cmd.Stdin = theirs
		if got := w.ns.run(t, cmd); got != "made" {
			t.Fatal(got)
		}
		oob := make([]byte, unix.CmsgSpace(4))
		if _, _, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, 0); err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fds[0]), "socket")
	}
	for _, tt := range []struct{ made, connected string }{{w.outside, w.dir}, {w.dir, w.outside}, {w.dir, w.dir}} {
		cmd := as(t, tt.connected, 12345, "handed")
		s := socketMadeIn(tt.made)
		cmd.Stdin = s
		if got := w.ns.run(t, cmd); got != mine {
			t.Errorf("socket made in %s, connected in %s: answered %q, want the agent", tt.made, tt.connected, got)
		}
		s.Close()
	}
	for _, tt := range []struct{ began, moved, want string }{{w.outside, w.dir, mine}, {w.dir, w.outside, "cloud"}} {
		// A socket that is made after moving belongs where the process is.
		if got := w.ns.run(t, as(t, tt.began, 0, "moved", tt.moved)); strings.Replace(got, "uid 0 gid 0", mine, 1) != tt.want {
			t.Errorf("a process moved from %s to %s was answered %q, want %q", tt.began, tt.moved, got, tt.want)
		}
	}
}

// An init system removes a unit's cgroup and makes it anew.
func TestChosenCgroupMadeAnewIsStillChosen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := below(t, w.dir, "unit")
	w.cfg.Cgroups = []string{w.cgroup + "/unit"}
	w.serve(t, w.open(t))
	for range 2 {
		if got := w.ns.run(t, as(t, dir, 12345, "plain")); got != mine {
			t.Errorf("answered %q, want the agent", got)
		}
		agenttest.Eventually(t, "the cgroup is removed", func() bool { return os.Remove(dir) == nil })
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		change func(*capture.Config)
		want   string
	}{
		{func(c *capture.Config) { c.Cgroups = []string{w.cgroup + "/none"} }, "/none\" does not exist"},
		{func(c *capture.Config) { c.Cgroups = []string{"relative"} }, "/proc/PID/cgroup"},
		{func(c *capture.Config) { c.Cgroups = []string{"/a/../b"} }, "/proc/PID/cgroup"},
		{func(c *capture.Config) { c.Cgroups = []string{"/" + strings.Repeat("x", 128)} }, "127 bytes"},
		{func(c *capture.Config) { c.Cgroups = []string{strings.Repeat("/x", 16)} }, "levels deep"},
		{func(c *capture.Config) { c.Root = w.cgroup + "/none" }, "/none\" does not exist"},
		{func(c *capture.Config) { c.Listen = addrPort("192.168.0.1:80") }, "loopback"},
		{func(c *capture.Config) { c.Listen = addrPort("[::1]:80") }, "loopback"},
		{func(c *capture.Config) { c.BPFFS = "relative" }, "begins with /"},
		{func(c *capture.Config) { c.BPFFS = "/proc/self/none" }, "bpf filesystem"},
	} {
		cfg := w.cfg
		tt.change(&cfg)
		w.ns.In(t, func() error {
			c, err := capture.Open(cfg)
			if err == nil {
				c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open(%+v) = %v, want an error with %q", cfg, err, tt.want)
			}
			return nil
		})
		// And nothing was left half done.
		if got := w.ask(t, 12345, "plain"); got != "cloud" {
			t.Errorf("after Open failed, a connect was answered %q", got)
		}
	}
}

// Without rights it says which, and what to do instead.
func TestOpenWithoutRightsSaysWhichAreMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.ask(t, 12345, "agent", w.cfg.BPFFS, w.cfg.Root, w.cgroup, "127.0.0.1:0")
	for _, want := range []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "doors on loopback"} {
		if !strings.Contains(got, want) {
			t.Errorf("an agent without rights said %q, want also %q", got, want)
		}
	}
}

// The rights that the manual names are enough, for an agent that is not even root.
func TestFewRightsAreEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := errors.Join(os.Chown(w.cfg.BPFFS, 12345, 12345), os.Chmod(filepath.Dir(w.cfg.BPFFS), 0o755)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.cfg.BPFFS, "innate")
	t.Cleanup(func() { // so that it is taken away
		if err := os.Chown(dir, 0, 0); err != nil {
			t.Error(err)
		}
	})
	cmd := as(t, w.outside, 12345, "agent", w.cfg.BPFFS, w.cfg.Root, w.cgroup, "127.254.169.254:254")
	cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE}
	if addr, _ := w.ns.background(t, cmd); addr != "127.254.169.254:254" {
		t.Fatalf("an agent with few rights said %q", addr)
	}
	if got := w.ask(t, 23456, "plain"); got != "uid 23456 gid 23456" {
		t.Errorf("it answered %q", got)
	}
}
