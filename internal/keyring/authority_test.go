package keyring_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
)

const domain = "innate.test"

func authority(t testing.TB, r *keyring.Ring, tenant, kind, domain string) *keyring.Authority {
	t.Helper()
	a, err := r.Authority(t.Context(), tenant, kind, domain)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorityIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rings := []*keyring.Ring{w.ring(), w.ring()}
	got := make([]*keyring.Authority, 16)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range got {
		wg.Go(func() {
			<-begin
			a, err := rings[i%2].Authority(t.Context(), "", keyring.KindServerCA, domain)
			if err != nil {
				t.Error(err)
			}
			got[i] = a
		})
	}
	close(begin)
	wg.Wait()
	for _, a := range got {
		if !a.Certificate().Equal(got[0].Certificate()) {
			t.Fatal("callers got different authorities")
		}
	}
	if n := len(records(t, w, "", keyring.KindServerCA)); n != 1 {
		t.Errorf("%d authorities were made, want 1", n)
	}
	if !bytes.Contains(got[0].PEM(), []byte("BEGIN CERTIFICATE")) || bytes.Contains(got[0].PEM(), []byte("PRIVATE")) {
		t.Errorf("PEM is %s", got[0].PEM())
	}
	if authority(t, rings[0], tenantA, keyring.KindFleetCA, "").Certificate().Equal(authority(t, rings[0], tenantB, keyring.KindFleetCA, "").Certificate()) {
		t.Error("two tenants share the authority of their hosts")
	}
}

// TestServerCertificateServes makes a real TLS connection for each name.
func TestServerCertificateServes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	ca := authority(t, r, "", keyring.KindServerCA, domain)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, "hello") }))
	srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return r.ServerCertificate(h.Context(), ca, h.ServerName)
	}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	long := strings.Repeat("a", 60) + ".vault." + domain // over a common name's 64
	for _, tt := range []struct {
		name string
		ok   bool
	}{
		{"login." + domain, true}, {"demo.vault." + domain, true}, {domain, true}, {long, true},
		{"login.evil.test", false}, {"evil" + domain, false}, {domain + ".evil.test", false}, {"login.microsoftonline.com", false}, {"localhost", false},
	} {
		conf := &tls.Config{RootCAs: ca.Trusts(), ServerName: tt.name, Time: w.clock}
		conn, err := tls.DialWithDialer(&net.Dialer{}, "tcp", srv.Listener.Addr().String(), conf)
		if (err == nil) != tt.ok {
			t.Errorf("TLS with %s: %v, want success %v", tt.name, err, tt.ok)
		}
		if err == nil {
			_ = conn.Close()
		} else if !strings.Contains(err.Error(), "is not permitted") {
			t.Errorf("TLS with %s fails by %v, want a name constraint", tt.name, err)
		}
	}
	if _, err := r.ServerCertificate(t.Context(), ca, strings.Repeat("a.", 127)+domain); err == nil {
		t.Error("a name of over 253 bytes gets a certificate")
	}
}

func TestAuthorityIsConfined(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	cert := authority(t, r, "", keyring.KindServerCA, domain).Certificate()
	if !cert.PermittedDNSDomainsCritical || !cmp.Equal(cert.PermittedDNSDomains, []string{domain}) || !cert.MaxPathLenZero || !cert.IsCA {
		t.Errorf("server authority: critical %v, domains %v, path 0 %v, CA %v", cert.PermittedDNSDomainsCritical, cert.PermittedDNSDomains, cert.MaxPathLenZero, cert.IsCA)
	}
	// A fleet's authority vouches for no server.
	fleet := authority(t, r, tenantA, keyring.KindFleetCA, "")
	leaf, err := fleet.IssueClient(csr(t, p256(t), x509.CertificateRequest{}), "host", hostURI, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: fleet.Trusts(), CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err == nil {
		t.Error("a host's certificate is good for a server")
	}
}

// TestDomainThatMoves: an authority made for one domain is no use under another,
// where its name constraint refuses every certificate.
func TestDomainThatMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := authority(t, w.ring(), "", keyring.KindServerCA, domain)
	r := w.ring()
	moved := authority(t, r, "", keyring.KindServerCA, "other.test")
	made, err := r.ServerCertificate(t.Context(), moved, "login.other.test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.Leaf.Verify(x509.VerifyOptions{Roots: moved.Trusts(), CurrentTime: start, DNSName: "login.other.test"}); err != nil {
		t.Errorf("after the move: %v", err)
	}
	for _, r := range []*keyring.Ring{w.ring(), r} {
		if !authority(t, r, "", keyring.KindServerCA, domain).Certificate().Equal(old.Certificate()) {
			t.Error("moving back makes a new authority, which nobody trusts")
		}
	}
	if n := len(records(t, w, "", keyring.KindServerCA)); n != 2 {
		t.Errorf("there are %d authorities, want 2", n)
	}
}

func TestServerCertificateIsKeptAndRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	ca := authority(t, r, "", keyring.KindServerCA, domain)
	get := func() *tls.Certificate {
		t.Helper()
		c, err := r.ServerCertificate(t.Context(), ca, "login."+domain)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := get()
	w.set(start.Add(15*24*time.Hour - time.Second))
	if get() != first {
		t.Error("a certificate is made anew before half its life")
	}
	w.set(start.Add(15 * 24 * time.Hour))
	second := get()
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("a certificate is not renewed at half its life")
	}
	for i := range 1010 { // names come from clients
		if _, err := r.ServerCertificate(t.Context(), ca, fmt.Sprintf("x%d.%s", i, domain)); err != nil {
			t.Fatal(err)
		}
		if _, leaves := r.Held(); leaves > 1000 {
			t.Fatalf("%d server certificates are in memory", leaves)
		}
	}
}

