// Package fleetapi is the messages between an agent and the control plane:
// structs only, shared by both sides. All bodies are JSON over TLS at
// fleet.{domain}; everything but [PathEnrol] asks for the host's client
// certificate.
//
//	POST /agent/enrol     EnrolRequest   -> EnrolResponse    (a one-time token, or a certificate that the host has already)
//	POST /agent/renew     RenewRequest   -> EnrolResponse
//	GET  /agent/placements               -> Placements
//	GET  /agent/changes?after=N          -> Change, Change, ... one JSON object a line, never ending
//	POST /agent/token     TokenRequest   -> TokenResponse
//	POST /agent/events    EventsRequest  -> 204
//	POST /agent/instance  InstanceRequest -> Instance
//	POST /agent/attest    AttestRequest  -> AttestResponse
//
// Errors are an [Error] with a 4xx or 5xx status.
package fleetapi

import (
	"encoding/json"
	"time"
)

// The paths.
const (
	PathEnrol      = "/agent/enrol"
	PathRenew      = "/agent/renew"
	PathPlacements = "/agent/placements"
	PathChanges    = "/agent/changes"
	PathToken      = "/agent/token"
	PathEvents     = "/agent/events"
	PathInstance   = "/agent/instance"
	PathAttest     = "/agent/attest"
)

// Heartbeat is how often the change stream says something even when nothing
// changed. A reader that heard nothing for [Bound] trusts its cache no more.
const Heartbeat = 300 * time.Millisecond

// Bound is how old the last word from the stream may be for a cached answer
// to be given without asking (the freshness rule).
const Bound = time.Second

// EnrolRequest turns a one-time token into a host certificate. Without a token,
// the connection must show a client certificate that the host is known by.
type EnrolRequest struct {
	// Token is the one-time token.
	Token string `json:"token,omitempty"`
	// CSR is a PKCS#10 request in DER with the host's public key (ECDSA
	// P-256). Its subject is ignored: the token is bound to a host.
	CSR []byte `json:"csr"`
}

// RenewRequest asks for a new certificate, before the old one expires, for
// the key in CSR.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// EnrolResponse is a host's certificate.
type EnrolResponse struct {
	// Host is the resource ID of the host.
	Host string `json:"host"`
	// Tenant is the tenant's id.
	Tenant string `json:"tenant"`
	// Certificate is the client certificate in DER.
	Certificate []byte `json:"certificate"`
	// Expires is when it ends; renew at half of its life.
	Expires time.Time `json:"expires"`
}

// Placement says: what comes through Door of this host from callers that
// match all Selectors is Resource.
type Placement struct {
	// Name is the placement's name on its host.
	Name string `json:"name"`
	// UID is the placement's for as long as it lives, also when the host or the
	// resource moves and has another ID. "" from a control plane that has none.
	UID string `json:"uid,omitempty"`
	// Door is the agent's door, by name; "run" is programs started by
	// "innate run" through the agent's control socket.
	Door string `json:"door"`
	// Selectors must all hold; none means every caller of the door.
	Selectors []string `json:"selectors,omitempty"`
	// Resource is the resource ID of the workload.
	Resource string `json:"resource"`
}

// CallerRule says: on Resource, callers that match all Selectors may have
// Identity for Audiences. An agent takes a mode or grade that it does not know
// for one that refuses.
type CallerRule struct {
	// Resource is the resource ID that the rule is on, Name its name there.
	Resource string `json:"resource"`
	Name     string `json:"name"`
	// Selectors must all hold; there is at least one.
	Selectors []string `json:"selectors"`
	// Identity is a resource ID; empty means any identity of the resource.
	Identity string `json:"identity,omitempty"`
	// Audiences is empty for every audience.
	Audiences []string `json:"audiences,omitempty"`
	// Grade is the word of the least grade of evidence; empty for any.
	Grade string `json:"grade,omitempty"`
	// Mode is [ModeEnforce] or [ModeAudit].
	Mode string `json:"mode"`
}

// The modes of a caller rule.
const (
	ModeEnforce = "enforce"
	ModeAudit   = "audit"
)

// Placements is all that the control plane has placed on the host, with the
// caller rules of what is placed.
type Placements struct {
	// Revision is the tenant revision that the list reflects.
	Revision   int64        `json:"revision"`
	Placements []Placement  `json:"placements"`
	Rules      []CallerRule `json:"rules,omitempty"`
}

// Change is one line of the change stream. A line without drops is a
// heartbeat; its revision is then how far the stream has come.
type Change struct {
	Revision int64 `json:"revision"`
	// Resources are resource IDs, in lower case, whose cached tokens must go.
	Resources []string `json:"resources,omitempty"`
	// Principals are object ids whose cached tokens must go.
	Principals []string `json:"principals,omitempty"`
	// Placements says that the host's placements changed: fetch them anew.
	Placements bool `json:"placements,omitempty"`
	// All says that everything cached must go: the stream cannot tell what
	// was missed.
	All bool `json:"all,omitempty"`
	// More says that this is not all that happened up to now: the next line
	// follows at once, and the reader has not caught up before it.
	More bool `json:"more,omitempty"`
}

