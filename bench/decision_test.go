package bench

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/testkit"
)

// crowd is a tenant full of other principals' role assignments, five each, at
// 2000 resource groups, and one identity of interest beside them.
type crowd struct {
	dir  *directory.Directory
	rows int
	next int // of the others, whom to ask for
}

const (
	crowdTenant = "cccccccc-0000-4000-8000-00000000000c"
	crowdMe     = "77777777-7777-4777-8777-777777777777"
	secretsUser = "4633458b-17de-408a-b874-0445c86b69e6"
	// crowdPrime is more than there are others: times a number, modulo this,
	// each has another one, in no order.
	crowdPrime, crowdFactor = 2_000_003, 48_271
)

// BenchmarkDecision is a decision about reading a secret, through the real
// store, in a tenant with ever more role assignments. "one" is always the same
// identity (a role of its own at the vault, two by a group in a group), whose
// rows are in memory; "each" is another one of the crowd every time (five roles
// of its own), whose rows may be anywhere. Sizes are measured in turns.
// INNATE_BENCH_LARGE=1 adds ten million.
func BenchmarkDecision(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			var crowds []*crowd
			for _, n := range sizes(10_000_000, 1_000, 100_000) {
				crowds = append(crowds, newCrowd(b, kind, n))
			}
			for _, who := range []struct {
				name string
				ask  func(*crowd, *testing.B)
			}{{"one", (*crowd).one}, {"each", (*crowd).each}} {
				b.Run(who.name, func(b *testing.B) {
					var sides []*turn
					for _, c := range crowds {
						sides = append(sides, &turn{name: strconv.Itoa(c.rows), do: func() { who.ask(c, b) }})
					}
					b.ReportAllocs()
					inTurns(b, time.Microsecond, sides...)
				})
			}
		})
	}
}

func newCrowd(b *testing.B, kind string, rows int) *crowd {
	b.Helper()
	cfg := store.Config{Chain: "bench"}
	where := filepath.Join(b.TempDir(), "innate.db")
	if kind == "sqlite" {
		cfg.SQLite = where
	} else {
		cfg.Postgres = testkit.Postgres(b)
		where = cfg.Postgres
	}
	begin := time.Now()
	if err := fillCrowd(b, cfg, newLoader(b, kind, where), rows); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d role assignments loaded in %v", rows, time.Since(begin).Round(time.Millisecond))
	db, err := store.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	if err := db.Write(b.Context(), crowdEvent(), me); err != nil {
		b.Fatal(err)
	}
	return &crowd{dir: &directory.Directory{Store: db, Now: time.Now}, rows: rows}
}

func crowdEvent() *audit.Event {
	return &audit.Event{Tenant: crowdTenant, Action: "bench", Target: "/", Outcome: audit.Allowed, Principal: "bench"}
}

// fillCrowd makes the tenant, and the crowd while nobody else has the database.
func fillCrowd(b *testing.B, cfg store.Config, l *loader, rows int) error {
	db, err := store.Open(b.Context(), cfg)
	if err != nil {
		return err
	}
	err = db.Write(b.Context(), crowdEvent(), func(tx arm.Tx) error {
		return tx.CreateTenant(directory.Tenant{ID: crowdTenant, Name: "crowd", Created: time.Now()})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return errors.Join(l.fill(b.Context(), rows, []string{"assignment"}, crowdRows), l.pool.Close())
}

// crowdRows makes the assignments from from on and before to, in the order of
// their keys.
func crowdRows(from, to int) []string {
	number := func(n string) string { return "CAST(" + n + " AS TEXT)" }
	scope := `'/subscriptions/s/resourcegroups/g' || ` + number("n % 2000")
	id := `'/providers/microsoft.authorization/roleassignments/' || ` + number("100000000 + n")
	who := number(fmt.Sprintf("10000000 + n / 5 * %d %% %d", crowdFactor, crowdPrime)) + ` || '-0000-4000-8000-000000000000'`
	return []string{counted(from, to) + fmt.Sprintf(`
		INSERT INTO assignment (tenant, key, id, role, principal, principal_type, scope, scope_key, description,
			condition, condition_version, created_ms, updated_ms, created_by, updated_by)
		SELECT '%s', %s, %s, '%s', %s, 'ServicePrincipal', %s, %s, '', '', '', 0, 0, '', '' FROM c`,
		crowdTenant, id, id, secretsUser, who, scope, scope)}
}

// me is the identity of interest and what it has.
func me(tx arm.Tx) error {
	now := time.Now()
	vault := resource.MustParse("/subscriptions/s/resourceGroups/g7/providers/Microsoft.KeyVault/vaults/kv")
	machine := resource.MustParse("/subscriptions/s/resourceGroups/g7/providers/Microsoft.Compute/virtualMachines/vm")
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

// ask has the decision made and wants it to be a yes.
func (c *crowd) ask(b *testing.B, principal, group string) {
	got, err := c.dir.Authorize(b.Context(), access.Caller{Tenant: crowdTenant, Principal: principal}, access.Operation{
		Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Data: true,
		Scope: resource.MustParse("/subscriptions/s/resourceGroups/" + group + "/providers/Microsoft.KeyVault/vaults/kv/secrets/db"),
	})
	if err != nil || !got.Allowed {
		b.Fatalf("Authorize(%s at %s) = %v, %v", principal, group, got, err)
	}
}

func (c *crowd) one(b *testing.B) { c.ask(b, crowdMe, "g7") }

func (c *crowd) each(b *testing.B) {
	others := c.rows / 5
	i := c.next % others
	c.next += others*5/8 + 1 // far from the one before
	c.ask(b, fmt.Sprintf("%08d-0000-4000-8000-000000000000", 10_000_000+i*crowdFactor%crowdPrime), fmt.Sprintf("g%d", i*5%2000))
}
