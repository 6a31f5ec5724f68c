package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/fleetapi"
)

// asProgram makes this test's binary the program itself.
const asProgram = "INNATE_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(agenttest.InCgroup(m))
}

const (
	tokenPath = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
	shopID    = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/shop"
)

// running is the program in a process of its own.
type running struct {
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan error
}

// program copies this test's binary to where an upgrade can replace it.
func program(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "innate-agent")
	install(t, self, path)
	return path
}

// install puts a program at path as a package manager does: beside it, and
// then over it.
func install(t *testing.T, from, path string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func launch(t *testing.T, path, config string, env ...string) *running {
	t.Helper()
	return launchIn(t, func(start func() error) error { return start() }, path, config, env...)
}

// launchIn launches it wherever in starts it.
func launchIn(t *testing.T, in func(start func() error) error, path, config string, env ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(path, "--config", config), ended: make(chan error, 1)}
	r.cmd.Env = append(append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=10"), env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	if err := in(r.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() { r.ended <- r.cmd.Wait() }()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		r.wait()
		if t.Failed() {
			t.Logf("the program said:\n%s%s", r.stdout.String(), r.stderr.String())
		}
	})
	r.readyTimes(t, 1)
	return r
}

func (r *running) wait() error {
	err := <-r.ended
	r.ended <- err
	return err
}

// readyTimes waits until the program has said that it is ready n times, and
// returns what it said the last time.
func (r *running) readyTimes(t *testing.T, n int) map[string]string {
	t.Helper()
	agenttest.Eventually(t, fmt.Sprintf("the program is ready for the %d. time", n), func() bool {
		return strings.Count(r.stdout.String(), "\n") >= n || len(r.ended) > 0
	})
	lines := strings.Split(strings.TrimSpace(r.stdout.String()), "\n")
	at := map[string]string{}
	for _, kv := range regexp.MustCompile(`(\S+)=(\S+)`).FindAllStringSubmatch(lines[len(lines)-1], -1) {
		at[kv[1]] = kv[2]
	}
	if len(lines) != n || at["host"] == "" {
		t.Fatalf("the program said %d lines, the last %q; want %d", len(lines), lines[len(lines)-1], n)
	}
	return at
}

func (r *running) hangup(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// load is clients that ask all the time and take no excuse: any connection that
// is refused or ends without an answer is a failure.
type load struct {
	clients  sync.WaitGroup
	answers  atomic.Int64
	longest  atomic.Int64 // nanoseconds
	failures chan error
}

func (l *load) client(ctx context.Context, ask func() error) {
	l.clients.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			if err := ask(); err != nil {
				select {
				case l.failures <- err:
				default:
				}
			}
			l.answers.Add(1)
			l.longest.Store(max(l.longest.Load(), int64(time.Since(began))))
		}
	})
}

// exchange sends one request over c and reads its answer. It repeats nothing.
func exchange(c net.Conn, r *bufio.Reader, request, want string) (keep bool, err error) {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return false, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return false, fmt.Errorf("writing: %w", err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, fmt.Errorf("reading the answer: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, fmt.Errorf("reading the body: %w", err)
	}
	if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
		return false, fmt.Errorf("answer %d %s", resp.StatusCode, body)
	}
	return !resp.Close, nil
}

// dialer makes connections.
type dialer func() (net.Conn, error)

func to(network, addr string) dialer {
	return func() (net.Conn, error) { return net.Dial(network, addr) }
}

// fresh asks over a new connection each time.
func fresh(dial dialer, request, want string) func() error {
	return func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = exchange(c, bufio.NewReader(c), request, want)
		return said("a new connection", c, err)
	}
}

func said(what string, c net.Conn, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s to %s: %w", what, c.RemoteAddr(), err)
}

// kept asks over one connection for as long as the server keeps it.
func kept(dial dialer, request string) func() error {
	var c net.Conn
	var r *bufio.Reader
	return func() (err error) {
		if c == nil {
			if c, err = dial(); err != nil {
				return err
			}
			r = bufio.NewReader(c)
		}
		keep, err := exchange(c, r, request, "access_token")
		err = said("a kept connection", c, err)
		if err != nil || !keep {
			c.Close()
			c = nil
		}
		return err
	}
}

