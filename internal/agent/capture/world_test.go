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
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/capture"
)

// anywhere lets a test listen where nobody else does.
var anywhere = netip.MustParseAddrPort("127.254.169.254:0")

// world is a capture of one cgroup, in a network namespace of its own where
// the captured address answers "cloud".
type world struct {
	cfg         capture.Config
	cgroup, dir string // the captured cgroup's path and folder
	outside     string // the folder of one beside it
	ns          netns
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
	name := strings.ReplaceAll(t.Name(), "/", "_")
	w.cgroup, w.dir = agenttest.Cgroup(t, name)
	_, w.outside = agenttest.Cgroup(t, name+"2")
	w.ns = netns{agenttest.NewNetns(t)}
	w.cloud(t)
	w.cfg = capture.Config{BPFFS: agenttest.BPFFS(t), Root: own, Cgroups: []string{w.cgroup}, Listen: anywhere}
	t.Cleanup(func() {
		if err := capture.Remove(w.cfg.BPFFS); err != nil {
			t.Error(err)
		}
	})
	return w
}

// cloud is what answers whoever falls through the capture.
func (w *world) cloud(t testing.TB) {
	t.Helper()
	var l net.Listener
	w.ns.In(t, func() (err error) {
		l, err = net.Listen("tcp4", capture.Address.String())
		return err
	})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "cloud") })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

func (w *world) open(t testing.TB) *capture.Capture {
	t.Helper()
	var c *capture.Capture
	w.ns.In(t, func() (err error) {
		c, err = capture.Open(w.cfg)
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) listen(t testing.TB, c *capture.Capture) *net.TCPListener {
	t.Helper()
	var l *net.TCPListener
	w.ns.In(t, func() (err error) {
		l, err = c.Listen(context.Background(), nil)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// serve answers every connection with what its record says.
func (w *world) serve(t testing.TB, c *capture.Capture) *net.TCPListener {
	t.Helper()
	l := w.listen(t, c)
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
		return err.Error(), nil // the test wants to see it
	}
	l, err := c.Listen(context.Background(), nil)
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
func (n netns) background(t testing.TB, cmd *exec.Cmd) (addr string, kill func()) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = t.Output()
	n.In(t, cmd.Start)
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
func (w *world) agent(t testing.TB, listen string) (addr string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), self, w.cfg.BPFFS, w.cfg.Root, w.cgroup, listen)
	cmd.Env = append(os.Environ(), "CAPTURE_TEST_ROLE=agent")
	return w.ns.background(t, cmd)
}

type tcpListener = *net.TCPListener

func listenAt(addr string) (tcpListener, error) { return listenWith(addr, false, "") }

func listenOn(addr, device string) (tcpListener, error) { return listenWith(addr, false, device) }

func multipathAt(addr string) (tcpListener, error) { return listenWith(addr, true, "") }

func listenWith(addr string, multipath bool, device string) (tcpListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = unix.BindToDevice(int(fd), device) })
		return errors.Join(err, inner)
	}}
	lc.SetMultipathTCP(multipath)
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// veth gives the namespace an interface that is not loopback, v0.
func (w *world) veth(t testing.TB) {
	t.Helper()
	w.ns.In(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"})
	})
}
