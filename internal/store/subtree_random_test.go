package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/testkit"
)

// held is a table that says something of resources; its first column names a
// row, and the others say what the row is of.
type held struct {
	table, columns string
	// of tells whether the row goes with what is gone: keys and object ids.
	of func(cols []string, gone func(string) bool) bool
	// changes are the rows of the feed that its end makes.
	changes func(cols []string) []string
}

func anyOf(cols []string, gone func(string) bool) bool { return slices.ContainsFunc(cols[1:], gone) }

func says(kind string, col int) func([]string) []string {
	return func(cols []string) []string { return []string{kind + " " + cols[col]} }
}

func silent([]string) []string { return nil }

var helds = []held{
	{"resource", `key, key`, anyOf, says(arm.ChangeResource, 0)},
	{"principal", `id, resource_key`, anyOf, func(c []string) []string { return []string{arm.ChangePrincipal + " " + c[0]} }},
	{"attachment", `resource_key || ' ' || identity_key, resource_key, identity_key`, anyOf, says(arm.ChangeIdentity, 1)},
	{"assignment", `key, principal, scope_key`, anyOf, says(arm.ChangeAssignment, 1)},
	{"deny_assignment", `key, scope_key`, anyOf, says(arm.ChangeDenial, 0)},
	{"deny_principal", `key || ' ' || principal, key`, anyOf, silent},
	{"federated_credential", `principal || ' ' || name_key, principal`, anyOf, says(arm.ChangeCredential, 1)},
	{"group_member", `group_id || ' ' || member, group_id, member`, anyOf, says(arm.ChangeGroup, 1)},
	{"claimed_name", `name, resource_key`, anyOf, silent},
	{"api", `audience_key, resource_key`, anyOf, says(arm.ChangeAPI, 1)},
	{"resource_term", `resource_key || ' ' || term, resource_key`, anyOf, silent},
}

func (h held) rows(t *testing.T, db *DB, tenant string) map[string][]string {
	t.Helper()
	cols := len(strings.Split(h.columns, ", "))
	scan := func(r row) ([]string, error) {
		out := make([]string, cols)
		var to []any
		for i := range out {
			to = append(to, &out[i])
		}
		return out, r.Scan(to...)
	}
	rows, err := many(t.Context(), db.read, scan, `SELECT `+h.columns+` FROM `+h.table+` WHERE tenant = $1`, tenant)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, r := range rows {
		out[r[0]] = r
	}
	return out
}

// grove is a random tree with all that can be of its resources.
type grove struct {
	*rand.Rand
	tenant     string
	keys       []resource.ID
	system     map[string]bool // keys of those with a system-assigned identity
	identities []resource.ID
	principals []string
}

// groveNames have the characters around "/", those that mean something to LIKE,
// and prefixes of each other.
var groveNames = []string{"g", "G1", "g10", "g1-", "g1.a", "g1_", "g1~", "g1(", "g100"}

func (g *grove) plant(tx arm.Tx) error {
	parse := resource.MustParse
	var all []resource.ID
	for _, s := range []string{"s", "s1", "s-1"} {
		sub := "/subscriptions/" + s
		all = append(all, parse(sub))
		for _, n := range groveNames {
			if g.IntN(2) == 0 {
				continue
			}
			group := sub + "/resourceGroups/" + n
			all = append(all, parse(group))
			for _, m := range groveNames {
				switch g.IntN(7) {
				case 0, 1:
					vm := group + "/providers/Microsoft.Compute/virtualMachines/" + m
					all = append(all, parse(vm), parse(vm+"/extensions/"+m), parse(vm+"/providers/Microsoft.Authorization/locks/"+m))
				case 2, 3:
					id := parse(group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + m)
					all = append(all, id)
					g.identities = append(g.identities, id)
				}
			}
		}
	}
	g.keys = all
	for _, id := range all {
		if err := g.root(tx, id); err != nil {
			return err
		}
	}
	for i := range 8 {
		group := fmt.Sprintf("group%d", i)
		if err := tx.PutGroup(arm.Group{Tenant: g.tenant, ID: group, Name: group}); err != nil {
			return err
		}
		for range 4 {
			if _, err := tx.AddMember(group, g.somebody()); err != nil {
				return err
			}
		}
	}
	for i := range 3 * len(all) {
		if err := g.grow(tx, i); err != nil {
			return err
		}
	}
	return nil
}

func (g *grove) somebody() string { return g.principals[g.IntN(len(g.principals))] }

func (g *grove) somewhere() resource.ID { return g.keys[g.IntN(len(g.keys))] }

// root puts a resource, maybe with a principal of its own.
func (g *grove) root(tx arm.Tx, id resource.ID) error {
	r := arm.Resource{Tenant: g.tenant, ID: id, Type: id.Type(), UID: id.Key(), Body: arm.Document{"tags": []byte(`{"a":"b"}`)}}
	if err := tx.PutResource(r); err != nil {
		return err
	}
	own := slices.ContainsFunc(g.identities, id.Equal)
	if !own && g.IntN(2) == 0 {
		return nil
	}
	p := directory.NewPrincipal(g.tenant, directory.ManagedIdentity, id, !own, time.UnixMilli(0))
	g.principals = append(g.principals, p.ID)
	g.system[id.Key()] = !own
	if err := tx.PutPrincipal(p); err != nil || !own || g.IntN(2) == 0 {
		return err
	}
	c := federation.Credential{Trust: "t" + p.ID, Name: "c", Issuer: "https://i.example", Subject: "s", Audiences: []string{"a"}}
	return tx.PutFederatedCredential(p.ID, c)
}

