package arm_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

// counting is a store that counts how often it is asked who belongs to
// resources.
type counting struct {
	arm.Store
	asked *atomic.Int64
}

func (c counting) Identities(ctx context.Context, tenant, key string) ([]directory.Principal, error) {
	c.asked.Add(1)
	return c.Store.Identities(ctx, tenant, key)
}

func (c counting) PrincipalOf(ctx context.Context, tenant, key string) (directory.Principal, error) {
	c.asked.Add(1)
	return c.Store.PrincipalOf(ctx, tenant, key)
}

func (c counting) Holdings(ctx context.Context, tenant string, keys []string) (map[string]arm.Holding, error) {
	c.asked.Add(1)
	return c.Store.Holdings(ctx, tenant, keys)
}

// TestPageAsksOnce: what a page asks the database does not grow with its items.
func TestPageAsksOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		w.owner.must(201, "PUT", uais+fmt.Sprintf("/uai%d", i), local)
		w.owner.must(201, "PUT", vms+fmt.Sprintf("/vm%d", i), block("SystemAssigned, UserAssigned", on(uais+fmt.Sprintf("/uai%d", i))))
	}
	var asked atomic.Int64
	w.srv.ARM.Store = counting{w.srv.ARM.Store, &asked}
	for url, want := range map[string]int{
		uais:              3,
		vms:               3,
		g1 + "/resources": 6,
		g1 + "/resources?api-version=2021-04-01&$top=5": 5,
		uais + "?api-version=2024-11-30&$top=1":         1,
		g1 + "/resources?api-version=2021-04-01&$filter=" + "resourceType%20eq%20'Microsoft.Compute/virtualMachines'": 3,
	} {
		asked.Store(0)
		page := w.owner.must(200, "GET", url, "")
		if got := len(page.values()); got != want || asked.Load() != 1 {
			t.Errorf("GET %s has %d items and asked %d times who belongs to resources, want %d and once", url, got, asked.Load(), want)
		}
	}
}

// TestPageSkipsManyAtOnce: rows that a list does not show are not read one by
// one until the page is full.
func TestPageSkipsManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 { // groups are no resources, and come before those of g1
		w.owner.must(201, "PUT", fmt.Sprintf("%s/resourceGroups/a%d", sub, i), local)
	}
	w.owner.must(201, "PUT", uais+"/uai", local)
	var asked atomic.Int64
	w.srv.ARM.Store = counting{w.srv.ARM.Store, &asked}
	page := w.owner.must(200, "GET", sub+"/resources?api-version=2021-04-01&$top=1", "")
	if len(page.values()) != 1 || asked.Load() > 2 {
		t.Errorf("a page of one item after 20 that are not shown has %d items and asked %d times, want 1 and at most twice", len(page.values()), asked.Load())
	}
}
