// Package caller says who is at the other end of a local connection.
//
// What a newcomer would get wrong: evidence is what the kernel wrote down when
// the connection was made, not what is true now. Three things can be known:
//
//   - The kernel's record of a captured connection ([Record]): which process, user,
//     cgroup and executable it was. What /proc adds counts only while the
//     process there is the recorded one, with the same start and the same
//     executable, before and after reading; otherwise the record stands alone.
//   - SO_PEERCRED of a unix socket: user, groups and process at connect. Which
//     program that process was then executing is not recorded, so nothing is said of
//     it; its cgroup is read through the pidfd that the kernel keeps.
//   - Of any other TCP connection the kernel can only be asked afterwards
//     (sock_diag) who made the other socket, and /proc who holds it now. A socket that was
//     closed meanwhile is reported as root's: so only a connected socket that
//     somebody still holds counts, and of several who hold it only what they share.
//
// Whatever is read of a process is read through descriptors of it (a pidfd and
// its directory in /proc), and of its executable through one of that file, so that neither a
// pid given anew nor a file put in its place is taken for it.
package caller

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller/container"
	"github.com/innate-id/innate/internal/evidence"
)

// From says what is known of a connection by the door that it came in through.
type From struct {
	// Door is the door's name.
	Door string
	// Selectors are what the door alone proves ("vm:interface:tap3"). Of the
	// peer of a TCP door that has some nothing else is asked, unless the door
	// has Sockets.
	Selectors []evidence.Selector
	// Captured says that only connections of which the kernel has a record may
	// come in here.
	Captured bool
	// Unix says, to [Identifier.OfProcess] alone, that the door is a unix socket.
	Unix bool
	// Sockets asks the network namespace that the door is in; nil for the
	// agent's own, where peers are on loopback. Only who is in that namespace may come in.
	Sockets *Sockets
}

// Identifier takes evidence; one serves all doors of an agent. The zero
// Identifier knows of no kernel records, asks the runtimes of [container.Known],
// and finds procfs and cgroups where they usually are.
type Identifier struct {
	// Record returns what the kernel wrote down when conn was made, once; nil
	// where connections are not captured.
	Record func(conn *net.TCPConn) (Record, error)
	// Runtimes are the container runtimes that may be asked; nil means
	// [container.Known], an empty list none.
	Runtimes []container.Runtime
	// MaxDigest is the length of the longest executable whose digest is taken, in
	// bytes: [DefaultMaxDigest] if 0, none at all if negative.
	MaxDigest int64
	// ProcRoot is where procfs of the agent's own pid namespace is, /proc if empty.
	ProcRoot string
	// CgroupRoot is where cgroup version 2 is mounted; found if empty.
	CgroupRoot string
	// Log takes what could not be found out, and why; nil for nowhere.
	Log *slog.Logger

	once    sync.Once // sets up what follows
	cgroups hierarchy
	digests digests
	copies  copies
	names   names
	holders holders
	sockets Sockets
	asked   *container.Runtimes
	askErr  error
	warned  atomic.Int64 // when a warning was logged last, in Unix seconds
}

func (i *Identifier) setUp() {
	i.once.Do(func() {
		i.cgroups.proc, i.cgroups.root = i.proc(), i.CgroupRoot
		i.digests.max = i.MaxDigest
		known := i.Runtimes
		if known == nil {
			known = container.Known
		}
		i.asked, i.askErr = container.New(known)
	})
}

// Identify returns the evidence about conn's peer: of [evidence.GradeKernel]
// where the kernel has a record or the door proves it, of
// [evidence.GradeAfter] where the system was asked afterwards, and of
// [evidence.GradeNone] with nothing but the door where it does not say. An
// error means that the connection may not be served at all.
func (i *Identifier) Identify(conn net.Conn, from From) (evidence.Evidence, error) {
	i.setUp()
	grade, f, err := i.peer(conn, from)
	if err != nil {
		return evidence.Evidence{}, err
	}
	all := append(slices.Clone(from.Selectors), f.selectors...)
	slices.Sort(all)
	return evidence.Evidence{Door: from.Door, Selectors: slices.Compact(all), Grade: grade, Interpreter: f.interpreter, Process: f.process}, nil
}

func (i *Identifier) peer(conn net.Conn, from From) (evidence.Grade, facts, error) {
	switch c := conn.(type) {
	case *net.UnixConn:
		f, err := i.unixPeer(c)
		if err != nil {
			return 0, facts{}, fmt.Errorf("asking the kernel who connected: %w", err)
		}
		return evidence.GradeKernel, f, nil
	case *net.TCPConn:
		return i.tcpPeer(c, from)
	}
	return 0, facts{}, fmt.Errorf("connection of type %T carries no evidence", conn)
}

