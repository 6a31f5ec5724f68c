package limit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/problem"
)

var (
	loud  = Caller{Origin: "uid:1", Name: "loud"}
	quiet = Caller{Origin: "uid:1", Name: "quiet"}
	small = Config{PerSecond: 10, Burst: 5, Wait: time.Second, Waiters: 4, Connections: 3}
)

func turn(t *testing.T, l *Limiter, who Caller) error {
	t.Helper()
	_, err := l.Turn(t.Context(), who)
	if err != nil && !problem.Is(err, problem.Throttled) {
		t.Fatalf("Turn = %v, want throttled or nothing", err)
	}
	return err
}

// knock asks without waiting, and reports whether it was who's turn.
func knock(l *Limiter, who Caller) (free bool) {
	p, wait, err := l.queue(who)
	if wait != nil {
		wait.Cancel()
		l.leave(p)
	}
	return err == nil && wait == nil
}

func TestBurstThenTurnThenRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(small)
		began := time.Now()
		for range 5 {
			if err := turn(t, l, loud); err != nil || time.Since(began) > 0 {
				t.Fatalf("within the burst: %v after %v, want at once", err, time.Since(began))
			}
		}
		var wg sync.WaitGroup
		var served, refused atomic.Int64
		for range 10 {
			wg.Go(func() {
				if turn(t, l, loud) == nil {
					served.Add(1)
				} else {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if refused.Load() != 6 || served.Load() != 0 {
			t.Errorf("of ten more %d are served and %d refused at once; want 4 that wait and 6 refused", served.Load(), refused.Load())
		}
		// The one beside it does not notice.
		if err := turn(t, l, quiet); err != nil {
			t.Errorf("another caller is refused: %v", err)
		}
		wg.Wait()
		if got := time.Since(began); served.Load() != 4 || got != 400*time.Millisecond {
			t.Errorf("%d of those that wait had their turn after %v, want 4 after 400ms", served.Load(), got)
		}
	})
}

func TestNobodyWaitsLongerThanTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PerSecond: 1, Burst: 1, Wait: 2500 * time.Millisecond, Waiters: 100})
		var wg sync.WaitGroup
		var served atomic.Int64
		began := time.Now()
		for range 50 {
			wg.Go(func() {
				if turn(t, l, loud) == nil {
					served.Add(1)
				}
				if waited := time.Since(began); waited > 2500*time.Millisecond {
					t.Errorf("a request waited %v", waited)
				}
			})
		}
		wg.Wait()
		if served.Load() != 3 {
			t.Errorf("%d served, want 3: at 0 s, 1 s and 2 s", served.Load())
		}
	})
}

// A client that gives up leaves its turn to the next one.
func TestWhoGivesUpLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PerSecond: 1, Burst: 1, Wait: time.Second, Waiters: 1})
		_ = turn(t, l, loud)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Turn(ctx, loud); !problem.Is(err, problem.Throttled) {
				t.Errorf("a request that ended = %v, want throttled", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if err := turn(t, l, loud); err != nil {
			t.Errorf("the next in the queue is refused: %v", err)
		}
	})
}

func TestFirstRefusalOfARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{PerSecond: 1, Burst: 1})
		for i, want := range []bool{false, true, false, false} {
			if first, _ := l.Turn(t.Context(), loud); first != want {
				t.Errorf("request %d: first refusal = %v, want %v", i, first, want)
			}
		}
		time.Sleep(time.Second)
		_ = turn(t, l, loud)
		if first, err := l.Turn(t.Context(), loud); !first || err == nil {
			t.Errorf("after a calm second: first = %v, %v, want the first refusal of a new row", first, err)
		}
	})
}

func TestZeroIsNoLimit(t *testing.T) {
	t.Parallel()
	l := New(Config{})
	for range 100_000 {
		if err := turn(t, l, loud); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if _, _, err := l.Open(loud); err != nil {
			t.Fatal(err)
		}
	}
	if l.Len() != 0 {
		t.Errorf("%d callers are remembered for nothing", l.Len())
	}
}