func get(path, headers string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: 169.254.169.254\r\n" + headers + "\r\n"
}

// begin asks the control socket for a start and keeps it until the test ends.
func beginStart(t *testing.T, socket string) (endpoint, secret string, c net.Conn) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	body := `{"resource":"` + shopID + `"}`
	fmt.Fprintf(c, "POST /starts HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("POST /starts = %v, %v", resp, err)
	}
	var s struct{ Endpoint, Header string }
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s.Endpoint, s.Header, c
}

func appRequest(secret string) string {
	return get("/msi/token?api-version=2019-08-01&resource=r", "X-IDENTITY-HEADER: "+secret+"\r\n")
}

// placed is a control plane with a placement at the door main and one for
// programs that are started.
func placed(t *testing.T) *agenttest.ControlPlane {
	t.Helper()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p", Door: "main", Resource: "/subscriptions/s"},
		fleetapi.Placement{Name: "started", Door: "run", Resource: shopID, Selectors: []string{fmt.Sprintf("unix:uid:%d", os.Getuid())}})
	return cp
}

// socketOf is the control socket in a configuration that [settings] wrote.
func socketOf(t *testing.T, config string) string {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`control_socket: (\S+)`).FindStringSubmatch(string(text))[1]
}

// Twenty upgrades under load, without one request that failed. The starts live
// on, and so does the process.
func TestUpgradeRefusesNobody(t *testing.T) {
	const upgrades = 20
	cp := placed(t)
	config := settings(t, cp)
	path := program(t, t.TempDir())
	r := launch(t, path, config)
	at := r.readyTimes(t, 1)
	socket := socketOf(t, config)
	endpoint, secret, ends := beginStart(t, socket)
	_, ended, endedConn := beginStart(t, socket)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{failures: make(chan error, 100)}
	for range 3 {
		l.client(ctx, fresh(to("tcp", at["main"]), get(tokenPath, "Metadata: true\r\nConnection: close\r\n"), "access_token"))
		l.client(ctx, kept(to("tcp", at["main"]), get(tokenPath, "Metadata: true\r\n")))
	}
	l.client(ctx, kept(to("tcp", at["app"]), appRequest(secret)))
	l.client(ctx, fresh(to("unix", socket), get("/status", "Connection: close\r\n"), `"connected":true`))
	for i := range upgrades {
		if i == upgrades/2 {
			install(t, path, path)
		}
		if i == 3 {
			endedConn.Close()
		}
		r.hangup(t)
		again := r.readyTimes(t, i+2)
		if again["main"] != at["main"] || again["app"] != at["app"] {
			t.Fatalf("after upgrade %d the doors are %v, were %v", i+1, again, at)
		}
	}
	stop()
	l.clients.Wait()
	close(l.failures)
	for err := range l.failures {
		t.Errorf("a request failed: %v", err)
	}
	t.Logf("%d upgrades, %d requests, %d failed; the longest took %v", upgrades, l.answers.Load(), len(l.failures), time.Duration(l.longest.Load()))
	if l.answers.Load() < 1000 {
		t.Errorf("only %d requests: that was no load", l.answers.Load())
	}
	// The start that nobody ended is there still, and ends as it always did.
	addr := strings.TrimSuffix(strings.TrimPrefix(endpoint, "http://"), "/msi/token")
	if err := fresh(to("tcp", addr), appRequest(ended), "")(); err == nil || !strings.Contains(err.Error(), "answer 401") {
		t.Errorf("the secret of a start that ended: %v, want 401", err)
	}
	ends.Close()
	agenttest.Eventually(t, "the start has ended", func() bool { return fresh(to("tcp", addr), appRequest(secret), "")() != nil })

	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("exit after SIGTERM: %v", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last process left its socket: %v", err)
	}
	if n := cp.Calls(fleetapi.PathEnrol); n != 1 {
		t.Errorf("the host enrolled %d times", n)
	}
}

