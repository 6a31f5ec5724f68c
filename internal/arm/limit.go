package arm

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// maxBuckets is how many buckets are remembered, about 4 MB of them. Above, the
// one that was used last longest ago is forgotten before it is full again: to
// gain by that takes as many principals at work as there are buckets.
const maxBuckets = 1 << 14

// Rate is how often a principal may ask: it has Burst requests, and PerSecond
// come back each second. PerSecond 0 means no limit.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultRate is so high that it stops nobody but a program in a loop: a script
// that makes identities, gives them roles and uses them, from 16 clients and ten
// thousand times over, is never told to wait.
var DefaultRate = Rate{PerSecond: 2000, Burst: 20000}

// Check says what is wrong with r.
func (r Rate) Check() error {
	switch {
	case math.IsNaN(r.PerSecond) || r.PerSecond < 0 || r.PerSecond > 1e6:
		return fmt.Errorf("per_second is %v; a number from 0 to 1000000 was expected, and 0 means no limit", r.PerSecond)
	case r.PerSecond > 0 && (r.Burst < 1 || r.Burst > 1e9):
		return fmt.Errorf("burst is %d; with a rate, a number from 1 to 1000000000 was expected", r.Burst)
	}
	return nil
}

// Limits is how much each principal may ask of this process. Replicas count
// each for itself: what n of them answer together is up to n times as much.
// Make it with [NewLimits].
type Limits struct {
	reads, writes Rate
	now           func() time.Time

	mu      sync.Mutex // guards what follows
	buckets map[bucketKey]*list.Element
	lru     *list.List // of *bucket, used last in front
	// there are subscriptions that were found to be there.
	there map[thereKey]struct{}
}

// bucketKey says whose requests of which kind go into a bucket; subscription is
// a key, "" for what names none.
type bucketKey struct{ tenant, principal, subscription, kind string }

type thereKey struct{ tenant, subscription string }

// The kinds of requests, as headers and messages have them. Deletes have the
// figures of writes, and a bucket of their own: who tidies up does not have to
// wait for what was made.
const (
	kindReads   = "reads"
	kindWrites  = "writes"
	kindDeletes = "deletes"
)

// bucket is what is left of one principal's requests of a kind.
type bucket struct {
	key  bucketKey
	left *rate.Limiter
	// told: a refusal was given since it was full last.
	told bool
}

// NewLimits returns limits that know nobody yet.
func NewLimits(reads, writes Rate, now func() time.Time) *Limits {
	return &Limits{reads: reads, writes: writes, now: now, buckets: map[bucketKey]*list.Element{}, lru: list.New(), there: map[thereKey]struct{}{}}
}

// kindOf is the kind of a request. A POST counts as a write though some only
// read: what it is turns out later.
func kindOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return kindReads
	case http.MethodDelete:
		return kindDeletes
	}
	return kindWrites
}

func (l *Limits) rate(kind string) Rate {
	if kind == kindReads {
		return l.reads
	}
	return l.writes
}

// Left is what a request left in its bucket.
type Left struct {
	// header is the one of ARM's that says so; "" where there is no limit.
	header string
	n      int
}

func (l Left) say(h http.Header) {
	if l.header != "" {
		h.Set(l.header, strconv.Itoa(l.n))
	}
}

// Admit counts a request of c by its method, in its bucket of the subscription
// that the request names, or, where sub is zero or not there, of the tenant: who
// makes up subscriptions has no bucket more for it. [problem.Throttled] where
// none is left. It is asked of known callers alone, so that nobody uses up what
// is another's, and before anything is read of the request or asked of rights.
//
// Of refusals in a row the first is for who asks to record; the others are on
// record and in the log with it ([OnRecord], [Again]), until the bucket was full
// again. Both say that a principal was stopped, and when; a program in a loop,
// which is refused faster than it would be answered, does not fill a disk with
// it. There are never more of them than of answers.
func (a *API) Admit(ctx context.Context, c access.Caller, method string, sub resource.ID) (Left, error) {
	kind := kindOf(method)
	if a.Limits == nil || a.Limits.rate(kind).PerSecond == 0 {
		return Left{}, nil
	}
	if !sub.IsZero() && !a.Limits.knows(c.Tenant, sub) {
		left, err := a.Limits.take(c, resource.ID{}, kind)
		if err != nil {
			return left, err
		}
		_, err = a.Store.Resource(ctx, c.Tenant, sub.Key())
		if problem.Is(err, problem.NotFound) {
			return left, nil
		}
		if err != nil {
			return left, fmt.Errorf("reading %s: %w", sub, err)
		}
		a.Limits.learn(c.Tenant, sub)
	}
	return a.Limits.take(c, sub, kind)
}

