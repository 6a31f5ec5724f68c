package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// memoryFiles are the files of one command. They are in a folder in memory, and
// each path that was asked for is a link to its file.
//
// Where the kernel lets us (as root), the folder is but a mount point: in a
// mount namespace of the command's own there is a ramfs on it, which is never
// swapped to disk, which no other process finds, and which ends with the last
// process of the command, however that comes. A user namespace would give the
// same to other users, but in it sudo and other setuid programs work no more,
// which builds need. So for them the files are in the folder itself, open to
// this user alone. If we are killed there (SIGKILL), they stay until the user's
// next "innate exec", logout or start of the machine: the kernel drops our lock
// on the folder, and so the next one knows that nobody uses it.
type memoryFiles struct {
	base  string // where folders are
	dir   string // this command's
	lock  *os.File
	links map[string]string // what is made of paths -> targets
}

const folderPrefix = "innate-exec-"

// check looks whether the files can be made, before any secret is read, and
// removes what a killed one left behind.
func (m *memoryFiles) check(grants []grant) error {
	for _, g := range grants {
		if g.path == "" {
			continue
		}
		if m.base == "" {
			if err := m.open(); err != nil {
				return err
			}
		}
		if err := m.free(g.path); err != nil {
			return err
		}
	}
	return nil
}

// open finds the place in memory.
func (m *memoryFiles) open() error {
	var why []string
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if dir == "" {
			continue
		}
		err := inMemory(dir)
		if err == nil {
			m.base = dir
			return m.sweep()
		}
		why = append(why, err.Error())
	}
	return fmt.Errorf("there is no place in memory for --file: %s; give the folder of a tmpfs in XDG_RUNTIME_DIR, or use --secret", strings.Join(why, "; "))
}

// inMemory refuses a folder that is on a disk, or in which another user could
// put one in place of ours.
func inMemory(dir string) error {
	var sys unix.Statfs_t
	if err := unix.Statfs(dir, &sys); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if sys.Type != unix.TMPFS_MAGIC && sys.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is not in memory (neither tmpfs nor ramfs)", dir)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	ours := int(st.Uid) == os.Geteuid() && fi.Mode().Perm()&0o022 == 0
	sticky := st.Uid == 0 && fi.Mode()&os.ModeSticky != 0
	if !filepath.IsAbs(dir) || !ours && !sticky {
		return fmt.Errorf("%s is open to others", dir)
	}
	return nil
}

// sweep removes this user's folders that no running "innate exec" has locked.
func (m *memoryFiles) sweep() error {
	found, err := os.ReadDir(m.base)
	if err != nil {
		return fmt.Errorf("looking for files that a killed innate exec left behind: %w", err)
	}
	for _, e := range found {
		fi, err := e.Info()
		if err != nil || !fi.IsDir() || !strings.HasPrefix(e.Name(), folderPrefix) || int(fi.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			continue // it is gone, or not ours
		}
		path := filepath.Join(m.base, e.Name())
		lock, err := lockFolder(path)
		if err != nil {
			continue // in use
		}
		err = os.RemoveAll(path)
		_ = lock.Close() // its folder is gone
		if err != nil {
			return fmt.Errorf("removing files that a killed innate exec left behind: %w", err)
		}
	}
	return nil
}

// lockFolder locks a folder for as long as the file is open, unless somebody
// else has.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written to it
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

// free refuses a path that exists, or cannot be made.
func (m *memoryFiles) free(path string) error {
	parent := filepath.Dir(path)
	if fi, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--file %s: the folder %s does not exist; make it first", path, parent)
	} else if err != nil {
		return fmt.Errorf("--file %s: %w", path, err)
	} else if !fi.IsDir() {
		return fmt.Errorf("--file %s: %s is not a folder", path, parent)
	}
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--file %s: %w", path, err)
	}
	if m.stale(path) {
		return os.Remove(path)
	}
	return fmt.Errorf("--file %s exists already; name another path, or remove it", path)
}

// stale reports whether path is a link that a killed one left behind.
func (m *memoryFiles) stale(path string) bool {
	to, err := os.Readlink(path)
	if err != nil {
		return false
	}
	dir := filepath.Dir(to)
	if filepath.Dir(dir) != m.base || !strings.HasPrefix(filepath.Base(dir), folderPrefix) {
		return false
	}
	_, err = os.Lstat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// make makes the files, on the thread that starts the command.
func (m *memoryFiles) make(grants []grant, values map[place]string) error {
	if m.base == "" {
		return nil
	}
	if err := m.folder(); err != nil {
		return fmt.Errorf("making a folder in memory: %w", err)
	}
	private, err := mountPrivate(m.dir)
	if err != nil {
		return fmt.Errorf("making the command's own files in memory: %w", err)
	}
	m.links = map[string]string{}
	for i, g := range grants {
		if g.path == "" {
			continue
		}
		file := filepath.Join(m.dir, strconv.Itoa(i))
		if err := os.WriteFile(file, []byte(values[g.place]), 0o400); err != nil {
			return fmt.Errorf("writing the file for %s in memory: %w", g.path, err)
		}
		if err := os.Symlink(file, g.path); err != nil {
			return fmt.Errorf("making --file %s: %w", g.path, err)
		}
		m.links[g.path] = file
	}
	if !private {
		return nil
	}
	if err := unix.Mount("", m.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("making the command's files read-only: %w", err)
	}
	return nil
}

// folder makes this command's folder. It has its name only when it is locked:
// another one's sweep must not take it for one that was left behind.
func (m *memoryFiles) folder() error {
	tmp, err := os.MkdirTemp(m.base, ".new-"+folderPrefix)
	if err != nil {
		return err
	}
	m.dir = tmp
	if m.lock, err = lockFolder(tmp); err != nil {
		return err
	}
	name := filepath.Join(m.base, strings.TrimPrefix(filepath.Base(tmp), ".new-"))
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	m.dir = name
	return nil
}

// mountPrivate gives this thread a mount namespace of its own, with a ramfs on
// dir. It reports false where that is not allowed: to users but root, and in
// many containers. Mounts that the host makes later arrive in it; those in it
// stay in it.
func mountPrivate(dir string) (bool, error) {
	for _, step := range []struct {
		doing string
		do    func() error
	}{
		{"making a mount namespace", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"keeping its mounts in it", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") }},
		{"mounting a ramfs", func() error {
			return unix.Mount("innate", dir, "ramfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
		}},
	} {
		err := step.do()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("%s: %w", step.doing, err)
		}
	}
	return true, nil
}

// remove removes what make made. The kernel takes a mount on the folder away
// with it, in every namespace: what the command left running finds the files
// no more either.
func (m *memoryFiles) remove() error {
	var errs []error
	for path, file := range m.links {
		if to, err := os.Readlink(path); err != nil || to != file {
			continue // the command removed it, or made something else of it
		}
		errs = append(errs, os.Remove(path))
	}
	if m.dir != "" {
		errs = append(errs, os.RemoveAll(m.dir))
	}
	if m.lock != nil {
		errs = append(errs, m.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the command's files: %w", err)
	}
	return nil
}
