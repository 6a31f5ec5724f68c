// Package cgroup gives each program that is started as a workload a control
// group of its own, so that the kernel can say for each connection which start
// made it: a program and all that it starts are in its group and cannot leave
// it without being root.
//
// What a newcomer would get wrong: the pid of who asked for a start can be
// another process's by the time it is moved, so the mover holds the process
// (pidfd) and takes the move back if it ended. And a group goes only when nobody
// is in it: what a start leaves behind keeps its group, and as the start is over,
// it is nobody from then on.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Groups makes groups below one of its own.
type Groups struct {
	mount string // of the cgroup v2 hierarchy
	path  string // of the group above all, "/innate"
}

// Open makes the group at a path of the cgroup v2 hierarchy, "/innate", or
// takes over the one that is there, and removes what earlier runs left in it
// and nobody is in. What is above it exists.
func Open(at string) (*Groups, error) {
	if err := Check(at); err != nil {
		return nil, err
	}
	mount, err := Mount()
	if err != nil {
		return nil, err
	}
	g := &Groups{mount: mount, path: at}
	if err := os.Mkdir(g.dir(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("making a control group for started programs: %w", err)
	}
	left, err := os.ReadDir(g.dir())
	if err != nil {
		return nil, fmt.Errorf("looking at the control group of started programs: %w", err)
	}
	for _, e := range left {
		if e.IsDir() {
			removeEmpty(filepath.Join(g.dir(), e.Name()))
		}
	}
	return g, nil
}

// Check refuses what cannot be the path of a group.
func Check(at string) error {
	if !path.IsAbs(at) || path.Clean(at) != at || at == "/" || strings.Contains(at, "\n") {
		return fmt.Errorf("control group %q: a path as in /proc/PID/cgroup was expected, like /innate", at)
	}
	return nil
}

// Mount returns where the cgroup v2 hierarchy is mounted.
func Mount() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("looking for the cgroup v2 hierarchy: %w", err)
	}
	if at := mountOf(string(text)); at != "" {
		return at, nil
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted: mount one with \"mount -t cgroup2 none /sys/fs/cgroup\" or boot with it")
}

// mountOf finds a whole cgroup v2 hierarchy in the text of mountinfo(5).
func mountOf(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		// 36 35 0:30 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 6 && strings.HasPrefix(after, "cgroup2 ") && fields[3] == "/" {
			return unescape(fields[4])
		}
	}
	return ""
}

// unescape reads the octal escapes of mountinfo(5).
func unescape(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(n))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

func (g *Groups) dir() string { return filepath.Join(g.mount, g.path) }

// Path is the path of the group of all groups.
func (g *Groups) Path() string { return g.path }

// Close removes the group of all groups, and those below, as far as nobody is
// in them any more; gone says whether all are away.
func (g *Groups) Close() (gone bool) { return removed(g.dir()) }

// Group is the control group of one start.
type Group struct {
	groups *Groups
	name   string
}

// New makes a group. The name is not used twice at a time.
func (g *Groups) New(name string) (*Group, error) {
	if err := os.Mkdir(filepath.Join(g.dir(), name), 0o755); err != nil {
		return nil, fmt.Errorf("making the control group of a start: %w", err)
	}
	return &Group{groups: g, name: name}, nil
}

// Find returns the group with a name that an earlier process made.
func (g *Groups) Find(name string) (*Group, error) {
	if _, err := os.Stat(filepath.Join(g.dir(), name)); err != nil {
		return nil, fmt.Errorf("finding the control group of a start: %w", err)
	}
	return &Group{groups: g, name: name}, nil
}

// All returns the groups that are there.
func (g *Groups) All() ([]*Group, error) {
	there, err := os.ReadDir(g.dir())
	if err != nil {
		return nil, fmt.Errorf("looking at the control groups of started programs: %w", err)
	}
	var out []*Group
	for _, e := range there {
		if e.IsDir() {
			out = append(out, &Group{groups: g, name: e.Name()})
		}
	}
	return out, nil
}

// Name is the group's name.
func (c *Group) Name() string { return c.name }

// Path is the group's path in the hierarchy, "/innate/run-1", as
// /proc/PID/cgroup has it.
func (c *Group) Path() string { return c.groups.path + "/" + c.name }

func (c *Group) dir() string { return filepath.Join(c.groups.dir(), c.name) }

// Of returns the name of the group that a path of the hierarchy is in, "" if
// in none.
func (g *Groups) Of(cgroup string) string {
	below, ok := strings.CutPrefix(cgroup, g.path+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(below, "/")
	return name
}

// Take moves the process that pidfd holds, whose id is pid, into the group;
// what it starts from then on is there too.
func (c *Group) Take(pid, pidfd int) error {
	if pid <= 0 { // "0" is the kernel's word for whoever writes it: the agent
		return fmt.Errorf("moving process %d into the control group of its start: it is in another pid namespace", pid)
	}
	if err := move(c.dir(), pid); err != nil {
		return fmt.Errorf("moving process %d into the control group of its start: %w", pid, err)
	}
	// It lived when it was moved if it lives now; else it may have been another.
	if err := lives(pidfd); err != nil {
		return errors.Join(fmt.Errorf("moving process %d into the control group of its start: %w", pid, err), c.empty())
	}
	return nil
}

// lives returns an error if the process has ended. It takes no right to send
// signals to it.
func lives(pidfd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("asking whether it lives: %w", err)
		case n > 0:
			return errors.New("it ended meanwhile")
		}
		return nil
	}
}

// empty moves everybody in the group out of it.
func (c *Group) empty() error {
	text, err := os.ReadFile(filepath.Join(c.dir(), "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("reading who is in a control group: %w", err)
	}
	for pid := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return fmt.Errorf("reading who is in a control group: %w", err)
		}
		if err := move(c.groups.mount, n); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("moving process %d out of a control group: %w", n, err)
		}
	}
	return nil
}

func move(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Remove removes the group if nobody is in it; gone says whether it is away.
func (c *Group) Remove() (gone bool) { return removed(c.dir()) }

func removed(dir string) bool {
	removeEmpty(dir)
	_, err := os.Stat(dir)
	return errors.Is(err, fs.ErrNotExist)
}

// removeEmpty removes a group and the groups below it as far as nobody is in
// them: rmdir(2) refuses the others.
func removeEmpty(dir string) {
	below, err := os.ReadDir(dir)
	if err != nil {
		return // gone
	}
	for _, e := range below {
		if e.IsDir() {
			removeEmpty(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir) // it is in use
}
