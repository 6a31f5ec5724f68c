package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

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
	db.read, err = sqlitePool(path, max(4, runtime.GOMAXPROCS(0)), "query_only(ON)")
	return err
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
