package caller_test

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
)

// TestMain makes the test's own executable, and copies of it, a program that
// does what it is told on its standard input.
func TestMain(m *testing.M) {
	if os.Getenv("INNATE_TEST_PROGRAM") != "" {
		obey(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

// obey answers each line with "ok" or what went wrong.
func obey(in io.Reader, out io.Writer) {
	fmt.Fprintln(out, "ok")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if err := orders[words[0]](words[1:]); err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
}

// connection is the program's one connection; programs that are executed or
// started by it inherit it, whatever it is there.
var connection = -1

var orders = map[string]func(args []string) error{
	"connect": func(args []string) (err error) { connection, err = dial(args[0], args[1]); return },
	// A thread connects as another user and goes on.
	"connect-as": func(args []string) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // thrown away when the goroutine ends
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), number(args[1]), ^uintptr(0)); errno != 0 {
				done <- errno
				return
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), number(args[0]), ^uintptr(0)); errno != 0 {
				done <- errno
				return
			}
			var err error
			connection, err = dial(args[2], args[3])
			done <- err
		}()
		return <-done
	},
	"become": func(args []string) error {
		if err := syscall.Setgid(int(number(args[1]))); err != nil {
			return err
		}
		return syscall.Setuid(int(number(args[0])))
	},
	// The program that is executed says "ok" in our place.
	"exec": func(args []string) error { return syscall.Exec(args[0], args[:1], os.Environ()) },
	"spawn": func(args []string) error {
		_, err := syscall.ForkExec(args[0], args[:1], &syscall.ProcAttr{
			Env: []string{"INNATE_TEST_PROGRAM=1"}, Files: []uintptr{uintptr(nullPipe()), uintptr(nullPipe()), 2, uintptr(connection)},
		})
		return err
	},
	// Hands the connection to whoever listens and keeps none.
	"give": func(args []string) error {
		to, err := dial("unix", args[0])
		if err != nil {
			return err
		}
		if err := unix.Sendmsg(to, []byte{1}, unix.UnixRights(connection), nil, 0); err != nil {
			return err
		}
		return unix.Close(connection)
	},
	"take": func(args []string) error {
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(l, &unix.SockaddrUnix{Name: args[0]}); err != nil {
			return err
		}
		if err := unix.Chmod(args[0], 0o777); err != nil {
			return err
		}
		if err := unix.Listen(l, 1); err != nil {
			return err
		}
		go func() {
			from, _, err := unix.Accept(l)
			if err != nil {
				return
			}
			oob := make([]byte, 64)
			if _, n, _, _, err := unix.Recvmsg(from, make([]byte, 1), oob, 0); err == nil {
				if msgs, err := unix.ParseSocketControlMessage(oob[:n]); err == nil {
					_, _ = unix.ParseUnixRights(&msgs[0]) // open from here on
				}
			}
			_, _ = unix.Write(from, []byte{1})
		}()
		return nil
	},
	"close": func([]string) error { return unix.Close(connection) },
}

func number(s string) uintptr {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		panic(err)
	}
	return uintptr(n)
}

// nullPipe is an end of a pipe that never ends.
func nullPipe() int {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		panic(err)
	}
	return p[0]
}

// dial connects a socket that is inherited. A third word in a TCP address,
// "127.0.0.2:5000,127.0.0.1:80", is where it comes from.
func dial(network, addr string) (int, error) {
	if network == "unix" {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return -1, err
		}
		return fd, unix.Connect(fd, &unix.SockaddrUnix{Name: addr})
	}
	from, to, bound := strings.Cut(addr, ",")
	if !bound {
		to = from
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, err
	}
	sa := func(s string) unix.Sockaddr {
		ap := netip.MustParseAddrPort(s)
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	if bound {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, err
		}
		if err := unix.Bind(fd, sa(from)); err != nil {
			return -1, err
		}
	}
	return fd, unix.Connect(fd, sa(to))
}

// program is a running program of the test.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

