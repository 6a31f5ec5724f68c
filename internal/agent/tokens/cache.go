// Package tokens is the agent's memory: the tokens that the control plane gave
// ([Cache]), and the record of every answer given from it ([Journal]).
//
// What a newcomer would get wrong: the cache decides nothing. It holds the
// control plane's answers and gives one again only while it is sure that
// nothing changed, that is, while the change stream was heard from lately;
// otherwise it asks. It never holds a refusal: a "no" is asked for anew each
// time, for somebody may have just put it right. And an answer that was on its
// way while a right was taken away counts as never given.
package tokens

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	// DefaultSize is how many tokens a cache holds if nothing else is said.
	DefaultSize = 10_000

	// minLife is what a token must have left to be given away: with less, it
	// would end on the way to the API.
	minLife = 10 * time.Second
	// fetchTimeout bounds one question to the control plane; with an answer
	// in memory to fall back on, fallbackTimeout does.
	fetchTimeout    = 10 * time.Second
	fallbackTimeout = 3 * time.Second
	// retryRefresh is how long a refresh ahead that failed waits for the next.
	retryRefresh = 30 * time.Second
	// downFor is how long a control plane that did not answer is not asked
	// about what memory can serve: or each answer would wait for its timeout.
	downFor = time.Second
	// maxRecent bounds the changes that are held against answers on their way.
	maxRecent = 1024
)

// Request asks for a token for a workload. What comes first is the key under
// which the token is kept. Who asks the same again does so with the same
// Request, unchanged: its token is then found without a search. It is for one
// caller at a time.
type Request struct {
	Workload, Placement, Audience string
	// At most one of these names the identity.
	ClientID, ObjectID, ResourceID string
	// Caller is the evidence in words; nothing unstable may be in it.
	Caller string

	// BypassCache asks the control plane in any case.
	BypassCache bool
	// RefreshSHA256 is the hex digest of a token not to be given again.
	RefreshSHA256 string

	// Evidence is what the control plane judges by.
	Evidence evidence.Evidence
	// Confirm is asked before a token is given away, and before that is on
	// record: an error is the answer instead. would is why rules in audit mode
	// would have refused it. May be nil.
	Confirm func(context.Context, *fleetapi.TokenResponse) (would string, err error)

	// held is what was found last; guarded by the cache's mu. It counts while
	// it is not gone.
	held *entry
}

func (r *Request) confirm(ctx context.Context, tok *fleetapi.TokenResponse) (would string, err error) {
	if r.Confirm == nil {
		return "", nil
	}
	return r.Confirm(ctx, tok)
}

// cacheKey is what tells tokens apart. The workload and the placement are as the
// control plane spells them; which identity is a caller's word, and has no case:
// nobody gets a token for each spelling. The audience is echoed into the token
// and compares exactly.
type cacheKey struct {
	workload, placement, audience  string
	clientID, objectID, resourceID string // in lower case
	caller                         string
}

func (r *Request) key() cacheKey {
	return cacheKey{r.Workload, r.Placement, r.Audience,
		strings.ToLower(r.ClientID), strings.ToLower(r.ObjectID), strings.ToLower(r.ResourceID), r.Caller}
}

// flight names the question. No part can hold a zero byte, so that nobody can
// choose one part to look like two. The answer to an older question is not a
// new token, nor one that is not the one named by its hash.
func (r *Request) flight() string {
	k := r.key()
	return strings.Join([]string{k.workload, k.placement, k.audience, k.clientID, k.objectID, k.resourceID, k.caller,
		strconv.FormatBool(r.BypassCache), r.RefreshSHA256}, "\x00")
}

func (r *Request) wire() fleetapi.TokenRequest {
	return fleetapi.TokenRequest{Workload: r.Workload, Placement: r.Placement, Audience: r.Audience,
		ClientID: r.ClientID, ObjectID: r.ObjectID, ResourceID: r.ResourceID, Caller: r.Caller, Evidence: Wire(r.Evidence)}
}

// Wire is evidence as the control plane is told of it.
func Wire(ev evidence.Evidence) fleetapi.Evidence {
	out := fleetapi.Evidence{Door: ev.Door, Grade: ev.Grade.String(), Interpreter: ev.Interpreter}
	for _, s := range ev.Selectors {
		out.Selectors = append(out.Selectors, string(s))
	}
	return out
}

// Config is what a [Cache] needs.
type Config struct {
	// Fetch asks the control plane. [problem.Unavailable] means that it could
	// not be asked; every other refusal is its answer.
	Fetch func(context.Context, fleetapi.TokenRequest) (fleetapi.TokenResponse, error)
	// Fresh reports whether the change stream was heard from within the bound.
	Fresh func() bool
	// Record puts an answer from memory on record; without that, no answer.
	Record func(*Answer, time.Time) error
	// ServeStale gives an unexpired token when the control plane cannot be
	// asked; else the answer is that it cannot.
	ServeStale bool
	// Size bounds the number of tokens held; 0 means [DefaultSize].
	Size int
	Now  func() time.Time
	Log  *slog.Logger
}

