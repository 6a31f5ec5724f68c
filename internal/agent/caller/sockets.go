package caller

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// Sockets asks one network namespace whose the sockets in it are
// (sock_diag(7)). The zero value asks the agent's own.
type Sockets struct{ handle *netlink.Handle }

// OpenSockets returns what asks the network namespace that fd is of
// ("/proc/PID/ns/net", "/run/netns/NAME"). fd may be closed after.
func OpenSockets(fd int) (*Sockets, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag in a network namespace: %w", err)
	}
	return &Sockets{handle: h}, nil
}

// Close ends it.
func (s *Sockets) Close() { s.handle.Close() }

// tcpEstablished is a connected socket's state (Linux, net/tcp_states.h).
const tcpEstablished = 1

// owner asks the kernel who made the peer's socket. ok is false when it is
// closed or orphaned: such a one has no owner any more, and the kernel says 0.
// The user is read before the inode, so that one orphaned in between is seen
// to be.
func (s *Sockets) owner(c *net.TCPConn) (uid uint32, ok bool) {
	get := netlink.SocketGet
	if s.handle != nil {
		get = s.handle.SocketGet
	}
	found, err := get(c.RemoteAddr(), c.LocalAddr()) // as the peer has them
	if err != nil || found.State != tcpEstablished || found.INode == 0 {
		return 0, false
	}
	return found.UID, true
}

// placed is the evidence about a peer whom the door alone tells from others:
// whatever address it has, the kernel lets nobody else in there. In a
// container's namespace the user is known too, after the fact, and so is what
// is said of both.
func placed(ev evidence.Evidence, c *net.TCPConn, from From) evidence.Evidence {
	ev.Grade, ev.Selectors = evidence.GradeKernel, slices.Clone(from.Selectors)
	if from.Sockets != nil {
		if uid, ok := from.Sockets.owner(c); ok {
			ev.Grade = evidence.GradeAfter
			ev.Selectors = append(ev.Selectors, evidence.Selector("unix:uid:"+strconv.FormatUint(uint64(uid), 10)))
		}
	}
	slices.Sort(ev.Selectors)
	return ev
}
