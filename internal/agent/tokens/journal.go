package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	// DefaultJournalSize bounds what waits to be shipped, in bytes.
	DefaultJournalSize = 10 << 20
	// ShipEvery is how often the journal is shipped.
	ShipEvery = 500 * time.Millisecond

	// maxRecords bounds the records of one batch on the wire, so that it stays
	// under the megabyte that the control plane reads.
	maxRecords = 200
	// shipBackoff is the longest pause after the control plane was away.
	shipBackoff = 5 * time.Second
)

// Journal is the record of what the host answered by itself. A record is with
// the kernel before its answer leaves, so that a killed agent ships it when it
// starts again. A host that loses power may lose what was neither shipped nor
// written back by its kernel: nothing is synced, for the sake of every answer.
//
// Each distinct record is a line of a file, written with one write:
//
//	{"n":0,"served":{"at":"...","count":1,"workload":"/subscriptions/...","tokenId":"..."}}
//	{"n":1,"refusal":{"at":"...","count":1,"caller":"door:main grade:none","reason":"..."}}
//
// Its repeats are only counted, in memory that a second file shares (counts):
// writing each would be a third of what an answer costs.
//
// One segment (a pair of files) is written, older ones wait to be shipped. Its
// name is the number of its first batch and its content never changes once it
// waits, so that the same number always carries the same records.
type Journal struct {
	dir string
	max int64
	log *slog.Logger

	shipping sync.Mutex // held while shipping; before mu

	// mu guards what follows. Counting a repeat is reading: all that it
	// changes is a count, by itself.
	mu      sync.RWMutex
	active  *segment
	file    *os.File   // the active segment's
	waiting []*segment // oldest first
}

// key is what makes two records one: all of them but time and count.
type key struct {
	served  fleetapi.Served
	refusal fleetapi.Refusal
}

// segment is one pair of files. While it is written, index and counts follow it.
type segment struct {
	first   int64 // number of its first batch
	size    int64 // bytes in the file
	records int
	index   map[key]int
	counts  counts
}

// kept is how many bytes the segment keeps.
func (s *segment) kept() int64 { return s.size + int64(s.records)*countLen }

type line struct {
	N       int               `json:"n"`
	Served  *fleetapi.Served  `json:"served,omitempty"`
	Refusal *fleetapi.Refusal `json:"refusal,omitempty"`
}

// OpenJournal opens the journal in dir. What an earlier run left there waits
// to be shipped. At most limit bytes are kept; 0 means [DefaultJournalSize].
func OpenJournal(dir string, limit int64, log *slog.Logger) (*Journal, error) {
	if limit == 0 {
		limit = DefaultJournalSize
	}
	j := &Journal{dir: dir, max: limit, log: log}
	left, err := j.left()
	if err != nil {
		return nil, err
	}
	var next int64
	for _, s := range left {
		next = s.next()
		if s.records > 0 {
			j.waiting = append(j.waiting, s)
			continue
		}
		if err := j.remove(s); err != nil {
			return nil, err
		}
	}
	if err := j.begin(next); err != nil {
		return nil, err
	}
	return j, nil
}

// Answer is an answer from memory, to be put on record each time that it is
// given.
type Answer struct {
	// Served says what was given to whom. It has no time and no count.
	Served fleetapi.Served
	// place is where its repeats are counted.
	place atomic.Pointer[place]
}

// place is a record of a segment.
type place struct {
	in *segment
	n  int
}

// Served puts an answer on record that was given at a time.
func (j *Journal) Served(a *Answer, at time.Time) error {
	if j.counted(a, at) {
		return nil
	}
	first := a.Served
	first.At, first.Count = at.UTC(), 1
	return j.add(key{served: a.Served}, at, line{Served: &first})
}

// counted counts one more of an answer that is on record in the active segment.
// Where that is does not change while it is the active one.
func (j *Journal) counted(a *Answer, at time.Time) bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.file == nil {
		return false
	}
	p := a.place.Load()
	if p == nil || p.in != j.active {
		n, known := j.active.index[key{served: a.Served}]
		if !known {
			return false
		}
		p = &place{j.active, n}
		a.place.Store(p)
	}
	p.in.counts.add(p.n, at)
	return true
}

// Refused puts a refusal on record. The reason is ours, not the caller's
// words: a caller must not be able to fill the journal with new records.
func (j *Journal) Refused(r fleetapi.Refusal) error {
	k := key{refusal: r}
	k.refusal.At, k.refusal.Count = time.Time{}, 0
	if j.again(k, r.At) {
		return nil
	}
	first := r
	first.Count = 1
	return j.add(k, r.At, line{Refusal: &first})
}

func (j *Journal) add(k key, at time.Time, l line) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return problem.Errorf(problem.Unavailable, "the agent is stopping")
	}
	if n, known := j.active.index[k]; known { // since we looked
		j.active.counts.add(n, at)
		return nil
	}
	l.N = j.active.records
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encoding a journal record: %w", err)
	}
	text = append(text, '\n')
	if j.size()+int64(len(text))+countLen > j.max {
		return problem.Errorf(problem.Unavailable, "the agent's record is full (%d bytes wait for the control plane), "+
			"and no new caller is answered without a record; it empties by itself when the control plane is back", j.size())
	}
	if err = j.active.counts.room(l.N); err == nil {
		err = j.append(text)
	}
	if err != nil {
		return &problem.Error{Kind: problem.Unavailable, Detail: "the agent cannot write its record, and answers nothing without one", Err: err}
	}
	j.active.index[k] = l.N
	j.active.records++
	return nil
}

