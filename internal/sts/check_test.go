package sts_test

import (
	"net/http"
	"net/http/httptest"
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
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/token"
)

// request carries a bearer token.
func request(t testing.TB, authorization ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	return r
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	raw := w.issue(t, "https://vault.azure.net").Token
	auth := func(family sts.Family, tenant string, headers ...string) (access.Caller, error) {
		return w.sts.Authenticate(t.Context(), request(t, headers...), family, tenant)
	}
	for _, tenant := range []string{"", tenantA} {
		got, err := auth(sts.KeyVault, tenant, "bearer "+raw)
		want := access.Caller{Tenant: tenantA, Principal: w.system.ID, Client: w.system.Client, Issuer: w.sts.IssuerV1(tenantA), Name: "vm1", Via: "unix:uid:0"}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("Authenticate for tenant %q (-want +got), %v:\n%s", tenant, err, diff)
		}
	}
	for _, tt := range []struct {
		name    string
		family  sts.Family
		tenant  string
		headers []string
		want    problem.Kind
	}{
		{"another family", sts.ARM, "", []string{"Bearer " + raw}, problem.WrongAudience},
		{"another tenant", sts.KeyVault, tenantB, []string{"Bearer " + raw}, problem.Unauthenticated},
		{"no header", sts.KeyVault, "", nil, problem.Unauthenticated},
		{"two headers", sts.KeyVault, "", []string{"Bearer " + raw, "Bearer " + raw}, problem.Unauthenticated},
		{"Basic", sts.KeyVault, "", []string{"Basic " + raw}, problem.Unauthenticated},
		{"no token", sts.KeyVault, "", []string{"Bearer "}, problem.Unauthenticated},
		{"no scheme", sts.KeyVault, "", []string{raw}, problem.Unauthenticated},
		{"two spaces", sts.KeyVault, "", []string{"Bearer  " + raw}, problem.Unauthenticated},
		{"two tokens", sts.KeyVault, "", []string{"Bearer " + raw + ", Bearer " + raw}, problem.Unauthenticated},
		{"a registered API's", sts.Registered, "", []string{"Bearer " + w.issue(t, "api://orders").Token}, problem.WrongAudience},
		{"an invented tenant", sts.KeyVault, "", []string{"Bearer " + w.forged(t, nowhere)}, problem.Unauthenticated},
		{"a tenant that no database takes", sts.KeyVault, "", []string{"Bearer " + w.forged(t, "a\x00b")}, problem.Unauthenticated},
		{"an endless tenant", sts.KeyVault, "", []string{"Bearer " + w.forged(t, strings.Repeat("a", 5000))}, problem.Unauthenticated},
	} {
		c, err := auth(tt.family, tt.tenant, tt.headers...)
		if !problem.Is(err, tt.want) || c.Principal != "" {
			t.Errorf("%s: %+v, %v; want %s", tt.name, c, err, tt.want)
		}
	}
}

// forged is a token that says it is of a tenant, signed by the key of another.
func (w *world) forged(t testing.TB, tenant string) string {
	t.Helper()
	s, err := w.sts.Ring.Signer(t.Context(), tenantB)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := token.Mint(token.Claims{
		Audience: "https://vault.azure.net", Issuer: w.sts.IssuerV1(tenant), IssuedAt: start.Unix(), Expires: start.Unix() + 60,
		ObjectID: w.system.ID, TenantID: tenant, Version: "1.0",
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestTokenCountsWhileItsPrincipalDoes: whatever its expiry says.
func TestTokenCountsWhileItsPrincipalDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issued := w.issue(t, "https://vault.azure.net")
	check := func(when string, want problem.Kind) {
		t.Helper()
		_, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+issued.Token), sts.KeyVault, tenantA)
		if want == "" && err != nil || want != "" && (err == nil || problem.Of(err).Kind != want) {
			t.Errorf("%s: %v, want kind %q", when, err, want)
		}
		if err != nil && strings.Contains(err.Error(), strings.Split(issued.Token, ".")[2]) {
			t.Errorf("%s: the error holds the token", when)
		}
	}
	check("fresh", "")
	p := w.system
	p.Enabled = false
	w.put(t, p)
	check("its principal is disabled", problem.Revoked)
	p.Enabled, p.ValidFrom = true, start.Add(time.Second)
	w.put(t, p)
	check("revoked", problem.Revoked)
	p.ValidFrom = time.Time{}
	w.put(t, p)
	check("as before", "")
	w.set(start.Add(time.Hour - time.Second))
	check("in its last second", "")
	w.set(start.Add(time.Hour))
	check("expired", problem.TokenExpired)
	w.set(start)
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(p.ID) })
	check("its principal is deleted", problem.Revoked)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	check("without a database", problem.Internal)
}

