package arm_test

import (
	"context"
	"encoding/json"
	"strings"
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

// TestRightTakenBeforeARecovery: a right that goes while the request is on its
// way brings nothing back, whichever of those it is that a recovery needs.
func TestRightTakenBeforeARecovery(t *testing.T) {
	t.Parallel()
	onBoth(t, recoverWithoutARight)
}

func recoverWithoutARight(t *testing.T, w *world) {
	id := uais + "/app-id"
	oid := w.owner.must(201, "PUT", id, local).str("properties", "principalId")
	w.owner.must(201, "PUT", id+fics+"/first", fic("https://i.example", "s"))
	w.owner.assign(roleReader, oid, sub)
	group := w.group("Group", oid)
	w.owner.must(200, "DELETE", id, "")
	writes := w.owner.role("Writes identities", g1, "Microsoft.ManagedIdentity/userAssignedIdentities/write")
	trusts := w.owner.role("Writes credentials", g1, "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write")
	groups := w.root().role("Changes groups", "/", "Innate.Directory/groups/write")
	args := []string{strings.TrimPrefix(sub, "/subscriptions/"), "local", oid}
	all := map[string]string{writes: g1, trusts: g1, roleGiver: sub, groups: "/"}
	for _, tt := range []struct {
		takes, scope string
		kind         problem.Kind
	}{
		{writes, g1, problem.Denied},
		{trusts, g1, problem.LinkedDenied}, {roleGiver, sub, problem.LinkedDenied}, {groups, "/", problem.LinkedDenied},
		{"", "", ""},
	} {
		who := w.as(tenantA, "who"+tt.takes)
		for role, scope := range all {
			w.root().assign(role, who.oid, scope)
		}
		api := *w.srv.ARM
		api.Store = between{w.srv.DB, func() {
			if tt.takes != "" {
				w.root().must(200, "DELETE", assignmentOf(w, who.oid, tt.scope, tt.takes), "")
			}
		}}
		_, err := api.RecoverIdentity(t.Context(), access.Caller{Tenant: tenantA, Principal: who.oid, Client: who.client}, args, arm.RecoverRequest{})
		if tt.kind == "" && err != nil || tt.kind != "" && !problem.Is(err, tt.kind) {
			t.Errorf("with %s taken at %s: %v, want %q", tt.takes, tt.scope, err, tt.kind)
		}
		if _, err := w.srv.DB.DeletedIdentity(t.Context(), tenantA, oid); (err == nil) != (tt.kind != "") {
			t.Errorf("with %s taken at %s the deleted identity is %v", tt.takes, tt.scope, err)
		}
	}
	if got := w.root().must(200, "GET", groupsPath+"/"+group+"/members", "").values(); len(got) != 1 {
		t.Errorf("the group has %v", got)
	}
}

// assignmentOf finds the principal's assignment at exactly the scope, of the role
// if one is given.
func assignmentOf(w *world, oid, scope string, role ...string) string {
	for _, ra := range w.rights(tenantA).assignments {
		if ra.Principal == oid && ra.Scope.String() == scope && (len(role) == 0 || ra.Role == role[0]) {
			return ra.ID.String()
		}
	}
	w.t.Fatalf("%s has no role at %s", oid, scope)
	return ""
}
