package fleet_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// pki is an authority that is none of ours.
type pki struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	up   [][]byte // the authorities above it, but for the root
}

func newPKI(t testing.TB, above *pki, change func(*x509.Certificate)) *pki {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "corp"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(1000 * time.Hour),
	}
	if change != nil {
		change(tmpl)
	}
	key := newKey(t)
	by, byKey := tmpl, key
	if above != nil {
		by, byKey = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	out := &pki{t: t, cert: cert, key: key}
	if above != nil {
		out.up = append([][]byte{der}, above.up...)
	}
	return out
}

// leaf makes a certificate that a host could show; self-signed without an authority.
func leaf(t testing.TB, by *pki, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "h1.corp.test"}, DNSNames: []string{"h1.corp.test"},
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(100 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	key := newKey(t)
	parent, signer := tmpl, key
	var up [][]byte
	if by != nil {
		parent, signer, up = by.cert, by.key, by.up
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, up...), PrivateKey: key}
}

func (p *pki) entry(name string) string {
	b, err := json.Marshal(fleet.KnownCertificate{Authority: string(pemCertificate(p.cert.Raw)), Name: name})
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func sha(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func pinned(cert *tls.Certificate) string { return `{"thumbprint":"` + sha(cert.Certificate[0]) + `"}` }

// knownHost puts a host that is known by certificates.
func (c caller) knownHost(status int, name string, entries ...string) {
	c.w.t.Helper()
	c.must(status, "PUT", hosts+"/"+name, `{"properties":{"certificates":[`+strings.Join(entries, ",")+`]}}`)
}

// shows is a machine that shows a certificate and asks to be enrolled.
func (w *world) shows(cert *tls.Certificate) (*agent, fleetapi.EnrolRequest) {
	w.t.Helper()
	return &agent{w: w, http: w.client("", cert)}, fleetapi.EnrolRequest{CSR: csr(w.t, newKey(w.t), nil)}
}

func TestAHostEnrolsByItsOwnCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := newPKI(t, nil, nil)
	below := newPKI(t, root, nil)
	pin := leaf(t, nil, func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{CommonName: "pin"}, nil })
	w.owner.knownHost(201, "h1", root.entry("H1.corp.test."))
	w.owner.knownHost(201, "pin", `{"thumbprint":"`+strings.ToUpper(sha(pin.Certificate[0]))+`"}`)
	w.owner.knownHost(201, "cn", root.entry("old.corp.test"))
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "p", vms+"/vm1")
	for host, cert := range map[string]*tls.Certificate{
		"h1":  leaf(t, below, func(c *x509.Certificate) { c.DNSNames = []string{"alias.corp.test", "H1.Corp.test"} }),
		"pin": pin,
		"cn":  leaf(t, root, func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{CommonName: "old.corp.test"}, nil }),
	} {
		a, _ := w.shows(cert)
		key := newKey(t)
		var out fleetapi.EnrolResponse
		a.must(200, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{CSR: csr(t, key, nil)}, &out)
		if out.Host != hosts+"/"+host || out.Tenant != tenantA {
			t.Errorf("the certificate of %s enrols %+v", host, out)
		}
		is := &agent{w: w, http: w.client("", &tls.Certificate{Certificate: [][]byte{out.Certificate}, PrivateKey: key})}
		is.must(200, "GET", fleetapi.PathPlacements, nil, nil)
		// The certificate enrols; for everything else it is nothing.
		a.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
		a.refused(problem.Unauthenticated, "POST", fleetapi.PathToken, ask("p", vms+"/vm1"))
		// A machine that was installed anew enrols again, and is the host alone.
		a.must(200, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{CSR: csr(t, newKey(t), nil)}, nil)
		is.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
	}
	found := false
	bs, err := w.srv.DB.Batches(t.Context(), tenantA, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bs {
		evs, err := b.Events()
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range evs {
			found = found || ev.Action == "Innate.Fleet/hosts/enrol/action" && ev.Reason == "certificate dns:h1.corp.test" && ev.Host == "h1" && ev.Outcome == audit.Allowed
		}
	}
	if !found {
		t.Error("no enrolment by certificate is on record")
	}
}

