package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// Enter begins to take evidence in a network namespace, of which it is given a
// descriptor to use before it returns, and the door's listener there. leave is
// called when nobody is to be identified any more.
type Enter func(namespace int, l *net.TCPListener) (identify func(net.Conn) (evidence.Evidence, error), leave func(), err error)

// ListenNamespace opens a door at 169.254.169.254:80 inside the network
// namespace at path: a container's. The address is on the loopback interface
// there, and the door is bound to that, so that a neighbour who routes the
// address to the container gets nothing. The namespace may come later, go, and
// be made anew: the door follows.
//
// path is where the namespace is mounted (/run/netns/web), or /proc/PID/ns/net;
// then the door is shut for good when that process ends, for the next with its
// number is another. Evidence is taken as enter says and not by cfg.Identify:
// only in the namespace does the kernel know the peer's socket.
func ListenNamespace(cfg Config, path string, enter Enter) (*Door, error) {
	if err := CheckNamespace(path); err != nil {
		return nil, fmt.Errorf("door %s: %w", cfg.Name, err)
	}
	p := &namespacePlace{path: path, cfg: cfg, visit: enter}
	return at(cfg, p, Metadata.String()+" in "+path, nil), nil
}

// CheckNamespace refuses what cannot be the path of a network namespace.
func CheckNamespace(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return fmt.Errorf("namespace %q: a path was expected, /run/netns/NAME or /proc/PID/ns/net", path)
	}
	if pid, ok := ofProcess(path); ok && (pid == "self" || pid == "thread-self" || pid == strconv.Itoa(os.Getpid())) {
		return fmt.Errorf("namespace %q is the agent's own: everybody on this host would be the container; name the container's", path)
	}
	return nil
}

// namespacePlace is a network namespace at a path, whichever it is at the moment.
type namespacePlace struct {
	path  string
	cfg   Config
	visit Enter

	key string // as look saw it last
	// process is a pidfd of the process that the path names; nil before it was
	// first seen, and where the path names none.
	process *os.File
	ended   bool // that process has
}

func (p *namespacePlace) look() (string, error) {
	if err := p.alive(); err != nil {
		return "", err
	}
	key, err := spaceKey(p.path)
	if err != nil {
		return "", err
	}
	own, err := spaceKey(ownSpace)
	if err != nil {
		return "", err
	}
	if key == own {
		return "", fmt.Errorf("%s is the agent's own network namespace: everybody on this host would be the container; "+
			"give the container a network of its own, or identify it at another door by its cgroup", p.path)
	}
	p.key = key
	return key, nil
}

// alive holds on to the process of a path that names one, for a pid is given
// anew when its process has ended.
func (p *namespacePlace) alive() error {
	pid, ok := ofProcess(p.path)
	if !ok {
		return nil
	}
	gone := fmt.Errorf("process %s has ended, and the next with its number is another: name the namespace where it is mounted, or start the agent anew", pid)
	if p.ended {
		return gone
	}
	if p.process == nil {
		f, err := pidfd(pid)
		if err != nil {
			return fmt.Errorf("there is no process %s (yet): %w", pid, err)
		}
		p.process = f
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.process.Fd()), Events: unix.POLLIN}}, 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("watching process %s: %w", pid, err)
	}
	if n > 0 {
		p.ended = true
		return gone
	}
	return nil
}

func pidfd(pid string) (*os.File, error) {
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		return nil, fmt.Errorf("%q is no process id", pid)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func (p *namespacePlace) leave() {
	if p.process != nil {
		p.process.Close()
	}
}

func (p *namespacePlace) listen(ctx context.Context) (*opening, error) {
	s, err := enter(p.path)
	if err != nil {
		return nil, err
	}
	l, undo, err := p.within(ctx, s)
	if err != nil {
		s.leave()
		return nil, err
	}
	identify, leave, err := p.visit(int(s.ns), l)
	if err != nil {
		l.Close()
		undo()
		s.leave()
		return nil, fmt.Errorf("taking evidence in %s: %w", p.path, err)
	}
	v := &visits{identify: identify}
	return &opening{listener: l, identify: v.take, after: func() {
		v.end()
		leave()
		undo()
		s.leave()
	}}, nil
}

// visits lets none be identified by what was left already.
type visits struct {
	mu       sync.RWMutex // guards what follows
	identify func(net.Conn) (evidence.Evidence, error)
}

func (v *visits) take(c net.Conn) (evidence.Evidence, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.identify == nil {
		return evidence.Evidence{}, errors.New("the network namespace is gone")
	}
	return v.identify(c)
}

// end waits for those who are being identified.
func (v *visits) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.identify = nil
}

// within listens in s, which is what look saw if it is there still.
func (p *namespacePlace) within(ctx context.Context, s *space) (*net.TCPListener, func(), error) {
	if s.key != p.key {
		return nil, nil, fmt.Errorf("%s was made anew", p.path)
	}
	if err := p.alive(); err != nil {
		return nil, nil, err
	}
	var lo netlink.Link
	if err := s.ask(func(h *netlink.Handle) (err error) {
		if lo, err = h.LinkByName("lo"); err != nil {
			return err
		}
		return h.LinkSetUp(lo) // in a namespace that nobody set up it is down
	}); err != nil {
		return nil, nil, fmt.Errorf("setting up the loopback interface in %s: %w", p.path, err)
	}
	return metadataListener(ctx, p.cfg, s, lo)
}