// Cache holds tokens. Make it with [New].
type Cache struct {
	cfg     Config
	ctx     context.Context // ends with Close: flights outlive their callers, not the cache
	cancel  context.CancelFunc
	flights singleflight.Group

	mu      sync.Mutex // guards what follows
	entries map[cacheKey]*entry
	lru     *list.List // of *entry, used last in front
	// recent are the latest changes: an answer from before one of them that
	// it concerns is not to be used. Changes up to horizon are not in it any
	// more, so that an answer from before it is not to be used at all.
	recent    []change
	horizon   int64
	downUntil time.Time
}

type entry struct {
	key       cacheKey
	req       Request
	tok       *fleetapi.TokenResponse // never changes
	sha       string                  // hex SHA-256 of the token
	refreshAt time.Time
	at        *list.Element // nil when it is gone
	// answer is the latest that was given of it.
	answer atomic.Pointer[Answer]
}

// New returns an empty cache.
func New(cfg Config) *Cache {
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache{cfg: cfg, ctx: ctx, cancel: cancel, entries: map[cacheKey]*entry{}, lru: list.New()}
}

// Close ends what is under way.
func (c *Cache) Close() { c.cancel() }

// Get returns a token for req, from memory while that is known to be good, and
// where it came from. The token is not the caller's to change.
func (c *Cache) Get(ctx context.Context, req *Request) (*fleetapi.TokenResponse, Source, error) {
	// Freshness first: a change heard between the two questions then still
	// finds the entry gone.
	if !req.BypassCache && c.cfg.Fresh() {
		now := c.cfg.Now()
		if e, due := c.fresh(req, now); e != nil {
			if due {
				go c.refreshAhead(req.copy())
			}
			return c.remembered(ctx, now, e, e.tok, req, Hit)
		}
	}
	if e := c.whileDown(req); e != nil {
		return c.remembered(ctx, c.cfg.Now(), e, e.tok, req, Stale)
	}
	return c.fromPlane(ctx, req)
}

// fromPlane asks the control plane.
func (c *Cache) fromPlane(ctx context.Context, req *Request) (*fleetapi.TokenResponse, Source, error) {
	tok, led, err := c.ask(ctx, req)
	if err != nil && !led && Definite(err) {
		// The question was asked before ours: what was refused then may have
		// been granted in between. The next flight begins after us.
		tok, led, err = c.ask(ctx, req)
	}
	switch {
	case err == nil && led: // the control plane has it on record
		if _, err := req.confirm(ctx, tok); err != nil {
			return nil, Miss, err
		}
		return tok, Miss, nil
	case err == nil:
		return c.remembered(ctx, c.cfg.Now(), nil, tok, req, Miss)
	case problem.Is(err, problem.Unavailable) && c.cfg.ServeStale && !req.BypassCache:
		if e := c.lookup(req); e != nil {
			return c.remembered(ctx, c.cfg.Now(), e, e.tok, req, Stale)
		}
	}
	return nil, Miss, err
}

// copy is the request for who goes on after its caller was answered.
func (r *Request) copy() *Request {
	r2 := *r
	r2.Confirm, r2.held = nil, nil
	return &r2
}

// Definite reports whether err is the control plane's decision, and not only
// that it could not decide.
func Definite(err error) bool {
	switch problem.Of(err).Kind {
	case problem.Unavailable, problem.Throttled, problem.Internal:
		return false
	}
	return true
}

// remembered puts an answer that the control plane does not know of on record.
// The token is e's, or, where e is nil, one that another caller's question got.
func (c *Cache) remembered(ctx context.Context, at time.Time, e *entry, tok *fleetapi.TokenResponse, req *Request, from Source) (*fleetapi.TokenResponse, Source, error) {
	would, err := req.confirm(ctx, tok)
	if err != nil {
		return nil, from, err
	}
	if err := c.cfg.Record(e.answered(req, tok, from == Stale, would), at); err != nil {
		return nil, from, err
	}
	if from == Stale {
		c.cfg.Log.Warn("token served without asking: the control plane cannot be reached",
			"workload", req.Workload, "audience", req.Audience, "token", tok.TokenID, "expires", tok.Expires)
	}
	return tok, from, nil
}

// answered is an answer for the record. All of it but stale and would is in an
// entry's key or its token, so that the entry's latest is the same one if those
// are.
func (e *entry) answered(req *Request, tok *fleetapi.TokenResponse, stale bool, would string) *Answer {
	if e != nil {
		if a := e.answer.Load(); a != nil && a.Served.Stale == stale && a.Served.Would == would {
			return a
		}
	}
	a := &Answer{Served: fleetapi.Served{Workload: req.Workload, Principal: tok.Principal,
		Audience: req.Audience, TokenID: tok.TokenID, Caller: req.Caller, Stale: stale, Would: would}}
	if e != nil {
		e.answer.Store(a)
	}
	return a
}

// fresh is lookup where nothing can have changed. due says that the caller is
// the one to ask for the next token in the background: it is time.
func (c *Cache) fresh(req *Request, now time.Time) (e *entry, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.lookupLocked(req, now); e == nil {
		return nil, false
	}
	if due = !now.Before(e.refreshAt); due {
		e.refreshAt = now.Add(retryRefresh + rand.N(retryRefresh/10))
	}
	return e, due
}

