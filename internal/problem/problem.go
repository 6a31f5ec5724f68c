// Package problem is the one error type that crosses a surface: what went
// wrong, said for the client, with the cause kept for the log.
//
// A domain returns a [*Error] when the client can act on what happened;
// everything else is a plain wrapped error, which [Of] turns into [Internal]
// without showing it. Each surface (OAuth, ARM, Key Vault, metadata) has one
// table from [Kind] to its own code and status, and a test that every kind in
// [Kinds] is in it.
package problem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind says what went wrong, in words that every surface can translate.
type Kind string

// The kinds. A new one goes into [Kinds] and into the table of every surface.
const (
	// Invalid is malformed input: a body, a name, a value out of its range.
	Invalid Kind = "invalid"
	// MissingParameter is a required query or form parameter that is absent.
	MissingParameter Kind = "missing_parameter"
	// MissingAPIVersion is a request without api-version.
	MissingAPIVersion Kind = "missing_api_version"
	// BadAPIVersion is an api-version that is no date and no version.
	BadAPIVersion Kind = "bad_api_version"
	// BadID is a resource ID that is none, or not one of what is asked for.
	BadID Kind = "bad_id"
	// BadName is a resource name that its type does not allow.
	BadName Kind = "bad_name"
	// BadFilter is a filter that cannot be read, or asks what cannot be asked.
	BadFilter Kind = "bad_filter"
	// NotSupported is something that this version of Innate cannot do.
	NotSupported Kind = "not_supported"
	// MethodNotAllowed is a known path with a verb that it does not have.
	MethodNotAllowed Kind = "method_not_allowed"
	// TooLarge is a body, header or value over its bound.
	TooLarge Kind = "too_large"

	// Unauthenticated is a request without a credential, or with one that
	// does not verify.
	Unauthenticated Kind = "unauthenticated"
	// TokenExpired is a token after its exp.
	TokenExpired Kind = "token_expired"
	// WrongAudience is a good token made for another API.
	WrongAudience Kind = "wrong_audience"
	// Revoked is a good token whose principal is deleted, disabled or revoked.
	Revoked Kind = "revoked"

	// Denied is a caller without the right.
	Denied Kind = "denied"
	// LinkedDenied is a caller without the right on a second resource that
	// the request names (an identity to attach).
	LinkedDenied Kind = "linked_denied"
	// CallerRefused is a local caller whom no placement or rule admits.
	CallerRefused Kind = "caller_refused"

	// NotFound is an object that does not exist.
	NotFound Kind = "not_found"
	// ParentNotFound is a resource whose parent resource does not exist.
	ParentNotFound Kind = "parent_not_found"
	// GroupNotFound is an unknown resource group.
	GroupNotFound Kind = "group_not_found"
	// SubscriptionNotFound is an unknown subscription.
	SubscriptionNotFound Kind = "subscription_not_found"
	// UnknownType is a resource type that is not registered.
	UnknownType Kind = "unknown_type"
	// VaultNotFound is a host name that no vault has.
	VaultNotFound Kind = "vault_not_found"
	// PrincipalNotFound is a role assignment to an unknown principal.
	PrincipalNotFound Kind = "principal_not_found"
	// RoleNotFound is a role assignment of an unknown role.
	RoleNotFound Kind = "role_not_found"
	// IdentityNotFound is a token request for an identity that the resource
	// does not have.
	IdentityNotFound Kind = "identity_not_found"

	// Conflict is a state that forbids the request.
	Conflict Kind = "conflict"
	// Exists is a name that is taken.
	Exists Kind = "exists"
	// AssignmentExists is the same role, principal and scope under another name.
	AssignmentExists Kind = "assignment_exists"
	// Immutable is a change to a member that cannot change.
	Immutable Kind = "immutable"
	// BadIdentity is an identity block that names an unknown identity or
	// breaks its rules.
	BadIdentity Kind = "bad_identity"
	// DeletedRecoverable is a name held by a soft-deleted object.
	DeletedRecoverable Kind = "deleted_recoverable"
	// Disabled is an object that its owner switched off.
	Disabled Kind = "disabled"
	// MoveFailed is a move of which some resources cannot be part; More says
	// which.
	MoveFailed Kind = "move_failed"
	// PreconditionFailed is an If-Match or If-None-Match that does not hold.
	PreconditionFailed Kind = "precondition_failed"

	// Locked is a change to what a lock protects.
	Locked Kind = "locked"
	// Interrupted is an operation whose process ended before it did.
	Interrupted Kind = "interrupted"

	// UnknownTenant is a tenant that does not exist.
	UnknownTenant Kind = "unknown_tenant"
	// UnknownClient is a client id that the tenant does not have.
	UnknownClient Kind = "unknown_client"
	// BadCredential is a client credential that does not verify.
	BadCredential Kind = "bad_credential"
	// NoCredential is a token request without a client credential.
	NoCredential Kind = "no_credential"
	// UnknownAudience is an API that the tenant does not know.
	UnknownAudience Kind = "unknown_audience"
	// BadScope is a scope that is not one resource and /.default.
	BadScope Kind = "bad_scope"
	// UnsupportedGrant is a grant_type that the token service does not have.
	UnsupportedGrant Kind = "unsupported_grant"

	// Throttled is a caller over its rate.
	Throttled Kind = "throttled"
	// Unavailable is a part that is down; the client may try again.
	Unavailable Kind = "unavailable"
	// Internal is a fault of ours. Its cause is logged, never shown.
	Internal Kind = "internal"
)

