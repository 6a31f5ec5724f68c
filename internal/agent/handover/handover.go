// Package handover carries open sockets from one process of the agent to the
// next, so that a new version or configuration takes over without a refused
// connection: what arrives in between waits in the sockets' own queues.
//
// What a newcomer would get wrong: there are never two agents. The process
// replaces itself (execve), keeps its pid, and with it the place that a service
// manager has for it; whatever is not handed over is gone, tokens included.
// Libraries for this (cloudflare/tableflip is the best known) start a second
// process beside the first and let both run for a while. Two agents would share
// one state directory, one journal and one lock; so none of them fits.
//
// A socket is handed over under a name that says all that it was opened for
// ("door main tcp 127.0.0.1:50342"). Every listener is opened through
// [Set.Listen], which first looks whether there is one under that name. Nothing
// is written to a disk: what is left besides descriptors, the [Set.Note], is in
// a sealed memory file that only the process itself can open.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Set is what a process has that the next one could need. A nil Set inherits
// nothing and leaves nothing.
type Set struct {
	mu        sync.Mutex          // guards what follows
	inherited map[string]*os.File // what nobody asked for yet
	note      json.RawMessage     // what the process before this one wrote
	open      map[string]syscall.Conn
	kept      map[string]int // descriptors that are ours alone, by name
}

// New returns a Set that inherited nothing.
func New() *Set {
	return &Set{inherited: map[string]*os.File{}, open: map[string]syscall.Conn{}, kept: map[string]int{}}
}

// Listen returns the listener inherited under name, or else what open returns.
// Either is handed over in turn, unless it is closed before that.
func (s *Set) Listen(name string, open func() (net.Listener, error)) (net.Listener, error) {
	if s == nil {
		return open()
	}
	l, err := s.listener(name)
	if l == nil && err == nil {
		l, err = s.opened(open)
	}
	if err != nil {
		return nil, err
	}
	c, ok := l.(syscall.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listener %s of type %T has no descriptor to hand over", name, l), l.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[name] = c
	return l, nil
}

// listener is the one inherited under name, or nil.
func (s *Set) listener(name string) (net.Listener, error) {
	f := s.take(name)
	if f == nil {
		return nil, nil
	}
	defer f.Close() // the listener has a descriptor of its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("taking over listener %s: %w", name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true) // as of one that was opened here
	}
	return l, nil
}

// opened opens a listener. An inherited one that nobody asked for yet may have
// its address: a door that was renamed, or two that changed places.
func (s *Set) opened(open func() (net.Listener, error)) (net.Listener, error) {
	l, err := open()
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Addr == nil || !s.dropAt(op.Addr.String()) {
		return l, err
	}
	return open()
}

// dropAt closes the inherited listener at an address. One that is bound to an
// interface, or is in another network namespace, has its address beside others
// that have the same, and is in nobody's way here.
func (s *Set) dropAt(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.inherited {
		l, err := net.FileListener(f)
		if err != nil {
			continue // a connection, or the lock
		}
		at, apart := l.Addr().String(), elsewhere(l)
		l.Close()
		if at == addr && !apart {
			f.Close()
			delete(s.inherited, name)
			return true
		}
	}
	return false
}

// elsewhere reports whether a listener is bound to an interface or is in
// another network namespace than this process.
func elsewhere(l net.Listener) bool {
	c, ok := l.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(own)
	here, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	apart := err != nil
	err = raw.Control(func(fd uintptr) {
		index, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
		there, err2 := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		apart = apart || err != nil || err2 != nil || index != 0 || there != here
	})
	return err != nil || apart
}

// File returns the file inherited under name, or else what open returns.
func (s *Set) File(name string, open func() (*os.File, error)) (*os.File, error) {
	if s == nil {
		return open()
	}
	f := s.take(name)
	if f == nil {
		var err error
		if f, err = open(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[name] = f
	return f, nil
}

// Conn returns the connection inherited under name, and an error if there is
// none.
func (s *Set) Conn(name string) (net.Conn, error) {
	f := s.take(name)
	if f == nil {
		return nil, fmt.Errorf("connection %s was not inherited", name)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("taking over connection %s: %w", name, err)
	}
	return c, nil
}

func (s *Set) take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[name]
	delete(s.inherited, name)
	return f
}

// Note reads into v what the process before this one left with [Set.Exec]; ok
// is false if there was none.
func (s *Set) Note(v any) (ok bool, err error) {
	if s == nil || s.note == nil {
		return false, nil
	}
	if err := json.Unmarshal(s.note, v); err != nil {
		return false, fmt.Errorf("decoding what the process before this one left: %w", err)
	}
	return true, nil
}

// Settle closes what was inherited and nobody asked for: doors that the
// configuration no longer has.
func (s *Set) Settle() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.inherited {
		f.Close()
	}
	clear(s.inherited)
}

// Keep takes hold of every listener and file that is open now. What its owner
// closes from here on stays open for the next process.
func (s *Set) Keep() error {
	s.mu.Lock()
	open := s.open
	s.open = map[string]syscall.Conn{}
	s.mu.Unlock()
	for name, c := range open {
		if err := s.KeepConn(name, c); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return nil
}

// KeepConn takes hold of one connection, under a name.
func (s *Set) KeepConn(name string, c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	if dupErr != nil {
		return fmt.Errorf("keeping %s: %w", name, dupErr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[name] = fd
	return nil
}

// Release lets go of what [Set.Keep] took hold of.
func (s *Set) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.kept {
		unix.Close(fd)
	}
	clear(s.kept)
}
