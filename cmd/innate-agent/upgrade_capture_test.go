package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

// The captured address and a container's door go over to the next process as
// well: every request is answered, each by the kernel's record of who made it,
// and none falls through.
func TestUpgradeKeepsTheCapture(t *testing.T) {
	const upgrades = 8
	needRoot(t)
	m := newMachine(t)
	web := agenttest.NewNetns(t)
	var cp *agenttest.ControlPlane
	m.net.In(t, func() error { cp = agenttest.New(t); return nil })
	cp.Place(
		fleetapi.Placement{Name: "a", Door: "main", Resource: "/subscriptions/a", Selectors: []string{fmt.Sprint("unix:uid:", firstUser)}},
		fleetapi.Placement{Name: "b", Door: "main", Resource: "/subscriptions/b", Selectors: []string{fmt.Sprint("unix:uid:", firstUser+1)}},
		fleetapi.Placement{Name: "w", Door: "web", Resource: "/subscriptions/w", Selectors: []string{fmt.Sprint("unix:uid:", firstUser)}},
	)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken = r.Workload[len("/subscriptions/"):] + "." + r.Evidence.Grade
		return tok, nil
	})
	config := m.settings(t, cp)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	config = file(t, "agent.yaml", string(text)+"doors: [{name: web, kind: namespace, namespace: "+web.Path(t)+", container: web}]\n", 0o600)
	r := launchIn(t, m.net.Try, program(t, t.TempDir()), config)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{failures: make(chan error, 100)}
	for _, c := range []struct {
		in   *agenttest.Netns
		uid  int
		want string
	}{{m.net, firstUser, "a.kernel"}, {m.net, firstUser + 1, "b.kernel"}, {web, firstUser, "w.kernel"}} {
		l.client(ctx, fresh(dial(c.in, c.uid), get(tokenPath, "Metadata: true\r\nConnection: close\r\n"), c.want))
		l.client(ctx, kept(dial(c.in, c.uid), get(tokenPath, "Metadata: true\r\n")))
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
	if l.answers.Load() < 200 {
		t.Errorf("only %d requests: that was no load", l.answers.Load())
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("exit after SIGTERM: %v", err)
	}
}
