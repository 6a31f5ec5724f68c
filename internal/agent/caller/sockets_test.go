package caller_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/evidence"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accepted(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// after identifies a connection that nothing captured.
func after(t *testing.T, conn net.Conn, from caller.From) evidence.Evidence {
	t.Helper()
	return afterBy(t, &caller.Identifier{}, conn, from)
}

func afterBy(t *testing.T, id *caller.Identifier, conn net.Conn, from caller.From) evidence.Evidence {
	t.Helper()
	ev, err := id.Identify(conn, from)
	if err != nil {
		t.Fatal(err)
	}
	if ev.Grade != evidence.GradeAfter {
		t.Errorf("grade of %s", ev)
	}
	return ev
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	// The child is there; what is waited for is that it executes.
	for range 200 {
		dirs, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			b, err := os.ReadFile(d)
			if err != nil {
				continue
			}
			var child, parent int
			var state string
			if _, err := fmt.Sscanf(string(b[:bytes.IndexByte(b, ' ')]), "%d", &child); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscanf(string(b[bytes.LastIndexByte(b, ')')+1:]), "%s %d", &state, &parent); err != nil {
				t.Fatal(err)
			}
			if parent == pid {
				t.Cleanup(func() { _ = unix.Kill(child, unix.SIGKILL) })
				return child
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

func TestHolderOfALoopbackSocketIsFound(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l := listen(t)
	shop := install(t, folder(t), "shop")
	p := start(t, shop, as{uid: 4321, gid: 5432, groups: []uint32{7}, cgroup: cgroup(t, "/system.slice/innate-test-after.service")})
	p.do("connect", "tcp", l.Addr().String())
	ev := after(t, accepted(t, l), caller.From{Door: "main"})
	wants(t, ev, "unix:uid:4321", "unix:gid:5432", "unix:supplementary_gid:7", path(shop), sha(t, shop), "systemd:id:innate-test-after.service")
	if ev.Process.PID != p.pid() || ev.Process.Executable != shop {
		t.Errorf("process %+v", ev.Process)
	}
}

// Of a socket that two programs hold only what they share is known.
func TestSocketHeldByTwoPrograms(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l := listen(t)
	dir := folder(t)
	shop := install(t, dir, "shop")
	evil := copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil"))
	p := start(t, evil, as{uid: 4321, gid: 5432})
	p.do("connect", "tcp", l.Addr().String())
	p.do("spawn", shop)
	waitExe(t, childOf(t, p.pid()), shop)
	ev := after(t, accepted(t, l), caller.From{Door: "main"})
	wants(t, ev, "unix:uid:4321", "unix:gid:5432")
	lacks(t, ev, "unix:path:", "unix:sha256:")
	if ev.Process != (evidence.Process{}) {
		t.Errorf("process %+v", ev.Process)
	}
}

func waitExe(t *testing.T, pid int, want string) {
	t.Helper()
	for range 500 {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("process %d does not execute %s", pid, want)
}

// A socket that was handed to another user's program stays its maker's: the
// program that got it did not ask.
func TestSocketHandedToAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l := listen(t)
	dir := folder(t)
	shop := install(t, dir, "shop")
	victim := start(t, shop, as{})
	p := start(t, copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil")), as{uid: 4321, gid: 5432})
	p.do("connect", "tcp", l.Addr().String())
	sock := filepath.Join(dir, "s")
	victim.do("take", sock)
	p.do("give", sock)
	conn := accepted(t, l)
	waitHeld(t, victim.pid())
	ev := after(t, conn, caller.From{Door: "main"})
	wants(t, ev, "unix:uid:4321")
	lacks(t, ev, "unix:path:", "unix:sha256:", "unix:uid:0", "unix:gid:", "cgroup:")
}

// waitHeld waits until the program has taken a descriptor: it has the listening
// socket, the connection that it came over, and then the one that was handed over.
func waitHeld(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		sockets := 0
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, "socket:") {
				sockets++
			}
		}
		if sockets == 3 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("nothing was handed over")
}

// A connection between the same ports and other addresses is another's: who
// binds the port that root has must not be taken for root, nor root for him.
func TestSamePortsBetweenOtherAddresses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l := listen(t)
	shop := install(t, folder(t), "shop")
	root := start(t, shop, as{})
	root.do("connect", "tcp", l.Addr().String())
	first := accepted(t, l)
	_, port, err := net.SplitHostPort(first.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	id := &caller.Identifier{MaxDigest: -1}
	for n := 2; n < 8; n++ { // whichever the kernel would name first
		p := start(t, shop, as{uid: 4321, gid: 5432})
		p.do("connect", "tcp", fmt.Sprintf("127.0.0.%d:%s,%s", n, port, l.Addr()))
		ev := afterBy(t, id, accepted(t, l), caller.From{Door: "main"})
		wants(t, ev, "unix:uid:4321")
		lacks(t, ev, "unix:uid:0")
		ev = afterBy(t, id, first, caller.From{Door: "main"})
		wants(t, ev, "unix:uid:0")
		lacks(t, ev, "unix:uid:4321")
		p.end()
	}
}

// A program that executes another one after connecting is taken for that one
// where nothing was recorded: this is what the grade says, and why a rule can
// ask for a better one.
func TestExecAfterConnectingIsNotSeenAfterTheFact(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l := listen(t)
	dir := folder(t)
	shop := install(t, dir, "shop")
	p := start(t, copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil")), as{})
	p.do("connect", "tcp", l.Addr().String())
	p.do("exec", shop)
	ev := after(t, accepted(t, l), caller.From{Door: "main"})
	rules := []evidence.Rule{{Name: "strong", Selectors: []evidence.Selector{sha(t, shop)}, Grade: evidence.GradeKernel, Enforce: true}}
	if v := evidence.Decide(rules, ev, evidence.Want{}); v.Allowed {
		t.Errorf("a rule that asks for the kernel's record allows %s", ev)
	}
}

// In the network namespace of a container, asked from outside.
func TestSocketsOfANetworkNamespace(t *testing.T) {
	t.Parallel()
	needRoot(t)
	shop := install(t, folder(t), "shop")
	p := start(t, shop, as{uid: 4321, gid: 5432, flags: unix.CLONE_NEWNET})
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid()))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	sockets, err := caller.OpenSockets(int(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sockets.Close)
	l := listenIn(t, ns)
	p.do("connect", "tcp", l.Addr().String())
	from := caller.From{Door: "web", Selectors: []evidence.Selector{"container:name:web"}, Sockets: sockets}
	conn := accepted(t, l)
	ev := after(t, conn, from)
	wants(t, ev, "container:name:web", "unix:uid:4321", path(shop), sha(t, shop))

	// The same question in the host's namespace finds nobody.
	ev, err = new(caller.Identifier).Identify(conn, caller.From{Door: "web"})
	if err != nil || len(ev.Selectors) != 0 || ev.Grade != evidence.GradeNone {
		t.Errorf("asked of the host: %+v, %v", ev, err)
	}
	// And whoever is in another namespace than the door does not come in.
	if ev, err := new(caller.Identifier).Identify(pair(t), from); err == nil {
		t.Errorf("a connection of the host's namespace: %+v", ev)
	}
}

// listenIn listens on loopback in a network namespace, which it sets up.
func listenIn(t *testing.T, ns *os.File) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	go func() {
		var r result
		defer func() { done <- r }()
		if r.err = enter(ns); r.err != nil {
			return
		}
		if r.err = loopbackUp(); r.err != nil {
			return
		}
		r.l, r.err = net.Listen("tcp", "127.0.0.1:0")
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.l.Close() })
	return r.l
}
