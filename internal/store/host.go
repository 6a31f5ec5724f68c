package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/problem"
)

func scanHost(r row) (fleet.Host, error) {
	var h fleet.Host
	var id string
	err := r.Scan(&h.Tenant, &id, &h.UID)
	if err != nil {
		return h, err
	}
	h.ID, err = parseID(id)
	return h, err
}

const hostOf = `
	SELECT r.tenant, r.id, r.uid
	FROM certificate c JOIN resource r ON r.tenant = c.tenant AND r.uid = c.host_uid
	WHERE c.serial = $1`

// HostOf finds the host that the certificate with this serial was issued to;
// [problem.Unauthenticated] if there is none or it was evicted.
func (db *DB) HostOf(ctx context.Context, serial string) (fleet.Host, error) {
	none := problem.Errorf(problem.Unauthenticated, "the certificate %q belongs to no host", serial)
	return one(ctx, db.read, none, scanHost, hostOf, fold(serial))
}

const addEnrolment = `INSERT INTO enrolment (tenant, hash, host_uid, expires_ms) VALUES ($1, $2, $3, $4)`

// AddEnrolment keeps the SHA-256 (hex) of a one-time token for a host.
func (db *DB) AddEnrolment(ctx context.Context, tenant, hash, hostUID string, expires time.Time, ev *audit.Event) error {
	ev.Tenant = tenant
	return db.write(ctx, ev, func(t *writeTx) error {
		if _, err := t.exec(addEnrolment, tenant, fold(hash), hostUID, ms(expires)); err != nil {
			return fmt.Errorf("adding an enrolment token: %w", err)
		}
		return nil
	})
}

// enrolmentHost looks before spending: whose token it is, if it is any good.
const enrolmentHost = `
	SELECT r.tenant, r.id, r.uid
	FROM enrolment e JOIN resource r ON r.tenant = e.tenant AND r.uid = e.host_uid
	WHERE e.hash = $1 AND e.expires_ms > $2`

// spendEnrolment returns no row to all but one of those who try.
const spendEnrolment = `DELETE FROM enrolment WHERE tenant = $1 AND hash = $2 AND host_uid = $3 AND expires_ms > $4 RETURNING host_uid`

const hostWithUID = `SELECT tenant, id, uid FROM resource WHERE tenant = $1 AND uid = $2`

const addCertificate = `INSERT INTO certificate (tenant, serial, host_uid, expires_ms) VALUES ($1, $2, $3, $4)`

// forgetShipments lets a machine that enrols anew count its batches from the
// beginning, as one that was installed anew does.
const forgetShipments = `DELETE FROM shipment WHERE tenant = $1 AND host_uid = $2`

// Enrol spends the token with this hash, once, and adds a certificate for its
// host made by issue. [problem.BadCredential] if the token is unknown, spent or
// expired at now; then and when issue fails nothing changes. ev.Tenant and
// ev.Target are filled in.
//
// issue runs before the transaction: it may write (make the CA that it signs
// with), and holds up nobody. Of several who try one token at once each may
// have a certificate made, but only the winner's is kept, and one that is not
// kept is nobody's.
func (db *DB) Enrol(ctx context.Context, hash string, now time.Time, ev *audit.Event, issue func(fleet.Host) (fleet.Certificate, error)) error {
	bad := problem.Errorf(problem.BadCredential, "the enrolment token is unknown, spent or expired")
	h, err := one(ctx, db.read, bad, scanHost, enrolmentHost, fold(hash), ms(now))
	if err != nil {
		return err
	}
	ev.Tenant, ev.Target = h.Tenant, h.ID.String()
	c, err := issue(h)
	if err != nil {
		return err
	}
	return db.write(ctx, ev, func(t *writeTx) error {
		if _, err := one(t.ctx, t.q, bad, scanned[string], spendEnrolment, h.Tenant, fold(hash), h.UID, ms(now)); err != nil {
			return err
		}
		if _, err := one(t.ctx, t.q, bad, scanHost, hostWithUID, h.Tenant, h.UID); err != nil {
			return err
		}
		return t.admit(h, c)
	})
}

