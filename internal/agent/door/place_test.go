package door_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/evidence"
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
	t.Fatal("making network namespaces takes root: run the tests as root, or set INNATE_SKIP=root")
}

// ip runs "ip ..." and returns what it prints.
func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// netns makes a network namespace and returns its name.
func netns(t *testing.T) string {
	t.Helper()
	f, err := os.CreateTemp("", "innate-ns")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	os.Remove(f.Name())
	name := filepath.Base(f.Name())
	ip(t, "netns add "+name)
	t.Cleanup(func() {
		// Gone already where the test took it away.
		_ = exec.Command("ip", "netns", "del", name).Run()
	})
	ip(t, "-n "+name+" link set lo up")
	return name
}

func mount(name string) string { return "/run/netns/" + name }

// guest makes a namespace that stands for what is behind the interface tap of
// host: it has address, and a route to 169.254.169.254 by tap.
func guest(t *testing.T, host, tap, address string) string {
	t.Helper()
	name := netns(t)
	wire(t, host, tap, name, address)
	return name
}

func wire(t *testing.T, host, tap, name, address string) {
	t.Helper()
	ip(t, fmt.Sprintf("-n %s link add %s type veth peer name eth0 netns %s", host, tap, name))
	ip(t, fmt.Sprintf("-n %s link set %s up", host, tap))
	ip(t, fmt.Sprintf("-n %s link set eth0 up", name))
	ip(t, fmt.Sprintf("-n %s addr add %s/32 dev eth0", name, address))
	ip(t, fmt.Sprintf("-n %s route add 169.254.169.254/32 dev eth0", name))
	ip(t, fmt.Sprintf("-n %s route replace %s/32 dev %s", host, address, tap))
}

