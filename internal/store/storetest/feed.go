package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

func feed() []test {
	return []test{
		{"FeedHasEveryChangeOnce", feedRows},
		{"FeedNeverCutsARevision", feedWhole},
		{"FeedMissesNothingUnderConcurrentWriters", feedComplete},
		{"ChangedWakesAtAWrite", changedWakes},
		{"WaitingWriteEndsWithItsContext", waitingWrite},
	}
}

func feedRows(t *testing.T, f *fixture) {
	same(t, "the tenant's own", f.changes(0), []string{"resource /"})
	vm, uai := id(machine("G", "vm")).Key(), id(identity("u")).Key()
	api := directory.API{Audience: "api://x", Client: "c", TokenVersion: 1, Resource: id("/subscriptions/S")}
	for _, tt := range []struct {
		name string
		do   func(tx arm.Tx) error
		want []string
	}{
		{"put", func(tx arm.Tx) error {
			return errors.Join(tx.PutResource(node(machine("G", "vm"))), tx.PutResource(node(machine("G", "vm"))))
		}, []string{"resource " + vm}},
		{"a user-assigned identity", func(tx arm.Tx) error {
			return errors.Join(tx.PutResource(node(identity("u"))), tx.PutPrincipal(principalOf("u", identity("u"), false)))
		}, []string{"principal u", "resource " + uai}},
		{"a system-assigned identity", func(tx arm.Tx) error { return tx.PutPrincipal(principalOf("s", machine("G", "vm"), true)) },
			[]string{"identity " + vm, "principal s"}},
		{"attach", func(tx arm.Tx) error { return tx.Attach(vm, uai) }, []string{"identity " + vm}},
		{"detach", func(tx arm.Tx) error { return tx.Detach(vm, uai) }, []string{"identity " + vm}},
		{"assign", func(tx arm.Tx) error { return tx.PutRoleAssignment(grant("/", "a", "r", "U")) }, []string{"assignment u"}},
		{"reassign", func(tx arm.Tx) error { return tx.PutRoleAssignment(grant("/", "a", "r", "s")) }, []string{"assignment s", "assignment u"}},
		{"unassign", func(tx arm.Tx) error { return tx.DeleteRoleAssignment(grant("/", "a", "r", "s").ID.Key()) }, []string{"assignment s"}},
		{"claim", func(tx arm.Tx) error { return tx.ClaimName("vault", "n", vm) }, []string{"resource " + vm}},
		{"release", func(tx arm.Tx) error { return tx.ReleaseNames(vm) }, []string{"resource " + vm}},
		{"audience", func(tx arm.Tx) error { return tx.PutAPI(api) }, []string{"api /subscriptions/s"}},
		{"no audience", func(tx arm.Tx) error { return tx.DeleteAPIs("/subscriptions/s") }, []string{"api /subscriptions/s"}},
		{"host", func(tx arm.Tx) error { return tx.DeleteHost(node(machine("G", "vm")).UID) }, []string{"resource " + vm}},
		{"delete a principal", func(tx arm.Tx) error { return tx.DeletePrincipal("s") }, []string{"identity " + vm, "principal s"}},
		{"delete", func(tx arm.Tx) error { return tx.DeleteTree(vm) }, []string{"resource " + vm}},
		{"nothing", func(arm.Tx) error { return nil }, nil},
	} {
		before := f.revision()
		f.write(tt.do)
		same(t, tt.name, f.changes(before), tt.want)
		same(t, tt.name+": revision", f.revision(), before+1)
	}
}

func feedWhole(t *testing.T, f *fixture) {
	for i := range 4 { // revisions 2 to 5, of three rows each
		f.write(func(tx arm.Tx) error {
			return each(numbered(fmt.Sprintf("vm%d-", i), 3), func(name string) error { return tx.PutResource(node(machine("G", name))) })
		})
	}
	for _, tt := range []struct{ limit, rows int }{{1, 3}, {2, 3}, {3, 3}, {4, 6}, {6, 6}, {7, 9}, {100, 12}, {0, 12}} {
		got, err := f.db.Changes(t.Context(), tenant, 1, tt.limit)
		must(t, err)
		same(t, fmt.Sprintf("rows with limit %d", tt.limit), len(got), tt.rows)
	}
	got, err := f.db.Changes(t.Context(), tenant, 5, 10)
	must(t, err)
	same(t, "rows after the last", len(got), 0)
}

// feedComplete has writers whose transactions take different times, and a
// reader that asks for "revision > n" all the while.
func feedComplete(t *testing.T, f *fixture) {
	const writers, each = 8, 12
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range each {
				err := f.db.Write(t.Context(), event(tenant, "concurrent"), func(tx arm.Tx) error {
					for n := range 1 + (w+i)%3 {
						if err := tx.PutResource(node(machine("G", fmt.Sprintf("vm-%d-%d-%d", w, i, n)))); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	seen := map[string]int64{}
	read := func(last int64) int64 {
		rows, err := f.db.Changes(t.Context(), tenant, last, 7)
		must(t, err)
		for _, c := range rows {
			if c.Revision <= last {
				t.Errorf("revision %d came after %d", c.Revision, last)
			}
			seen[c.Key] = c.Revision
		}
		if len(rows) > 0 {
			last = rows[len(rows)-1].Revision
		}
		return last
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	var last int64
	for running := true; running; {
		changed := f.db.Changed()
		if next := read(last); next > last {
			last = next
			continue
		}
		select {
		case err := <-done:
			must(t, err)
			running = false
		case <-changed:
		}
	}
	for next := read(last); next > last; next = read(last) {
		last = next
	}
	all, err := f.db.Resources(t.Context(), tenant, "", "", arm.Page{})
	must(t, err)
	same(t, "changes seen beside the tenant's own", len(seen)-1, len(all))
	for _, r := range all {
		if seen[r.ID.Key()] != r.ETag {
			t.Errorf("the feed has %s at revision %d, its etag is %d", r.ID, seen[r.ID.Key()], r.ETag)
		}
	}
	same(t, "revision", f.revision(), int64(1+writers*each))
	same(t, "management batches", len(f.chains(tenant)["management"]), 1+writers*each)
}

func changedWakes(t *testing.T, f *fixture) {
	changed, recorded := f.db.Changed(), f.db.Recorded()
	f.put(node("/subscriptions/S"))
	await(t, "Changed", changed)
	await(t, "Recorded", recorded)
	recorded = f.db.Recorded()
	must(t, f.db.Record(t.Context(), *event(tenant, "seen")))
	await(t, "Recorded", recorded)
}

func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-t.Context().Done():
		t.Fatalf("%s was not heard", what)
	}
}

// waitingWrite has a write wait for another one of its tenant.
func waitingWrite(t *testing.T, f *fixture) {
	inside, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() { first <- f.slow(tenant, inside, leave) }()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		second <- f.db.Write(ctx, event(tenant, "impatient"), func(arm.Tx) error { return nil })
	}()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("a write that waited = %v, want %v", err, context.Canceled)
	}
	// Reads do not wait.
	same(t, "revision meanwhile", f.revision(), int64(1))
	close(leave)
	must(t, <-first)
	same(t, "revision afterwards", f.revision(), int64(2))
	same(t, "on record", f.actions(tenant), []string{"slow"})
}

// slow is a write that says when it has begun and ends when leave is closed.
func (f *fixture) slow(tenant string, inside, leave chan struct{}) error {
	var once sync.Once
	return f.db.Write(f.t.Context(), event(tenant, "slow"), func(arm.Tx) error {
		once.Do(func() { close(inside) })
		<-leave
		return nil
	})
}
