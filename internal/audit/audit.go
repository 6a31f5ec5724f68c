// Package audit says what an event is and how events are chained. An [Event]
// is one decision: who, what, on what, allowed or not, and why. Events are
// committed in batches; each [Batch] carries the hash of the one before it in
// its chain, so that a record taken out or changed later shows ([Verify]).
//
// There is a chain for the management writes of a tenant and one for every
// replica's tokens and data-plane calls: a chain has one writer at a time, and
// so no chain makes two replicas wait for each other.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Outcomes of an event.
const (
	Allowed = "allowed"
	Denied  = "denied"  // refused for lack of a right
	Refused = "refused" // refused for any other reason (unknown identity, bad credential)
)

// Event is one decision on record.
type Event struct {
	// Tenant is the directory concerned.
	Tenant string `json:"-"`
	// At is when it was decided, in UTC, to the millisecond.
	At time.Time `json:"at"`
	// Action is what was asked: a management or data action
	// ("Microsoft.KeyVault/vaults/secrets/getSecret/action") or one of
	// Innate's own ("Innate.Token/issue/action").
	Action string `json:"action"`
	// Target is the resource ID or URL that it was asked on.
	Target string `json:"target"`
	// Outcome is [Allowed], [Denied] or [Refused].
	Outcome string `json:"outcome"`
	// Principal is the object id of who asked; empty if nobody was
	// authenticated.
	Principal string `json:"principal,omitempty"`
	// Name is the principal in words.
	Name string `json:"name,omitempty"`
	// Host is the machine that the request came through, for tokens.
	Host string `json:"host,omitempty"`
	// Via is the local program behind the request, as evidence has it.
	Via string `json:"via,omitempty"`
	// Reason says why: the role assignment that allowed, or what lacked.
	Reason string `json:"reason,omitempty"`
	// Audience is the API that a token was issued for.
	Audience string `json:"audience,omitempty"`
	// Token is the issued or presented token's unique id (uti), never the
	// token itself.
	Token string `json:"token,omitempty"`
	// Count is how often this happened, when repeats are counted; 0 means once.
	Count int64 `json:"count,omitempty"`
	// Request is the request id that the client was given.
	Request string `json:"request,omitempty"`
}

// Batch is the unit of commitment: the events that one transaction recorded.
type Batch struct {
	Tenant string
	// Chain names the chain; [ManagementChain] or a replica's name.
	Chain string
	// Seq counts the batches of the chain from 1.
	Seq int64
	// Prev is the hash of the batch before, "" for the first.
	Prev string
	// Body is the events as JSON, exactly as hashed.
	Body []byte
	// Hash is hex SHA-256 over tenant, chain, seq, prev and body.
	Hash string
}

// ManagementChain is the chain of a tenant's management writes.
const ManagementChain = "management"

// Chained makes the batch of events that follows (seq, hash) in chain.
func Chained(tenant, chain string, seq int64, hash string, events []Event) (Batch, error) {
	// A copy: the writer may keep its events to try again.
	events = append([]Event{}, events...)
	for i := range events {
		events[i].At = events[i].At.UTC().Truncate(time.Millisecond)
	}
	body, err := json.Marshal(events)
	if err != nil {
		return Batch{}, fmt.Errorf("encoding %d events: %w", len(events), err)
	}
	b := Batch{Tenant: tenant, Chain: chain, Seq: seq + 1, Prev: hash, Body: body}
	b.Hash = b.sum()
	return b, nil
}

// Events decodes the batch's events.
func (b Batch) Events() ([]Event, error) {
	var out []Event
	if err := json.Unmarshal(b.Body, &out); err != nil {
		return nil, fmt.Errorf("decoding batch %s/%d: %w", b.Chain, b.Seq, err)
	}
	for i := range out {
		out[i].Tenant = b.Tenant
	}
	return out, nil
}

func (b Batch) sum() string {
	h := sha256.New()
	// Lengths keep one field's end from being read as the next one's start.
	fmt.Fprintf(h, "innate audit v1\n%d:%s\n%d:%s\n%d\n%d:%s\n%d\n", len(b.Tenant), b.Tenant, len(b.Chain), b.Chain, b.Seq, len(b.Prev), b.Prev, len(b.Body))
	h.Write(b.Body)
	return hex.EncodeToString(h.Sum(nil))
}

// Verify checks that batches, in order, are an unbroken run of one chain that
// follows (seq, hash); for a whole chain that is (0, ""). The error names the
// first batch that does not fit.
func Verify(seq int64, hash string, batches []Batch) error {
	for i, b := range batches {
		switch {
		case i > 0 && (b.Tenant != batches[0].Tenant || b.Chain != batches[0].Chain):
			return fmt.Errorf("batch %s/%d is of another chain", b.Chain, b.Seq)
		case b.Seq != seq+1:
			return fmt.Errorf("chain %s: batch %d follows %d", b.Chain, b.Seq, seq)
		case b.Prev != hash:
			return fmt.Errorf("chain %s: batch %d does not follow the batch before it", b.Chain, b.Seq)
		case b.Hash != b.sum():
			return fmt.Errorf("chain %s: batch %d was changed after it was written", b.Chain, b.Seq)
		}
		seq, hash = b.Seq, b.Hash
	}
	return nil
}
