// Package vault is a store of secrets behind Key Vault's data plane: unmodified
// clients of Azure Key Vault read and write here with a token.
//
// What a newcomer would get wrong:
//
//   - The right is checked before anything is looked up or read. Who lacks it
//     gets the same 403 for a secret that exists and for one that does not.
//   - A body may come long after its headers. A write is decided before its body
//     is read and again after, and holds only for the very vault that was found.
//   - Nothing leaves before it is on record. A write commits with its event; a
//     read is recorded before its answer is written; a refusal is recorded too.
//   - nbf and exp are information for the reader, as in Azure. Only enabled:
//     false keeps a version from being read.
//   - Deleting hides a secret for [Retention] and keeps its name; purging is what
//     removes it.
//   - A role is in the caller's own directory and says nothing about a vault of
//     another tenant, even where the scopes read alike.
//
// This version has secrets only; keys, certificates and backups are refused by
// name.
package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
)

// Retention is how long a deleted secret can be recovered.
const Retention = 90 * 24 * time.Hour

// The data actions, under Microsoft.KeyVault/vaults/secrets/.
const (
	actionGet      = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	actionSet      = "Microsoft.KeyVault/vaults/secrets/setSecret/action"
	actionMetadata = "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
	actionUpdate   = "Microsoft.KeyVault/vaults/secrets/update/action"
	actionDelete   = "Microsoft.KeyVault/vaults/secrets/delete"
	actionRecover  = "Microsoft.KeyVault/vaults/secrets/recover/action"
	actionPurge    = "Microsoft.KeyVault/vaults/secrets/purge/action"

	// requests is what is on record of a request of which nobody can say what
	// was asked, with read, write, delete or action after it.
	requests = "Microsoft.KeyVault/vaults/requests/"
)

// Vault is the rules of all vaults. Its methods take who asks and which vault
// ([Vault.Find]).
type Vault struct {
	Store Store
	// Box seals the values; only sealed ones reach the store.
	Box *seal.Box
	// Authorize answers whether the caller may do the operation. It
	// is asked at every call and nothing it says is kept.
	Authorize func(ctx context.Context, c access.Caller, op access.Operation) (access.Decision, error)
	Now       func() time.Time
	// Random makes version names; nil means crypto/rand.
	Random io.Reader
}

// Value is a secret in the clear. It prints as [redacted].
type Value string

const redacted = "[redacted]"

// String keeps the value out of messages; string(v) is the value.
func (v Value) String() string { return redacted }

// GoString is for %#v.
func (v Value) GoString() string { return redacted }

// LogValue keeps the value out of logs.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// ask checks c's right to action at the vault, or with a name at that secret
// of it, and begins the event. What it refuses is on record already.
func (v *Vault) ask(ctx context.Context, c access.Caller, at Place, action, name string) (audit.Event, error) {
	scope := at.ID
	if name != "" {
		var err error
		if scope, err = at.ID.Child("secrets", name); err != nil {
			return audit.Event{}, fmt.Errorf("naming secret %s: %w", name, err)
		}
	}
	ev := v.event(c, at, action, scope)
	d, err := v.decide(ctx, c, at, action, scope)
	if err != nil {
		return ev, fmt.Errorf("authorizing %s on %s: %w", action, scope, err)
	}
	if d.Allowed {
		ev.Reason = d.By.String()
		if d.By.IsZero() {
			ev.Reason = d.String() // no assignment: Innate's own act
		}
		return ev, nil
	}
	ev.Outcome, ev.Reason = audit.Denied, d.String()
	if c.Tenant != at.Tenant {
		ev.Reason = "the caller is of another tenant"
	}
	if err := v.Store.Record(ctx, ev); err != nil {
		return ev, fmt.Errorf("recording a denial: %w", err)
	}
	return ev, recorded{&problem.Error{Kind: problem.Denied, Detail: denial(c, at, action, scope)}}
}

// event begins an event that allows.
func (v *Vault) event(c access.Caller, at Place, action string, on resource.ID) audit.Event {
	return audit.Event{
		Tenant: at.Tenant, At: v.Now(), Action: action, Target: on.String(), Outcome: audit.Allowed,
		Principal: c.Principal, Name: c.Name, Via: c.Via, Request: c.Request,
	}
}

// recorded is a refusal that is on record.
type recorded struct{ error }

func (e recorded) Unwrap() error { return e.error }

func (v *Vault) decide(ctx context.Context, c access.Caller, at Place, action string, scope resource.ID) (access.Decision, error) {
	if c.Tenant != at.Tenant {
		// Resource IDs of two tenants may read alike: a role at / in one would
		// contain the other's vaults.
		return access.Decision{}, nil
	}
	return v.Authorize(ctx, c, access.Operation{Action: action, Data: true, Scope: scope})
}

// denial is Key Vault's own text, which people paste into search boxes.
func denial(c access.Caller, at Place, action string, scope resource.ID) string {
	return strings.Join([]string{
		"Caller is not authorized to perform action on resource.",
		"Caller: appid=" + c.Client + ";oid=" + c.Principal + ";iss=" + c.Issuer,
		"Action: '" + action + "'",
		"Resource: '" + scope.String() + "'",
		"Assignment: (not found)",
		"DenyAssignmentId: null",
		"DecisionReason: null ",
		"Vault: " + at.Name + ";location=" + at.Location,
		"",
	}, "\r\n")
}

// refused records that what ev was allowed could not be done, and returns why.
func (v *Vault) refused(ctx context.Context, ev audit.Event, why error) error {
	// Only the kind: a detail may repeat what the client sent.
	ev.Outcome, ev.Reason = audit.Refused, string(problem.Of(why).Kind)
	if err := v.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a refusal (%s): %w", ev.Reason, err)
	}
	return recorded{why}
}

// sealing is the record that a value belongs to. Neither another vault's nor
// another version's sealed value opens in its place.
func sealing(at Place, name, version string) seal.Context {
	return seal.Context{Tenant: at.Tenant, Kind: "secret", ID: at.ID.Key() + "/secrets/" + strings.ToLower(name), Version: version}
}

// newVersion makes the name of a version.
func (v *Vault) newVersion() (string, error) {
	from := v.Random
	if from == nil {
		from = rand.Reader
	}
	b := make([]byte, 16)
	if _, err := io.ReadFull(from, b); err != nil {
		return "", fmt.Errorf("making a version: %w", err)
	}
	return hex.EncodeToString(b), nil
}
