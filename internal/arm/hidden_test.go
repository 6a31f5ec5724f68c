package arm_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
)

const (
	assignments = "/providers/Microsoft.Authorization/roleAssignments"
	denialsOf   = "/providers/Microsoft.Authorization/denyAssignments"
	orphansOf   = "/providers/Innate.Directory/orphans"
)

// listsOfRows are those whose rows are about resources that the rows name.
var listsOfRows = []string{locks, assignments, denialsOf, orphansOf}

// twoMachines makes vm1 and vm2, with something of each in every list, and who,
// who owns the subscription and is denied an action at vm1.
func (w *world) twoMachines(action string) (who *caller) {
	w.t.Helper()
	who = w.as(tenantA, "who", roleOwner+" "+sub)
	for _, name := range []string{"/vm1", "/vm2"} {
		w.owner.must(201, "PUT", vms+name, block("SystemAssigned"))
		w.owner.must(201, "PUT", vms+name+locks+"/l", lock("CanNotDelete"))
		w.owner.assign(roleReader, w.owner.oid, vms+name)
		w.owner.must(201, "PUT", denialPath(vms+name, name2), denialBody("Nobody", `"None.Such/*"`, who.oid))
		rule := vms + name + "/providers/Innate.Fleet/callerRules/useless"
		w.owner.must(201, "PUT", uais+name, local)
		w.owner.must(200, "PATCH", vms+name, block("SystemAssigned, UserAssigned", on(uais+name)))
		w.owner.must(201, "PUT", rule, `{"properties":{"selectors":["unix:uid:0"],"identity":"`+uais+name+`"}}`)
		w.owner.must(200, "PATCH", vms+name, block("", null(uais+name)))
		w.owner.must(200, "DELETE", uais+name, "")
	}
	w.owner.must(201, "PUT", denialPath(vms+"/vm1", name1), denialBody("Hands off", action, who.oid))
	return who
}

// all reads all pages of a list.
func (c *caller) all(path string) (rows []map[string]any, text string) {
	c.w.t.Helper()
	for next := c.w.url(path); next != ""; {
		r := c.must(200, "GET", next, "")
		rows, text, next = append(rows, r.values()...), text+r.text, r.str("nextLink")
	}
	return rows, text
}

// TestListsHideWhatADenialHides: a list of rows about resources is no window on
// a resource that one is denied to read, whoever may read the list.
func TestListsHideWhatADenialHides(t *testing.T) {
	t.Parallel()
	for _, action := range []string{`"Microsoft.Compute/*"`, `"*/read"`, `"Microsoft.Compute/virtualMachines/read"`} {
		w := newWorld(t)
		who := w.twoMachines(action)
		who.refused(403, "AuthorizationFailed", "GET", vms+"/vm1", "")
		for _, list := range listsOfRows {
			for _, scope := range []string{sub, g1} {
				_, all := w.owner.all(scope + list)
				_, seen := who.all(scope + list)
				if !strings.Contains(all, "/vm1") || !strings.Contains(all, "/vm2") {
					t.Fatalf("%s%s has not what this test is about: %s", scope, list, all)
				}
				if strings.Contains(seen, "vm1") || strings.Contains(seen, "Hands off") || !strings.Contains(seen, "/vm2") {
					t.Errorf("who is denied %s of vm1 is told by %s%s: %s", action, scope, list, seen)
				}
			}
		}
		// By a filter too.
		for _, filter := range []string{"principalId eq '" + w.owner.oid + "'", "assignedTo('" + w.owner.oid + "')"} {
			if _, seen := who.all(sub + assignments + "?api-version=2022-04-01&$filter=" + url.QueryEscape(filter)); strings.Contains(seen, "vm1") || !strings.Contains(seen, "vm2") {
				t.Errorf("with %s: %s", filter, seen)
			}
		}
		if _, seen := who.all(sub + denialsOf + "?api-version=2022-04-01&$filter=" + url.QueryEscape("principalId eq '"+who.oid+"'")); strings.Contains(seen, "vm1") || !strings.Contains(seen, "vm2") {
			t.Errorf("denials by principal: %s", seen)
		}
		if strings.Contains(action, "Compute") { // what is not denied at vm1 is there for who knows of it
			for _, list := range listsOfRows[:3] {
				if rows, _ := who.all(vms + "/vm1" + list); !slices.ContainsFunc(rows, func(r map[string]any) bool { return strings.HasPrefix(fmt.Sprint(r["id"]), vms+"/vm1/") }) {
					t.Errorf("at vm1 %s has %v", list, rows)
				}
			}
		}
	}
}

