package tokens_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const workload = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1"

var req = tokens.Request{Workload: workload, Placement: "p", Audience: "https://a", Caller: "door:main grade:none"}

// plane is what a test lets the control plane and the stream say.
type plane struct {
	mu       sync.Mutex
	fetched  int
	life     time.Duration
	err      error
	revision int64
	stale    bool // the stream was not heard from
	served   []fleetapi.Served
	recorded error
	// hold, if set, is called by each fetch after its answer was made.
	hold func(n int)
}

func (p *plane) fetch(_ context.Context, r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
	p.mu.Lock()
	p.fetched++
	n, err, hold := p.fetched, p.err, p.hold
	tok := fleetapi.TokenResponse{AccessToken: fmt.Sprintf("token-%d", n), TokenID: fmt.Sprintf("uti-%d", n), Principal: "principal-1",
		Identity: r.Workload, Expires: time.Now().Add(p.life), Revision: p.revision}
	p.mu.Unlock()
	if hold != nil {
		hold(n)
	}
	if err != nil {
		return fleetapi.TokenResponse{}, err
	}
	return tok, nil
}

func (p *plane) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *plane) cache(t *testing.T, change ...func(*tokens.Config)) *tokens.Cache {
	t.Helper()
	if p.life == 0 {
		p.life = 24 * time.Hour
	}
	cfg := tokens.Config{
		Fetch: p.fetch, ServeStale: true, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Fresh: func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return !p.stale
		},
		Record: func(a *tokens.Answer, _ time.Time) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.recorded == nil {
				p.served = append(p.served, a.Served)
			}
			return p.recorded
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	c := tokens.New(cfg)
	t.Cleanup(c.Close)
	return c
}

func get(t *testing.T, c *tokens.Cache, r tokens.Request, want string) {
	t.Helper()
	getAgain(t, c, &r, want)
}

func getAgain(t *testing.T, c *tokens.Cache, r *tokens.Request, want string) {
	t.Helper()
	tok, _, err := c.Get(t.Context(), r)
	if err != nil || tok.AccessToken != want {
		t.Fatalf("Get = %v, %v; want %q", tok, err, want)
	}
}

func refuse(t *testing.T, c *tokens.Cache, r tokens.Request, want problem.Kind) {
	t.Helper()
	refuseAgain(t, c, &r, want)
}

func refuseAgain(t *testing.T, c *tokens.Cache, r *tokens.Request, want problem.Kind) {
	t.Helper()
	tok, _, err := c.Get(t.Context(), r)
	if !problem.Is(err, want) || tok != nil {
		t.Fatalf("Get = %v, %v; want a problem of kind %s", tok, err, want)
	}
}

func TestEachPartOfTheKeyTellsTokensApart(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t)
	get(t, c, req, "token-1")
	named, shouted := req, req
	named.ResourceID, shouted.ResourceID = workload, strings.ToUpper(workload)
	get(t, c, named, "token-2")
	get(t, c, shouted, "token-2") // a caller has one token, however it spells
	for i, change := range []func(*tokens.Request){
		func(r *tokens.Request) { r.Workload += "2" }, func(r *tokens.Request) { r.Placement += "2" },
		func(r *tokens.Request) { r.Audience += "/" }, func(r *tokens.Request) { r.ClientID = "x" },
		func(r *tokens.Request) { r.ObjectID = "x" }, func(r *tokens.Request) { r.ResourceID = "x" },
		func(r *tokens.Request) { r.Caller += " more" },
	} {
		other := req
		change(&other)
		get(t, c, other, fmt.Sprintf("token-%d", i+3))
	}
}

func TestNeverWithUnderTenSecondsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plane{life: time.Hour}
		c := p.cache(t)
		get(t, c, req, "token-1")
		// Refreshing ahead fails: the token must not outlive itself for that.
		p.set(func() { p.err = problem.Errorf(problem.Unavailable, "away") })
		time.Sleep(time.Hour - 10*time.Second)
		get(t, c, req, "token-1")
		time.Sleep(time.Second)
		refuse(t, c, req, problem.Unavailable)
		p.set(func() { p.err, p.life = nil, 9*time.Second })
		refuse(t, c, req, problem.Unavailable) // the control plane's own must have them too
		c.Close()
	})
}

func TestRefreshAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ life, before, after time.Duration }{
		{24 * time.Hour, 10*time.Hour + 47*time.Minute, 12 * time.Hour}, // half, less up to a tenth of it
		{time.Hour, 49 * time.Minute, 55 * time.Minute},                 // five minutes before the end
		{10 * time.Minute, 7 * time.Minute, 8 * time.Minute},            // a fifth of its life before
	} {
		t.Run(tt.life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &plane{life: tt.life}
				c := p.cache(t)
				get(t, c, req, "token-1")
				time.Sleep(tt.before)
				get(t, c, req, "token-1")
				synctest.Wait()
				get(t, c, req, "token-1") // too early
				time.Sleep(tt.after - tt.before)
				p.set(func() { p.err = errors.New("broken") })
				get(t, c, req, "token-1")
				synctest.Wait()
				get(t, c, req, "token-1") // a refresh that fails changes nothing
				if p.fetched != 2 {
					t.Fatalf("%d fetches, want 2: one refresh was due", p.fetched)
				}
				p.set(func() { p.err = nil })
				time.Sleep(34 * time.Second)
				get(t, c, req, "token-1") // asks in the background, waits for nothing
				synctest.Wait()
				get(t, c, req, "token-3")
				c.Close()
			})
		})
	}
}

func TestRefreshAheadThatIsRefusedTakesTheTokenAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plane{life: time.Hour}
		c := p.cache(t)
		get(t, c, req, "token-1")
		time.Sleep(55 * time.Minute)
		p.set(func() { p.err = problem.Errorf(problem.IdentityNotFound, "gone") })
		get(t, c, req, "token-1")
		synctest.Wait()
		refuse(t, c, req, problem.IdentityNotFound)
		c.Close()
	})
}

func TestRefusalsAreNotRemembered(t *testing.T) {
	t.Parallel()
	p := &plane{err: problem.Errorf(problem.IdentityNotFound, "none")}
	c := p.cache(t)
	refuse(t, c, req, problem.IdentityNotFound)
	p.set(func() { p.err = nil })
	get(t, c, req, "token-2")
}

func TestStaleMemoryAsks(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t)
	get(t, c, req, "token-1")
	p.set(func() { p.stale = true })
	get(t, c, req, "token-2")
	p.set(func() { p.err = problem.Errorf(problem.Unavailable, "away") })
	get(t, c, req, "token-2")
	get(t, c, req, "token-2") // known to be away: not asked again at once
	if p.fetched != 3 {
		t.Errorf("%d fetches, want 3", p.fetched)
	}
	if len(p.served) != 2 || !p.served[0].Stale || p.served[0].TokenID != "uti-2" {
		t.Errorf("recorded %+v, want two stale answers", p.served)
	}
	bypass := req
	bypass.BypassCache = true
	refuse(t, c, bypass, problem.Unavailable)
}

func TestStaleMemoryIsRefusedWhereTheOwnerSaysSo(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t, func(cfg *tokens.Config) { cfg.ServeStale = false })
	get(t, c, req, "token-1")
	p.set(func() { p.stale, p.err = true, problem.Errorf(problem.Unavailable, "away") })
	refuse(t, c, req, problem.Unavailable)
	p.set(func() { p.stale = false })
	get(t, c, req, "token-1") // heard from again: good as it was
}

func TestNoRecordNoAnswer(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t)
	get(t, c, req, "token-1")
	p.set(func() { p.recorded = problem.Errorf(problem.Unavailable, "full") })
	refuse(t, c, req, problem.Unavailable)
}

