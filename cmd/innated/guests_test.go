package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// ip runs "ip ..." and fails the test if that fails.
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// namespace makes a network namespace with a name of its own.
func namespace(t *testing.T, word string) string {
	t.Helper()
	name := fmt.Sprintf("innate-%s-%d", word, os.Getpid())
	ip(t, "netns add "+name)
	t.Cleanup(func() { ip(t, "netns del "+name) })
	ip(t, "-n "+name+" link set lo up")
	return name
}

// listenIn serves "plain" at an address of a namespace, as any server would.
func listenIn(t *testing.T, name, addr string) {
	t.Helper()
	made := make(chan net.Listener, 1)
	go func() {
		defer close(made)
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace
		ns, err := netns.GetFromName(name)
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp4", addr)
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
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "plain") }), ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
}

// built builds the programs once for the tests that run them, into a folder
// that goes with the tests.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "innated-test")
	if err != nil {
		return "", err
	}
	programs = dir
	build := exec.Command("go", "build", "-o", dir, "./cmd/...")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, out)
	}
	return dir, nil
})

// programs is where built put them; "" if nobody needed any.
var programs string

func TestMain(m *testing.M) {
	code := m.Run()
	if programs != "" {
		if err := os.RemoveAll(programs); err != nil {
			fmt.Fprintln(os.Stderr, "removing the programs:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// host starts an installation and its host, whose doors are these.
func host(t *testing.T, doors string) *plant {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	p := newPlant(t, bin)
	config := p.write("innated.yaml", "domain: "+domain+"\nlisten: 127.0.0.1:0\nreplica: one\nroot_key_file: "+
		filepath.Join(p.dir, "root.key")+"\ntls:\n  local_ca: true\ndatabase:\n  sqlite: "+filepath.Join(p.dir, "innate.db")+"\n")
	tokenFile := filepath.Join(p.dir, "enrol.token")
	out := p.must(p.run("", "innated", "--config", config, "bootstrap", "--host", "h1", "--token-file", tokenFile, "--ca-file", filepath.Join(p.dir, "ca.pem"),
		"--selector", fmt.Sprintf("unix:uid:%d", os.Getuid())))
	if err := json.Unmarshal([]byte(out), &p.boot); err != nil {
		t.Fatalf("bootstrap printed %s: %v", out, err)
	}
	p.serve(config)
	file := p.agentConfig("agent.yaml", "agent", tokenFile, "agent.sock")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p.start("innate-agent", "--config", p.write("agent.yaml", string(text)+"doors:\n"+doors))
	return p
}

// place makes a machine with an identity, places callers of a door that match
// selector at it, and returns its identity's object id.
func (p *plant) place(name, door, selector string) string {
	p.t.Helper()
	type m = map[string]any
	id := "/subscriptions/" + p.boot.SubscriptionID + "/resourceGroups/innate/providers/Microsoft.Compute/virtualMachines/" + name
	p.arm("PUT", id, m{"location": "local", "identity": m{"type": "SystemAssigned"}})
	p.arm("PUT", p.boot.Host+"/placements/"+name, m{"properties": m{"door": door, "resourceId": id, "selectors": []string{selector}}})
	return p.principal(id)
}

// whose returns the object id that an answer's token is of, and who the token
// says that it was given to.
func whose(t *testing.T, answer string) (oid, caller string) {
	t.Helper()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer), &body); err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	parts := strings.Split(body.AccessToken, ".")
	if len(parts) != 3 {
		t.Fatalf("answer %q has no token", answer)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		OID    string          `json:"oid"`
		Caller json.RawMessage `json:"innate_caller"`
	}
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims.OID, string(claims.Caller)
}

// TestVirtualMachines is the story of three machines without an agent or a
// credential in them. Each of two behind its interface is itself and nothing
// else, also with the other's address and MAC; the third, behind the first,
// is nobody.
func TestVirtualMachines(t *testing.T) {
	t.Parallel()
	need(t, "qemu-system-x86_64", "cpio", "ip", busybox)
	const mac1, mac2 = "52:54:00:00:01:01", "52:54:00:00:02:01"
	ns := namespace(t, "vm")
	ip(t, "-n "+ns+" addr add 10.98.0.1/32 dev lo")
	for i, name := range []string{"tap1", "tap2"} {
		ip(t, "-n "+ns+" tuntap add "+name+" mode tap")
		ip(t, "-n "+ns+" link set "+name+" up")
		ip(t, fmt.Sprintf("-n %s route add 10.98.0.%d/32 dev %s", ns, i+2, name))
	}
	ip(t, "-n "+ns+" route add 10.98.3.0/24 via 10.98.0.2 dev tap1 onlink")
	listenIn(t, ns, "10.98.0.1:8080")

	image := initrd(t)
	tap := func(name, mac string) string { return "tap,ifname=" + name + ",script=no,downscript=no mac=" + mac }
	vm1 := boot(t, "vm1", ns, image, tap("tap1", mac1), "socket,listen=127.0.0.1:7001 mac=52:54:00:00:01:02")
	vm2 := boot(t, "vm2", ns, image, tap("tap2", mac2))
	door := func(n string) string {
		return "  - {name: vm" + n + ", kind: interface, interface: tap" + n + ", vm: vm" + n + ", namespace: /run/netns/" + ns + ", interfaces: [{mac: \"52:54:00:00:0" + n + ":01\"}]}\n"
	}
	p := host(t, door("1")+door("2"))
	oid1, oid2 := p.place("vm1", "vm1", "vm:interface:tap1"), p.place("vm2", "vm2", "vm:name:vm2")
	vm1.up()
	vm3 := boot(t, "vm3", ns, image, "socket,connect=127.0.0.1:7001 mac=52:54:00:00:03:01")

	network := func(address, mac string) []string {
		return []string{"ip link set eth0 down", "ip addr flush dev eth0", "ip link set eth0 address " + mac, "ip addr add " + address + "/24 dev eth0",
			"ip link set eth0 up", "ip route add 169.254.169.254/32 dev eth0"}
	}
	vm1.must(network("10.98.0.2", mac1)...)
	vm1.must("ip addr add 10.98.3.1/24 dev eth1", "ip link set eth1 up", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	vm2.up()
	vm2.must(network("10.98.0.3", mac2)...)

	is := func(m *machine, want string, says ...string) {
		t.Helper()
		answer, ok := m.sh(wget(tokenURL, 20))
		if !ok {
			t.Errorf("machine %s gets nothing: %s", m.name, answer)
			return
		}
		got, caller := whose(t, answer)
		if got != want {
			t.Errorf("machine %s is %s, want %s", m.name, got, want)
		}
		for _, s := range says {
			if !strings.Contains(caller, s) {
				t.Errorf("the token of %s was given to %s, want %s in it", m.name, caller, s)
			}
		}
	}
	is(vm1, oid1, "vm:interface:tap1", "vm:name:vm1")
	is(vm2, oid2, "vm:interface:tap2", "vm:name:vm2")
	for at, want := range map[string]string{"compute/name": "vm2", "network/interface/0/macAddress": "525400000201"} {
		if got, ok := vm2.sh(wget("http://169.254.169.254/metadata/instance/"+at+"?api-version=2021-02-01&format=text", 20)); !ok || got != want {
			t.Errorf("vm2 finds %s under %s, want %s", got, at, want)
		}
	}
	if got, ok := vm2.sh(wget("http://169.254.169.254/metadata/attested/document?api-version=2021-02-01&nonce=abc", 20)); !ok || !strings.Contains(got, `"encoding":"pkcs7"`) {
		t.Errorf("vm2's attested document: %s", got)
	}

	// vm2 as vm1, by address and MAC: it is still what its interface says, or nothing.
	vm2.must(network("10.98.0.2", mac1)...)
	for range 3 {
		if answer, ok := vm2.sh(wget(tokenURL, 5)); ok {
			if got, _ := whose(t, answer); got != oid2 {
				t.Errorf("vm2 with vm1's address and MAC is %s, want %s", got, oid2)
			}
		}
		is(vm1, oid1)
	}
	vm2.must(network("10.98.0.3", mac2)...)
	is(vm2, oid2)

	// vm3 behind vm1: everything passes but what is vm1's alone.
	vm3.up()
	vm3.must(network("10.98.3.3", "52:54:00:00:03:01")...)
	vm3.must("ip route add default via 10.98.3.1", "ip route replace 169.254.169.254/32 via 10.98.3.1")
	if out, ok := vm3.sh(wget("http://10.98.0.1:8080/", 20)); !ok || out != "plain" {
		t.Fatalf("vm1 does not forward for vm3, so that this says nothing: %s", out)
	}
	if out, ok := vm3.sh(wget(tokenURL, 8)); ok || strings.Contains(out, "access_token") {
		t.Errorf("vm3, behind vm1, gets %s", out)
	}
	is(vm1, oid1)
	if out, ok := vm1.sh("timeout 20 wget -q -O - http://169.254.169.254/metadata/versions"); ok {
		t.Errorf("without the header, vm1 gets %s", out)
	}
}

// TestContainers is the story of two containers of a real engine, and a plain
// namespace beside them. Each is itself; a fourth, without a door, is nobody.
func TestContainers(t *testing.T) {
	t.Parallel()
	need(t, "podman", "runc", "ip", busybox)
	shop, db, plain, none := namespace(t, "shop"), namespace(t, "db"), namespace(t, "plain"), namespace(t, "none")
	doors := ""
	for name, ns := range map[string]string{"shop": shop, "db": db, "plain": plain} {
		doors += "  - {name: " + name + ", kind: namespace, namespace: /run/netns/" + ns + ", container: " + name + "}\n"
	}
	p := host(t, doors)
	oids := map[string]string{}
	for _, name := range []string{"shop", "db", "plain"} {
		oids[name] = p.place(name, name, "container:name:"+name)
	}
	engine := newEngine(t)
	for ns, name := range map[string]string{shop: "shop", db: "db"} {
		answer, err := engine.run(ns, busybox, "sh", "-c", wget(tokenURL, 20))
		if err != nil {
			t.Errorf("container %s gets nothing: %v", name, err)
			continue
		}
		if got, caller := whose(t, answer); got != oids[name] || !strings.Contains(caller, "container:name:"+name) {
			t.Errorf("container %s is %s (%s), want %s", name, got, caller, oids[name])
		}
	}
	if answer, err := engine.run(none, busybox, "sh", "-c", wget(tokenURL, 20)); err == nil {
		t.Errorf("a container without a door gets %s", answer)
	}
	out, err := exec.Command("ip", "netns", "exec", plain, "sh", "-c", wget(tokenURL, 20)).Output()
	if err != nil {
		t.Fatalf("the plain namespace gets nothing: %v", err)
	}
	if got, _ := whose(t, string(out)); got != oids["plain"] {
		t.Errorf("the plain namespace is %s, want %s", got, oids["plain"])
	}
}

// engine is podman with everything of its own in a folder of the test.
type engine struct {
	t    *testing.T
	args []string
}

// newEngine makes an engine with one image: busybox.
func newEngine(t *testing.T) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("", "podman") // not t.TempDir: its path gets too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{t, []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"}}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing what the engine left: %v", err)
		}
	})
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(t.TempDir(), "image.tar")
	if out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	if out, err := exec.Command("podman", append(e.args, "import", "-q", tar, "localhost/busybox:test")...).CombinedOutput(); err != nil {
		t.Fatalf("podman import: %v: %s", err, out)
	}
	return e
}

// run runs a command in a container on a network namespace.
func (e *engine) run(ns string, command ...string) (stdout string, err error) {
	args := append(append([]string{}, e.args...), "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
		"--network", "ns:/run/netns/"+ns, "localhost/busybox:test")
	out, err := exec.Command("podman", append(args, command...)...).Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return string(out), fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}
