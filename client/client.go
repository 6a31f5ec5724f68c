// Package client is for workloads: tokens of the identity that the program
// runs as, and secrets read with them. It imports nothing but the standard
// library.
//
//	var id client.Identity
//	tok, err := id.Token(ctx, "https://vault.azure.net")
//
//	v := client.Vault{URL: "https://demo.vault.example.com"}
//	s, err := v.Get(ctx, "greeting")
//
// The zero Identity is the workload's default identity, asked for at the
// endpoint that the environment names: IDENTITY_ENDPOINT with IDENTITY_HEADER
// (the App Service shape), else AZURE_POD_IDENTITY_AUTHORITY_HOST, else
// http://169.254.169.254 (the IMDS shape).
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Token is an access token.
type Token struct {
	// Value is the bearer token. Never log it.
	Value string
	// Expires is when it ends.
	Expires time.Time
	// ClientID is the client id of the identity that it is of.
	ClientID string
	// Resource echoes the audience that was asked for.
	Resource string
}

// String keeps the token out of messages.
func (t Token) String() string {
	return "token for " + t.Resource + " until " + t.Expires.UTC().Format(time.RFC3339) + " [redacted]"
}

// Error is a refusal of the local endpoint or of a vault.
type Error struct {
	// Status is the HTTP status, Code the error's code where there is one.
	Status int
	Code   string
	// Message is for people.
	Message string
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("%s (HTTP %d)", e.Message, e.Status)
	}
	return fmt.Sprintf("%s: %s (HTTP %d)", e.Code, e.Message, e.Status)
}

// Identity is one of the workload's identities. Its methods may be called
// from many goroutines; do not copy it after first use.
type Identity struct {
	// ClientID picks a user-assigned identity; empty means the default one.
	ClientID string
	// Endpoint and Header are the local endpoint in the App Service shape and
	// its secret; empty means what the environment says.
	Endpoint, Header string
	// HTTP calls the local endpoint. Default: a client without a proxy.
	HTTP *http.Client

	mu     sync.Mutex
	tokens map[string]*flight // by resource; guarded by mu
}

// flight is one token, had or on its way.
type flight struct {
	done chan struct{} // closed when tok and err are set
	tok  Token
	err  error
}

// early is how long before its end a token is replaced.
const early = 5 * time.Minute

// Token returns a token for the API called resource
// ("https://vault.azure.net"). It asks the local endpoint when it has none, or
// one that ends within five minutes; concurrent calls share one request. A
// refusal is an [*Error].
func (id *Identity) Token(ctx context.Context, resource string) (Token, error) {
	id.mu.Lock()
	f := id.tokens[resource]
	if f == nil || f.stale() {
		f = &flight{done: make(chan struct{})}
		if id.tokens == nil {
			id.tokens = map[string]*flight{}
		}
		id.tokens[resource] = f
		// One caller that gives up must not fail the others.
		go f.fetch(context.WithoutCancel(ctx), id, resource)
	}
	id.mu.Unlock()
	select {
	case <-f.done:
		return f.tok, f.err
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
}

func (f *flight) stale() bool {
	select {
	case <-f.done:
		return f.err != nil || time.Until(f.tok.Expires) < early
	default:
		return false
	}
}

const fetchTimeout = 30 * time.Second

func (f *flight) fetch(ctx context.Context, id *Identity, resource string) {
	defer close(f.done)
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	f.tok, f.err = id.ask(ctx, resource)
}

// direct is for the local endpoint: a proxy would see the token, and the
// endpoint refuses what came through one.
var direct = &http.Client{
	Transport:     &http.Transport{Proxy: nil, ForceAttemptHTTP2: false},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (id *Identity) ask(ctx context.Context, resource string) (Token, error) {
	req, err := id.request(ctx, resource)
	if err != nil {
		return Token{}, err
	}
	hc := id.HTTP
	if hc == nil {
		hc = direct
	}
	resp, err := hc.Do(req)
	if err != nil {
		return Token{}, fmt.Errorf("asking the local endpoint: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return Token{}, fmt.Errorf("reading the local endpoint's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return Token{}, metadataError(resp.StatusCode, body)
	}
	var a struct {
		AccessToken string      `json:"access_token"`
		ExpiresOn   json.Number `json:"expires_on"`
		ClientID    string      `json:"client_id"`
		Resource    string      `json:"resource"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.AccessToken == "" {
		return Token{}, errors.New("the local endpoint's answer is not a token")
	}
	sec, err := strconv.ParseInt(a.ExpiresOn.String(), 10, 64)
	if err != nil {
		return Token{}, errors.New("the local endpoint's answer has no expires_on in unix seconds")
	}
	return Token{Value: a.AccessToken, Expires: time.Unix(sec, 0), ClientID: a.ClientID, Resource: a.Resource}, nil
}

// request is the question in the shape that the environment asks for.
func (id *Identity) request(ctx context.Context, resource string) (*http.Request, error) {
	q := url.Values{"resource": {resource}}
	if id.ClientID != "" {
		q.Set("client_id", id.ClientID)
	}
	header, value := "Metadata", "true"
	endpoint, secret := id.Endpoint, id.Header
	if endpoint == "" {
		endpoint, secret = os.Getenv("IDENTITY_ENDPOINT"), os.Getenv("IDENTITY_HEADER")
	}
	if endpoint != "" && secret != "" {
		q.Set("api-version", "2019-08-01")
		header, value = "X-Identity-Header", secret
	} else {
		q.Set("api-version", "2018-02-01")
		host := strings.TrimSuffix(os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"), "/")
		if host == "" {
			host = "http://169.254.169.254"
		}
		endpoint = host + "/metadata/identity/oauth2/token"
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("the local endpoint's address is not a URL: %w", err)
	}
	for k, v := range u.Query() {
		q[k] = v
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking the local endpoint: %w", err)
	}
	req.Header.Set(header, value)
	return req, nil
}

// metadataError reads the error of either shape.
func metadataError(status int, body []byte) error {
	var e struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Message     string `json:"message"`
	}
	if json.Unmarshal(body, &e) != nil || e.Description == "" && e.Message == "" {
		e.Message = "the local endpoint refused"
	}
	if e.Message == "" {
		e.Message = e.Description
	}
	return &Error{Status: status, Code: e.Error, Message: e.Message}
}
