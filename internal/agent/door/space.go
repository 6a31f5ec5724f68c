package door

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace, held: it lives on while somebody holds it, so
// it is given back as soon as its name is gone.
type space struct {
	ns  netns.NsHandle
	key string // of the namespace, never another's while it is held

	mu   sync.RWMutex // guards what follows: a closed handle would ask in the agent's own namespace
	net  *netlink.Handle
	left bool
}

// spaceKey says which namespace a path leads to now.
func spaceKey(path string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return "", notYet(path, err)
	}
	// A file that waits for a namespace to be mounted there looks like one.
	if fs.Type != unix.NSFS_MAGIC {
		return "", fmt.Errorf("%s is no network namespace (yet)", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", notYet(path, err)
	}
	return fileKey(info)
}

func notYet(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("there is no network namespace at %s (yet)", path)
	}
	return fmt.Errorf("looking at %s: %w", path, err)
}

func fileKey(info os.FileInfo) (string, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s has no inode", info.Name())
	}
	return fmt.Sprintf("net:[%d]", st.Ino), nil
}

// ownSpace is the path of the agent's own namespace: that of any thread which
// is in no other for the moment. /proc/self is the first thread, which may be.
const ownSpace = "/proc/thread-self/ns/net"

// enter holds the namespace at path.
func enter(path string) (*space, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, notYet(path, err)
	}
	f := os.NewFile(uintptr(ns), path)
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	key, err := fileKey(info)
	if err != nil {
		f.Close()
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(ns), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("holding %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE, unix.NETLINK_INET_DIAG)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening netlink in %s: %w", path, err)
	}
	return &space{ns: netns.NsHandle(fd), key: key, net: h}, nil
}

func (s *space) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	s.net.Close()
	_ = s.ns.Close() // nothing was written to it
}

// ask puts a question to the kernel in the namespace.
func (s *space) ask(question func(*netlink.Handle) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.left {
		return errors.New("the network namespace is gone")
	}
	return question(s.net)
}

// do runs f on a thread that is in the namespace, and nothing else is on it.
func (s *space) do(f func()) error {
	failed := make(chan error, 1)
	go func() { failed <- s.visit(f) }()
	return <-failed
}

func (s *space) visit(f func()) error {
	runtime.LockOSThread()
	home, err := netns.GetFromPath(ownSpace)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("holding the agent's own network namespace: %w", err)
	}
	defer home.Close()
	if err := netns.Set(s.ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering the network namespace (it takes CAP_SYS_ADMIN): %w", err)
	}
	f()
	if err := netns.Set(home); err != nil {
		// Still locked: nothing else ever runs on a thread that is lost there.
		return fmt.Errorf("coming back from the network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// ofProcess returns the pid in a path of the form /proc/PID/ns/net.
func ofProcess(path string) (pid string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return "", false
	}
	pid, rest, _ = strings.Cut(rest, "/")
	return pid, rest == "ns/net"
}
