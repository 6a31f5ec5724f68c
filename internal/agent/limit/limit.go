// Package limit keeps the callers of a host fair to each other: each has its
// own rate, its own place in the queue and its own share of the connections,
// so that one program in a loop takes nothing from the rest.
//
// What a newcomer would get wrong: a caller is who it is by evidence, and some
// of that a program can choose (a copy of an executable elsewhere is another
// caller). So nobody gains by being many: what is remembered of a caller is
// forgotten only when a new one would be treated alike, and callers of one
// origin (a user, a virtual machine), which a program does not choose, share
// what is left once there are many of them.
package limit

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/innate-id/innate/internal/problem"
)

// How many callers are told apart. Those above share one place.
const (
	maxCallers   = 2048
	maxPerOrigin = 256
	// connectionsOfOrigin is how many times the connections of one caller all
	// callers of one origin may have together.
	connectionsOfOrigin = 4
)

// Config says what one caller may take. [Default] is what a host does with.
type Config struct {
	// PerSecond is how many requests a second are answered on average, Burst
	// how many at once; PerSecond 0 means no limit.
	PerSecond float64
	Burst     int
	// Wait is how long a request above that waits for its turn at most, and
	// Waiters how many do at once. The others are refused.
	Wait    time.Duration
	Waiters int
	// Connections is how many may be open at once; 0 means no limit.
	Connections int
}

// Default is for programs that keep their tokens, as SDKs do: far above what
// they need, far below what one host can answer.
func Default() Config {
	return Config{PerSecond: 200, Burst: 400, Wait: time.Second, Waiters: 200, Connections: 1024}
}

// Check says what is wrong with c.
func (c Config) Check() error {
	switch {
	case c.PerSecond < 0 || c.Wait < 0 || c.Waiters < 0 || c.Connections < 0:
		return errors.New("limits: a number is below 0; 0 means no limit")
	case c.PerSecond > 0 && c.Burst < 1:
		return fmt.Errorf("limits: burst is %d; with a rate, at least 1 was expected", c.Burst)
	}
	return nil
}

// Caller is who asks.
type Caller struct {
	// Origin is what a program cannot choose: its user, its virtual machine.
	Origin string
	// Name is all that is known of it and does not pass.
	Name string
}

// Limiter holds the places of a host's callers. Make it with [New].
type Limiter struct {
	cfg Config

	mu      sync.Mutex // guards what follows
	places  map[Caller]*list.Element
	lru     *list.List // of *place, used last in front
	origins map[string]*origin
}

// place is what one caller has taken.
type place struct {
	who     Caller
	origin  *origin
	bucket  *rate.Limiter
	waiting int
	open    int
	warned  bool // that it was refused, since it last was not
}

// origin is what the callers of one origin have taken together.
type origin struct{ places, open int }

// New returns a limiter that knows nobody yet.
func New(cfg Config) *Limiter {
	return &Limiter{cfg: cfg, places: map[Caller]*list.Element{}, lru: list.New(), origins: map[string]*origin{}}
}

// Turn returns when it is who's turn. [problem.Throttled] if that is too far
// off; first says that who was not refused since it last had its turn.
func (l *Limiter) Turn(ctx context.Context, who Caller) (first bool, err error) {
	if l.cfg.PerSecond <= 0 {
		return false, nil
	}
	p, wait, err := l.queue(who)
	if err != nil {
		return p.refused(l), err
	}
	if wait == nil {
		return false, nil
	}
	defer l.leave(p)
	turn := time.NewTimer(wait.Delay())
	defer turn.Stop()
	select {
	case <-turn.C:
		return false, nil
	case <-ctx.Done():
		wait.Cancel()
		return false, &problem.Error{Kind: problem.Throttled, Detail: "the request ended before it was its turn", Err: ctx.Err()}
	}
}

// queue takes who's next turn. wait is nil when that is now.
func (l *Limiter) queue(who Caller) (p *place, wait *rate.Reservation, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p = l.place(who)
	now := time.Now()
	if p.bucket.AllowN(now, 1) {
		p.warned = false
		return p, nil, nil
	}
	r := p.bucket.ReserveN(now, 1)
	if r.DelayFrom(now) > l.cfg.Wait || p.waiting >= l.cfg.Waiters {
		r.CancelAt(now)
		return p, nil, problem.Errorf(problem.Throttled, "this caller asks more often than %v times a second, and %d times at once: "+
			"keep the token until it is near its end, as the SDKs do", l.cfg.PerSecond, l.cfg.Burst)
	}
	p.waiting++
	return p, r, nil
}

func (l *Limiter) leave(p *place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.waiting--
}

// refused reports whether this is p's first refusal of a row.
func (p *place) refused(l *Limiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !p.warned
	p.warned = true
	return first
}

// Open takes one connection for who; closed gives it back, once.
// [problem.Throttled] if who has too many; first is as in [Limiter.Turn].
func (l *Limiter) Open(who Caller) (closed func(), first bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Connections <= 0 {
		return func() {}, false, nil
	}
	p := l.place(who)
	if p.open >= l.cfg.Connections || p.origin.open >= connectionsOfOrigin*l.cfg.Connections {
		first, p.warned = !p.warned, true
		return nil, first, problem.Errorf(problem.Throttled, "this caller has %d connections open, and %d are allowed: keep one and use it again", p.open, l.cfg.Connections)
	}
	p.open++
	p.origin.open++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.open--
		p.origin.open--
	}), false, nil
}

// place finds who's place or makes one. Where there are too many it is one
// that who shares.
func (l *Limiter) place(who Caller) *place {
	if p := l.known(who); p != nil {
		return p
	}
	l.sweep()
	if o := l.origins[who.Origin]; o != nil && o.places >= maxPerOrigin {
		who.Name = ""
	}
	if l.lru.Len() >= maxCallers {
		who = Caller{}
	}
	if p := l.known(who); p != nil {
		return p
	}
	o := l.origins[who.Origin]
	if o == nil {
		o = &origin{}
		l.origins[who.Origin] = o
	}
	o.places++
	p := &place{who: who, origin: o, bucket: rate.NewLimiter(rate.Limit(l.cfg.PerSecond), l.cfg.Burst)}
	l.places[who] = l.lru.PushFront(p)
	return p
}

func (l *Limiter) known(who Caller) *place {
	el := l.places[who]
	if el == nil {
		return nil
	}
	l.lru.MoveToFront(el)
	return el.Value.(*place)
}

// sweepPlaces is how many places are looked at for each new one: more than
// one, so that they become fewer.
const sweepPlaces = 8

// sweep forgets callers of whom nothing is worth remembering: a new place
// would be the same.
func (l *Limiter) sweep() {
	now := time.Now()
	for range min(sweepPlaces, l.lru.Len()) {
		el := l.lru.Back()
		p := el.Value.(*place)
		if p.open > 0 || p.waiting > 0 {
			l.lru.MoveToFront(el)
			continue
		}
		if l.cfg.PerSecond > 0 && p.bucket.TokensAt(now) < float64(l.cfg.Burst) {
			return // those before it were used later
		}
		l.lru.Remove(el)
		delete(l.places, p.who)
		if p.origin.places--; p.origin.places == 0 && p.origin.open == 0 {
			delete(l.origins, p.who.Origin)
		}
	}
}

// Len returns how many callers are remembered.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lru.Len()
}
