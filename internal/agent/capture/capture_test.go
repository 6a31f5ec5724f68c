package capture_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
)

func TestCallerIsKnownHoweverItConnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	for _, role := range []string{"plain", "mapped", "multipath", "mapped multipath", "nonblocking", "fast open", "fast open connect"} {
		if got := w.ask(t, 12345, role); got != mine {
			t.Errorf("a %s connect of user 12345 was answered %q", role, got)
		}
	}
	for _, from := range []string{"127.8.8.8", "169.254.169.254"} {
		if got := w.ask(t, 12345, "bound", from); got != mine {
			t.Errorf("a connect of user 12345 from %s was answered %q", from, got)
		}
	}
	// Data in the very first packet, without a cookie, at every listener.
	w.ns.In(t, func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1543"), 0) })
	for _, role := range []string{"fast open", "fast open connect", "multipath"} {
		if got := w.ask(t, 12345, role); got != mine {
			t.Errorf("with data in the first packet, a %s connect of user 12345 was answered %q", role, got)
		}
	}
	for _, url := range []string{"http://169.254.169.254", "http://0xa9fea9fe", "http://2852039166", "http://0251.0376.0251.0376", "http://[::ffff:169.254.169.254]", "http://[::ffff:a9fe:a9fe]"} {
		if got := w.ns.run(t, agenttest.Process(t, w.dir, 12345, "curl", "-sS", url)); got != mine {
			t.Errorf("curl %s of user 12345 was answered %q", url, got)
		}
	}
}

func TestRecordIsOfTheProcessThatConnects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	cmd := agenttest.Process(t, w.dir, 0, "curl", "-sS", "http://169.254.169.254/all")
	got := w.ns.run(t, cmd)
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

// Datagrams to the address, and connections over an interface that is not
// loopback, could only come to somebody else.
func TestWhatCannotComeToTheDoorIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	w.veth(t)
	for _, role := range []string{"datagram", "mapped datagram", "sendto", "mapped sendto", "device"} {
		if got := w.ask(t, 12345, role, "v0"); got != "EPERM" {
			t.Errorf("%s to the captured address: %q, want EPERM", role, got)
		}
	}
	if got := w.ask(t, 12345, "device", "lo"); got != mine {
		t.Errorf("a connect over lo was answered %q", got)
	}
}

// Before there is an agent, between two, and after one: refused, every time.
func TestWithoutAnAgentConnectsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func(when string) {
		t.Helper()
		for _, role := range []string{"plain", "mapped", "multipath", "fast open", "sendto"} {
			if got := w.ask(t, 12345, role); got != "EPERM" {
				t.Errorf("%s, a %s connect was answered %q, want EPERM", when, role, got)
			}
		}
	}
	c := w.open(t)
	refused("before the agent listens")
	l := w.serve(t, c)
	if got := w.ask(t, 12345, "plain"); got != mine {
		t.Errorf("the agent answered %q", got)
	}
	l.Close()
	refused("after the agent stopped listening")
	c.Close()
	refused("after the agent closed")
	c = w.open(t)
	refused("before the next agent listens")
	w.serve(t, c)
	if got := w.ask(t, 12345, "plain"); got != mine {
		t.Errorf("the next agent answered %q", got)
	}
}

// A network namespace without a door has no way out to somebody else's service.
func TestNamespaceWithoutDoorIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	w.serve(t, c)
	other := netns{agenttest.NewNetns(t)}
	if got := other.run(t, as(t, w.dir, 12345, "plain")); got != "EPERM" {
		t.Errorf("a connect from a namespace without door was answered %q, want EPERM", got)
	}
	for _, device := range []string{"", "lo"} { // as in a container's own namespace
		var l tcpListener
		other.In(t, func() (err error) {
			if l, err = listenOn("169.254.169.254:80", device); err != nil {
				return err
			}
			answer(t, l, c.Record)
			_, err = c.AddListener(l)
			return err
		})
		if got := other.run(t, as(t, w.dir, 12345, "plain")); got != mine {
			t.Errorf("a connect from a namespace with a door was answered %q", got)
		}
		l.Close()
		if got := other.run(t, as(t, w.dir, 12345, "plain")); got != "EPERM" {
			t.Errorf("a connect to a door that closed was answered %q, want EPERM", got)
		}
	}
}

func TestRemovedNamespaceIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	l := w.serve(t, c)
	remove, err := c.AddListener(l) // once more is the same
	if err == nil {
		err = remove()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := w.ask(t, 12345, "plain"); got != "EPERM" {
		t.Errorf("a connect after the door was removed was answered %q, want EPERM", got)
	}
}

