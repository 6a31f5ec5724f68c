package caller

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/evidence"
)

// OfProcess returns the evidence about a process that runs now, as if it had
// connected through from just now. It is for people who ask why; nothing is
// given on its word.
func (i *Identifier) OfProcess(pid int, from From) (evidence.Evidence, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	uid, err := effective(string(status), "Uid:")
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	gid, err := effective(string(status), "Gid:")
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("reading process %d: %w", pid, err)
	}
	// A kernel thread has no executable.
	exe, _ := os.Readlink(filepath.Join(dir, "exe"))
	ev := evidence.Evidence{Door: from.Door, Grade: evidence.GradeAfter, Process: evidence.Process{PID: pid, Executable: exe}}
	if from.Captured {
		ev.Grade = evidence.GradeKernel
	}
	ev.Selectors = append(selectors(uid, gid), from.Selectors...)
	return ev, nil
}

// effective reads the second number of a line of /proc/PID/status: real,
// effective, saved and filesystem id (proc_pid_status(5)).
func effective(status, name string) (uint32, error) {
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) == 5 && fields[0] == name {
			id, err := strconv.ParseUint(fields[2], 10, 32)
			return uint32(id), err
		}
	}
	return 0, fmt.Errorf("its status has no %s", name)
}
