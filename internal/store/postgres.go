package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// What this file has is all that only PostgreSQL does: the lock around
// migrations, and telling other replicas of a commit.

// The pools' sizes. A management write holds a connection while it waits for
// its tenant's revision, but only one of a tenant at a time does.
const (
	readConns   = 16
	manageConns = 8
)

const (
	// pollEvery is how often a replica looks for changes while it cannot
	// listen for them.
	pollEvery = 250 * time.Millisecond
	// silence is how long a listener trusts its connection without hearing
	// anything.
	silence = time.Second
	// dialTimeout bounds what must be quick.
	dialTimeout = 3 * time.Second
)

// What a notification says.
const (
	heardChange = "change" // a management write, which is also a record
	heardRecord = "record" // a group commit
)

// postgres is what a replica needs beside the pools. Nil with SQLite.
type postgres struct {
	config *pgx.ConnConfig
	// notifies is false where the server has no pg_notify; then replicas poll.
	notifies bool
	// heralds holds at most one token: there is a group commit to tell of.
	heralds chan struct{}
	// seen is what the last poll found; the listener owns it.
	seen    [2]int64
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (db *DB) openPostgres(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("reading the connection string: %w", err)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "innated " + db.chain
	}
	db.readers = postgresPool(config, readConns)
	db.read = db.readers
	db.manage = postgresPool(config, manageConns)
	db.group = postgresPool(config, 1)
	if err := migratePostgres(ctx, config, db.group); err != nil {
		return err
	}
	db.postgres = &postgres{config: config, heralds: make(chan struct{}, 1)}
	if _, err := db.read.ExecContext(ctx, sayPostgres, heardChange); err != nil {
		db.log.InfoContext(ctx, "the database has no notifications; replicas poll", slog.Any("err", err))
	} else {
		db.postgres.notifies = true
	}
	return nil
}

func postgresPool(config *pgx.ConnConfig, conns int) *sql.DB {
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	return pool
}

// migrationLock is any number that is nobody else's: "innate" in hexadecimal.
const migrationLock = 0x696e6e617465

const lockMigrations = `SELECT pg_advisory_lock($1)`

// migratePostgres lets one of several replicas that start together migrate
// while the others wait. The lock is the connection's and goes with it.
func migratePostgres(ctx context.Context, config *pgx.ConnConfig, pool *sql.DB) error {
	conn, err := pgx.ConnectConfig(ctx, config.Copy())
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, lockMigrations, migrationLock); err != nil {
		return fmt.Errorf("waiting for other replicas' migrations: %w", err)
	}
	return migrate(ctx, goose.DialectPostgres, "migrations/postgres", pool)
}

const (
	// sayPostgres reaches those who listen when its transaction commits.
	sayPostgres = `SELECT pg_notify('innate', $1)`
	// listenPostgres hears them.
	listenPostgres = `LISTEN innate`
)

// notify tells other replicas of a transaction, if it commits.
//
// Transactions that notify commit one after another, in all of the server. A
// management write can bear that; a group commit cannot, and is told of
// afterwards by tell.
func (p *postgres) notify(ctx context.Context, q querier, what string) error {
	if p == nil || !p.notifies {
		return nil
	}
	if _, err := q.ExecContext(ctx, sayPostgres, what); err != nil {
		return fmt.Errorf("notifying other replicas: %w", explain(ctx, err))
	}
	return nil
}

// hold keeps rows for this transaction: whoever would add a row that refers to
// one of them waits for its end, and one who was before is waited for. Nothing
// that both databases know does that; on SQLite there is one writer at a time.
func (p *postgres) hold(ctx context.Context, q querier, stmt string, args ...any) error {
	if p == nil {
		return nil
	}
	_, err := many(ctx, q, scanned[int], stmt, args...)
	return err
}

// herald has tell say that there was a group commit.
func (p *postgres) herald() {
	if p == nil || !p.notifies {
		return
	}
	select {
	case p.heralds <- struct{}{}:
	default: // the one that waits speaks for this one too
	}
}

func (p *postgres) start(db *DB) {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.running.Go(func() { p.listen(ctx, db) })
	p.running.Go(func() { p.tell(ctx, db) })
}

func (p *postgres) close() {
	p.stop()
	p.running.Wait()
}

// tell says that there were group commits. What gets lost here, the others'
// next look finds.
func (p *postgres) tell(ctx context.Context, db *DB) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.heralds:
			if err := p.notify(ctx, db.read, heardRecord); err != nil && ctx.Err() == nil {
				db.log.DebugContext(ctx, "a record was not told to other replicas", slog.Any("err", err))
			}
		}
	}
}

// listen wakes this process when another one commits, until ctx ends: by
// notifications while there is a connection to hear them on, else by polling.
func (p *postgres) listen(ctx context.Context, db *DB) {
	deaf := false // said so already
	for ctx.Err() == nil {
		if p.notifies {
			err := p.hear(ctx, db, func() { deaf = false })
			if !deaf && ctx.Err() == nil {
				deaf = true
				db.log.WarnContext(ctx, "not listening to the database; polling until it can be reached again", slog.Any("err", err))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
			p.poll(ctx, db)
		}
	}
}

// hear listens on a connection of its own until that fails.
func (p *postgres) hear(ctx context.Context, db *DB, connected func()) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(dial, p.config.Copy())
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
		defer cancel()
		_ = conn.Close(end)
	}()
	if _, err := conn.Exec(dial, listenPostgres); err != nil {
		return err
	}
	connected()
	db.heard(heardChange) // what was said before was not heard
	for {
		wait, cancel := context.WithTimeout(ctx, silence)
		n, err := conn.WaitForNotification(wait)
		cancel()
		switch {
		case err == nil:
			db.heard(n.Payload)
		case ctx.Err() != nil || !pgconn.Timeout(err):
			return err
		default:
			// A pooler in between can swallow notifications, and a
			// dead connection is silent too.
			p.poll(ctx, db)
			if err := p.ping(ctx, conn); err != nil {
				return err
			}
		}
	}
}

func (p *postgres) ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return conn.Ping(ctx)
}

// heard wakes those who wait for what a notification says.
func (db *DB) heard(what string) {
	if what != heardRecord {
		db.changed.fire()
	}
	db.recorded.fire()
}

// progress grows with every write: its first number with those that take a
// revision, its second with all.
const progress = `
	SELECT CAST((SELECT COALESCE(SUM(revision), 0) FROM tenant) AS BIGINT),
		CAST((SELECT COALESCE(SUM(seq), 0) FROM audit_chain) AS BIGINT)`

func scanProgress(r row) ([2]int64, error) {
	var at [2]int64
	err := r.Scan(&at[0], &at[1])
	return at, err
}

// poll looks whether anybody wrote since the last look.
func (p *postgres) poll(ctx context.Context, db *DB) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	now, err := one(ctx, db.read, nil, scanProgress, progress)
	if err != nil {
		return // the database is down, which its users notice by themselves
	}
	before := p.seen
	p.seen = now
	switch {
	case now[0] != before[0]:
		db.heard(heardChange)
	case now[1] != before[1]:
		db.heard(heardRecord)
	}
}
