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
// which the token is kept.
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
	Confirm func(fleetapi.TokenResponse) (would string, err error)
}

func (r Request) confirm(tok fleetapi.TokenResponse) (would string, err error) {
	if r.Confirm == nil {
		return "", nil
	}
	return r.Confirm(tok)
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

func (r Request) key() cacheKey {
	return cacheKey{r.Workload, r.Placement, r.Audience,
		strings.ToLower(r.ClientID), strings.ToLower(r.ObjectID), strings.ToLower(r.ResourceID), r.Caller}
}

// flight names the question. No part can hold a zero byte, so that nobody can
// choose one part to look like two. The answer to an older question is not a
// new token, nor one that is not the one named by its hash.
func (r Request) flight() string {
	k := r.key()
	return strings.Join([]string{k.workload, k.placement, k.audience, k.clientID, k.objectID, k.resourceID, k.caller,
		strconv.FormatBool(r.BypassCache), r.RefreshSHA256}, "\x00")
}

func (r Request) wire() fleetapi.TokenRequest {
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
	Record func(fleetapi.Served) error
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
	entries map[cacheKey]*list.Element
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
	tok       fleetapi.TokenResponse
	sha       string // hex SHA-256 of the token
	refreshAt time.Time
}

// New returns an empty cache.
func New(cfg Config) *Cache {
	if cfg.Size == 0 {
		cfg.Size = DefaultSize
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache{cfg: cfg, ctx: ctx, cancel: cancel, entries: map[cacheKey]*list.Element{}, lru: list.New()}
}

// Close ends what is under way.
func (c *Cache) Close() { c.cancel() }

// Get returns a token for req, from memory while that is known to be good.
func (c *Cache) Get(ctx context.Context, req Request) (fleetapi.TokenResponse, error) {
	key := req.key()
	// Freshness first: a change heard between the two questions then still
	// finds the entry gone.
	if !req.BypassCache && c.cfg.Fresh() {
		if tok, due, ok := c.fresh(key, req); ok {
			if due {
				go c.refreshAhead(req)
			}
			return c.remembered(tok, req, false)
		}
	}
	if tok, ok := c.whileDown(key, req); ok {
		return c.remembered(tok, req, true)
	}
	tok, led, err := c.ask(ctx, req)
	if err != nil && !led && Definite(err) {
		// The question was asked before ours: what was refused then may have
		// been granted in between. The next flight begins after us.
		tok, led, err = c.ask(ctx, req)
	}
	switch {
	case err == nil && led: // the control plane has it on record
		if _, err := req.confirm(tok); err != nil {
			return fleetapi.TokenResponse{}, err
		}
		return tok, nil
	case err == nil:
		return c.remembered(tok, req, false)
	case problem.Is(err, problem.Unavailable) && c.cfg.ServeStale && !req.BypassCache:
		if tok, ok := c.lookup(key, req); ok {
			return c.remembered(tok, req, true)
		}
	}
	return fleetapi.TokenResponse{}, err
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
func (c *Cache) remembered(tok fleetapi.TokenResponse, req Request, stale bool) (fleetapi.TokenResponse, error) {
	would, err := req.confirm(tok)
	if err != nil {
		return fleetapi.TokenResponse{}, err
	}
	err = c.cfg.Record(fleetapi.Served{At: c.cfg.Now().UTC(), Count: 1, Workload: req.Workload, Principal: tok.Principal,
		Audience: req.Audience, TokenID: tok.TokenID, Caller: req.Caller, Stale: stale, Would: would})
	if err != nil {
		return fleetapi.TokenResponse{}, err
	}
	if stale {
		c.cfg.Log.Warn("token served without asking: the control plane cannot be reached",
			"workload", req.Workload, "audience", req.Audience, "token", tok.TokenID, "expires", tok.Expires)
	}
	return tok, nil
}

// fresh is lookup where nothing can have changed. due says that the caller is
// the one to ask for the next token in the background: it is time.
func (c *Cache) fresh(key cacheKey, req Request) (tok fleetapi.TokenResponse, due, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	e := c.lookupLocked(key, req, now)
	if e == nil {
		return fleetapi.TokenResponse{}, false, false
	}
	if due = !now.Before(e.refreshAt); due {
		e.refreshAt = now.Add(retryRefresh + rand.N(retryRefresh/10))
	}
	return e.tok, due, true
}

// lookup returns the token under key if it may still be given away.
func (c *Cache) lookup(key cacheKey, req Request) (fleetapi.TokenResponse, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.lookupLocked(key, req, c.cfg.Now())
	if e == nil {
		return fleetapi.TokenResponse{}, false
	}
	return e.tok, true
}

func (c *Cache) lookupLocked(key cacheKey, req Request, now time.Time) *entry {
	el := c.entries[key]
	if el == nil {
		return nil
	}
	e := el.Value.(*entry)
	if e.tok.Expires.Sub(now) < minLife {
		c.remove(el)
		return nil
	}
	if req.RefreshSHA256 != "" && req.RefreshSHA256 == e.sha {
		return nil
	}
	c.lru.MoveToFront(el)
	return e
}

// whileDown answers from memory while the control plane is known to be away.
func (c *Cache) whileDown(key cacheKey, req Request) (fleetapi.TokenResponse, bool) {
	if !c.cfg.ServeStale || req.BypassCache {
		return fleetapi.TokenResponse{}, false
	}
	c.mu.Lock()
	down := time.Now().Before(c.downUntil)
	c.mu.Unlock()
	if !down {
		return fleetapi.TokenResponse{}, false
	}
	return c.lookup(key, req)
}

// ask asks the control plane, together with whoever asks the same just now.
// led says that the question was this caller's own. A caller that goes away
// leaves the flight to the others.
func (c *Cache) ask(ctx context.Context, req Request) (tok fleetapi.TokenResponse, led bool, err error) {
	var mine bool // written by the flight, read after it
	ch := c.flights.DoChan(req.flight(), func() (any, error) {
		mine = true
		return c.fetch(req.key(), req)
	})
	select {
	case <-ctx.Done():
		return fleetapi.TokenResponse{}, false, &problem.Error{Kind: problem.Unavailable, Detail: "the request ended before the control plane answered", Err: ctx.Err()}
	case res := <-ch:
		if res.Err != nil {
			return fleetapi.TokenResponse{}, mine, res.Err
		}
		return res.Val.(fleetapi.TokenResponse), mine, nil
	}
}

// fetch is one flight: ask, and ask once more if a right was taken away while
// the answer was on its way.
func (c *Cache) fetch(key cacheKey, req Request) (any, error) {
	timeout := fetchTimeout
	if _, ok := c.lookup(key, req); ok && c.cfg.ServeStale {
		timeout = fallbackTimeout
	}
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	for range 2 {
		tok, err := c.cfg.Fetch(ctx, req.wire())
		if err != nil {
			c.failed(key, err)
			return nil, err
		}
		if tok.Expires.Sub(c.cfg.Now()) < minLife {
			return nil, problem.Errorf(problem.Unavailable, "the control plane gave a token with less than %v left; are the clocks of both right?", minLife)
		}
		if c.keep(key, req, tok) {
			return tok, nil
		}
	}
	return nil, problem.Errorf(problem.Unavailable, "rights changed while the token was made; ask again")
}

// failed forgets what the control plane now refuses, and remembers that it
// could not be asked.
func (c *Cache) failed(key cacheKey, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil && Definite(err) {
		c.remove(el)
	}
	if problem.Is(err, problem.Unavailable) {
		c.downUntil = time.Now().Add(downFor)
	}
}

// keep caches tok. It reports false, and keeps nothing, if a change that
// concerns tok came after it was made.
func (c *Cache) keep(key cacheKey, req Request, tok fleetapi.TokenResponse) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downUntil = time.Time{}
	if el := c.entries[key]; el != nil {
		c.remove(el)
	}
	sum := sha256.Sum256([]byte(tok.AccessToken))
	req.Evidence, req.Confirm = evidence.Evidence{}, nil // one caller's, and the token is kept for all alike
	e := &entry{key: key, req: req, tok: tok, sha: hex.EncodeToString(sum[:]), refreshAt: refreshAt(c.cfg.Now(), tok.Expires)}
	if c.overtaken(e) {
		return false
	}
	c.entries[key] = c.lru.PushFront(e)
	for c.lru.Len() > c.cfg.Size {
		c.remove(c.lru.Back())
	}
	return true
}

func (c *Cache) remove(el *list.Element) {
	delete(c.entries, el.Value.(*entry).key)
	c.lru.Remove(el)
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
func (c *Cache) refreshAhead(req Request) {
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
