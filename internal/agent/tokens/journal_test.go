package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

var at = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

func journal(t *testing.T, dir string, limit int64) *tokens.Journal {
	t.Helper()
	j, err := tokens.OpenJournal(dir, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func served(t *testing.T, j *tokens.Journal, caller string, at time.Time) {
	t.Helper()
	if err := j.Served(&tokens.Answer{Served: fleetapi.Served{Workload: workload, TokenID: "uti-1", Caller: caller}}, at); err != nil {
		t.Fatal(err)
	}
}

// ship returns what one round sends.
func ship(t *testing.T, j *tokens.Journal) []fleetapi.EventsRequest {
	t.Helper()
	var got []fleetapi.EventsRequest
	if err := j.Ship(t.Context(), func(_ context.Context, r fleetapi.EventsRequest) error {
		got = append(got, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "journal-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The journal is not closed here: a killed agent closes nothing.
func TestJournalSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	killed := journal(t, dir, 0)
	served(t, killed, "one", at)
	served(t, killed, "one", at.Add(time.Second))
	served(t, killed, "two", at)
	if err := killed.Refused(fleetapi.Refusal{At: at, Caller: "three", Reason: "no placement"}); err != nil {
		t.Fatal(err)
	}
	name := files(t, dir)[0]
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("journal = %v, %v; want mode 0600", info.Mode(), err)
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"n":0,"c":1,"t":17`); err != nil { // killed while writing
		t.Fatal(err)
	}
	f.Close()

	got := ship(t, journal(t, dir, 0))
	want := []fleetapi.EventsRequest{{
		Served: []fleetapi.Served{
			{At: at.Add(time.Second), Count: 2, Workload: workload, TokenID: "uti-1", Caller: "one"},
			{At: at, Count: 1, Workload: workload, TokenID: "uti-1", Caller: "two"},
		},
		Refusals: []fleetapi.Refusal{{At: at, Count: 1, Caller: "three", Reason: "no placement"}},
	}}
	if len(got) == 1 {
		want[0].Batch = got[0].Batch
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shipped after the kill (-want +got):\n%s", diff)
	}
}

func TestBatchIsSentUnderOneNumberUntilAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := journal(t, dir, 0)
	served(t, j, "one", at)
	var lost fleetapi.EventsRequest
	err := j.Ship(t.Context(), func(_ context.Context, r fleetapi.EventsRequest) error {
		lost = r
		return errors.New("the answer was lost")
	})
	if err == nil {
		t.Fatal("Ship reported no error")
	}
	served(t, j, "one", at.Add(time.Hour)) // goes into the next batch, never into this one
	again := ship(t, journal(t, dir, 0))   // by another process
	if len(again) != 2 || !cmp.Equal(lost, again[0]) {
		t.Fatalf("shipped again %+v, want first %+v", again, lost)
	}
	if again[1].Batch <= again[0].Batch {
		t.Errorf("batch %d follows %d", again[1].Batch, again[0].Batch)
	}
	last := again[1].Batch
	if left := ship(t, journal(t, dir, 0)); len(left) != 0 {
		t.Errorf("shipped %+v once more after it was acknowledged", left)
	}
	j = journal(t, dir, 0)
	served(t, j, "one", at)
	if got := ship(t, j); len(got) != 1 || got[0].Batch <= last {
		t.Errorf("shipped %+v, want one batch above %d", got, last)
	}
}

// An agent that stops ships once: also what came while older records waited.
func TestOneShipmentIsAllThatThereIs(t *testing.T) {
	t.Parallel()
	j := journal(t, t.TempDir(), 0)
	served(t, j, "one", at)
	if err := j.Ship(t.Context(), func(context.Context, fleetapi.EventsRequest) error { return errors.New("cut off") }); err == nil {
		t.Fatal("Ship reported no error")
	}
	served(t, j, "two", at)
	if got := ship(t, j); len(got) != 2 || got[1].Served[0].Caller != "two" {
		t.Errorf("shipped %+v, want what waited and what came after it", got)
	}
}

func TestNumbersRiseWhenTheStateIsLost(t *testing.T) {
	t.Parallel()
	old, anew := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j := journal(t, old, 0)
		served(t, j, "one", at)
		first := ship(t, j)[0].Batch
		time.Sleep(time.Second) // numbers begin with the time
		j = journal(t, anew, 0)
		served(t, j, "one", at)
		if second := ship(t, j)[0].Batch; second <= first {
			t.Errorf("a new state directory begins with batch %d, the old one had %d", second, first)
		}
	})
}

func TestFullJournalRefusesNewCallers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := journal(t, dir, 1000)
	served(t, j, "known", at)
	var full error
	n := 0
	for ; full == nil && n < 100; n++ {
		full = j.Served(&tokens.Answer{Served: fleetapi.Served{Caller: fmt.Sprintf("caller-%d", n)}}, at)
	}
	if !problem.Is(full, problem.Unavailable) || !strings.Contains(full.Error(), "record is full") {
		t.Fatalf("recording with a full journal = %v, want unavailable and the reason", full)
	}
	for range 50 { // callers on record are answered and counted
		served(t, j, "known", at.Add(time.Minute))
	}
	info, err := os.Stat(files(t, dir)[0])
	if err != nil || info.Size() > 1000 {
		t.Errorf("journal is %d bytes long, want at most 1000 (%v)", info.Size(), err)
	}
	got := ship(t, j)
	if len(got) != 1 || got[0].Served[0].Count != 51 || !got[0].Served[0].At.Equal(at.Add(time.Minute)) {
		t.Errorf("shipped %+v, want known to count 51", got)
	}
	served(t, j, "caller-new", at) // shipped: room again
}

// TestStatePutBackLosesNothing: a machine that is put back to a snapshot does
// not number new records as the control plane has had old ones.
func TestStatePutBackLosesNothing(t *testing.T) {
	t.Parallel()
	dir, snapshot := t.TempDir(), filepath.Join(t.TempDir(), "snapshot")
	synctest.Test(t, func(t *testing.T) {
		highest := int64(0)
		for round := range 5 {
			switch round {
			case 1:
				must(t, os.CopyFS(snapshot, os.DirFS(dir)))
			case 3:
				must(t, os.RemoveAll(dir))
				must(t, os.CopyFS(dir, os.DirFS(snapshot)))
			}
			j := journal(t, dir, 0)
			served(t, j, "one", at)
			got := ship(t, j)
			if len(got) != 1 || got[0].Batch <= highest {
				t.Errorf("round %d ships %+v, want one batch above %d", round, got, highest)
				return
			}
			highest = got[0].Batch
			time.Sleep(tokens.ShipEvery)
		}
	})
}

func TestLargeJournalIsShippedInParts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := journal(t, dir, 0)
	for i := range 500 {
		served(t, j, fmt.Sprint("caller-", i), at)
	}
	sent := 0
	err := j.Ship(t.Context(), func(_ context.Context, r fleetapi.EventsRequest) error {
		if sent++; sent == 2 {
			return errors.New("cut off")
		}
		return nil
	})
	if err == nil {
		t.Fatal("Ship reported no error")
	}
	served(t, j, "later", at)
	got := ship(t, journal(t, dir, 0))
	if len(got) != 4 {
		t.Fatalf("%d batches, want 4", len(got))
	}
	for i, want := range []int{200, 200, 100, 1} {
		if len(got[i].Served) != want || i > 0 && got[i].Batch <= got[i-1].Batch {
			t.Errorf("batch %d has number %d and %d records, want a higher one than before and %d", i, got[i].Batch, len(got[i].Served), want)
		}
	}
}

func TestDamagedJournalIsNotPassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := journal(t, dir, 0)
	served(t, j, "one", at)
	j.Close()
	name := files(t, dir)[0]
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append([]byte("{broken}\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.OpenJournal(dir, 0, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("OpenJournal = %v, want an error about line 1", err)
	}
}

func TestClosedJournalTakesNothing(t *testing.T) {
	t.Parallel()
	j := journal(t, t.TempDir(), 0)
	j.Close()
	if err := j.Served(&tokens.Answer{}, at); !problem.Is(err, problem.Unavailable) {
		t.Errorf("Served after Close = %v, want unavailable", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a power cut or a kill in the midst of removing can leave behind is read
// as far as it is there, and is in nobody's way.
func TestCountsWithoutRecordsAreSwept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := journal(t, dir, 0)
	served(t, j, "one", at)
	served(t, j, "one", at.Add(time.Second))
	j.Close()
	counts, err := filepath.Glob(filepath.Join(dir, "counts-*"))
	if err != nil || len(counts) != 1 {
		t.Fatalf("counts = %q, %v; want one file", counts, err)
	}
	if info, err := os.Stat(counts[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("counts = %v, %v; want mode 0600", info.Mode(), err)
	}
	must(t, os.Truncate(counts[0], 7))
	must(t, os.WriteFile(filepath.Join(dir, "counts-00000000000000000001"), make([]byte, 4096), 0o600))
	j = journal(t, dir, 0)
	if got := ship(t, j); len(got) != 1 || got[0].Served[0].Count != 1 {
		t.Errorf("shipped %+v, want the record without its lost count", got)
	}
	if counts, err = filepath.Glob(filepath.Join(dir, "counts-*")); err != nil || len(counts) != 0 {
		t.Errorf("%q are left (%v), want none", counts, err)
	}
	served(t, j, "two", at)
}
