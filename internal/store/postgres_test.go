package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/testkit"
	"github.com/innate-id/innate/internal/vault"
)

// run runs a statement beside the store.
func run(t *testing.T, url, stmt string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), stmt); err != nil {
		t.Fatal(err)
	}
}

// cutConnections ends all connections to the database whose last statement is
// like the pattern.
func cutConnections(t *testing.T, url, like string) {
	t.Helper()
	run(t, url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '`+like+`'`)
}

func createTenant(db *store.DB, t *testing.T, id string) {
	t.Helper()
	err := db.Write(t.Context(), &audit.Event{Tenant: id, Action: "create"}, func(tx arm.Tx) error {
		return tx.CreateTenant(directory.Tenant{ID: id})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplicasMayStartTogether(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	var g errgroup.Group
	for _, chain := range []string{"a", "b", "c", "d"} {
		g.Go(func() error {
			db, err := store.Open(t.Context(), store.Config{Postgres: url, Chain: chain})
			if err != nil {
				return err
			}
			return db.Close()
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	open(t, store.Config{Postgres: url})
	run(t, url, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`)
	db, err := store.Open(t.Context(), store.Config{Postgres: url, Chain: "old"})
	if err == nil {
		t.Error("a program opened a database that a newer one has changed")
		_ = db.Close()
	}
}

// TestLostListenerHeals cuts the connections that hear of other replicas'
// commits, between any two commits: none may be missed for long.
func TestLostListenerHeals(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	a, b := open(t, store.Config{Postgres: url, Chain: "a"}), open(t, store.Config{Postgres: url, Chain: "b"})
	for _, id := range []string{"t1", "t2", "t3"} {
		changed := b.Changed()
		cutConnections(t, url, "%LISTEN%")
		createTenant(a, t, id)
		for seen := false; !seen; {
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatal("the change was not heard of")
			}
			changed = b.Changed()
			_, err := b.Tenant(t.Context(), id)
			seen = err == nil
		}
	}
}

// TestPollingHearsWithoutNotifications is what a replica has behind a pooler
// that swallows notifications: these writes go beside the store and notify
// nobody. The first are heard of because the replica has just begun to listen,
// the later ones only because it looks.
func TestPollingHearsWithoutNotifications(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	db := open(t, store.Config{Postgres: url})
	createTenant(db, t, "t")
	for range 4 {
		changed, recorded := db.Changed(), db.Recorded()
		run(t, url, `UPDATE tenant SET revision = revision + 1`)
		for _, ch := range []<-chan struct{}{changed, recorded} {
			select {
			case <-ch:
			case <-time.After(10 * time.Second):
				t.Fatal("the change was not heard of")
			}
		}
	}
}

// TestLostConnectionFailsItsGroupAlone cuts the connection under a commit: its
// caller is told, and the next one is served.
func TestLostConnectionFailsItsGroupAlone(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	db := open(t, store.Config{Postgres: url})
	createTenant(db, t, "t")
	err := db.WriteSecrets(t.Context(), &audit.Event{Tenant: "t", Action: "lost"}, func(vault.Tx) error {
		cutConnections(t, url, "%SAVEPOINT%")
		return nil
	})
	if err == nil {
		t.Error("a commit without a connection succeeded")
	}
	if err := db.Record(t.Context(), audit.Event{Tenant: "t", Action: "next"}); err != nil {
		t.Error(err)
	}
	cutConnections(t, url, "%") // idle ones: nobody is told
	if err := db.Record(t.Context(), audit.Event{Tenant: "t", Action: "next"}); err != nil {
		t.Error(err)
	}
	createTenant(db, t, "t2")
	heads, err := db.Heads(t.Context(), "t")
	if err != nil || heads["replica"] != 2 {
		t.Errorf("Heads = %v, %v; want two batches", heads, err)
	}
}

// TestPostgresComparesBytes keeps a forgotten COLLATE out of the migrations:
// ranges of keys are ranges of bytes only with it.
func TestPostgresComparesBytes(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t)
	open(t, store.Config{Postgres: url})
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `
		SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'`)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(bad) > 0 {
		t.Errorf("columns without COLLATE \"C\": %v (%v)", bad, err)
	}
}