// Who has spent its burst cannot have a new one by being thousands of others.
func TestFloodOfIdentitiesResetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(small)
		for range 5 {
			_ = turn(t, l, loud)
		}
		spent := func() (free int) {
			for range 5 {
				if knock(l, loud) {
					free++
				}
			}
			return free
		}
		for i := range 3 * maxCallers {
			knock(l, Caller{Origin: "uid:1", Name: "copy-" + strconv.Itoa(i)})
		}
		if n := spent(); n > 0 {
			t.Errorf("after a flood from its own user, a caller has %d free requests again, want 0", n)
		}
		for i := range 3 * maxCallers {
			knock(l, Caller{Origin: "uid:" + strconv.Itoa(i), Name: "x"})
		}
		if n := spent(); n > 0 {
			t.Errorf("after a flood from many users, a caller has %d free requests again, want 0", n)
		}
		if got := l.Len(); got > maxCallers+1 {
			t.Errorf("%d callers are remembered, want %d at most", got, maxCallers+1)
		}
		// Later nothing of it is worth remembering.
		time.Sleep(time.Minute)
		for i := range maxCallers {
			knock(l, Caller{Origin: "late", Name: "one"})
			knock(l, Caller{Origin: "late", Name: strconv.Itoa(i % 2)})
			l.mu.Lock()
			l.sweep()
			l.mu.Unlock()
		}
		if got := l.Len(); got > 3 {
			t.Errorf("%d callers are remembered after a calm minute, want 3", got)
		}
		if len(l.origins) != 1 {
			t.Errorf("%d origins are remembered, want 1", len(l.origins))
		}
	})
}

// A flood starves its own user's newcomers, not another's.
func TestFloodTakesFromItsOwnOriginAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(small)
		for i := range 10 * maxPerOrigin {
			knock(l, Caller{Origin: "uid:1", Name: strconv.Itoa(i)})
		}
		if knock(l, Caller{Origin: "uid:1", Name: "new"}) {
			t.Error("a newcomer of the flooding user has a place of its own")
		}
		for i := range 5 {
			if err := turn(t, l, Caller{Origin: "uid:2", Name: fmt.Sprint(i)}); err != nil {
				t.Errorf("another user's program is refused: %v", err)
			}
		}
	})
}

func TestConnections(t *testing.T) {
	t.Parallel()
	l := New(small)
	var closers []func()
	for i := range 3 {
		closed, _, err := l.Open(loud)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		closers = append(closers, closed)
	}
	if _, first, err := l.Open(loud); !problem.Is(err, problem.Throttled) || !first {
		t.Errorf("connection 4 = first %v, %v, want throttled", first, err)
	}
	if _, _, err := l.Open(quiet); err != nil {
		t.Errorf("another caller's connection: %v", err)
	}
	closers[0]()
	closers[0]() // once more gives nothing back
	if _, _, err := l.Open(loud); err != nil {
		t.Errorf("a connection after one was closed: %v", err)
	}
	if _, _, err := l.Open(loud); err == nil {
		t.Error("closing one connection twice gave two back")
	}
}

// Many callers of one user together may not have every descriptor.
func TestConnectionsOfOneOrigin(t *testing.T) {
	t.Parallel()
	l := New(small)
	var open int
	for i := range 1000 {
		if _, _, err := l.Open(Caller{Origin: "uid:1", Name: strconv.Itoa(i)}); err == nil {
			open++
		}
	}
	if want := connectionsOfOrigin * small.Connections; open != want {
		t.Errorf("1000 callers of one user have %d connections open, want %d", open, want)
	}
	if _, _, err := l.Open(Caller{Origin: "uid:2", Name: "other"}); err != nil {
		t.Errorf("another user's connection: %v", err)
	}
}

func BenchmarkTurn(b *testing.B) {
	l := New(Config{PerSecond: 1e9, Burst: 1e9, Wait: time.Second, Waiters: 100})
	for b.Loop() {
		if _, err := l.Turn(b.Context(), loud); err != nil {
			b.Fatal(err)
		}
	}
}
