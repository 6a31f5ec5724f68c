package agent

import (
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
		// Without evidence there is a turn too, one for all who have none.
		ev, text, _ := door.Described(r.Context())
		first, err := a.limits.Turn(r.Context(), limited(name, ev, text))
		if err == nil {
			h.ServeHTTP(w, r)
			return
		}
		if first {
			a.log.Warn("caller asks too often", "door", name, "caller", text, "err", err)
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
func (a *Agent) admit(name string) func(evidence.Evidence, string) (func(), bool) {
	return func(ev evidence.Evidence, text string) (func(), bool) {
		closed, first, err := a.limits.Open(limited(name, ev, text))
		if first {
			a.log.Warn("caller has too many connections", "door", name, "caller", text, "err", err)
		}
		return closed, err == nil
	}
}

// limited is whose turn it is.
func limited(name string, ev evidence.Evidence, text string) limit.Caller {
	return limit.Caller{Origin: origin(name, ev), Name: text}
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
