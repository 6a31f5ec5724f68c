package capture_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
)

// TestKilledAgentsLeaveNoWayOut kills twenty agents, one after the other,
// while three users connect all the time: each is answered with its own record
// or not at all, by the agent or by nobody.
func TestKilledAgentsLeaveNoWayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	addr, kill := w.agent(t, "127.254.169.254:0")
	done := make(chan struct{})
	var callers sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for _, uid := range []uint32{12345, 23456, 34567} {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got := w.ask(t, uid, "hammer", "50")
				mu.Lock()
				for line := range strings.Lines(got) {
					answers[fmt.Sprint(uid, ": ", strings.TrimSpace(line))]++
				}
				mu.Unlock()
			}
		})
	}
	for range 20 {
		kill()
		_, kill = w.agent(t, addr)
		if got := w.ask(t, 12345, "plain"); got != mine { // service resumes
			t.Errorf("the next agent answered %q", got)
		}
	}
	close(done)
	callers.Wait()
	for answer, n := range answers {
		var uid int
		var what string
		if _, err := fmt.Sscanf(answer, "%d: %s", &uid, &what); err != nil {
			t.Fatal(err)
		}
		what = strings.TrimPrefix(answer, fmt.Sprint(uid, ": "))
		switch what {
		case fmt.Sprintf("uid %d gid %d", uid, uid):
		case "EPERM", "ECONNREFUSED", "ECONNRESET", "EOF", "EPIPE": // refused, or cut off with the agent
		default:
			t.Errorf("user %d was answered %q %d times", uid, what, n)
		}
	}
}

// TestNobodyServesInADeadAgentsPlace plays an attacker who waits for the agent
// to die.
func TestNobodyServesInADeadAgentsPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	addr, kill := w.agent(t, "127.254.169.254:0")
	kill()
	ip, port, _ := strings.Cut(addr, ":")
	for _, uid := range []uint32{12345, 0} { // root too, but for one who may load programs
		for _, tt := range []struct{ role, ip string }{
			{"bind4", ip}, {"bind4", "0.0.0.0"}, {"bind6", "::"}, {"bind6", "::ffff:" + ip}, {"bind6", "::ffff:0.0.0.0"},
		} {
			if got := w.ask(t, uid, tt.role, tt.ip, port); got != "EPERM" {
				t.Errorf("user %d: %s to %s: %q, want EPERM", uid, tt.role, tt.ip, got)
			}
		}
	}
	// What is not the agent's is free.
	for _, tt := range []struct{ role, ip, port string }{{"bind4", "127.0.0.1", port}, {"bind6", "::1", port}, {"bind4", ip, "0"}} {
		if got := w.ask(t, 12345, tt.role, tt.ip, tt.port); got != "bound" {
			t.Errorf("%s to %s:%s: %q", tt.role, tt.ip, tt.port, got)
		}
	}
	_, _ = w.agent(t, addr) // and the next agent has its address
	if got := w.ask(t, 12345, "plain"); got != mine {
		t.Errorf("the next agent answered %q", got)
	}
}

// Even where somebody does listen at the agent's address, connections go only
// to the socket that the agent named.
func TestOnlyTheAgentsOwnSocketIsConnectedTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	l := w.listen(t, c)
	addr := l.Addr().String()
	l.Close()
	w.ns.In(t, func() error {
		squatter, err := listenAt(addr) // this process may bind it
		if err != nil {
			return err
		}
		t.Cleanup(func() { squatter.Close() })
		return nil
	})
	for _, role := range []string{"plain", "mapped", "multipath", "fast open"} {
		if got := w.ask(t, 12345, role); got != "EPERM" {
			t.Errorf("a %s connect went to another socket: %q", role, got)
		}
	}
	if got := w.ask(t, 12345, "to", addr); got != "EPERM" {
		t.Errorf("a direct connect went to another socket: %q", got)
	}
}

func TestTwoAgentsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	w.ns.In(t, func() error {
		if second, err := capture.Open(w.cfg); err == nil {
			second.Close()
			t.Error("a second agent opened the capture")
		} else if !strings.Contains(err.Error(), "another agent") {
			t.Errorf("Open = %v, want another agent", err)
		}
		return nil
	})
	if err := capture.Remove(w.cfg.BPFFS); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("Remove under a running agent = %v, want another agent", err)
	}
	if got := w.ask(t, 12345, "plain"); got != mine {
		t.Errorf("the first agent answered %q", got)
	}
}

func TestRemoveTakesEverythingAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := attached(t, w)
	w.open(t).Close()
	if got := w.ask(t, 12345, "plain"); got != "EPERM" {
		t.Fatalf("captured: %q", got)
	}
	for range 2 { // nothing to remove is no error
		if err := capture.Remove(w.cfg.BPFFS); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.ask(t, 12345, "plain"); got != "cloud" {
		t.Errorf("after removing, a connect was answered %q", got)
	}
	if after := attached(t, w); after > before {
		t.Errorf("%d programs are attached, %d were", after, before)
	}
	if _, err := os.Lstat(filepath.Join(w.cfg.BPFFS, "innate")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was pinned: %v", err)
	}
}

// attached counts the pinned links that hang on w's root by their own folder.
func attached(t *testing.T, w *world) int {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(w.cfg.BPFFS, "innate", "link_*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The next agent may be of another version, of another root, with other
// cgroups, and at another address.
func TestNextAgentMayDiffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.open(t).Close()
	w.cfg.Cgroups = nil
	w.cfg.Root = w.cgroup
	w.open(t).Close()
	if got := w.ask(t, 12345, "plain"); got != "EPERM" {
		t.Errorf("with another root: %q, want EPERM", got)
	}
	if got := w.ns.run(t, as(t, w.outside, 12345, "plain")); got != "cloud" {
		t.Errorf("outside another root: %q", got)
	}
	// A map of another version, under a name of ours.
	old, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	pin := filepath.Join(w.cfg.BPFFS, "innate", "doors")
	if err := errors.Join(os.Remove(pin), old.Pin(pin)); err != nil {
		t.Fatal(err)
	}
	w.open(t).Close()
	if got := w.ask(t, 12345, "plain"); got != "EPERM" {
		t.Errorf("after another version: %q, want EPERM", got)
	}
}

// Links whose cgroup is gone are attached anew.
func TestRootMadeAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := below(t, w.dir, "root")
	w.cfg.Root, w.cfg.Cgroups = w.cgroup+"/root", nil
	w.open(t).Close()
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	w.open(t).Close()
	if got := w.ns.run(t, as(t, dir, 12345, "plain")); got != "EPERM" {
		t.Errorf("answered %q, want EPERM", got)
	}
}

// Who could write to the folder could take the programs out of it.
func TestFolderOfSomebodyElseIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(w.cfg.BPFFS, "innate")
	for name, spoil := range map[string]func() error{
		"another's": func() error { return os.Chown(dir, 12345, 12345) },
		"open":      func() error { return errors.Join(os.Chown(dir, 0, 0), os.Chmod(dir, 0o777)) },
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		w.ns.In(t, func() error {
			if c, err := capture.Open(w.cfg); err == nil {
				c.Close()
				t.Errorf("Open took a folder that is %s", name)
			} else if !strings.Contains(err.Error(), "alone") {
				t.Errorf("Open = %v", err)
			}
			return nil
		})
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
}

// What one agent accepted, the next can still read: they use the same maps.
func TestTakeoverKeepsRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	l := w.listen(t, c)
	cmd := as(t, w.dir, 12345, "plain")
	w.ns.In(t, cmd.Start)
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c = w.open(t)
	if r, err := c.Record(conn); err != nil || r.UID != 12345 {
		t.Errorf("Record after a takeover = %+v, %v", r, err)
	}
	fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nbye")
	conn.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Where no bpf filesystem is, one is mounted; but not one that would end with
// the agent, as in a mount namespace of its own.
func TestFilesystemIsMountedIfItLasts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.BPFFS = filepath.Join(t.TempDir(), "bpf")
	cmd := agenttest.Process(t, w.outside, 0, "unshare", "-m", self, w.cfg.BPFFS, w.cfg.Root, w.cgroup, "127.254.169.254:0")
	cmd.Env = append(os.Environ(), "CAPTURE_TEST_ROLE=agent")
	if got := w.ns.run(t, cmd); !strings.Contains(got, "on the host before the agent starts") {
		t.Errorf("in a mount namespace of its own an agent said %q", got)
	}
	t.Cleanup(func() {
		agenttest.Eventually(t, "the bpf filesystem is unmounted", func() bool { return unix.Unmount(w.cfg.BPFFS, 0) == nil })
	})
	w.open(t).Close()
	if got := w.ask(t, 12345, "plain"); got != "EPERM" {
		t.Errorf("answered %q, want EPERM", got)
	}
	if err := capture.Remove(w.cfg.BPFFS); err != nil {
		t.Error(err)
	}
}