// as is how a program is started.
type as struct {
	uid, gid uint32
	groups   []uint32
	flags    uintptr // CLONE_NEW*
	userNS   bool    // with the uid mapped to 0 in it
	cgroup   string  // a folder of cgroup version 2 to be started in
	args     []string
}

// start runs the executable at path.
func start(t *testing.T, path string, a as) *program {
	t.Helper()
	cmd := exec.Command(path, a.args...)
	cmd.Env = []string{"INNATE_TEST_PROGRAM=1"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: a.flags}
	if a.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups}
	}
	if a.userNS {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: a.flags | unix.CLONE_NEWUSER, Credential: &syscall.Credential{},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(a.uid), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(a.gid), Size: 1}},
		}
	}
	if a.cgroup != "" {
		dir, err := os.Open(a.cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("starting", path, err)
	}
	p := &program{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(p.end)
	p.answer("start")
	return p
}

// end kills the program, once.
func (p *program) end() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // an error means that it ended by itself
		_ = p.cmd.Wait()         // always "killed"
	}
}

func (p *program) pid() int { return p.cmd.Process.Pid }

func (p *program) do(order string, args ...string) {
	p.t.Helper()
	fmt.Fprintln(p.in, order, strings.Join(args, " "))
	p.answer(order)
}

func (p *program) answer(order string) {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != "ok" {
		p.t.Fatalf("%s: the program says %q, %v", order, p.out.Text(), p.out.Err())
	}
}

// install copies the test's executable to dir/name, open to all.
func install(t *testing.T, dir, name string) string {
	t.Helper()
	return copyTo(t, "/proc/self/exe", filepath.Join(dir, name), nil)
}

// copyTo copies an executable and appends something to it, which changes its
// digest and nothing else.
func copyTo(t *testing.T, from, to string, more []byte) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	// No program starts meanwhile: it would inherit the open file, and what is
	// open for writing cannot be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(to, append(data, more...), 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// folder is one that other users may look into.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caller")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// recordOf plays the kernel: what it would write down of the process now. The
// executable's numbers are those of the kernel's own structures, as
// /proc/PID/maps shows them.
func recordOf(t testing.TB, pid int) caller.Record {
	t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rec := caller.Record{PID: pid}
	stat := read("stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	rec.StartNS = ticks*1e7 + 1234567 // the kernel knows it to the nanosecond
	for line := range strings.Lines(read("status")) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid":
			rec.UID = uint32(number(strings.Fields(value)[1]))
		case "Gid":
			rec.GID = uint32(number(strings.Fields(value)[1]))
		}
	}
	for line := range strings.Lines(read("cgroup")) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			rec.CgroupID = inode(t, filepath.Join(hierarchy(t), path))
		}
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(read("maps")) {
		f := strings.Fields(line) // addresses, rights, offset, device, inode, path
		if len(f) >= 6 && strings.HasPrefix(exe, f[5]) {
			major, minor, _ := strings.Cut(f[3], ":")
			a, err1 := strconv.ParseUint(major, 16, 32)
			b, err2 := strconv.ParseUint(minor, 16, 32)
			rec.Inode, err = strconv.ParseUint(f[4], 10, 64)
			if err1 != nil || err2 != nil || err != nil {
				t.Fatal(line)
			}
			rec.Device = unix.Mkdev(uint32(a), uint32(b))
			return rec
		}
	}
	t.Fatalf("process %d has no mapping of its executable %s", pid, exe)
	return rec
}

func hierarchy(t testing.TB) string {
	t.Helper()
	root, err := caller.FindHierarchy("/proc")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st.Ino
}

// cgroup makes a cgroup of version 2 and removes it, and what is made on the
// way to it.
func cgroup(t *testing.T, path string) string {
	t.Helper()
	at := hierarchy(t)
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		at = filepath.Join(at, part)
		if err := os.Mkdir(at, 0o755); err == nil {
			made := at
			t.Cleanup(func() { _ = os.Remove(made) }) // one that others use too stays
		} else if !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return at
}
