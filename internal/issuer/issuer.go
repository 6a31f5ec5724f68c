// Package issuer is the keys of other token issuers: found through OpenID
// Connect discovery, kept for a while, fetched anew when a token names a key
// that is not among them.
//
// Addresses that others name are asked from here, so everything is bounded: how
// far away an address may be ([Reach]), how long an answer may take and be, how
// often an issuer is asked. Who calls [Keys.Of] has found that a credential
// trusts the issuer: nobody else's word makes this process open a connection.
//
// The verifier's own library has a key set that fetches by itself (go-oidc's
// RemoteKeySet); it asks at every unknown key, reads answers of any length, and
// keeps a key that the issuer withdrew for as long as no unknown one is shown.
package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/token"
)

const (
	// Fresh is how long keys are used without asking: a key that the issuer
	// withdraws is good for so long at most while the issuer answers.
	Fresh = 10 * time.Minute
	// Kept is how long they are used when the issuer does not answer.
	Kept = time.Hour
	// Again is how soon an issuer is asked again, for a key that it did not have
	// or after it did not answer: whoever shows tokens cannot make us ask more.
	Again = 10 * time.Second
	// Timeout ends a fetch, of both documents.
	Timeout = 5 * time.Second

	maxDiscovery = 64 << 10
	maxKeySet    = 512 << 10
	// maxIssuers bounds the issuers that are remembered.
	maxIssuers = 1000
)

// Config says how far issuers may be.
type Config struct {
	// Reach is the furthest inwards that an issuer may be. Default [Private].
	Reach Reach
	// Hosts are all host names that issuers may have, "*.example.com" for those
	// below one; empty for any.
	Hosts []string
	// Roots are whom to trust for issuers' certificates; nil for the system's.
	Roots *x509.CertPool
	Now   func() time.Time

	at func(netip.Addr) Reach // [reachOf], but in tests
}

// Keys are the keys of all issuers that were asked for lately.
type Keys struct {
	cfg    Config
	client *http.Client

	flight singleflight.Group
	mu     sync.Mutex
	known  map[string]*set // by issuer; guarded by mu
}

// set is what is known of an issuer. It is never changed.
type set struct {
	keys []token.Key
	// read is when the keys were fetched; zero if they never were.
	read time.Time
	// tried is when the issuer was asked last, and failed what came of it.
	tried  time.Time
	failed error
}

// New makes an empty set of keys.
func New(cfg Config) *Keys {
	if cfg.at == nil {
		cfg.at = reachOf
	}
	k := &Keys{cfg: cfg, known: map[string]*set{}}
	k.client = &http.Client{
		Timeout: Timeout,
		// Keys are where the issuer says, and nowhere that whoever answers there says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			// No proxy: it would be the one to choose the address. And a connection
			// for each request: one that another issuer's documents came through was
			// held against what that issuer may.
			DialContext: cfg.dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: Timeout, MaxResponseHeaderBytes: 16 << 10,
		},
	}
	return k
}

