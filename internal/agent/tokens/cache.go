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

// key joins what tells tokens apart. Resource IDs and GUIDs compare without
// case; the audience is echoed into the token and compares exactly. No part can
// hold a zero byte and the caller could not choose one part to look like two.
func (r Request) key() string {
	return strings.Join([]string{strings.ToLower(r.Workload), strings.ToLower(r.Placement), r.Audience,
		strings.ToLower(r.ClientID), strings.ToLower(r.ObjectID), strings.ToLower(r.ResourceID), r.Caller}, "\x00")
}

func (r Request) wire() fleetapi.TokenRequest {
	return fleetapi.TokenRequest{Workload: r.Workload, Placement: r.Placement, Audience: r.Audience,
		ClientID: r.ClientID, ObjectID: r.ObjectID, ResourceID: r.ResourceID, Caller: r.Caller, Evidence: wire(r.Evidence)}
}

func wire(ev evidence.Evidence) fleetapi.Evidence {
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
	entries map[string]*list.Element
	lru     *list.List // of *entry, used last in front
	// recent are the latest changes: an answer from before one of them that
	// it concerns is not to be used. Changes up to horizon are not in it any
	// more, so that an answer from before it is not to be used at all.
	recent    []change
	horizon   int64
	downUntil time.Time
}

type entry struct {
	key       string
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
	return &Cache{cfg: cfg, ctx: ctx, cancel: cancel, entries: map[string]*list.Element{}, lru: list.New()}
}

// Close ends what is under way.
func (c *Cache) Close() { c.cancel() }

// Get returns a token for req, from memory while that is known to be good.
func (c *Cache) Get(ctx context.Context, req Request) (fleetapi.TokenResponse, error) {
	key := req.key()
	// Freshness first: a change heard between the two questions then still
	// finds the entry gone.
	if !req.BypassCache && c.cfg.Fresh() {
		if tok, ok := c.lookup(key, req); ok {
			c.refreshAhead(key, req)
			return c.remembered(tok, req, false)
		}
	}
	if tok, ok := c.whileDown(key, req); ok {
		return c.remembered(tok, req, true)
	}
	tok, led, err := c.ask(ctx, key, req)
	if err != nil && !led && Definite(err) {
		// The question was asked before ours: what was refused then may have
		// been granted in between. The next flight begins after us.
		tok, led, err = c.ask(ctx, key, req)
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

// lookup returns the token under key if it may still be given away.
func (c *Cache) lookup(key string, req Request) (fleetapi.TokenResponse, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookupLocked(key, req)
}

func (c *Cache) lookupLocked(key string, req Request) (fleetapi.TokenResponse, bool) {
	el := c.entries[key]
	if el == nil {
		return fleetapi.TokenResponse{}, false
	}
	e := el.Value.(*entry)
	if e.tok.Expires.Sub(c.cfg.Now()) < minLife {
		c.remove(el)
		return fleetapi.TokenResponse{}, false
	}
	if req.RefreshSHA256 != "" && req.RefreshSHA256 == e.sha {
		return fleetapi.TokenResponse{}, false
	}
	c.lru.MoveToFront(el)
	return e.tok, true
}

// whileDown answers from memory while the control plane is known to be away.
func (c *Cache) whileDown(key string, req Request) (fleetapi.TokenResponse, bool) {
	if !c.cfg.ServeStale || req.BypassCache {
		return fleetapi.TokenResponse{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Now().After(c.downUntil) {
		return fleetapi.TokenResponse{}, false
	}
	return c.lookupLocked(key, req)
}

// ask asks the control plane, together with whoever asks the same just now.
// led says that the question was this caller's own. A caller that goes away
// leaves the flight to the others.
func (c *Cache) ask(ctx context.Context, key string, req Request) (tok fleetapi.TokenResponse, led bool, err error) {
	flight := key
	if req.BypassCache {
		flight = "bypass\x00" + key // an older question's answer is not a new token
	}
	if req.RefreshSHA256 != "" {
		flight = req.RefreshSHA256 + "\x00" + flight
	}
	var mine bool // written by the flight, read after it
	ch := c.flights.DoChan(flight, func() (any, error) {
		mine = true
		return c.fetch(key, req)
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
func (c *Cache) fetch(key string, req Request) (any, error) {
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
func (c *Cache) failed(key string, err error) {
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
func (c *Cache) keep(key string, req Request, tok fleetapi.TokenResponse) bool {
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

// refreshAhead asks for a new token in the background when it is time. The
// token in memory stays good if that fails; a refusal takes it away.
func (c *Cache) refreshAhead(key string, req Request) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[key]
	if el == nil || now.Before(el.Value.(*entry).refreshAt) {
		return
	}
	el.Value.(*entry).refreshAt = now.Add(retryRefresh + rand.N(retryRefresh/10))
	go func() {
		if _, _, err := c.ask(c.ctx, key, req); err != nil {
			c.cfg.Log.Info("token not refreshed ahead", "workload", req.Workload, "audience", req.Audience, "err", err)
		}
	}()
}

// Len returns how many tokens are held.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len()
}
