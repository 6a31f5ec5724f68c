package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// KnownCertificate is an entry of a host's properties.certificates: an X.509
// certificate that the machine has already, by which it enrols without a
// one-time token. Either Thumbprint is set, or Authority and Name are.
//
// Whoever holds the key of such a certificate can be the host, and with an
// authority, whoever it certifies under the name. Neither CRLs nor OCSP are
// asked: to take a certificate away, take its entry away.
type KnownCertificate struct {
	// Thumbprint is the SHA-256 of the certificate itself in hex, with or
	// without colons. Not of one that issued it.
	Thumbprint string `json:"thumbprint,omitempty"`
	// Authority is the certificate, in PEM, of an authority that vouches for the
	// host.
	Authority string `json:"authority,omitempty"`
	// Name is the DNS name that a certificate of the authority must have: one of
	// its subject alternative names, or its common name if it has none of those.
	// A wildcard matches nothing.
	Name string `json:"name,omitempty"`
}

// Bounds of a host's certificates, and of the chain that a host shows.
const (
	maxKnown = 16
	maxChain = 10
	maxNames = 32
)

var (
	hex256  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	dnsName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)
)

// known reads and checks properties.certificates of a host's document.
func known(d arm.Document) ([]KnownCertificate, error) {
	raw := object(d.Member("properties")).Member("certificates")
	if len(raw) == 0 {
		return nil, nil
	}
	var out []KnownCertificate
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return nil, &problem.Error{Kind: problem.Invalid, Err: err,
			Detail: "The member 'properties.certificates' must be a list of objects, each with 'thumbprint' or with 'authority' and 'name', all strings, and nothing else."}
	}
	if len(out) > maxKnown {
		return nil, problem.Errorf(problem.Invalid, "The member 'properties.certificates' has %d entries; at most %d are allowed.", len(out), maxKnown)
	}
	for i := range out {
		if err := out[i].check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// check brings an entry to the form in which it is compared.
func (k *KnownCertificate) check() error {
	k.Thumbprint = strings.ToLower(strings.ReplaceAll(k.Thumbprint, ":", ""))
	k.Name = strings.ToLower(strings.TrimSuffix(k.Name, "."))
	if k.Thumbprint != "" {
		if k.Authority != "" || k.Name != "" || !hex256.MatchString(k.Thumbprint) {
			return problem.Errorf(problem.Invalid, "An entry of 'properties.certificates' has a 'thumbprint' that is not the SHA-256 of a certificate (64 hexadecimal digits), or 'authority' or 'name' beside it.")
		}
		return nil
	}
	if len(k.Name) > 253 || !dnsName.MatchString(k.Name) {
		return problem.Errorf(problem.Invalid, "An entry of 'properties.certificates' has the 'name' '%s'; a DNS name without a wildcard was expected.", problem.Clip(k.Name))
	}
	_, err := k.trusts()
	return err
}

// trusts returns the authority as a root.
func (k KnownCertificate) trusts() (*x509.CertPool, error) {
	block, rest := pem.Decode([]byte(k.Authority))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, problem.Errorf(problem.Invalid, "An entry of 'properties.certificates' has an 'authority' that is not one certificate in PEM (-----BEGIN CERTIFICATE-----).")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.BasicConstraintsValid || !cert.IsCA {
		return nil, &problem.Error{Kind: problem.Invalid, Err: err,
			Detail: "An entry of 'properties.certificates' has an 'authority' that is no authority's certificate (basic constraints: CA). For a host's own certificate, give its 'thumbprint'."}
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, nil
}

// claim is the name by which the entry is found. It is one host's alone in the
// installation, so that a certificate is never of two.
func (k KnownCertificate) claim() string {
	if k.Thumbprint != "" {
		return "sha256:" + k.Thumbprint
	}
	return "dns:" + k.Name
}

// claimKnown makes the claims of a host those of its document, within the write.
func claimKnown(tx arm.Tx, r arm.Resource) error {
	all, err := known(r.Body)
	if err != nil {
		return err
	}
	if err := tx.ReleaseNames(r.ID.Key()); err != nil {
		return err
	}
	for _, k := range all {
		err := tx.ClaimName(ClaimCertificate, k.claim(), r.ID.Key())
		if problem.Is(err, problem.Exists) {
			return problem.Errorf(problem.Exists, "The certificate '%s' is another host's; a certificate is of one host.", k.claim())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// knownNeeds is what somebody needs who says by which certificates a host
// enrols: with one of them, a machine of theirs would be all that is placed on
// it. Taking all away, or leaving them as they are, needs nothing.
func (f *Fleet) knownNeeds(ctx context.Context, tenant string, id resource.ID, d arm.Document) ([]arm.Need, error) {
	is, err := known(d)
	if err != nil || len(is) == 0 {
		return nil, err
	}
	old, err := f.Store.Resource(ctx, tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, nil // and so nothing is placed on it
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", id, err)
	}
	if was, err := known(old.Body); err == nil && slices.Equal(was, is) {
		return nil, nil
	}
	ps, err := f.Placements(ctx, Host{Tenant: tenant, ID: old.ID, UID: old.UID})
	if err != nil {
		return nil, err
	}
	var needs []arm.Need
	for _, p := range ps.Placements {
		on, err := resource.Parse(p.Resource)
		if err != nil {
			return nil, fmt.Errorf("reading placement %s: %w", p.Name, internal(err))
		}
		needs = append(needs, toBe(on))
	}
	return needs, nil
}

// EnrolKnown certifies the key in the request of a host that shows a
// certificate of its own. The handshake proved that it has that one's key.
func (f *Fleet) EnrolKnown(ctx context.Context, chain []*x509.Certificate, r fleetapi.EnrolRequest) (fleetapi.EnrolResponse, error) {
	h, k, err := f.knownHost(ctx, chain)
	if h.UID == "" {
		return fleetapi.EnrolResponse{}, err
	}
	ev := f.event(h.caller(ctx), actionEnrol, h.ID)
	ev.Host, ev.Reason = h.ID.Name(), "certificate "+k.claim()
	if err != nil {
		ev.Reason = "" // what is wrong with it
		return fleetapi.EnrolResponse{}, f.refuse(ctx, ev, err)
	}
	out, cert, err := f.certify(ctx, h, r.CSR)
	if err != nil {
		ev.Reason = ""
		return out, f.refuse(ctx, ev, err)
	}
	denied := ev
	if err := f.Store.EnrolKnown(ctx, h, k.claim(), cert, &ev); err != nil {
		denied.Reason = ""
		return fleetapi.EnrolResponse{}, f.refuse(ctx, denied, err)
	}
	return out, nil
}

const actionEnrol = TypeHost + "/enrol/action"

// knownHost finds the one host that the certificate is of. With an error, the
// host may be there all the same: its certificate is not good.
//
// Anybody may claim any name, by an authority of their own: so a host that the
// certificate is not good for counts only where there is no other.
func (f *Fleet) knownHost(ctx context.Context, chain []*x509.Certificate) (Host, KnownCertificate, error) {
	leaf := chain[0]
	if len(chain) > maxChain || len(leaf.DNSNames) > maxNames {
		return Host{}, KnownCertificate{}, problem.Errorf(problem.BadCredential, "the certificate has over %d names or over %d others with it", maxNames, maxChain-1)
	}
	found, err := f.claimants(ctx, leaf)
	switch {
	case err != nil:
		return Host{}, KnownCertificate{}, err
	case len(found) == 0:
		return Host{}, KnownCertificate{}, problem.Errorf(problem.BadCredential,
			"no host is known by this certificate; put it into the host's properties.certificates at the management API, or enrol with a one-time token")
	case len(found) == 1:
		k, err := found[0].good(chain, f.Now())
		return found[0].host(), k, err
	}
	var host Host
	var by KnownCertificate
	for _, c := range found {
		k, err := c.good(chain, f.Now())
		switch {
		case problem.Is(err, problem.BadCredential):
			continue
		case err != nil:
			return Host{}, KnownCertificate{}, err
		case host.UID != "":
			return Host{}, KnownCertificate{}, problem.Errorf(problem.BadCredential, "the certificate is of several hosts; give each host one of its own")
		}
		host, by = c.host(), k
	}
	if host.UID == "" {
		return Host{}, KnownCertificate{}, problem.Errorf(problem.BadCredential, "several hosts are known by names of the certificate, and it is good for none of them")
	}
	return host, by, nil
}

// claimant is a host that claims a certificate, by some of its names or itself.
type claimant struct {
	arm.Resource
	claims []string
}

func (c claimant) host() Host { return Host{Tenant: c.Tenant, ID: c.ID, UID: c.UID} }

// good returns the entry of the host that the certificate is good for.
func (c claimant) good(chain []*x509.Certificate, now time.Time) (KnownCertificate, error) {
	all, err := known(c.Body)
	if err != nil {
		return KnownCertificate{}, fmt.Errorf("reading the certificates of %s: %w", c.ID, internal(err))
	}
	return good(all, c.claims, chain, now)
}

// claimants are the hosts that claim the certificate.
func (f *Fleet) claimants(ctx context.Context, leaf *x509.Certificate) ([]claimant, error) {
	var out []claimant
	for _, claim := range append(names(leaf), "sha256:"+thumbprint(leaf)) {
		r, err := f.Store.KnownHost(ctx, claim)
		if problem.Is(err, problem.NotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("finding the host of a certificate: %w", err)
		}
		i := slices.IndexFunc(out, func(c claimant) bool { return c.Tenant == r.Tenant && c.ID.Equal(r.ID) })
		if i < 0 {
			i, out = len(out), append(out, claimant{Resource: r})
		}
		out[i].claims = append(out[i].claims, claim)
	}
	return out, nil
}

// good returns the first of the entries, among those that the certificate was
// found by, that it is good for.
func good(all []KnownCertificate, claims []string, chain []*x509.Certificate, now time.Time) (KnownCertificate, error) {
	if err := usable(chain[0], now); err != nil {
		return KnownCertificate{}, err
	}
	why := problem.Errorf(problem.BadCredential, "the host is not known by this certificate any more")
	for _, k := range all {
		if !slices.Contains(claims, k.claim()) {
			continue
		}
		err := k.verify(chain, now)
		if err == nil {
			return k, nil
		}
		why = problem.Of(err)
	}
	return KnownCertificate{}, why
}

func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// names are the claims that a certificate could be found by for its names.
func names(leaf *x509.Certificate) []string {
	all := leaf.DNSNames
	if len(all) == 0 {
		all = []string{leaf.Subject.CommonName}
	}
	var out []string
	for _, n := range all {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if len(n) <= 253 && dnsName.MatchString(n) && !slices.Contains(out, "dns:"+n) {
			out = append(out, "dns:"+n)
		}
	}
	return out
}

// usable checks what a certificate must be to prove a client, whoever vouches
// for it.
func usable(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return problem.Errorf(problem.BadCredential, "the certificate is good from %s to %s alone", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.IsCA:
		return problem.Errorf(problem.BadCredential, "the certificate is an authority's; one of the host itself was expected")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return problem.Errorf(problem.BadCredential, "the certificate is not for client authentication (extended key usage clientAuth)")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return problem.Errorf(problem.BadCredential, "the certificate's key is not for digital signatures")
	}
	return nil
}

// verify checks the certificate against the entry that it was found by.
func (k KnownCertificate) verify(chain []*x509.Certificate, now time.Time) error {
	leaf := chain[0]
	if k.Thumbprint != "" {
		if thumbprint(leaf) != k.Thumbprint {
			return problem.Errorf(problem.BadCredential, "the certificate has another thumbprint")
		}
		return nil
	}
	roots, err := k.trusts()
	if err != nil {
		return fmt.Errorf("reading an authority: %w", internal(err))
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return &problem.Error{Kind: problem.BadCredential, Detail: "the host's authority does not vouch for the certificate", Err: err}
	}
	if !slices.Contains(names(leaf), "dns:"+k.Name) {
		return problem.Errorf(problem.BadCredential, "the certificate has not the name %s", k.Name)
	}
	return nil
}

// readmit lets an evicted host enrol by its certificate again. Like a one-time
// token, that gives what is placed on it.
func (f *Fleet) readmit(ctx context.Context, c access.Caller, r arm.Resource, ev *audit.Event) (any, error) {
	h := Host{Tenant: r.Tenant, ID: r.ID, UID: r.UID}
	if err := f.mayBe(ctx, c, h); err != nil {
		return nil, err
	}
	return struct{}{}, f.Store.Readmit(ctx, h, ev)
}
