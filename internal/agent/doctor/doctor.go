// Package doctor looks at a host and says what keeps its agent from working,
// each finding with its remedy.
//
// What a newcomer would get wrong: it trusts nothing that it can look at
// itself, and changes nothing. It asks the agent for what only the agent knows
// (over the control socket), and the system for the rest; so it also says
// something of an agent that does not run. What it was not told about (a
// configuration, a state directory) it does not look at.
package doctor

import (
	"context"
	"crypto/x509"
	"net"
	"time"

	"github.com/innate-id/innate/internal/agent"
)

// Level is how bad a finding is.
type Level string

// Levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // works, and not as it should
	Fail Level = "fail" // does not work
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Found says what there is.
	Found string `json:"found"`
	// Remedy says what to do; empty with [OK].
	Remedy string `json:"remedy,omitempty"`
}

// Host is what is looked at. What is empty is not known and not looked at,
// unless it says otherwise.
type Host struct {
	// Socket is the agent's control socket.
	Socket string
	// StateDir is the agent's state directory.
	StateDir string
	// ControlPlane is the fleet's URL; CA, Dial and their defaults are those of
	// [agent.Config].
	ControlPlane string
	CA           *x509.CertPool
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	// Doors are the addresses of the configuration.
	Doors []agent.DoorConfig
	// Start is the command that starts the agent, for remedies.
	Start string
	// Root is where the system's files are, "/" if empty.
	Root string
	// Getenv reads the environment that programs have.
	Getenv func(string) string
	Now    func() time.Time

	// Set by Run.
	status   *agent.Status
	agentPID int
}

// Check is one row of the table.
type Check struct {
	Name string
	// Run returns what it found, worst things first; nothing where it does not
	// apply. It fills in all but the name.
	Run func(ctx context.Context, h *Host) []Finding
}

// checks is the table, in the order in which one thing needs another.
var checks = []Check{
	{"agent", checkAgent},
	{"leftovers", checkLeftovers},
	{"state", checkState},
	{"name", checkName},
	{"control plane", checkControlPlane},
	{"feed", checkFeed},
	{"offline", checkOffline},
	{"certificate", checkCertificate},
	{"journal", checkJournal},
	{"doors", checkDoors},
	{"address", checkAddress},
	{"evidence", checkEvidence},
	{"capabilities", checkCapabilities},
	{"cgroup", checkCgroup},
	{"btf", checkBTF},
	{"bpffs", checkBPFFS},
	{"ports", checkPorts},
	{"proxy", checkProxy},
}

// checkTimeout bounds one check.
const checkTimeout = 5 * time.Second

// Run makes every check, and more after them.
func Run(ctx context.Context, h Host, more ...Check) []Finding {
	if h.Root == "" {
		h.Root = "/"
	}
	if h.Now == nil {
		h.Now = time.Now
	}
	var out []Finding
	for _, c := range append(checks[:len(checks):len(checks)], more...) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		for _, f := range c.Run(ctx, &h) {
			f.Check = c.Name
			out = append(out, f)
		}
		cancel()
	}
	return out
}

// Failed reports whether something does not work.
func Failed(findings []Finding) bool {
	for _, f := range findings {
		if f.Level == Fail {
			return true
		}
	}
	return false
}

func ok(found string) []Finding { return []Finding{{Level: OK, Found: found}} }
func warn(found, remedy string) []Finding {
	return []Finding{{Level: Warn, Found: found, Remedy: remedy}}
}
func fail(found, remedy string) []Finding {
	return []Finding{{Level: Fail, Found: found, Remedy: remedy}}
}
