package store_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/store/storetest"
	"github.com/innate-id/innate/internal/testkit"
)

func open(t *testing.T, cfg store.Config) *store.DB {
	t.Helper()
	if cfg.Chain == "" {
		cfg.Chain = "replica"
	}
	db, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return db
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) *store.DB {
		return open(t, store.Config{SQLite: filepath.Join(t.TempDir(), "innate.db")})
	})
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) *store.DB {
		return open(t, store.Config{Postgres: testkit.Postgres(t)})
	})
	storetest.Replicas(t, func(t *testing.T, chainA, chainB string) (a, b *store.DB) {
		url := testkit.Postgres(t)
		return open(t, store.Config{Postgres: url, Chain: chainA}), open(t, store.Config{Postgres: url, Chain: chainB})
	})
}

func TestSQLiteFilesAreTheOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := open(t, store.Config{SQLite: filepath.Join(dir, "a ?&%#b.db")}) // odd, and not part of the settings
	if err := db.Record(t.Context(), audit.Event{Action: "any"}); err != nil {
		t.Fatal(err)
	}
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		found = append(found, d.Name())
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", d.Name(), info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "a ?&%#b.db a ?&%#b.db-shm a ?&%#b.db-wal"; strings.Join(found, " ") != want {
		t.Errorf("files: %q, want %q", found, want)
	}
}

func TestSQLiteKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "innate.db")
	for want := range int64(3) {
		db := open(t, store.Config{SQLite: path})
		heads, err := db.Heads(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if heads["replica"] != want {
			t.Errorf("opened for the time %d, the chain has %d batches", want+1, heads["replica"])
		}
		if err := db.Record(t.Context(), audit.Event{Action: "any"}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenRefusesBadSettings(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "innate.db")
	for name, cfg := range map[string]store.Config{
		"neither":            {Chain: "c"},
		"both":               {Chain: "c", SQLite: path, Postgres: "postgres://x"},
		"no chain":           {SQLite: path},
		"management's chain": {SQLite: path, Chain: audit.ManagementChain},
		"no directory":       {SQLite: path + "/none/innate.db", Chain: "c"},
		"no such server":     {Postgres: "postgres:///x?host=" + t.TempDir(), Chain: "c"},
	} {
		db, err := store.Open(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = db.Close()
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused setting made a database")
	}
}

func TestOpenHidesThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://u:hunter2@/x?host=" + t.TempDir(), "postgres://u:hunter2@[bad"} {
		_, err := store.Open(t.Context(), store.Config{Postgres: url, Chain: "c"})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open = %v, want an error without the password", err)
		}
	}
}
