package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/innate-id/innate/internal/audit"
)

const (
	// maxGroup bounds the jobs of one transaction, and so what one failed
	// commit takes with it.
	maxGroup = 256
	// commitTimeout ends a commit to a database that has stopped answering.
	commitTimeout = 30 * time.Second
)

// job is one caller's part of a group commit.
type job struct {
	// work makes the job's changes and returns what to record. It may run more
	// than once. Nil if there is nothing but events.
	work func(ctx context.Context, q querier) ([]audit.Event, error)
	// events are to be recorded; with work, what its last run returned.
	events []audit.Event
	// err is what the last run of work came to.
	err error
	// taken is set once: by the committer that begins the job, or by its
	// caller who gave up while it was queued.
	taken atomic.Bool
	// done gets the outcome, once.
	done chan error
}

// committer is the one goroutine that commits jobs. It owns the jobs from
// taking them until it has answered them.
type committer struct {
	db   *DB
	wake chan struct{} // holds at most one token: there may be work
	done chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	queue  []*job
	closed bool
}

func startCommitter(db *DB) *committer {
	c := &committer{db: db, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// close refuses new jobs and waits for the queued ones.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
	<-c.done
}

func (c *committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// submit queues j and waits for its outcome. A caller whose context ends while
// j is queued takes it back; once j is being committed, the truth is awaited.
func (c *committer) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.done = make(chan error, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return errClosed
	}
	c.queue = append(c.queue, j)
	c.mu.Unlock()
	c.poke()
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		if j.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		return <-j.done
	}
}

func (c *committer) run() {
	defer close(c.done)
	for {
		jobs, more := c.next()
		if !more {
			return
		}
		// A job that met another transaction in its way is not worth
		// holding up the group again: it goes by itself afterwards.
		for _, j := range c.commit(jobs) {
			c.commit([]*job{j})
		}
	}
}

// next waits for jobs and takes what is queued, without waiting for more: the
// group is whatever came while the last one was being committed.
func (c *committer) next() (jobs []*job, more bool) {
	for {
		c.mu.Lock()
		for len(c.queue) > 0 && len(jobs) < maxGroup {
			j := c.queue[0]
			c.queue[0] = nil
			c.queue = c.queue[1:]
			if j.taken.CompareAndSwap(false, true) {
				jobs = append(jobs, j)
			}
		}
		closed := c.closed
		c.mu.Unlock()
		if len(jobs) > 0 {
			return jobs, true
		}
		if closed {
			return nil, false
		}
		<-c.wake
	}
}

// commit commits jobs together and answers them, except for those that it
// returns: they are to be committed alone.
func (c *committer) commit(jobs []*job) (alone []*job) {
	err := retry(context.Background(), func() error { return c.attempt(jobs) })
	recorded := false
	for _, j := range jobs {
		switch {
		case err != nil && len(jobs) == 1 && j.err != nil:
			j.done <- err // it is the job's own
		case err != nil:
			j.done <- fmt.Errorf("committing: %w", err)
		case retryable(j.err):
			alone = append(alone, j)
		default:
			recorded = recorded || j.err == nil
			j.done <- j.err
		}
	}
	if recorded {
		c.db.recorded.fire()
		c.db.postgres.herald()
	}
	return alone
}

// attempt is one transaction. Its error concerns all jobs; what one job alone
// came to is in the job.
func (c *committer) attempt(jobs []*job) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	tx, err := c.db.group.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit
	events := map[string][]audit.Event{}
	good := 0
	for _, j := range jobs {
		if err := j.run(ctx, tx); err != nil {
			return err
		}
		if j.err != nil {
			continue
		}
		good++
		for _, ev := range j.events {
			events[ev.Tenant] = append(events[ev.Tenant], ev)
		}
	}
	if len(jobs) == 1 && retryable(jobs[0].err) {
		return jobs[0].err
	}
	if good == 0 {
		return nil
	}
	// In one order everywhere: two processes with one chain name wait for each
	// other, but not in a circle.
	for _, tenant := range slices.Sorted(maps.Keys(events)) {
		if err := appendBatch(ctx, tx, tenant, c.db.chain, events[tenant], c.db.now()); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("ending: %w", err)
	}
	return nil
}

// run does the job's work under a savepoint: its error undoes its own part.
// run returns an error if the transaction as a whole is lost.
func (j *job) run(ctx context.Context, q querier) error {
	j.err = nil
	if j.work == nil {
		return nil
	}
	if _, err := q.ExecContext(ctx, "SAVEPOINT job"); err != nil {
		return fmt.Errorf("setting a savepoint: %w", err)
	}
	if j.events, j.err = apart(func() ([]audit.Event, error) { return j.work(ctx, q) }); j.err == nil {
		// Work that ignored a failed statement shows here.
		_, j.err = q.ExecContext(ctx, "RELEASE SAVEPOINT job")
	}
	if j.err == nil {
		return nil
	}
	for _, stmt := range []string{"ROLLBACK TO SAVEPOINT job", "RELEASE SAVEPOINT job"} {
		if _, err := q.ExecContext(ctx, stmt); err != nil {
			if retryable(j.err) {
				return j.err // some databases undo all of it
			}
			return fmt.Errorf("undoing a job: %w", err)
		}
	}
	return nil
}

// errEnded is what work came to that ended its goroutine (runtime.Goexit).
var errEnded = errors.New("a write ended its goroutine")

// apart runs work in a goroutine of its own, so that whatever it does to it,
// the committer lives.
func apart(work func() ([]audit.Event, error)) ([]audit.Event, error) {
	var events []audit.Event
	err := errEnded
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = guard(func() (err error) {
			events, err = work()
			return err
		})
	}()
	<-done
	return events, err
}
