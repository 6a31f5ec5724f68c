package fleet_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

func TestEnrolmentTokensAreForOneHostOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nobody := &agent{w: w, http: w.client("", nil)}
	request := func(token string) fleetapi.EnrolRequest {
		return fleetapi.EnrolRequest{Token: token, CSR: csr(t, newKey(t), nil)}
	}
	first := w.owner.enrolmentToken("h1")
	var out fleetapi.EnrolResponse
	nobody.must(200, "POST", fleetapi.PathEnrol, request(first), &out)
	if out.Host != hosts+"/h1" || out.Tenant != tenantA || !out.Expires.Equal(start.Add(fleet.CertificateLife)) {
		t.Errorf("enrolled as %+v", out)
	}
	nobody.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, request(first)) // replayed
	for _, token := range []string{"", "x", first + "x", strings.Repeat("x", 100_000), "\x00"} {
		nobody.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, request(token))
	}

	late := w.owner.enrolmentToken("h1")
	w.advance(fleet.EnrolmentLife)
	nobody.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, request(late))

	// One of a host that was evicted or deleted since.
	w.owner = w.caller(tenantA, rootAgent)
	evicted := w.owner.enrolmentToken("h1")
	w.owner.must(200, "POST", hosts+"/h1/evict", "")
	nobody.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, request(evicted))
	deleted := w.owner.enrolmentToken("h1")
	w.owner.must(200, "DELETE", hosts+"/h1", "")
	w.owner.must(201, "PUT", hosts+"/h1", `{}`)
	nobody.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, request(deleted))

	// Of many who try at once one wins.
	token := w.owner.enrolmentToken("h1")
	var won atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a := &agent{w: w, http: w.client("", nil)}
			if status, _ := a.do("POST", fleetapi.PathEnrol, request(token)); status == 200 {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("one token enrolled %d times", won.Load())
	}
}

// TestCSRSaysNothingButTheKey: a request that asks for more is given a client
// certificate of its host all the same, one with another kind of key nothing.
func TestCSRSaysNothingButTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nobody := &agent{w: w, http: w.client("", nil)}
	token := w.owner.enrolmentToken("h1")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, newKey(t), nil)
	broken := append([]byte{}, good...)
	broken[len(broken)-5] ^= 1 // in the signature
	for _, b := range [][]byte{csr(t, rsaKey, nil), csr(t, p384, nil), csr(t, edKey, nil), broken, nil, []byte("x"), append(append([]byte{}, good...), 0)} {
		nobody.refused(problem.Invalid, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{Token: token, CSR: b})
	}

	// The refusals have not spent the token.
	greedy := csr(t, newKey(t), &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "boot", Organization: []string{"root"}},
		DNSNames: []string{"management.innate.test"}, IPAddresses: []net.IP{net.IPv4zero},
		URIs:            []*url.URL{{Scheme: "innate", Host: tenantB, Path: "/hosts/x"}},
		ExtraExtensions: []pkix.Extension{authority},
	})
	var out fleetapi.EnrolResponse
	nobody.must(200, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{Token: token, CSR: greedy}, &out)
	cert, err := x509.ParseCertificate(out.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if cert.IsCA || cert.Subject.String() != "CN=h1" || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) != 0 ||
		len(cert.URIs) != 1 || cert.URIs[0].Host != tenantA || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate says more than it should: CA %v, %s, %v, %v, %v", cert.IsCA, cert.Subject, cert.DNSNames, cert.URIs, cert.ExtKeyUsage)
	}
}

// authority is the extension that makes a certificate an authority's.
var authority = pkix.Extension{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}

