package capture_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCallerIsKnownHoweverItConnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.open(t))
	for _, role := range []string{"plain", "mapped", "multipath", "mapped multipath", "nonblocking", "bound", "fast open", "fast open connect"} {
		if got := ask(t, w.dir, 12345, role); got != "uid 12345 gid 12345" {
			t.Errorf("a %s connect of user 12345 was answered %q", role, got)
		}
	}
	for _, url := range []string{"http://169.254.169.254", "http://0xa9fea9fe", "http://2852039166", "http://0251.0376.0251.0376", "http://[::ffff:169.254.169.254]", "http://[::ffff:a9fe:a9fe]"} {
		if got := run(t, process(t, w.dir, 12345, "curl", "-sS", url)); got != "uid 12345 gid 12345" {
			t.Errorf("curl %s of user 12345 was answered %q", url, got)
		}
	}
}

func TestRecordIsOfTheProcessThatConnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.open(t))
	cmd := process(t, w.dir, 0, "curl", "-sS", "http://169.254.169.254/all")
	got := run(t, cmd)
	var exe, cgroup unix.Stat_t
	if err := unix.Stat(cmd.Path, &exe); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(w.dir, &cgroup); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("cgroup %d device %d inode %d", cgroup.Ino, exe.Dev, exe.Ino)
	if !strings.Contains(got, fmt.Sprintf("pid %d start ", cmd.Process.Pid)) || !strings.HasSuffix(got, want) {
		t.Errorf("record = %s, want pid %d and %s", got, cmd.Process.Pid, want)
	}
}

func TestOnlyTCPGoesToTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	serve(t, w.open(t))
	for _, role := range []string{"datagram", "mapped datagram", "sendto", "mapped sendto"} {
		if got := ask(t, w.dir, 12345, role); got != "EPERM" {
			t.Errorf("%s to the captured address: %q, want EPERM", role, got)
		}
	}
}

func TestMain2(t *testing.T) { _ = os.Getpid }
