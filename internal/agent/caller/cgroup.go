package caller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// path is the one cgroup that evidence names: that of version 2. Where version
// 2 has the process at its root, because a host or a runtime still uses
// version 1, it is that of systemd's own hierarchy, and with none there, that of "pids".
func (c cgroups) path() string {
	for _, p := range []string{c.v2, c.systemd, c.pids} {
		if p != "" && p != "/" {
			return p
		}
	}
	if c == (cgroups{}) {
		return ""
	}
	return "/"
}

// hierarchy is cgroup version 2.
type hierarchy struct {
	proc string
	root string // where it is mounted; found if empty

	once sync.Once
	fd   int
	err  error
}

func (h *hierarchy) open() error {
	h.once.Do(func() {
		if h.root == "" {
			h.root, h.err = findHierarchy(h.proc)
		}
		if h.err == nil {
			h.fd, h.err = unix.Open(h.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	})
	return h.err
}

func findHierarchy(proc string) (string, error) {
	fd, err := unix.Open(path.Join(proc, "self/mountinfo"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	text, err := readAll(fd, "mountinfo", maxMountTable)
	if err != nil {
		return "", err
	}
	m, ok := findMount(text, func(_ string, m mount) bool { return m.fstype == "cgroup2" && m.root == "/" })
	if !ok {
		return "", errors.New("no cgroup hierarchy of version 2 is mounted")
	}
	return m.point, nil
}

// fileidKernfs is the type of file handle that a cgroup's id is (Linux,
// exportfs.h).
const fileidKernfs = 0xfe

// path returns the path of the cgroup with that id, also when nobody is in it
// any more. It takes CAP_DAC_READ_SEARCH.
func (h *hierarchy) path(id uint64) (string, error) {
	if err := h.open(); err != nil {
		return "", fmt.Errorf("opening cgroup version 2: %w", err)
	}
	handle := unix.NewFileHandle(fileidKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(h.fd, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("opening the cgroup with id %d: %w", id, err)
	}
	defer unix.Close(fd)
	full, err := readlink(unix.AT_FDCWD, path.Join(h.proc, "self/fd", strconv.Itoa(fd)))
	if err != nil {
		return "", fmt.Errorf("reading the path of cgroup %d: %w", id, err)
	}
	below, ok := strings.CutPrefix(full, h.root)
	switch {
	case !ok || below != "" && below[0] != '/' || strings.HasSuffix(below, deleted):
		return "", fmt.Errorf("cgroup %d is not below %s any more", id, h.root)
	case below == "":
		return "/", nil
	}
	return below, nil
}

// is reports whether the cgroup at a path has that id.
func (h *hierarchy) is(p string, id uint64) bool {
	if h.open() != nil || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "/..") {
		return false
	}
	var st unix.Stat_t
	return unix.Fstatat(h.fd, "."+p, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino == id
}
