package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// migrations are forward-only: a step back would have to invent what it lost.
//
//go:embed migrations
var migrations embed.FS

// migrate brings the tables to the version of this program. It refuses a
// database that a newer program has changed: what the change means is not
// known here.
func migrate(ctx context.Context, dialect goose.Dialect, dir string, pool *sql.DB) error {
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	p, err := goose.NewProvider(dialect, pool, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema version: %w", err)
	}
	if have > want {
		return fmt.Errorf("the database has schema version %d, this program knows up to %d; run the newer program", have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating from schema version %d to %d: %w", have, want, err)
	}
	return nil
}

// schemaVersion reads the table that the migration library keeps.
const schemaVersion = `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version`

// SchemaVersion returns the number of the last migration.
func (db *DB) SchemaVersion(ctx context.Context) (int64, error) {
	v, err := one(ctx, db.read, nil, scanned[int64], schemaVersion)
	if err != nil {
		return 0, fmt.Errorf("reading the schema version: %w", err)
	}
	return v, nil
}
