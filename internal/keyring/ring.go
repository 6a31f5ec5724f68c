// Package keyring holds the keys that sign: those of access tokens, which it
// creates, publishes, activates and retires, and the certificate authorities
// (hosts' client certificates, the local CA's server certificates, the
// signers of attested documents).
//
// A signing key's life is written in its record, so that replicas agree
// without talking: published from Created on, used from NotBefore, gone at
// Retire. The next key is published [Config.Publish] before it is used, and
// the old one stays for as long as tokens that it signed can live.
package keyring

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/token"
)

// Config is the lives of signing keys.
type Config struct {
	// Rotate is how long a key signs before the next one does.
	Rotate time.Duration
	// Publish is how long a key is published before it signs: longer than
	// any reader keeps the key set without asking.
	Publish time.Duration
	// Keep is how long a key stays published after it signed last: the longest
	// life of a token.
	Keep time.Duration
}

// DefaultConfig is 90 days, published a day ahead, kept for 25 hours.
var DefaultConfig = Config{Rotate: 90 * 24 * time.Hour, Publish: 24 * time.Hour, Keep: 25 * time.Hour}

// reload is how long the ring trusts the key records that it read.
const reload = 30 * time.Second

// Ring is the keys of all tenants.
type Ring struct {
	Store  Store
	Box    *seal.Box
	Config Config
	Now    func() time.Time

	flight singleflight.Group
	mu     sync.Mutex
	sets   map[string]*set        // by tenant; guarded by mu
	cas    map[string]*Authority  // by tenant, kind and domain; guarded by mu
	leaves map[string]*serverLeaf // by authority and server name; guarded by mu
	docs   map[string]*serverLeaf // who signs documents, by tenant and domain; guarded by mu
}

// set is a tenant's signing keys as read at one time. It is never changed.
type set struct {
	read time.Time
	keys []signingKey
}

type signingKey struct {
	rec  Record
	cert *x509.Certificate
	key  crypto.Signer
}

// Signer returns the key that signs the tenant's tokens now; the first call
// in a tenant's life creates it.
func (r *Ring) Signer(ctx context.Context, tenant string) (token.Signer, error) {
	s, err := r.set(ctx, tenant, false)
	if err != nil {
		return token.Signer{}, err
	}
	if k, ok := s.current(r.Now()); ok {
		return token.Signer{KeyID: k.rec.ID, Key: k.key}, nil
	}
	if err := r.Tend(ctx, tenant); err != nil {
		return token.Signer{}, err
	}
	if s, err = r.set(ctx, tenant, false); err != nil {
		return token.Signer{}, err
	}
	k, ok := s.current(r.Now())
	if !ok {
		return token.Signer{}, fmt.Errorf("tenant %s has no signing key in use", tenant)
	}
	return token.Signer{KeyID: k.rec.ID, Key: k.key}, nil
}

// current is the newest key whose time has come. Before the time of all of
// them it is the oldest: then this clock is behind the one that made it.
func (s *set) current(now time.Time) (k signingKey, ok bool) {
	for i := len(s.keys) - 1; i >= 0; i-- {
		if !s.keys[i].published(now) {
			continue
		}
		k, ok = s.keys[i], true
		if !k.rec.NotBefore.After(now) {
			break
		}
	}
	return k, ok
}

// published reports whether the key has not retired.
func (k signingKey) published(now time.Time) bool {
	return k.rec.Retire.IsZero() || now.Before(k.rec.Retire)
}

// PublicKey returns the published key with this id. A key that is not known is
// looked for in the database before the answer is no.
func (r *Ring) PublicKey(ctx context.Context, tenant, kid string) (crypto.PublicKey, bool, error) {
	for _, fresh := range []bool{false, true} {
		s, err := r.set(ctx, tenant, fresh)
		if err != nil {
			return nil, false, err
		}
		for _, k := range s.keys {
			if k.rec.ID == kid && k.published(r.Now()) {
				return k.cert.PublicKey, true, nil
			}
		}
	}
	return nil, false, nil
}

// JWKS returns the tenant's published keys.
func (r *Ring) JWKS(ctx context.Context, tenant string) (jose.JSONWebKeySet, error) {
	s, err := r.set(ctx, tenant, false)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	out := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range s.keys {
		if !k.published(r.Now()) {
			continue
		}
		thumb := sha1.Sum(k.cert.Raw)
		out.Keys = append(out.Keys, jose.JSONWebKey{
			Key: k.cert.PublicKey, KeyID: k.rec.ID, Use: "sig", Algorithm: string(jose.RS256),
			Certificates: []*x509.Certificate{k.cert}, CertificateThumbprintSHA1: thumb[:],
		})
	}
	return out, nil
}

// Tend does what is due for the tenant's signing keys: the first key, and the
// next one when the current one comes near its end. Call it at start and every hour.
func (r *Ring) Tend(ctx context.Context, tenant string) error {
	_, err := r.together(ctx, "tend/"+tenant, func(ctx context.Context) (any, error) {
		s, err := r.set(ctx, tenant, true)
		if err != nil {
			return nil, err
		}
		now := r.Now()
		switch n := len(s.keys); {
		case n == 0:
			return nil, r.add(ctx, tenant, 0, now)
		case s.keys[n-1].rec.NotBefore.Add(r.Config.Rotate - r.Config.Publish).Before(now):
			return nil, r.add(ctx, tenant, n, now.Add(r.Config.Publish))
		}
		return nil, nil
	})
	return err
}

// flightTime ends a flight over a database that has stopped answering.
const flightTime = time.Minute