// again is a refusal like the one before.
type again struct{ recorded }

func (e again) Unwrap() error { return e.recorded }

// Again reports whether err is a refusal like the one before, by the same limit.
func Again(err error) bool {
	_, ok := errors.AsType[again](err)
	return ok
}

// knows reports whether the subscription was found to be there. One that was
// deleted since may still be known: there are only so many of those.
func (l *Limits) knows(tenant string, sub resource.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.there[thereKey{tenant, sub.Key()}]
	return ok
}

func (l *Limits) learn(tenant string, sub resource.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.there) >= maxBuckets {
		clear(l.there) // they are found again, at the price of one read each
	}
	l.there[thereKey{tenant, sub.Key()}] = struct{}{}
}

// take takes one request out of a bucket.
func (l *Limits) take(c access.Caller, sub resource.ID, kind string) (Left, error) {
	key := bucketKey{tenant: c.Tenant, principal: c.Principal, kind: kind}
	of := "tenant"
	if !sub.IsZero() {
		key.subscription, of = sub.Key(), "subscription"
	}
	left := Left{header: "x-ms-ratelimit-remaining-" + of + "-" + kind}
	limit := l.rate(kind)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b := l.bucket(key, limit, now)
	if b.full(now) {
		b.told = false
	}
	r := b.left.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait == 0 {
		left.n = int(b.left.TokensAt(now))
		return left, nil
	}
	r.CancelAt(now)
	p := &problem.Error{Kind: problem.Throttled, After: wait}
	p.Detail = fmt.Sprintf("The client '%s' with object id '%s' has asked for more %s in the %s than its limit: %v come back each second, and it has %d at most. Please try again after '%s' seconds.",
		c.Client, c.Principal, kind, of, limit.PerSecond, limit.Burst, p.RetryAfter())
	if b.told {
		return left, again{recorded{p}}
	}
	b.told = true
	return left, p
}

// bucket finds a bucket or makes one, which is full.
func (l *Limits) bucket(key bucketKey, limit Rate, now time.Time) *bucket {
	if el := l.buckets[key]; el != nil {
		l.lru.MoveToFront(el)
		return el.Value.(*bucket)
	}
	l.sweep(now)
	b := &bucket{key: key, left: rate.NewLimiter(rate.Limit(limit.PerSecond), limit.Burst)}
	l.buckets[key] = l.lru.PushFront(b)
	return b
}

func (b *bucket) full(now time.Time) bool { return b.left.TokensAt(now) >= float64(b.left.Burst()) }

// swept is how many buckets are looked at for each new one: more than one, so
// that they become fewer.
const swept = 8

// sweep forgets buckets that are full again, as a new one would be, and one more
// where there are too many.
func (l *Limits) sweep(now time.Time) {
	for range min(swept, l.lru.Len()) {
		el := l.lru.Back()
		if !el.Value.(*bucket).full(now) && l.lru.Len() < maxBuckets {
			return // those before it were used later
		}
		l.lru.Remove(el)
		delete(l.buckets, el.Value.(*bucket).key)
	}
}

// subscription is the one that the path is in, whatever else it names.
func (q request) subscription() resource.ID {
	segs := strings.SplitN(strings.TrimPrefix(q.path, "/"), "/", 3)
	if len(segs) < 2 || !strings.EqualFold(segs[0], "subscriptions") {
		return resource.ID{}
	}
	id, _ := resource.Parse("/subscriptions/" + segs[1]) // what is no ID is none
	return id
}