// TestCertificatesThatEnrolNobody: none of them is a host's, whatever it says.
func TestCertificatesThatEnrolNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	root := newPKI(t, nil, nil)
	inter := newPKI(t, root, func(c *x509.Certificate) { c.Subject.CommonName = "inter" })
	other := newPKI(t, nil, nil) // of the same name
	narrow := newPKI(t, nil, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"else.test"}
	})
	ended := newPKI(t, nil, func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Minute) })
	w.owner.knownHost(201, "h1", root.entry("h1.corp.test"), `{"thumbprint":"`+sha(inter.cert.Raw)+`"}`)
	w.owner.knownHost(201, "h2", root.entry("h2.corp.test"))
	w.owner.knownHost(201, "narrow", narrow.entry("narrow.corp.test"))
	w.owner.knownHost(201, "ended", ended.entry("ended.corp.test"))
	b.knownHost(201, "h3", root.entry("h3.corp.test"))
	pinnedExpired := leaf(t, nil, func(c *x509.Certificate) {
		c.NotAfter = start.Add(-time.Second)
		c.DNSNames = nil
		c.Subject.CommonName = "x"
	})
	pinnedServer := leaf(t, nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.DNSNames = nil
		c.Subject.CommonName = "x"
	})
	w.owner.knownHost(201, "pins", pinned(pinnedExpired), pinned(pinnedServer))
	enrolled := w.owner.enrol("mine")

	// A second key for the certificate: the thief of a certificate has no key.
	stolen := leaf(t, root, nil)
	stolen.PrivateKey = newKey(t)
	alone := leaf(t, newPKI(t, root, nil), nil)
	alone.Certificate = alone.Certificate[:1]
	for what, cert := range map[string]*tls.Certificate{
		"expired":                     leaf(t, root, func(c *x509.Certificate) { c.NotAfter = start.Add(-time.Second) }),
		"not yet good":                leaf(t, root, func(c *x509.Certificate) { c.NotBefore = start.Add(time.Minute) }),
		"for servers":                 leaf(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"for nothing in particular":   leaf(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = nil }),
		"for encryption":              leaf(t, root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
		"an authority itself":         leaf(t, root, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"another authority's":         leaf(t, other, nil),
		"self-signed, same subject":   leaf(t, nil, nil),
		"another name":                leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"h9.corp.test"} }),
		"the name in the common name": leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"h9.corp.test"} }),
		"a wildcard":                  leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"*.corp.test"} }),
		"two hosts' names":            leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"h1.corp.test", "h2.corp.test"} }),
		"names in two tenants":        leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"h1.corp.test", "h3.corp.test"} }),
		"by the pinned intermediate":  leaf(t, inter, func(c *x509.Certificate) { c.DNSNames = []string{"h9.corp.test"} }),
		"many names": leaf(t, root, func(c *x509.Certificate) {
			c.DNSNames = append(strings.Split(strings.Repeat("a.test,", 32), ",")[:32], "h1.corp.test")
		}),
		"outside of its authority's":   leaf(t, narrow, func(c *x509.Certificate) { c.DNSNames = []string{"narrow.corp.test"} }),
		"of an authority that ended":   leaf(t, ended, func(c *x509.Certificate) { c.DNSNames = []string{"ended.corp.test"} }),
		"pinned, but expired":          pinnedExpired,
		"pinned, but for servers":      pinnedServer,
		"pinned, another of that name": leaf(t, nil, func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "x" }),
		"a host's, of this fleet":      enrolled.cert,
		"without its intermediate":     alone,
	} {
		a, req := w.shows(cert)
		status, body := a.do("POST", fleetapi.PathEnrol, req)
		var e fleetapi.Error
		if err := json.Unmarshal(body, &e); err != nil || status != 401 || e.Kind != string(problem.BadCredential) {
			t.Errorf("%s: enrols with %d %s", what, status, body)
		}
	}
	a, req := w.shows(stolen)
	if res, err := a.http.Post(w.srv.Names.Fleet()+fleetapi.PathEnrol, "application/json", strings.NewReader(string(mustJSON(t, req)))); err == nil {
		res.Body.Close()
		t.Errorf("a certificate without its key is answered with %s", res.Status)
	}
	// Asked for under a name where the handshake asks for no certificate.
	fronted := &agent{w: w, http: w.client("login.innate.test", leaf(t, root, nil))}
	fronted.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, req)
	// A certificate beside a token changes nothing of what the token says.
	beside, _ := w.shows(leaf(t, root, nil))
	beside.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, fleetapi.EnrolRequest{Token: "wrong", CSR: req.CSR})
}

