package door

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// silence is how long a connection that has sent nothing yet holds up the end
// of a door. It may be on its way to its first request, or be held open by
// somebody who would keep the agent from being upgraded.
const silence = time.Second

// leavePoll is how often the end of what is under way is looked for.
const leavePoll = 2 * time.Millisecond

// leaving is the state of a door whose place another process is to take.
type leaving struct {
	begun atomic.Bool
	busy  atomic.Int64 // requests under way
	open  atomic.Int64 // connections
}

// told counts requests, and asks clients to come back over a new connection
// once leaving has begun.
func (l *leaving) told(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.busy.Add(1)
		defer l.busy.Add(-1)
		if l.begun.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// count follows connections; see [http.Server.ConnState].
func (l *leaving) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		l.open.Add(-1)
	}
}

// Dismiss asks the clients of kept-alive connections, with each answer from
// here on, to use a new one. The door answers as before.
func (d *Door) Dismiss() { d.leaving.begun.Store(true) }

// Leave ends the door for a process that takes its place: this one stops
// accepting and answers what it has accepted. The socket itself stays if
// somebody else holds it, and what arrives waits in it. It returns early when
// ctx ends, and cuts off what is still under way.
//
// This is not [http.Server.Shutdown], which throws away a request that arrives
// over a connection that was accepted just before.
func (d *Door) Leave(ctx context.Context) error {
	o := d.take("the agent has left it to the next")
	if o == nil {
		return nil
	}
	if u, ok := o.listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	err := o.listener.Close()
	if o.done == nil {
		return err
	}
	<-o.done                             // nothing more is accepted
	o.server.SetKeepAlivesEnabled(false) // closes those that are idle
	tick := time.NewTicker(leavePoll)
	defer tick.Stop()
	began := time.Now()
	for d.leaving.open.Load() > 0 && ctx.Err() == nil {
		if d.leaving.busy.Load() == 0 && time.Since(began) > silence {
			break
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return errors.Join(err, o.server.Close())
}