const getKnownHost = `
	SELECT r.tenant, r.id, r.type, r.uid, r.body, r.bound_to, r.etag, r.created_ms, r.updated_ms, r.created_by, r.updated_by
	FROM claimed_name n JOIN resource r ON r.tenant = n.tenant AND r.key = n.resource_key
	WHERE n.kind = '` + fleet.ClaimCertificate + `' AND n.name = $1`

// KnownHost finds the host that claims certificates by this name;
// [problem.NotFound] if none does.
func (db *DB) KnownHost(ctx context.Context, name string) (arm.Resource, error) {
	none := problem.Errorf(problem.NotFound, "no host is known by the certificate %q", name)
	return one(ctx, db.read, none, scanResource, getKnownHost, fold(name))
}

const knownHostUID = `
	SELECT r.uid FROM claimed_name n JOIN resource r ON r.tenant = n.tenant AND r.key = n.resource_key
	WHERE n.kind = '` + fleet.ClaimCertificate + `' AND n.name = $1 AND n.tenant = $2`

const evicted = `SELECT COUNT(*) FROM eviction WHERE tenant = $1 AND host_uid = $2`

// EnrolKnown adds a certificate for a host that showed one of its own, known by
// the claimed name. [problem.BadCredential] if it is not known by that any
// more; [problem.Denied] if the host was evicted and not readmitted.
func (db *DB) EnrolKnown(ctx context.Context, h fleet.Host, name string, c fleet.Certificate, ev *audit.Event) error {
	return db.write(ctx, ev, func(t *writeTx) error {
		none := problem.Errorf(problem.BadCredential, "host %s is not known by that certificate", h.ID.Name())
		uid, err := one(t.ctx, t.q, none, scanned[string], knownHostUID, fold(name), h.Tenant)
		if err != nil {
			return err
		}
		if uid != h.UID {
			return none
		}
		n, err := one(t.ctx, t.q, nil, scanned[int], evicted, h.Tenant, h.UID)
		if err != nil {
			return fmt.Errorf("looking whether host %s was evicted: %w", h.ID, err)
		}
		if n > 0 {
			return problem.Errorf(problem.Denied, "host %s was evicted: it does not come back by its certificate until somebody readmits it (POST {host}/readmit at the management API) or gives it a one-time token", h.ID.Name())
		}
		return t.admit(h, c)
	})
}

// admit makes c the one certificate of the host. A host is one machine: what
// was enrolled as it before is it no more, and notices.
func (t *writeTx) admit(h fleet.Host, c fleet.Certificate) error {
	if err := t.forget(h.UID, deleteCertificatesOf, forgetShipments); err != nil {
		return err
	}
	if _, err := t.exec(addCertificate, h.Tenant, fold(c.Serial), h.UID, ms(c.Expires)); err != nil {
		return fmt.Errorf("adding a certificate of host %s: %w", h.ID, err)
	}
	return nil
}

const certificateOf = `SELECT COUNT(*) FROM certificate WHERE tenant = $1 AND host_uid = $2 AND serial = $3`

// newestCertificateOf is when the host's last certificate ends, which says when it was made.
const newestCertificateOf = `SELECT COALESCE(MAX(expires_ms), 0) FROM certificate WHERE tenant = $1 AND host_uid = $2`

const deleteOtherCertificates = `DELETE FROM certificate WHERE tenant = $1 AND host_uid = $2 AND serial <> $3`

// AddCertificate adds a certificate renewed by the one with the serial old, and
// forgets all but these two: the answer can be lost, and then the old one is
// all that the host has. [problem.Unauthenticated] if old is no certificate of
// the host, having been evicted or renewed meanwhile; [problem.Throttled] if
// the host got one less than [fleet.MinRenewal] ago.
func (db *DB) AddCertificate(ctx context.Context, tenant, old string, c fleet.Certificate, ev *audit.Event) error {
	ev.Tenant = tenant
	return db.write(ctx, ev, func(t *writeTx) error {
		n, err := one(t.ctx, t.q, nil, scanned[int], certificateOf, tenant, c.HostUID, fold(old))
		if err != nil {
			return fmt.Errorf("looking for the certificate of host %s: %w", c.HostUID, err)
		}
		if n == 0 {
			return problem.Errorf(problem.Unauthenticated, "the host has no such certificate to renew; enrol it")
		}
		last, err := one(t.ctx, t.q, nil, scanned[int64], newestCertificateOf, tenant, c.HostUID)
		if err != nil {
			return fmt.Errorf("looking for the last certificate of host %s: %w", c.HostUID, err)
		}
		if c.Expires.Sub(at(last)) < fleet.MinRenewal {
			return problem.Errorf(problem.Throttled, "the host got a certificate less than %v ago; renew at half of its life", fleet.MinRenewal)
		}
		if _, err := t.exec(deleteOtherCertificates, tenant, c.HostUID, fold(old)); err != nil {
			return fmt.Errorf("forgetting the certificates before of host %s: %w", c.HostUID, err)
		}
		if _, err := t.exec(addCertificate, tenant, fold(c.Serial), c.HostUID, ms(c.Expires)); err != nil {
			return fmt.Errorf("adding a certificate of host %s: %w", c.HostUID, err)
		}
		return nil
	})
}

