// Package fleet is the machines that run agents: how they are enrolled, what
// is placed on them, and the API by which agents get tokens for their
// workloads.
//
// A host is believed only about itself. Whatever it asks, the control plane
// looks again: is the certificate one of a host that still exists, is that
// workload placed there, does it have that identity? So a stolen host key gives
// what is placed on that host, until it is evicted, and nothing else.
package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// Lives of what the fleet hands out.
const (
	// CertificateLife is how long a host's certificate lives; agents renew it
	// at half of that.
	CertificateLife = 7 * 24 * time.Hour
	// EnrolmentLife is how long a one-time token can be used.
	EnrolmentLife = time.Hour
	// MinRenewal is how long a host waits at least from one certificate to the
	// next: each is a write that the tenant's other writes wait for.
	MinRenewal = time.Minute
)

// Wanted is a token that a host asks for.
type Wanted struct {
	Workload resource.ID
	Identity directory.Selector
	Audience string
	Host     string
	// Placement is by which placement on the host.
	Placement resource.ID
	Evidence  string
	// Check is asked when the identity is known, before a token is made. It
	// returns what goes on record, refused or not.
	Check func(directory.Principal) (string, error)
}

// Fleet is the agents' side of the control plane.
type Fleet struct {
	Store Store
	Ring  *keyring.Ring
	Names web.Names
	// Issue mints: the token service's part, given the host as the caller.
	Issue func(ctx context.Context, c access.Caller, w Wanted) (fleetapi.TokenResponse, error)
	// Authorize answers whether the caller may do the operation.
	Authorize func(ctx context.Context, c access.Caller, op access.Operation) (access.Decision, error)
	Now       func() time.Time
	Log       *slog.Logger

	readings readings
}

// caller is the host as the caller of a domain method.
func (h Host) caller(ctx context.Context) access.Caller {
	return access.Caller{Tenant: h.Tenant, Principal: "host:" + h.UID, Name: h.ID.Name(), Request: web.RequestID(ctx)}
}

func (f *Fleet) event(c access.Caller, action string, on resource.ID) audit.Event {
	return audit.Event{
		Tenant: c.Tenant, At: f.Now(), Action: action, Target: on.String(), Outcome: audit.Allowed,
		Principal: c.Principal, Name: c.Name, Via: c.Via, Request: c.Request,
	}
}

