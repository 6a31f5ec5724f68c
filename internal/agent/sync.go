package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
	// silence is after how long without a word a stream counts as dead.
	silence = 3 * fleetapi.Bound
	// maxLine bounds one line of the stream, in bytes.
	maxLine = 4 << 20
	// placementsTimeout bounds one reading of the placements.
	placementsTimeout = 5 * time.Second
)

// feed follows the control plane's decisions about this host: its placements
// and their caller rules, and the stream of changes that keeps memory honest.
type feed struct {
	client *client
	tokens *tokens.Cache
	// instances are dropped by the same changes as tokens.
	instances *instances
	log       *slog.Logger
	loads     singleflight.Group
	ready     chan struct{} // closed when the stream first caught up

	// book is what was read last; written under mu, read without.
	book atomic.Pointer[book]

	mu       sync.Mutex // guards what follows
	changed  bool       // placements changed and were not read anew
	floor    int64      // what was read at an earlier revision is old
	revision int64      // how far the stream has come
	// heard is when the stream last said something, by the monotonic clock;
	// zero while it is not connected, and until it caught up after that.
	heard time.Time
	last  error // why the stream ended last
}

func newFeed(c *client, log *slog.Logger) *feed {
	f := &feed{client: c, log: log, ready: make(chan struct{})}
	f.book.Store(newBook(fleetapi.Placements{}, log))
	return f
}

// fresh reports whether what is in memory is what the control plane would say.
func (f *feed) fresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.heard.IsZero() && !f.changed && time.Since(f.heard) < fleetapi.Bound
}

// now is the book as it is.
func (f *feed) now() *book { return f.book.Load() }

// find returns the placement of a caller. Before it finds none it reads the
// placements anew, for one may have been made just now.
func (f *feed) find(ctx context.Context, s sought) (*found, error) {
	at := new(found)
	err := f.sure(ctx, func(b *book) (err error) {
		at.in = b
		at.placed, err = b.find(s)
		return err
	})
	return at, err
}

// decide finds a caller's placement and judges what it wants. Before it
// refuses it reads placements and rules anew.
func (f *feed) decide(ctx context.Context, s sought, want evidence.Want) (d decision, err error) {
	err = f.sure(ctx, func(b *book) error {
		d, err = b.decide(s, want)
		return err
	})
	return d, err
}

// sure asks the book, and before it takes a no for an answer, a book that was
// read after the question came.
func (f *feed) sure(ctx context.Context, ask func(*book) error) error {
	if err := ask(f.now()); err == nil {
		return nil
	}
	if err := f.load(ctx); err != nil {
		return err
	}
	return ask(f.now())
}

// load reads the placements. Callers share one reading, but none that began
// before they asked: it may have missed what the caller just did.
func (f *feed) load(ctx context.Context) error {
	mine, err := f.join(ctx)
	if !mine && ctx.Err() == nil {
		_, err = f.join(ctx)
	}
	return err
}

// join takes part in the reading under way, or begins one; mine says which.
func (f *feed) join(ctx context.Context) (mine bool, err error) {
	var led bool // written by the flight, read after it
	ch := f.loads.DoChan("placements", func() (any, error) {
		led = true
		// Whoever asked first may go away; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), placementsTimeout)
		defer cancel()
		return nil, f.read(ctx)
	})
	select {
	case <-ctx.Done():
		return false, unreached(ctx.Err())
	case res := <-ch:
		return led, res.Err
	}
}

func (f *feed) read(ctx context.Context) error {
	p, err := f.client.placements(ctx)
	if err != nil {
		return fmt.Errorf("reading this host's placements: %w", err)
	}
	read := newBook(p, f.log)
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Revision >= f.floor { // else a slow answer to an older question
		f.book.Store(read)
		f.floor = p.Revision
	}
	return nil
}

// run follows the stream until ctx ends.
func (f *feed) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		spoke, err := f.follow(ctx)
		f.lost(err)
		if ctx.Err() != nil {
			return
		}
		if spoke {
			backoff = minBackoff
		}
		f.log.Info("change stream ended; connecting again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// lost notes that nothing in memory counts as fresh until the stream speaks
// again. A control plane that no longer knows this host has taken all away.
func (f *feed) lost(err error) {
	f.mu.Lock()
	f.heard, f.last = time.Time{}, err
	revision := f.revision
	f.mu.Unlock()
	if problem.Is(err, problem.Unauthenticated) || problem.Is(err, problem.Denied) || problem.Is(err, problem.Revoked) {
		f.tokens.Drop(fleetapi.Change{Revision: revision, All: true})
		f.instances.drop(fleetapi.Change{Revision: revision, All: true})
	}
}

// follow reads the stream to its end. spoke says that it said something.
func (f *feed) follow(ctx context.Context) (spoke bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(silence, func() { cancel(errors.New("nothing heard for " + silence.String())) })
	defer watch.Stop()
	f.mu.Lock()
	after := f.revision
	f.mu.Unlock()
	stream, err := f.client.changes(ctx, after)
	if err != nil {
		return false, fmt.Errorf("opening the change stream: %w", err)
	}
	defer stream.Close()
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		watch.Reset(silence)
		var ch fleetapi.Change
		if err := json.Unmarshal(lines.Bytes(), &ch); err != nil {
			return spoke, fmt.Errorf("decoding a change: %w", err)
		}
		if err := f.apply(ctx, ch); err != nil {
			return spoke, err
		}
		if !spoke {
			spoke = true
			f.log.Info("change stream connected", "revision", ch.Revision)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return spoke, cause
	}
	if err := lines.Err(); err != nil {
		return spoke, fmt.Errorf("reading the change stream: %w", err)
	}
	return spoke, fmt.Errorf("reading the change stream: %w", io.ErrUnexpectedEOF)
}

// apply takes one change in, and only then counts the stream as heard. What
// comes first after connecting may be the first of many changes that were
// missed: the stream has caught up when it has a line without any.
func (f *feed) apply(ctx context.Context, ch fleetapi.Change) error {
	f.mu.Lock()
	if ch.Revision < f.revision {
		ch.All = true // the control plane went back in time: a restored backup
	}
	if ch.All {
		f.floor = min(f.floor, ch.Revision)
	}
	reload := ch.Placements || ch.All || f.changed
	f.changed = reload
	f.mu.Unlock()

	f.tokens.Drop(ch)
	f.instances.drop(ch)
	if reload {
		// While this lasts nothing is fresh, so that everything is asked.
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if reload {
		f.changed = false
	}
	f.revision = ch.Revision
	heartbeat := !reload && len(ch.Resources) == 0 && len(ch.Principals) == 0
	if ch.More || f.heard.IsZero() && !heartbeat {
		return nil
	}
	f.heard = time.Now()
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
	return nil
}

// state is what the feed knows, for people.
func (f *feed) state() (connected bool, revision int64, heard time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.heard.IsZero(), f.revision, f.heard
}

// why is the reason why the stream ended last.
func (f *feed) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}
