package caller_test

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/evidence"
)

// TestSamePortAtAnotherAddressIsNotAnothersSocket: whoever connects from the
// port that root has, at another loopback address, is not root. The kernel
// keeps sockets in a table by chance, so several pairs are tried.
func TestSamePortAtAnotherAddressIsNotAnothersSocket(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const uid, gid = 12345, 23456
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 16 {
		roots, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer roots.Close()
		first, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		connectAs(t, uid, gid, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}, Port: roots.LocalAddr().(*net.TCPAddr).Port}, l.Addr().(*net.TCPAddr).Port)
		second, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		for conn, want := range map[net.Conn]evidence.Selector{first: "unix:uid:0", second: "unix:uid:12345"} {
			ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "main"})
			if err != nil || !ev.Matches([]evidence.Selector{want}) {
				t.Fatalf("Identify of the peer at %v = %+v, %v; want %s", conn.RemoteAddr(), ev, err, want)
			}
		}
	}
}

// connectAs connects to 127.0.0.1:port from an address, as another user.
func connectAs(t *testing.T, uid, gid uintptr, from *unix.SockaddrInet4, port int) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with what it became
		as(t, gid, uid)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			err = unix.Bind(fd, from)
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// BenchmarkIdentify is the evidence of a new loopback connection.
func BenchmarkIdentify(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var who caller.Identifier
	for b.Loop() {
		if _, err := who.Identify(conn, caller.From{Door: "main"}); err != nil {
			b.Fatal(err)
		}
	}
}