// forge makes a certificate that says what cert says, signed by signer.
func forge(t *testing.T, cert *tls.Certificate, signer *x509.Certificate, signerKey *ecdsa.PrivateKey) *tls.Certificate {
	t.Helper()
	tmpl, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	if signer == nil {
		tmpl.PublicKey = key.Public()
		signer, signerKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer, key.Public(), signerKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOnlyAHostsOwnCertificateCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	h, other := w.owner.enrol("h1"), b.enrol("h1")
	h.must(200, "GET", fleetapi.PathPlacements, nil, nil)
	other.must(200, "GET", fleetapi.PathPlacements, nil, nil)

	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour)}
	caKey := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	// With the certificate of h1 as its authority: hosts are none.
	leaf, err := x509.ParseCertificate(h.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	byLeaf := forge(t, h.cert, leaf, h.cert.PrivateKey.(*ecdsa.PrivateKey))
	byLeaf.Certificate = append(byLeaf.Certificate, h.cert.Certificate[0])
	for what, client := range map[string]*http.Client{
		"no certificate":               w.client("", nil),
		"self-signed, same serial":     w.client("", forge(t, h.cert, nil, nil)),
		"another authority's":          w.client("", forge(t, h.cert, ca, caKey)),
		"signed by a host's":           w.client("", byLeaf),
		"asked for under another name": w.client("login.innate.test", h.cert), // where no certificate is asked for
		"asked for under a vault's":    w.client("fleet.vault.innate.test", h.cert),
	} {
		a := &agent{w: w, http: client}
		for _, m := range []struct {
			method, path string
			in           any
		}{
			{"GET", fleetapi.PathPlacements, nil}, {"GET", fleetapi.PathChanges + "?after=0", nil}, {"POST", fleetapi.PathToken, ask("p", vms+"/vm1")},
			{"POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 1}}, {"POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, newKey(t), nil)}},
		} {
			status, body := a.do(m.method, m.path, m.in)
			if status != 401 {
				t.Errorf("%s: %s %s = %d %s, want 401", what, m.method, m.path, status, body)
			}
		}
	}
	w.advance(fleet.MinRenewal)
	// Tenant B's host shows its own good certificate, and is B's host.
	var out fleetapi.EnrolResponse
	other.must(200, "POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, newKey(t), nil)}, &out)
	if out.Tenant != tenantB {
		t.Errorf("the host of B is one of %s", out.Tenant)
	}
	w.advance(fleet.CertificateLife + time.Second)
	h.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
}

func TestEvictedAndDeletedHostsAreOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	for _, end := range []struct {
		what string
		do   func(id string)
	}{
		{"evicted", func(id string) { w.owner.must(200, "POST", id+"/evict", "") }},
		{"deleted", func(id string) { w.owner.must(200, "DELETE", id, "") }},
		{"deleted and made again", func(id string) {
			w.owner.must(200, "DELETE", id, "")
			w.owner.must(201, "PUT", id, `{}`)
		}},
	} {
		name := unique("h")
		h := w.owner.enrol(name)
		w.owner.place(name, "p", vms+"/vm1")
		h.must(200, "POST", fleetapi.PathToken, ask("p", vms+"/vm1"), nil)
		s := h.changes(0)
		s.caughtUp()
		end.do(hosts + "/" + name)
		h.refused(problem.Unauthenticated, "POST", fleetapi.PathToken, ask("p", vms+"/vm1"))
		h.refused(problem.Unauthenticated, "POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, newKey(t), nil)})
		if err := s.untilEnd(); err != nil {
			t.Errorf("%s: the open stream does not end: %v", end.what, err)
		}
	}
}

// TestEvictionReachesWhatIsUnderWay: a request that was begun before the
// eviction and ended after it is one after it.
func TestEvictionReachesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	for _, path := range []string{fleetapi.PathToken, fleetapi.PathEvents, fleetapi.PathRenew} {
		name := unique("h")
		h := w.owner.enrol(name)
		w.owner.place(name, "p", vms+"/vm1")
		body, out := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.srv.Names.Fleet()+path, body)
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			res *http.Response
			err error
		}
		done := make(chan answer, 1)
		go func() {
			res, err := h.http.Do(req)
			done <- answer{res, err}
		}()
		if _, err := io.WriteString(out, "{"); err != nil { // the server has the head when it takes this
			t.Fatal(err)
		}
		w.owner.must(200, "POST", hosts+"/"+name+"/evict", "")
		rest, err := json.Marshal(ask("p", vms+"/vm1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(rest[1:]); err != nil {
			t.Fatal(err)
		}
		out.Close()
		a := <-done
		if a.err != nil {
			t.Fatal(a.err)
		}
		a.res.Body.Close()
		if a.res.StatusCode != http.StatusUnauthorized {
			t.Errorf("POST %s, ended after the eviction = %s, want 401", path, a.res.Status)
		}
	}
}

// TestEnrollingTakesWhatIsPlaced: a token for a host gives what is placed on
// it, and so needs the right to all of that; and it ends the machine that was
// the host before, which notices.
func TestEnrollingTakesWhatIsPlaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	old := w.owner.enrol("h1")
	const contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	mallory := w.as(tenantA, unique("mallory"), contributor+" "+hosts+"/h1")
	mallory.must(200, "POST", hosts+"/h1/createEnrolmentToken", "")
	w.owner.place("h1", "p", vms+"/vm1")
	mallory.refused(403, "LinkedAuthorizationFailed", "POST", hosts+"/h1/createEnrolmentToken", "")
	again := w.owner.enrol("h1")
	again.must(200, "GET", fleetapi.PathPlacements, nil, nil)
	old.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
}
