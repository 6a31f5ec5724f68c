// Package caller says who is at the other end of a local connection.
//
// What a newcomer would get wrong: evidence is what the kernel wrote down when
// the connection was made, not what is true now. SO_PEERCRED is such a record:
// a process that changes its user, executes another program or dies after
// connecting leaves it as it was. Of a TCP connection over loopback the kernel
// can only be asked afterwards who owns the other socket, and a socket that was
// closed meanwhile is reported as root's: so only a connected socket that
// somebody still holds counts.
package caller

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// From says what is known of a connection by the door that it came in through.
type From struct {
	// Door is the door's name.
	Door string
	// Selectors are what the door alone proves ("vm:interface:tap3").
	Selectors []evidence.Selector
	// Captured says that only connections of which the kernel has a record may
	// come in here.
	Captured bool
}

// Identifier takes evidence; one serves all doors of an agent. The zero
// Identifier knows of no kernel records.
type Identifier struct {
	// Record returns what the kernel wrote down when conn was made, once; nil
	// where connections are not captured.
	Record func(conn *net.TCPConn) (Record, error)
}

// Identify returns the evidence about conn's peer. Peers of a unix socket have user and group ([evidence.GradeKernel]);
// peers of a loopback TCP socket have the user who made it
// ([evidence.GradeAfter]), or nothing where the kernel does not say
// ([evidence.GradeNone]).
func (i *Identifier) Identify(conn net.Conn, from From) (evidence.Evidence, error) {
	ev := evidence.Evidence{Door: from.Door, Grade: evidence.GradeNone}
	switch c := conn.(type) {
	case *net.UnixConn:
		cred, err := peerCred(c)
		if err != nil {
			return evidence.Evidence{}, fmt.Errorf("asking the kernel who connected: %w", err)
		}
		ev.Grade, ev.Selectors = evidence.GradeKernel, selectors(cred.Uid, cred.Gid)
	case *net.TCPConn:
		if from.Captured {
			return i.recorded(c, ev)
		}
		addr, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok || !addr.IP.IsLoopback() {
			return evidence.Evidence{}, fmt.Errorf("peer %v is not on this host", c.RemoteAddr())
		}
		if uid, ok := socketOwner(c); ok {
			ev.Grade, ev.Selectors = evidence.GradeAfter, userSelectors(uid)
		}
	default:
		return evidence.Evidence{}, fmt.Errorf("connection of type %T carries no evidence", conn)
	}
	return ev, nil
}

// recorded is for doors that only connections with a record may come in by.
func (i *Identifier) recorded(c *net.TCPConn, ev evidence.Evidence) (evidence.Evidence, error) {
	if i.Record == nil {
		return evidence.Evidence{}, errors.New("the door serves captured connections, and nothing captures them")
	}
	r, err := i.Record(c)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("finding the kernel's record of the connection: %w", err)
	}
	ev.Grade, ev.Selectors = evidence.GradeKernel, selectors(r.UID, r.GID)
	return ev, nil
}

// tcpEstablished is a connected socket's state (Linux, net/tcp_states.h).
const tcpEstablished = 1

// socketOwner asks the kernel (sock_diag(7)) who made the peer's socket. ok is
// false when it is closed or orphaned: such a one has no owner any more, and
// the kernel says 0. The user is read before the inode, so that one orphaned
// in between is seen to be.
func socketOwner(c *net.TCPConn) (uid uint32, ok bool) {
	s, err := netlink.SocketGet(c.RemoteAddr(), c.LocalAddr()) // as the peer has them
	if err != nil || s.State != tcpEstablished || s.INode == 0 {
		return 0, false
	}
	return s.UID, true
}

// userSelectors are a user by number, and by name where there is one.
func userSelectors(uid uint32) []evidence.Selector {
	u := strconv.FormatUint(uint64(uid), 10)
	out := []evidence.Selector{evidence.Selector("unix:uid:" + u)}
	if found, err := user.LookupId(u); err == nil && plain(found.Username) {
		out = append(out, evidence.Selector("unix:user:"+found.Username))
	}
	return out
}

func peerCred(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	if optErr != nil {
		return nil, optErr
	}
	// All ones is how the kernel says that it has no record.
	if cred.Uid == ^uint32(0) || cred.Gid == ^uint32(0) {
		return nil, fmt.Errorf("the kernel has no record of the peer")
	}
	return cred, nil
}

// selectors are the peer's user and group by number, and by name where the
// host's own user database has one.
func selectors(uid, gid uint32) []evidence.Selector {
	g := strconv.FormatUint(uint64(gid), 10)
	out := append(userSelectors(uid), evidence.Selector("unix:gid:"+g))
	if found, err := user.LookupGroupId(g); err == nil && plain(found.Name) {
		out = append(out, evidence.Selector("unix:group:"+found.Name))
	}
	slices.Sort(out)
	return out
}

// plain refuses names that would read as two words in a record: evidence is
// written down separated by spaces.
func plain(name string) bool {
	return name != "" && len(name) <= 256 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