// Of returns the issuer's keys, with the one that the assertion names among
// them if the issuer has it. [problem.Unavailable] if the issuer does not answer
// as it should; its detail says in what.
func (k *Keys) Of(ctx context.Context, issuer string, a *token.Assertion) ([]token.Key, error) {
	now := k.cfg.Now()
	s, found := k.get(issuer), false
	if s != nil {
		_, found = a.Find(s.keys)
	}
	if !s.due(now, found) {
		return s.answer(now)
	}
	v, err, _ := k.flight.Do(issuer, func() (any, error) {
		// Not the first caller's context: those who wait with it have theirs.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
		defer cancel()
		return k.refresh(ctx, issuer), nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*set).answer(now)
}

func (k *Keys) get(issuer string) *set {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known[issuer]
}

// due reports whether to ask the issuer.
func (s *set) due(now time.Time, found bool) bool {
	switch {
	case s == nil:
		return true
	case now.Sub(s.tried) < Again && now.Sub(s.tried) >= 0:
		return false
	}
	return !found || now.Sub(s.read) >= Fresh || now.Before(s.read)
}

// answer is the keys, while they may be used.
func (s *set) answer(now time.Time) ([]token.Key, error) {
	if !s.read.IsZero() && now.Sub(s.read) < Kept {
		return s.keys, nil
	}
	return nil, s.failed
}

// refresh asks the issuer and remembers what came of it. What was known before
// stays if the issuer does not answer.
func (k *Keys) refresh(ctx context.Context, issuer string) *set {
	keys, err := k.fetch(ctx, issuer)
	now := k.cfg.Now()
	s := &set{keys: keys, read: now, tried: now}
	if err != nil {
		s = &set{tried: now, failed: err}
		if old := k.get(issuer); old != nil {
			s.keys, s.read = old.keys, old.read
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.known[issuer]; !ok && len(k.known) >= maxIssuers {
		for other := range k.known { // any: the next token of it asks again
			delete(k.known, other)
			break
		}
	}
	k.known[issuer] = s
	return s
}

// fetch reads the issuer's discovery document and the keys that it names.
func (k *Keys) fetch(ctx context.Context, issuer string) ([]token.Key, error) {
	path := &journey{limit: k.cfg.reach()}
	ctx = context.WithValue(ctx, journeyKey{}, path)
	b, err := k.read(ctx, issuer, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", maxDiscovery)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, failed(issuer, "its discovery document is not JSON", err)
	}
	if doc.Issuer != issuer { // OpenID Connect Discovery 1.0 section 4.3: exactly
		return nil, failed(issuer, fmt.Sprintf("its discovery document is of the issuer %q", problem.Clip(doc.Issuer)), nil)
	}
	// What a far issuer names is as far: it cannot send us into our own network.
	path.limit = min(path.limit, path.reached)
	if b, err = k.read(ctx, issuer, doc.JWKS, maxKeySet); err != nil {
		return nil, err
	}
	keys, err := token.ParseKeys(b)
	if err != nil {
		return nil, failed(issuer, problem.Of(err).Detail, nil)
	}
	return keys, nil
}

// read fetches one document.
func (k *Keys) read(ctx context.Context, issuer, from string, most int64) ([]byte, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, failed(issuer, "its keys are not at an https URL", nil)
	}
	if !k.cfg.named(u.Hostname()) {
		return nil, failed(issuer, fmt.Sprintf("the host %s is not one that issuers may have here (setting federation.hosts)", problem.Clip(u.Hostname())), nil)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, failed(issuer, "its keys are not at an https URL", nil)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "innate")
	resp, err := k.client.Do(req)
	if err != nil {
		if far, ok := errors.AsType[*tooFar](err); ok {
			return nil, failed(issuer, far.Error(), nil)
		}
		return nil, failed(issuer, "it does not answer", err)
	}
	defer resp.Body.Close()
	ct, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode/100 == 3:
		return nil, failed(issuer, "it answers with a redirect, and none is followed", nil)
	case resp.StatusCode != http.StatusOK:
		return nil, failed(issuer, fmt.Sprintf("it answers with status %d", resp.StatusCode), nil)
	case ct == "text/html":
		return nil, failed(issuer, "it answers with a page", nil)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, failed(issuer, "its answer ends early", err)
	}
	if int64(len(b)) > most {
		return nil, failed(issuer, fmt.Sprintf("its answer is over %d bytes long", most), nil)
	}
	return b, nil
}

// failed is an issuer that cannot be asked. The cause is for the log: it can
// hold addresses of our network.
func failed(issuer, why string, err error) error {
	return &problem.Error{Kind: problem.Unavailable, Detail: fmt.Sprintf("the keys of the issuer %s cannot be read: %s", problem.Clip(issuer), why), Err: err}
}
