package agent

import "github.com/innate-id/innate/internal/agent/caller"

// Reach is reach, for tests of the agent from outside.
func Reach(a *Agent, pid int, name string) (caller.From, bool) { return a.reach(pid, name) }