func TestDrop(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change fleetapi.Change
		gone   bool
	}{
		{"resource", fleetapi.Change{Revision: 11, Resources: []string{workload}}, true},
		{"group above", fleetapi.Change{Revision: 11, Resources: []string{"/subscriptions/s/resourcegroups/g"}}, true},
		{"prefix that is no parent", fleetapi.Change{Revision: 11, Resources: []string{"/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachines/web"}}, false},
		{"principal", fleetapi.Change{Revision: 11, Principals: []string{"principal-1"}}, true},
		{"another principal", fleetapi.Change{Revision: 11, Principals: []string{"principal-2"}}, false},
		{"older than the token", fleetapi.Change{Revision: 10, Principals: []string{"principal-1"}}, false},
		{"all", fleetapi.Change{Revision: 9, All: true}, true},
		{"heartbeat", fleetapi.Change{Revision: 11}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &plane{revision: 10}
			c := p.cache(t)
			get(t, c, req, "token-1")
			p.set(func() { p.revision = 11 })
			c.Drop(tt.change)
			want := "token-1"
			if tt.gone {
				want = "token-2"
			}
			get(t, c, req, want)
		})
	}
}

func TestAnswerOvertakenByAChangeIsAskedForAnew(t *testing.T) {
	t.Parallel()
	p := &plane{revision: 10}
	c := p.cache(t)
	p.hold = func(n int) {
		if n == 1 { // the answer was made; the right goes before it arrives
			c.Drop(fleetapi.Change{Revision: 11, Principals: []string{"principal-1"}})
			p.set(func() { p.revision = 11 })
		}
	}
	get(t, c, req, "token-2")
	get(t, c, req, "token-2")

	// A replica that stays behind: nothing to give, nothing to keep.
	c.Drop(fleetapi.Change{Revision: 12, Principals: []string{"principal-1"}})
	refuse(t, c, req, problem.Unavailable)
	if n := c.Len(); n != 0 {
		t.Errorf("%d tokens are held, want none", n)
	}
	p.set(func() { p.revision = 12 })
	get(t, c, req, "token-5")
}

func TestChangesTooOldToRememberStillCount(t *testing.T) {
	t.Parallel()
	p := &plane{revision: 1}
	c := p.cache(t)
	for rev := range int64(2000) {
		c.Drop(fleetapi.Change{Revision: 10 + rev, Principals: []string{"other"}})
	}
	refuse(t, c, req, problem.Unavailable) // revision 1: who knows what it missed
	p.set(func() { p.revision = 2009 })
	get(t, c, req, "token-3")
}

func TestCallerThatGoesAwayLeavesTheFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plane{}
		land := make(chan struct{})
		p.hold = func(int) { <-land }
		c := p.cache(t)
		impatient, cancel := context.WithCancel(t.Context())
		var first error
		var second *fleetapi.TokenResponse
		one, two := req, req
		go func() { _, _, first = c.Get(impatient, &one) }()
		synctest.Wait()
		go func() { second, _, _ = c.Get(t.Context(), &two) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if first == nil {
			t.Error("the caller that went away got an answer")
		}
		close(land)
		synctest.Wait()
		if second == nil || second.AccessToken != "token-1" || p.fetched != 1 {
			t.Errorf("the other caller got %v after %d fetches, want token-1 after 1", second, p.fetched)
		}
		if len(p.served) != 1 {
			t.Errorf("%d answers on record, want 1: the control plane knows only of the first caller's", len(p.served))
		}
		c.Close()
	})
}

// What an older question was refused may have been granted before ours.
func TestRefusalOfAnOlderQuestionIsNotOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &plane{err: problem.Errorf(problem.IdentityNotFound, "none")}
		land := make(chan struct{})
		p.hold = func(n int) {
			if n == 1 {
				<-land
			}
		}
		c := p.cache(t)
		var first, second error
		one, two := req, req
		go func() { _, _, first = c.Get(t.Context(), &one) }()
		synctest.Wait()
		p.set(func() { p.err = nil }) // the identity is made, and then we ask
		go func() { _, _, second = c.Get(t.Context(), &two) }()
		synctest.Wait()
		close(land)
		synctest.Wait()
		if first == nil || second != nil {
			t.Errorf("first = %v, second = %v; want a refusal and none", first, second)
		}
		c.Close()
	})
}

func TestBypassAndRefreshByHash(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t)
	get(t, c, req, "token-1")
	bypass := req
	bypass.BypassCache = true
	get(t, c, bypass, "token-2")
	get(t, c, req, "token-2")
	sum := sha256.Sum256([]byte("token-2"))
	revoked := req
	revoked.RefreshSHA256 = hex.EncodeToString(sum[:])
	get(t, c, revoked, "token-3")
	get(t, c, revoked, "token-3")
}

