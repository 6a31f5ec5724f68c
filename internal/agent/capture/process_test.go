package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/agenttest"
)

// The tests play callers of other users, in other cgroups, and agents that are
// killed: the test program starts itself anew for each, in a role.

// self is a copy of the test program that every user can execute.
var self string

func TestMain(m *testing.M) {
	if role := os.Getenv("CAPTURE_TEST_ROLE"); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "capture")
		if err == nil {
			defer os.RemoveAll(dir)
			self = filepath.Join(dir, "caller")
			err = errors.Join(os.Chmod(dir, 0o755), copyFile("/proc/self/exe", self))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return agenttest.InCgroup(m)
	}())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// netns is a network namespace in which processes are run.
type netns struct{ *agenttest.Netns }

// run runs a process to its end, in n, and returns what it printed.
func (n netns) run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	n.In(t, cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v\n%s%s", cmd.Args, err, stdout.Bytes(), stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String())
}

// ask plays a role in the captured cgroup as a user.
func (w *world) ask(t testing.TB, uid uint32, role string, args ...string) string {
	t.Helper()
	return w.ns.run(t, as(t, w.dir, uid, role, args...))
}

func as(t testing.TB, cgroup string, uid uint32, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := agenttest.Process(t, cgroup, uid, self, args...)
	cmd.Env = []string{"CAPTURE_TEST_ROLE=" + role}
	return cmd
}

// play is what a process of the test's does; what it prints is its result.
func play(role string, args []string) int {
	f := roles[role]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no such role:", role)
		return 2
	}
	out, err := f(args)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		out = unix.ErrnoName(errno)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(out)
	return 0
}

// meta is the captured address.
var meta = [4]byte{169, 254, 169, 254}

var meta4 = &unix.SockaddrInet4{Addr: meta, Port: 80}

func meta6() *unix.SockaddrInet6 {
	to := &unix.SockaddrInet6{Port: 80}
	copy(to.Addr[:], net.IP(meta[:]).To16())
	return to
}

var roles map[string]func(args []string) (string, error)

func init() {
	roles = map[string]func(args []string) (string, error){
		"agent": playAgent,
		"serve": playServer,
		"plain": func([]string) (string, error) { return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4) },
		"mapped": func([]string) (string, error) {
			return connect(unix.AF_INET6, unix.SOCK_STREAM, 0, meta6())
		},
		"multipath": func([]string) (string, error) {
			return connect(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, meta4)
		},
		"mapped multipath": func([]string) (string, error) {
			return connect(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, meta6())
		},
		"nonblocking": func([]string) (string, error) {
			c, err := net.DialTimeout("tcp", "169.254.169.254:80", 5*time.Second) // the runtime's way
			if err != nil {
				return "", err
			}
			return talk(c)
		},
		"bound": func(args []string) (string, error) {
			return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4, func(fd int) error {
				return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(args[0]).To4())})
			})
		},
		"device": func(args []string) (string, error) {
			return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4, func(fd int) error {
				return unix.BindToDevice(fd, args[0])
			})
		},
		"fast open": func([]string) (string, error) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return "", err
			}
			if err := unix.Sendto(fd, []byte("GET / HTTP/1.0\r\n\r\n"), unix.MSG_FASTOPEN, meta4); err != nil {
				return "", err
			}
			return body(os.NewFile(uintptr(fd), "socket"))
		},
		"fast open connect": func([]string) (string, error) {
			return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
			})
		},
		"datagram":        func([]string) (string, error) { return connect(unix.AF_INET, unix.SOCK_DGRAM, 0, meta4) },
		"mapped datagram": func([]string) (string, error) { return connect(unix.AF_INET6, unix.SOCK_DGRAM, 0, meta6()) },
		"sendto":          func([]string) (string, error) { return sendto(unix.AF_INET, meta4) },
		"mapped sendto":   func([]string) (string, error) { return sendto(unix.AF_INET6, meta6()) },
		"to": func(args []string) (string, error) {
			c, err := net.Dial("tcp", args[0])
			if err != nil {
				return "", err
			}
			return talk(c)
		},
		"again": playAgain,
		"handed": func([]string) (string, error) { // a socket that somebody else made is standard input
			if err := unix.Connect(0, meta4); err != nil {
				return "", err
			}
			return request(os.NewFile(0, "socket"))
		},
		"many":        playMany,
		"hammer":      playHammer,
		"make socket": playMakeSocket,
		"moved": func(args []string) (string, error) {
			if err := os.WriteFile(filepath.Join(args[0], "cgroup.procs"), []byte("0"), 0); err != nil {
				return "", err
			}
			return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4)
		},
		"from":  playFrom,
		"bind4": func(args []string) (string, error) { return bind(unix.AF_INET, args) },
		"bind6": func(args []string) (string, error) { return bind(unix.AF_INET6, args) },
	}
}

