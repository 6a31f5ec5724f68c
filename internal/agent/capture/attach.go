package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hook is a place in the kernel where a program is run.
type hook struct {
	name    string // of its link's pin, after linkPrefix
	attach  ebpf.AttachType
	program *ebpf.Program
}

// hooks are in the order of attaching: a connect is changed only when all
// that it needs is there.
func (c *Capture) hooks() []hook {
	return []hook{
		{"sockops", ebpf.AttachCGroupSockOps, c.kernel.Handshaking},
		{"bind4", ebpf.AttachCGroupInet4Bind, c.kernel.Bind4},
		{"bind6", ebpf.AttachCGroupInet6Bind, c.kernel.Bind6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, c.kernel.Sendmsg4},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, c.kernel.Sendmsg6},
		{"connect6", ebpf.AttachCGroupInet6Connect, c.kernel.Connect6},
		{"connect4", ebpf.AttachCGroupInet4Connect, c.kernel.Connect4},
	}
}

// attach puts the programs where an earlier agent's are, or anew. If that
// fails, links that are new are taken away again; old ones stay, and keep
// refusing.
func (c *Capture) attach() (err error) {
	dir, err := cgroupDir(c.cfg.Root)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("looking at the cgroup %s: %w", c.cfg.Root, err)
	}
	var fresh []string
	defer func() {
		if err != nil {
			for _, pin := range slices.Backward(fresh) {
				err = errors.Join(err, unlink(pin))
			}
		}
	}()
	for _, h := range c.hooks() {
		pin := c.pin(linkPrefix + h.name)
		taken, err := takeOver(pin, h.program, st.Ino)
		if err != nil {
			return fmt.Errorf("taking over %s: %w", h.name, err)
		}
		if taken {
			continue
		}
		if _, err := os.Lstat(pin); errors.Is(err, fs.ErrNotExist) {
			fresh = append(fresh, pin)
		}
		if err := pinNew(pin, h, dir); err != nil {
			return fmt.Errorf("attaching %s to the cgroup %s: %w", h.name, c.cfg.Root, err)
		}
	}
	return nil
}

// takeOver exchanges the program of a link that is pinned, in one step: no
// connect falls between two. false means that there is no link, or that it is
// of another cgroup.
func takeOver(pin string, program *ebpf.Program, cgroup uint64) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, err
	}
	if at := info.Cgroup(); at == nil || at.CgroupId != cgroup {
		return false, nil
	}
	return true, l.Update(program)
}

// pinNew attaches a program and pins its link, in place of what is pinned
// there.
func pinNew(pin string, h hook, dir string) error {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: h.attach, Program: h.program})
	if err != nil {
		return err
	}
	defer l.Close()      // what is pinned stays
	temp := pin + "_new" // a dot is not allowed there
	if err := unlink(temp); err != nil {
		return err
	}
	if err := l.Pin(temp); err != nil {
		return err
	}
	return os.Rename(temp, pin)
}

// detach takes every pinned link from its cgroup.
func detach(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for what is pinned: %w", err)
	}
	for _, e := range entries {
		if isLink(e.Name()) {
			if err := unlink(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// unlink detaches a link, which unpinning alone would do only a little later.
// Of a cgroup that is gone there is nothing to detach from.
func unlink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", pin, err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detaching %s: %w", pin, err)
	}
	if err := os.Remove(pin); err != nil {
		return fmt.Errorf("unpinning: %w", err)
	}
	return nil
}
