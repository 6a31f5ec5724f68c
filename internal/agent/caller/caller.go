// Package caller says who is at the other end of a local connection.
//
// What a newcomer would get wrong: evidence is what the kernel wrote down when
// the connection was made, not what is true now. SO_PEERCRED is such a record:
// a process that changes its user, executes another program or dies after
// connecting leaves it as it was. A TCP connection over loopback has no such
// record; what can be looked up about it afterwards is no evidence, so none is
// claimed: only its door speaks for it.
package caller

import (
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// Identify returns the evidence about conn's peer, which came in through the
// named door. Peers of a unix socket have user and group ([evidence.GradeKernel]);
// peers of a loopback TCP socket have nothing ([evidence.GradeNone]).
func Identify(conn net.Conn, door string) (evidence.Evidence, error) {
	ev := evidence.Evidence{Door: door, Grade: evidence.GradeNone}
	switch c := conn.(type) {
	case *net.UnixConn:
		cred, err := peerCred(c)
		if err != nil {
			return evidence.Evidence{}, fmt.Errorf("asking the kernel who connected: %w", err)
		}
		ev.Grade, ev.Selectors = evidence.GradeKernel, selectors(cred.Uid, cred.Gid)
	case *net.TCPConn:
		addr, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok || !addr.IP.IsLoopback() {
			return evidence.Evidence{}, fmt.Errorf("peer %v is not on this host", c.RemoteAddr())
		}
	default:
		return evidence.Evidence{}, fmt.Errorf("connection of type %T carries no evidence", conn)
	}
	return ev, nil
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
	u, g := strconv.FormatUint(uint64(uid), 10), strconv.FormatUint(uint64(gid), 10)
	out := []evidence.Selector{evidence.Selector("unix:uid:" + u), evidence.Selector("unix:gid:" + g)}
	if found, err := user.LookupId(u); err == nil && plain(found.Username) {
		out = append(out, evidence.Selector("unix:user:"+found.Username))
	}
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
