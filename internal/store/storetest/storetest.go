// Package storetest is the conformance suite of the store: what a database
// must do to be one of Innate's, in tests that both run.
//
// Each test opens a database of its own and says nothing of which kind it is.
// What only several processes can show is in [Replicas].
package storetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/store"
)

// test is one promise of the store.
type test struct {
	name string
	run  func(t *testing.T, f *fixture)
}

// Run runs the suite. open gives each test a new, empty database, which the
// test's end closes.
func Run(t *testing.T, open func(t *testing.T) *store.DB) {
	for _, tt := range slices.Concat(management(), assignments(), rights(), feed(), groups(), secrets(), fleets(), keys(), operations(), trees(), listing(), federated(), moves(), checks(), subtrees()) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := open(t)
			f := &fixture{t: t, db: db}
			f.createTenant(tenant)
			tt.run(t, f)
		})
	}
}

// The tenants of the tests, and a time without a fraction of a millisecond.
const (
	tenant = "11111111-1111-4111-8111-111111111111"
	other  = "22222222-2222-4222-8222-222222222222"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture is a database with one tenant.
type fixture struct {
	t  *testing.T
	db *store.DB
}

// event is an event of the tenant.
func event(tenant, action string) *audit.Event {
	return &audit.Event{Tenant: tenant, At: noon, Action: action, Target: "/", Outcome: audit.Allowed, Principal: "tester"}
}

func (f *fixture) createTenant(id string) {
	f.t.Helper()
	err := f.db.Write(f.t.Context(), event(id, "create"), func(tx arm.Tx) error {
		return tx.CreateTenant(directory.Tenant{ID: id, Name: "of " + id[:4], Created: noon})
	})
	if err != nil {
		f.t.Fatalf("creating tenant %s: %v", id, err)
	}
}

// write runs fn in a write of the tenant, which must succeed.
func (f *fixture) write(fn func(tx arm.Tx) error) {
	f.t.Helper()
	if err := f.db.Write(f.t.Context(), event(tenant, "write"), fn); err != nil {
		f.t.Fatalf("Write: %v", err)
	}
}

// put creates resources.
func (f *fixture) put(rs ...arm.Resource) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error { return each(rs, tx.PutResource) })
}

func each[T any](all []T, f func(T) error) error {
	for _, v := range all {
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func (f *fixture) revision() int64 {
	f.t.Helper()
	n, err := f.db.Revision(f.t.Context(), tenant)
	if err != nil {
		f.t.Fatalf("Revision: %v", err)
	}
	return n
}

// changes reads the feed after a revision, as "kind key".
func (f *fixture) changes(after int64) []string {
	f.t.Helper()
	rows, err := f.db.Changes(f.t.Context(), tenant, after, 1000)
	if err != nil {
		f.t.Fatalf("Changes: %v", err)
	}
	var out []string
	for _, c := range rows {
		out = append(out, c.Kind+" "+c.Key)
	}
	return out
}

// chains reads and verifies all audit chains of a tenant.
func (f *fixture) chains(tenant string) map[string][]audit.Batch {
	f.t.Helper()
	batches, err := f.db.Batches(f.t.Context(), tenant, nil, 0)
	if err != nil {
		f.t.Fatalf("Batches: %v", err)
	}
	out := map[string][]audit.Batch{}
	for _, b := range batches {
		out[b.Chain] = append(out[b.Chain], b)
	}
	for chain, run := range out {
		if err := audit.Verify(0, "", run); err != nil {
			f.t.Errorf("chain %s: %v", chain, err)
		}
	}
	return out
}

// actions returns the actions on record in a tenant, sorted, those of making
// the fixture left out.
func (f *fixture) actions(tenant string) []string {
	f.t.Helper()
	var out []string
	for _, run := range f.chains(tenant) {
		for _, b := range run {
			evs, err := b.Events()
			if err != nil {
				f.t.Fatal(err)
			}
			for _, ev := range evs {
				if ev.Action != "create" && ev.Action != "write" {
					out = append(out, ev.Action)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func id(s string) resource.ID { return resource.MustParse(s) }

// node is a resource with the given ID.
func node(s string) arm.Resource {
	n := id(s)
	return arm.Resource{
		Tenant: tenant, ID: n, Type: n.Type(), UID: "uid of " + n.Key(),
		Body:    map[string]json.RawMessage{"location": json.RawMessage(`"north"`)},
		Created: noon, Updated: noon.Add(time.Minute), CreatedBy: "someone", UpdatedBy: "another",
	}
}

// machine is the ID of a machine in a group.
func machine(group, name string) string {
	return "/subscriptions/S/resourceGroups/" + group + "/providers/Microsoft.Compute/virtualMachines/" + name
}

// identity is the ID of a user-assigned identity in the group G.
func identity(name string) string {
	return "/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
}

// principalOf is a managed identity's principal.
func principalOf(oid, res string, system bool) directory.Principal {
	return directory.Principal{
		Tenant: tenant, ID: oid, Client: "client-" + oid, Kind: directory.ManagedIdentity, Name: oid,
		Resource: id(res), System: system, Enabled: true, ValidFrom: noon, Created: noon,
	}
}

// grant is a role assignment with the given name.
func grant(scope, name, role, principal string) arm.RoleAssignment {
	n, err := id(scope).Extension("Microsoft.Authorization/roleAssignments", name)
	if err != nil {
		panic(err)
	}
	return arm.RoleAssignment{
		Tenant:        tenant,
		Assignment:    access.Assignment{ID: n, Role: role, Principal: principal, Scope: id(scope)},
		PrincipalType: "ServicePrincipal", Description: "for a test",
		Created: noon, Updated: noon, CreatedBy: "someone", UpdatedBy: "someone",
	}
}

// names returns the last segments of IDs.
func names[T any](all []T, id func(T) resource.ID) []string {
	var out []string
	for _, v := range all {
		out = append(out, id(v).Name())
	}
	return out
}

func resourceID(r arm.Resource) resource.ID         { return r.ID }
func assignmentID(a arm.RoleAssignment) resource.ID { return a.ID }

// same compares, IDs by their text.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	byText := cmp.Transformer("text", resource.ID.String)
	if diff := cmp.Diff(want, got, byText); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// refused checks the kind of an error.
func refused(t *testing.T, what string, err error, want problem.Kind) {
	t.Helper()
	if !problem.Is(err, want) {
		t.Errorf("%s = %v, want a problem of kind %s", what, err, want)
	}
}

// must ends the test if err is not nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// numbered returns prefix0, prefix1, ...
func numbered(prefix string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s%03d", prefix, i))
	}
	return out
}

func upper(s string) string { return strings.ToUpper(s) }