// together runs f once for all who call it with the same key at the same time.
// It does not end when the first of them leaves.
func (r *Ring) together(ctx context.Context, key string, f func(context.Context) (any, error)) (any, error) {
	v, err, _ := r.flight.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTime)
		defer cancel()
		return f(ctx)
	})
	return v, err
}

// Rotate publishes a new key that signs after [Config.Publish].
func (r *Ring) Rotate(ctx context.Context, tenant string) error {
	s, err := r.set(ctx, tenant, true)
	if err != nil {
		return err
	}
	return r.add(ctx, tenant, len(s.keys), r.Now().Add(r.Config.Publish))
}

// add makes a key that signs from the given time. The keys before it retire
// when the last token that they can have signed is dead.
func (r *Ring) add(ctx context.Context, tenant string, known int, from time.Time) error {
	rec, err := r.generate(ctx, tenant, from)
	if err != nil {
		return err
	}
	ev := audit.Event{
		Tenant: tenant, At: r.Now(), Action: "Innate.Keys/create/action", Target: "/", Outcome: audit.Allowed,
		Principal: "system:keyring", Reason: "signs from " + from.UTC().Format(time.RFC3339) + " as " + rec.ID,
	}
	err = r.Store.AddKey(ctx, rec, known, from.Add(r.Config.Keep), ev)
	if err != nil && !problem.Is(err, problem.Conflict) { // another replica was first: its key is as good
		return fmt.Errorf("adding a signing key: %w", err)
	}
	_, err = r.set(ctx, tenant, true)
	return err
}

func (r *Ring) generate(ctx context.Context, tenant string, from time.Time) (Record, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Record{}, fmt.Errorf("generating a signing key: %w", err)
	}
	now := r.Now()
	cert, err := selfSign(key, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Innate token signing"},
		NotBefore: now.Add(-token.Backdate), NotAfter: from.Add(r.Config.Rotate + 10*365*24*time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	})
	if err != nil {
		return Record{}, err
	}
	rec := Record{
		Tenant: tenant, Kind: KindSigning, ID: thumbprint(KindSigning, cert.Raw),
		Public: cert.Raw, Created: now, NotBefore: from,
	}
	return rec, r.sealKey(ctx, &rec, key)
}

// sealKey puts key, sealed, into rec.
func (r *Ring) sealKey(ctx context.Context, rec *Record, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	defer clear(der)
	rec.Sealed, err = r.Box.Seal(ctx, sealContext(*rec), der)
	return err
}

func sealContext(rec Record) seal.Context {
	return seal.Context{Tenant: rec.Tenant, Kind: "key/" + rec.Kind, ID: rec.ID, Version: "1"}
}

// thumbprint is what a key is called after: x5t for signing keys, which is SHA-1
// by definition (RFC 7517 section 4.8), the SHA-256 fingerprint for CAs.
func thumbprint(kind string, certificate []byte) string {
	if kind == KindSigning {
		sum := sha1.Sum(certificate)
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

// openKey unseals rec's key and parses its certificate. The certificate is not
// sealed, and what it says is published and trusted; but the seal holds the
// record's ID, and the ID is the certificate's thumbprint.
func (r *Ring) openKey(ctx context.Context, rec Record) (crypto.Signer, *x509.Certificate, error) {
	if thumbprint(rec.Kind, rec.Public) != rec.ID {
		return nil, nil, fmt.Errorf("the certificate of key %s is another one: the record was changed in the database", rec.ID)
	}
	der, err := r.Box.Open(ctx, sealContext(rec), rec.Sealed)
	if err != nil {
		return nil, nil, err
	}
	defer clear(der)
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing key %s: it is not PKCS#8", rec.ID)
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("key %s cannot sign", rec.ID)
	}
	cert, err := x509.ParseCertificate(rec.Public)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the certificate of key %s: %w", rec.ID, err)
	}
	return key, cert, nil
}

// set returns the tenant's keys, read from the database if they are older than
// [reload] or fresh is asked for.
func (r *Ring) set(ctx context.Context, tenant string, fresh bool) (*set, error) {
	r.mu.Lock()
	old := r.sets[tenant]
	r.mu.Unlock()
	now := r.Now()
	if old != nil && !fresh && now.Sub(old.read) < reload && now.Sub(old.read) >= 0 {
		return old, nil
	}
	recs, err := r.Store.Keys(ctx, tenant, KindSigning)
	if err != nil {
		return nil, fmt.Errorf("reading the signing keys: %w", err)
	}
	s := &set{read: now}
	for _, rec := range recs {
		k, err := r.signingKey(ctx, old, rec)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, k)
	}
	if len(s.keys) == 0 {
		return s, nil // the tenant may be an invention of the client's: not worth memory
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sets == nil {
		r.sets = map[string]*set{}
	}
	r.sets[tenant] = s
	return s, nil
}

// signingKey opens rec, unless old has it opened already.
func (r *Ring) signingKey(ctx context.Context, old *set, rec Record) (signingKey, error) {
	if old != nil {
		for _, k := range old.keys {
			if k.rec.ID == rec.ID {
				return signingKey{rec: rec, cert: k.cert, key: k.key}, nil
			}
		}
	}
	key, cert, err := r.openKey(ctx, rec)
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{rec: rec, cert: cert, key: key}, nil
}

// selfSign makes a certificate for key's own public key.
func selfSign(key crypto.Signer, tmpl *x509.Certificate) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// serial is a random certificate serial number of 127 bits (RFC 5280 section 4.1.2.2).
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}
