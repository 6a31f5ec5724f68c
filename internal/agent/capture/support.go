package capture

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/cgroup"
)

// remedy is what to do where capture cannot be had.
const remedy = "or turn capture off: doors on loopback work without it, with evidence that is taken after the fact"

// supported says what this process or this kernel lacks.
func supported() error {
	var faults []error
	var head = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("asking for capabilities: %w", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	for _, need := range []struct {
		name string
		cap  int
		or   int
	}{
		{"CAP_BPF", unix.CAP_BPF, unix.CAP_SYS_ADMIN},
		{"CAP_PERFMON", unix.CAP_PERFMON, unix.CAP_SYS_ADMIN},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, unix.CAP_NET_ADMIN},
	} {
		if !has(need.cap) && !has(need.or) {
			faults = append(faults, fmt.Errorf("the capability %s is missing", need.name))
		}
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		faults = append(faults, errors.New("the kernel has no type information (CONFIG_DEBUG_INFO_BTF)"))
	}
	if _, err := cgroup.Mount(); err != nil {
		faults = append(faults, err)
	}
	// In a pid namespace of its own the agent would take the kernel's process
	// ids for others (PROC_PID_INIT_INO is the host's).
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil || st.Ino != 0xEFFFFFFC {
		faults = append(faults, errors.New("the agent is not in the host's pid namespace"))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w\ngive the agent what is missing, %s", errors.Join(faults...), remedy)
	}
	return nil
}

// maxName is the longest name of a chosen cgroup that the programs read.
const maxName = 127

// checkCgroup refuses what is no path as the kernel writes it.
func checkCgroup(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return fmt.Errorf("cgroup %q: a path as in /proc/PID/cgroup was expected, like /system.slice", p)
	}
	parts := strings.Split(p, "/")
	if len(parts) > 16 {
		return fmt.Errorf("cgroup %q lies over 15 levels deep: choose one above it", p)
	}
	for _, name := range parts {
		if len(name) > maxName {
			return fmt.Errorf("cgroup %q has a name of over %d bytes: choose one above it", p, maxName)
		}
	}
	return nil
}

// cgroupDir is the folder of a cgroup that exists.
func cgroupDir(p string) (string, error) {
	at, err := cgroup.Mount()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(at, p)
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return "", fmt.Errorf("cgroup %q does not exist below %s: make it before the agent starts, or choose one that lasts (a slice)", p, at)
	}
	return dir, nil
}
