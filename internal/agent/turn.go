package agent

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
)

// inTurn lets each caller have its turn and no more, whatever it asks and
// however that ends. throttled writes the answer for who asks too often.
func (a *Agent) inTurn(name string, throttled func(http.ResponseWriter, error), h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := peerOf(r.Context(), name).turn
		first, err := a.limits.Turn(r.Context(), who)
		if err == nil {
			h.ServeHTTP(w, r)
			return
		}
		if first {
			a.log.Warn("caller asks too often", "door", name, "caller", who.Name, "err", err)
		}
		throttled(w, err)
	})
}

// tooMany answers who asks too often, and counts it: no dialect has seen it.
func (a *Agent) tooMany(w http.ResponseWriter, err error) {
	metadata.TooMany(w, err)
	if a.metrics != nil {
		a.metrics.Observe(&metadata.Event{Outcome: metadata.Throttled})
	}
}

// admit bounds the connections of each caller of a door.
func (a *Agent) admit(name string) func(*door.Peer) (func(), bool) {
	return func(p *door.Peer) (func(), bool) {
		k := newPeer(name, p)
		p.Kept = k
		closed, first, err := a.limits.Open(k.turn)
		if first {
			a.log.Warn("caller has too many connections", "door", name, "caller", p.Text, "err", err)
		}
		return closed, err == nil
	}
}

// peer is what the agent keeps of who is at the other end of a connection.
type peer struct {
	// turn is whose turn its requests take.
	turn limit.Caller
	// placed is who it was found to be, by a book; nil until it was. See
	// [Agent.place].
	placed *metadata.Caller
}

func newPeer(door string, p *door.Peer) *peer {
	return &peer{turn: limit.Caller{Origin: origin(door, p.Evidence), Name: p.Text}}
}

// peerOf returns the peer of a request's connection. Without evidence there is
// one too, the same for all who have none.
func peerOf(ctx context.Context, name string) *peer {
	if p, _ := door.Of(ctx); p != nil {
		return p.Kept.(*peer)
	}
	return newPeer(name, new(door.Peer))
}

// origin is what a caller cannot choose: its virtual machine, its container,
// its user, at last its door.
func origin(name string, ev evidence.Evidence) string {
	for _, kind := range []string{"vm:interface:", "container:id:", "container:name:", "unix:uid:"} {
		for _, s := range ev.Selectors {
			if strings.HasPrefix(string(s), kind) {
				return string(s)
			}
		}
	}
	return "door:" + name
}

// seen remembers what was said once, so that it is not said again. When it
// holds too much it begins anew.
type seen struct {
	mu sync.Mutex
	m  map[string]bool
}

const maxSeen = 4096

func newSeen() *seen { return &seen{m: map[string]bool{}} }

// first reports whether s was not seen before.
func (x *seen) first(s string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[s] {
		return false
	}
	if len(x.m) >= maxSeen {
		clear(x.m)
	}
	x.m[s] = true
	return true
}