const (
	deleteEnrolmentsOf   = `DELETE FROM enrolment WHERE tenant = $1 AND host_uid = $2`
	deleteCertificatesOf = `DELETE FROM certificate WHERE tenant = $1 AND host_uid = $2`
	readmit              = `DELETE FROM eviction WHERE tenant = $1 AND host_uid = $2`
)

const addEviction = `INSERT INTO eviction (tenant, host_uid, at_ms) VALUES ($1, $2, $3)
	ON CONFLICT (tenant, host_uid) DO UPDATE SET at_ms = excluded.at_ms`

// Evict forgets all certificates and enrolment tokens of a host, and keeps in
// mind that it was evicted.
func (db *DB) Evict(ctx context.Context, h fleet.Host, ev *audit.Event) error {
	ev.Tenant = h.Tenant
	return db.write(ctx, ev, func(t *writeTx) error {
		t.change(arm.ChangeResource, h.ID.Key())
		if _, err := t.exec(addEviction, h.Tenant, h.UID, ms(ev.At)); err != nil {
			return fmt.Errorf("keeping the eviction of host %s: %w", h.ID, err)
		}
		return t.forget(h.UID, deleteEnrolmentsOf, deleteCertificatesOf)
	})
}

// Readmit lets a host that was evicted enrol by its own certificate again.
func (db *DB) Readmit(ctx context.Context, h fleet.Host, ev *audit.Event) error {
	ev.Tenant = h.Tenant
	return db.write(ctx, ev, func(t *writeTx) error { return t.forget(h.UID, readmit) })
}

// DeleteHost forgets the enrolment tokens and certificates of the host with
// this UID. The feed has it as a change of the host's resource, while that is
// there.
func (t *writeTx) DeleteHost(uid string) error {
	hosts, err := many(t.ctx, t.q, scanHost, hostWithUID, t.tenant, uid)
	if err != nil {
		return fmt.Errorf("reading host %s: %w", uid, err)
	}
	for _, h := range hosts {
		t.change(arm.ChangeResource, h.ID.Key())
	}
	return t.forget(uid, deleteEnrolmentsOf, deleteCertificatesOf, forgetShipments, readmit)
}

func (t *writeTx) forget(uid string, stmts ...string) error {
	for _, stmt := range stmts {
		if _, err := t.exec(stmt, t.tenant, uid); err != nil {
			return fmt.Errorf("forgetting host %s: %w", uid, err)
		}
	}
	return nil
}

// takeShipment changes no row if the batch was shipped before.
const takeShipment = `
	INSERT INTO shipment (tenant, host_uid, batch) VALUES ($1, $2, $3)
	ON CONFLICT (tenant, host_uid) DO UPDATE SET batch = excluded.batch WHERE shipment.batch < excluded.batch`

// RecordShipped commits events that a host recorded, once for each batch
// number: a number not above the host's last one changes nothing. The events
// are the host's tenant's, whatever they say.
func (db *DB) RecordShipped(ctx context.Context, h fleet.Host, batch int64, evs []audit.Event) error {
	events, err := db.dated(evs...)
	if err != nil {
		return err
	}
	for i := range events {
		events[i].Tenant = h.Tenant
	}
	return db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) {
		n, err := exec(ctx, q, takeShipment, h.Tenant, h.UID, batch)
		if err != nil {
			return nil, fmt.Errorf("taking batch %d of host %s: %w", batch, h.ID, err)
		}
		if n == 0 {
			return nil, nil
		}
		return events, nil
	}})
}
