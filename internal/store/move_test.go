package store

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// leftAlone are the columns that name a resource, or could, and that a move leaves
// alone or takes along in another way, with the reason.
var leftAlone = map[string]string{
	"resource.key":                  "moved by copying the row: secrets refer to it",
	"resource.type_key":             "is a type",
	"secret.vault_key":              "moved by copying the row",
	"secret_version.vault_key":      "moved by copying the row",
	"secret.name_key":               "is a secret's name",
	"secret_version.name_key":       "is a secret's name",
	"api.audience_key":              "is an audience",
	"moved.old_key":                 "says where something was",
	"deleted_identity.key":          "says where something was",
	"deleted_identity.name_key":     "is a name",
	"role_definition.name_key":      "is a role's name",
	"directory_group.name_key":      "is a group's name",
	"change.key":                    "says what happened",
	"federated_credential.name_key": "is a credential's name; whose it is, its principal says",
	"operation.target_key":          "says what an operation was done to",
	"management_tree.key":           "is a subscription's or a management group's, which no move takes elsewhere",
	"management_tree.parent_key":    "is a management group's",
	"unregistered.subscription_key": "is a subscription's",
	"unregistered.namespace_key":    "is a namespace",
}

// TestMoveKnowsEveryColumn fails when a table gets a column that names a
// resource and that a move would leave behind.
func TestMoveKnowsEveryColumn(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), Config{SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "c"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	columns, err := many(t.Context(), db.read, scanned[string], `
		SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	if len(columns) < 50 {
		t.Fatalf("there are %d columns; is this the schema?", len(columns))
	}
	for _, c := range columns {
		table, name, _ := strings.Cut(c, ".")
		known := slices.ContainsFunc(places, func(n column) bool { return n.table == table && n.key == name })
		if (name == "key" || strings.HasSuffix(name, "_key")) && !known && leftAlone[c] == "" {
			t.Errorf("%s may name a resource: add it to places in move.go, or to leftAlone in this file with the reason", c)
		}
	}
}
