// Package agenttest is the other side of fleetapi for the agent's tests: a
// control plane on a real socket with mutual TLS, whose decisions a test
// writes. It is no mock of anything of ours: it speaks the protocol, and an
// agent cannot tell it from the real one. Only tests import it.
package agenttest

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// EnrolToken is the one-time token that a new control plane takes, once.
const EnrolToken = "one-time-token-of-the-test"

// HostID is the host that enrols with it.
const HostID = "/subscriptions/s/resourceGroups/g/providers/Innate.Fleet/hosts/h1"

// ControlPlane is a control plane with one tenant and one host.
type ControlPlane struct {
	URL   string
	CA    *x509.CertPool
	CAPEM []byte

	server *httptest.Server
	caKey  *ecdsa.PrivateKey
	ca     *x509.Certificate

	mu         sync.Mutex // guards what follows
	spent      bool
	evicted    bool
	down       bool
	mute       bool // streams stay open and say nothing
	behind     bool // streams say changes and never that those were all
	certLife   time.Duration
	revision   int64
	placements []fleetapi.Placement
	rules      []fleetapi.CallerRule
	asked      []fleetapi.TokenRequest // the latest
	log        []fleetapi.Change
	wake       chan struct{} // closed when streams have something to look at
	kick       chan struct{} // closed to end every stream
	token      func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error)
	events     func(fleetapi.EventsRequest) error
	instances  map[string]fleetapi.Instance // by resource ID
	batches    map[int64]fleetapi.EventsRequest
	calls      map[string]int
	minted     int
}

// New starts a control plane; it ends with the test.
func New(t testing.TB) *ControlPlane {
	t.Helper()
	c := &ControlPlane{
		certLife: 24 * time.Hour, revision: 1,
		wake: make(chan struct{}), kick: make(chan struct{}),
		batches: map[int64]fleetapi.EventsRequest{}, calls: map[string]int{}, instances: map[string]fleetapi.Instance{},
	}
	c.makeCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	c.server = httptest.NewUnstartedServer(c.handler())
	c.server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	c.server.StartTLS()
	c.URL = c.server.URL
	c.CA = x509.NewCertPool()
	c.CA.AddCert(c.server.Certificate())
	c.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	t.Cleanup(func() {
		c.Down(true)
		c.server.Close()
	})
	return c
}