// edit changes the configuration that a running agent was started with.
func edit(t *testing.T, config, old, new string) {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("the configuration has no %q", old)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *running) logs(t *testing.T, n int, what string) {
	t.Helper()
	agenttest.Eventually(t, fmt.Sprintf("%q is in the log %d times", what, n), func() bool {
		return strings.Count(r.stderr.String(), what) >= n || len(r.ended) > 0
	})
	if len(r.ended) > 0 {
		t.Fatal("the program ended")
	}
}

// What does not pass the check changes nothing, and says why.
func TestRefusedUpgradeLeavesTheAgentAsItWas(t *testing.T) {
	t.Parallel()
	cp := placed(t)
	config := settings(t, cp)
	path := program(t, t.TempDir())
	r := launch(t, path, config)
	at := r.readyTimes(t, 1)
	keeps := kept(to("tcp", at["main"]), get(tokenPath, "Metadata: true\r\n"))
	ask := func() {
		t.Helper()
		if err := keeps(); err != nil {
			t.Error(err)
		}
	}
	ask()
	const refused = "not upgraded"

	edit(t, config, "offline: refuse", "offline: perhaps")
	r.hangup(t)
	r.logs(t, 1, refused)
	r.logs(t, 1, "perhaps")
	ask()
	edit(t, config, "offline: perhaps", "offline: refuse")

	// A program that is none, or that is another version which does not start.
	keep := path + ".keep"
	if err := os.Rename(path, keep); err != nil {
		t.Fatal(err)
	}
	for i, program := range []string{"#!/bin/sh\necho this version needs another kernel >&2\nexit 3\n", "no program", ""} {
		if program == "" {
			err := os.Remove(path)
			if err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
		r.hangup(t)
		r.logs(t, 2+i, refused)
		ask()
	}
	r.logs(t, 1, "this version needs another kernel")

	if err := os.Rename(keep, path); err != nil {
		t.Fatal(err)
	}
	cp.Down(true)
	agenttest.Eventually(t, "the agent knows that it is cut off", func() bool {
		return fresh(to("unix", socketOf(t, config)), get("/status", "Connection: close\r\n"), `"connected":false`)() == nil
	})
	r.hangup(t)
	r.logs(t, 5, refused)
	r.logs(t, 1, "cannot be reached: what this agent remembers would be lost")
	cp.Down(false)
	agenttest.Eventually(t, "the agent is connected again", func() bool {
		return fresh(to("unix", socketOf(t, config)), get("/status", "Connection: close\r\n"), `"connected":true`)() == nil
	})
	ask()
	if n := cp.Calls(fleetapi.PathEnrol); n != 1 || len(r.ended) > 0 {
		t.Errorf("%d enrolments, ended = %v; want one agent all the way", n, len(r.ended) > 0)
	}
	r.hangup(t)
	r.readyTimes(t, 2)
}

// A reload of the configuration is an upgrade to the same program: doors come
// and go, change names and addresses; the others keep their sockets.
func TestReloadChangesDoors(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	var placements []fleetapi.Placement
	for _, door := range []string{"main", "more", "renamed"} {
		placements = append(placements, fleetapi.Placement{Name: "p-" + door, Door: door, Resource: "/subscriptions/" + door})
	}
	cp.Place(placements...)
	config := settings(t, cp)
	r := launch(t, program(t, t.TempDir()), config)
	first := r.readyTimes(t, 1)
	request := get(tokenPath, "Metadata: true\r\nConnection: close\r\n")

	edit(t, config, "doors:", "doors:\n  - name: more\n    listen: 127.0.0.1:0")
	r.hangup(t)
	second := r.readyTimes(t, 2)
	if second["main"] != first["main"] || second["more"] == "" {
		t.Errorf("doors are %v, were %v; want main where it was, and more", second, first)
	}
	for _, door := range []string{"main", "more"} {
		if err := fresh(to("tcp", second[door]), request, "access_token")(); err != nil {
			t.Error(err)
		}
	}

	// The new name is on the old one's address, now a fixed one.
	edit(t, config, "name: more\n    listen: 127.0.0.1:0", "name: renamed\n    listen: "+second["more"])
	r.hangup(t)
	third := r.readyTimes(t, 3)
	if third["renamed"] != second["more"] || third["more"] != "" {
		t.Errorf("doors are %v, were %v; want more to be renamed", third, second)
	}
	if err := fresh(to("tcp", third["renamed"]), request, "access_token")(); err != nil {
		t.Error(err)
	}

	edit(t, config, "  - name: renamed\n    listen: "+second["more"]+"\n", "")
	r.hangup(t)
	r.readyTimes(t, 4)
	if c, err := net.Dial("tcp", second["more"]); err == nil {
		c.Close()
		t.Error("a door that was removed still accepts")
	}
	if err := fresh(to("tcp", first["main"]), request, "access_token")(); err != nil {
		t.Error(err)
	}
}

// A start whose control group the new configuration has no more is over, and
// the agent goes on.
func TestReloadChangesWhereStartsAre(t *testing.T) {
	t.Parallel()
	needRoot(t)
	config := settings(t, placed(t))
	before, dir := agenttest.Cgroup(t, t.Name()+"-before")
	after, dirAfter := agenttest.Cgroup(t, t.Name()+"-after")
	t.Cleanup(func() { // the agent is killed, and of the groups before it knows no more
		for _, pattern := range []string{dir + "/innate/run-*", dir + "/innate", dirAfter + "/innate"} {
			left, err := filepath.Glob(pattern)
			if err != nil {
				t.Error(err)
			}
			for _, l := range left {
				if err := os.Remove(l); err != nil {
					t.Error(err)
				}
			}
		}
	})
	bpffs := agenttest.BPFFS(t)
	t.Cleanup(func() {
		if err := capture.Remove(bpffs); err != nil {
			t.Error(err)
		}
	})
	edit(t, config, "doors:", "capture: {enabled: true, bpffs: "+bpffs+", root: "+before+", listen: \"127.254.169.254:0\"}\ndoors:")
	r := launch(t, program(t, t.TempDir()), config)
	r.readyTimes(t, 1)

	cmd := agenttest.Process(t, dir, 0, "curl", "-sSN", "--unix-socket", socketOf(t, config), "http://agent/starts", "-d", `{"resource":"`+shopID+`"}`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var st agent.StartResponse
	if err := json.NewDecoder(out).Decode(&st); err != nil || !st.Captured {
		t.Errorf("the start is %+v, %v; want one with a group", st, err)
	}
	edit(t, config, "root: "+before, "root: "+after)
	r.hangup(t)
	r.readyTimes(t, 2)
	_ = cmd.Wait() // it ends with the start
}

// A request that is under way is answered by the process that took it.
func TestUpgradeAnswersWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	cp := placed(t)
	config := settings(t, cp)
	r := launch(t, program(t, t.TempDir()), config)
	at := r.readyTimes(t, 1)
	asked, answer := make(chan struct{}), make(chan struct{})
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		close(asked)
		<-answer
		return cp.Mint(req), nil
	})
	result := make(chan error, 1)
	go func() { result <- fresh(to("tcp", at["main"]), get(tokenPath, "Metadata: true\r\n"), "access_token")() }()
	<-asked
	cp.Decide(nil)
	r.hangup(t)
	r.logs(t, 1, "upgrading")
	// Impatience is no harm: each is one more upgrade at most.
	for range 5 {
		r.hangup(t)
	}
	close(answer)
	if err := <-result; err != nil {
		t.Error(err)
	}
	r.logs(t, 1, "took over")
	if err := fresh(to("tcp", at["main"]), get(tokenPath, "Metadata: true\r\n"), "access_token")(); err != nil || len(r.ended) > 0 {
		t.Errorf("after the upgrades: %v, ended = %v", err, len(r.ended) > 0)
	}
}

// What the check cannot see (an address that somebody else has) ends the
// program with its exit code, for the service manager to see.
func TestStartThatFailsAfterAnUpgradeIsSeen(t *testing.T) {
	t.Parallel()
	cp := placed(t)
	config := settings(t, cp)
	r := launch(t, program(t, t.TempDir()), config)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	edit(t, config, "doors:", "doors:\n  - name: more\n    listen: "+other.Addr().String())
	r.hangup(t)
	var exit *exec.ExitError
	if err := r.wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(r.stderr.String(), "address already in use") {
		t.Errorf("the program ended with %v, want exit code 1 and the reason", err)
	}
}
