package arm_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// between is the real store, with something that happens after the API looked
// at what is and before it writes.
type between struct {
	arm.Store
	happens func()
}

func (b between) Write(ctx context.Context, ev *audit.Event, fn func(arm.Tx) error) error {
	b.happens()
	return b.Store.Write(ctx, ev, fn)
}

// TestWhatChangesBetweenCheckAndWrite: a right that was checked for one state
// is not used on another.
func TestWhatChangesBetweenCheckAndWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm, uai := vms+"/vm1", uais+"/uai"
	host := g1 + "/providers/Innate.Fleet/hosts/h1"
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", uai, local)
	w.owner.must(201, "PUT", vm, block("UserAssigned", on(uai)))
	w.owner.must(201, "PUT", vms+"/vm2", local)
	place := func(vm string) string {
		return `{"properties":{"door":"run","selectors":["unix:uid:0"],"resourceId":"` + vms + vm + `"}}`
	}
	w.owner.must(201, "PUT", host+"/placements/p", place("/vm2"))
	mallory := w.as(tenantA, "mallory", roleContributor+" "+vm, roleContributor+" "+host, roleContributor+" "+vms+"/vm2")
	for _, tt := range []struct {
		what, id, body string
		happens        func()
	}{
		{"an identity that was attached is detached meanwhile", vm, block("", on(uai)), func() {
			w.owner.must(200, "PATCH", vm, block("None"))
		}},
		{"a placement is of another machine meanwhile", host + "/placements/p", `{"properties":{"selectors":null}}`, func() {
			w.owner.must(200, "DELETE", host+"/placements/p", "")
			w.owner.must(201, "PUT", host+"/placements/p", place("/vm1"))
		}},
	} {
		var doc arm.Document
		if err := json.Unmarshal([]byte(tt.body), &doc); err != nil {
			t.Fatal(err)
		}
		delete(doc, "location")
		// What happens does so through the server's own API, which has no hook.
		api := *w.srv.ARM
		api.Store = between{w.srv.DB, tt.happens}
		c := access.Caller{Tenant: tenantA, Principal: mallory.oid, Client: mallory.client}
		if tt.id != vm { // vm1 is not hers
			w.owner.must(200, "DELETE", assignmentOf(w, mallory.oid, vm), "")
		}
		before := w.owner.must(200, "GET", tt.id, "").text
		_, _, err := api.Put(t.Context(), c, resource.MustParse(tt.id), doc, true, arm.Condition{})
		if !problem.Is(err, problem.Conflict) {
			t.Errorf("%s: %v, want a conflict; it was %s and is %s", tt.what, err, before, w.owner.must(200, "GET", tt.id, "").text)
		}
	}
}

// assignmentOf finds the principal's assignment at exactly the scope.
func assignmentOf(w *world, oid, scope string) string {
	for _, ra := range w.rights(tenantA).assignments {
		if ra.Principal == oid && ra.Scope.String() == scope {
			return ra.ID.String()
		}
	}
	w.t.Fatalf("%s has no role at %s", oid, scope)
	return ""
}
