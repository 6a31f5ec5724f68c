package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// openSQLite opens a pool of readers and one writer. BEGIN IMMEDIATE makes a
// transaction take the write lock when it begins: one that read first could not
// get it later without being run again.
func (db *DB) openSQLite(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("finding %s: %w", path, err)
	}
	// SQLite gives the -wal and -shm files the mode of the database file.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	write, err := sqlitePool(path, 1, "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)")
	if err != nil {
		return err
	}
	db.manage, db.group = write, write
	if err := migrate(ctx, goose.DialectSQLite3, "migrations/sqlite", write); err != nil {
		return err
	}
	if db.readers, err = sqlitePool(path, max(4, runtime.GOMAXPROCS(0)), "query_only(ON)"); err != nil {
		return err
	}
	db.read = &prepared{pool: db.readers, stmts: map[string]*sql.Stmt{}}
	return nil
}

// prepared asks a pool with statements that are parsed once: a fifth of the
// time of reading a secret was SQLite's parser. (pgx does so by itself.)
type prepared struct {
	pool  *sql.DB
	mu    sync.Mutex
	stmts map[string]*sql.Stmt // guarded by mu
}

// maxPrepared bounds what is kept: lists of values make texts of every length.
const maxPrepared = 200

func (p *prepared) ExecContext(ctx context.Context, stmt string, args ...any) (sql.Result, error) {
	return p.pool.ExecContext(ctx, stmt, args...)
}

func (p *prepared) QueryContext(ctx context.Context, stmt string, args ...any) (*sql.Rows, error) {
	p.mu.Lock()
	ready, full := p.stmts[stmt], len(p.stmts) >= maxPrepared
	p.mu.Unlock()
	if ready == nil && full {
		return p.pool.QueryContext(ctx, stmt, args...)
	}
	if ready == nil {
		made, err := p.pool.PrepareContext(ctx, stmt)
		if err != nil {
			return nil, err
		}
		ready = p.keep(stmt, made)
	}
	return ready.QueryContext(ctx, args...)
}

// keep remembers a statement, unless another caller has meanwhile.
func (p *prepared) keep(stmt string, made *sql.Stmt) *sql.Stmt {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.stmts[stmt]; have != nil {
		_ = made.Close() // nobody else has it
		return have
	}
	p.stmts[stmt] = made
	return made
}

func sqlitePool(path string, conns int, pragmas ...string) (*sql.DB, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": append([]string{"busy_timeout(5000)"}, pragmas...),
	}.Encode()}
	pool, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return pool, nil
}
