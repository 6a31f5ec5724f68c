package directory_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/store"
)

const (
	tenantA = "aaaaaaaa-0000-0000-0000-00000000000a"
	tenantB = "bbbbbbbb-0000-0000-0000-00000000000b"
	group   = "/subscriptions/s1/resourceGroups/g1"

	secretsUser = "4633458b-17de-408a-b874-0445c86b69e6"
	getSecret   = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
)

var (
	start = time.Unix(1_790_000_000, 0).UTC()
	vault = resource.MustParse(group + "/providers/Microsoft.KeyVault/vaults/demo")
)

// world is a real store with two tenants.
type world struct {
	t   *testing.T
	db  *store.DB
	dir *directory.Directory
}

func newWorld(t *testing.T) *world {
	t.Helper()
	now := func() time.Time { return start }
	db, err := store.Open(t.Context(), store.Config{SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "test", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w := &world{t: t, db: db, dir: &directory.Directory{Store: db, Now: now}}
	for _, id := range []string{tenantA, tenantB} {
		w.write(id, func(tx arm.Tx) error {
			return tx.CreateTenant(directory.Tenant{ID: id, Name: id, Created: start})
		})
	}
	return w
}

func (w *world) write(tenant string, fn func(arm.Tx) error) {
	w.t.Helper()
	ev := audit.Event{Tenant: tenant, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	if err := w.db.Write(w.t.Context(), &ev, fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(p directory.Principal) directory.Principal {
	w.t.Helper()
	w.write(p.Tenant, func(tx arm.Tx) error { return tx.PutPrincipal(p) })
	return p
}

func vm(name string) resource.ID {
	return resource.MustParse(group + "/providers/Microsoft.Compute/virtualMachines/" + name)
}

func identity(name string) resource.ID {
	return resource.MustParse(group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name)
}

// system makes the system-assigned identity of a machine.
func (w *world) system(name string) directory.Principal {
	w.t.Helper()
	return w.put(directory.NewPrincipal(tenantA, directory.ManagedIdentity, vm(name), true, start))
}

// user makes a user-assigned identity and attaches it to machines.
func (w *world) user(name string, machines ...string) directory.Principal {
	w.t.Helper()
	p := w.put(directory.NewPrincipal(tenantA, directory.ManagedIdentity, identity(name), false, start))
	w.write(tenantA, func(tx arm.Tx) error {
		for _, m := range machines {
			if err := tx.Attach(vm(m).Key(), p.Resource.Key()); err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

func TestNewPrincipal(t *testing.T) {
	t.Parallel()
	one := directory.NewPrincipal(tenantA, directory.ManagedIdentity, vm("one"), true, start)
	two := directory.NewPrincipal(tenantA, directory.ManagedIdentity, vm("one"), true, start)
	for _, id := range []string{one.ID, one.Client} {
		if _, err := uuid.Parse(id); err != nil || id != strings.ToLower(id) {
			t.Errorf("id %q is no GUID in lower case", id)
		}
	}
	if one.ID == one.Client || one.ID == two.ID || one.Client == two.Client {
		t.Error("ids are not unique: an identity made anew must not inherit the roles of the one before")
	}
	if one.Name != "one" || !one.Enabled || !one.System || !one.Created.Equal(start) {
		t.Errorf("NewPrincipal = %+v", one)
	}
}

func TestAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.system("one")
	alive := func(tenant, id string, issued time.Time) error {
		got, err := w.dir.Alive(t.Context(), tenant, id, issued)
		if err == nil && got.ID != p.ID {
			t.Errorf("Alive(%s) = %+v", id, got)
		}
		return err
	}
	check := func(name string, err error, want problem.Kind) {
		t.Helper()
		if want == "" && err != nil || want != "" && !problem.Is(err, want) {
			t.Errorf("%s: %v, want kind %q", name, err, want)
		}
	}
	check("a living one", alive(tenantA, p.ID, start), "")
	check("its id in upper case", alive(tenantA, strings.ToUpper(p.ID), start), "")
	check("in another tenant", alive(tenantB, p.ID, start), problem.Revoked)
	check("unknown", alive(tenantA, uuid.NewString(), start), problem.Revoked)
	check("its client id", alive(tenantA, p.Client, start), problem.Revoked)
	check("nobody", alive(tenantA, "", start), problem.Revoked)

	p.ValidFrom = start.Add(time.Minute)
	w.put(p)
	check("issued before the revocation", alive(tenantA, p.ID, start.Add(time.Minute-time.Second)), problem.Revoked)
	check("issued with the revocation", alive(tenantA, p.ID, start.Add(time.Minute)), "")
	check("issued after it", alive(tenantA, p.ID, start.Add(2*time.Minute)), "")

	p.Enabled = false
	w.put(p)
	check("disabled", alive(tenantA, p.ID, start.Add(time.Hour)), problem.Revoked)
	p.Enabled = true
	w.put(p)
	check("enabled again", alive(tenantA, p.ID, start.Add(time.Hour)), "")

	w.write(tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(p.ID) })
	check("deleted", alive(tenantA, p.ID, start.Add(time.Hour)), problem.Revoked)
	w.system("one")
	check("deleted, and the resource has a new one", alive(tenantA, p.ID, start.Add(time.Hour)), problem.Revoked)

	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := alive(tenantA, p.ID, start); err == nil || problem.Is(err, problem.Revoked) {
		t.Errorf("without a database: %v; nobody was revoked by that", err)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sys := w.system("both")
	other := w.system("alone")
	a, b := w.user("aa", "both", "two", "one"), w.user("bb", "both", "two")
	loose := w.user("loose")
	id := func(p directory.Principal) string { return p.Resource.String() }
	for _, tt := range []struct {
		name    string
		machine string
		sel     directory.Selector
		want    *directory.Principal
	}{
		{"the system's, with others there", "both", directory.Selector{}, &sys},
		{"the system's alone", "alone", directory.Selector{}, &other},
		{"the only user-assigned one", "one", directory.Selector{}, &a},
		{"none of several", "two", directory.Selector{}, nil},
		{"nothing there", "bare", directory.Selector{}, nil},
		{"by client id", "both", directory.Selector{Client: b.Client}, &b},
		{"by object id", "both", directory.Selector{Object: b.ID}, &b},
		{"by resource ID", "both", directory.Selector{Resource: id(b)}, &b},
		{"by resource ID with a slash after it", "both", directory.Selector{Resource: id(b) + "/"}, &b},
		{"client id in upper case", "both", directory.Selector{Client: strings.ToUpper(b.Client)}, &b},
		{"object id in upper case", "both", directory.Selector{Object: strings.ToUpper(b.ID)}, &b},
		{"resource ID in upper case", "both", directory.Selector{Resource: strings.ToUpper(id(b))}, &b},
		{"the system's by client id", "both", directory.Selector{Client: sys.Client}, &sys},
		{"the system's by object id", "both", directory.Selector{Object: sys.ID}, &sys},
		// It has no resource ID of its own: the machine's is not one.
		{"the system's by resource ID", "both", directory.Selector{Resource: id(sys)}, nil},
		{"an id of the wrong sort", "both", directory.Selector{Client: b.ID}, nil},
		{"another machine's identity", "one", directory.Selector{Client: b.Client}, nil},
		{"another machine's, by resource ID", "one", directory.Selector{Resource: id(b)}, nil},
		{"another machine's system-assigned one", "both", directory.Selector{Client: other.Client}, nil},
		{"an identity attached to nothing", "both", directory.Selector{Resource: id(loose)}, nil},
		{"unknown", "both", directory.Selector{Client: uuid.NewString()}, nil},
		{"half a name", "both", directory.Selector{Resource: id(b)[:len(id(b))-1]}, nil},
		{"a letter that folds to one of ours", "both", directory.Selector{Resource: strings.Replace(id(b), "s", "ſ", 1)}, nil},
		{"no resource ID at all", "both", directory.Selector{Resource: "/"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := w.dir.Select(t.Context(), tenantA, vm(tt.machine), tt.sel)
			if tt.want != nil && (err != nil || got.ID != tt.want.ID) {
				t.Errorf("Select(%s, %+v) = %s, %v; want %s", tt.machine, tt.sel, got.Name, err, tt.want.Name)
			}
			if tt.want == nil {
				refused(t, err, a, b, loose, sys, other)
			}
		})
	}
	if _, err := w.dir.Select(t.Context(), tenantB, vm("both"), directory.Selector{}); !problem.Is(err, problem.IdentityNotFound) {
		t.Errorf("in another tenant: %v", err)
	}
	w.write(tenantA, func(tx arm.Tx) error { return tx.Detach(vm("one").Key(), a.Resource.Key()) })
	if _, err := w.dir.Select(t.Context(), tenantA, vm("one"), directory.Selector{}); !problem.Is(err, problem.IdentityNotFound) {
		t.Errorf("after it was detached: %v", err)
	}
}

// refused checks that the error tells nobody which identities there are.
func refused(t *testing.T, err error, ps ...directory.Principal) {
	t.Helper()
	if !problem.Is(err, problem.IdentityNotFound) {
		t.Fatalf("%v, want %s", err, problem.IdentityNotFound)
	}
	for _, p := range ps {
		for _, s := range []string{p.ID, p.Client, p.Resource.String()} {
			if strings.Contains(err.Error(), s) {
				t.Errorf("the error names an identity: %v", err)
			}
		}
	}
}

func TestAuthorizeCountsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.system("one")
	caller := access.Caller{Tenant: tenantA, Principal: p.ID}
	may := func(c access.Caller) bool {
		t.Helper()
		d, err := w.dir.Authorize(t.Context(), c, access.Operation{Action: getSecret, Data: true, Scope: vault})
		if err != nil {
			t.Fatal(err)
		}
		return d.Allowed
	}
	assign := func(to string, scope resource.ID) resource.ID {
		t.Helper()
		id, err := scope.Extension("Microsoft.Authorization/roleAssignments", uuid.NewString())
		if err != nil {
			t.Fatal(err)
		}
		a := arm.RoleAssignment{Tenant: tenantA, PrincipalType: "ServicePrincipal", Created: start, Updated: start}
		a.ID, a.Scope, a.Principal, a.Role = id, scope, to, secretsUser
		w.write(tenantA, func(tx arm.Tx) error { return tx.PutRoleAssignment(a) })
		return id
	}
	for range 3 {
		if may(caller) {
			t.Error("allowed without a role")
		}
		id := assign(p.ID, vault)
		if !may(caller) {
			t.Error("refused right after the assignment")
		}
		if may(access.Caller{Tenant: tenantB, Principal: p.ID}) {
			t.Error("the right counts in another tenant")
		}
		w.write(tenantA, func(tx arm.Tx) error { return tx.DeleteRoleAssignment(id.Key()) })
	}
	if may(caller) {
		t.Error("allowed right after the removal")
	}
	assign(p.ID, vm("one"))
	if may(caller) {
		t.Error("a role on the machine counts on the vault")
	}
	if !may(access.SystemCaller(tenantA, "test")) || may(access.Caller{Tenant: tenantA}) {
		t.Error("the system is refused, or nobody is allowed")
	}
	assign(p.ID, vault)
	w.write(tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(p.ID) })
	if may(caller) {
		t.Error("the roles of a deleted principal live on")
	}
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err := w.dir.Authorize(t.Context(), caller, access.Operation{Action: getSecret, Data: true, Scope: vault}); err == nil || d.Allowed {
		t.Errorf("without a database: %v, %v", d.Allowed, err)
	}
}
