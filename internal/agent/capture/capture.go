// Package capture takes connections to 169.254.169.254:80 to the agent and
// knows who made them. Programs in the kernel (bpf/capture.bpf.c) see every
// connect(2) below a cgroup, write down who calls, and send the connection to
// a socket of the agent's; [Capture.Record] reads what they wrote.
//
// What a newcomer would get wrong: capture is not the agent's to keep up. It
// is pinned, so that it outlives the agent: while no agent listens, a connect
// is refused ("Operation not permitted") and never goes on to some other
// service at that address. The programs hold the agent's very socket, and only
// while that listens do they send anybody there: nobody can in its place.
// The next agent takes the pinned programs over; [Remove] takes them away.
//
// A record is tied to the connection by the kernel itself, from the caller's
// socket to the accepted one; user space compares no addresses and no ports.
package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Address is what is captured.
var Address = netip.MustParseAddrPort("169.254.169.254:80")

// DefaultListen is where captured connections are sent. An address of its own
// in 127.0.0.0/8 is in nobody's way, and a port below 1024 is not open to every
// user.
var DefaultListen = netip.MustParseAddrPort("127.254.169.254:254")

// DefaultBPFFS is where systems mount the bpf filesystem.
const DefaultBPFFS = "/sys/fs/bpf"

// Config says what is captured, and where it is sent.
type Config struct {
	// BPFFS is where the bpf filesystem is mounted, [DefaultBPFFS] if empty; it
	// is mounted there if it is not. What is pinned is in its folder "innate".
	BPFFS string
	// Root is the cgroup below which connects are seen, as /proc/PID/cgroup has
	// it; "/" if empty, which is all.
	Root string
	// Cgroups are those whose processes are captured, with all below them, as
	// /proc/PID/cgroup has them: "/system.slice". None means all.
	Cgroups []string
	// Listen is where captured connections are sent, an IPv4 loopback address;
	// [DefaultListen] if it is the zero AddrPort. Port 0 is any.
	Listen netip.AddrPort
}

// Capture is the agent's hold on the programs in the kernel. One agent at a
// time has it.
type Capture struct {
	cfg    Config
	dir    string   // where all is pinned
	lock   *os.File // of dir; goes with the process
	kernel kernelObjects

	mu      sync.Mutex              // guards what follows
	spaces  map[uint64]bool         // network namespaces that this agent listens in
	targets map[kernelEndpoint]bool // addresses that it named
}

func (c *Config) fill() {
	if c.BPFFS == "" {
		c.BPFFS = DefaultBPFFS
	}
	if c.Root == "" {
		c.Root = "/"
	}
	if !c.Listen.IsValid() {
		c.Listen = DefaultListen
	}
}

// Check reports all that is wrong with the configuration by itself; whether
// the machine can do it is found out by [Open].
func (c Config) Check() error {
	c.fill()
	var faults []error
	if !filepath.IsAbs(c.BPFFS) {
		faults = append(faults, fmt.Errorf("bpf filesystem %q: a path that begins with / was expected", c.BPFFS))
	}
	for _, path := range append([]string{c.Root}, c.Cgroups...) {
		if err := checkCgroup(path); err != nil {
			faults = append(faults, err)
		}
	}
	if addr := c.Listen.Addr(); !addr.Is4() || !addr.IsLoopback() {
		faults = append(faults, fmt.Errorf("address %s: captured connections are sent to an IPv4 loopback address; write 127.x.y.z:PORT", c.Listen))
	}
	return errors.Join(faults...)
}

// Open turns capture on, or takes over what an earlier agent left. From here
// on captured connects are refused until there is a listener ([Capture.Listen]).
// On an error nothing is captured that was not before.
func Open(cfg Config) (*Capture, error) {
	c, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("capturing %s: %w", Address, err)
	}
	return c, nil
}

func open(cfg Config) (_ *Capture, err error) {
	cfg.fill()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := supported(); err != nil {
		return nil, err
	}
	c := &Capture{cfg: cfg, dir: filepath.Join(cfg.BPFFS, "innate"), spaces: map[uint64]bool{}, targets: map[kernelEndpoint]bool{}}
	if c.lock, err = hold(cfg.BPFFS, c.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.load(); err != nil {
		return nil, err
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	return c, c.attach()
}

// Close lets go of the programs and leaves them as they are: with the agent's
// listeners gone, captured connects are refused.
func (c *Capture) Close() error {
	// Said, not only closed: a child that is about to be executed has the
	// descriptor for a moment, and the lock with it.
	return errors.Join(c.kernel.Close(), unix.Flock(int(c.lock.Fd()), unix.LOCK_UN), c.lock.Close())
}

// Remove takes away everything that is pinned below bpffs ([DefaultBPFFS] if
// empty): from then on 169.254.169.254 is whatever the network makes of it.
// Nothing to remove is no error.
func Remove(bpffs string) error {
	if bpffs == "" {
		bpffs = DefaultBPFFS
	}
	dir := filepath.Join(bpffs, "innate")
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("removing the capture: %w", err)
	}
	defer lock.Close()
	if err := detach(dir); err != nil {
		return fmt.Errorf("removing the capture: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the capture: %w", err)
	}
	return nil
}

// hold makes and locks the folder in which all is pinned.
func hold(bpffs, dir string) (*os.File, error) {
	if err := mount(bpffs); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making the folder for what is pinned: %w", err)
	}
	return lockDir(dir)
}

// lockDir keeps a second agent out. Who could write to the folder could take
// the programs out of it.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the folder of what is pinned: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("looking at %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		f.Close()
		return nil, fmt.Errorf("%s belongs to user %d with mode %04o, and must be this user's (%d) alone: find out who made it, and remove it", dir, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another agent holds the capture in %s (stop it first): %w", dir, err)
	}
	return f, nil
}

// mount mounts a bpf filesystem where none is.
func mount(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("looking for a bpf filesystem at %s: %w", path, err)
	} else if err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if !hostsMounts() {
		return fmt.Errorf("no bpf filesystem is mounted at %s, and this process cannot mount one that lasts: run mount -t bpf bpf %s on the host before the agent starts", path, path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("making the mount point of the bpf filesystem: %w", err)
	}
	if err := unix.Mount("bpf", path, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=0700"); err != nil {
		return fmt.Errorf("mounting the bpf filesystem at %s: %w", path, err)
	}
	return nil
}

// hostsMounts reports whether this process is in the host's mount namespace: in
// one of its own, what it mounts would end with it, and capture too.
func hostsMounts() bool {
	var own, first unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		return false
	}
	if err := unix.Stat("/proc/1/ns/mnt", &first); err == nil {
		return own.Ino == first.Ino
	}
	// Process 1 may not be looked at by everybody. The kernel's own namespace
	// has a number that was fixed in Linux 6.18, and before that was the first
	// of those given out.
	return own.Ino == 0xEFFFFFF8 || own.Ino == 0xF0000000
}

func (c *Capture) pin(name string) string { return filepath.Join(c.dir, name) }

// linkPrefix begins the names under which links are pinned; maps have their
// own names.
const linkPrefix = "link_"

func isLink(name string) bool { return strings.HasPrefix(name, linkPrefix) }