// TestListsHideRowsThatAreDenied: a row that is not read by itself is in no list
// either, though what it is about is.
func TestListsHideRowsThatAreDenied(t *testing.T) {
	t.Parallel()
	for list, action := range map[string]string{
		locks: "Microsoft.Authorization/locks/read", assignments: "Microsoft.Authorization/roleAssignments/read",
		denialsOf: "Microsoft.Authorization/denyAssignments/read", orphansOf: "Innate.Directory/orphans/read",
	} {
		w := newWorld(t)
		who := w.twoMachines(`"` + action + `"`)
		who.must(200, "GET", vms+"/vm1", "")
		who.refused(403, "AuthorizationFailed", "GET", vms+"/vm1"+list, "")
		for _, l := range listsOfRows {
			if _, seen := who.all(g1 + l); strings.Contains(seen, "/vm1") == (l == list) || !strings.Contains(seen, "/vm2") {
				t.Errorf("who is denied %s at vm1 sees by %s: %s", action, l, seen)
			}
		}
		if rows, _ := who.all(vms + "/vm2" + assignments + "?api-version=2022-04-01&$filter=atScope()"); len(rows) != 3 {
			t.Errorf("at vm2 and above there are %d role assignments, want its own and two owners of the subscription", len(rows))
		}
	}
}

// TestDenialsOfEveryKindHide: by a group, of everyone, from a management group.
func TestDenialsOfEveryKindHide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	top.must(200, "PUT", mgs+"/a", `{}`)
	top.must(200, "PUT", mgs+"/a"+sub, "")
	w.addSubscription(top)
	who := w.as(tenantA, "who", roleReader+" /")
	team := w.group("Team", who.oid)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.assign(roleReader, w.owner.oid, vms+"/vm1")
	top.assign(roleReader, w.owner.oid, sub2)
	for name, tt := range map[string]struct{ at, principal, but string }{
		"a group": {vms + "/vm1", team, ""}, "everyone": {vms + "/vm1", access.Everyone, top.oid}, "a management group": {mgs + "/a", who.oid, ""},
	} {
		principals := []string{tt.principal}
		if tt.but != "" {
			principals = append(principals, "but", tt.but, w.owner.oid)
		}
		top.must(201, "PUT", denialPath(tt.at, name1), denialBody("No", `"Microsoft.Compute/*/read"`, principals...))
		top.must(201, "PUT", vms+"/vm1"+locks+"/l", lock("CanNotDelete"))
		if _, seen := who.all(assignments); strings.Contains(seen, "vm1") || !strings.Contains(seen, sub2) {
			t.Errorf("a denial of %s: at the root there are %s", name, seen)
		}
		if _, seen := who.all(sub + locks); strings.Contains(seen, "vm1") {
			t.Errorf("a denial of %s: locks are %s", name, seen)
		}
		top.must(200, "DELETE", vms+"/vm1"+locks+"/l", "") // else it keeps the denial
		top.must(200, "DELETE", denialPath(tt.at, name1), "")
		if _, seen := who.all(assignments); !strings.Contains(seen, "vm1") {
			t.Errorf("without a denial of %s: at the root there are %s", name, seen)
		}
	}
}

// TestDeniedSubscriptionIsNotListed: though the caller has a role in it.
func TestDeniedSubscriptionIsNotListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	w.addSubscription(top)
	who := w.as(tenantA, "who", roleReader+" /")
	top.must(201, "PUT", denialPath(sub, name1), denialBody("Not this one", `"Microsoft.Resources/subscriptions/read"`, who.oid))
	who.refused(403, "AuthorizationFailed", "GET", sub, "")
	if r := who.must(200, "GET", "/subscriptions", ""); strings.Contains(r.text, sub) || !strings.Contains(r.text, sub2) {
		t.Errorf("who is denied a subscription is listed %s", r.text)
	}
	if r := top.must(200, "GET", "/subscriptions", ""); len(r.values()) != 2 {
		t.Errorf("who is not is listed %s", r.text)
	}
}

// many writes rows at once that no client writes one by one.
func (w *world) many(write func(tx arm.Tx) error) {
	w.t.Helper()
	ev := audit.Event{Tenant: tenantA, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed, Principal: "test"}
	if err := w.srv.DB.Write(w.t.Context(), &ev, write); err != nil {
		w.t.Fatal(err)
	}
}

