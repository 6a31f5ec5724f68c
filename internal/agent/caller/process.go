package caller

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// errChanged: the process is gone, or is not what it was any more. What is
// known without it still holds.
var errChanged = errors.New("the process ended or changed")

// process is one process, held by descriptors: whatever is read of it is that
// process's, or an error. A pid that is given anew leads nowhere.
type process struct {
	proc string // where procfs is
	pid  int
	dir  int // of /proc/PID; reading below it fails once the process is gone
	fd   int // a pidfd
}

// openProcess holds on to the process that has pid now.
func openProcess(proc string, pid int) (*process, error) {
	if pid <= 0 {
		return nil, errChanged // of another pid namespace, or not known
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: opening a pidfd: %w", errChanged, err)
	}
	return holdProcess(proc, pid, fd)
}

// holdProcess holds on to the process of pidfd fd, which becomes its own.
func holdProcess(proc string, pid, fd int) (*process, error) {
	p := &process{proc: proc, pid: pid, fd: fd}
	var err error
	if p.dir, err = unix.Open(path.Join(proc, strconv.Itoa(pid)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %w", errChanged, err)
	}
	// Alive after the directory was opened: so the pid was not given anew
	// between the two.
	if !p.alive() {
		p.close()
		return nil, errChanged
	}
	return p, nil
}

func (p *process) close() {
	unix.Close(p.dir)
	unix.Close(p.fd)
}

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}

// Bounds of what is read of procfs. A kernel's own files are shorter; a long
// one is refused, never cut.
const (
	maxStatus     = 1 << 20 // 65536 supplementary groups fit
	maxCgroups    = 64 << 10
	maxMountTable = 4 << 20
	maxSmall      = 8 << 10
)

// read returns the whole file below /proc/PID.
func (p *process) read(name string, limit int64) ([]byte, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: opening %s: %w", errChanged, name, err)
	}
	return readAll(fd, name, limit)
}

// readAll reads a kernel's file to its end and closes it. It goes without
// os.File, whose poller these files have no use for.
func readAll(fd int, name string, limit int64) ([]byte, error) {
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w: reading %s: %w", errChanged, name, err)
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, fmt.Errorf("%s is over %d bytes long", name, limit)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

// started returns when the process was started, in clock ticks since boot.
func (p *process) started() (uint64, error) {
	stat, err := p.read("stat", maxSmall)
	if err != nil {
		return 0, err
	}
	return parseStart(stat)
}

// status returns the process's users and groups.
func (p *process) status() (credentials, error) {
	text, err := p.read("status", maxStatus)
	if err != nil {
		return credentials{}, err
	}
	return parseStatus(text)
}

// cgroup returns the path of the process's cgroup, by the rule of [cgroupPath].
func (p *process) cgroup() (cgroups, error) {
	text, err := p.read("cgroup", maxCgroups)
	if err != nil {
		return cgroups{}, err
	}
	return parseCgroups(text)
}

// inHostMounts reports whether the process sees the files that the host's init
// sees. An agent that may not look at init compares with itself.
func (p *process) inHostMounts() bool {
	own, err := readlink(p.dir, "ns/mnt")
	if err != nil {
		return false
	}
	host, err := readlink(unix.AT_FDCWD, path.Join(p.proc, "1/ns/mnt"))
	if errors.Is(err, os.ErrPermission) {
		host, err = readlink(unix.AT_FDCWD, path.Join(p.proc, "self/ns/mnt"))
	}
	return err == nil && own == host
}

// readlink returns a link's whole text, or an error.
func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", io.ErrShortBuffer
	}
	return string(buf[:n]), nil
}
