package bench

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", for the loader
	_ "modernc.org/sqlite"             // the driver "sqlite", for the loader

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/testkit"
)

// crowd is a tenant full of other principals' role assignments, five each, at
// 2000 resource groups, and one identity of interest in the middle of them.
type crowd struct {
	db   *store.DB
	load func(stmt string) error
	rows int
	// analyze: the planner's statistics are made after loading.
	analyze bool
}

const (
	crowdTenant = "cccccccc-0000-4000-8000-00000000000c"
	crowdMe     = "77777777-7777-4777-8777-777777777777"
	secretsUser = "4633458b-17de-408a-b874-0445c86b69e6"
)

// BenchmarkDecision is a decision about reading a secret, through the real
// store: what there is of one identity (a role of its own at the vault, two by a
// group in a group), read in a tenant with ever more role assignments of others.
// INNATE_BENCH_LARGE=1 adds ten million.
func BenchmarkDecision(b *testing.B) {
	sizes := []int{1_000, 100_000}
	if os.Getenv("INNATE_BENCH_LARGE") != "" {
		sizes = append(sizes, 10_000_000)
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { decide(b, newCrowd(b, kind, n)) })
		}
	}
}

func newCrowd(b *testing.B, kind string, rows int) *crowd {
	b.Helper()
	cfg, driver, dsn := store.Config{Chain: "bench"}, "sqlite", ""
	if kind == "sqlite" {
		cfg.SQLite = filepath.Join(b.TempDir(), "innate.db")
		dsn = "file:" + cfg.SQLite + "?_pragma=busy_timeout(60000)&_pragma=synchronous(OFF)"
	} else {
		cfg.Postgres = testkit.Postgres(b)
		driver, dsn = "pgx", cfg.Postgres
	}
	db, err := store.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	pool, err := sql.Open(driver, dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = pool.Close() })
	c := &crowd{db: db, rows: rows, analyze: kind == "postgres", load: func(stmt string) error {
		_, err := pool.ExecContext(b.Context(), stmt)
		return err
	}}
	if err := c.fill(b.Context()); err != nil {
		b.Fatal(err)
	}
	return c
}

// fill makes the identity of interest by the store's own writes, and the crowd
// by statements that make their rows themselves, half a million in each.
func (c *crowd) fill(ctx context.Context) error {
	ev := &audit.Event{Tenant: crowdTenant, Action: "bench", Target: "/", Outcome: audit.Allowed, Principal: "bench"}
	err := c.db.Write(ctx, ev, func(tx arm.Tx) error {
		return tx.CreateTenant(directory.Tenant{ID: crowdTenant, Name: "crowd", Created: time.Now()})
	})
	if err != nil {
		return err
	}
	const step = 500_000
	for from := 0; from < c.rows; from += step {
		if err := c.load(crowdRows(from, min(from+step, c.rows))); err != nil {
			return fmt.Errorf("loading from row %d: %w", from, err)
		}
	}
	// What a server of PostgreSQL does by itself in time. The store never asks
	// SQLite for it; there it would have every statement planned at each run.
	if c.analyze {
		if err := c.load("ANALYZE"); err != nil {
			return err
		}
	}
	return c.db.Write(ctx, ev, me)
}

// crowdRows is one statement that inserts the rows from up to to: a recursion
// counts, which both databases can.
func crowdRows(from, to int) string {
	pad := func(n string) string {
		return fmt.Sprintf(`CAST(10000000 + %s AS TEXT) || '-0000-4000-8000-000000000000'`, n)
	}
	scope := `'/subscriptions/51515151-0000-4000-8000-000000000005/resourcegroups/g' || CAST(n % 2000 AS TEXT)`
	id := scope + ` || '/providers/microsoft.authorization/roleassignments/' || ` + pad("n")
	return fmt.Sprintf(`
		WITH RECURSIVE c (n) AS (SELECT %d UNION ALL SELECT n + 1 FROM c WHERE n + 1 < %d)
		INSERT INTO assignment (tenant, key, id, role, principal, principal_type, scope, scope_key, description,
			condition, condition_version, created_ms, updated_ms, created_by, updated_by)
		SELECT '%s', %s, %s, '%s', %s, 'ServicePrincipal', %s, %s, '', '', '', 0, 0, 'bench', 'bench' FROM c`,
		from, to, crowdTenant, id, id, secretsUser, pad("n / 5"), scope, scope)
}

// me is the identity of interest and what it has.
func me(tx arm.Tx) error {
	now := time.Now()
	vault := resource.MustParse("/subscriptions/51515151-0000-4000-8000-000000000005/resourceGroups/g7/providers/Microsoft.KeyVault/vaults/kv")
	machine := resource.MustParse("/subscriptions/51515151-0000-4000-8000-000000000005/resourceGroups/g7/providers/Microsoft.Compute/virtualMachines/vm")
	p := directory.NewPrincipal(crowdTenant, directory.ManagedIdentity, machine, true, now)
	p.ID = crowdMe
	if err := tx.PutPrincipal(p); err != nil {
		return err
	}
	for _, g := range []struct{ id, member string }{{"group-1", crowdMe}, {"group-2", "group-1"}} {
		if err := tx.PutGroup(arm.Group{Tenant: crowdTenant, ID: g.id, Name: g.id, Created: now}); err != nil {
			return err
		}
		if _, err := tx.AddMember(g.id, g.member); err != nil {
			return err
		}
	}
	for i, has := range []struct {
		who   string
		scope resource.ID
	}{{crowdMe, vault}, {"group-1", vault.GroupID()}, {"group-2", machine}} {
		id, err := has.scope.Extension("Microsoft.Authorization/roleAssignments", fmt.Sprintf("mine-%d", i))
		if err != nil {
			return err
		}
		a := arm.RoleAssignment{Tenant: crowdTenant, Assignment: access.Assignment{ID: id, Role: secretsUser, Principal: has.who, Scope: has.scope}, Created: now}
		if err := tx.PutRoleAssignment(a); err != nil {
			return err
		}
	}
	return nil
}

func decide(b *testing.B, c *crowd) {
	d := &directory.Directory{Store: c.db, Now: time.Now}
	caller := access.Caller{Tenant: crowdTenant, Principal: crowdMe}
	op := access.Operation{
		Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Data: true,
		Scope: resource.MustParse("/subscriptions/51515151-0000-4000-8000-000000000005/resourceGroups/g7/providers/Microsoft.KeyVault/vaults/kv/secrets/db"),
	}
	ask := func() {
		if got, err := d.Authorize(b.Context(), caller, op); err != nil || !got.Allowed {
			b.Fatalf("Authorize = %v, %v", got, err)
		}
	}
	ask() // the statement is prepared
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
