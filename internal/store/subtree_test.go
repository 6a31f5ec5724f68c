package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/testkit"
)

// counting counts statements.
type counting struct {
	querier
	n int
}

func (c *counting) ExecContext(ctx context.Context, stmt string, args ...any) (sql.Result, error) {
	c.n++
	return c.querier.ExecContext(ctx, stmt, args...)
}

func (c *counting) QueryContext(ctx context.Context, stmt string, args ...any) (*sql.Rows, error) {
	c.n++
	return c.querier.QueryContext(ctx, stmt, args...)
}

// TestDeletedTreeTakesAStatementATable: while a group goes, nobody else commits
// to SQLite, so that it takes as many statements for many resources as for one.
func TestDeletedTreeTakesAStatementATable(t *testing.T) {
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
		if err := db.Write(t.Context(), &ev, func(tx arm.Tx) error { return tx.CreateTenant(directory.Tenant{ID: "t"}) }); err != nil {
			t.Fatal(err)
		}
		statements := map[int]int{} // by how many machines there are
		for _, machines := range []int{1, 100} {
			group := resource.MustParse(fmt.Sprintf("/subscriptions/s/resourceGroups/g%d", machines))
			err := db.Write(t.Context(), &ev, func(tx arm.Tx) error {
				if err := fillGroup(tx, group, machines); err != nil {
					return err
				}
				w := tx.(*writeTx)
				c := &counting{querier: w.q}
				w.q = c
				defer func() { w.q = c.querier; statements[machines] = c.n }()
				return tx.DeleteTree(group.Key())
			})
			if err != nil {
				t.Fatal(err)
			}
			if left, err := db.Resources(t.Context(), "t", group.Key(), "", arm.Page{}); err != nil || len(left) > 0 {
				t.Errorf("%s: %d resources are left, %v", name, len(left), err)
			}
		}
		if statements[1] == 0 || statements[1] != statements[100] {
			t.Errorf("%s: a group of 1 machine goes with %d statements, one of 100 with %d; want as many", name, statements[1], statements[100])
		}
	}
}

// fillGroup makes a group of machines, each with an identity, which has a role,
// and one that all share.
func fillGroup(tx arm.Tx, group resource.ID, machines int) error {
	put := func(id resource.ID, system bool) (string, error) {
		if err := tx.PutResource(arm.Resource{Tenant: "t", ID: id, Type: id.Type(), UID: id.Key()}); err != nil {
			return "", err
		}
		p := directory.NewPrincipal("t", directory.ManagedIdentity, id, system, time.UnixMilli(0))
		return p.ID, tx.PutPrincipal(p)
	}
	if err := tx.PutResource(arm.Resource{Tenant: "t", ID: group, Type: group.Type(), UID: group.Key()}); err != nil {
		return err
	}
	shared := resource.MustParse(group.String() + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared")
	if _, err := put(shared, false); err != nil {
		return err
	}
	for i := range machines {
		id := resource.MustParse(fmt.Sprintf("%s/providers/Microsoft.Compute/virtualMachines/vm%d", group, i))
		principal, err := put(id, true)
		if err != nil {
			return err
		}
		if err := tx.Attach(id.Key(), shared.Key()); err != nil {
			return err
		}
		name, err := group.Extension("Microsoft.Authorization/roleAssignments", fmt.Sprintf("a%d", i))
		if err != nil {
			return err
		}
		if err := tx.PutRoleAssignment(arm.RoleAssignment{Tenant: "t", PrincipalType: "ServicePrincipal",
			Assignment: access.Assignment{ID: name, Role: "r", Principal: principal, Scope: group}}); err != nil {
			return err
		}
	}
	return nil
}
