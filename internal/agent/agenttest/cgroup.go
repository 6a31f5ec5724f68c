package agenttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// InCgroup runs a package's tests with the process in a cgroup v2 of its own,
// so that what they attach to [OwnCgroup] reaches nobody else. Without root it
// only runs them.
func InCgroup(m *testing.M) int {
	if os.Getuid() != 0 {
		return m.Run()
	}
	before, err := OwnCgroup()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path := filepath.Join(before, "innate-test-"+strconv.Itoa(os.Getpid()))
	if err := errors.Join(os.Mkdir(cgroupDir(path), 0o755), enter(path)); err != nil {
		fmt.Fprintln(os.Stderr, "making a cgroup for the tests:", err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(enter(before), os.Remove(cgroupDir(path))); err != nil {
		fmt.Fprintln(os.Stderr, "removing the cgroup of the tests:", err)
		return 1
	}
	return code
}

// Cgroup makes a cgroup below the tests' own and returns its path, and its
// folder; it ends with the test. Processes in it must have ended by then.
func Cgroup(t testing.TB, name string) (path, dir string) {
	t.Helper()
	own, err := OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(own, name)
	dir = cgroupDir(path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Eventually(t, "cgroup "+path+" is empty", func() bool { return os.Remove(dir) == nil })
	})
	return path, dir
}

// BPFFS mounts a bpf filesystem for one test.
func BPFFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal("mounting a bpf filesystem:", err)
	}
	t.Cleanup(func() {
		// A child that is about to be executed may hold it for a moment.
		Eventually(t, "the bpf filesystem is unmounted", func() bool { return unix.Unmount(dir, 0) == nil })
	})
	return dir
}

// OwnCgroup is the cgroup v2 of this process, as /proc/self/cgroup has it.
func OwnCgroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", errors.New("this process has no cgroup v2: mount it (mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)")
}

func enter(path string) error {
	return os.WriteFile(filepath.Join(cgroupDir(path), "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// cgroupDir is where a cgroup is on systems with cgroup v2 alone, or beside v1.
func cgroupDir(path string) string {
	at := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(at, "cgroup.procs")); err != nil {
		at = filepath.Join(at, "unified")
	}
	return filepath.Join(at, path)
}
