package handover_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/handover"
)

// step says which process of a handover this test's binary is to be.
const step = "INNATE_TEST_HANDOVER_STEP"

type note struct{ Said string }

func TestMain(m *testing.M) {
	switch os.Getenv(step) {
	case "":
		os.Exit(m.Run())
	case "first":
		first()
	case "second":
		second()
	case "child":
		child()
	}
}

func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// first opens things, is connected to, and replaces itself.
func first() {
	s, err := handover.Inherit()
	check(err)
	a, err := s.Listen("a", listen)
	check(err)
	gone, err := s.Listen("gone", listen)
	check(err)
	_, err = s.Listen("removed", listen)
	check(err)
	sock, err := s.Listen("socket", func() (net.Listener, error) { return net.Listen("unix", os.Args[1]) })
	check(err)
	check(gone.Close())
	client, err := net.Dial("tcp", a.Addr().String())
	check(err)
	server, err := a.Accept()
	check(err)
	check(s.Keep())
	check(s.KeepConn("server", server.(syscall.Conn)))
	check(s.KeepConn("client", client.(syscall.Conn)))
	sock.(*net.UnixListener).SetUnlinkOnClose(false)
	check(sock.Close())
	check(a.Close())
	waiting, err := net.Dial("tcp", a.Addr().String()) // nobody accepts now
	check(err)
	check(s.KeepConn("waiting", waiting.(syscall.Conn)))

	// A program that cannot be executed leaves all as it was.
	if err := s.Exec("/no/such/program", os.Args, os.Environ(), nil); !errors.Is(err, os.ErrNotExist) {
		check(fmt.Errorf("Exec of nothing = %w", err))
	}
	check(os.Setenv(step, "second"))
	env := append(os.Environ(), "A="+a.Addr().String(), fmt.Sprint("PID=", os.Getpid()))
	check(s.Exec("/proc/self/exe", os.Args, env, note{"hello"}))
}

func second() {
	if os.Getenv("PID") != fmt.Sprint(os.Getpid()) {
		check(errors.New("the pid changed"))
	}
	// A child that gets the same environment has no part in it.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), step+"=child")
	out, err := cmd.CombinedOutput()
	fmt.Print(string(out))
	check(err)

	s, err := handover.Inherit()
	check(err)
	var n note
	ok, err := s.Note(&n)
	check(err)
	a, err := s.Listen("a", listen)
	check(err)
	fmt.Println("note", ok, n.Said, "same address", a.Addr().String() == os.Getenv("A"))
	conn, err := a.Accept() // the one that waited
	check(err)
	waiting, err := s.Conn("waiting")
	check(err)
	fmt.Println("waited", conn.RemoteAddr().String() == waiting.LocalAddr().String())
	server, err := s.Conn("server")
	check(err)
	client, err := s.Conn("client")
	check(err)
	_, err = client.Write([]byte("x"))
	check(err)
	_, err = server.Read(make([]byte, 1))
	check(err)
	_, err = s.Conn("gone")
	fmt.Println("gone:", err)
	sock, err := s.Listen("socket", listen)
	check(err)
	check(sock.Close())
	_, err = os.Stat(os.Args[1])
	fmt.Println("socket removed", errors.Is(err, os.ErrNotExist))
	s.Settle()
	open, err := os.ReadDir("/proc/self/fd")
	check(err)
	for _, fd := range open {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(to, "socket:") {
			fmt.Println("open socket")
		}
	}
	_, err = handover.Inherit() // it was taken
	check(err)
	os.Exit(0)
}

func child() {
	s, err := handover.Inherit()
	check(err)
	ok, err := s.Note(&note{})
	fmt.Println("child inherits", ok, err)
}

func TestNextProcessInherits(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, filepath.Join(t.TempDir(), "s"))
	cmd.Env = append(os.Environ(), step+"=first")
	out, err := cmd.CombinedOutput()
	// Open at the end: the listener a, the four ends of two connections.
	want := "child inherits false <nil>\nnote true hello same address true\nwaited true\ngone: connection gone was not inherited\n" +
		"socket removed true\n" + strings.Repeat("open socket\n", 5)
	if err != nil || string(out) != want {
		t.Errorf("the processes said %v:\n%s\nwant\n%s", err, out, want)
	}
}

// Who can set the agent's environment could do worse; still, what is not
// sealed was not made by an agent.
func TestForeignMemoryIsRefused(t *testing.T) {
	const name = "INNATE_HANDOVER"
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	open, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	for value, want := range map[string]string{
		fmt.Sprintf("%d:%d", os.Getpid(), plain.Fd()): "no memory file",
		fmt.Sprintf("%d:%d", os.Getpid(), open):       "not sealed",
		fmt.Sprintf("%d:99999", os.Getpid()):          "no memory file",
		fmt.Sprintf("%d:", os.Getpid()):               "only the agent itself sets it",
		fmt.Sprintf("%d:1", os.Getpid()):              "only the agent itself sets it",
		"x":                                           "only the agent itself sets it",
		"":                                            "only the agent itself sets it",
	} {
		t.Setenv(name, value)
		if _, err := handover.Inherit(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Inherit with %s=%q: %v, want %q", name, value, err, want)
		}
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("the variable is still there: %q", v)
		}
	}
}

func TestNilSetOnlyOpens(t *testing.T) {
	t.Parallel()
	var s *handover.Set
	l, err := s.Listen("a", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := s.File("f", func() (*os.File, error) { return os.Open(os.DevNull) })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if ok, err := s.Note(&note{}); ok || err != nil {
		t.Errorf("Note = %v, %v", ok, err)
	}
	s.Settle()
}