func connect(family, typ, proto int, to unix.Sockaddr, before ...func(fd int) error) (string, error) {
	fd, err := unix.Socket(family, typ, proto)
	if err != nil {
		return "", err
	}
	for _, f := range before {
		if err := f(fd); err != nil {
			return "", fmt.Errorf("before connecting: %v", err)
		}
	}
	if err := unix.Connect(fd, to); err != nil {
		return "", err
	}
	if typ != unix.SOCK_STREAM {
		return "connected", nil
	}
	return request(os.NewFile(uintptr(fd), "socket"))
}

func sendto(family int, to unix.Sockaddr) (string, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	return "sent", unix.Sendto(fd, []byte("x"), 0, to)
}

// playAgain connects, disconnects, and connects the same socket elsewhere.
func playAgain(args []string) (string, error) {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Connect(fd, meta4); err != nil {
		return "", err
	}
	var none [16]byte // AF_UNSPEC
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), uintptr(len(none))); errno != 0 {
		return "", fmt.Errorf("disconnecting: %v", errno)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		return "", err
	}
	return request(os.NewFile(uintptr(fd), "socket"))
}

// playMany makes n connections and asks nothing; then one that asks.
func playMany(args []string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return "", err
		}
		if i%2 == 0 { // closed with a reset
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return "", err
			}
		}
		if err := unix.Connect(fd, meta4); err != nil {
			return "", fmt.Errorf("connection %d: %w", i, err)
		}
		unix.Close(fd)
	}
	return connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4)
}

// playHammer asks n times and says each answer on a line.
func playHammer(args []string) (string, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	var out []string
	for range n {
		got, err := connect(unix.AF_INET, unix.SOCK_STREAM, 0, meta4)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			got = unix.ErrnoName(errno)
		} else if err != nil {
			got = "EOF" // cut off in the middle of an answer
			if !strings.HasPrefix(err.Error(), "answer \"\"") {
				got = err.Error()
			}
		}
		out = append(out, got)
		time.Sleep(2 * time.Millisecond) // leaves room for the agents
	}
	return strings.Join(out, "\n"), nil
}

// playMakeSocket sends a new socket to whoever has the other end of standard
// input.
func playMakeSocket([]string) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	return "made", unix.Sendmsg(0, []byte("x"), unix.UnixRights(fd), nil, 0)
}

// playFrom connects from a given port, sends a request, and either resets the
// connection or reads the answer.
func playFrom(args []string) (string, error) {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}),
		unix.Connect(fd, meta4))
	if err != nil {
		return "", err
	}
	if _, err := unix.Write(fd, []byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return "", err
	}
	if args[1] == "reset" {
		return "reset", unix.Close(fd)
	}
	return body(os.NewFile(uintptr(fd), "socket"))
}

// bind tries to listen at an address, and says how that went.
func bind(family int, args []string) (string, error) {
	ip := net.ParseIP(args[0])
	port, err := strconv.Atoi(args[1])
	if err != nil || ip == nil {
		return "", fmt.Errorf("bad address %q", args)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(ip.To16()[12:]), Port: port}
	if family == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Addr: [16]byte(ip.To16()), Port: port}
	}
	if err := unix.Bind(fd, to); err != nil {
		return "", err
	}
	return "bound", unix.Listen(fd, 1)
}

// talk sends a request and returns what the answer says.
func talk(c net.Conn) (string, error) {
	defer c.Close()
	return request(c)
}

func request(c io.ReadWriter) (string, error) {
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	return body(c)
}

func body(c io.Reader) (string, error) {
	text, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	_, out, ok := strings.Cut(string(text), "\r\n\r\n")
	if !ok {
		return "", fmt.Errorf("answer %q", text)
	}
	return out, nil
}

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("programs in the kernel take root: run the tests as root, or set INNATE_SKIP=root")
}