// TestRefusedTokenIsOnRecord: who goes on using a token of ours that counts no
// more is on record; what anybody can make up is not.
func TestRefusedTokenIsOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	issued := w.issue(t, "https://vault.azure.net")
	before := len(w.events(t, tenantA))
	present := func(family sts.Family, raw string) []audit.Event {
		t.Helper()
		if _, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+raw), family, ""); err == nil {
			t.Fatal("the token was accepted")
		}
		all := w.events(t, tenantA)
		fresh := all[before:]
		before = len(all)
		return fresh
	}
	check := func(name string, got []audit.Event) {
		t.Helper()
		if len(got) != 1 || got[0].Outcome != audit.Refused || got[0].Principal != w.system.ID || got[0].Token != issued.ID ||
			!strings.Contains(got[0].Target, "/virtualMachines/vm1") || got[0].Reason == "" {
			t.Errorf("%s: events %+v, want one refusal of vm1's token", name, got)
		}
	}
	check("another API", present(sts.ARM, issued.Token))
	if got := present(sts.KeyVault, w.forged(t, tenantA)); len(got) != 0 {
		t.Errorf("a forged token left %+v, want nothing", got)
	}
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeletePrincipal(w.system.ID) })
	before = len(w.events(t, tenantA))
	check("deleted", present(sts.KeyVault, issued.Token))
	w.set(issued.Expires.Add(time.Minute))
	check("expired", present(sts.KeyVault, issued.Token))
}

// TestDetachingTakesTheTokensThatAreOut: a machine that lost a user-assigned
// identity cannot go on with a token of it; another that has it can.
func TestDetachingTakesTheTokensThatAreOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{
		Audience: "https://vault.azure.net", Workload: vm, Identity: directory.Selector{Client: w.user.Client},
	})
	if err != nil {
		t.Fatal(err)
	}
	use := func() error {
		_, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+out.Token), sts.KeyVault, tenantA)
		return err
	}
	if err := use(); err != nil {
		t.Fatalf("while it is attached: %v", err)
	}
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.Detach(vm.Key(), ident.Key()) })
	if err := use(); !problem.Is(err, problem.Revoked) {
		t.Errorf("after it was detached: %v, want a revoked token", err)
	}
	w.write(t, tenantA, func(tx arm.Tx) error { return tx.Attach(vm.Key(), ident.Key()) })
	if err := use(); err != nil {
		t.Errorf("attached again: %v", err)
	}
}

// A token was asked for by a machine: with its placement there, or the machine
// evicted, it counts no more.
func TestTakingAPlacementAwayTakesTheTokensThatAreOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	placement := resource.MustParse("/subscriptions/s/resourceGroups/g/providers/Innate.Fleet/hosts/h1/placements/p1")
	ask := func(sel directory.Selector) func() error {
		out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{Audience: "https://vault.azure.net", Workload: vm, Identity: sel, Host: "h1", Placement: placement})
		if err != nil {
			t.Fatal(err)
		}
		return func() error {
			_, err := w.sts.Authenticate(t.Context(), request(t, "Bearer "+out.Token), sts.KeyVault, tenantA)
			return err
		}
	}
	place := func(what resource.ID) {
		w.write(t, tenantA, func(tx arm.Tx) error {
			return tx.PutResource(arm.Resource{Tenant: tenantA, ID: placement, Type: "Innate.Fleet/hosts/placements", UID: "p1", BoundTo: what})
		})
	}
	place(vm)
	for name, use := range map[string]func() error{"system-assigned": ask(directory.Selector{}), "user-assigned": ask(directory.Selector{Client: w.user.Client})} {
		if err := use(); err != nil {
			t.Fatalf("%s, while it is placed: %v", name, err)
		}
		place(ident) // another resource's now
		if err := use(); !problem.Is(err, problem.Revoked) {
			t.Errorf("%s, when the placement is another's: %v, want a revoked token", name, err)
		}
		w.write(t, tenantA, func(tx arm.Tx) error { return tx.DeleteTree(placement.Key()) })
		if err := use(); !problem.Is(err, problem.Revoked) {
			t.Errorf("%s, when the placement is gone: %v, want a revoked token", name, err)
		}
		place(vm)
	}
}
