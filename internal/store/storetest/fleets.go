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
		{"DeletedHostIsForgotten", deleteHost},
		{"ShippedBatchIsRecordedOnce", shippedOnce},
		{"SweepForgetsWhatExpired", sweepFleet},
	}
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
	renew := func(serial string) error {
		c := fleet.Certificate{Serial: serial, HostUID: h.UID, Expires: noon.Add(time.Hour)}
		return f.db.AddCertificate(t.Context(), tenant, c, event("", "renew"))
	}
	refused(t, "renewing nothing", renew("01"), problem.Unauthenticated)
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	must(t, renew("02"))
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
	refused(t, "an evicted host's renewal", renew("04"), problem.Unauthenticated)
	same(t, "on record", f.actions(tenant), []string{"enrol", "evict", "renew", "token", "token"})
}

func deleteHost(t *testing.T, f *fixture) {
	h := f.host()
	f.token("aa", h)
	must(t, f.enrol("aa", "01"))
	f.token("bb", h)
	f.write(func(tx arm.Tx) error { return tx.DeleteResource(h.ID.Key()) })
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
