package caller

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/agent/caller/container"
	"github.com/innate-id/innate/internal/evidence"
)

// Bounds of what is said of one caller: whoever has more has none of that kind,
// so that nothing is left to which come first.
const (
	maxGroups = 64
	maxLabels = 64
)

// facts are what one process adds to what is known of a connection.
type facts struct {
	selectors   []evidence.Selector
	interpreter bool
	process     evidence.Process
}

// say adds a selector, unless it cannot be written down as one.
func (f *facts) say(prefix, value string) {
	if s, err := evidence.Parse(prefix + value); err == nil {
		f.selectors = append(f.selectors, s)
	}
}

func (f *facts) sayID(prefix string, id uint32) { f.say(prefix, strconv.FormatUint(uint64(id), 10)) }

// user and group add an id and, where the host has one, its name.
func (i *Identifier) user(f *facts, uid uint32) {
	f.sayID("unix:uid:", uid)
	if name := i.names.user(uid); name != "" {
		f.say("unix:user:", name)
	}
}

func (i *Identifier) group(f *facts, gid uint32) {
	f.sayID("unix:gid:", gid)
	if name := i.names.group(gid); name != "" {
		f.say("unix:group:", name)
	}
}

func (i *Identifier) supplementary(f *facts, groups []uint32) {
	if len(groups) > maxGroups {
		return
	}
	for _, g := range groups {
		f.sayID("unix:supplementary_gid:", g)
		if name := i.names.group(g); name != "" {
			f.say("unix:supplementary_group:", name)
		}
	}
}

// recorded says what the kernel's record proves, and what the process adds
// while it is the one that was recorded.
func (i *Identifier) recorded(rec Record) facts {
	var f facts
	i.user(&f, rec.UID)
	i.group(&f, rec.GID)
	more, err := i.completed(rec)
	if err != nil {
		i.debug("a caller is known by its record alone", "pid", rec.PID, "why", err)
		if path, err := i.cgroups.path(rec.CgroupID); err == nil && path != "/" {
			f.say("cgroup:", path)
		}
		return f
	}
	more.selectors = append(f.selectors, more.selectors...)
	return more
}

// completed reads the process of a record. Its start and its executable are
// the record's before and after.
func (i *Identifier) completed(rec Record) (facts, error) {
	p, err := openProcess(i.proc(), rec.PID)
	if err != nil {
		return facts{}, err
	}
	defer p.close()
	exe, err := i.verified(p, rec)
	if err != nil {
		return facts{}, err
	}
	defer exe.close()
	f := facts{process: evidence.Process{PID: p.pid, Executable: exe.path}}
	cred, err := p.status()
	if err != nil {
		return facts{}, err
	}
	// The groups are the process's; those of a thread that plays another user
	// are not known.
	if slices.Contains(cred.uids[:2], rec.UID) && slices.Contains(cred.gids[:2], rec.GID) {
		i.supplementary(&f, cred.groups)
	}
	path, err := i.recordedCgroup(p, rec)
	if err != nil {
		return facts{}, err
	}
	i.program(&f, p, exe, rec.UID)
	i.place(&f, path)
	return f, p.still(exe)
}

// verified opens the process's executable, if the process is the record's.
func (i *Identifier) verified(p *process, rec Record) (*executable, error) {
	start, err := p.started()
	if err != nil {
		return nil, err
	}
	if !sameStart(rec.StartNS, start) {
		return nil, fmt.Errorf("%w: process %d was started at another time than the one that connected", errChanged, p.pid)
	}
	exe, err := p.executable()
	if err != nil {
		return nil, err
	}
	if exe.number != (fileNumber{rec.Device, rec.Inode}) {
		exe.close()
		return nil, fmt.Errorf("%w: process %d executes another program than when it connected", errChanged, p.pid)
	}
	return exe, nil
}

// still reports an error unless the process lives, so that its start is what it
// was, and executes what it executed before.
func (p *process) still(before *executable) error {
	now, err := p.executable()
	if err != nil {
		return err
	}
	defer now.close()
	if !before.same(now) || !p.alive() {
		return errChanged
	}
	return nil
}

// recordedCgroup returns the path of the cgroup of the record.
func (i *Identifier) recordedCgroup(p *process, rec Record) (string, error) {
	now, err := p.cgroup()
	if err != nil {
		return "", err
	}
	if !i.cgroups.is(now.v2, rec.CgroupID) { // it was moved, or removed, since
		if now.v2, err = i.cgroups.path(rec.CgroupID); err != nil {
			return "", err
		}
	}
	return now.path(), nil
}

// program says what is known of the executable.
func (i *Identifier) program(f *facts, p *process, exe *executable, account uint32) {
	f.interpreter = evidence.IsInterpreter(exe.base())
	if name, ok := exe.named(); ok && p.inHostMounts() {
		f.say("unix:path:", name)
	}
	sum, err := i.digests.of(exe, account)
	if err != nil {
		i.debug("a caller has no digest", "pid", p.pid, "why", err)
		return
	}
	f.interpreter = f.interpreter || i.copies.of(exe.stat.Size, sum)
	f.say("unix:sha256:", sum)
}

// place says what follows from a cgroup: the unit and the container.
func (i *Identifier) place(f *facts, cgroup string) {
	if !strings.HasPrefix(cgroup, "/") || strings.HasPrefix(cgroup, "/..") {
		return // outside the agent's own cgroup namespace
	}
	f.say("cgroup:", cgroup)
	if u := unit(cgroup); u != "" {
		f.say("systemd:id:", u)
	}
	c, ok := container.Of(cgroup)
	if !ok {
		return
	}
	f.say("container:id:", c.ID)
	runtimes, err := i.runtimes()
	if err != nil {
		i.warn("container runtimes cannot be asked", "err", err)
		return
	}
	said, err := runtimes.Facts(c, i.cgroupOf)
	if err != nil {
		i.warn("a container is known by its cgroup alone", "err", err)
		return
	}
	f.runtimeSays(said)
}

func (f *facts) runtimeSays(said container.Facts) {
	for _, s := range []struct{ prefix, value string }{
		{"container:name:", said.Name}, {"container:image:", said.Image}, {"container:image_id:", said.ImageID},
	} {
		if s.value != "" {
			f.say(s.prefix, s.value)
		}
	}
	if len(said.Labels) > maxLabels {
		return
	}
	for k, v := range said.Labels {
		// "a:b" with "c" would read as "a" with "b:c".
		if k != "" && !strings.Contains(k, ":") {
			f.say("container:label:"+k+":", v)
		}
	}
}

// cgroupOf is the cgroup that a process is in now.
func (i *Identifier) cgroupOf(pid int) (string, error) {
	p, err := openProcess(i.proc(), pid)
	if err != nil {
		return "", err
	}
	defer p.close()
	c, err := p.cgroup()
	return c.path(), err
}
