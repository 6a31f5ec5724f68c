package arm_test

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
)

// fill makes machines in a group, each with an identity of its own, a shared
// one, a tag, a role on its group and one on itself.
func (w *world) fill(group resource.ID, machines int) {
	w.t.Helper()
	shared := resource.MustParse(uais + "/shared")
	inGroup := resource.MustParse(group.String() + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/own")
	w.owner.must(201, "PUT", inGroup.String(), local)
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	for from := 0; from < machines; from += 1000 {
		err := w.srv.DB.Write(w.t.Context(), &ev, func(tx arm.Tx) error {
			for i := from; i < min(from+1000, machines); i++ {
				if err := putMachine(tx, group, i, shared, inGroup); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func putMachine(tx arm.Tx, group resource.ID, i int, identities ...resource.ID) error {
	id := resource.MustParse(fmt.Sprintf("%s/providers/Microsoft.Compute/virtualMachines/vm%05d", group, i))
	r := arm.Resource{Tenant: tenantA, ID: id, Type: id.Type(), UID: id.Name(), Created: start, Updated: start, Body: arm.Document{
		"location": []byte(`"local"`), "tags": []byte(`{"env":"prod","n":"` + strconv.Itoa(i) + `"}`), "properties": []byte(`{"hardwareProfile":{"vmSize":"Standard_D2s_v3"}}`),
	}}
	if err := tx.PutResource(r); err != nil {
		return err
	}
	p := directory.NewPrincipal(tenantA, directory.ManagedIdentity, id, true, start)
	if err := tx.PutPrincipal(p); err != nil {
		return err
	}
	for _, have := range identities {
		if err := tx.Attach(id.Key(), have.Key()); err != nil {
			return err
		}
	}
	for j, scope := range []resource.ID{group, id} {
		name, err := scope.Extension("Microsoft.Authorization/roleAssignments", fmt.Sprintf("00000000-0000-4000-8000-%011d%d", i, j))
		if err != nil {
			return err
		}
		ra := arm.RoleAssignment{Tenant: tenantA, PrincipalType: "ServicePrincipal", Created: start, Updated: start,
			Assignment: access.Assignment{ID: name, Role: roleReader, Principal: p.ID, Scope: scope}}
		if err := tx.PutRoleAssignment(ra); err != nil {
			return err
		}
	}
	return nil
}

// beside has some others do what they do, which commits each time, until the
// caller says stop; it returns how long the longest took.
func beside(t *testing.T, others int, do func() error) (stop func() time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var longest time.Duration
	var all sync.WaitGroup
	over := make(chan struct{})
	for range others {
		all.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				began := time.Now()
				err := do()
				mu.Lock()
				longest = max(longest, time.Since(began))
				mu.Unlock()
				if err != nil {
					t.Errorf("beside the delete: %v", err)
					return
				}
			}
		})
	}
	return func() time.Duration {
		close(over)
		all.Wait()
		return longest
	}
}

// TestDeletingALargeGroupLetsOthersCommit: nobody else fails meanwhile. The
// record of a read is a commit, and SQLite has one writer; for how long it is held
// up is said, and bounded by how many statements a delete takes, which store looks
// at.
func TestDeletingALargeGroupLetsOthersCommit(t *testing.T) {
	t.Parallel()
	onBoth(t, deleteLargeGroup)
}

// machinesVar is another number of machines, to see how it grows.
const machinesVar = "INNATE_TEST_MACHINES"

func deleteLargeGroup(t *testing.T, w *world) {
	machines := 500
	if n, err := strconv.Atoi(os.Getenv(machinesVar)); err == nil {
		machines = n
	}
	g2, kv := sub+"/resourceGroups/g2", g1+"/providers/Microsoft.KeyVault/vaults/kv1"
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", uais+"/shared", local)
	w.owner.must(201, "PUT", kv, local)
	w.owner.assign(roleSecrets, w.owner.oid, kv)
	data := *w.owner
	data.token = w.owner.tokenFor("https://vault.azure.net")
	secret := w.srv.Names.Vault("kv1") + "/secrets/db?api-version=7.4"
	data.must(200, "PUT", secret, `{"value":"x"}`)
	began := time.Now()
	w.fill(resource.MustParse(g2), machines)
	filled := time.Since(began)
	w.checkStore()

	stop := beside(t, 4, func() error {
		r, err := data.send("GET", secret, "")
		if err == nil && r.status != 200 {
			err = fmt.Errorf("%d %s", r.status, r.text)
		}
		return err
	})
	began = time.Now()
	result := w.owner.must(202, "DELETE", g2, "", "Prefer", async).header.Get("Location")
	r := w.owner.do("GET", result, "")
	for limit := began.Add(5 * time.Minute); r.status == 202 && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
		r = w.owner.do("GET", result, "")
	}
	took, longest := time.Since(began), stop()
	t.Logf("%d machines: made in %v, deleted in %v; the longest read meanwhile took %v", machines, filled, took, longest)
	if r.status != 204 {
		t.Errorf("result: %d %s", r.status, r.text)
	}
	w.checkStore()
	w.owner.refused(404, "ResourceGroupNotFound", "GET", g2, "")
	if rs, err := w.srv.DB.Resources(t.Context(), tenantA, g2, "", arm.Page{}); err != nil || len(rs) != 0 {
		t.Errorf("of the group are left %d resources, %v", len(rs), err)
	}
}
