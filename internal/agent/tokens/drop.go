package tokens

import (
	"strings"

	"github.com/innate-id/innate/internal/fleetapi"
)

// change is a [fleetapi.Change] made quick to compare with.
type change struct {
	revision   int64
	resources  map[string]bool // in lower case
	principals map[string]bool
}

// Drop forgets every token that ch concerns, also those on their way.
func (c *Cache) Drop(ch fleetapi.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.All {
		// Revisions may have begun anew (a restored backup), so that the
		// horizon can go back.
		c.recent, c.horizon = nil, ch.Revision
		for _, e := range c.entries {
			c.remove(e)
		}
		return
	}
	if len(ch.Resources) == 0 && len(ch.Principals) == 0 {
		return
	}
	d := change{ch.Revision, set(ch.Resources), set(ch.Principals)}
	for _, e := range c.entries {
		if d.concerns(e) {
			c.remove(e)
		}
	}
	c.recent = append(c.recent, d)
	if len(c.recent) > maxRecent {
		c.horizon = max(c.horizon, c.recent[0].revision)
		c.recent = append([]change(nil), c.recent[1:]...)
	}
}

// overtaken reports whether something that concerns e changed after its token
// was made.
func (c *Cache) overtaken(e *entry) bool {
	if e.tok.Revision < c.horizon {
		return true
	}
	for _, d := range c.recent {
		if d.concerns(e) {
			return true
		}
	}
	return false
}

// concerns reports whether the change is later than e's token and about its
// workload, its identity, anything that they lie in, or its principal.
func (d change) concerns(e *entry) bool {
	if e.tok.Revision >= d.revision {
		return false
	}
	return d.principals[strings.ToLower(e.tok.Principal)] || d.above(e.req.Workload) || d.above(e.tok.Identity)
}

func (d change) above(id string) bool {
	for k := strings.ToLower(id); k != ""; {
		if d.resources[k] {
			return true
		}
		i := strings.LastIndexByte(k, '/')
		if i < 0 {
			return false
		}
		k = k[:i]
	}
	return false
}

func set(keys []string) map[string]bool {
	out := make(map[string]bool, len(keys))
	for _, k := range keys {
		out[strings.ToLower(strings.TrimSuffix(k, "/"))] = true
	}
	return out
}