// TestAClaimOnANameShutsNobodyOut: another tenant that says that a host of its
// own is known by a name, by an authority of its own, keeps no machine with that
// name in its certificate from being the host that it is.
func TestAClaimOnANameShutsNobodyOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	root, theirs := newPKI(t, nil, nil), newPKI(t, nil, nil)
	self := leaf(t, nil, nil)
	w.owner.knownHost(201, "h1", pinned(self))
	w.owner.knownHost(201, "h2", root.entry("h2.corp.test"))
	b.knownHost(201, "claims", theirs.entry("h1.corp.test"), theirs.entry("alias.corp.test"))
	for host, cert := range map[string]*tls.Certificate{
		"h1": self,
		"h2": leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"alias.corp.test", "h2.corp.test"} }),
	} {
		a, req := w.shows(cert)
		var out fleetapi.EnrolResponse
		a.must(200, "POST", fleetapi.PathEnrol, req, &out)
		if out.Host != hosts+"/"+host || out.Tenant != tenantA {
			t.Errorf("the certificate of %s enrols %+v", host, out)
		}
	}
	// And none of what they claim is theirs.
	a, req := w.shows(leaf(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"alias.corp.test"} }))
	a.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, req)
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEvictionHolds: an evicted host does not come back by a certificate that
// somebody may have copied, until somebody says so who may be what is placed
// on it.
func TestEvictionHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := newPKI(t, nil, nil)
	w.owner.knownHost(201, "h1", root.entry("h1.corp.test"))
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "p", vms+"/vm1")
	a, req := w.shows(leaf(t, root, nil))
	a.must(200, "POST", fleetapi.PathEnrol, req, nil)
	w.owner.must(200, "POST", hosts+"/h1/evict", "")
	out := func(when string) {
		t.Helper()
		if status, b := a.do("POST", fleetapi.PathEnrol, req); status != 403 || !strings.Contains(string(b), "readmit") {
			t.Errorf("%s: an evicted host enrols with %d %s", when, status, b)
		}
	}
	out("at once")
	if ev := w.last(tenantA, 1)[0]; ev.Outcome != audit.Refused || ev.Action != "Innate.Fleet/hosts/enrol/action" || ev.Host != "h1" || !strings.Contains(ev.Reason, "evicted") {
		t.Errorf("on record as %+v", ev)
	}
	w.owner.knownHost(200, "h1", root.entry("h1.corp.test")) // somebody's automation puts it again
	out("put again")
	w.owner.must(200, "PATCH", hosts+"/h1", `{"tags":{"a":"b"}}`)
	out("patched")
	again := w.owner.enrol("h1") // with a token
	out("enrolled by a token")
	again.must(200, "GET", fleetapi.PathPlacements, nil, nil)

	mallory := w.as(tenantA, unique("mallory"), roleContributor+" "+hosts+"/h1")
	mallory.refused(403, "LinkedAuthorizationFailed", "POST", hosts+"/h1/readmit", "")
	out("readmitted by one who may not")
	w.owner.must(200, "POST", hosts+"/h1/readmit", "")
	a.must(200, "POST", fleetapi.PathEnrol, req, nil)
	again.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)

	w.owner.must(200, "PATCH", hosts+"/h1", `{"properties":{"certificates":[]}}`)
	a.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, req)
	w.owner.knownHost(200, "h1", root.entry("h1.corp.test"))
	a.must(200, "POST", fleetapi.PathEnrol, req, nil)
	w.owner.must(200, "DELETE", hosts+"/h1", "")
	a.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, req)
}

