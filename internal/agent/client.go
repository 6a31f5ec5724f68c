package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/innate-id/innate/internal/agent/hostkey"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// maxAnswer bounds an answer of the control plane, in bytes.
const maxAnswer = 64 << 20

// client speaks [fleetapi] to the control plane. Every failure is a
// [problem.Error]: the control plane's own word, or [problem.Unavailable] if
// there was none.
type client struct {
	base string
	http *http.Client
}

// newClient returns a client that shows key's certificate, whichever it is at
// the time of the connection.
func newClient(cfg Config, key *hostkey.Key) *client {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	transport := &http.Transport{
		// No proxy: what the environment says about one is for other programs.
		DialContext: dial,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			RootCAs:    cfg.CA,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if cert := key.Certificate(); cert != nil {
					return cert, nil
				}
				return new(tls.Certificate), nil // none: only enrolment goes through without
			},
		},
		TLSHandshakeTimeout:   3 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   16,
		// HTTP/1: a connection that died takes one request with it, not all.
		Protocols: http1(),
	}
	return &client{base: cfg.ControlPlane, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// showing returns a client that shows another certificate, on connections of
// its own that end with each request.
func (c *client) showing(cert *tls.Certificate) *client {
	transport := c.http.Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return &client{base: c.base, http: &http.Client{Transport: transport, CheckRedirect: c.http.CheckRedirect}}
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

func (c *client) enrol(ctx context.Context, req fleetapi.EnrolRequest) (resp fleetapi.EnrolResponse, err error) {
	err = c.call(ctx, http.MethodPost, fleetapi.PathEnrol, req, &resp)
	return resp, err
}

func (c *client) renew(ctx context.Context, req fleetapi.RenewRequest) (resp fleetapi.EnrolResponse, err error) {
	err = c.call(ctx, http.MethodPost, fleetapi.PathRenew, req, &resp)
	return resp, err
}

func (c *client) placements(ctx context.Context) (resp fleetapi.Placements, err error) {
	err = c.call(ctx, http.MethodGet, fleetapi.PathPlacements, nil, &resp)
	return resp, err
}

func (c *client) token(ctx context.Context, req fleetapi.TokenRequest) (resp fleetapi.TokenResponse, err error) {
	err = c.call(ctx, http.MethodPost, fleetapi.PathToken, req, &resp)
	if err == nil && (resp.AccessToken == "" || resp.Expires.IsZero()) {
		return resp, problem.Errorf(problem.Unavailable, "the control plane gave an answer without a token")
	}
	return resp, err
}

func (c *client) instance(ctx context.Context, req fleetapi.InstanceRequest) (resp fleetapi.Instance, err error) {
	err = c.call(ctx, http.MethodPost, fleetapi.PathInstance, req, &resp)
	if err == nil && (resp.ID == "" || resp.UID == "") {
		return resp, problem.Errorf(problem.Unavailable, "the control plane gave an answer without a resource")
	}
	return resp, err
}

func (c *client) attest(ctx context.Context, req fleetapi.AttestRequest) (resp fleetapi.AttestResponse, err error) {
	err = c.call(ctx, http.MethodPost, fleetapi.PathAttest, req, &resp)
	if err == nil && len(resp.Signature) == 0 {
		return resp, problem.Errorf(problem.Unavailable, "the control plane gave an answer without a signature")
	}
	return resp, err
}

func (c *client) events(ctx context.Context, req fleetapi.EventsRequest) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.call(ctx, http.MethodPost, fleetapi.PathEvents, req, nil)
}

// changes opens the change stream. The caller closes it.
func (c *client) changes(ctx context.Context, after int64) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, fmt.Sprintf("%s?after=%d", fleetapi.PathChanges, after), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// call sends in as JSON, if there is any, and reads the answer into out.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding a message to the control plane: %w", err)
		}
	}
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return unreached(err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return &problem.Error{Kind: problem.Unavailable, Detail: "the control plane's answer does not parse", Err: fmt.Errorf("decoding the answer to %s: %w", path, err)}
	}
	return nil
}

// do sends a request and returns a successful answer; its body is the
// caller's to close.
func (c *client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request to the control plane: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreached(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, unreached(err)
	}
	return nil, refused(resp.StatusCode, text)
}

func unreached(err error) error {
	return &problem.Error{Kind: problem.Unavailable, Detail: "the control plane cannot be reached", Err: err}
}

// refused is the control plane's refusal as a problem. A fault of its own is
// [problem.Unavailable] here: it decided nothing, and may the next time.
func refused(status int, body []byte) error {
	var e fleetapi.Error
	if err := json.Unmarshal(body, &e); err == nil && slices.Contains(problem.Kinds(), problem.Kind(e.Kind)) {
		if k := problem.Kind(e.Kind); k != problem.Internal {
			return problem.Errorf(k, "%s", e.Detail)
		}
	}
	// Anything else is not from the fleet's API: a load balancer, another server.
	kind := problem.Unavailable
	switch status {
	case http.StatusUnauthorized:
		kind = problem.Unauthenticated
	case http.StatusForbidden:
		kind = problem.Denied
	case http.StatusTooManyRequests:
		kind = problem.Throttled
	}
	return &problem.Error{Kind: kind, Detail: fmt.Sprintf("the control plane answered with status %d", status)}
}
