package keyring

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
)

// Authority is a certificate authority of ours.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// Authority returns the tenant's authority of this kind ([KindFleetCA] or
// [KindMetadataCA], or with tenant "" [KindServerCA]); the first call creates
// it. domain is what an authority is confined to that others trust: it can vouch
// for no name outside, and so an installation that moves to another domain gets
// another one. The fleet's, which nobody else trusts, has "".
func (r *Ring) Authority(ctx context.Context, tenant, kind, domain string) (*Authority, error) {
	id := tenant + "/" + kind + "/" + domain
	r.mu.Lock()
	have := r.cas[id]
	r.mu.Unlock()
	if have != nil {
		return have, nil
	}
	v, err := r.together(ctx, "ca/"+id, func(ctx context.Context) (any, error) { return r.authority(ctx, tenant, kind, domain) })
	if err != nil {
		return nil, fmt.Errorf("opening the certificate authority %s: %w", kind, err)
	}
	a := v.(*Authority)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cas == nil {
		r.cas = map[string]*Authority{}
	}
	r.cas[id] = a
	return a, nil
}

func (r *Ring) authority(ctx context.Context, tenant, kind, domain string) (*Authority, error) {
	for range 2 {
		recs, err := r.Store.Keys(ctx, tenant, kind)
		if err != nil {
			return nil, err
		}
		for _, rec := range slices.Backward(recs) {
			key, cert, err := r.openKey(ctx, rec)
			if err != nil {
				return nil, err
			}
			if domain == "" || slices.Contains(cert.PermittedDNSDomains, domain) {
				return &Authority{cert: cert, key: key, now: r.Now}, nil
			}
		}
		if err := r.addAuthority(ctx, tenant, kind, domain, len(recs)); err != nil && !problem.Is(err, problem.Conflict) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("it was made but cannot be read")
}

// passingLife is how long what a passing authority vouched for can be shown by
// who got at its key. It is longer than a process lives.
const passingLife = 365 * 24 * time.Hour

// Passing makes an authority of this process alone, for names in the domains and
// no others: its key is never stored, and is gone with the process.
func (r *Ring) Passing(domains []string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	now := r.Now()
	tmpl := template("passing server CA", now, passingLife)
	confine(tmpl, x509.ExtKeyUsageServerAuth, domains...)
	cert, err := selfSign(key, tmpl)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key, now: r.Now}, nil
}

// template is a certificate authority that is not confined yet.
func template(kind string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Innate " + kind + " " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// confine is for an authority that others trust: were its key stolen, it could
// still vouch for no name but these, and for nothing but its own purpose.
func confine(tmpl *x509.Certificate, use x509.ExtKeyUsage, domains ...string) {
	tmpl.PermittedDNSDomainsCritical = true
	tmpl.PermittedDNSDomains = domains
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{use}
}

func (r *Ring) addAuthority(ctx context.Context, tenant, kind, domain string, known int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generating a key: %w", err)
	}
	now := r.Now()
	tmpl := template(kind, now, 10*365*24*time.Hour)
	switch {
	case domain == "":
	case kind == KindMetadataCA:
		confine(tmpl, x509.ExtKeyUsageEmailProtection, domain)
	default:
		confine(tmpl, x509.ExtKeyUsageServerAuth, domain)
	}
	cert, err := selfSign(key, tmpl)
	if err != nil {
		return err
	}
	rec := Record{Tenant: tenant, Kind: kind, ID: thumbprint(kind, cert.Raw), Public: cert.Raw, Created: now, NotBefore: now}
	if err := r.sealKey(ctx, &rec, key); err != nil {
		return err
	}
	return r.Store.AddKey(ctx, rec, known, time.Time{}, audit.Event{
		Tenant: tenant, At: now, Action: "Innate.Keys/create/action", Target: "/", Outcome: audit.Allowed,
		Principal: "system:keyring", Reason: "certificate authority " + kind + " " + rec.ID,
	})
}

// Certificate returns the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM returns the authority's certificate in PEM.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// IssueClient makes a client certificate for the key in csr (PKCS#10, DER,
// ECDSA P-256) that says who and nothing of what the CSR asks for.
func (a *Authority) IssueClient(csr []byte, commonName string, uri *url.URL, life time.Duration) (*x509.Certificate, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, problem.Errorf(problem.Invalid, "csr is not a PKCS#10 request in DER")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, problem.Errorf(problem.Invalid, "csr is not signed by its own key")
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, problem.Errorf(problem.Invalid, "csr has a key that is not ECDSA P-256")
	}
	now := a.now()
	return a.sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: commonName}, URIs: []*url.URL{uri},
		NotBefore: now.Add(-time.Minute * 5), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub)
}

func (a *Authority) sign(tmpl *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// serverLeaf is a server certificate and when to make the next one.
type serverLeaf struct {
	cert  *tls.Certificate
	renew time.Time
}

const (
	leafLife     = 30 * 24 * time.Hour
	leafBackdate = time.Hour // for clocks that are behind
	maxLeaves    = 1000
	maxDNSName   = 253
)

// ServerCertificate returns a certificate for name, signed by the
// installation's local CA: made when first asked for, renewed at half life.
func (r *Ring) ServerCertificate(ctx context.Context, a *Authority, name string) (*tls.Certificate, error) {
	if len(name) > maxDNSName {
		return nil, fmt.Errorf("server name is over %d bytes long", maxDNSName)
	}
	r.mu.Lock()
	id := a.cert.SerialNumber.String() + "/" + name
	have := r.leaves[id]
	r.mu.Unlock()
	if have != nil && r.Now().Before(have.renew) {
		return have.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a server key: %w", err)
	}
	now := r.Now()
	leaf, err := a.sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: shortName(name)}, DNSNames: []string{name},
		NotBefore: now.Add(-leafBackdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	made := &serverLeaf{
		cert:  &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf},
		renew: now.Add(leafLife / 2),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leaves == nil || len(r.leaves) >= maxLeaves {
		r.leaves = map[string]*serverLeaf{} // names come from clients: bounded, not kept for ever
	}
	r.leaves[id] = made
	return made.cert, nil
}

// shortName keeps a common name within its 64 characters (RFC 5280 appendix A).
func shortName(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// Trusts returns a pool with the authority's certificate alone.
func (a *Authority) Trusts() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// HasURI reports whether cert names uri.
func HasURI(cert *x509.Certificate, uri string) bool {
	return slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == uri })
}
