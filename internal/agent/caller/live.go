package caller

import (
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// OfProcess returns the evidence about a process that runs now, as if it had
// connected through from just now. It is for people who ask why; nothing is
// given on its word.
func (i *Identifier) OfProcess(pid int, from From) (evidence.Evidence, error) {
	i.setUp()
	rec, err := i.recordNow(pid)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	f := i.recorded(rec)
	ev := evidence.Evidence{Door: from.Door, Grade: evidence.GradeAfter, Interpreter: f.interpreter, Process: f.process}
	if from.Captured {
		ev.Grade = evidence.GradeKernel
	}
	ev.Selectors = slices.Concat(from.Selectors, f.selectors)
	slices.Sort(ev.Selectors)
	ev.Selectors = slices.Compact(ev.Selectors)
	return ev, nil
}

// recordNow is the record that the kernel would write if the process connected
// now.
func (i *Identifier) recordNow(pid int) (Record, error) {
	p, err := openProcess(i.proc(), pid)
	if err != nil {
		return Record{}, err
	}
	defer p.close()
	ticks, err := p.started()
	if err != nil {
		return Record{}, err
	}
	cred, err := p.status()
	if err != nil {
		return Record{}, err
	}
	rec := Record{PID: pid, StartNS: ticks * nsPerTick, UID: cred.uids[1], GID: cred.gids[1]}
	if exe, err := p.executable(); err == nil { // a kernel thread has none
		rec.Device, rec.Inode = exe.number.device, exe.number.inode
		exe.close()
	}
	in, err := p.cgroup()
	if err != nil || i.cgroups.open() != nil {
		return rec, err
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(i.cgroups.root, in.v2), &st); err == nil {
		rec.CgroupID = st.Ino
	}
	return rec, nil
}