// Who connects to the agent's own address is on record as well; who is not
// captured has nothing to do there.
func TestDirectConnectIsOnRecordOrRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	addr := w.serve(t, w.open(t)).Addr().String()
	if got := w.ask(t, 12345, "to", addr); got != mine {
		t.Errorf("a captured process that knows the address was answered %q", got)
	}
	if got := w.ns.run(t, as(t, w.outside, 12345, "to", addr)); got != "EPERM" {
		t.Errorf("a process that is not captured was answered %q, want EPERM", got)
	}
}

// A socket's first connect leaves nothing for its second.
func TestNoRecordOutlivesItsConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	w.serve(t, c)
	var port string
	w.ns.In(t, func() error {
		l, err := listenAt("127.0.0.1:0")
		if err != nil {
			return err
		}
		_, port, _ = strings.Cut(l.Addr().String(), ":")
		answer(t, l, c.Record)
		return nil
	})
	if got := w.ask(t, 12345, "again", port); got != "no record" {
		t.Errorf("a socket that was connected to the captured address before was answered %q, want no record", got)
	}
}

// The same addresses and ports, one connection after the other, while the
// agent accepts neither: the first is reset, and must not be taken for the
// second.
func TestReusedPortHasItsOwnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	l := w.listen(t, c)
	for i := range 10 {
		port := fmt.Sprint(40000 + i)
		if got := w.ask(t, 12345, "from", port, "reset"); got != "reset" {
			t.Fatalf("first connection: %s", got)
		}
		second := as(t, w.dir, 23456, "from", port, "stay")
		w.ns.In(t, second.Start)
		for _, want := range []uint32{12345, 23456} {
			conn, err := l.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			if r, err := c.Record(conn); err != nil || r.UID != want {
				t.Errorf("connection of user %d from port %s: record of user %d, %v", want, port, r.UID, err)
			}
			if _, err := c.Record(conn); err == nil {
				t.Error("a record was given out twice")
			}
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nbye")
			conn.Close()
		}
		if err := second.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Thousands of short connections neither fill a map nor displace a record.
func TestManyShortConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, w.open(t))
	results := make(chan string)
	uids := []uint32{12345, 23456, 34567}
	for _, uid := range uids {
		go func() {
			got := w.ask(t, uid, "many", "3000")
			if got == fmt.Sprintf("uid %d gid %d", uid, uid) {
				got = "good"
			}
			results <- fmt.Sprint(uid, " ", got)
		}()
	}
	for range uids {
		if got := <-results; !strings.HasSuffix(got, " good") {
			t.Errorf("after 3000 connections user %s", got)
		}
	}
}

// A door that programs know of is noted too; what else goes there is not touched.
func TestWatchedAddressIsOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	var addr string
	w.ns.In(t, func() error {
		l, err := listenAt("127.0.0.1:0")
		if err != nil {
			return err
		}
		addr = l.Addr().String()
		answer(t, l, c.Record)
		return nil
	})
	if got := w.ask(t, 12345, "to", addr); got != "no record" {
		t.Errorf("before: %q", got)
	}
	if err := c.Watch(addrPort(addr)); err != nil {
		t.Fatal(err)
	}
	// Also those who are not captured: noting takes nothing from them.
	for _, dir := range []string{w.dir, w.outside} {
		if got := w.ns.run(t, as(t, dir, 12345, "to", addr)); got != mine {
			t.Errorf("a process of %s was answered %q", dir, got)
		}
	}
	for _, bad := range []string{"[::1]:80", "169.254.169.254:80"} {
		if err := c.Watch(addrPort(bad)); err == nil {
			t.Errorf("Watch(%s) succeeded", bad)
		}
	}
}

func TestListenerMustBePlain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.open(t)
	w.veth(t)
	for addr, listen := range map[string]func(string) (tcpListener, error){
		"127.0.0.1:0": multipathAt, "0.0.0.0:0": listenAt, "[::1]:0": listenAt,
		"127.0.0.2:0": func(addr string) (tcpListener, error) { return listenOn(addr, "v0") },
	} {
		w.ns.In(t, func() error {
			l, err := listen(addr)
			if err != nil {
				return err
			}
			defer l.Close()
			if _, err := c.AddListener(l); err == nil {
				t.Errorf("AddListener(%s) succeeded", l.Addr())
			}
			return nil
		})
	}
}
