package arm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// rights are the tables that must agree, read through the store.
type rights struct {
	resources   map[string]arm.Resource
	assignments []arm.RoleAssignment
}

func (w *world) rights(tenant string) rights {
	w.t.Helper()
	rs, err := w.srv.DB.Resources(w.t.Context(), tenant, "", "", arm.Page{})
	if err != nil {
		w.t.Fatal(err)
	}
	out := rights{resources: map[string]arm.Resource{}}
	for _, r := range rs {
		out.resources[r.ID.Key()] = r
	}
	if out.assignments, err = w.srv.DB.RoleAssignments(w.t.Context(), tenant, nil, "/", "", arm.Page{}); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// check finds what dangles: a principal without its resource, an assignment
// without its principal or scope, an attachment without both of its ends, a
// placement of nothing. keys are all resources that there ever were; oids all
// principals.
func (w *world) check(tenant string, keys, oids []string) {
	w.t.Helper()
	all := w.rights(tenant)
	for _, ra := range all.assignments {
		if _, err := w.srv.DB.Principal(w.t.Context(), tenant, ra.Principal); err != nil {
			w.t.Errorf("assignment %s is of a principal that is gone: %v", ra.ID, err)
		}
		if _, ok := all.resources[ra.Scope.Key()]; !ok && !ra.Scope.IsRoot() {
			w.t.Errorf("assignment %s is at a scope that is gone", ra.ID)
		}
	}
	for _, r := range all.resources {
		if _, ok := all.resources[r.BoundTo.Key()]; !ok && !r.BoundTo.IsZero() {
			w.t.Errorf("%s is bound to %s, which is gone", r.ID, r.BoundTo)
		}
	}
	for _, key := range keys {
		_, there := all.resources[key]
		ids, err := w.srv.DB.Identities(w.t.Context(), tenant, key)
		if err != nil {
			w.t.Fatal(err)
		}
		if !there && len(ids) > 0 {
			w.t.Errorf("%s is gone and has identities", key)
		}
		users, err := w.srv.DB.AttachedTo(w.t.Context(), tenant, key)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, u := range users {
			if _, ok := all.resources[u.Key()]; !ok || !there {
				w.t.Errorf("%s is attached to %s, of which one is gone", key, u)
			}
		}
		if p, err := w.srv.DB.PrincipalOf(w.t.Context(), tenant, key); err == nil && !there {
			w.t.Errorf("%s is gone and has the principal %s", key, p.ID)
		}
	}
	for _, oid := range oids {
		p, err := w.srv.DB.Principal(w.t.Context(), tenant, oid)
		if problem.Is(err, problem.NotFound) {
			continue
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if _, ok := all.resources[p.Resource.Key()]; !ok {
			w.t.Errorf("principal %s outlives its resource %s", oid, p.Resource)
		}
	}
}

func TestDeletingAMachineTakesAllThatLivesByIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm, uai := vms+"/vm1", uais+"/shared"
	host := sub + "/resourceGroups/ops/providers/Innate.Fleet/hosts/boot"
	shared := w.owner.must(201, "PUT", uai, local).str("properties", "principalId")
	make := func() string {
		oid := w.owner.must(201, "PUT", vm, block("SystemAssigned, UserAssigned", on(uai))).str("identity", "principalId")
		w.owner.must(201, "PUT", host+"/placements/p1", `{"properties":{"door":"run","resourceId":"`+strings.ToUpper(vm)+`"}}`)
		return oid
	}
	oid := make()
	w.owner.assign(roleReader, oid, sub)    // its own right, elsewhere
	w.owner.assign(roleReader, shared, vm)  // another's right, at it
	w.owner.assign(roleReader, shared, uai) // stays
	before := w.caller(tenantA, resource.MustParse(vm))
	w.owner.must(200, "DELETE", vm, "")
	before.refused(401, "InvalidAuthenticationToken", "GET", sub, "")
	w.owner.refused(404, "ResourceNotFound", "GET", host+"/placements/p1", "")
	w.owner.must(200, "GET", uai, "")
	keys := []string{strings.ToLower(vm), strings.ToLower(uai)}
	w.check(tenantA, keys, []string{oid, shared})

	// Under the old name there is another machine, with none of the old rights.
	again := make()
	if again == oid {
		t.Error("made again, the machine has its old principal")
	}
	before.refused(401, "InvalidAuthenticationToken", "GET", sub, "")
	w.caller(tenantA, resource.MustParse(vm)).refused(403, "AuthorizationFailed", "GET", vm, "")
	if got := w.rights(tenantA).of(again); got != nil {
		t.Errorf("the new machine has the assignments %v", got)
	}
}

func (r rights) of(oid string) (out []string) {
	for _, ra := range r.assignments {
		if ra.Principal == oid {
			out = append(out, ra.Scope.String())
		}
	}
	return out
}

func TestDeletingAnIdentityDetachesItEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	uai, keep := uais+"/a-1", uais+"/b-1"
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	oid := w.owner.must(201, "PUT", uai, local).str("properties", "principalId")
	w.owner.must(201, "PUT", keep, local)
	w.owner.assign(roleReader, oid, sub)
	far := g2 + "/providers/Microsoft.Web/sites/s1"
	tags := map[string]string{}
	for _, id := range []string{vms + "/vm1", far} {
		tags[id] = w.owner.must(madeStatus(id), "PUT", id, block("SystemAssigned, UserAssigned", on(uai), on(keep))).header.Get("ETag")
	}
	w.owner.must(200, "DELETE", uai, "")
	for id, tag := range tags {
		got := w.owner.must(200, "GET", id, "")
		if is := identities(got); is != "SystemAssigned, UserAssigned[b-1]" {
			t.Errorf("%s has %s", id, is)
		}
		// Who read it before has read something else than it is now.
		w.owner.refused(412, "PreconditionFailed", "PATCH", id, `{}`, "If-Match", tag)
	}
	w.check(tenantA, []string{strings.ToLower(uai)}, []string{oid})
	again := w.owner.must(201, "PUT", uai, local).str("properties", "principalId")
	if again == oid {
		t.Error("made again, the identity has its old principal")
	}
	if is := identities(w.owner.must(200, "GET", far, "")); is != "SystemAssigned, UserAssigned[b-1]" {
		t.Errorf("made again, the identity is attached where the old one was: %s", is)
	}
}

func TestDeletingAGroupTakesAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	in := func(typ, name string) string { return g2 + "/providers/" + typ + "/" + name }
	vm, uai, kv := in("Microsoft.Compute/virtualMachines", "vm1"), in("Microsoft.ManagedIdentity/userAssignedIdentities", "uai"), in("Microsoft.KeyVault/vaults", "kv2")
	host, api := in("Innate.Fleet/hosts", "h1"), in("Innate.Directory/applications", "api1")
	outside := vms + "/outside"
	w.owner.must(201, "PUT", uai, local)
	w.owner.must(201, "PUT", vm, block("SystemAssigned, UserAssigned", on(uai)))
	w.owner.must(201, "PUT", outside, block("SystemAssigned, UserAssigned", on(uai)))
	w.owner.must(201, "PUT", kv, local)
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", api, `{"properties":{"identifierUris":["api://one"]}}`)
	place := func(h, name, what string) string {
		id := h + "/placements/" + name
		w.owner.must(201, "PUT", id, `{"properties":{"door":"run","resourceId":"`+what+`"}}`)
		return id
	}
	boot := sub + "/resourceGroups/ops/providers/Innate.Fleet/hosts/boot"
	atBoot, atHost := place(boot, "vm1", vm), place(host, "outside", outside)
	user := w.caller(tenantA, resource.MustParse(vm))
	w.owner.assign(roleReader, user.oid, g1)
	w.owner.assign(roleSecrets, w.owner.oid, kv)
	data := *w.owner
	data.token = w.owner.tokenFor("https://vault.azure.net")
	data.must(200, "PUT", w.srv.Names.Vault("kv2")+"/secrets/db?api-version=7.4", `{"value":"x"}`)

	before := w.rights(tenantA)
	for range 2 { // with a secret, then with one that can be recovered
		w.owner.refused(409, "Conflict", "DELETE", g2, "")
		after := w.rights(tenantA)
		if diff := cmp.Diff(len(before.assignments), len(after.assignments)); diff != "" || len(before.resources) != len(after.resources) {
			t.Fatalf("a refused delete took something: %d resources of %d, %d assignments of %d", len(after.resources), len(before.resources), len(after.assignments), len(before.assignments))
		}
		user.must(200, "GET", g1, "")
		data.do("DELETE", w.srv.Names.Vault("kv2")+"/secrets/db?api-version=7.4", "")
	}
	data.must(204, "DELETE", w.srv.Names.Vault("kv2")+"/deletedsecrets/db?api-version=7.4", "")
	w.owner.must(200, "DELETE", g2, "")
	user.refused(401, "InvalidAuthenticationToken", "GET", g1, "")
	for _, id := range []string{vm, uai, kv, host, api, atBoot, atHost} {
		w.owner.refused(404, "ResourceNotFound", "GET", id, "")
	}
	if is := identities(w.owner.must(200, "GET", outside, "")); is != "SystemAssigned" {
		t.Errorf("the machine outside has %s", is)
	}
	// Names are free again: the vault's host name and the audience.
	w.owner.must(201, "PUT", g1+"/providers/Microsoft.KeyVault/vaults/KV2", local)
	w.owner.must(201, "PUT", g1+"/providers/Innate.Directory/applications/other", `{"properties":{"identifierUris":["api://One/"]}}`)
	var keys []string
	for _, id := range []string{g2, vm, uai, kv, host, api, atBoot, atHost, outside} {
		keys = append(keys, strings.ToLower(id))
	}
	w.check(tenantA, keys, []string{user.oid})
}

