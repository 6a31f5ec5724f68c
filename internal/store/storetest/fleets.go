package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/problem"
)

func fleets() []test {
	return []test{
		{"EnrolmentTokenIsSpentOnce", enrolOnce},
		{"EnrolmentThatFailsSpendsNothing", enrolFails},
		{"EnrolmentMayMakeTheCA", enrolWrites},
		{"EnrolmentTokenExpires", enrolExpires},
		{"EnrolmentTokenOneWinnerOfMany", enrolRace},
		{"CertificateRenewedUntilEvicted", certificates},
		{"RenewalsAreBounded", renewals},
		{"KnownHostEnrolsUntilEvicted", knownHost},
		{"PlacedIsOfOneHost", placed},
		{"PlacedShowsOneMoment", placedAtOnce},
		{"PlacementStandsWhileItsHostDoes", standing},
		{"DeletedHostIsForgotten", deleteHost},
		{"ShippedBatchIsRecordedOnce", shippedOnce},
		{"SweepForgetsWhatExpired", sweepFleet},
	}
}

func standing(t *testing.T, f *fixture) {
	h := f.host()
	work, other := node("/subscriptions/S/resourceGroups/G/providers/a.b/c/W"), node("/subscriptions/S/resourceGroups/G/providers/a.b/c/O")
	p := node(hostID + "/placements/P")
	p.BoundTo = work.ID
	f.put(work, other, p)
	stands := func(placement, workload arm.Resource, since time.Time, want bool) {
		t.Helper()
		got, err := f.db.Stands(t.Context(), tenant, placement.ID, workload.ID, since)
		if err != nil || got != want {
			t.Errorf("%s places %s, for a token of %v: %v, %v, want %v", placement.ID, workload.ID, since, got, err, want)
		}
	}
	stands(p, work, noon, true)
	stands(p, other, noon, false)
	stands(node(hostID+"/placements/none"), work, noon, false)
	ev := event("", "evict")
	ev.At = noon.Add(time.Minute)
	must(t, f.db.Evict(t.Context(), h, ev))
	stands(p, work, noon, false)                   // made before the eviction
	stands(p, work, noon.Add(time.Minute), false)  // in the same moment
	stands(p, work, noon.Add(2*time.Minute), true) // enrolled anew since
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(p.ID.Key()) })
	stands(p, work, noon.Add(2*time.Minute), false)
}

const hostID = "/subscriptions/S/resourceGroups/Hosts/providers/Innate.Fleet/hosts/H1"

// host creates the host and returns it.
func (f *fixture) host() fleet.Host {
	f.t.Helper()
	f.put(node(hostID))
	return fleet.Host{Tenant: tenant, ID: id(hostID), UID: node(hostID).UID}
}

// token adds an enrolment token that expires in an hour.
func (f *fixture) token(hash string, h fleet.Host) {
	f.t.Helper()
	must(f.t, f.db.AddEnrolment(f.t.Context(), tenant, hash, h.UID, noon.Add(time.Hour), event("", "token")))
}

// enrol spends a token for a certificate.
func (f *fixture) enrol(hash, serial string) error {
	return f.db.Enrol(f.t.Context(), hash, noon, event("", "enrol"), func(h fleet.Host) (fleet.Certificate, error) {
		return fleet.Certificate{Serial: serial, HostUID: h.UID, Expires: noon.Add(24 * time.Hour)}, nil
	})
}

func enrolOnce(t *testing.T, f *fixture) {
	h := f.host()
	f.token("AB12", h)
	ev := &audit.Event{At: noon, Action: "enrol"}
	err := f.db.Enrol(t.Context(), "ab12", noon, ev, func(got fleet.Host) (fleet.Certificate, error) {
		same(t, "the host to issue for", got, h)
		return fleet.Certificate{Serial: "0A", HostUID: got.UID, Expires: noon.Add(time.Hour)}, nil
	})
	must(t, err)
	same(t, "the event's tenant", ev.Tenant, tenant)
	same(t, "the event's target", ev.Target, hostID)
	got, err := f.db.HostOf(t.Context(), "0a")
	must(t, err)
	same(t, "HostOf", got, h)
	_, err = f.db.HostOf(t.Context(), "0b")
	refused(t, "HostOf(none)", err, problem.Unauthenticated)
	refused(t, "the token again", f.enrol("ab12", "0c"), problem.BadCredential)
	refused(t, "no token", f.enrol("none", "0c"), problem.BadCredential)
	same(t, "on record", f.actions(tenant), []string{"enrol", "token"})
}