// TestWhoMaySayByWhatAHostIsKnown: with a certificate of one's own in the list,
// one is all that is placed on the host.
func TestWhoMaySayByWhatAHostIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	mine, theirs := leaf(t, nil, nil), leaf(t, nil, nil)
	w.owner.knownHost(201, "h1", pinned(theirs))
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	mallory := w.as(tenantA, unique("mallory"), roleContributor+" "+hosts+"/h1")
	mallory.knownHost(200, "h1", pinned(theirs), pinned(mine)) // nothing is placed there yet
	mallory.knownHost(200, "h1", pinned(theirs))
	w.owner.place("h1", "p", vms+"/vm1")
	body := `{"properties":{"certificates":[` + pinned(theirs) + `,` + pinned(mine) + `]}}`
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", hosts+"/h1", body)
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", hosts+"/h1", body)
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", hosts+"/h1", `{"Properties":{"CERTIFICATES":[`+pinned(mine)+`]}}`)
	mallory.must(200, "PATCH", hosts+"/h1", `{"tags":{"a":"b"}}`) // which changes nothing of it
	mallory.knownHost(200, "h1", pinned(theirs))
	a, req := w.shows(mine)
	a.refused(problem.BadCredential, "POST", fleetapi.PathEnrol, req)
	mallory.must(200, "PATCH", hosts+"/h1", `{"properties":{"certificates":null}}`) // nobody enrols by it any more
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", hosts+"/h1", body)
	w.owner.knownHost(200, "h1", pinned(theirs))

	// A certificate is of one host, whatever tenant asks.
	w.owner.refused(409, "Conflict", "PUT", hosts+"/h2", `{"properties":{"certificates":[`+pinned(theirs)+`]}}`)
	b.refused(409, "Conflict", "PUT", hosts+"/h2", `{"properties":{"certificates":[`+pinned(theirs)+`]}}`)
	ca := newPKI(t, nil, nil)
	for what, entries := range map[string]string{
		"a string":           `"x"`,
		"an object":          `{"thumbprint":"x"}`,
		"a bad thumbprint":   `[{"thumbprint":"abc"}]`,
		"a SHA-1":            `[{"thumbprint":"` + strings.Repeat("a", 40) + `"}]`,
		"nothing in it":      `[{}]`,
		"a name alone":       `[{"name":"h1.corp.test"}]`,
		"an authority alone": `[` + strings.Replace(ca.entry("x"), `"name":"x"`, `"name":""`, 1) + `]`,
		"a wildcard":         `[` + ca.entry("*.corp.test") + `]`,
		"both":               `[` + strings.Replace(ca.entry("x"), `{`, `{"thumbprint":"`+strings.Repeat("a", 64)+`",`, 1) + `]`,
		"a misspelt member":  `[{"thumbprint":"` + strings.Repeat("a", 64) + `","nmae":"x"}]`,
		"a leaf's":           `[` + string(mustJSON(t, fleet.KnownCertificate{Authority: string(pemCertificate(mine.Certificate[0])), Name: "h1.corp.test"})) + `]`,
		"two authorities":    `[` + string(mustJSON(t, fleet.KnownCertificate{Authority: strings.Repeat(string(pemCertificate(ca.cert.Raw)), 2), Name: "h1.corp.test"})) + `]`,
		"too many":           `[` + strings.Repeat(pinned(mine)+",", 16) + pinned(mine) + `]`,
	} {
		if e, _ := w.owner.must(400, "PUT", hosts+"/h3", `{"properties":{"certificates":`+entries+`}}`)["error"].(map[string]any); e["message"] == "" {
			t.Errorf("%s is refused without a word", what)
		}
	}
}

// TestRenewalsAreBounded: a host gets a certificate a minute at most, and the
// ones before the last two count no more.
func TestRenewalsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	renew := func(a *agent) *agent {
		t.Helper()
		w.advance(fleet.MinRenewal)
		key := newKey(t)
		var out fleetapi.EnrolResponse
		a.must(200, "POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, key, nil)}, &out)
		return &agent{w: w, http: w.client("", &tls.Certificate{Certificate: [][]byte{out.Certificate}, PrivateKey: key})}
	}
	h.refused(problem.Throttled, "POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, newKey(t), nil)})
	lost, h2 := renew(h), renew(h)
	lost.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
	h.must(200, "GET", fleetapi.PathPlacements, nil, nil)
	h3 := renew(h2)
	h.refused(problem.Unauthenticated, "POST", fleetapi.PathRenew, fleetapi.RenewRequest{CSR: csr(t, newKey(t), nil)})
	h3.must(200, "GET", fleetapi.PathPlacements, nil, nil)
	w.owner.must(200, "POST", hosts+"/h1/evict", "")
	for _, a := range []*agent{h2, h3} {
		a.refused(problem.Unauthenticated, "GET", fleetapi.PathPlacements, nil)
	}
}
