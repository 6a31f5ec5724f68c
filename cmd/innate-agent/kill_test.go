package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/fleetapi"
)

const (
	kills     = 200
	firstUser = 23000
	users     = 3
	// eachUser is how many connections a user asks over at once.
	eachUser = 2
)

// TestKilledTwoHundredTimes kills the program with SIGKILL at random while
// several users ask 169.254.169.254 for tokens. Whatever moment it was: no user
// is ever given another's token, none falls through the capture to what else
// answers at that address, every answer that a user got is on record, once, and
// the next start serves.
func TestKilledTwoHundredTimes(t *testing.T) {
	needRoot(t)
	m := newMachine(t)
	var cp *agenttest.ControlPlane
	m.net.In(t, func() error { cp = agenttest.New(t); return nil })
	var placements []fleetapi.Placement
	for u := range users {
		name := fmt.Sprint("web", u)
		placements = append(placements, fleetapi.Placement{Name: name, Door: "main", Resource: "/subscriptions/s/resourceGroups/g/providers/a.b/c/" + name,
			Selectors: []string{fmt.Sprint("unix:uid:", firstUser+u)}})
	}
	cp.Place(placements...)
	var log ledger
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken = filepath.Base(r.Workload) + "." + tok.AccessToken
		log.minted(r.Workload)
		return tok, nil
	})
	cp.OnEvents(log.shipped(t))

	bin := filepath.Join(t.TempDir(), "innate-agent")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	config := m.settings(t, cp)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	callers := make([]*asker, users*eachUser)
	for i := range callers {
		callers[i] = &asker{uid: firstUser + i%users, net: m.net, want: fmt.Sprint("web", i%users, ".")}
		asking.Go(func() { callers[i].ask(t, stop) })
	}
	for n := range kills {
		cmd := m.begin(t, bin, config)
		if n%4 != 1 { // each fourth is killed while it starts
			served(t, n, callers)
		}
		time.Sleep(rand.N(40 * time.Millisecond))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	last := m.begin(t, bin, config)
	served(t, kills, callers)
	close(stop)
	asking.Wait()
	if err := last.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := last.Wait(); err != nil { // it ships what is left
		t.Errorf("the last run ended with %v", err)
	}
	for u := range users {
		var answered int64
		for _, c := range callers {
			if c.uid == firstUser+u {
				answered += c.answered.Load()
			}
		}
		recorded := log.total(placements[u].Resource)
		// More is on record where a kill came between the record and the answer.
		if more := recorded - answered; more < 0 || more > 2*eachUser*(kills+1) {
			t.Errorf("user %d got %d answers, and %d are on record", u, answered, recorded)
		}
		t.Logf("user %d: %d answers, %d on record", u, answered, recorded)
	}
}

// ledger is what the control plane has on record.
type ledger struct {
	mu      sync.Mutex
	mints   map[string]int64
	batches map[int64]fleetapi.EventsRequest
}

func (l *ledger) minted(workload string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mints == nil {
		l.mints = map[string]int64{}
	}
	l.mints[workload]++
}

// shipped takes batches, and and looks that none comes twice and differs.
func (l *ledger) shipped(t *testing.T) func(fleetapi.EventsRequest) error {
	l.batches = map[int64]fleetapi.EventsRequest{}
	return func(r fleetapi.EventsRequest) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if before, again := l.batches[r.Batch]; again && !cmp.Equal(before, r) {
			t.Errorf("batch %d came twice and differs:\n%s", r.Batch, cmp.Diff(before, r))
		}
		l.batches[r.Batch] = r
		return nil
	}
}

func (l *ledger) total(workload string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.mints[workload]
	for _, b := range l.batches {
		for _, s := range b.Served {
			if s.Workload == workload {
				n += s.Count
			}
		}
	}
	return n
}

