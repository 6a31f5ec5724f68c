package keyring

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/audit"
)

// Kinds of keys in the ring.
const (
	// KindSigning signs access tokens.
	KindSigning = "signing"
	// KindFleetCA signs hosts' client certificates.
	KindFleetCA = "fleet-ca"
	// KindServerCA signs server certificates where the installation has a
	// local CA (always in "innate dev"). Its tenant is "".
	KindServerCA = "server-ca"
	// KindMetadataCA certifies the keys that sign attested documents. It is not
	// the fleet's CA: that one's certificates bear names that people choose for
	// their hosts, and a host could be called as the signer is.
	KindMetadataCA = "metadata-ca"
)

// Record is a key as stored: the private part sealed.
type Record struct {
	// Tenant is "" for keys of the whole installation.
	Tenant string
	Kind   string
	// ID is the kid of a signing key, the certificate's fingerprint of a CA.
	ID string
	// Sealed is the private key in PKCS#8, sealed.
	Sealed []byte
	// Public is the certificate in DER.
	Public  []byte
	Created time.Time
	// NotBefore is when the key is first used; it is published from Created on.
	NotBefore time.Time
	// Retire is when it stops being published; zero means never.
	Retire time.Time
}

// Store is what the ring needs of the database. *store.DB implements it.
type Store interface {
	// Keys returns the keys of a kind, oldest first.
	Keys(ctx context.Context, tenant, kind string) ([]Record, error)
	// AddKey adds rec and sets the Retire of the keys before it that have
	// none to retire (zero leaves them). It returns [problem.Conflict] and
	// changes nothing unless the tenant has exactly known keys of the kind:
	// another replica was first.
	AddKey(ctx context.Context, rec Record, known int, retire time.Time, ev audit.Event) error
}
