package graph_test

import (
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
)

// TestGraphSharesTheTenantsLimit: who was told to wait at the management API is
// told so here, and the other way round.
func TestGraphSharesTheTenantsLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ops, other := w.ops(tenantA), w.vm(tenantA, g1, "other", roleReader+" "+sub)
	w.srv.ARM.Limits = arm.NewLimits(arm.Rate{PerSecond: 0.1, Burst: 3}, arm.DefaultRate, func() time.Time { return start })
	ops.get("servicePrincipals")
	ops.get("groups")
	ops.refused(404, "Request_ResourceNotFound", "GET", "groups/"+nobody, "")
	n := 0
	for range 5 {
		r := ops.refused(429, "TooManyRequests", "GET", "servicePrincipals", "")
		if got := r.header.Get("Retry-After"); got != "10" {
			t.Errorf("Retry-After: %q, want the 10 seconds that one takes", got)
		}
		n += len(w.events(tenantA, r))
	}
	other.get("servicePrincipals")
	ops.must(201, "POST", "groups", `{"displayName":"G"}`)
	if n != 1 {
		t.Errorf("of five refusals in a row %d are on record, want the first", n)
	}
}