// machine is a network of the test's own in which 169.254.169.254 is captured
// for the test's processes, and in which something else answers there too, for
// whoever falls through.
type machine struct {
	net         *agenttest.Netns
	root, bpffs string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	own, err := agenttest.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{net: agenttest.NewNetns(t), root: own, bpffs: agenttest.BPFFS(t)}
	t.Cleanup(func() {
		if err := capture.Remove(m.bpffs); err != nil {
			t.Error(err)
		}
	})
	var cloud net.Listener
	m.net.In(t, func() (err error) {
		// Captured from here on: a start that is killed before it opens the
		// capture leaves no way out.
		c, err := capture.Open(capture.Config{BPFFS: m.bpffs, Root: m.root})
		if err != nil {
			return err
		}
		cloud, err = net.Listen("tcp4", capture.Address.String())
		return errors.Join(err, c.Close())
	})
	go func() {
		for {
			c, err := cloud.Accept()
			if err != nil {
				return
			}
			t.Error("a connection fell through the capture")
			c.Close()
		}
	}()
	t.Cleanup(func() { cloud.Close() })
	return m
}

func (m *machine) settings(t *testing.T, cp *agenttest.ControlPlane) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := url.Parse(cp.URL)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "agent.yaml", fmt.Sprintf(`
control_plane: https://example.com:%s
control_plane_ca: %s
connect_to: %s
state_dir: %s/state
enrolment_token_file: %s
capture: {enabled: true, door: main, root: %s, bpffs: %s, start_group: %s/starts}
control_socket: %s/a.sock
limits: {per_second: 0, connections: 0}
`, u.Port(), file(t, "ca.pem", string(cp.CAPEM), 0o644), u.Host, dir, file(t, "token", agenttest.EnrolToken, 0o600), m.root, m.bpffs, m.root, dir), 0o600)
}

// dial connects to 169.254.169.254 as a user.
func dial(in *agenttest.Netns, uid int) dialer {
	return func() (conn net.Conn, err error) {
		err = in.Try(func() (err error) {
			conn, err = connectAs(uid, capture.Address)
			return err
		})
		return conn, err
	}
}

// begin starts the program and does not wait for it.
func (m *machine) begin(t *testing.T, bin, config string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(bin, "--config", config)
	cmd.Stderr = io.Discard
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	m.net.In(t, cmd.Start)
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it ended, unless the test failed
	return cmd
}

// served waits until every caller was answered once more.
func served(t *testing.T, n int, callers []*asker) {
	t.Helper()
	before := make([]int64, len(callers))
	for i, c := range callers {
		before[i] = c.answered.Load()
	}
	agenttest.Eventually(t, fmt.Sprintf("start %d serves every caller", n), func() bool {
		for i, c := range callers {
			if c.answered.Load() == before[i] {
				return false
			}
		}
		return true
	})
}

// asker asks for its token again and again, as one user.
type asker struct {
	uid      int
	net      *agenttest.Netns
	want     string
	answered atomic.Int64
}

func (a *asker) ask(t *testing.T, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		conn, err := dial(a.net, a.uid)()
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		a.use(t, conn, stop)
		conn.Close()
	}
}

// use asks over one connection, until it ends.
func (a *asker) use(t *testing.T, conn net.Conn, stop <-chan struct{}) {
	answers := bufio.NewReader(conn)
	for {
		select {
		case <-stop:
			return
		default:
		}
		_, err := fmt.Fprintf(conn, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=r HTTP/1.1\r\nHost: %s\r\nMetadata: true\r\n\r\n", capture.Address.Addr())
		if err != nil {
			return
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return
		}
		var got struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(body, &got); err != nil {
			t.Errorf("user %d was answered %q: %v", a.uid, body, err)
			return
		}
		if resp.StatusCode != http.StatusOK {
			t.Errorf("user %d was refused: %s %s", a.uid, resp.Status, body)
			return
		}
		if !strings.HasPrefix(got.AccessToken, a.want) {
			t.Errorf("user %d was given %q, a token of another", a.uid, got.AccessToken)
			return
		}
		a.answered.Add(1)
	}
}

// connectAs makes the calling thread the user uid and connects.
func connectAs(uid int, to netip.AddrPort) (net.Conn, error) {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return nil, errno
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close() // FileConn has its own
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
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