// grow adds one thing of a resource.
func (g *grove) grow(tx arm.Tx, i int) error {
	at := g.somewhere()
	name := fmt.Sprintf("n%d", i)
	switch g.IntN(5) {
	case 0:
		if len(g.identities) == 0 {
			return nil
		}
		return tx.Attach(at.Key(), g.identities[g.IntN(len(g.identities))].Key())
	case 1:
		return tx.ClaimName("vault", g.tenant+name, at.Key())
	case 2:
		return tx.PutAPI(directory.API{Tenant: g.tenant, Audience: "api://" + name, Client: name, Resource: at})
	case 3:
		id, err := at.Extension("Microsoft.Authorization/denyAssignments", name)
		if err != nil {
			return err
		}
		return tx.PutDenyAssignment(arm.DenyAssignment{Tenant: g.tenant, Denial: access.Denial{ID: id, Scope: at, Principals: []string{g.somebody(), access.Everyone}}, Types: map[string]string{}})
	}
	id, err := at.Extension("Microsoft.Authorization/roleAssignments", name)
	if err != nil {
		return err
	}
	return tx.PutRoleAssignment(arm.RoleAssignment{Tenant: g.tenant, Assignment: access.Assignment{ID: id, Role: name, Principal: g.somebody(), Scope: at}})
}

// TestDeletedTreesAreWhatTheyWere: of random trees goes what is of the part that
// is deleted, all of it, nothing else, and the feed has every row of it.
func TestDeletedTreesAreWhatTheyWere(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"sqlite":   {SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "c"},
		"postgres": {Postgres: testkit.Postgres(t), Chain: "c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			for seed := range uint64(12) {
				deleteInGrove(t, db, seed)
			}
		})
	}
}

func deleteInGrove(t *testing.T, db *DB, seed uint64) {
	t.Helper()
	g := &grove{Rand: rand.New(rand.NewPCG(seed, 2)), tenant: fmt.Sprintf("t%d", seed), system: map[string]bool{}}
	ev := audit.Event{Tenant: g.tenant, Action: "test"}
	write := func(fn func(tx arm.Tx) error) {
		t.Helper()
		if err := db.Write(t.Context(), &ev, fn); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	write(func(tx arm.Tx) error {
		if err := tx.CreateTenant(directory.Tenant{ID: g.tenant}); err != nil {
			return err
		}
		return g.plant(tx)
	})
	revision, err := db.Revision(t.Context(), g.tenant)
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		key := g.somewhere().Key()
		want, feed := g.without(t, db, key)
		write(func(tx arm.Tx) error { return tx.DeleteTree(strings.ToUpper(key)) })
		got := map[string][]string{}
		for _, h := range helds {
			got[h.table] = slices.Sorted(maps.Keys(h.rows(t, db, g.tenant)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d, %s: %s", seed, key, diff)
		}
		changes, err := db.Changes(t.Context(), g.tenant, revision, 100000)
		if err != nil {
			t.Fatal(err)
		}
		heard := map[string]bool{}
		for _, c := range changes {
			heard[c.Kind+" "+c.Key] = true
			revision = c.Revision
		}
		if diff := cmp.Diff(feed, heard); diff != "" {
			t.Fatalf("seed %d, %s: the feed: %s", seed, key, diff)
		}
	}
	faults, err := db.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		if !strings.HasPrefix(f.Kind, "a federated credential") && !strings.Contains(f.Key, "group") { // these have no resources, and groups no principals
			t.Errorf("seed %d: %v", seed, f)
		}
	}
}

// without is what the tables have once the part at key is gone, and what the
// feed has of that.
func (g *grove) without(t *testing.T, db *DB, key string) (left map[string][]string, feed map[string]bool) {
	t.Helper()
	goes := map[string]bool{}
	gone := func(s string) bool { return s == key || strings.HasPrefix(s, key+"/") || goes[s] }
	left, feed = map[string][]string{}, map[string]bool{}
	for id, r := range helds[1].rows(t, db, g.tenant) { // principals first: others go with them
		goes[id] = gone(r[1]) && r[1] != ""
	}
	for _, h := range helds {
		left[h.table] = nil
		for id, cols := range h.rows(t, db, g.tenant) {
			if !h.of(cols, gone) {
				left[h.table] = append(left[h.table], id)
				continue
			}
			for _, c := range h.changes(cols) {
				feed[c] = true
			}
			if h.table == "principal" && g.system[cols[1]] {
				feed[arm.ChangeIdentity+" "+cols[1]] = true
			}
			if h.table == "attachment" { // who had it reads other than before
				feed[arm.ChangeResource+" "+cols[1]] = true
			}
		}
		slices.Sort(left[h.table])
	}
	return left, feed
}
