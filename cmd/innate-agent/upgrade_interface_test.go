package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	vnetns "github.com/vishvananda/netns"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

func ip(t *testing.T, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// namespace makes a network namespace and returns its name.
func namespace(t *testing.T) string {
	t.Helper()
	name := filepath.Base(t.TempDir()) + fmt.Sprint("-", os.Getpid(), "-", time.Now().UnixNano())
	ip(t, "netns add "+name)
	t.Cleanup(func() { ip(t, "netns del "+name) })
	ip(t, "-n "+name+" link set lo up")
	return name
}

// tap gives host an interface with a machine behind it, which has address and
// a route to 169.254.169.254; it returns the machine's namespace.
func tap(t *testing.T, host, name, address string) string {
	t.Helper()
	guest := namespace(t)
	ip(t, fmt.Sprintf("-n %s link add %s type veth peer name eth0 netns %s", host, name, guest))
	ip(t, fmt.Sprintf("-n %s link set %s up", host, name))
	ip(t, fmt.Sprintf("-n %s link set eth0 up", guest))
	ip(t, fmt.Sprintf("-n %s addr add %s/32 dev eth0", guest, address))
	ip(t, fmt.Sprintf("-n %s route add 169.254.169.254/32 dev eth0", guest))
	ip(t, fmt.Sprintf("-n %s route replace %s/32 dev %s", host, address, name))
	return guest
}

// from connects to 169.254.169.254 from within a namespace.
func from(name string) dialer {
	return func() (net.Conn, error) {
		type result struct {
			conn net.Conn
			err  error
		}
		got := make(chan result, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends in the namespace
			ns, err := vnetns.GetFromName(name)
			if err != nil {
				got <- result{err: err}
				return
			}
			defer ns.Close()
			if err := vnetns.Set(ns); err != nil {
				got <- result{err: err}
				return
			}
			conn, err := net.DialTimeout("tcp4", "169.254.169.254:80", 20*time.Second)
			got <- result{conn, err}
		}()
		r := <-got
		return r.conn, r.err
	}
}

// The doors of virtual machines go over to the next process: each machine is
// answered as itself throughout, and at the end the address is taken off the
// interfaces by the process that ends, though another one put it there.
func TestUpgradeKeepsTheMachines(t *testing.T) {
	const upgrades = 6
	needRoot(t)
	host := namespace(t)
	one, two := tap(t, host, "tap1", "10.99.0.2"), tap(t, host, "tap2", "10.99.0.3")
	cp := agenttest.New(t)
	cp.Place(
		fleetapi.Placement{Name: "one", Door: "one", Resource: "/subscriptions/one", Selectors: []string{"vm:interface:tap1"}},
		fleetapi.Placement{Name: "two", Door: "two", Resource: "/subscriptions/two", Selectors: []string{"vm:interface:tap2"}},
	)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken = "token-of-" + r.Workload[len("/subscriptions/"):] + "."
		return tok, nil
	})
	config := settings(t, cp)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	doors := fmt.Sprintf("doors:\n  - {name: one, kind: interface, interface: tap1, vm: one, namespace: /run/netns/%[1]s}\n  - {name: two, kind: interface, interface: tap2, vm: two, namespace: /run/netns/%[1]s}\n", host)
	config = file(t, "agent.yaml", strings.Replace(string(text), "doors:\n", doors, 1), 0o600)
	r := launch(t, program(t, t.TempDir()), config)
	r.readyTimes(t, 1)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{failures: make(chan error, 100)}
	for guest, want := range map[string]string{one: "token-of-one.", two: "token-of-two."} {
		agenttest.Eventually(t, "the machine is answered", func() bool {
			return fresh(from(guest), get(tokenPath, "Metadata: true\r\nConnection: close\r\n"), want)() == nil
		})
		l.client(ctx, fresh(from(guest), get(tokenPath, "Metadata: true\r\nConnection: close\r\n"), want))
		l.client(ctx, kept(from(guest), get(tokenPath, "Metadata: true\r\n")))
	}
	for i := range upgrades {
		r.hangup(t)
		r.readyTimes(t, i+2)
	}
	stop()
	l.clients.Wait()
	close(l.failures)
	for err := range l.failures {
		t.Errorf("a request failed: %v", err)
	}
	t.Logf("%d upgrades, %d requests", upgrades, l.answers.Load())
	if l.answers.Load() < 200 {
		t.Errorf("only %d requests: that was no load", l.answers.Load())
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("exit after SIGTERM: %v", err)
	}
	for _, name := range []string{"tap1", "tap2"} {
		if have := ip(t, "-n "+host+" -4 addr show dev "+name); strings.Contains(have, "169.254.169.254") {
			t.Errorf("the address that the agent put on %s is there after its end:\n%s", name, have)
		}
	}
}
