package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// An agent's live heap is a megabyte or two. By the runtime's own rule it would
// be collected for every two more megabytes that answers make, some forty times
// a second under load, each time with all requests halted twice. Twice the room
// halves that; what it costs in memory is given back at rest.
const gcPercent = 200

// restLook is how often it is looked whether the agent is at rest.
const restLook = 10 * time.Second

// tuneMemory sets the collector, unless GOGC does, and gives memory back until
// ctx ends.
func tuneMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	go giveBack(ctx)
}

// giveBack returns to the system what answers took, once nothing was collected
// for a while after something was: by itself the runtime keeps it.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(restLook)
	defer tick.Stop()
	var r rest
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if r.came(collections()) {
			debug.FreeOSMemory()
			r.given = collections()
		}
	}
}

// rest is whether the heap is worth giving back, by how often it was collected.
type rest struct {
	seen  uint64 // when last looked
	given uint64 // when last given back
}

// came reports whether nothing was collected since the last look, and something
// since the heap was given back.
func (r *rest) came(collected uint64) bool {
	quiet := collected == r.seen
	r.seen = collected
	return quiet && collected != r.given
}

// collections is how often the heap has been collected.
func collections() uint64 {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