func enrolFails(t *testing.T, f *fixture) {
	f.token("aa", f.host())
	before, mine := f.revision(), errors.New("mine")
	err := f.db.Enrol(t.Context(), "aa", noon, event("", "enrol"), func(fleet.Host) (fleet.Certificate, error) {
		return fleet.Certificate{}, mine
	})
	same(t, "the error as it is", err == mine, true)
	same(t, "revision", f.revision(), before)
	must(t, f.enrol("aa", "01"))
}

// enrolWrites has issue make the key that it signs with, in the host's tenant.
func enrolWrites(t *testing.T, f *fixture) {
	f.token("aa", f.host())
	ev := event("", "enrol")
	err := f.db.Enrol(t.Context(), "aa", noon, ev, func(h fleet.Host) (fleet.Certificate, error) {
		ev.Principal = "host:" + h.UID
		ca := key(h.Tenant, "ca")
		return fleet.Certificate{Serial: "01", HostUID: h.UID, Expires: noon}, f.db.AddKey(t.Context(), ca, 0, noon, *event(tenant, "ca"))
	})
	must(t, err)
	same(t, "what issue wrote in the event", ev.Principal, "host:"+node(hostID).UID)
	same(t, "on record", f.actions(tenant), []string{"ca", "enrol", "token"})
}

func enrolExpires(t *testing.T, f *fixture) {
	f.token("aa", f.host())
	issue := func(fleet.Host) (fleet.Certificate, error) { return fleet.Certificate{Serial: "01"}, nil }
	err := f.db.Enrol(t.Context(), "aa", noon.Add(time.Hour), event("", "enrol"), issue)
	refused(t, "an expired token", err, problem.BadCredential)
}

func enrolRace(t *testing.T, f *fixture) {
	f.token("aa", f.host())
	won, err := race(16, func(n int) error { return f.enrol("aa", fmt.Sprintf("%02x", n)) })
	must(t, err)
	same(t, "how many won", won, 1)
	same(t, "on record", f.actions(tenant), []string{"enrol", "token"})
}

func certificates(t *testing.T, f *fixture) {
	h := f.host()
	renew := func(old, serial string) error { return f.renew(h, old, serial, 48*time.Hour) }
	refused(t, "renewing nothing", renew("00", "01"), problem.Unauthenticated)
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	must(t, renew("01", "02"))
	f.token("bb", h)
	before := f.revision()
	must(t, f.db.Evict(t.Context(), h, event("", "evict")))
	same(t, "changes", f.changes(before), []string{"resource " + h.ID.Key()})
	for _, serial := range []string{"01", "02"} {
		_, err := f.db.HostOf(t.Context(), serial)
		refused(t, "HostOf(evicted)", err, problem.Unauthenticated)
	}
	refused(t, "an evicted host's token", f.enrol("bb", "03"), problem.BadCredential)
	// A renewal that was under way must not bring the host back.
	refused(t, "an evicted host's renewal", renew("02", "04"), problem.Unauthenticated)
	same(t, "on record", f.actions(tenant), []string{"enrol", "evict", "renew", "token", "token"})
}

func deleteHost(t *testing.T, f *fixture) {
	h := f.host()
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	f.token("bb", h)
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(h.ID.Key()) })
	_, err := f.db.HostOf(t.Context(), "01")
	refused(t, "HostOf without its resource", err, problem.Unauthenticated)
	refused(t, "a token without its resource", f.enrol("bb", "02"), problem.BadCredential)
	f.write(func(tx arm.Tx) error { return tx.DeleteHost(h.UID) })
	f.host() // the same UID, so that only what was kept could be found
	_, err = f.db.HostOf(t.Context(), "01")
	refused(t, "HostOf(forgotten)", err, problem.Unauthenticated)
	refused(t, "a forgotten token", f.enrol("bb", "02"), problem.BadCredential)
}

