package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// querier is what a pool and a transaction have in common.
type querier interface {
	ExecContext(ctx context.Context, stmt string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, stmt string, args ...any) (*sql.Rows, error)
}

// row is what a scan function reads.
type row interface{ Scan(dest ...any) error }

// exec runs a statement and returns how many rows it changed.
func exec(ctx context.Context, q querier, stmt string, args ...any) (int64, error) {
	if err := checkArgs(args); err != nil {
		return 0, err
	}
	res, err := q.ExecContext(ctx, stmt, args...)
	if err != nil {
		return 0, explain(ctx, err)
	}
	return res.RowsAffected()
}

// many returns all rows.
func many[T any](ctx context.Context, q querier, scan func(row) (T, error), stmt string, args ...any) ([]T, error) {
	if err := checkArgs(args); err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, stmt, args...)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("scanning a row: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, explain(ctx, err)
	}
	return out, nil
}

// one returns the first row, or the error none if there is no row.
func one[T any](ctx context.Context, q querier, none error, scan func(row) (T, error), stmt string, args ...any) (T, error) {
	var zero T
	out, err := many(ctx, q, scan, stmt, args...)
	if err != nil {
		return zero, err
	}
	if len(out) == 0 {
		return zero, none
	}
	return out[0], nil
}

// scanned is the scan function of a single column.
func scanned[T any](r row) (T, error) {
	var v T
	err := r.Scan(&v)
	return v, err
}

// checkArgs holds both databases to what PostgreSQL can store as text.
func checkArgs(args []any) error {
	for _, a := range args {
		if s, ok := a.(string); ok {
			if err := checkText(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return problem.Errorf(problem.Invalid, "a text holds a NUL byte or is not UTF-8")
	}
	return nil
}

// errForked says that another process advanced an audit chain meanwhile; the
// transaction is run again.
var errForked = errors.New("the audit chain was advanced by another process; give each replica its own chain name")

// explain gives a driver's error the meaning that callers look for.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err) // drivers say "interrupted"
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "54000" {
		// An index entry holds at most a third of a page.
		return &problem.Error{Kind: problem.Invalid, Detail: "the resource IDs are together too long to be stored", Err: err}
	}
	return err
}

// retryable reports whether the transaction that met err can be run again:
// the database undid it because of another one.
func retryable(err error) bool {
	if errors.Is(err, errForked) {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "40001" || pg.Code == "40P01" // serialization_failure, deadlock_detected
	}
	return false
}

// dangling reports whether err is a foreign key that does not hold.
func dangling(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "23503"
	}
	lite, ok := errors.AsType[*sqlite.Error](err)
	return ok && lite.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
}

// ms is t as stored: milliseconds since 1970, 0 for the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// at reads what ms wrote.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// bit is b as stored.
func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// blob keeps nil from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// fold is how names compare: ASCII letters without case, all else as it is. No
// two texts are one here that are two to a reader of bytes, as "k" and the
// Kelvin sign would be.
func fold(s string) string {
	lower := []byte(s)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + ('a' - 'A')
		}
	}
	return string(lower)
}

// parseID reads an ID that this package wrote.
func parseID(s string) (resource.ID, error) {
	if s == "" {
		return resource.ID{}, nil
	}
	return resource.Parse(s)
}

// below returns the open range of the keys below a key: what begins with the
// key and a slash. The character after "/" is "0". Keys begin with a slash, so
// for the root and for "" that is everything.
func below(key string) (lo, hi string) {
	if key == "/" {
		key = ""
	}
	return key + "/", key + "0"
}

// limit returns how many rows a page of n may have: all of them if n is not
// positive.
func limit(n int) int64 {
	if n <= 0 {
		return 1 << 31
	}
	return int64(n)
}
