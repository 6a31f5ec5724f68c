package caller

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// executable is a process's executable, held open by a descriptor that reads
// nothing: what is asked of it is about that file, whatever its path names now.
type executable struct {
	proc string
	fd   int    // O_PATH
	path string // as the kernel has it, "/usr/bin/shop (deleted)"
	stat unix.Statx_t

	// fstype and number are the filesystem's type and device and the inode's number as
	// the kernel's own structures have them. They are set for filesystems without
	// a block device only.
	fstype string
	number fileNumber
}

// fileNumber is a device and an inode.
type fileNumber struct{ device, inode uint64 }

// executable opens the process's executable.
func (p *process) executable() (*executable, error) {
	// Following the link opens the very file, not what its path names. O_PATH
	// asks nothing of a filesystem that a user may serve.
	fd, err := unix.Openat(p.dir, "exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: opening the executable: %w", errChanged, err)
	}
	e := &executable{proc: p.proc, fd: fd}
	if err := e.fill(p); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *executable) close() { unix.Close(e.fd) }

func (e *executable) fill(p *process) error {
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(e.fd, "", flags, unix.STATX_BASIC_STATS, &e.stat); err != nil {
		return fmt.Errorf("looking at the executable: %w", err)
	}
	var err error
	if e.path, err = readlink(unix.AT_FDCWD, e.self("fd")); err != nil {
		return fmt.Errorf("reading the executable's path: %w", err)
	}
	e.number = fileNumber{unix.Mkdev(e.stat.Dev_major, e.stat.Dev_minor), e.stat.Ino}
	if e.stat.Dev_major != 0 {
		return nil
	}
	// btrfs gives each subvolume, and overlayfs each layer, a device of its own
	// to stat(2), and overlayfs other inode numbers too. The kernel's record has
	// the filesystem's: those are in fdinfo and mountinfo.
	fd, err := unix.Open(e.self("fdinfo"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("asking for the executable's mount: %w", err)
	}
	info, err := readAll(fd, "fdinfo", maxSmall)
	if err != nil {
		return err
	}
	mounts, err := p.read("mountinfo", maxMountTable)
	if err != nil {
		return err
	}
	id, inode := parseFDInfo(info)
	if m, ok := findMount(mounts, func(i string, _ mount) bool { return i == id }); ok {
		e.fstype, e.number.device = m.fstype, unix.Mkdev(m.major, m.minor)
	}
	if inode != 0 {
		e.number.inode = inode
	}
	return nil
}

// self is where this process's own procfs has the descriptor.
func (e *executable) self(folder string) string {
	return path.Join(e.proc, "self", folder, strconv.Itoa(e.fd))
}

// same reports whether both are one file.
func (e *executable) same(f *executable) bool {
	return e.number == f.number && e.key() == f.key()
}

// deleted is what the kernel writes behind the path of a file that has no name
// any more. A file may be called so; it is taken for deleted then.
const deleted = " (deleted)"

// named returns the file's path; ok is false when it has none.
func (e *executable) named() (name string, ok bool) {
	return e.path, e.stat.Nlink > 0 && strings.HasPrefix(e.path, "/") && !strings.HasSuffix(e.path, deleted)
}

// base is the executable's last path element.
func (e *executable) base() string { return path.Base(strings.TrimSuffix(e.path, deleted)) }

// servedByUser reports whether the file's content and attributes are whatever
// a program says they are. What such a file had when it was executed and has
// when it is read need not be the same.
func (e *executable) servedByUser() bool {
	// A filesystem that was not found is one that was unmounted meanwhile.
	return e.stat.Dev_major == 0 && (e.fstype == "" || e.fstype == "fuse" || strings.HasPrefix(e.fstype, "fuse."))
}