// TokenRequest asks for a token of an identity of a resource placed on the
// host. At most one of ClientID, ObjectID and ResourceID is set; none means
// the default identity.
type TokenRequest struct {
	// Workload is the resource ID that the caller was placed at.
	Workload string `json:"workload"`
	// Placement is the name of the placement that said so.
	Placement string `json:"placement"`
	// Audience is the API, exactly as the workload asked for it.
	Audience   string `json:"audience"`
	ClientID   string `json:"clientId,omitempty"`
	ObjectID   string `json:"objectId,omitempty"`
	ResourceID string `json:"resourceId,omitempty"`
	// Caller is the evidence in words (evidence.Evidence.String).
	Caller string `json:"caller"`
	// Evidence is what the caller rules are judged by.
	Evidence Evidence `json:"evidence"`
}

// Evidence is what an agent knows of a caller.
type Evidence struct {
	Door      string   `json:"door"`
	Selectors []string `json:"selectors,omitempty"`
	// Grade is the word of its grade.
	Grade string `json:"grade"`
	// Interpreter says that the executable runs programs that it is given.
	Interpreter bool `json:"interpreter,omitempty"`
}

// TokenResponse is a token and what the metadata dialects say about it.
type TokenResponse struct {
	AccessToken string `json:"accessToken"`
	// TokenID is the token's uti, for the record.
	TokenID string `json:"tokenId"`
	// Principal is the identity's object id, ClientID its client id.
	Principal string `json:"principal"`
	ClientID  string `json:"clientId"`
	// Identity is the resource ID that the identity belongs to.
	Identity string `json:"identity"`
	// Resource echoes the audience.
	Resource  string    `json:"resource"`
	NotBefore time.Time `json:"notBefore"`
	Expires   time.Time `json:"expires"`
	// Revision is the tenant revision at which the token was issued: a
	// change with a lower or equal revision does not concern it.
	Revision int64 `json:"revision"`
}

// Served is a count of answers that an agent gave from memory.
type Served struct {
	// At is when the last one of the count was given.
	At        time.Time `json:"at"`
	Count     int64     `json:"count"`
	Workload  string    `json:"workload"`
	Principal string    `json:"principal"`
	Audience  string    `json:"audience"`
	TokenID   string    `json:"tokenId"`
	Caller    string    `json:"caller"`
	// Stale says that the control plane could not be asked first.
	Stale bool `json:"stale,omitempty"`
	// Would is why the caller rules in audit mode would have refused it.
	Would string `json:"would,omitempty"`
}

// Refusal is a request that the agent refused by itself (no placement, no
// caller rule).
type Refusal struct {
	At     time.Time `json:"at"`
	Count  int64     `json:"count"`
	Caller string    `json:"caller"`
	Reason string    `json:"reason"`
}

// EventsRequest ships what the host recorded. Batch is its number on the
// host: the same number sent twice is recorded once.
type EventsRequest struct {
	Batch    int64     `json:"batch"`
	Served   []Served  `json:"served,omitempty"`
	Refusals []Refusal `json:"refusals,omitempty"`
}

// InstanceRequest asks what a resource placed on the host is.
type InstanceRequest struct {
	Workload  string `json:"workload"`
	Placement string `json:"placement"`
	// Caller and Evidence are as in TokenRequest, where there is a caller.
	Caller   string   `json:"caller,omitempty"`
	Evidence Evidence `json:"evidence,omitzero"`
}

// Instance is what a resource knows of itself.
type Instance struct {
	// ID is the resource ID, UID a GUID that names this life of the resource.
	ID       string            `json:"id"`
	UID      string            `json:"uid"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Tenant   string            `json:"tenant"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	// Properties are those members of the resource's own document that programs
	// may know, as their author wrote them: no passwords, no custom data.
	Properties json.RawMessage `json:"properties,omitempty"`
	// Revision is as in TokenResponse.
	Revision int64 `json:"revision"`
}

// AttestRequest asks for a signed statement of what a resource placed on the
// host is.
type AttestRequest struct {
	Workload  string `json:"workload"`
	Placement string `json:"placement"`
	// Nonce is up to 32 letters and digits; empty for one made by the signer.
	Nonce string `json:"nonce,omitempty"`
	// Caller and Evidence are as in TokenRequest: the resource's caller rules
	// say who may have a document, which is for the audience [AudienceAttest].
	Caller   string   `json:"caller"`
	Evidence Evidence `json:"evidence"`
}

// AudienceAttest is what caller rules call attested documents: a rule that has
// audiences must have this one for its callers to get any.
const AudienceAttest = "innate:attested-document"

// AttestResponse is an attested document.
type AttestResponse struct {
	// Signature is a PKCS #7 SignedData in DER with the document in it.
	Signature []byte `json:"signature"`
}

// Error is the body of a refusal. Kind is a problem.Kind.
type Error struct {
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
}