var hostURI = &url.URL{Scheme: "innate", Host: tenantA, Path: "/hosts/h1"}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csr(t testing.TB, key crypto.Signer, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestIssueClientTakesOnlyTheKey: the CSR asks for all that would be worth having.
func TestIssueClientTakesOnlyTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := authority(t, w.ring(), tenantA, keyring.KindFleetCA, "")
	isCA, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	evil, _ := url.Parse("innate://" + tenantB + "/hosts/h2")
	key := p256(t)
	cert, err := ca.IssueClient(csr(t, key, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", Organization: []string{"Evil"}},
		DNSNames: []string{"login." + domain}, EmailAddresses: []string{"a@evil.test"}, IPAddresses: []net.IP{{127, 0, 0, 1}}, URIs: []*url.URL{evil},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: isCA}},
	}), "h1", hostURI, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Subject    string
		DNS, Email int
		IPs        int
		CA         bool
		Usage      x509.KeyUsage
		Ext        []x509.ExtKeyUsage
		From, To   time.Time
		Host, Evil bool
		SameKey    bool
	}
	got := facts{
		cert.Subject.String(), len(cert.DNSNames), len(cert.EmailAddresses), len(cert.IPAddresses), cert.IsCA, cert.KeyUsage, cert.ExtKeyUsage, cert.NotBefore, cert.NotAfter,
		keyring.HasURI(cert, hostURI.String()), keyring.HasURI(cert, evil.String()), key.Public().(*ecdsa.PublicKey).Equal(cert.PublicKey),
	}
	want := facts{
		Subject: "CN=h1", Usage: x509.KeyUsageDigitalSignature, Ext: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		From: start.Add(-5 * time.Minute), To: start.Add(24 * time.Hour), Host: true, SameKey: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("certificate (-want +got):\n%s", diff)
	}
	verify := func(roots *x509.CertPool, at time.Time) error {
		_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	}
	if err := verify(ca.Trusts(), start); err != nil {
		t.Error(err)
	}
	if verify(authority(t, w.ring(), tenantB, keyring.KindFleetCA, "").Trusts(), start) == nil {
		t.Error("another tenant's authority vouches for the host")
	}
	if verify(ca.Trusts(), start.Add(25*time.Hour)) == nil {
		t.Error("it is good after its life")
	}
}

func TestIssueClientRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := authority(t, w.ring(), tenantA, keyring.KindFleetCA, "")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "h1"}})
	other := csr(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: "h2"}})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, der := range map[string][]byte{
		"RSA": csr(t, rsaKey, x509.CertificateRequest{}), "P-384": csr(t, p384, x509.CertificateRequest{}), "Ed25519": csr(t, ed, x509.CertificateRequest{}),
		"a changed signature": flipped, "another's subject": bytes.Replace(good, []byte("h1"), []byte("h2"), 1),
		"nothing": nil, "text": []byte("-----BEGIN CERTIFICATE REQUEST-----"), "cut": good[:len(good)/2], "two": append(bytes.Clone(good), other...),
		"a certificate": ca.Certificate().Raw,
	} {
		cert, err := ca.IssueClient(der, "h1", hostURI, time.Hour)
		if !problem.Is(err, problem.Invalid) {
			t.Errorf("IssueClient of %s = %v, %v; want %s", name, cert, err, problem.Invalid)
		}
	}
	if _, err := ca.IssueClient(good, "h1", hostURI, time.Hour); err != nil {
		t.Error(err)
	}
}

// TestPassingAuthorityIsConfinedAndNotKept: it vouches for what lies in its
// domains and for nothing else, and leaves no record.
func TestPassingAuthorityIsConfinedAndNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	domains := []string{"login.example.test", "vault.example.test"}
	a, err := r.Passing(domains)
	if err != nil {
		t.Fatal(err)
	}
	cert := a.Certificate()
	if !cert.PermittedDNSDomainsCritical || !cmp.Equal(cert.PermittedDNSDomains, domains) || !cert.MaxPathLenZero || !cert.IsCA {
		t.Errorf("critical %v, domains %v, path 0 %v, CA %v", cert.PermittedDNSDomainsCritical, cert.PermittedDNSDomains, cert.MaxPathLenZero, cert.IsCA)
	}
	for name, good := range map[string]bool{
		"login.example.test": true, "demo.vault.example.test": true, "example.test": false, "other.example.test": false, domain: false,
	} {
		leaf, err := r.ServerCertificate(t.Context(), a, name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Leaf.Verify(x509.VerifyOptions{Roots: a.Trusts(), CurrentTime: start, DNSName: name})
		if (err == nil) != good {
			t.Errorf("a certificate for %s is good: %v, want %v", name, err, good)
		}
	}
	if n := len(records(t, w, "", "")) + len(records(t, w, "", keyring.KindServerCA)); n != 0 {
		t.Errorf("%d authorities are kept", n)
	}
	again, err := r.Passing(domains)
	if err != nil || again.Certificate().Equal(cert) {
		t.Errorf("the next one is the same: %v", err)
	}
	// A name that two authorities vouch for has a certificate of each.
	one, err := r.ServerCertificate(t.Context(), a, domains[0])
	if err != nil {
		t.Fatal(err)
	}
	two, err := r.ServerCertificate(t.Context(), again, domains[0])
	if err != nil || one.Leaf.Equal(two.Leaf) {
		t.Errorf("two authorities share a certificate: %v", err)
	}
}