// EnrolmentEvent is the event of an enrolment token that c makes for a host.
func (f *Fleet) EnrolmentEvent(c access.Caller, host resource.ID) audit.Event {
	return f.event(c, TypeHost+"/createEnrolmentToken/action", host)
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// NewEnrolment makes a one-time token for a host. ev is the permitted action's event.
func (f *Fleet) NewEnrolment(ctx context.Context, c access.Caller, h Host, ev *audit.Event) (token string, expires time.Time, err error) {
	// The tenant's CA is made here at the latest, not while a host waits.
	if _, err := f.Ring.Authority(ctx, h.Tenant, keyring.KindFleetCA, ""); err != nil {
		return "", time.Time{}, err
	}
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	token = base64.RawURLEncoding.EncodeToString(b)
	expires = f.Now().Add(EnrolmentLife)
	if err := f.Store.AddEnrolment(ctx, c.Tenant, hash(token), h.UID, expires, ev); err != nil {
		return "", time.Time{}, fmt.Errorf("keeping an enrolment token: %w", err)
	}
	return token, expires, nil
}

func hostURI(h Host) *url.URL {
	return &url.URL{Scheme: "innate", Host: h.Tenant, Path: "/hosts/" + h.UID}
}

// Enrol spends a one-time token and certifies the key in the request.
func (f *Fleet) Enrol(ctx context.Context, r fleetapi.EnrolRequest) (fleetapi.EnrolResponse, error) {
	var out fleetapi.EnrolResponse
	ev := audit.Event{At: f.Now(), Action: actionEnrol, Outcome: audit.Allowed, Reason: "one-time token", Request: web.RequestID(ctx)}
	err := f.Store.Enrol(ctx, hash(r.Token), f.Now(), &ev, func(h Host) (Certificate, error) {
		ev.Principal, ev.Name, ev.Host = "host:"+h.UID, h.ID.Name(), h.ID.Name()
		var cert Certificate
		var err error
		out, cert, err = f.certify(ctx, h, r.CSR)
		return cert, err
	})
	if problem.Is(err, problem.BadCredential) {
		return out, problem.Errorf(problem.BadCredential, "the enrolment token is unknown, spent or expired; ask for a new one (POST {host}/createEnrolmentToken at the management API)")
	}
	return out, err
}

// Renew certifies a host's key anew. serial is the certificate's that the host shows.
func (f *Fleet) Renew(ctx context.Context, h Host, serial string, r fleetapi.RenewRequest) (fleetapi.EnrolResponse, error) {
	out, cert, err := f.certify(ctx, h, r.CSR)
	if err != nil {
		return out, err
	}
	ev := f.event(h.caller(ctx), "Innate.Fleet/hosts/renew/action", h.ID)
	ev.Host = h.ID.Name()
	err = f.Store.AddCertificate(ctx, h.Tenant, serial, cert, &ev)
	if err != nil {
		return out, fmt.Errorf("keeping a certificate: %w", err)
	}
	return out, nil
}

// certify makes a certificate for the key in csr: the host's answer and the
// row to keep.
func (f *Fleet) certify(ctx context.Context, h Host, csr []byte) (fleetapi.EnrolResponse, Certificate, error) {
	ca, err := f.Ring.Authority(ctx, h.Tenant, keyring.KindFleetCA, "")
	if err != nil {
		return fleetapi.EnrolResponse{}, Certificate{}, err
	}
	cert, err := ca.IssueClient(csr, h.ID.Name(), hostURI(h), CertificateLife)
	if err != nil {
		return fleetapi.EnrolResponse{}, Certificate{}, err
	}
	return fleetapi.EnrolResponse{Host: h.ID.String(), Tenant: h.Tenant, Certificate: cert.Raw, Expires: cert.NotAfter},
		Certificate{Serial: cert.SerialNumber.Text(16), HostUID: h.UID, Expires: cert.NotAfter}, nil
}

// Authenticate finds the host behind a verified TLS connection's certificate
// (the handshake proved that the peer has its key).
func (f *Fleet) Authenticate(ctx context.Context, certs []*x509.Certificate) (Host, error) {
	if len(certs) == 0 {
		return Host{}, problem.Errorf(problem.Unauthenticated, "the request came without a host's certificate; enrol this host first")
	}
	leaf := certs[0]
	h, err := f.Store.HostOf(ctx, leaf.SerialNumber.Text(16))
	if err != nil {
		return Host{}, err
	}
	ca, err := f.Ring.Authority(ctx, h.Tenant, keyring.KindFleetCA, "")
	if err != nil {
		return Host{}, err
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Trusts(), CurrentTime: f.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil || !keyring.HasURI(leaf, hostURI(h).String()) {
		return Host{}, &problem.Error{Kind: problem.Unauthenticated, Detail: "the host's certificate does not verify or has expired; enrol this host again", Err: err}
	}
	return h, nil
}

// Placements lists what is placed on the host, and the caller rules of that.
func (f *Fleet) Placements(ctx context.Context, h Host) (fleetapi.Placements, error) {
	rev, err := f.Store.Revision(ctx, h.Tenant)
	if err != nil {
		return fleetapi.Placements{}, fmt.Errorf("reading the revision: %w", err)
	}
	out := fleetapi.Placements{Revision: rev, Placements: []fleetapi.Placement{}}
	rs, err := f.Store.Placed(ctx, h.Tenant, h.ID.Key())
	if err != nil {
		return out, fmt.Errorf("reading the placements of %s: %w", h.ID, err)
	}
	for _, r := range rs {
		if strings.EqualFold(r.Type, TypeCallerRule) {
			p, _, err := rule(r.Body, r.ID)
			if err != nil {
				return out, fmt.Errorf("reading caller rule %s: %w", r.ID, internal(err))
			}
			out.Rules = append(out.Rules, p.message(r.ID))
			continue
		}
		p, err := placement(r.Body)
		if err != nil {
			return out, fmt.Errorf("reading placement %s: %w", r.ID, internal(err))
		}
		out.Placements = append(out.Placements, fleetapi.Placement{Name: r.ID.Name(), UID: r.UID, Door: p.Door, Selectors: p.Selectors, Resource: p.ResourceID})
	}
	more, err := f.setRules(ctx, h.Tenant, out.Placements)
	out.Rules = append(out.Rules, more...)
	return out, err
}

// setRules are the rules of scale sets, as rules of those of their instances
// that are placed: an agent knows no sets.
func (f *Fleet) setRules(ctx context.Context, tenant string, placed []fleetapi.Placement) ([]fleetapi.CallerRule, error) {
	var out []fleetapi.CallerRule
	seen := map[string]bool{}
	for _, p := range placed {
		id, err := resource.Parse(p.Resource)
		if err != nil {
			return nil, fmt.Errorf("reading placement %s: %w", p.Name, internal(err))
		}
		set := directory.Holder(id)
		if set.Equal(id) || seen[id.Key()] {
			continue
		}
		seen[id.Key()] = true
		rs, err := f.Store.BoundTo(ctx, tenant, set.Key(), TypeCallerRule)
		if err != nil {
			return nil, fmt.Errorf("reading the caller rules of %s: %w", set, err)
		}
		for _, r := range rs {
			rp, _, err := rule(r.Body, r.ID)
			if err != nil {
				return nil, fmt.Errorf("reading caller rule %s: %w", r.ID, internal(err))
			}
			m := rp.message(r.ID)
			m.Resource = id.String()
			out = append(out, m)
		}
	}
	return out, nil
}

// Token issues a token for a workload that is placed on the host. What it
// refuses is on record, as is what the token service decides.
func (f *Fleet) Token(ctx context.Context, h Host, r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
	// Read before placement and rules: a change after it may concern the token.
	rev, err := f.Store.Revision(ctx, h.Tenant)
	if err != nil {
		return fleetapi.TokenResponse{}, fmt.Errorf("reading the revision: %w", err)
	}
	ev := f.asked(ctx, h, actionIssue)
	ev.Audience = problem.Clip(r.Audience)
	workload, c, err := f.entitled(ctx, h, &ev, r.Workload, r.Placement, r.Evidence, r.Caller)
	if err != nil {
		return fleetapi.TokenResponse{}, f.refuse(ctx, ev, err)
	}
	named := directory.Selector{Client: r.ClientID, Object: r.ObjectID, Resource: r.ResourceID}
	// Which identity a name means is not known yet; check is asked then.
	j, err := f.judge(ctx, h, workload, c, evidence.Want{Audience: r.Audience, Named: named != directory.Selector{}})
	if err != nil {
		ev.Reason = j.reason()
		return fleetapi.TokenResponse{}, f.refuse(ctx, ev, err)
	}
	placement, err := h.ID.Child("placements", r.Placement)
	if err != nil {
		return fleetapi.TokenResponse{}, err // placed has read it
	}
	out, err := f.Issue(ctx, h.caller(ctx), Wanted{
		Workload: workload, Audience: r.Audience, Host: h.ID.Name(), Placement: placement, Evidence: c.words, Identity: j.identity(named), Check: j.check,
	})
	out.Revision = min(out.Revision, rev)
	return out, err
}

// actionIssue is what the record calls a token's issue.
const actionIssue = "Innate.Token/issue/action"

// asked begins the record of what a host asks; entitled says on what, for whom.
func (f *Fleet) asked(ctx context.Context, h Host, action string) audit.Event {
	ev := f.event(h.caller(ctx), action, h.ID)
	ev.Host = h.ID.Name()
	return ev
}

// entitled checks that the workload is placed on the host, for a caller that
// the placement is about.
func (f *Fleet) entitled(ctx context.Context, h Host, ev *audit.Event, on, name string, what fleetapi.Evidence, words string) (resource.ID, caller, error) {
	workload, err := resource.Parse(on)
	if err != nil {
		return workload, caller{}, err
	}
	ev.Target = workload.String()
	c, err := callerOf(what, words)
	if err != nil {
		return workload, c, err
	}
	ev.Via = c.words
	p, err := f.placed(ctx, h, name, workload)
	if err != nil {
		return workload, c, err
	}
	return workload, c, p.admits(name, c)
}

// refuse records that what the host asked was refused, for the reason in ev if
// it has one, and returns why.
func (f *Fleet) refuse(ctx context.Context, ev audit.Event, err error) error {
	p := problem.Of(err)
	if p.Kind == problem.Internal || p.Kind == problem.Unavailable {
		return err // nothing was decided
	}
	ev.Outcome = audit.Refused
	if ev.Reason == "" {
		ev.Reason = clip(p.Detail)
	}
	if p.Kind == problem.CallerRefused {
		ev.Outcome = audit.Denied
	}
	if err := f.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a refusal: %w", err)
	}
	return err
}

// placed finds the placement of that name, which must place the workload on the host.
func (f *Fleet) placed(ctx context.Context, h Host, name string, workload resource.ID) (PlacementProperties, error) {
	id, err := h.ID.Child("placements", name)
	if err != nil {
		return PlacementProperties{}, err
	}
	r, err := f.Store.Resource(ctx, h.Tenant, id.Key())
	if err != nil && !problem.Is(err, problem.NotFound) {
		return PlacementProperties{}, fmt.Errorf("reading placement %s: %w", id, err)
	}
	if err == nil {
		p, perr := placement(r.Body)
		if perr == nil && strings.EqualFold(p.ResourceID, workload.String()) {
			return p, nil
		}
	}
	return PlacementProperties{}, problem.Errorf(problem.CallerRefused, "%s is not placed on host %s", workload, h.ID.Name())
}

// maxEvents bounds what a host ships at once.
const maxEvents = 10000

// Events records what a host reports: answers that it gave from memory, and
// refusals. It is the host's word, and the record says so.
func (f *Fleet) Events(ctx context.Context, h Host, r fleetapi.EventsRequest) error {
	if len(r.Served)+len(r.Refusals) > maxEvents {
		return problem.Errorf(problem.TooLarge, "at most %d events can be shipped at once", maxEvents)
	}
	if err := f.sane(r); err != nil {
		return err
	}
	c := h.caller(ctx)
	var evs []audit.Event
	for _, s := range r.Served {
		reason := "from the host's memory, as it reports"
		if s.Stale {
			reason += "; the control plane could not be asked first"
		}
		if s.Would != "" {
			reason += "; " + clip(would(s.Would))
		}
		evs = append(evs, audit.Event{
			Tenant: h.Tenant, At: f.past(s.At), Action: "Innate.Token/serve/action", Target: clip(s.Workload), Outcome: audit.Allowed,
			Principal: clip(s.Principal), Host: c.Name, Via: clip(s.Caller), Audience: clip(s.Audience), Token: clip(s.TokenID), Count: s.Count,
			Reason: reason, Request: c.Request,
		})
	}
	for _, s := range r.Refusals {
		evs = append(evs, audit.Event{
			Tenant: h.Tenant, At: f.past(s.At), Action: "Innate.Token/serve/action", Target: h.ID.String(), Outcome: audit.Denied,
			Principal: c.Principal, Name: c.Name, Host: c.Name, Via: clip(s.Caller), Count: s.Count, Reason: clip(s.Reason), Request: c.Request,
		})
	}
	if err := f.Store.RecordShipped(ctx, h, r.Batch, evs); err != nil {
		return fmt.Errorf("recording a host's events: %w", err)
	}
	return nil
}

// maxAhead is how far a host's clock may be ahead of ours.
const maxAhead = 24 * time.Hour

// sane refuses what no agent sends.
func (f *Fleet) sane(r fleetapi.EventsRequest) error {
	if r.Batch <= 0 {
		return problem.Errorf(problem.Invalid, "the batch number is %d; one above 0 was expected", r.Batch)
	}
	// Numbers are times. One from far ahead would silence the host until then.
	if limit := f.Now().Add(maxAhead).UnixMilli(); r.Batch > limit {
		return problem.Errorf(problem.Invalid, "the batch number is %d, and at most %d was expected: is the host's clock ahead?", r.Batch, limit)
	}
	for _, s := range r.Served {
		if _, err := uuid.Parse(s.Principal); err != nil || len(s.Principal) != 36 {
			return problem.Errorf(problem.Invalid, "the principal of an answer is not an object id")
		}
		if _, err := resource.Parse(s.Workload); err != nil {
			return problem.Errorf(problem.Invalid, "the workload of an answer is not a resource ID")
		}
		if s.Count < 0 {
			return problem.Errorf(problem.Invalid, "an answer was given %d times", s.Count)
		}
	}
	for _, s := range r.Refusals {
		if s.Count < 0 {
			return problem.Errorf(problem.Invalid, "a refusal was given %d times", s.Count)
		}
	}
	return nil
}

// past is when a host says that something happened, which was before now: a
// host whose clock is ahead must not date its events after those to come.
func (f *Fleet) past(at time.Time) time.Time {
	if now := f.Now(); at.After(now) {
		return now
	}
	return at
}

// clip bounds what is taken over from a host.
func clip(s string) string {
	if len(s) > 2048 {
		return strings.ToValidUTF8(s[:2048], "")
	}
	return s
}
