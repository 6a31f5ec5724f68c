package caller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Sockets asks one network namespace whose the sockets in it are
// (sock_diag(7)). The zero value asks the agent's own.
type Sockets struct {
	mu     sync.Mutex // guards what follows
	handle *nl.SocketHandle
}

// OpenSockets returns what asks the network namespace that fd is of
// ("/proc/PID/ns/net", "/run/netns/NAME"). fd may be closed after.
func OpenSockets(fd int) (*Sockets, error) {
	s, err := nl.GetNetlinkSocketAt(netns.NsHandle(fd), netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag in a network namespace: %w", err)
	}
	return &Sockets{handle: &nl.SocketHandle{Socket: s}}, nil
}

// Close ends it.
func (s *Sockets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle != nil {
		s.handle.Close()
		s.handle = nil
	}
}

func (s *Sockets) open() (*nl.SocketHandle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handle == nil {
		sock, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_INET_DIAG)
		if err != nil {
			return nil, fmt.Errorf("opening sock_diag: %w", err)
		}
		s.handle = &nl.SocketHandle{Socket: sock}
	}
	return s.handle, nil
}

// tcpEstablished is a connected socket's state (Linux, net/tcp_states.h).
const tcpEstablished = 1

// owner is who made a socket, and the socket's inode.
type owner struct {
	uid   uint32
	inode uint64
}

var errNoSocket = errors.New("there is no such socket in the network namespace")

// owner asks who made the peer's socket of a connection. ok is false when it is
// closed or orphaned: such a one has no owner any more, and the kernel says 0. The user
// is read before the inode, so that one orphaned in between is seen to be.
func (s *Sockets) owner(c *net.TCPConn) (o owner, ok bool, err error) {
	// As the peer has them.
	local, remote := c.RemoteAddr().(*net.TCPAddr).AddrPort(), c.LocalAddr().(*net.TCPAddr).AddrPort()
	q := query{netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())}
	handle, err := s.open()
	if err != nil {
		return owner{}, false, err
	}
	// Not a dump: that one compares ports only, and a stranger's socket between
	// other addresses has the same.
	req := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_INET_DIAG: handle}
	req.AddData(q)
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return owner{}, false, errNoSocket
	case err != nil:
		return owner{}, false, fmt.Errorf("asking sock_diag: %w", err)
	case len(msgs) != 1:
		return owner{}, false, fmt.Errorf("sock_diag answers with %d sockets; 1 was expected", len(msgs))
	}
	a, err := parseDiag(msgs[0])
	if err != nil {
		return owner{}, false, err
	}
	if a.query != q { // a listener, where nobody is connected any more
		return owner{}, false, errNoSocket
	}
	return a.owner, a.state == tcpEstablished && a.inode != 0, nil
}

// query is inet_diag_req_v2 for one TCP socket, by its own side's addresses.
type query struct{ local, remote netip.AddrPort }

const (
	lenQuery  = 56
	lenAnswer = 72
)

func (q query) Len() int { return lenQuery }

// Serialize writes: family, protocol, extensions, padding, states, then the
// socket's id: ports and addresses as on the wire, interface, cookie.
func (q query) Serialize() []byte {
	b := make([]byte, lenQuery)
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if !q.local.Addr().Is4() {
		b[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0))
	binary.BigEndian.PutUint16(b[8:], q.local.Port())
	binary.BigEndian.PutUint16(b[10:], q.remote.Port())
	copy(b[12:28], q.local.Addr().AsSlice())
	copy(b[28:44], q.remote.Addr().AsSlice())
	for i := range 8 { // no cookie
		b[48+i] = 0xff
	}
	return b
}

// diag is what is read of inet_diag_msg.
type diag struct {
	query
	owner
	state uint8
}

func parseDiag(b []byte) (diag, error) {
	if len(b) < lenAnswer {
		return diag{}, fmt.Errorf("sock_diag answers with %d bytes; %d were expected", len(b), lenAnswer)
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	local, _ := netip.AddrFromSlice(b[8 : 8+size]) // 4 or 16 bytes are always an address
	remote, _ := netip.AddrFromSlice(b[24 : 24+size])
	return diag{
		state: b[1],
		query: query{
			netip.AddrPortFrom(local.Unmap(), binary.BigEndian.Uint16(b[4:])),
			netip.AddrPortFrom(remote.Unmap(), binary.BigEndian.Uint16(b[6:])),
		},
		owner: owner{uid: binary.NativeEndian.Uint32(b[64:]), inode: uint64(binary.NativeEndian.Uint32(b[68:]))},
	}, nil
}
