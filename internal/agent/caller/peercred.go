package caller

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unixPeer is what the kernel keeps of who connected a unix socket.
type unixPeer struct {
	cred   *unix.Ucred
	groups []uint32
	pidfd  int // -1 where the kernel gives none
}

func peerOf(fd int) (unixPeer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return unixPeer{}, err
	}
	// All ones is how the kernel says that it has no record.
	if cred.Uid == ^uint32(0) || cred.Gid == ^uint32(0) {
		return unixPeer{}, errors.New("the kernel has no record of the peer")
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return unixPeer{}, fmt.Errorf("reading the peer's groups: %w", err)
	}
	// It fails before Linux 6.5 and for a process that was reaped: then nothing
	// is known but its credentials.
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		pidfd = -1
	}
	return unixPeer{cred, groups, pidfd}, nil
}

// Peer returns the process that connected a unix socket, held by a pidfd that
// the caller closes. Before Linux 6.5 the kernel keeps only its id: then it is
// the process that has it now, if that is the same user's.
func Peer(c *net.UnixConn) (pid, pidfd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var peer unixPeer
	var optErr error
	if err := raw.Control(func(fd uintptr) { peer, optErr = peerOf(int(fd)) }); err != nil {
		return 0, -1, err
	}
	if optErr != nil {
		return 0, -1, optErr
	}
	pid = int(peer.cred.Pid)
	if peer.pidfd >= 0 {
		return pid, peer.pidfd, nil
	}
	p, err := openProcess("/proc", pid)
	if err != nil {
		return 0, -1, err
	}
	defer unix.Close(p.dir)
	cred, err := p.status()
	if err == nil && cred.uids[1] != peer.cred.Uid {
		err = errChanged
	}
	if err != nil {
		unix.Close(p.fd)
		return 0, -1, err
	}
	return pid, p.fd, nil
}

// peerGroups returns the supplementary groups at connect (SO_PEERGROUPS). The
// kernel says how many there are when there is too little room.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > len(groups)*4:
			groups = make([]uint32, size/4)
		case errno == unix.ENODATA:
			return nil, nil
		case errno != 0:
			return nil, errno
		default:
			return groups[:size/4], nil
		}
	}
}
