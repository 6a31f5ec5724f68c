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

// feed follows the control plane's decisions about this host: its placements,
// and the stream of changes that keeps memory honest.
type feed struct {
	client *client
	tokens *tokens.Cache
	// instances are dropped by the same changes as tokens.
	instances *instances
	log       *slog.Logger
	loads     singleflight.Group
	ready     chan struct{} // closed when the stream first caught up

	mu         sync.Mutex // guards what follows
	placements fleetapi.Placements
	changed    bool  // placements changed and were not read anew
	revision   int64 // how far the stream has come
	// heard is when the stream last said something, by the monotonic clock;
	// zero while it is not connected, and until it caught up after that.
	heard time.Time
	last  error // why the stream ended last
}

// fresh reports whether what is in memory is what the control plane would say.
func (f *feed) fresh() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.heard.IsZero() && !f.changed && time.Since(f.heard) < fleetapi.Bound
}

// find returns the placement that match picks: the one with the most
// selectors. Before it finds none it reads the placements anew, for one may
// have been made just now. [problem.CallerRefused] if there is none still, or
// if two equally good ones disagree about the workload.
func (f *feed) find(ctx context.Context, match func(fleetapi.Placement) bool) (fleetapi.Placement, error) {
	f.mu.Lock()
	placements := f.placements.Placements
	f.mu.Unlock()
	if p, err := pick(placements, match); err == nil {
		return p, nil
	}
	if err := f.load(ctx); err != nil {
		return fleetapi.Placement{}, err
	}
	f.mu.Lock()
	placements = f.placements.Placements
	f.mu.Unlock()
	return pick(placements, match)
}

func pick(placements []fleetapi.Placement, match func(fleetapi.Placement) bool) (fleetapi.Placement, error) {
	var best *fleetapi.Placement
	var tied bool
	for i := range placements {
		p := &placements[i]
		switch {
		case !match(*p):
		case best == nil || len(p.Selectors) > len(best.Selectors):
			best, tied = p, false
		case len(p.Selectors) == len(best.Selectors) && !sameResource(p.Resource, best.Resource):
			tied = true
		}
	}
	if best == nil {
		return fleetapi.Placement{}, problem.Errorf(problem.CallerRefused, "no placement on this host admits this caller")
	}
	if tied {
		return fleetapi.Placement{}, problem.Errorf(problem.CallerRefused, "several placements on this host match this caller equally well and name different resources: give one of them another selector")
	}
	return *best, nil
}

// admits reports whether a placement is about a caller with this evidence. A
// selector of a kind that this agent does not know never holds.
func admits(p fleetapi.Placement, ev evidence.Evidence) bool {
	required := make([]evidence.Selector, len(p.Selectors))
	for i, s := range p.Selectors {
		required[i] = evidence.Selector(s)
	}
	return p.Door == ev.Door && ev.Matches(required)
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.Revision >= f.placements.Revision { // else a slow answer to an older question
		f.placements = p
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
		f.placements.Revision = min(f.placements.Revision, ch.Revision)
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
