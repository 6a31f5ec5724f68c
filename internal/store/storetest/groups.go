package storetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/vault"
)

func groups() []test {
	return []test{
		{"RecordedIsOnDiskAndVerifies", recordRoundTrip},
		{"RecordOfManyCallersIsGrouped", recordGrouped},
		{"RecordRefusesWhatHasNoForm", recordRefuses},
		{"RecordCancelledWhileQueued", recordCancelled},
		{"FailingJobUndoesItselfAlone", jobsIsolated},
		{"JobThatEndsItsGoroutineIsAnswered", jobsMisbehave},
		{"CloseWaitsForQueuedCommits", closeWaits},
		{"BatchesAfterANumber", batchesAfter},
		{"HeadsBeforeATime", chainsBefore},
		{"ChainsVerifyUnderConcurrentWriters", chainsVerify},
	}
}

func recordRoundTrip(t *testing.T, f *fixture) {
	ev := audit.Event{
		Tenant: tenant, At: noon, Action: "read", Target: "/x", Outcome: audit.Denied, Principal: "p", Name: "n", Host: "h",
		Via: "v", Reason: "r", Audience: "a", Token: "t", Count: 3, Request: "q",
	}
	undated := *event(tenant, "undated")
	undated.At = time.Time{}
	must(t, f.db.Record(t.Context(), ev, undated))
	must(t, f.db.Record(t.Context()))
	must(t, f.db.Record(t.Context(), audit.Event{Action: "of the installation", At: noon}))
	heads, err := f.db.Heads(t.Context(), tenant)
	must(t, err)
	same(t, "how many chains", len(heads), 2)
	for chain, run := range f.chains(tenant) {
		if chain == audit.ManagementChain {
			continue
		}
		same(t, "head", heads[chain], int64(1))
		evs, err := run[0].Events()
		must(t, err)
		same(t, "the event", evs[0], ev)
		same(t, "dated by the store", evs[1].At.IsZero(), false)
	}
	same(t, "of no tenant", f.actions(""), []string{"of the installation"})
}

// recordGrouped holds up the committer, so that all callers queue behind it.
func recordGrouped(t *testing.T, f *fixture) {
	const callers = 50
	inside, leave := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return f.hold(inside, leave) })
	<-inside
	for range callers {
		g.Go(func() error { return f.db.Record(t.Context(), *event(tenant, "grouped")) })
	}
	close(leave)
	must(t, g.Wait())
	same(t, "on record", len(f.actions(tenant)), callers+1)
}

// hold occupies the committer with a job that ends when leave is closed.
func (f *fixture) hold(inside, leave chan struct{}) error {
	var once sync.Once
	return f.db.WriteSecrets(f.t.Context(), event(tenant, "hold"), func(vault.Tx) error {
		once.Do(func() { close(inside) })
		<-leave
		return nil
	})
}

func recordRefuses(t *testing.T, f *fixture) {
	far, long, nul := *event(tenant, "far"), *event(tenant, "long"), *event(tenant, "nul")
	far.At = noon.AddDate(9000, 0, 0)
	long.Tenant = fmt.Sprintf("%0300d", 1)
	nul.Tenant = "a\x00"
	for _, ev := range []audit.Event{far, long, nul} {
		refused(t, "Record", f.db.Record(t.Context(), ev), problem.Invalid)
		refused(t, "WriteSecrets", f.db.WriteSecrets(t.Context(), &ev, func(vault.Tx) error { return nil }), problem.Invalid)
	}
}

func recordCancelled(t *testing.T, f *fixture) {
	inside, leave := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() { held <- f.hold(inside, leave) }()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	queued := make(chan error, 1)
	go func() { queued <- f.db.Record(ctx, *event(tenant, "given up")) }()
	cancel() // before or after it is queued: it is not begun, as the committer is held
	if err := <-queued; !errors.Is(err, context.Canceled) {
		t.Errorf("Record = %v, want %v", err, context.Canceled)
	}
	close(leave)
	must(t, <-held)
	must(t, f.db.Record(t.Context(), *event(tenant, "after")))
	same(t, "on record", f.actions(tenant), []string{"after", "hold"})

	// One that is begun is told the truth, whatever its context says.
	ctx, cancel = context.WithCancel(t.Context())
	err := f.db.WriteSecrets(ctx, event(tenant, "begun"), func(vault.Tx) error { cancel(); return nil })
	same(t, "told that it was committed", err, error(nil))
	same(t, "on record", f.actions(tenant), []string{"after", "begun", "hold"})
}

// jobsIsolated queues good and bad jobs while the committer is held, so that
// they share a transaction.
func jobsIsolated(t *testing.T, f *fixture) {
	f.put(node(vaultID))
	inside, leave := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error { return f.hold(inside, leave) })
	<-inside
	mine := errors.New("mine")
	for i := range 20 {
		g.Go(func() error {
			name := fmt.Sprintf("s%02d", i)
			err := f.db.WriteSecrets(t.Context(), event(tenant, name), func(tx vault.Tx) error {
				if err := tx.AddVersion(place, version(name, 1)); err != nil {
					return err
				}
				switch i % 4 {
				case 1:
					return mine
				case 2:
					panic("in a job")
				case 3: // a statement that the database refuses
					return tx.AddVersion(place, version(name, 1))
				}
				return nil
			})
			switch {
			case i%4 == 0 && err != nil:
				return err
			case i%4 == 1 && err != mine:
				return fmt.Errorf("got %w, want the job's own error", err)
			case i%4 > 1 && err == nil:
				return fmt.Errorf("job %d succeeded", i)
			}
			return nil
		})
	}
	close(leave)
	must(t, g.Wait())
	want := []string{"s00", "s04", "s08", "s12", "s16"}
	same(t, "on record", f.actions(tenant), append([]string{"hold"}, want...))
	got, err := f.db.Secrets(t.Context(), tenant, vaultKey, false, "", 100)
	must(t, err)
	same(t, "secrets", secretNames(got), want)
}

