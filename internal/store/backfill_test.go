package store

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/testkit"
)

// TestTermsOfWhatWasThereBefore: the migration gives resources of an older
// database the terms that a write would.
func TestTermsOfWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"sqlite":   {SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "c"},
		"postgres": {Postgres: testkit.Postgres(t), Chain: "c"},
	} {
		db, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		ev := audit.Event{Tenant: "t", Action: "test"}
		err = db.Write(t.Context(), &ev, func(tx arm.Tx) error {
			if err := tx.CreateTenant(directory.Tenant{ID: "t"}); err != nil {
				return err
			}
			for id, tags := range map[string]string{
				"/subscriptions/S":                                            `null`,
				"/subscriptions/S/resourceGroups/G":                           `{"Env":"Prod","it's":"<é> & \"","x=y":"z","x":"y=z"}`,
				"/subscriptions/S/resourceGroups/G2":                          `{"nul":"\u0000"}`,
				"/subscriptions/S/providers/A.B/c/Name":                       `{"long":"` + strings.Repeat("é", 300) + `"}`,
				"/subscriptions/S/resourceGroups/" + strings.Repeat("n", 250): `{}`,
			} {
				r := arm.Resource{Tenant: "t", ID: resource.MustParse(id), Body: map[string]json.RawMessage{"tags": json.RawMessage(tags)}}
				if err := tx.PutResource(r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		terms := func() []string {
			out, err := many(t.Context(), db.read, scanned[string], `SELECT resource_key || ' ' || term FROM resource_term ORDER BY 1`)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		want := terms()
		sql, err := migrations.ReadFile("migrations/" + name + "/00006_plumbing.sql")
		if err != nil {
			t.Fatal(err)
		}
		backfill := slices.DeleteFunc(strings.SplitAfter(string(sql), ";\n"), func(s string) bool { return !strings.Contains(s, "INSERT") })
		if _, err := exec(t.Context(), db.manage, "DELETE FROM resource_term"); err != nil {
			t.Fatal(err)
		}
		for _, stmt := range backfill {
			if _, err := exec(t.Context(), db.manage, stmt); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if diff := cmp.Diff(want, terms()); diff != "" || len(want) < 12 {
			t.Errorf("%s: terms (-written +migrated):\n%s", name, diff)
		}
	}
}

// TestDeletedBeforeMoreWasKept: an identity that an older program deleted comes
// back with what that one kept.
func TestDeletedBeforeMoreWasKept(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"sqlite":   {SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "c"},
		"postgres": {Postgres: testkit.Postgres(t), Chain: "c"},
	} {
		db, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		_, err = exec(t.Context(), db.manage, `INSERT INTO deleted_identity (tenant, principal, key, name_key, resource, identity, roles, deleted_by, deleted_ms, purge_ms)
			VALUES ('t', 'p', '/x', 'x', $1, $1, $2, 'someone', 0, 0)`, []byte("{}"), []byte("[]"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d, err := db.DeletedIdentity(t.Context(), "t", "p")
		if err != nil || len(d.Credentials)+len(d.Groups)+len(d.Attached) > 0 || d.DeletedBy != "someone" {
			t.Errorf("%s: it reads %+v, %v", name, d, err)
		}
	}
}