func TestLeastUsedTokenMakesRoom(t *testing.T) {
	t.Parallel()
	p := &plane{}
	c := p.cache(t, func(cfg *tokens.Config) { cfg.Size = 2 })
	a, b, d := req, req, req
	a.Audience, b.Audience, d.Audience = "a", "b", "d"
	get(t, c, a, "token-1")
	get(t, c, b, "token-2")
	get(t, c, a, "token-1")
	get(t, c, d, "token-3")
	get(t, c, a, "token-1")
	get(t, c, b, "token-4")
	if c.Len() != 2 {
		t.Errorf("%d tokens are held, want 2", c.Len())
	}
}

// A token asked for after a change was heard is never from before it.
func TestParallelGetsNeverSeeDroppedTokens(t *testing.T) {
	t.Parallel()
	p := &plane{revision: 1}
	c := p.cache(t)
	var heard atomic.Int64
	heard.Store(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for rev := int64(2); rev < 300; rev++ {
			p.set(func() { p.revision = rev })
			c.Drop(fleetapi.Change{Revision: rev, Resources: []string{workload}})
			heard.Store(rev)
		}
	}()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			mine := req
			for range 20 {
				floor := heard.Load()
				tok, _, err := c.Get(t.Context(), &mine)
				if err != nil && !problem.Is(err, problem.Unavailable) {
					t.Errorf("Get = %v", err)
				}
				if err == nil && tok.Revision < floor {
					t.Errorf("token of revision %d after revision %d was heard", tok.Revision, floor)
				}
			}
		})
	}
	wg.Wait()
	<-done
}

// Who asks with one request again and again is answered without a search, and
// never with what is gone.
func TestRequestUsedAgainDoesNotHoldOn(t *testing.T) {
	t.Parallel()
	none := problem.Errorf(problem.IdentityNotFound, "none")
	for name, tt := range map[string]struct {
		lose func(context.Context, *plane, *tokens.Cache)
		want problem.Kind // "" where the next token is given
	}{
		"its workload changed": {func(_ context.Context, _ *plane, c *tokens.Cache) {
			c.Drop(fleetapi.Change{Revision: 9, Resources: []string{workload}})
		}, ""},
		"its principal changed": {func(_ context.Context, _ *plane, c *tokens.Cache) {
			c.Drop(fleetapi.Change{Revision: 9, Principals: []string{"principal-1"}})
		}, ""},
		"all changed":           {func(_ context.Context, _ *plane, c *tokens.Cache) { c.Drop(fleetapi.Change{Revision: 9, All: true}) }, ""},
		"it ended":              {func(context.Context, *plane, *tokens.Cache) { time.Sleep(24 * time.Hour) }, ""},
		"others asked for more": {func(context.Context, *plane, *tokens.Cache) {}, ""},
		"the control plane said no to another": {func(ctx context.Context, p *plane, c *tokens.Cache) {
			p.err = none
			bypass := req
			bypass.BypassCache = true
			_, _, _ = c.Get(ctx, &bypass)
		}, problem.IdentityNotFound},
		"it was refused since": {func(_ context.Context, p *plane, c *tokens.Cache) {
			p.err = none
			c.Drop(fleetapi.Change{Revision: 9, All: true})
		}, problem.IdentityNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plane{revision: 1}
				c := p.cache(t, func(cfg *tokens.Config) { cfg.Size = 1 })
				defer c.Close()
				again := req
				getAgain(t, c, &again, "token-1")
				getAgain(t, c, &again, "token-1")
				p.revision = 10
				if tt.lose(t.Context(), p, c); name == "others asked for more" {
					other := req
					other.Audience = "b"
					get(t, c, other, "token-2")
				}
				tok, _, err := c.Get(t.Context(), &again)
				if tt.want == "" && (err != nil || tok.AccessToken == "token-1") || tt.want != "" && !problem.Is(err, tt.want) {
					t.Errorf("the request used again = %v, %v", tok, err)
				}
			})
		})
	}
}
