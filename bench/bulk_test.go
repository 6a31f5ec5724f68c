package bench

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", for the loader
	_ "modernc.org/sqlite"             // the driver "sqlite", for the loader
)

// largeVar runs what takes minutes and gigabytes too.
const largeVar = "INNATE_BENCH_LARGE"

// sizes are the small sizes and, where they are asked for, the large one.
func sizes(large int, small ...int) []int {
	if os.Getenv(largeVar) != "" {
		return append(small, large)
	}
	return small
}

// loader fills a database beneath the store: by statements that make their rows
// themselves, so that millions take minutes.
type loader struct {
	pool     *sql.DB
	postgres bool
}

// loadStep is how many rows a statement makes, which is a transaction.
const loadStep = 100_000

// newLoader opens the database, a file of SQLite or a URL of PostgreSQL, with
// one connection.
func newLoader(b *testing.B, kind, where string) *loader {
	b.Helper()
	driver, dsn := "pgx", where
	if kind == "sqlite" {
		// The memory is for sorting what an index is made of.
		driver, dsn = "sqlite", "file:"+where+"?_pragma=busy_timeout(60000)&_pragma=synchronous(OFF)&_pragma=cache_size(-262144)"
	}
	pool, err := sql.Open(driver, dsn)
	if err != nil {
		b.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	return &loader{pool, kind != "sqlite"}
}

// run runs statements in turn.
func (l *loader) run(ctx context.Context, stmts ...string) error {
	for _, s := range stmts {
		if _, err := l.pool.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%.120s: %w", strings.TrimSpace(s), err)
		}
	}
	return nil
}

// counted is the beginning of a statement that has the numbers from from on and
// before to as c (n): a recursion counts, which both databases can.
func counted(from, to int) string {
	return fmt.Sprintf(`WITH RECURSIVE c (n) AS (SELECT %d UNION ALL SELECT n + 1 FROM c WHERE n + 1 < %d) `, from, to)
}

// fill runs the statements that rows returns for each step of n rows, while the
// tables have no index but that of their primary keys, and makes the others
// anew: a row at a time they would take most of the time.
func (l *loader) fill(ctx context.Context, n int, tables []string, rows func(from, to int) []string) error {
	var again []string
	for _, t := range tables {
		made, err := l.dropIndexes(ctx, t)
		if err != nil {
			return err
		}
		again = append(again, made...)
	}
	for from := 0; from < n; from += loadStep {
		if err := l.run(ctx, rows(from, min(from+loadStep, n))...); err != nil {
			return err
		}
	}
	if err := l.run(ctx, again...); err != nil {
		return err
	}
	return l.settle(ctx)
}

// dropIndexes returns the statements that make them again.
func (l *loader) dropIndexes(ctx context.Context, table string) ([]string, error) {
	find := `SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = $1 AND sql IS NOT NULL`
	if l.postgres {
		find = `SELECT indexname, indexdef FROM pg_indexes WHERE tablename = $1 AND indexname NOT LIKE '%_pkey'`
	}
	rows, err := l.pool.QueryContext(ctx, find, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var drop, again []string
	for rows.Next() {
		var name, def string
		if err := rows.Scan(&name, &def); err != nil {
			return nil, err
		}
		drop, again = append(drop, "DROP INDEX "+name), append(again, def)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	return again, l.run(ctx, drop...)
}

// settle does what a server of PostgreSQL does by itself in time, so that it does
// not while something is measured. The store never asks SQLite for statistics:
// with them it plans a statement anew at each run.
func (l *loader) settle(ctx context.Context) error {
	if l.postgres {
		return l.run(ctx, "VACUUM ANALYZE", "CHECKPOINT")
	}
	return l.run(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
}

// turn is one of several that are measured in turns, so that what else goes on
// on the machine is the same for all of them.
type turn struct {
	name string
	do   func()
	took []time.Duration
}

// inTurns reports median and minimum of each side, in ms or µs, and how much
// larger than the first side's the others' medians are.
func inTurns(b *testing.B, unit time.Duration, sides ...*turn) {
	b.Helper()
	for _, s := range sides {
		for range 3 { // connections and statements are made
			s.do()
		}
	}
	for b.Loop() {
		for _, s := range sides {
			begin := time.Now()
			s.do()
			s.took = append(s.took, time.Since(begin))
		}
	}
	b.ReportMetric(0, "ns/op")
	word := map[time.Duration]string{time.Millisecond: "ms", time.Microsecond: "µs"}[unit]
	var first float64
	for i, s := range sides {
		slices.Sort(s.took)
		p50 := float64(s.took[len(s.took)/2])
		b.ReportMetric(p50/float64(unit), "p50-"+word+"/"+s.name)
		b.ReportMetric(float64(s.took[0])/float64(unit), "min-"+word+"/"+s.name)
		if i == 0 {
			first = p50
		} else {
			b.ReportMetric(p50/first, "ratio/"+s.name)
		}
	}
}