// Kinds lists every kind, for the tables' tests.
func Kinds() []Kind {
	return []Kind{
		Invalid, MissingParameter, MissingAPIVersion, BadAPIVersion, BadID, BadName, BadFilter, NotSupported, MethodNotAllowed, TooLarge,
		Unauthenticated, TokenExpired, WrongAudience, Revoked,
		Denied, LinkedDenied, CallerRefused,
		NotFound, ParentNotFound, GroupNotFound, SubscriptionNotFound, UnknownType, VaultNotFound,
		PrincipalNotFound, RoleNotFound, IdentityNotFound,
		Conflict, Exists, AssignmentExists, Immutable, BadIdentity, DeletedRecoverable, Disabled, MoveFailed, PreconditionFailed, Locked, Interrupted,
		UnknownTenant, UnknownClient, BadCredential, NoCredential, UnknownAudience, BadScope, UnsupportedGrant,
		Throttled, Unavailable, Internal,
	}
}

// Error is a problem to report to the client. Detail is shown to the client;
// Err is logged and never shown.
type Error struct {
	Kind   Kind
	Detail string
	// Target is the part of the request that is at fault, in the surface's own
	// words: a member of the body, a query parameter, a header. "" for none.
	Target string
	// More are further faults of the same request, where they were found at
	// once. Surfaces with no room for them show the first.
	More []*Error
	// After is when the client may come again, from now on, where that is known.
	After time.Duration
	Err   error
}

// RetryAfter is After as the header of that name has it: in whole seconds, at
// least one, so that nobody comes again too early.
func (e *Error) RetryAfter() string {
	return strconv.FormatInt(int64(max((e.After+time.Second-1)/time.Second, 1)), 10)
}

func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Kind) + ": " + e.Detail
	}
	return string(e.Kind) + ": " + e.Detail + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns a problem of kind k. The text goes to the client, so it wraps
// nothing; to keep a cause for the log, write the struct.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// At says which part of the request is at fault; it returns e.
func (e *Error) At(target string) *Error {
	e.Target = target
	return e
}

// Join returns one problem for several faults of a request, nil for none: the
// first, with the others in More. An error that is no problem is all there is.
func Join(errs ...error) error {
	var first *Error
	for _, err := range errs {
		if err == nil {
			continue
		}
		p, ok := errors.AsType[*Error](err)
		if !ok {
			return err
		}
		if first == nil {
			clone := *p
			first = &clone
			continue
		}
		first.More = append(first.More, p)
	}
	if first == nil {
		return nil
	}
	return first
}

// Of reports err as a problem, of kind Internal if it carries none.
func Of(err error) *Error {
	if p, ok := errors.AsType[*Error](err); ok {
		return p
	}
	return &Error{Kind: Internal, Detail: "internal error", Err: err}
}

// Is reports whether err carries a problem of kind k.
func Is(err error, k Kind) bool {
	p, ok := errors.AsType[*Error](err)
	return ok && p.Kind == k
}

// maxClip bounds what an error, a log line or an event repeats of a client's
// input, in bytes.
const maxClip = 200

// Clip returns s, or its beginning if it is long: whole characters only.
func Clip(s string) string {
	if len(s) <= maxClip {
		return s
	}
	return strings.ToValidUTF8(s[:maxClip], "") + "..."
}
