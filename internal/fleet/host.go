package fleet

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// Host is a machine that runs an agent: a resource of type Innate.Fleet/hosts.
type Host struct {
	Tenant string
	ID     resource.ID
	// UID is the resource's UID: a host deleted and made again is another host.
	UID string
}

// Certificate is a client certificate that a host holds.
type Certificate struct {
	// Serial is the certificate's serial number in hex.
	Serial  string
	HostUID string
	Expires time.Time
}

// Store is what the fleet needs of the database. *store.DB implements it.
type Store interface {
	// HostOf finds the host that the certificate with this serial was issued
	// to; [problem.Unauthenticated] if there is none or it was evicted.
	HostOf(ctx context.Context, serial string) (Host, error)
	// Resources and Resource are as in arm.Store.
	Resources(ctx context.Context, tenant, under, typ string, p arm.Page) ([]arm.Resource, error)
	Resource(ctx context.Context, tenant, key string) (arm.Resource, error)
	// Placed returns, by key, the placements of a host and the caller rules of
	// what they place, all as of one moment.
	Placed(ctx context.Context, tenant, hostKey string) ([]arm.Resource, error)
	// BoundTo lists, by key, the resources of a type that are bound to the key.
	BoundTo(ctx context.Context, tenant, key, typ string) ([]arm.Resource, error)
	// Revision returns the tenant's revision.
	Revision(ctx context.Context, tenant string) (int64, error)
	// Changes returns the feed after a revision, whole revisions only, about limit rows.
	Changes(ctx context.Context, tenant string, after int64, limit int) ([]arm.Change, error)
	// Changed returns a channel that is closed at the next change this process
	// hears of, in any tenant. Take it before reading, wait after.
	Changed() <-chan struct{}
	// AddEnrolment keeps the SHA-256 (hex) of a one-time token for a host.
	AddEnrolment(ctx context.Context, tenant, hash, hostUID string, expires time.Time, ev *audit.Event) error
	// Enrol spends the token with this hash, once, and adds a certificate for
	// its host made by issue. [problem.BadCredential] if the token is unknown, spent or expired at
	// now; then and when issue fails nothing changes. ev.Tenant and ev.Target are filled in.
	Enrol(ctx context.Context, hash string, now time.Time, ev *audit.Event, issue func(Host) (Certificate, error)) error
	// KnownHost finds the host that claims certificates by this name
	// ([ClaimCertificate]); [problem.NotFound] if none does.
	KnownHost(ctx context.Context, name string) (arm.Resource, error)
	// EnrolKnown adds a certificate for a host that showed one of its own, known
	// by the claimed name. [problem.BadCredential] if it is not known by that any
	// more; [problem.Denied] if the host was evicted and not readmitted.
	EnrolKnown(ctx context.Context, h Host, name string, c Certificate, ev *audit.Event) error
	// AddCertificate adds a certificate renewed by the one with the serial old,
	// and forgets all but these two. [problem.Unauthenticated] if old is no
	// certificate of the host any more; [problem.Throttled] if the host got one
	// less than [MinRenewal] ago.
	AddCertificate(ctx context.Context, tenant, old string, c Certificate, ev *audit.Event) error
	// Evict forgets all certificates and enrolment tokens of a host, and keeps
	// in mind that it was evicted; Readmit forgets that.
	Evict(ctx context.Context, h Host, ev *audit.Event) error
	Readmit(ctx context.Context, h Host, ev *audit.Event) error
	// RecordShipped commits events that a host recorded, once for each batch
	// number: a number not above the host's last one changes nothing.
	RecordShipped(ctx context.Context, h Host, batch int64, evs []audit.Event) error
	Record(ctx context.Context, evs ...audit.Event) error
}

// ClaimCertificate is the kind of the claims by which a host is known by
// certificates of its own.
const ClaimCertificate = "host-certificate"