// TestPagesWithHiddenRowsGoOn: to the last row that is shown, whatever is hidden
// before it; and a page that shows something ends at a row that it may know of.
func TestPagesWithHiddenRowsGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.as(tenantA, "who", roleReader+" "+sub)
	g := func(n int) string { return fmt.Sprintf("%s/resourceGroups/p%d", sub, n) }
	for n := range 4 {
		w.owner.must(201, "PUT", g(n), local)
	}
	// 150 shown; then hidden ones, machines more than one page looks at and of the
	// rest 620; then 150 shown and hidden in turn; then one that is shown.
	w.many(func(tx arm.Tx) error {
		deny := func(at, action, principal string) error {
			return tx.PutDenyAssignment(arm.DenyAssignment{Tenant: tenantA, Types: map[string]string{}, Created: start, Updated: start, Denial: access.Denial{
				ID: resource.MustParse(denialPath(at, uuid.NewString())), Scope: resource.MustParse(at), Principals: []string{principal}, Permissions: []access.Permission{{Actions: []string{action}}},
			}})
		}
		if err := deny(g(1), "*/read", who.oid); err != nil {
			return err
		}
		for i := range 2600 {
			group, name := 0, "vm"
			switch {
			case i >= 2450:
				if group = 2; i%2 == 1 {
					name = "vm-hidden"
				}
			case i >= 150:
				group, name = 1, "vm-hidden"
			}
			at := fmt.Sprintf("%s/providers/Microsoft.Compute/virtualMachines/%04d-%s", g(group), i, name)
			scope := resource.MustParse(at)
			vm := arm.Resource{Tenant: tenantA, ID: scope, Type: "Microsoft.Compute/virtualMachines", UID: uuid.NewString(), Body: arm.Document{}, Created: start, Updated: start}
			if err := tx.PutResource(vm); err != nil {
				return err
			}
			if group == 1 && i < 1830 {
				continue
			}
			ra := arm.RoleAssignment{Tenant: tenantA, Created: start, Updated: start, Assignment: access.Assignment{
				ID: resource.MustParse(assignmentID(at, uuid.NewString())), Role: roleReader, Principal: w.owner.oid, Scope: scope}}
			l := arm.Resource{Tenant: tenantA, ID: resource.MustParse(at + locks + "/l"), Type: "Microsoft.Authorization/locks", UID: uuid.NewString(), BoundTo: scope, Body: arm.Document{}, Created: start, Updated: start}
			p := directory.NewPrincipal(tenantA, directory.ManagedIdentity, scope, true, start)
			err := errors.Join(tx.PutRoleAssignment(ra), tx.PutResource(l), tx.PutPrincipal(p), deny(at, "None.Such/*", w.owner.oid))
			if group == 2 && strings.Contains(name, "hidden") {
				err = errors.Join(err, deny(at, "*/read", who.oid))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	w.owner.assign(roleReader, who.oid, g(3))
	w.owner.must(201, "PUT", g(3)+locks+"/last", lock("CanNotDelete"))
	w.owner.must(201, "PUT", denialPath(g(3), name1), denialBody("Last", `"None.Such/*"`, who.oid))
	w.owner.must(201, "PUT", g(3)+"/providers/Microsoft.Compute/virtualMachines/last", block("SystemAssigned"))
	for _, list := range append([]string{"/providers/Microsoft.Compute/virtualMachines"}, listsOfRows...) {
		seen, pages := map[string]bool{}, 0
		final := ""
		for next := w.url(sub + list); next != ""; pages++ {
			r := who.must(200, "GET", next, "")
			for _, v := range r.values() {
				id := fmt.Sprint(v["id"])
				if seen[id] || strings.Contains(id, "hidden") {
					t.Errorf("%s: %s is there, hidden or again", list, id)
				}
				seen[id], final = true, id
			}
			next = r.str("nextLink")
			if u, err := url.Parse(next); err == nil && next != "" {
				place, err := w.srv.ARM.Cursors.Place(t.Context(), cursor.Reader{API: "management", Tenant: tenantA, Principal: who.oid}, u.Query().Get("$skiptoken"))
				if err != nil || strings.Contains(place, "hidden") && len(r.values()) > 0 {
					t.Errorf("%s: a page with %d rows ends at a hidden one: %s, %v", list, len(r.values()), place, err)
				}
			}
			if pages > 20 {
				t.Fatalf("%s has no end", list)
			}
		}
		if !strings.HasPrefix(final, g(3)) || len(seen) < 226 || len(seen) > 230 {
			t.Errorf("%s: %d rows on %d pages, the last of them %s; want 226 and what is above", list, len(seen), pages, final)
		}
	}
}

// askingRights counts how often rights are read.
type askingRights struct {
	directory.Store
	asked *atomic.Int64
}

func (s askingRights) Facts(ctx context.Context, tenant, principal string, scope resource.ID) (access.Facts, error) {
	s.asked.Add(1)
	return s.Store.Facts(ctx, tenant, principal, scope)
}

// TestHidingAsksOnce: of a page rights are read twice, at its scope and for what
// is hidden, however many rows there are.
func TestHidingAsksOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.twoMachines(`"Microsoft.Compute/*"`)
	var asked atomic.Int64
	w.srv.Directory.Store = askingRights{w.srv.Directory.Store, &asked}
	for _, list := range listsOfRows {
		for _, c := range []*caller{who, w.owner} {
			asked.Store(0)
			c.must(200, "GET", g1+list, "")
			if asked.Load() != 2 {
				t.Errorf("%s reads rights %d times, want twice", list, asked.Load())
			}
		}
	}
	// Who is denied nothing is not asked about for one subscription after another.
	top := w.root()
	w.addSubscription(top)
	top.assign(roleReader, w.owner.oid, sub2)
	asked.Store(0)
	if rows := top.must(200, "GET", assignments, "").values(); len(rows) < 5 || asked.Load() != 2 {
		t.Errorf("%d role assignments in two subscriptions read rights %d times, want twice", len(rows), asked.Load())
	}
}