func (i *Identifier) tcpPeer(c *net.TCPConn, from From) (evidence.Grade, facts, error) {
	addr, ok := c.RemoteAddr().(*net.TCPAddr)
	switch {
	case from.Captured && i.Record == nil:
		return 0, facts{}, errors.New("the door serves captured connections, and nothing captures them")
	case from.Captured:
		rec, err := i.Record(c)
		if err != nil {
			return 0, facts{}, fmt.Errorf("finding the kernel's record of the connection: %w", err)
		}
		return evidence.GradeKernel, i.recorded(rec), nil
	case from.Sockets != nil:
		return i.socketPeer(c, from.Sockets)
	case len(from.Selectors) > 0:
		return evidence.GradeKernel, facts{}, nil
	case !ok || !addr.IP.IsLoopback():
		return 0, facts{}, fmt.Errorf("peer %v is not on this host", c.RemoteAddr())
	}
	return i.socketPeer(c, &i.sockets)
}

// ungraded is the grade when nobody is known behind a connection: in a
// namespace the door's own selectors still hold.
func ungraded(namespace bool) evidence.Grade {
	if namespace {
		return evidence.GradeKernel
	}
	return evidence.GradeNone
}

// socketPeer asks afterwards. Who was on this host by the peer's address may
// be gone already; who comes from elsewhere is refused. Inside a container's
// namespace users go by number: the names there are the container's own.
func (i *Identifier) socketPeer(c *net.TCPConn, in *Sockets) (evidence.Grade, facts, error) {
	o, ok, err := in.owner(c)
	if err != nil && (in != &i.sockets || !errors.Is(err, errNoSocket)) {
		return 0, facts{}, fmt.Errorf("asking whose the peer's socket is: %w", err)
	}
	if !ok {
		return ungraded(in != &i.sockets), facts{}, nil
	}
	var f facts
	if o.named = in == &i.sockets; o.named {
		i.user(&f, o.uid)
	} else {
		f.sayID("unix:uid:", o.uid)
	}
	more, err := i.held(o)
	if err != nil {
		i.debug("a caller is known by its socket's user alone", "uid", o.uid, "why", err)
		return evidence.GradeAfter, f, nil
	}
	more.selectors = append(f.selectors, more.selectors...)
	return evidence.GradeAfter, more, nil
}

// unixPeer says what the kernel keeps of who connected.
func (i *Identifier) unixPeer(c *net.UnixConn) (facts, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return facts{}, err
	}
	var peer unixPeer
	var optErr error
	if err := raw.Control(func(fd uintptr) { peer, optErr = peerOf(int(fd)) }); err != nil {
		return facts{}, err
	}
	if optErr != nil {
		return facts{}, optErr
	}
	var f facts
	i.user(&f, peer.cred.Uid)
	i.group(&f, peer.cred.Gid)
	i.supplementary(&f, peer.groups)
	if peer.pidfd < 0 {
		return f, nil // before Linux 6.5, or it ended
	}
	more, err := i.behind(int(peer.cred.Pid), peer.pidfd)
	if err != nil {
		i.debug("a caller is known by its credentials alone", "pid", peer.cred.Pid, "why", err)
		return f, nil
	}
	more.selectors = append(f.selectors, more.selectors...)
	return more, nil
}

// behind says where the process of a pidfd is. What it executes may be another
// program than when it connected, so it is named but proves nothing.
func (i *Identifier) behind(pid, pidfd int) (facts, error) {
	if pid <= 0 {
		unix.Close(pidfd)
		return facts{}, errChanged
	}
	p, err := holdProcess(i.proc(), pid, pidfd)
	if err != nil {
		return facts{}, err
	}
	defer p.close()
	now, err := p.cgroup()
	if err != nil {
		return facts{}, err
	}
	f := facts{process: evidence.Process{PID: pid}}
	if exe, err := p.executable(); err == nil {
		f.process.Executable = exe.path
		exe.close()
	}
	i.place(&f, now.path())
	if !p.alive() {
		return facts{}, errChanged
	}
	return f, nil
}

func (i *Identifier) proc() string {
	if i.ProcRoot != "" {
		return i.ProcRoot
	}
	return "/proc"
}

func (i *Identifier) runtimes() (*container.Runtimes, error) { return i.asked, i.askErr }

func (i *Identifier) debug(msg string, args ...any) {
	if i.Log != nil {
		i.Log.Debug(msg, args...)
	}
}

// warn logs at most once a second: callers choose how often it happens.
func (i *Identifier) warn(msg string, args ...any) {
	now, last := time.Now().Unix(), i.warned.Load()
	if i.Log != nil && now != last && i.warned.CompareAndSwap(last, now) {
		i.Log.Warn(msg, args...)
	}
}

// plain refuses names that would read as two words in a record: evidence is
// written down separated by spaces.
func plain(name string) bool {
	return name != "" && len(name) <= 256 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
