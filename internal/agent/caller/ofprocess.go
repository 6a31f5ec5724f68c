package caller

import (
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/evidence"
)

// OfProcess returns the evidence about a process that runs now, as if it had
// connected through from just now. It is for people who ask why; nothing is
// given on its word.
func (i *Identifier) OfProcess(pid int, from From) (evidence.Evidence, error) {
	i.setUp()
	f, err := i.ofProcess(pid, from)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	ev := evidence.Evidence{Door: from.Door, Grade: evidence.GradeAfter, Interpreter: f.interpreter, Process: f.process}
	if from.Captured || from.Unix {
		ev.Grade = evidence.GradeKernel
	}
	ev.Selectors = append(slices.Clone(from.Selectors), f.selectors...)
	slices.Sort(ev.Selectors)
	ev.Selectors = slices.Compact(ev.Selectors)
	return ev, nil
}

func (i *Identifier) ofProcess(pid int, from From) (facts, error) {
	p, err := openProcess(i.proc(), pid)
	if err != nil {
		return facts{}, err
	}
	defer p.close()
	cred, err := p.status()
	if err != nil {
		return facts{}, err
	}
	in, err := p.cgroup()
	if err != nil {
		return facts{}, err
	}
	f := facts{process: evidence.Process{PID: pid}}
	i.user(&f, cred.uids[1])
	i.group(&f, cred.gids[1])
	i.supplementary(&f, cred.groups)
	i.place(&f, in.path())
	exe, err := p.executable()
	if err != nil {
		return f, nil // a kernel thread has none, and a user's is not shown to another
	}
	defer exe.close()
	f.process.Executable = exe.path
	if !from.Unix {
		i.program(&f, p, exe, cred.uids[1])
	}
	return f, p.still(exe)
}
