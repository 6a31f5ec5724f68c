package caller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socketInfo is what the kernel says of one TCP socket.
type socketInfo struct {
	state uint8
	// uid is who made it, inode its number; both are 0 of one that nobody
	// holds any more.
	uid, inode uint32
}

// A request and an answer of sock_diag(7), struct inet_diag_req_v2 and struct
// inet_diag_msg, by their lengths and what is read of them.
const (
	diagRequestLen = 56
	diagAnswerLen  = 72
	diagIDLen      = 2 + 2 + 16 + 16 // ports and addresses, which begin an id
	diagIDAt       = 4               // in the answer
	diagUIDAt      = 64
	diagInodeAt    = 68
)

// lookUp asks the kernel for the one socket between two addresses, as that
// socket has them.
//
// It is not [netlink.SocketGet]: that asks for a list of all sockets, which the
// kernel narrows by ports alone, and takes the first. Somebody who connects from
// 127.0.0.2 with the port that root has at 127.0.0.1 could be taken for root;
// and walking through the kernel's table took 2 ms, where looking up takes 20 µs.
func lookUp(local, remote *net.TCPAddr) (socketInfo, error) {
	id := diagID(local, remote)
	body := make([]byte, diagRequestLen)
	body[0], body[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if local.IP.To4() != nil {
		body[0] = unix.AF_INET
	}
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // in any state
	copy(body[8:], id)
	binary.NativeEndian.PutUint64(body[48:], ^uint64(0)) // whatever its cookie
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddRawData(body)
	answers, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return socketInfo{}, fmt.Errorf("asking the kernel for a socket: %w", err)
	}
	if len(answers) != 1 || len(answers[0]) < diagAnswerLen {
		return socketInfo{}, errors.New("the kernel's answer about a socket is not one socket")
	}
	a := answers[0]
	if string(a[diagIDAt:diagIDAt+diagIDLen]) != string(id) {
		return socketInfo{}, errors.New("the kernel's answer is about another socket") // one that listens there
	}
	return socketInfo{
		state: a[1], uid: binary.NativeEndian.Uint32(a[diagUIDAt:]), inode: binary.NativeEndian.Uint32(a[diagInodeAt:]),
	}, nil
}

// diagID is the beginning of a struct inet_diag_sockid: ports and addresses in
// the network's order, IPv4 addresses in the first 4 bytes of 16.
func diagID(local, remote *net.TCPAddr) []byte {
	id := make([]byte, diagIDLen)
	binary.BigEndian.PutUint16(id[0:], uint16(local.Port))
	binary.BigEndian.PutUint16(id[2:], uint16(remote.Port))
	for at, ip := range map[int]net.IP{4: local.IP, 20: remote.IP} {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		copy(id[at:at+16], ip)
	}
	return id
}
