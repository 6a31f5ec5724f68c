package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// read reads a file of the system.
func (h *Host) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.Root, name))
	return string(b), err
}

// mounted returns where a filesystem of a type is mounted.
func (h *Host) mounted(kind string) (at []string) {
	text, err := h.read("proc/self/mounts")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == kind {
			at = append(at, f[1])
		}
	}
	return at
}

// local is the metadata address with its port as /proc/net/tcp has it.
const local = "FEA9FEA9:0050"

// checkAddress looks for another program that listens where clients look for
// the metadata service. Without capture it would be asked instead of the agent.
func checkAddress(_ context.Context, h *Host) []Finding {
	text, err := h.read("proc/net/tcp")
	if err != nil {
		return nil // no IPv4, and nothing at the address
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		const listening = "0A"
		if f := strings.Fields(lines.Text()); len(f) > 9 && f[1] == local && f[3] == listening {
			return warn("a process of user "+f[7]+" listens on 169.254.169.254:80", "if it is not this agent (ss -tlnp says), stop it: programs take it for the metadata service")
		}
	}
	return ok("nothing else listens on 169.254.169.254:80")
}

func checkEvidence(_ context.Context, h *Host) []Finding {
	switch {
	case h.status == nil:
		return nil
	case h.status.Evidence == evidence.GradeKernel.String():
		return ok("written down by the kernel at the connect")
	}
	return warn("asked for after the connect ("+h.status.Evidence+"): capture is off", "set capture in the agent's configuration, if rules are to tell programs of one user apart; see cgroup, btf, bpffs and capabilities")
}

// wanted are the capabilities of the unit, each with what is lost without it.
var wanted = []struct {
	bit  uint
	name string
	why  string
}{
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "which program of another user asks"},
	{unix.CAP_BPF, "CAP_BPF", "capture"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "capture, and doors of virtual machines"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "doors of containers"},
	{unix.CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", "doors on ports below 1024"},
}

func checkCapabilities(_ context.Context, h *Host) []Finding {
	if h.status == nil || h.agentPID == 0 {
		return nil
	}
	text, err := h.read("proc/" + strconv.Itoa(h.agentPID) + "/status")
	if err != nil {
		return warn("the agent's process cannot be looked at: "+err.Error(), "run this as root")
	}
	_, after, _ := strings.Cut(text, "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	have, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return warn("the kernel's word for the agent's capabilities is not understood: "+line, "report it")
	}
	var lacks []string
	for _, w := range wanted {
		if have&(1<<w.bit) == 0 {
			lacks = append(lacks, w.name+" ("+w.why+")")
		}
	}
	if len(lacks) > 0 {
		return warn("the agent lacks "+strings.Join(lacks, ", "), "run it as root with the capabilities of deploy/systemd/innate-agent.service, if you need these")
	}
	return ok("the agent has what it can use")
}

func checkCgroup(_ context.Context, h *Host) []Finding {
	if at := h.mounted("cgroup2"); len(at) > 0 {
		return ok("version 2 is mounted on " + at[0])
	}
	return warn("version 2 of cgroups is not mounted", "boot with systemd.unified_cgroup_hierarchy=1: without it there is no capture, and no unit or container is known")
}

func checkBTF(_ context.Context, h *Host) []Finding {
	if _, err := os.Stat(filepath.Join(h.Root, "sys/kernel/btf/vmlinux")); err != nil {
		return warn("the kernel does not describe its types (no /sys/kernel/btf/vmlinux)", "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions have since 2020: capture may need it")
	}
	return ok("the kernel describes its types")
}

func checkBPFFS(_ context.Context, h *Host) []Finding {
	if at := h.mounted("bpf"); len(at) > 0 {
		return ok("mounted on " + at[0])
	}
	return warn("no bpf filesystem is mounted", "mount -t bpf bpf /sys/fs/bpf: capture is kept there when the agent is not running")
}

// checkPorts says whether any user could take the metadata port.
func checkPorts(_ context.Context, h *Host) []Finding {
	const setting = "net.ipv4.ip_unprivileged_port_start"
	text, err := h.read("proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return nil
	}
	first, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || first > 80 {
		return ok(setting + " is " + strings.TrimSpace(text))
	}
	return warn(fmt.Sprintf("%s is %d: any user can listen on port 80, also of the metadata address", setting, first), "sysctl -w "+setting+"=1024, unless something here needs it")
}

// checkProxy finds a proxy that would be asked for the metadata address.
func checkProxy(_ context.Context, h *Host) []Finding {
	if h.Getenv == nil {
		return nil
	}
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		if h.Getenv(name) == "" {
			continue
		}
		for _, except := range []string{"no_proxy", "NO_PROXY"} {
			list := strings.FieldsFunc(h.Getenv(except), func(r rune) bool { return r == ',' || r == ' ' })
			if slices.Contains(list, "169.254.169.254") || slices.Contains(list, "169.254.0.0/16") || slices.Contains(list, "*") {
				return ok(name + " is set, and " + except + " leaves the metadata address out")
			}
		}
		return warn(name+" is set: programs would ask the proxy for 169.254.169.254", "add 169.254.169.254 to NO_PROXY and no_proxy, where programs get their environment")
	}
	return ok("no proxy is between programs and 169.254.169.254")
}
