// Package store is the database: everything that outlives a process, in SQLite
// (embedded) or in whatever speaks PostgreSQL's protocol, by one SQL text.
//
// There are two ways to write, and a newcomer takes the wrong one first:
//
//   - A management write ([DB.Write]) is a transaction of its own. It begins by
//     taking the tenant's next revision, which is a row lock: so writes of one
//     tenant queue, and the order of revisions is the order of commits.
//   - Everything else ([DB.Record], [DB.WriteSecrets], [DB.RecordShipped]) is
//     group-committed: one goroutine puts whatever is waiting into one
//     transaction, each job under its own savepoint, and answers each job when
//     that transaction is on disk. It takes no revision.
//
// Both record their audit events in the transaction that makes the change. A
// function given to either may run more than once, and must not call back into
// the DB to write: with SQLite there is one writer, and it holds it.
//
// Reads take no part in either and see what was committed before they began.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/graph"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/vault"
)

var (
	_ directory.Store = (*DB)(nil)
	_ keyring.Store   = (*DB)(nil)
	_ arm.Store       = (*DB)(nil)
	_ vault.Store     = (*DB)(nil)
	_ fleet.Store     = (*DB)(nil)
	_ graph.Store     = (*DB)(nil)
)

// Config says which database to open. Exactly one of SQLite and Postgres is set.
type Config struct {
	// SQLite is the path of the database file. The directory must exist; the
	// file is made with mode 0600. One process at a time may have it open.
	SQLite string
	// Postgres is a connection string, "postgres://..." or "host=... dbname=...".
	Postgres string
	// Chain names this replica's audit chain. Each replica of an installation
	// has its own and keeps it over restarts. Required.
	Chain string
	// Log hears of what heals by itself: a lost listener. Nil discards.
	Log *slog.Logger
	// Now dates events that come without a time. Nil means time.Now.
	Now func() time.Time
}

func (c Config) check() error {
	switch {
	case (c.SQLite == "") == (c.Postgres == ""):
		return errors.New("exactly one of the settings SQLite and Postgres is needed")
	case c.Chain == "":
		return errors.New("the audit chain needs a name; set Chain to the name of this replica")
	case c.Chain == audit.ManagementChain:
		return fmt.Errorf("the audit chain cannot be named %q, which is the chain of management writes", c.Chain)
	}
	return checkText(c.Chain)
}

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	log   *slog.Logger
	now   func() time.Time
	chain string

	// Three pools, so that reads and tokens never wait for a connection that
	// management writes hold while they queue for a tenant. With SQLite manage
	// and group are the same single connection.
	readers, manage, group *sql.DB
	// read is how readers are asked.
	read querier

	postgres *postgres // nil with SQLite
	turns    turns
	writes   gate
	commits  *committer

	changed, recorded signal

	closing  sync.Once
	closeErr error
}

// Open opens the database and brings its tables up to this program's version.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	db := &DB{log: cfg.Log, now: cfg.Now, chain: cfg.Chain}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	if db.now == nil {
		db.now = time.Now
	}
	open := db.openSQLite
	where := cfg.SQLite
	if cfg.Postgres != "" {
		open, where = db.openPostgres, cfg.Postgres
	}
	if err := open(ctx, where); err != nil {
		_ = db.closePools()
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	db.commits = startCommitter(db)
	if db.postgres != nil {
		db.postgres.start(db)
	}
	return db, nil
}

// Close refuses new writes, waits for those under way or queued, and closes
// the database.
func (db *DB) Close() error {
	db.closing.Do(func() {
		db.writes.close()
		db.commits.close()
		if db.postgres != nil {
			db.postgres.close()
		}
		db.closeErr = db.closePools()
	})
	return db.closeErr
}

// closePools closes readers first: the last connection of a SQLite database to
// close folds the write-ahead log into the file, and only a writer can.
func (db *DB) closePools() error {
	var errs []error
	for _, pool := range []*sql.DB{db.readers, db.manage, db.group} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	return nil
}

// errClosed is the answer to a write after Close.
var errClosed = errors.New("the database is closed")

// gate counts the writes under way, so that Close can wait for them.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	g.inside.Add(1)
	return nil
}

func (g *gate) leave() { g.inside.Done() }

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}