func shippedOnce(t *testing.T, f *fixture) {
	h := f.host()
	ship := func(batch int64, action string) {
		evs := []audit.Event{*event("of another tenant", action)}
		must(t, f.db.RecordShipped(t.Context(), h, batch, evs))
	}
	ship(1, "one")
	ship(1, "one again")
	ship(3, "three")
	ship(2, "two, too late")
	var g errgroup.Group
	for range 8 {
		g.Go(func() error { return f.db.RecordShipped(t.Context(), h, 4, []audit.Event{*event(tenant, "four")}) })
	}
	must(t, g.Wait())
	ship(0, "zero")
	h2 := h
	h2.UID = "another"
	must(t, f.db.RecordShipped(t.Context(), h2, 1, []audit.Event{*event(tenant, "other host")}))
	must(t, f.db.RecordShipped(t.Context(), h2, 2, nil))
	same(t, "on record", f.actions(tenant), []string{"four", "one", "other host", "three"})

	// A machine that was installed anew counts from the beginning.
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	ship(1, "one anew")
	same(t, "on record", f.actions(tenant), []string{"enrol", "four", "one", "one anew", "other host", "three", "token"})
}

func sweepFleet(t *testing.T, f *fixture) {
	h := f.host()
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	f.token("bb", h)
	must(t, f.db.Sweep(t.Context(), noon))
	_, err := f.db.HostOf(t.Context(), "01")
	must(t, err)
	must(t, f.db.Sweep(t.Context(), noon.Add(2*time.Hour)))
	refused(t, "an expired token", f.enrol("bb", "02"), problem.BadCredential)
	must(t, f.db.Sweep(t.Context(), noon.Add(24*time.Hour)))
	_, err = f.db.HostOf(t.Context(), "01")
	refused(t, "HostOf(expired)", err, problem.Unauthenticated)
}

// renew renews the certificate old by one that ends after life.
func (f *fixture) renew(h fleet.Host, old, serial string, life time.Duration) error {
	c := fleet.Certificate{Serial: serial, HostUID: h.UID, Expires: noon.Add(life)}
	return f.db.AddCertificate(f.t.Context(), tenant, old, c, event("", "renew"))
}

// renewals: a host has two certificates at most, and gets them not too often.
func renewals(t *testing.T, f *fixture) {
	h := f.host()
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	refused(t, "a renewal at once", f.renew(h, "01", "02", 24*time.Hour+fleet.MinRenewal-time.Second), problem.Throttled)
	must(t, f.renew(h, "01", "02", 25*time.Hour))
	must(t, f.renew(h, "01", "03", 26*time.Hour)) // the answer with 02 was lost
	_, err := f.db.HostOf(t.Context(), "02")
	refused(t, "HostOf(the lost one)", err, problem.Unauthenticated)
	must(t, f.renew(h, "03", "04", 27*time.Hour))
	_, err = f.db.HostOf(t.Context(), "01")
	refused(t, "HostOf(the first one, with two after it)", err, problem.Unauthenticated)
	refused(t, "renewing the first one", f.renew(h, "01", "05", 28*time.Hour), problem.Unauthenticated)
	for _, serial := range []string{"03", "04"} {
		_, err := f.db.HostOf(t.Context(), serial)
		must(t, err)
	}
}

func knownHost(t *testing.T, f *fixture) {
	h := f.host()
	claim := func(name string) {
		f.write(func(tx arm.Tx) error { return tx.ClaimName(fleet.ClaimCertificate, name, h.ID.Key()) })
	}
	enrol := func(name, serial string) error {
		c := fleet.Certificate{Serial: serial, HostUID: h.UID, Expires: noon.Add(time.Hour)}
		return f.db.EnrolKnown(t.Context(), h, name, c, event(tenant, "known"))
	}
	_, err := f.db.KnownHost(t.Context(), "sha256:aa")
	refused(t, "KnownHost(none)", err, problem.NotFound)
	refused(t, "a certificate that nobody has", enrol("sha256:aa", "01"), problem.BadCredential)
	claim("sha256:AA")
	got, err := f.db.KnownHost(t.Context(), "sha256:Aa")
	must(t, err)
	same(t, "KnownHost", got.ID.Key(), h.ID.Key())
	must(t, enrol("sha256:aa", "01"))
	must(t, enrol("sha256:aa", "02"))
	_, err = f.db.HostOf(t.Context(), "01")
	refused(t, "HostOf(before the second enrolment)", err, problem.Unauthenticated)

	must(t, f.db.Evict(t.Context(), h, event("", "evict")))
	must(t, f.db.Evict(t.Context(), h, event("", "evict")))
	refused(t, "an evicted host", enrol("sha256:aa", "03"), problem.Denied)
	f.token("bb", h)
	must(t, f.enrol("bb", "04"))
	refused(t, "an evicted host that has a token's certificate", enrol("sha256:aa", "05"), problem.Denied)
	must(t, f.db.Readmit(t.Context(), h, event("", "readmit")))
	must(t, enrol("sha256:aa", "06"))

	f.write(func(tx arm.Tx) error { return tx.ReleaseNames(h.ID.Key()) })
	refused(t, "a certificate that was taken off", enrol("sha256:aa", "07"), problem.BadCredential)
	claim("sha256:aa")
	h.UID = "99999999-9999-4999-8999-999999999999"
	refused(t, "a host that was made again since", enrol("sha256:aa", "08"), problem.BadCredential)
}

