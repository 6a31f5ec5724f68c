package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
)

// Write runs fn in one transaction that has the tenant's next revision,
// records *ev in the management chain and commits. An error from fn undoes
// everything, the revision too, and is returned as it is. fn may run more than
// once; *ev is put back to what it was before each run.
func (db *DB) Write(ctx context.Context, ev *audit.Event, fn func(arm.Tx) error) error {
	return db.write(ctx, ev, func(tx *writeTx) error { return fn(tx) })
}

func (db *DB) write(ctx context.Context, ev *audit.Event, fn func(*writeTx) error) error {
	if err := db.writes.enter(); err != nil {
		return err
	}
	defer db.writes.leave()
	leave, err := db.turns.take(ctx, ev.Tenant)
	if err != nil {
		return err
	}
	defer leave()
	first := *ev
	err = retry(ctx, func() error {
		*ev = first
		return db.writeOnce(ctx, ev, fn)
	})
	if err != nil {
		return err
	}
	db.changed.fire()
	db.recorded.fire()
	return nil
}

func (db *DB) writeOnce(ctx context.Context, ev *audit.Event, fn func(*writeTx) error) error {
	tx, err := db.manage.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning a write: %w", explain(ctx, err))
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit
	w := &writeTx{ctx: ctx, q: tx, postgres: db.postgres, tenant: ev.Tenant, changes: map[arm.Change]bool{}}
	if err := w.begin(); err != nil {
		return fmt.Errorf("taking the revision of tenant %q: %w", w.tenant, err)
	}
	if err := guard(func() error { return fn(w) }); err != nil {
		return err
	}
	if !w.exists {
		return problem.Errorf(problem.UnknownTenant, "there is no tenant %q", w.tenant)
	}
	if err := w.putChanges(); err != nil {
		return fmt.Errorf("writing the change feed: %w", err)
	}
	ev.Tenant = w.tenant
	evs, err := db.dated(*ev)
	if err != nil {
		return err
	}
	if err := appendBatch(ctx, tx, w.tenant, audit.ManagementChain, evs, db.now()); err != nil {
		return err
	}
	if err := db.postgres.notify(ctx, tx, heardChange); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing a write: %w", explain(ctx, err))
	}
	return nil
}

// writeTx is a management write under way; it is the [arm.Tx]. Its methods are
// in the files of what they write.
type writeTx struct {
	ctx context.Context
	q   querier
	// postgres is nil on SQLite, where a write is the only one there is.
	postgres *postgres
	tenant   string
	// exists is false until CreateTenant, when the tenant has no row yet.
	exists   bool
	revision int64
	// changes are the rows of the feed, each once.
	changes map[arm.Change]bool
}

var _ arm.Tx = (*writeTx)(nil)

// nextRevision holds the tenant's row until the commit: what follows runs
// alone in its tenant.
const nextRevision = `UPDATE tenant SET revision = revision + 1 WHERE id = $1 RETURNING revision`

// holdChain holds the head of a chain until the commit.
const holdChain = `
	INSERT INTO audit_chain (tenant, chain, seq, hash, at_ms) VALUES ($1, $2, 0, '', 0)
	ON CONFLICT (tenant, chain) DO UPDATE SET seq = audit_chain.seq`

// begin takes the tenant's next revision. A tenant that is not there is left
// for CreateTenant; the tenant "" is the installation, which has no row and no
// revision and is held by its chain instead.
func (t *writeTx) begin() error {
	if t.tenant == "" {
		t.exists = true
		_, err := exec(t.ctx, t.q, holdChain, t.tenant, audit.ManagementChain)
		return err
	}
	revision, err := one(t.ctx, t.q, nil, scanned[int64], nextRevision, t.tenant)
	t.revision, t.exists = revision, revision > 0
	return err
}

// Tenant is whose write this is.
func (t *writeTx) Tenant() string { return t.tenant }

// Revision is the revision that this write has.
func (t *writeTx) Revision() int64 { return t.revision }

// change notes a row of the feed.
func (t *writeTx) change(kind, key string) {
	t.changes[arm.Change{Revision: t.revision, Kind: kind, Key: key}] = true
}

// exec changes rows of the tenant, which must be there.
func (t *writeTx) exec(stmt string, args ...any) (int64, error) {
	if !t.exists {
		return 0, problem.Errorf(problem.UnknownTenant, "there is no tenant %q", t.tenant)
	}
	return exec(t.ctx, t.q, stmt, args...)
}

// changesMost is how many rows of the feed a statement takes.
const changesMost = 64

const putChange = `INSERT INTO change (tenant, revision, kind, key) VALUES ($1, $2, $3, $4)`

// putManyChanges is putChange of changesMost rows: a delete of a large group
// has tens of thousands of them.
var putManyChanges = func() string {
	rows := make([]string, changesMost)
	for i := range rows {
		rows[i] = fmt.Sprintf("($1, $2, $%d, $%d)", 2*i+3, 2*i+4)
	}
	return `INSERT INTO change (tenant, revision, kind, key) VALUES ` + strings.Join(rows, ", ")
}()

func (t *writeTx) putChanges() error {
	rows := slices.SortedFunc(maps.Keys(t.changes), func(a, b arm.Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	for len(rows) > 0 {
		stmt, n := putChange, 1
		if len(rows) >= changesMost {
			stmt, n = putManyChanges, changesMost
		}
		args := []any{t.tenant, t.revision}
		for _, c := range rows[:n] {
			args = append(args, c.Kind, c.Key)
		}
		if _, err := t.exec(stmt, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// maxTries bounds how often a transaction is run again when the database undid
// it because of another one.
const maxTries = 10

// retry runs f until it ends otherwise than by another transaction's fault.
func retry(ctx context.Context, f func() error) error {
	var err error
	for try := range maxTries {
		if try > 0 {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		if err = f(); !retryable(err) {
			return err
		}
	}
	return fmt.Errorf("giving up after %d tries: %w", maxTries, err)
}

// pause waits 1 to 2 ms before the second try and twice as long before each
// further one; chance keeps two rivals from meeting again.
func pause(ctx context.Context, try int) error {
	d := time.Millisecond << min(try-1, 6)
	timer := time.NewTimer(d + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guard turns a panic of f into an error, so that its transaction is undone and
// whoever waits for it is answered.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a write panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}

// turns lets one write of each tenant through at a time. The database would
// make them queue anyway; here they queue without holding a connection that
// another tenant could use.
type turns struct {
	mu   sync.Mutex
	busy map[string]*turn
}

type turn struct {
	token   chan struct{} // holds one token while somebody has the turn
	waiting int           // who have it or want it; guarded by turns.mu
}

// take waits for the tenant's turn; leave gives it to the next.
func (t *turns) take(ctx context.Context, tenant string) (leave func(), err error) {
	t.mu.Lock()
	if t.busy == nil {
		t.busy = map[string]*turn{}
	}
	mine := t.busy[tenant]
	if mine == nil {
		mine = &turn{token: make(chan struct{}, 1)}
		t.busy[tenant] = mine
	}
	mine.waiting++
	t.mu.Unlock()
	select {
	case mine.token <- struct{}{}:
		return func() { <-mine.token; t.forget(tenant, mine) }, nil
	case <-ctx.Done():
		t.forget(tenant, mine)
		return nil, ctx.Err()
	}
}

func (t *turns) forget(tenant string, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.waiting--; mine.waiting == 0 {
		delete(t.busy, tenant)
	}
}
