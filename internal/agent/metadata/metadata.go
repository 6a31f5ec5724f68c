// Package metadata is what the agent speaks at its doors: the dialects of the
// managed-identity endpoints that the SDKs know. Each dialect is one file with
// its paths, its shape of an answer and its table from [problem.Kind] to its
// own words.
//
// What a newcomer would get wrong: the bytes matter. Numbers are decimal
// strings, members are in alphabetical order, a refusal must be 400 where SDKs
// move on to the next credential and never a 404, 410, 429 or 5xx, which they
// retry for a minute. Paths come with doubled and trailing slashes and are
// never redirected. docs/divergences.md says where we differ on purpose.
package metadata

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// Caller is a local program that was found to be a workload.
type Caller struct {
	// Workload is the resource ID that it is, Placement the statement that
	// says so.
	Workload, Placement string
	Evidence            evidence.Evidence
	// Text is the evidence in words.
	Text string
	// Found is the agent's own: how it found the caller. May be nil.
	Found any
}

// Agent is what a dialect needs of the agent around it.
type Agent struct {
	// Place finds who asks by the connection, which ctx carries. A refusal is
	// [problem.CallerRefused] and is on record when Place returns.
	Place func(ctx context.Context) (*Caller, error)
	// Started finds who asks by the secret of a start;
	// [problem.Unauthenticated] if there is no such start.
	Started func(ctx context.Context, secret string) (*Caller, error)
	// Token returns a token for the caller, and where it came from. Whoever is
	// asked may keep c and q and know them again; nobody changes them, nor the
	// token.
	Token func(ctx context.Context, c *Caller, q *Query) (*fleetapi.TokenResponse, tokens.Source, error)
	// Instance returns what the caller's workload is.
	Instance func(ctx context.Context, c *Caller) (fleetapi.Instance, error)
	// Attest returns a signed statement of that, a PKCS #7 SignedData in DER.
	// nonce may be empty.
	Attest func(ctx context.Context, c *Caller, nonce string) ([]byte, error)
	// Tenant returns the id of the tenant that the host is in.
	Tenant func() string
	// Interfaces are what the host knows of the network of whoever comes in by
	// the door.
	Interfaces []Interface

	// Observe is told of every request once it is answered; may be nil. It must
	// not wait, and not keep the event.
	Observe func(*Event)

	Now func() time.Time
	Log *slog.Logger
}

// token asks for a token. That the workload itself is gone means, to the
// workload, that it has no identity.
func (a *Agent) token(ctx context.Context, ev *Event, c *Caller, q *Query) (*fleetapi.TokenResponse, error) {
	tok, from, err := a.Token(ctx, c, q)
	if ev.Cache = from; err == nil {
		return tok, nil
	}
	switch p := problem.Of(err); p.Kind {
	case problem.NotFound, problem.ParentNotFound, problem.GroupNotFound, problem.SubscriptionNotFound, problem.UnknownType:
		return tok, &problem.Error{Kind: problem.IdentityNotFound, Detail: p.Detail, Err: err}
	}
	return tok, err
}

// begin sets the headers that every answer has and returns the request's id.
func begin(w http.ResponseWriter) string {
	id := requestID()
	h := w.Header()
	h["X-Ms-Request-Id"] = []string{id}
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = typeJSON, noStore, noSniff
	return id
}

// requestID is a random GUID. It names a request, and need not be hard to guess.
func requestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4, as RFC 9562 has it
	return id.String()
}

// Values that every answer shares; whoever sets a header puts another in its
// place.
var (
	typeJSON = []string{"application/json; charset=utf-8"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
	ofIMDS   = []string{ServerIMDS}
)

// plain is an answer that is sent as text.
type plain string

// write sends body as JSON, or as it is if it is [plain].
func write(w http.ResponseWriter, status int, body any) {
	switch body := body.(type) {
	case answer:
		writeAnswer(w, status, body)
		return
	case plain:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		send(w, status, []byte(body))
		return
	}
	text, err := marshal(body)
	if err != nil {
		http.Error(w, `{"error":"unknown"}`, http.StatusInternalServerError)
		return
	}
	send(w, status, text)
}

// buffered is how much net/http keeps of an answer until it is whole, and then
// says by itself, and for less, how long it is.
const buffered = 2048

func send(w http.ResponseWriter, status int, text []byte) {
	if len(text) >= buffered {
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(text))}
	}
	w.WriteHeader(status)
	// A client that went away is no fault of ours.
	_, _ = w.Write(text)
}

// refusal sets what a status asks for besides the body.
func refusal(w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // not worth reading to its end
	}
}

// remaining is how many whole seconds are left, at least none.
func remaining(expires, now time.Time) int64 {
	return max(0, int64(expires.Sub(now)/time.Second))
}