// again counts one more of a record that is there.
func (j *Journal) again(k key, at time.Time) bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.file == nil {
		return false
	}
	n, known := j.active.index[k]
	if known {
		j.active.counts.add(n, at)
	}
	return known
}

// append writes one line. What could be written only in part is taken back:
// the next line would grow onto it.
func (j *Journal) append(text []byte) error {
	if _, err := j.file.Write(text); err != nil {
		if cut := j.file.Truncate(j.active.size); cut != nil {
			return fmt.Errorf("writing the journal: %w (and taking back a part: %w)", err, cut)
		}
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.active.size += int64(len(text))
	return nil
}

func (j *Journal) size() int64 {
	n := j.active.kept()
	for _, s := range j.waiting {
		n += s.kept()
	}
	return n
}

// Run ships every [ShipEvery] until ctx ends, less often while that fails.
func (j *Journal) Run(ctx context.Context, send func(context.Context, fleetapi.EventsRequest) error) {
	pause := ShipEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := j.Ship(ctx, send)
		switch {
		case err == nil:
			pause = ShipEvery
		case ctx.Err() == nil:
			if pause == ShipEvery { // the first of a row; the rest would only repeat it
				j.log.Warn("journal not shipped; trying on", "err", err)
			}
			pause = min(2*pause, shipBackoff)
		}
	}
}

// Ship sends everything on record, oldest first, and forgets what send took.
func (j *Journal) Ship(ctx context.Context, send func(context.Context, fleetapi.EventsRequest) error) error {
	j.shipping.Lock()
	defer j.shipping.Unlock()
	// What is written while older records wait is shipped when those are.
	for range 2 {
		all, err := j.rotate()
		if err != nil {
			return err
		}
		if err := j.shipWaiting(ctx, send); err != nil || all {
			return err
		}
	}
	return nil
}

func (j *Journal) shipWaiting(ctx context.Context, send func(context.Context, fleetapi.EventsRequest) error) error {
	for {
		s := j.oldest()
		if s == nil {
			return nil
		}
		records, err := j.read(s.first)
		if err != nil {
			return err
		}
		for i, req := range batches(s.first, records) {
			if err := send(ctx, req); err != nil {
				return fmt.Errorf("shipping batch %d: %w", s.first+int64(i), err)
			}
		}
		if err := j.shipped(s); err != nil {
			return err
		}
	}
}

func (j *Journal) oldest() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 {
		return nil
	}
	return j.waiting[0]
}

func (j *Journal) shipped(s *segment) error {
	if err := j.remove(s); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.waiting = j.waiting[1:]
	return nil
}

// rotate lets the active file wait and begins a new one. While older files
// wait the active one grows on: repeats then count in one place, not in one
// file for each half second that the control plane is away. all says that what
// is on record now waits.
func (j *Journal) rotate() (all bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil || len(j.waiting) > 0 || j.active.records == 0 {
		return len(j.waiting) == 0, nil
	}
	old, file := j.active, j.file
	if err := j.begin(old.next()); err != nil {
		return false, err
	}
	old.index = nil
	j.waiting = append(j.waiting, old)
	if err := errors.Join(file.Close(), old.counts.close()); err != nil {
		return false, fmt.Errorf("closing a journal file: %w", err)
	}
	return true, nil
}

// begin makes a new file the active one, whose first batch has a number of at
// least first. Numbers only rise, and they are the time: also when the state
// directory was lost, or is a copy from before (a machine put back to a
// snapshot), no number is used twice for different records.
func (j *Journal) begin(first int64) error {
	first = max(first, time.Now().UnixMilli())
	s := &segment{first: first, index: map[key]int{}, counts: counts{path: j.countsPath(first)}}
	f, err := os.OpenFile(j.path(first), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("beginning a journal file: %w", err)
	}
	j.active, j.file = s, f
	return nil
}

// remove removes a segment. Its records go first: without them, its counts are
// nobody's.
func (j *Journal) remove(s *segment) error {
	if err := os.Remove(j.path(s.first)); err != nil {
		return fmt.Errorf("removing a journal: %w", err)
	}
	if err := os.Remove(j.countsPath(s.first)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a journal's counts: %w", err)
	}
	return nil
}

// Close closes the files. What was not shipped is there for the next run.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := errors.Join(j.file.Close(), j.active.counts.close())
	j.file = nil
	if err != nil {
		return fmt.Errorf("closing the journal: %w", err)
	}
	return nil
}

// next is the number after the segment's last batch.
func (s *segment) next() int64 { return s.first + int64(chunks(s.records)) }

func chunks(records int) int { return (records + maxRecords - 1) / maxRecords }

func (j *Journal) path(first int64) string {
	return filepath.Join(j.dir, fmt.Sprintf("journal-%020d.ndjson", first))
}

func (j *Journal) countsPath(first int64) string {
	return filepath.Join(j.dir, fmt.Sprintf("counts-%020d", first))
}
