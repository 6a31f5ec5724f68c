package caller_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/evidence"
)

// accept returns the accepted side of a connection that dial makes.
func accept(t *testing.T, network, addr string, dial func(addr string)) net.Conn {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go dial(l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caller")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "s")
}

func TestUnixPeerIsKnownByUserAndGroup(t *testing.T) {
	t.Parallel()
	conn := accept(t, "unix", socket(t), func(addr string) {
		if c, err := net.Dial("unix", addr); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	})
	ev, err := caller.Identify(conn, "run")
	if err != nil {
		t.Fatal(err)
	}
	want := []evidence.Selector{evidence.Selector(fmt.Sprint("unix:uid:", os.Getuid())), evidence.Selector(fmt.Sprint("unix:gid:", os.Getgid()))}
	if os.Getuid() == 0 {
		want = append(want, "unix:user:root", "unix:group:root")
	}
	if ev.Door != "run" || ev.Grade != evidence.GradeKernel || !ev.Matches(want) || !slices.IsSorted(ev.Selectors) {
		t.Errorf("Identify = %+v, want %v", ev, want)
	}
	for _, s := range ev.Selectors {
		if _, err := evidence.Parse(string(s)); err != nil {
			t.Errorf("selector %q: %v", s, err)
		}
	}
}

// The kernel wrote down who connected; what that thread becomes later, and
// that it ends, changes nothing.
func TestEvidenceIsOfTheMomentOfConnecting(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user takes root")
	}
	const uid, gid = 12345, 23456
	path := socket(t)
	ended := make(chan struct{})
	conn := accept(t, "unix", path, func(addr string) {
		defer close(ended)
		if err := os.Chmod(addr, 0o777); err != nil {
			t.Error(err)
			return
		}
		// One thread becomes another user and is thrown away after that: it is
		// never unlocked.
		runtime.LockOSThread()
		as(t, gid, uid)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: addr}); err != nil {
			t.Error(err)
		}
	})
	<-ended
	ev, err := caller.Identify(conn, "run")
	if err != nil {
		t.Fatal(err)
	}
	want := []evidence.Selector{"unix:gid:23456", "unix:uid:12345"} // and no name, for there is none
	if !slices.Equal(ev.Selectors, want) {
		t.Errorf("selectors = %v, want %v", ev.Selectors, want)
	}
}

// as changes the user of the calling thread only.
func as(t *testing.T, gid, uid uintptr) {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, gid, keep); errno != 0 {
		t.Error("setresgid:", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); errno != 0 {
		t.Error("setresuid:", errno)
	}
}

func TestLoopbackPeerIsNobodyInParticular(t *testing.T) {
	t.Parallel()
	conn := accept(t, "tcp", "127.0.0.1:0", func(addr string) {
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	})
	ev, err := caller.Identify(conn, "main")
	if err != nil || ev.Door != "main" || ev.Grade != evidence.GradeNone || len(ev.Selectors) != 0 {
		t.Errorf("Identify = %+v, %v; want only the door", ev, err)
	}
}

func TestUnknownConnectionsAreNotIdentified(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if ev, err := caller.Identify(a, "main"); err == nil {
		t.Errorf("Identify of a pipe = %+v, want an error", ev)
	}
}
