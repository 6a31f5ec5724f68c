package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/innate-id/innate/internal/evidence"
)

type callerKey struct{}

// Peer is who is at the other end of a connection. What is known of it stays
// as it is while the connection lasts.
type Peer struct {
	Evidence evidence.Evidence
	// Text is the evidence in words (evidence.Evidence.String), "" where it
	// could not be taken.
	Text string
	// Kept is for whoever answers the connection's requests: what holds for all
	// of them need be found only once. [Config.Admit] may set it, and then
	// whoever answers; the requests of a connection come one after the other.
	Kept any
}

// identified is a connection's context, with the evidence about the connection
// once that is taken. Both are one thing, for every request reads it: of a
// thousand connections no cache has what belongs to the next one that asks, and
// each thing of its own is one more to wait for.
type identified struct {
	context.Context
	conn  net.Conn
	taken atomic.Bool   // done is closed
	done  chan struct{} // closed when what follows is there
	peer  Peer
	err   error
	left  func() // may be nil
}

// Value gives the connection to who asks for it.
func (id *identified) Value(key any) any {
	if key == (callerKey{}) {
		return id
	}
	return id.Context.Value(key)
}

// take takes the evidence about c, and closes c if it is not admitted.
func (id *identified) take(c net.Conn, identify func(net.Conn) (evidence.Evidence, error), admit func(*Peer) (func(), bool)) {
	id.peer.Evidence, id.err = identify(id.conn)
	if id.err == nil {
		id.peer.Text = id.peer.Evidence.String()
	}
	if admit == nil {
		return
	}
	left, ok := admit(&id.peer)
	if !ok {
		id.err = errors.New("the connection was not admitted")
		c.Close()
		return
	}
	id.left = left
}

// Caller returns the evidence about the connection that a request came over.
// An error means that nobody knows who asks, and nothing may be answered.
func Caller(ctx context.Context) (evidence.Evidence, error) {
	p, err := Of(ctx)
	if err != nil {
		return evidence.Evidence{}, err
	}
	return p.Evidence, nil
}

// Of returns who is at the other end of the connection that a request came
// over. An error is as of [Caller]; the peer is nil then, or one of whom
// nothing is known but what [Config.Admit] kept.
func Of(ctx context.Context) (*Peer, error) {
	id, ok := ctx.Value(callerKey{}).(*identified)
	if !ok {
		return nil, errors.New("request did not come through a door")
	}
	if id.taken.Load() { // waiting is dearer, and only a connection's first request does
		return &id.peer, id.err
	}
	select {
	case <-id.done:
		return &id.peer, id.err
	case <-ctx.Done():
		return nil, fmt.Errorf("taking evidence: %w", ctx.Err())
	}
}

// Conn returns the connection that a request came over, to ask the kernel about
// its peer. It stays the door's.
func Conn(ctx context.Context) (net.Conn, bool) {
	id, ok := ctx.Value(callerKey{}).(*identified)
	if !ok {
		return nil, false
	}
	return id.conn, true
}

// connections are those of a door that are open, each with its evidence.
type connections struct{ m sync.Map } // of net.Conn to *identified

func (o *connections) add(c net.Conn, id *identified) { o.m.Store(c, id) }

// state is told by net/http what becomes of a connection.
func (o *connections) state(c net.Conn, s http.ConnState) {
	if s != http.StateClosed && s != http.StateHijacked {
		return
	}
	v, ok := o.m.LoadAndDelete(c)
	if !ok {
		return
	}
	id := v.(*identified)
	go func() {
		<-id.done // it may end before it is known whose it was
		if id.left != nil {
			id.left()
		}
	}()
}