func (c *ControlPlane) makeCA(t testing.TB) {
	t.Helper()
	var err error
	if c.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hosts"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &c.caKey.PublicKey, c.caKey)
	if err != nil {
		t.Fatal(err)
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
}

func (c *ControlPlane) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+fleetapi.PathEnrol, c.serveEnrol)
	mux.HandleFunc("POST "+fleetapi.PathRenew, c.serveRenew)
	mux.HandleFunc("GET "+fleetapi.PathPlacements, c.servePlacements)
	mux.HandleFunc("GET "+fleetapi.PathChanges, c.serveChanges)
	mux.HandleFunc("POST "+fleetapi.PathToken, c.serveToken)
	mux.HandleFunc("POST "+fleetapi.PathEvents, c.serveEvents)
	mux.HandleFunc("POST "+fleetapi.PathInstance, c.serveInstance)
	mux.HandleFunc("POST "+fleetapi.PathAttest, c.serveAttest)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		down, evicted := c.down, c.evicted
		c.calls[r.URL.Path]++
		c.mu.Unlock()
		if down {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				conn.Close()
			}
			return
		}
		if r.URL.Path != fleetapi.PathEnrol && (len(r.TLS.PeerCertificates) == 0 || evicted) {
			fail(w, problem.Errorf(problem.Unauthenticated, "no certificate of a known host"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func fail(w http.ResponseWriter, err error) {
	p := problem.Of(err)
	status := http.StatusBadRequest
	switch p.Kind {
	case problem.Unavailable:
		status = http.StatusServiceUnavailable
	case problem.Unauthenticated:
		status = http.StatusUnauthorized
	case problem.Denied, problem.CallerRefused:
		status = http.StatusForbidden
	case problem.Internal:
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(fleetapi.Error{Kind: string(p.Kind), Detail: p.Detail})
}

func (c *ControlPlane) serveEnrol(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.EnrolRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	c.mu.Lock()
	spent := c.spent
	c.spent = true
	c.evicted = false
	c.mu.Unlock()
	if spent || req.Token != EnrolToken {
		fail(w, problem.Errorf(problem.BadCredential, "the enrolment token is unknown or spent"))
		return
	}
	c.issue(w, req.CSR)
}

func (c *ControlPlane) serveRenew(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.RenewRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	c.issue(w, req.CSR)
}

func (c *ControlPlane) issue(w http.ResponseWriter, der []byte) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad CSR"))
		return
	}
	c.mu.Lock()
	life := c.certLife
	c.mu.Unlock()
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Second), NotAfter: now.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, c.ca, csr.PublicKey, c.caKey)
	if err != nil {
		fail(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(fleetapi.EnrolResponse{Host: HostID, Tenant: "t1", Certificate: cert, Expires: tmpl.NotAfter})
}

func (c *ControlPlane) servePlacements(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	p := fleetapi.Placements{Revision: c.revision, Placements: slices.Clone(c.placements), Rules: slices.Clone(c.rules)}
	c.mu.Unlock()
	_ = json.NewEncoder(w).Encode(p)
}

func (c *ControlPlane) serveChanges(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad after"))
		return
	}
	enc, flush := json.NewEncoder(w), http.NewResponseController(w)
	_ = flush.Flush()
	beat := time.NewTicker(fleetapi.Heartbeat)
	defer beat.Stop()
	for {
		c.mu.Lock()
		var lines []fleetapi.Change
		for _, ch := range c.log {
			if ch.Revision > after {
				lines = append(lines, ch)
			}
		}
		if !c.behind {
			lines = append(lines, fleetapi.Change{Revision: c.revision})
		}
		wake, kick, mute := c.wake, c.kick, c.mute
		if !mute {
			after = c.revision
		}
		c.mu.Unlock()
		for _, ch := range lines {
			if mute {
				break
			}
			if err := enc.Encode(ch); err != nil {
				return
			}
		}
		_ = flush.Flush()
		select {
		case <-r.Context().Done():
			return
		case <-kick:
			return
		case <-wake:
		case <-beat.C:
		}
	}
}

func (c *ControlPlane) serveToken(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.TokenRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	c.mu.Lock()
	decide := c.token
	c.asked = append(c.asked[max(0, len(c.asked)-maxAsked+1):], req)
	c.mu.Unlock()
	if decide == nil {
		decide = func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) { return c.Mint(req), nil }
	}
	resp, err := decide(req)
	if err != nil {
		fail(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(resp)
}

func (c *ControlPlane) serveEvents(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.EventsRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	c.mu.Lock()
	decide := c.events
	if _, sent := c.batches[req.Batch]; !sent {
		c.batches[req.Batch] = req
	}
	c.mu.Unlock()
	if decide != nil {
		if err := decide(req); err != nil {
			fail(w, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// maxAsked bounds what is kept of the questions for tokens.
const maxAsked = 1000

// Mint makes a token that lives for a day, as of now, of the identity that is
// named by its resource ID, else of the workload's own.
func (c *ControlPlane) Mint(req fleetapi.TokenRequest) fleetapi.TokenResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.minted++
	now := time.Now().Truncate(time.Second)
	return fleetapi.TokenResponse{
		AccessToken: fmt.Sprintf("token-%d", c.minted), TokenID: fmt.Sprintf("uti-%d", c.minted),
		Principal: "6f1e6a3c-0000-4000-8000-000000000001", ClientID: "6f1e6a3c-0000-4000-8000-000000000002",
		Identity: cmp.Or(req.ResourceID, req.Workload), Resource: req.Audience, NotBefore: now.Add(-5 * time.Minute), Expires: now.Add(24 * time.Hour),
		Revision: c.revision,
	}
}

// Decide sets how tokens are answered; nil mints one for every request.
func (c *ControlPlane) Decide(f func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = f
}

// OnEvents sets how a batch is answered after it was taken.
func (c *ControlPlane) OnEvents(f func(fleetapi.EventsRequest) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = f
}

// Place sets the host's placements and says so on the stream.
func (c *ControlPlane) Place(p ...fleetapi.Placement) int64 {
	return c.change(fleetapi.Change{Placements: true}, func() { c.placements = p })
}

// PlaceUnsaid sets the host's placements; the stream has not got there yet.
func (c *ControlPlane) PlaceUnsaid(p ...fleetapi.Placement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placements = p
}

// Rule sets the caller rules of what is placed and says so on the stream.
func (c *ControlPlane) Rule(r ...fleetapi.CallerRule) int64 {
	return c.change(fleetapi.Change{Placements: true}, func() { c.rules = r })
}

// RuleUnsaid sets the caller rules; the stream has not got there yet.
func (c *ControlPlane) RuleUnsaid(r ...fleetapi.CallerRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rules = r
}

// Set sets placements and caller rules in one change and says so on the stream.
func (c *ControlPlane) Set(p []fleetapi.Placement, r []fleetapi.CallerRule) int64 {
	return c.change(fleetapi.Change{Placements: true}, func() { c.placements, c.rules = p, r })
}

// Asked returns the latest questions for tokens, oldest first.
func (c *ControlPlane) Asked() []fleetapi.TokenRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// Would counts the answers that were shipped with a word of rules in audit
// mode, why in it.
func (c *ControlPlane) Would(why string) (served int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.batches {
		for _, s := range b.Served {
			if s.Would != "" && strings.Contains(s.Would, why) {
				served += s.Count
			}
		}
	}
	return served
}

// Push takes the next revision and says ch with it on the stream.
func (c *ControlPlane) Push(ch fleetapi.Change) int64 { return c.change(ch, func() {}) }

func (c *ControlPlane) change(ch fleetapi.Change, do func()) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	c.revision++
	ch.Revision = c.revision
	c.log = append(c.log, ch)
	close(c.wake)
	c.wake = make(chan struct{})
	return c.revision
}

// Down makes every connection end, or lets them in again.
func (c *ControlPlane) Down(down bool) {
	c.mu.Lock()
	c.down = down
	c.mu.Unlock()
	if down {
		c.EndStreams()
	}
}

// EndStreams ends every stream; agents connect again.
func (c *ControlPlane) EndStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.kick)
	c.kick = make(chan struct{})
}

// Mute keeps streams open without a word on them, or lets them speak again.
func (c *ControlPlane) Mute(mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = mute
	close(c.wake)
	c.wake = make(chan struct{})
}

// Behind makes streams say changes and never that those were all, or lets them
// catch up again.
func (c *ControlPlane) Behind(behind bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = behind
	close(c.wake)
	c.wake = make(chan struct{})
}

// Evict makes the host unknown, until it enrols anew with a fresh token.
func (c *ControlPlane) Evict() {
	c.mu.Lock()
	c.evicted, c.spent = true, false
	c.mu.Unlock()
	c.EndStreams()
}

// CertLife sets how long certificates issued from now on live.
func (c *ControlPlane) CertLife(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.certLife = d
}

// Calls returns how often a path was called.
func (c *ControlPlane) Calls(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[path]
}

// Recorded adds up what was shipped: how many answers from memory, how many of
// them stale, and how many refusals with reason in their reason.
func (c *ControlPlane) Recorded(reason string) (served, stale, refused int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.batches {
		for _, s := range b.Served {
			served += s.Count
			if s.Stale {
				stale += s.Count
			}
		}
		for _, r := range b.Refusals {
			if strings.Contains(r.Reason, reason) {
				refused += r.Count
			}
		}
	}
	return served, stale, refused
}

// Eventually waits until ok holds; what says what was waited for.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