// lookup returns the entry of req if its token may still be given away.
func (c *Cache) lookup(req *Request) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookupLocked(req, c.cfg.Now())
}

func (c *Cache) lookupLocked(req *Request, now time.Time) *entry {
	e := req.held
	if e == nil || e.at == nil {
		if e = c.entries[req.key()]; e == nil {
			return nil
		}
		req.held = e
	}
	if e.tok.Expires.Sub(now) < minLife {
		c.remove(e)
		return nil
	}
	if req.RefreshSHA256 != "" && req.RefreshSHA256 == e.sha {
		return nil
	}
	c.lru.MoveToFront(e.at)
	return e
}

// whileDown answers from memory while the control plane is known to be away.
func (c *Cache) whileDown(req *Request) *entry {
	if !c.cfg.ServeStale || req.BypassCache {
		return nil
	}
	c.mu.Lock()
	down := time.Now().Before(c.downUntil)
	c.mu.Unlock()
	if !down {
		return nil
	}
	return c.lookup(req)
}

// ask asks the control plane, together with whoever asks the same just now.
// led says that the question was this caller's own. A caller that goes away
// leaves the flight to the others.
func (c *Cache) ask(ctx context.Context, req *Request) (tok *fleetapi.TokenResponse, led bool, err error) {
	var mine bool // written by the flight, read after it
	lasting := req.copy()
	ch := c.flights.DoChan(lasting.flight(), func() (any, error) {
		mine = true
		return c.fetch(lasting)
	})
	select {
	case <-ctx.Done():
		return nil, false, &problem.Error{Kind: problem.Unavailable, Detail: "the request ended before the control plane answered", Err: ctx.Err()}
	case res := <-ch:
		if res.Err != nil {
			return nil, mine, res.Err
		}
		return res.Val.(*fleetapi.TokenResponse), mine, nil
	}
}

// fetch is one flight: ask, and ask once more if a right was taken away while
// the answer was on its way.
func (c *Cache) fetch(req *Request) (any, error) {
	timeout := fetchTimeout
	if c.lookup(req) != nil && c.cfg.ServeStale {
		timeout = fallbackTimeout
	}
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	for range 2 {
		tok, err := c.cfg.Fetch(ctx, req.wire())
		if err != nil {
			c.failed(req.key(), err)
			return nil, err
		}
		if tok.Expires.Sub(c.cfg.Now()) < minLife {
			return nil, problem.Errorf(problem.Unavailable, "the control plane gave a token with less than %v left; are the clocks of both right?", minLife)
		}
		if c.keep(req, &tok) {
			return &tok, nil
		}
	}
	return nil, problem.Errorf(problem.Unavailable, "rights changed while the token was made; ask again")
}

// failed forgets what the control plane now refuses, and remembers that it
// could not be asked.
func (c *Cache) failed(key cacheKey, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && Definite(err) {
		c.remove(e)
	}
	if problem.Is(err, problem.Unavailable) {
		c.downUntil = time.Now().Add(downFor)
	}
}

// keep caches tok. It reports false, and keeps nothing, if a change that
// concerns tok came after it was made.
func (c *Cache) keep(req *Request, tok *fleetapi.TokenResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downUntil = time.Time{}
	key := req.key()
	if e := c.entries[key]; e != nil {
		c.remove(e)
	}
	sum := sha256.Sum256([]byte(tok.AccessToken))
	alike := req.copy()
	alike.Evidence = evidence.Evidence{} // one caller's, and the token is kept for all alike
	e := &entry{key: key, req: *alike, tok: tok, sha: hex.EncodeToString(sum[:]), refreshAt: refreshAt(c.cfg.Now(), tok.Expires)}
	if c.overtaken(e) {
		return false
	}
	e.at = c.lru.PushFront(e)
	c.entries[key] = e
	for c.lru.Len() > c.cfg.Size {
		c.remove(c.lru.Back().Value.(*entry))
	}
	return true
}

// remove forgets e, also for requests that hold it.
func (c *Cache) remove(e *entry) {
	delete(c.entries, e.key)
	c.lru.Remove(e.at)
	e.at = nil
}

// refreshAt is when a token that ends at expires is asked for anew: a long one
// at half of its life, as the SDKs do, a shorter one when a fifth of it or five
// minutes are left. A tenth of chance keeps a host's tokens apart.
func refreshAt(now, expires time.Time) time.Time {
	life := expires.Sub(now)
	wait := life - min(5*time.Minute, life/5)
	if life > 2*time.Hour {
		wait = life / 2
	}
	return now.Add(wait - rand.N(wait/10+1))
}

// refreshAhead asks for a new token before the one in memory ends. That one
// stays good if this fails; a refusal takes it away.
func (c *Cache) refreshAhead(req *Request) {
	if _, _, err := c.ask(c.ctx, req); err != nil {
		c.cfg.Log.Info("token not refreshed ahead", "workload", req.Workload, "audience", req.Audience, "err", err)
	}
}

// Len returns how many tokens are held.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len()
}
