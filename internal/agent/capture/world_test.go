package capture_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/capture"
)

// anywhere lets a test listen where nobody else does.
var anywhere = netip.MustParseAddrPort("127.254.169.254:0")

// world is a capture of one cgroup.
type world struct {
	cfg capture.Config
	// cgroup and dir are the captured cgroup; others are those of nobody.
	cgroup, dir string
}

// newWorld makes a cgroup to be captured, below the tests' own.
func newWorld(t testing.TB) *world {
	t.Helper()
	needRoot(t)
	own, err := agenttest.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{}
	w.cgroup, w.dir = agenttest.Cgroup(t, strings.ReplaceAll(t.Name(), "/", "_"))
	w.cfg = capture.Config{BPFFS: agenttest.BPFFS(t), Root: own, Cgroups: []string{w.cgroup}, Listen: anywhere}
	t.Cleanup(func() {
		if err := capture.Remove(w.cfg.BPFFS); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) open(t testing.TB) *capture.Capture {
	t.Helper()
	c, err := capture.Open(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// serve answers every connection with what its record says.
func serve(t testing.TB, c *capture.Capture) *net.TCPListener {
	t.Helper()
	l, err := c.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer(t, l, c.Record)
	return l
}

func answer(t testing.TB, l net.Listener, record func(*net.TCPConn) (caller.Record, error)) {
	s := server(record)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

type recordKey struct{}

type recorded struct {
	caller.Record
	err error
}

func server(record func(*net.TCPConn) (caller.Record, error)) *http.Server {
	return &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			r, err := record(c.(*net.TCPConn))
			return context.WithValue(ctx, recordKey{}, recorded{r, err})
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			rec := r.Context().Value(recordKey{}).(recorded)
			if rec.err != nil {
				w.WriteHeader(http.StatusForbidden)
				if errors.Is(rec.err, capture.ErrNoRecord) {
					fmt.Fprint(w, "no record")
				} else {
					fmt.Fprint(w, rec.err)
				}
				return
			}
			fmt.Fprintf(w, "uid %d gid %d", rec.UID, rec.GID)
			if r.URL.Path == "/all" {
				fmt.Fprintf(w, " pid %d start %d cgroup %d device %d inode %d", rec.PID, rec.StartNS, rec.CgroupID, rec.Device, rec.Inode)
			}
		}),
	}
}

// playAgent is an agent in a process of its own: argument is its bpffs, its
// root and its chosen cgroup. It says where it listens and serves until killed.
func playAgent(args []string) (string, error) {
	c, err := capture.Open(capture.Config{BPFFS: args[0], Root: args[1], Cgroups: args[2:3], Listen: netip.MustParseAddrPort(args[3])})
	if err != nil {
		return "", err
	}
	l, err := c.Listen(context.Background())
	if err != nil {
		return "", err
	}
	fmt.Println(l.Addr())
	return "", server(c.Record).Serve(l)
}

// playServer is somebody who wants to be taken for the agent.
func playServer(args []string) (string, error) {
	l, err := net.Listen("tcp4", args[0])
	if err != nil {
		return "", err
	}
	fmt.Println(l.Addr())
	return "", http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "forged") }))
}

// background starts a process that prints its address when it serves. It is
// killed at the end, if not before.
func background(t testing.TB, cmd *exec.Cmd) (addr string, kill func()) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // ended by a signal
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		kill()
		t.Fatalf("%v ended before it served: %v", cmd.Args, err)
	}
	return strings.TrimSpace(line), kill
}

// agent starts an agent in a process of its own, outside the captured cgroup.
func (w *world) agent(t *testing.T, listen string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self, w.cfg.BPFFS, w.cfg.Root, w.cgroup, listen)
	cmd.Env = append(os.Environ(), "CAPTURE_TEST_ROLE=agent")
	return background(t, cmd)
}
