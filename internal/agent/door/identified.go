package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/innate-id/innate/internal/evidence"
)

type callerKey struct{}

// identified is the evidence about a connection once it is taken.
type identified struct {
	conn net.Conn
	done chan struct{} // closed when what follows is there
	ev   evidence.Evidence
	text string // ev in words
	err  error
	left func() // may be nil
}

// take takes the evidence about c, and closes c if it is not admitted.
func (id *identified) take(c net.Conn, identify func(net.Conn) (evidence.Evidence, error), admit func(evidence.Evidence, string) (func(), bool)) {
	id.ev, id.err = identify(c)
	if id.err == nil {
		id.text = id.ev.String()
	}
	if admit == nil {
		return
	}
	left, ok := admit(id.ev, id.text)
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
	ev, _, err := Described(ctx)
	return ev, err
}

// Described is [Caller] with the evidence in words (evidence.Evidence.String),
// which are made once for a connection.
func Described(ctx context.Context) (ev evidence.Evidence, text string, err error) {
	id, ok := ctx.Value(callerKey{}).(*identified)
	if !ok {
		return evidence.Evidence{}, "", errors.New("request did not come through a door")
	}
	select {
	case <-id.done:
		return id.ev, id.text, id.err
	default: // waiting for either is dearer, and only a connection's first request does
	}
	select {
	case <-id.done:
		return id.ev, id.text, id.err
	case <-ctx.Done():
		return evidence.Evidence{}, "", fmt.Errorf("taking evidence: %w", ctx.Err())
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
