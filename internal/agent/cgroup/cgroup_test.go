package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("making control groups takes root: run the tests as root, or set INNATE_SKIP=root")
}

func open(t *testing.T) *Groups {
	t.Helper()
	needRoot(t)
	g, err := Open(fmt.Sprintf("/innate-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		if _, err := os.Stat(g.dir()); err == nil {
			t.Errorf("%s is left", g.dir())
		}
	})
	return g
}

// process is a process and the other end of its standard input.
type process struct {
	*exec.Cmd
	in *os.File
}

// sleeper starts a shell that starts children, and waits.
func sleeper(t *testing.T, script string) (cmd *process, pidfd int) {
	t.Helper()
	cmd = &process{Cmd: exec.Command("sh", "-c", script)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	cmd.Stdin, cmd.in = r, w
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
	})
	return cmd, pidfd
}

func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	t.Fatalf("process %d is in no cgroup v2: %s", pid, text)
	return ""
}

func TestAStartAndWhatItStartsAreInItsGroup(t *testing.T) {
	t.Parallel()
	g := open(t)
	c, err := g.New("run-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.New("run-1"); err == nil {
		t.Error("one name was given twice")
	}
	cmd, pidfd := sleeper(t, "read go; sleep 600 & wait") // not cat: it would read /dev/null and end
	if err := c.Take(cmd.Process.Pid, pidfd); err != nil {
		t.Fatal(err)
	}
	if got := cgroupOf(t, cmd.Process.Pid); got != c.Path() || g.Of(got) != c.Name() {
		t.Errorf("the process is in %s, want %s", got, c.Path())
	}
	if _, err := cmd.in.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what the process starts is in the group", func() bool {
		text, err := os.ReadFile(filepath.Join(c.dir(), "cgroup.procs"))
		return err == nil && len(strings.Fields(string(text))) == 2
	})
	if c.Remove() {
		t.Error("a group with somebody in it was removed")
	}
	if err := os.WriteFile(filepath.Join(c.dir(), "cgroup.kill"), []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the empty group is removed", c.Remove)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// A process that ended, whose id may be another's by now, gives nobody a group.
func TestWhoEndedIsNotTaken(t *testing.T) {
	t.Parallel()
	g := open(t)
	c, err := g.New("run-1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Remove()
	gone, pidfd := sleeper(t, "exit 0")
	_ = gone.Wait()
	other, _ := sleeper(t, "sleep 60")
	// As if the id had been given to another process meanwhile.
	if err := c.Take(other.Process.Pid, pidfd); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("Take of a process that ended = %v", err)
	}
	if got := cgroupOf(t, other.Process.Pid); g.Of(got) != "" {
		t.Errorf("another process is in the group of the start: %s", got)
	}
}

// An agent under systemd may not send signals to other users' processes
// (CAP_KILL), and needs not to.
func TestOtherUsersAreTakenWithoutTheRightToSignal(t *testing.T) {
	t.Parallel()
	g := open(t)
	c, err := g.New("run-1")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	pidfd := -1
	cmd.SysProcAttr = &unix.SysProcAttr{PidFD: &pidfd, Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unix.Close(pidfd)
		eventually(t, "the empty group is removed", c.Remove)
	}()
	took := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is thrown away
		if err := dropKill(); err != nil {
			took <- err
			return
		}
		took <- c.Take(cmd.Process.Pid, pidfd)
	}()
	if err := <-took; err != nil {
		t.Errorf("Take = %v", err)
	}
	if got := cgroupOf(t, cmd.Process.Pid); got != c.Path() {
		t.Errorf("the process is in %s, want %s", got, c.Path())
	}
}

// dropKill takes CAP_KILL from this thread.
func dropKill() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_KILL
	return unix.Capset(&head, &data[0])
}

// Who is in a pid namespace that the agent does not see has no id; the kernel
// would take the agent itself.
func TestWhoHasNoIdIsNotTaken(t *testing.T) {
	t.Parallel()
	g := open(t)
	c, err := g.New("run-1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Remove()
	_, pidfd := sleeper(t, "sleep 60")
	before := cgroupOf(t, os.Getpid())
	if err := c.Take(0, pidfd); err == nil {
		t.Error("Take of process 0 took somebody")
		if err := move(filepath.Join(g.mount, before), os.Getpid()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenClearsWhatEarlierRunsLeft(t *testing.T) {
	t.Parallel()
	g := open(t)
	c, err := g.New("run-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(c.dir(), "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(g.path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir()); err == nil {
		t.Error("the group of an earlier run is left")
	}
	for _, name := range []string{"", "a", "/", "/a/../b", "/a/", "/a\nb"} {
		if _, err := Open(name); err == nil {
			t.Errorf("Open(%q) made a group", name)
		}
	}
}

func TestOf(t *testing.T) {
	g := &Groups{mount: "/sys/fs/cgroup", path: "/innate"}
	for cgroup, want := range map[string]string{
		"/innate/run-1": "run-1", "/innate/run-1/below": "run-1", "/innate/run-12": "run-12", "/innate": "", "/innate/": "", "/": "", "": "",
		"/other/innate/run-1": "", "/innate2/run-1": "",
	} {
		if got := g.Of(cgroup); got != want {
			t.Errorf("Of(%s) = %q, want %q", cgroup, got, want)
		}
	}
}

func TestMountOf(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"36 35 0:30 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup/unified"},
		{"30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"30 25 0:26 / /my\\040cgroups rw - cgroup2 none rw\n", "/my cgroups"},
		{"30 25 0:26 /part /somewhere rw - cgroup2 none rw\n", ""}, // a bind mount of a part
		{"30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", ""},
		{"30 25 0:26 / /x rw - tmpfs cgroup2 rw\n", ""},
		{"", ""},
	} {
		if got := mountOf(tt.text); got != tt.want {
			t.Errorf("mountOf(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}