// TestNothingDanglesAfterAStorm: 32 clients create, attach, detach, assign and
// delete the same few things at once.
func TestNothingDanglesAfterAStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	host := g1 + "/providers/Innate.Fleet/hosts/h1"
	var machines, ids, keys []string
	for i := range 3 {
		machines = append(machines, fmt.Sprintf("%s/vm%d", vms, i))
		ids = append(ids, fmt.Sprintf("%s/uai%d", uais, i))
		keys = append(keys, strings.ToLower(machines[i]), strings.ToLower(ids[i]), fmt.Sprintf("%s/placements/vm%d", strings.ToLower(host), i))
	}
	w.owner.must(201, "PUT", host, `{}`)
	var mu sync.Mutex
	var oids []string
	act := func(rnd *rand.Rand) (reply, string, error) {
		vm, id := machines[rnd.IntN(3)], ids[rnd.IntN(3)]
		type step struct{ method, path, body string }
		steps := []step{
			{"PUT", vm, block("SystemAssigned, UserAssigned", on(id))},
			{"PUT", vm, block("SystemAssigned")},
			{"PATCH", vm, block("", on(id))},
			{"PATCH", vm, block("", null(id))},
			{"PATCH", vm, block("None")},
			{"DELETE", vm, ""},
			{"PUT", id, local},
			{"PUT", id, local},
			{"DELETE", id, ""},
			{"PUT", host + "/placements/" + vm[len(vm)-3:], `{"properties":{"door":"run","resourceId":"` + vm + `"}}`},
		}
		mu.Lock()
		if len(oids) > 0 {
			oid := oids[rnd.IntN(len(oids))]
			name := fmt.Sprintf("00000000-0000-4000-8000-%012d", rnd.IntN(50))
			for range 3 {
				steps = append(steps, step{"PUT", assignmentID([]string{vm, id, g1}[rnd.IntN(3)], name), assignmentBody(roleReader, oid)})
			}
		}
		mu.Unlock()
		s := steps[rnd.IntN(len(steps))]
		r, err := w.owner.send(s.method, s.path, s.body)
		for _, oid := range []string{r.str("identity", "principalId"), r.str("properties", "principalId")} {
			if oid != "" {
				mu.Lock()
				oids = append(oids, oid)
				mu.Unlock()
			}
		}
		return r, s.method + " " + s.path, err
	}
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			for range 8 {
				r, what, err := act(rnd)
				if err != nil || r.status >= 500 {
					t.Errorf("%s = %d %s, %v", what, r.status, r.text, err)
				}
			}
		})
	}
	all.Wait()
	slices.Sort(oids)
	oids = slices.Compact(oids)
	w.check(tenantA, keys, oids)
	if len(oids) < 10 {
		t.Errorf("the storm made only %d principals", len(oids))
	}
}

// checkStore fails if anything dangles.
func (w *world) checkStore() {
	w.t.Helper()
	faults, err := w.srv.DB.Check(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range faults {
		w.t.Error(f)
	}
}
