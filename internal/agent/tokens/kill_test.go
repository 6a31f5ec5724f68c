package tokens_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/fleetapi"
)

// The agent of TestKilledAtAnyMoment is this binary, started again with the
// journal's directory in its environment.
const journalVar = "INNATE_TEST_JOURNAL"

const killCallers = 4

func TestMain(m *testing.M) {
	if dir := os.Getenv(journalVar); dir != "" {
		answerUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// answerUntilKilled gives out answers as fast as it can: a byte on standard
// output for each, when it is on record. What it ships goes to file 3.
func answerUntilKilled(dir string) {
	j, err := tokens.OpenJournal(dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for c := range killCallers {
		go func() {
			again := &tokens.Answer{Served: fleetapi.Served{Workload: workload, Caller: fmt.Sprint(c)}}
			for {
				if j.Served(again, time.Now()) != nil {
					os.Exit(1)
				}
				_, _ = os.Stdout.Write([]byte{byte(c)})
			}
		}()
	}
	shipped := os.NewFile(3, "shipped")
	for {
		time.Sleep(time.Millisecond)
		if err := j.Ship(context.Background(), func(_ context.Context, r fleetapi.EventsRequest) error {
			text, err := json.Marshal(r)
			if err != nil {
				return err
			}
			_, err = shipped.Write(append(text, '\n')) // in one piece: it is short
			return err
		}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// shipments are what reached the control plane, each batch once.
type shipments struct {
	batches map[int64]fleetapi.EventsRequest
}

func (s *shipments) take(t *testing.T, r fleetapi.EventsRequest) {
	t.Helper()
	if before, again := s.batches[r.Batch]; again && !cmp.Equal(before, r) {
		t.Errorf("batch %d was sent twice and differs:\n%s", r.Batch, cmp.Diff(before, r))
	}
	s.batches[r.Batch] = r
}

// TestKilledAtAnyMoment kills an agent's journal at random, again and again.
// Every answer that left is on record, and for each kill and caller there is at
// most one more: that which was on record and did not get out.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	dir, shipped := t.TempDir(), &shipments{map[int64]fleetapi.EventsRequest{}}
	var left [killCallers]int64
	const kills = 15
	for range kills {
		runAndKill(t, dir, shipped, &left)
	}
	for _, r := range ship(t, journal(t, dir, 0)) {
		shipped.take(t, r)
	}
	var recorded [killCallers]int64
	for _, r := range shipped.batches {
		for _, s := range r.Served {
			var c int
			if _, err := fmt.Sscan(s.Caller, &c); err != nil {
				t.Fatal(err)
			}
			recorded[c] += s.Count
		}
	}
	for c := range killCallers {
		if more := recorded[c] - left[c]; more < 0 || more > kills {
			t.Errorf("caller %d: %d answers left and %d are on record; want as many, and at most %d more", c, left[c], recorded[c], kills)
		}
		if left[c] < kills {
			t.Errorf("caller %d had %d answers in %d runs: nothing was tried", c, left[c], kills)
		}
	}
	if n := len(files(t, dir)); n != 1 {
		t.Errorf("%d journals are left after all was shipped, want the empty one", n)
	}
}

// runAndKill runs an agent's journal for a moment that nobody can foresee.
func runAndKill(t *testing.T, dir string, shipped *shipments, left *[killCallers]int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), journalVar+"="+dir)
	cmd.Stderr = os.Stderr
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	batches, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer batches.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	var readers sync.WaitGroup
	answered := make(chan struct{})
	readers.Go(func() {
		begun := sync.OnceFunc(func() { close(answered) })
		defer begun() // it may have ended by itself, and said why
		for r := bufio.NewReader(answers); ; begun() {
			c, err := r.ReadByte()
			if err != nil {
				return
			}
			left[c]++
		}
	})
	readers.Go(func() {
		for d := json.NewDecoder(batches); ; {
			var r fleetapi.EventsRequest
			if err := d.Decode(&r); err != nil {
				if err != io.EOF {
					t.Errorf("reading what was shipped: %v", err)
				}
				return
			}
			shipped.take(t, r)
		}
	})
	<-answered
	time.Sleep(rand.N(60 * time.Millisecond))
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	readers.Wait()
	_ = cmd.Wait() // it was killed
}