// listenIn serves "plain" in a namespace at 10.99.0.1, as any server would.
func listenIn(t *testing.T, name string) (addr string) {
	t.Helper()
	made := make(chan net.Listener, 1)
	go func() {
		defer close(made)
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace
		ns, err := vnetns.GetFromName(name)
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		if err := vnetns.Set(ns); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp4", "10.99.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		made <- l
	}()
	l := <-made
	if l == nil {
		t.FailNow()
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") }), ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// ask asks 169.254.169.254 from within a namespace and returns the answer.
func ask(t *testing.T, name string, curl ...string) (string, error) {
	t.Helper()
	args := append([]string{"netns", "exec", name, "curl", "-sS", "--noproxy", "*", "--max-time", "2"}, curl...)
	cmd := exec.Command("ip", append(args, "http://169.254.169.254/")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// log is a log that a test reads.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func at(name string, to io.Writer, selectors ...evidence.Selector) door.Config {
	return door.Config{
		Name: name, Handler: http.HandlerFunc(who), AnswerTimeout: door.AnswerTimeout, Log: slog.New(slog.NewTextHandler(to, nil)),
		Identify: func(c net.Conn) (evidence.Evidence, error) {
			return new(caller.Identifier).Identify(c, caller.From{Door: name, Selectors: selectors})
		},
	}
}

func onInterface(t *testing.T, name, iface, host string, to io.Writer) *door.Door {
	t.Helper()
	d, err := door.ListenInterface(at(name, to, evidence.Selector("vm:interface:"+iface)), iface, mount(host))
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func inNamespace(t *testing.T, name, path string, to io.Writer) *door.Door {
	t.Helper()
	d, err := door.ListenNamespace(at(name, to), path, func(ns int, _ *net.TCPListener) (func(net.Conn) (evidence.Evidence, error), func(), error) {
		sockets, err := caller.OpenSockets(ns)
		if err != nil {
			return nil, nil, err
		}
		return func(c net.Conn) (evidence.Evidence, error) {
			return new(caller.Identifier).Identify(c, caller.From{Door: name, Selectors: []evidence.Selector{evidence.Selector("container:name:" + name)}, Sockets: sockets})
		}, sockets.Close, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

func TestEachInterfaceIsOneMachine(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	a, b := guest(t, host, "tap0", "10.99.0.2"), guest(t, host, "tap1", "10.99.0.3")
	onInterface(t, "vm-a", "tap0", host, t.Output())
	onInterface(t, "vm-b", "tap1", host, t.Output())
	for name, want := range map[string]string{
		a: "door:vm-a vm:interface:tap0 grade:kernel <nil>",
		b: "door:vm-b vm:interface:tap1 grade:kernel <nil>",
	} {
		if got, err := ask(t, name); err != nil || got != want {
			t.Errorf("evidence = %q, %v; want %q", got, err, want)
		}
	}
}

// TestNeighboursAddressIsOfNoUse: b takes a's address and MAC. What it then
// gets is its own: the interface counts, and answers leave by it.
func TestNeighboursAddressIsOfNoUse(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	a, b := guest(t, host, "tap0", "10.99.0.2"), guest(t, host, "tap1", "10.99.0.3")
	onInterface(t, "vm-a", "tap0", host, t.Output())
	onInterface(t, "vm-b", "tap1", host, t.Output())
	mac := strings.Fields(ip(t, "-n "+a+" -br link show eth0"))[2]
	ip(t, "-n "+b+" link set eth0 address "+mac)
	ip(t, "-n "+b+" addr flush dev eth0")
	ip(t, "-n "+b+" addr add 10.99.0.2/32 dev eth0")
	ip(t, "-n "+b+" route replace 169.254.169.254/32 dev eth0")
	for range 3 {
		if got, err := ask(t, b); strings.Contains(got, "vm-a") || err == nil && !strings.HasPrefix(got, "door:vm-b ") {
			t.Errorf("b as a's address and MAC is %q, %v", got, err)
		}
		if got, err := ask(t, a); err != nil || !strings.HasPrefix(got, "door:vm-a ") {
			t.Errorf("a meanwhile is %q, %v", got, err)
		}
	}
}

// TestMachineWithoutDoorIsNobody: its packets reach the host, but no door.
func TestMachineWithoutDoorIsNobody(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	guest(t, host, "tap0", "10.99.0.2")
	other := guest(t, host, "tap1", "10.99.0.3")
	onInterface(t, "vm-a", "tap0", host, t.Output())
	if got, err := ask(t, other); err == nil {
		t.Errorf("a machine without a door was answered: %q", got)
	}
}

// TestHostsOwnProgramsAreNoMachine: to the kernel they come in by the
// interface that has the address.
func TestHostsOwnProgramsAreNoMachine(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	guest(t, host, "tap0", "10.99.0.2")
	ip(t, "-n "+host+" addr add 10.99.0.1/32 dev lo")
	onInterface(t, "vm-a", "tap0", host, t.Output())
	for _, args := range [][]string{nil, {"--interface", "if!tap0"}, {"--interface", "host!127.0.0.1"}, {"--interface", "host!10.99.0.1"}, {"--interface", "host!169.254.169.254"}} {
		if got, err := ask(t, host, args...); strings.Contains(got, "vm:interface") {
			t.Errorf("a program of the host, with %q, is %q, %v", args, got, err)
		}
	}
}

// TestMachineBehindAMachineGetsNothing: the answer ends at the machine before
// it, though everything else passes.
func TestMachineBehindAMachineGetsNothing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	outer := guest(t, host, "tap0", "10.99.0.2")
	inner := guest(t, outer, "tap9", "10.99.0.9")
	ip(t, "netns exec "+outer+" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.proxy_arp=1 net.ipv4.conf.tap9.proxy_arp=1")
	ip(t, "-n "+host+" route add 10.99.0.9/32 via 10.99.0.2 dev tap0 onlink")
	ip(t, "-n "+host+" addr add 10.99.0.1/32 dev lo")
	ip(t, "-n "+outer+" route add 10.99.0.1/32 dev eth0")
	ip(t, "-n "+inner+" route add 10.99.0.1/32 dev eth0")
	onInterface(t, "vm-a", "tap0", host, t.Output())
	plain := listenIn(t, host)
	if got, err := ask(t, inner, "http://"+plain+"/"); !strings.HasPrefix(got, "plain") {
		t.Fatalf("the outer machine does not forward, so that the test says nothing: %q, %v", got, err)
	}
	if got, err := ask(t, outer); err != nil || !strings.HasPrefix(got, "door:vm-a ") {
		t.Errorf("the outer machine is %q, %v", got, err)
	}
	if got, err := ask(t, inner); err == nil {
		t.Errorf("the machine behind it was answered: %q", got)
	}
}

func TestDoorFollowsItsInterface(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	said := new(log)
	d := onInterface(t, "vm-a", "tap0", host, said)
	if err := d.Shut(); err == nil || !strings.Contains(err.Error(), "no interface tap0") {
		t.Errorf("a door without its interface says %v", err)
	}
	a := guest(t, host, "tap0", "10.99.0.2")
	open := func() bool { return d.Shut() == nil }
	eventually(t, "the door is open", open)
	if got, err := ask(t, a); err != nil || !strings.HasPrefix(got, "door:vm-a ") {
		t.Fatalf("evidence = %q, %v", got, err)
	}

	// Another interface takes the name; a's own goes by another name now.
	ip(t, "-n "+host+" link set tap0 down")
	ip(t, "-n "+host+" link set tap0 name old0")
	b := netns(t)
	wire(t, host, "tap0", b, "10.99.0.3")
	ip(t, "-n "+host+" link set old0 up")
	ip(t, "-n "+host+" route replace 10.99.0.2/32 dev old0")
	eventually(t, "the new interface is the machine", func() bool {
		got, err := ask(t, b)
		return err == nil && strings.HasPrefix(got, "door:vm-a ")
	})
	if got, err := ask(t, a); err == nil {
		t.Errorf("what was behind the old interface was answered: %q", got)
	}
	if got := ip(t, "-n "+host+" -br addr show dev old0"); strings.Contains(got, "169.254") {
		t.Errorf("the old interface kept the address: %s", got)
	}

	ip(t, "-n "+host+" link del tap0")
	eventually(t, "the door is shut", func() bool { return !open() })
	if n := strings.Count(said.String(), "door open"); n != 2 {
		t.Errorf("the log says %d times that the door opened, want 2:\n%s", n, said.String())
	}
}

func TestAddressIsTakenAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	guest(t, host, "tap0", "10.99.0.2")
	guest(t, host, "tap1", "10.99.0.3")
	ip(t, "-n "+host+" addr add 169.254.169.254/32 dev tap1 scope link")
	for tap, keeps := range map[string]bool{"tap0": false, "tap1": true} {
		d := onInterface(t, "vm-"+tap, tap, host, t.Output())
		if got := ip(t, "-n "+host+" -br addr show dev "+tap); !strings.Contains(got, "169.254.169.254/32") {
			t.Errorf("%s has no address: %s", tap, got)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if got := ip(t, "-n "+host+" -br addr show dev "+tap); strings.Contains(got, "169.254.169.254/32") != keeps {
			t.Errorf("%s at the end has the address: %v; want %v", tap, !keeps, keeps)
		}
	}
}

func TestPortOfABridgeIsRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	host := netns(t)
	a := guest(t, host, "tap0", "10.99.0.2")
	ip(t, "-n "+host+" link add br0 type bridge")
	ip(t, "-n "+host+" link set tap0 master br0")
	d := onInterface(t, "vm-a", "tap0", host, t.Output())
	if err := d.Shut(); err == nil || !strings.Contains(err.Error(), "port of br0") || !strings.Contains(err.Error(), "nomaster") {
		t.Errorf("a door at a bridge's port says %v", err)
	}
	ip(t, "-n "+host+" link set tap0 nomaster")
	eventually(t, "the door is open", func() bool { return d.Shut() == nil })
	if got, err := ask(t, a); err != nil || !strings.HasPrefix(got, "door:vm-a ") {
		t.Errorf("evidence = %q, %v", got, err)
	}
}

func TestEachNamespaceIsOneContainer(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a, b := netns(t), netns(t)
	inNamespace(t, "web", mount(a), t.Output())
	inNamespace(t, "db", mount(b), t.Output())
	for name, want := range map[string]string{a: "container:name:web", b: "container:name:db"} {
		got, err := ask(t, name)
		words := strings.Fields(got)
		if err != nil || !slices.Contains(words, want) || !slices.Contains(words, "unix:uid:0") || !slices.Contains(words, "grade:after-the-fact") {
			t.Errorf("evidence = %q, %v; want %s and the user in it", got, err, want)
		}
	}
	if got, err := ask(t, netns(t)); err == nil {
		t.Errorf("a namespace without a door was answered: %q", got)
	}
}

// TestNeighbourOfAContainerGetsNothing: b sends what is for 169.254.169.254 to
// a, which has that address.
func TestNeighbourOfAContainerGetsNothing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := netns(t)
	b := guest(t, a, "veth0", "10.99.0.3")
	ip(t, "-n "+a+" addr add 10.99.0.2/32 dev veth0")
	inNamespace(t, "web", mount(a), t.Output())
	if got, err := ask(t, a); err != nil || !strings.HasPrefix(got, "door:web ") {
		t.Errorf("the container is %q, %v", got, err)
	}
	if got, err := ask(t, b); err == nil {
		t.Errorf("its neighbour was answered: %q", got)
	}
}

func TestDoorFollowsItsNamespace(t *testing.T) {
	t.Parallel()
	needRoot(t)
	name := netns(t)
	ip(t, "netns del "+name)
	d := inNamespace(t, "web", mount(name), t.Output())
	if err := d.Shut(); err == nil || !strings.Contains(err.Error(), "no network namespace") {
		t.Errorf("a door without its namespace says %v", err)
	}
	for range 2 {
		ip(t, "netns add "+name)
		eventually(t, "the door is open", func() bool { return d.Shut() == nil })
		if got, err := ask(t, name); err != nil || !strings.HasPrefix(got, "door:web ") {
			t.Errorf("evidence = %q, %v", got, err)
		}
		ip(t, "netns del "+name)
		eventually(t, "the door is shut", func() bool { return d.Shut() != nil })
	}
}

// TestNamespaceOfAProcessEndsWithIt: the pid may be another's next.
func TestNamespaceOfAProcessEndsWithIt(t *testing.T) {
	t.Parallel()
	needRoot(t)
	name := netns(t)
	cmd := exec.Command("ip", "netns", "exec", name, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		_ = cmd.Wait()
	})
	path := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	eventually(t, "the process is in its namespace", func() bool {
		theirs, err := os.Readlink(path)
		ours, err2 := os.Readlink("/proc/thread-self/ns/net")
		return err == nil && err2 == nil && theirs != ours
	})
	d := inNamespace(t, "web", path, t.Output())
	if got, err := ask(t, name); err != nil || !strings.HasPrefix(got, "door:web ") {
		t.Fatalf("evidence = %q, %v", got, err)
	}
	cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "the door is shut for good", func() bool { return d.Shut() != nil && strings.Contains(d.Shut().Error(), "has ended") })
	if got, err := ask(t, name); err == nil {
		t.Errorf("the namespace was answered after its process: %q", got)
	}
}

func TestOwnNamespaceIsNoContainer(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// Whoever started this test is on the host, as it is.
	d := inNamespace(t, "web", fmt.Sprintf("/proc/%d/ns/net", os.Getppid()), t.Output())
	if err := d.Shut(); err == nil || !strings.Contains(err.Error(), "the agent's own") {
		t.Errorf("a door in the agent's own namespace says %v", err)
	}
}

func TestNamesOfPlacesAreChecked(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a/b", "a b", "sixteen-letters.", ".", "..", "a:b", "é"} {
		if err := door.CheckInterface(name); err == nil {
			t.Errorf("CheckInterface(%q) = nil", name)
		}
	}
	for _, path := range []string{"", "web", "/run/netns/../x", "/proc/self/ns/net", "/proc/thread-self/ns/net", fmt.Sprintf("/proc/%d/ns/net", os.Getpid())} {
		if err := door.CheckNamespace(path); err == nil {
			t.Errorf("CheckNamespace(%q) = nil", path)
		}
	}
}
