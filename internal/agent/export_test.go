package agent

import (
	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
)

// Reach is reach, for tests of the agent from outside.
func Reach(a *Agent, pid int, name string) (caller.From, bool) { return a.reach(pid, name) }

// IMDSDoor is the configuration of a door of the agent's.
func IMDSDoor(a *Agent, name string) door.Config { return a.door(name, metadata.IMDS(a.dialects())) }
