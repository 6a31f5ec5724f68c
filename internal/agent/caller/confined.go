package caller

import (
	"os"
	"strings"

	"github.com/innate-id/innate/internal/agent/caller/container"
)

// Confined reports whether a process is in a control group that it must not be
// taken out of: a container's, or a unit's of the host's init, which bound what
// devices, addresses and memory its processes have, and by which they are
// stopped. A user's sessions are not meant, nor the group that the agent itself
// is in: whoever is there is whoever started the agent.
func Confined(pid int) (bool, error) {
	p, err := openProcess("/proc", pid)
	if err != nil {
		return false, err
	}
	defer p.close()
	in, err := p.cgroup()
	if err != nil {
		return false, err
	}
	// A container of a runtime that is not known here has its own mounts too.
	if _, ok := container.Of(in.path()); ok || !p.inHostMounts() {
		return true, nil
	}
	if unit(in.path()) == "" || strings.HasPrefix(in.path(), "/user.slice/") {
		return false, nil
	}
	own, err := ownCgroups()
	return own != in, err
}

func ownCgroups() (cgroups, error) {
	self, err := openProcess("/proc", os.Getpid())
	if err != nil {
		return cgroups{}, err
	}
	defer self.close()
	return self.cgroup()
}
