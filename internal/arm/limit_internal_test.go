package arm

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

var limited = access.Caller{Tenant: "t", Principal: "p", Client: "c"}

func TestBucketsRefill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(Rate{PerSecond: 0.5, Burst: 3}, Rate{PerSecond: 1, Burst: 1}, time.Now)
		sub := resource.MustParse("/subscriptions/s")
		for want := 2; want >= 0; want-- {
			if got, err := l.take(limited, sub, kindReads); err != nil || got.n != want {
				t.Errorf("a read leaves %d (%v), want %d", got.n, err, want)
			}
		}
		left, err := l.take(limited, sub, kindReads)
		p := problem.Of(err)
		if p.Kind != problem.Throttled || p.After != 2*time.Second || p.RetryAfter() != "2" || left.n != 0 || left.header != "x-ms-ratelimit-remaining-subscription-reads" {
			t.Errorf("the fourth read at once: %+v, %v, want a refusal for 2 s", left, err)
		}
		for _, want := range []string{"'c'", "'p'", "reads", "subscription", "0.5", "3", "'2' seconds"} {
			if !strings.Contains(p.Detail, want) {
				t.Errorf("the refusal does not say %s: %s", want, p.Detail)
			}
		}
		// Writes, deletes, the tenant's and other principals' are other buckets.
		for _, kind := range []string{kindWrites, kindDeletes} {
			if _, err := l.take(limited, sub, kind); err != nil {
				t.Errorf("one of the %s: %v", kind, err)
			}
		}
		if got, err := l.take(limited, resource.ID{}, kindReads); err != nil || got.header != "x-ms-ratelimit-remaining-tenant-reads" {
			t.Errorf("a read of the tenant: %+v, %v", got, err)
		}
		for _, other := range []access.Caller{{Tenant: "t", Principal: "q"}, {Tenant: "u", Principal: "p"}} {
			if _, err := l.take(other, sub, kindReads); err != nil {
				t.Errorf("a read of %+v: %v", other, err)
			}
		}
		time.Sleep(2 * time.Second)
		if _, err := l.take(limited, sub, kindReads); err != nil {
			t.Errorf("when it was told to come again: %v", err)
		}
	})
}

// TestFirstRefusalOfARunIsRecorded: a run ends when the bucket was full again,
// not with one request that got through between two.
func TestFirstRefusalOfARunIsRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(Rate{PerSecond: 10, Burst: 20}, DefaultRate, time.Now)
		loop := func(d time.Duration) (answered, refused, toRecord int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				switch _, err := l.take(limited, resource.ID{}, kindReads); {
				case err == nil:
					answered++
				case OnRecord(err):
					refused++
				default:
					refused++
					toRecord++
				}
			}
			return
		}
		answered, refused, toRecord := loop(time.Minute)
		if answered < 600 || answered > 620 || refused != 60_000-answered || toRecord != 1 {
			t.Errorf("in a minute of a thousand a second %d are answered and %d refused, %d of them to be recorded; want some 620 and one", answered, refused, toRecord)
		}
		time.Sleep(2 * time.Second)
		if _, _, toRecord := loop(time.Second); toRecord != 1 {
			t.Errorf("in the next run %d refusals are to be recorded, want one", toRecord)
		}
	})
}

// TestFullBucketsAreForgotten: and, of those that are not, the ones used longest
// ago where there are too many.
func TestFullBucketsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLimits(Rate{PerSecond: 1, Burst: 2}, DefaultRate, time.Now)
		many := func(n int, name string) {
			for i := range n {
				if _, err := l.take(access.Caller{Tenant: "t", Principal: fmt.Sprint(name, i)}, resource.ID{}, kindReads); err != nil {
					t.Fatal(err)
				}
			}
		}
		many(1000, "a")
		if len(l.buckets) != 1000 || l.lru.Len() != 1000 {
			t.Errorf("1000 principals have %d buckets", len(l.buckets))
		}
		time.Sleep(time.Second)
		many(200, "b")
		if len(l.buckets) > 200 || l.lru.Len() != len(l.buckets) {
			t.Errorf("when 1000 buckets are full again %d are remembered, want those of 200 new ones at most", len(l.buckets))
		}
		many(maxBuckets+100, "c")
		if len(l.buckets) > maxBuckets || l.lru.Len() != len(l.buckets) {
			t.Errorf("%d buckets are remembered, want at most %d", len(l.buckets), maxBuckets)
		}
		// The one used last is not among those that were forgotten.
		last := access.Caller{Tenant: "t", Principal: fmt.Sprint("c", maxBuckets+99)}
		if left, _ := l.take(last, resource.ID{}, kindReads); left.n != 0 {
			t.Errorf("the bucket that was used last has %d left, want what two requests leave of 2", left.n)
		}
	})
}

// TestClockThatGoesBackGivesNothing, and takes nothing for ever.
func TestClockThatGoesBackGivesNothing(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	l := NewLimits(Rate{PerSecond: 1, Burst: 1}, DefaultRate, func() time.Time { return now })
	take := func() bool { _, err := l.take(limited, resource.ID{}, kindReads); return err == nil }
	if !take() {
		t.Error("the first request was refused")
	}
	now = now.Add(-time.Hour)
	if take() {
		t.Error("a clock that goes back gives a request")
	}
	now = now.Add(time.Second)
	if !take() {
		t.Error("a second later there is none")
	}
}

// TestLimitsAreForManyAtOnce: of many at once as many get through as there are.
func TestLimitsAreForManyAtOnce(t *testing.T) {
	t.Parallel()
	l := NewLimits(Rate{PerSecond: 1, Burst: 100}, DefaultRate, func() time.Time { return time.Unix(1_790_000_000, 0) })
	var mu sync.Mutex
	var all sync.WaitGroup
	answered, toRecord := 0, 0
	for range 16 {
		all.Go(func() {
			for range 50 {
				_, err := l.take(limited, resource.ID{}, kindReads)
				mu.Lock()
				if err == nil {
					answered++
				} else if !OnRecord(err) {
					toRecord++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if answered != 100 || toRecord != 1 {
		t.Errorf("%d of 800 get through and %d refusals are to be recorded, want 100 and 1", answered, toRecord)
	}
}

// TestDefaultLimitIsForLoopsAlone: the script of a whole life, from 16 clients and
// 10,000 times over, three writes and a delete each, at whatever speed.
func TestDefaultLimitIsForLoopsAlone(t *testing.T) {
	t.Parallel()
	for _, perSecond := range []int{100, 2000} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimits(DefaultRate, DefaultRate, time.Now)
			for n := 0; n < 30_000; n++ {
				for _, kind := range []string{kindWrites, kindReads} {
					if _, err := l.take(limited, resource.ID{}, kind); err != nil {
						t.Fatalf("request %d at %d a second: %v", n, perSecond, err)
					}
				}
				time.Sleep(time.Second / time.Duration(perSecond))
			}
		})
	}
}

func TestRatesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, bad := range []Rate{{-1, 1}, {math.NaN(), 1}, {math.Inf(1), 1}, {1e7, 1}, {1, 0}, {1, -1}, {1, 2e9}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	for _, good := range []Rate{{}, {0, -1}, {0.01, 1}, DefaultRate} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}
