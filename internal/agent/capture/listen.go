package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
)

// ErrNoRecord says that the kernel wrote nothing down about a connection: it
// was not captured, and nothing may be answered.
var ErrNoRecord = errors.New("the kernel has no record of who made this connection")

// loopback is its index in every network namespace.
const loopback = 1

// Listen opens the socket that connections of this network namespace are sent
// to. open, if it is not nil, finds the socket under its name that the process
// before this one left, or else calls what it is given (door.Config.Open).
func (c *Capture) Listen(ctx context.Context, open func(name string, open func() (net.Listener, error)) (net.Listener, error)) (*net.TCPListener, error) {
	fresh := func() (net.Listener, error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // a record is on one TCP socket
		return lc.Listen(ctx, "tcp4", c.cfg.Listen.String())
	}
	if open == nil {
		open = func(_ string, fresh func() (net.Listener, error)) (net.Listener, error) { return fresh() }
	}
	l, err := open("captured tcp4 "+c.cfg.Listen.String(), fresh)
	if err != nil {
		return nil, fmt.Errorf("listening for captured connections: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listening for captured connections: a listener of type %T was left for it", l)
	}
	if _, err := c.AddListener(tcp); err != nil {
		l.Close()
		return nil, err
	}
	return tcp, nil
}

// AddListener makes l, a plain TCP listener of this process at one IPv4
// address, the one that connections of l's network namespace are sent to. When
// l closes they are refused. remove forgets the namespace, for when it goes.
func (c *Capture) AddListener(l *net.TCPListener) (remove func() error, err error) {
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if !addr.Addr().Unmap().Is4() || addr.Addr().IsUnspecified() {
		return nil, fmt.Errorf("adding the listener %s: one IPv4 address was expected", addr)
	}
	var netns uint64
	err = control(l, func(fd int) error {
		proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil {
			return err
		}
		if proto != unix.IPPROTO_TCP {
			return errors.New("it is no plain TCP socket (use net.ListenConfig.SetMultipathTCP(false))")
		}
		index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
		if err != nil {
			return err
		}
		if index != 0 && index != loopback {
			return errors.New("it is bound to an interface, and local connections come over loopback")
		}
		if netns, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return err
		}
		return c.add(netns, toEndpoint(unmap(addr)), fd)
	})
	if err != nil {
		return nil, fmt.Errorf("adding the listener %s: %w", addr, err)
	}
	return func() error {
		if err := c.remove(netns); err != nil {
			return fmt.Errorf("removing the listener %s: %w", addr, err)
		}
		return nil
	}, nil
}

func (c *Capture) add(netns uint64, at kernelEndpoint, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.kernel.Doors.Put(netns, at); err != nil {
		return err
	}
	c.spaces[netns] = true
	return c.kernel.Listeners.Put(netns, uint32(fd))
}

func (c *Capture) remove(netns uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.spaces, netns)
	for _, m := range []*ebpf.Map{c.kernel.Listeners, c.kernel.Doors} {
		if err := m.Delete(netns); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

// Watch has connections to an IPv4 address written down that are not sent
// elsewhere: those of a door that programs know of ("127.0.0.1:50342").
func (c *Capture) Watch(addr netip.AddrPort) error {
	addr = unmap(addr)
	if !addr.Addr().Is4() {
		return fmt.Errorf("watching %s: an IPv4 address was expected", addr)
	}
	if addr == Address {
		return fmt.Errorf("watching %s: it is captured", addr)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.kernel.Targets.Put(toEndpoint(addr), note); err != nil {
		return fmt.Errorf("watching %s: %w", addr, err)
	}
	c.targets[toEndpoint(addr)] = true
	return nil
}

// Record returns who made an accepted connection, as the kernel wrote it down
// at connect(2), and takes it off the record: it is there once.
func (c *Capture) Record(conn *net.TCPConn) (caller.Record, error) {
	var r kernelRecord
	err := control(conn, func(fd int) error {
		if err := c.kernel.Accepted.Lookup(int32(fd), &r); err != nil {
			return err
		}
		return c.kernel.Accepted.Delete(int32(fd))
	})
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return caller.Record{}, ErrNoRecord
	}
	if err != nil {
		return caller.Record{}, fmt.Errorf("reading who made a connection: %w", err)
	}
	return caller.Record{
		PID: int(r.Pid), StartNS: r.StartNs, UID: r.Uid, GID: r.Gid, CgroupID: r.Cgroup,
		// The kernel's own device numbers are not the ones that stat(2) gives.
		Device: unix.Mkdev(r.Dev>>20, r.Dev&(1<<20-1)), Inode: r.Inode,
	}, nil
}

// control calls f with the descriptor of a socket.
func control(s syscall.Conn, f func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func unmap(ap netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()) }
