package sts

import (
	"context"
	"net/http"

	"github.com/innate-id/innate/internal/problem"
)

// What tests in sts_test need of the inside.

var (
	ParseForm  = parseForm
	WriteToken = (*Service).writeToken
)

// HasWords reports whether the table of words has the kind.
func HasWords(k problem.Kind) bool {
	w, ok := words[k]
	return ok && w.status >= 400 && w.err != "" && w.code > 0
}

// Kinds is how many kinds the table of words has.
func Kinds() int { return len(words) }

// Audience is the form's audience at the endpoint of the version.
func (f Form) Audience(v1 bool) (string, error) { return f.audience(v1) }

// Resolve resolves an audience in a tenant.
func (s *Service) Resolve(ctx context.Context, tenant, asked string) (Audience, error) {
	return s.audience(ctx, tenant, asked)
}

// WriteProblem writes a problem of the kind.
func (s *Service) WriteProblem(w http.ResponseWriter, r *http.Request, k problem.Kind, detail string) {
	s.writeProblem(w, r, problem.Errorf(k, "%s", detail))
}

// Own is whose issuer it is, if it is ours.
func (s *Service) Own(ctx context.Context, issuer string) (string, bool, error) {
	return s.own(ctx, issuer)
}