func jobsMisbehave(t *testing.T, f *fixture) {
	err := f.db.WriteSecrets(t.Context(), event(tenant, "goes"), func(vault.Tx) error {
		runtime.Goexit()
		return nil
	})
	if err == nil {
		t.Error("a job that ended its goroutine succeeded")
	}
	f.put(node(vaultID))
	// Ignoring a refusal of the database does not make it a success.
	err = f.db.WriteSecrets(t.Context(), event(tenant, "ignores"), func(tx vault.Tx) error {
		must(t, tx.AddVersion(place, version("s", 1)))
		_ = tx.AddVersion(place, version("s", 1))
		return nil
	})
	got, listErr := f.db.Versions(t.Context(), tenant, vaultKey, "s", "", 10)
	must(t, listErr)
	if err != nil && len(got) > 0 {
		t.Errorf("WriteSecrets = %v, but there are %d versions", err, len(got))
	}
	must(t, f.db.Record(t.Context(), *event(tenant, "goes on")))
}

func closeWaits(t *testing.T, f *fixture) {
	inside, leave := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	go func() { held <- f.hold(inside, leave) }()
	<-inside
	closed := make(chan error, 1)
	go func() { closed <- f.db.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close = %v with a job under way", err)
	default:
	}
	close(leave)
	must(t, <-held)
	must(t, <-closed)
}

func batchesAfter(t *testing.T, f *fixture) {
	for range 5 {
		must(t, f.db.Record(t.Context(), *event(tenant, "one by one")))
	}
	chains := f.chains(tenant)
	same(t, "chains", len(chains), 2)
	for chain, run := range chains {
		if chain == audit.ManagementChain {
			continue
		}
		after := map[string]int64{chain: 2, audit.ManagementChain: 1}
		got, err := f.db.Batches(t.Context(), tenant, after, 2)
		must(t, err)
		same(t, "two after the second", got, run[2:4])
		must(t, audit.Verify(2, run[1].Hash, got))
		after[chain] = 5
		got, err = f.db.Batches(t.Context(), tenant, after, 2)
		must(t, err)
		same(t, "after the last", len(got), 0)
	}
}

// chainsBefore: who reads from a time on begins behind what was committed
// before it, in each chain, whatever times the events themselves have.
func chainsBefore(t *testing.T, f *fixture) {
	heads := func(at time.Time) map[string]int64 {
		t.Helper()
		got, err := f.db.HeadsBefore(t.Context(), tenant, at)
		must(t, err)
		return got
	}
	old := event(tenant, "shipped late")
	old.At = noon.Add(-24 * time.Hour)
	must(t, f.db.Record(t.Context(), *old))
	run := f.chains(tenant)
	begin := map[string]int64{}
	all := map[string]int64{}
	for name, batches := range run {
		begin[name], all[name] = 0, int64(len(batches))
	}
	same(t, "before all time", heads(time.Time{}), begin)
	same(t, "before the fixture", heads(noon.Add(-time.Hour)), begin)
	same(t, "in time to come", heads(time.Now().Add(time.Hour)), all)
	must(t, f.db.Record(t.Context(), *event(tenant, "a")))
	between := time.Now().Add(time.Millisecond).Truncate(time.Millisecond)
	for !time.Now().After(between) {
		time.Sleep(time.Millisecond)
	}
	mid := heads(between)
	must(t, f.db.Record(t.Context(), *old))
	same(t, "the batches before do not change", heads(between), mid)
	got, err := f.db.Batches(t.Context(), tenant, mid, 0)
	must(t, err)
	if len(got) != 1 || got[0].Chain == audit.ManagementChain {
		t.Fatalf("since then there are %d batches, want the one with the late event", len(got))
	}
	evs, err := got[0].Events()
	must(t, err)
	same(t, "its event", evs[0].Action, "shipped late")
}

// chainsVerify mixes everything that records.
func chainsVerify(t *testing.T, f *fixture) {
	f.createTenant(other)
	f.put(node(vaultID))
	const each = 15
	var g errgroup.Group
	for w := range 4 {
		of := []string{tenant, other}[w%2]
		g.Go(func() error {
			for i := range each {
				put := func(tx arm.Tx) error { return tx.PutResource(node(machine("G", fmt.Sprintf("vm-%d-%d", w, i)))) }
				if err := f.db.Write(t.Context(), event(of, "managed"), put); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for range each {
				if err := f.db.Record(t.Context(), *event(of, "recorded"), *event(of, "recorded")); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for i := range each {
				add := func(tx vault.Tx) error { return tx.AddVersion(place, version(fmt.Sprintf("s%d", w), i)) }
				if err := f.db.WriteSecrets(t.Context(), event(of, "secret"), add); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, g.Wait())
	for _, of := range []string{tenant, other} {
		count := map[string]int{}
		for _, action := range f.actions(of) { // which verifies the chains
			count[action]++
		}
		same(t, "on record", count, map[string]int{"managed": 2 * each, "recorded": 4 * each, "secret": 2 * each})
	}
}
