package caller_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
	ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "run"})
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
	needRoot(t)
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
		become(t, gid, uid)
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
	ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "run"})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, ev, "unix:gid:23456", "unix:uid:12345")
	lacks(t, ev, "unix:user:", "unix:group:", "unix:uid:0", "unix:gid:0") // there is no name
}

// become changes the user of the calling thread only.
func become(t *testing.T, gid, uid uintptr) {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, gid, keep); errno != 0 {
		t.Error("setresgid:", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); errno != 0 {
		t.Error("setresuid:", errno)
	}
}

func TestLoopbackPeerIsKnownByItsUser(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		conn := accept(t, "tcp", addr, func(addr string) {
			if c, err := net.Dial("tcp", addr); err == nil {
				t.Cleanup(func() { c.Close() })
			}
		})
		ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "main"})
		me := evidence.Selector("unix:uid:" + strconv.Itoa(os.Getuid()))
		if err != nil || ev.Door != "main" || ev.Grade != evidence.GradeAfter || !ev.Matches([]evidence.Selector{me}) {
			t.Errorf("Identify at %s = %+v, %v; want the door and %s", addr, ev, err, me)
		}
	}
}

// TestOrphanedSocketIsNotRoots: the kernel reports a socket that nobody holds
// any more as user 0's. Who closes it in time must not be taken for root.
func TestOrphanedSocketIsNotRoots(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const uid, gid = 12345, 23456
	for name, leave := range map[string]func(fd int){
		"open":   func(int) {},
		"shut":   func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) },
		"closed": func(fd int) { unix.Close(fd) },
		"reset": func(fd int) {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		},
	} {
		ended := make(chan struct{})
		conn := accept(t, "tcp", "127.0.0.1:0", func(addr string) {
			defer close(ended)
			to, err := net.ResolveTCPAddr("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			runtime.LockOSThread() // and never unlocked: the thread is another user's from here on
			become(t, gid, uid)
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if name == "open" || name == "shut" {
				t.Cleanup(func() { unix.Close(fd) })
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Error(err)
			}
			leave(fd)
		})
		<-ended
		ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "main"})
		if err != nil {
			t.Fatal(err)
		}
		if name == "open" {
			wants(t, ev, "unix:uid:12345")
			lacks(t, ev, "unix:uid:0")
		}
		if name != "open" && len(ev.Selectors) > 0 || (ev.Grade == evidence.GradeAfter) != (name == "open") {
			t.Errorf("a socket of user 12345, %s: %+v", name, ev)
		}
	}
}

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("becoming another user takes root: run the tests as root, or set INNATE_SKIP=root")
}

func TestUnknownConnectionsAreNotIdentified(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if ev, err := new(caller.Identifier).Identify(a, caller.From{Door: "main"}); err == nil {
		t.Errorf("Identify of a pipe = %+v, want an error", ev)
	}
}