// rule is a caller rule on a resource, placement a placement of it on a host.
func rule(on, name string) arm.Resource {
	r := node(on + "/providers/Innate.Fleet/callerRules/" + name)
	r.Type, r.BoundTo = fleet.TypeCallerRule, id(on)
	return r
}

func placement(host, name, of string) arm.Resource {
	r := node(host + "/placements/" + name)
	r.Type, r.BoundTo = fleet.TypePlacement, id(of)
	return r
}

func placed(t *testing.T, f *fixture) {
	h, other := f.host(), hostID+"2"
	vm := func(n string) string {
		return "/subscriptions/S/resourceGroups/Hosts/providers/Microsoft.Compute/virtualMachines/" + n
	}
	f.put(node(other), node(vm("a")), node(vm("b")), node(vm("c")),
		placement(hostID, "P1", vm("A")), placement(hostID, "p2", vm("a")), placement(hostID, "p3", vm("b")), placement(other, "p4", vm("c")),
		rule(vm("a"), "r1"), rule(vm("a"), "R2"), rule(vm("b"), "r3"), rule(vm("c"), "r4"), rule(vm("ab"), "r5"))
	names := func(rs []arm.Resource, err error) []string {
		t.Helper()
		must(t, err)
		var out []string
		for _, r := range rs {
			out = append(out, r.ID.Name())
		}
		return out
	}
	same(t, "Placed", names(f.db.Placed(t.Context(), tenant, hostID)), []string{"P1", "p2", "p3", "r1", "R2", "r3"})
	same(t, "Placed in another tenant", names(f.db.Placed(t.Context(), other, h.ID.Key())), []string(nil))
	same(t, "the rules of a", names(f.db.BoundTo(t.Context(), tenant, vm("A"), fleet.TypeCallerRule)), []string{"r1", "R2"})
	same(t, "where a is placed", names(f.db.BoundTo(t.Context(), tenant, vm("a"), fleet.TypePlacement)), []string{"P1", "p2"})
	same(t, "the rules of nothing", names(f.db.BoundTo(t.Context(), tenant, "", fleet.TypeCallerRule)), []string(nil))
	f.write(func(tx arm.Tx) error { return tx.DeleteTree(id(hostID + "/placements/p3").Key()) })
	same(t, "Placed", names(f.db.Placed(t.Context(), tenant, hostID)), []string{"P1", "p2", "r1", "R2"})
}

// placedAtOnce: a reader never sees a resource between two rules of which one
// takes the other's place, when it has none.
func placedAtOnce(t *testing.T, f *fixture) {
	f.host()
	const vm = "/subscriptions/S/resourceGroups/Hosts/providers/Microsoft.Compute/virtualMachines/a"
	f.put(node(vm), placement(hostID, "p", vm), rule(vm, "a"))
	var g errgroup.Group
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		is, next := "a", "b"
		for range 30 {
			for _, fn := range []func(arm.Tx) error{
				func(tx arm.Tx) error { return tx.PutResource(rule(vm, next)) },
				func(tx arm.Tx) error { return tx.DeleteTree(rule(vm, is).ID.Key()) },
			} {
				if err := f.db.Write(t.Context(), event(tenant, "write"), fn); err != nil {
					return err
				}
			}
			is, next = next, is
		}
		return nil
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		rs, err := f.db.Placed(t.Context(), tenant, hostID)
		must(t, err)
		if len(rs) < 2 {
			t.Errorf("Placed = %d rows: the resource seems to have no rule", len(rs))
		}
	}
	must(t, g.Wait())
}
