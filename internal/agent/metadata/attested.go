package metadata

import (
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// maxNonce is the longest nonce of an attested document.
const maxNonce = 32

type attestedDocument struct {
	Encoding  string `json:"encoding"`
	Signature []byte `json:"signature"` // base64 of the DER
}

// attested answers with the control plane's signed word about what the caller's
// workload is. It is no credential: whoever takes it for one must have chosen
// the nonce.
func (d *imds) attested(ev *Event, r *http.Request) (any, error) {
	v, err := documentQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	nonce := v.Get("nonce")
	if len(nonce) > maxNonce || strings.ContainsFunc(nonce, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return nil, problem.Errorf(problem.Invalid, "Query variable 'nonce' must be up to %d letters and digits", maxNonce)
	}
	c, err := d.place(r, ev)
	if err != nil {
		return nil, err
	}
	signature, err := d.Attest(r.Context(), c, nonce)
	if err != nil {
		return nil, err
	}
	return attestedDocument{Encoding: "pkcs7", Signature: signature}, nil
}

type identityInfo struct {
	TenantID string `json:"tenantId"`
}

// info says which tenant the caller's identity is in.
func (d *imds) info(ev *Event, r *http.Request) (any, error) {
	if _, err := documentQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if _, err := d.place(r, ev); err != nil {
		return nil, err
	}
	return identityInfo{d.Tenant()}, nil
}

type scheduledEvents struct {
	DocumentIncarnation int   `json:"DocumentIncarnation"`
	Events              []any `json:"Events"`
}

// events says that nothing is planned: nobody here moves or restarts a machine
// behind its owner's back. Programs that look for events every second expect
// an answer.
func (d *imds) events(ev *Event, r *http.Request) (any, error) {
	if _, err := documentQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if _, err := d.place(r, ev); err != nil {
		return nil, err
	}
	return scheduledEvents{DocumentIncarnation: 1, Events: []any{}}, nil
}
