package keyring_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/store"
)

const (
	tenantA = "aaaaaaaa-0000-0000-0000-00000000000a"
	tenantB = "bbbbbbbb-0000-0000-0000-00000000000b"
)

// start is when every test begins.
var start = time.Unix(1_790_000_000, 0).UTC()

// lives are short, and no two are equal.
var lives = keyring.Config{Rotate: 100 * time.Hour, Publish: 10 * time.Hour, Keep: 25 * time.Hour}

// world is a real store with two tenants, and a clock.
type world struct {
	db   *store.DB
	path string
	box  *seal.Box

	mu  sync.Mutex
	now time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: start, path: filepath.Join(t.TempDir(), "innate.db")}
	db, err := store.Open(t.Context(), store.Config{SQLite: w.path, Chain: "test", Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w.db = db
	root, err := seal.CreateFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	w.box = &seal.Box{Root: root}
	for _, id := range []string{tenantA, tenantB} {
		ev := audit.Event{Tenant: id, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
		err := db.Write(t.Context(), &ev, func(tx arm.Tx) error {
			return tx.CreateTenant(directory.Tenant{ID: id, Name: id, Created: start})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = at
}

// ring is a replica: each has a memory of its own.
func (w *world) ring() *keyring.Ring {
	return &keyring.Ring{Store: w.db, Box: w.box, Config: lives, Now: w.clock}
}

// signer is the id of the key that signs now.
func signer(t testing.TB, r *keyring.Ring, tenant string) string {
	t.Helper()
	s, err := r.Signer(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	return s.KeyID
}

// published are the ids in the key set, in its order.
func published(t testing.TB, r *keyring.Ring, tenant string) []string {
	t.Helper()
	set, err := r.JWKS(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, k := range set.Keys {
		ids = append(ids, k.KeyID)
	}
	return ids
}

func records(t testing.TB, w *world, tenant, kind string) []keyring.Record {
	t.Helper()
	recs, err := w.db.Keys(t.Context(), tenant, kind)
	if err != nil {
		t.Fatal(err)
	}
	return recs
}
