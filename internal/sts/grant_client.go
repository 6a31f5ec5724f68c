package sts

import (
	"context"

	"github.com/innate-id/innate/internal/problem"
)

// grants are the grant types that the token endpoint has.
var grants = map[string]grant{
	"client_credentials": grantClientCredentials,
}

// jwtBearer is how a client says that its credential is a signed token (RFC
// 7523 section 2.2).
const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// grantClientCredentials: a client that proves who it is with a credential of
// its own (RFC 6749 section 4.4). Innate hands out no client secrets; what a
// client can show is a token of an issuer that a federated credential of the
// identity trusts. Each refusal says which part lacked and what to do instead.
func grantClientCredentials(ctx context.Context, s *Service, r Request) (subject, error) {
	f := r.Form
	switch {
	case f.ClientID == "":
		return subject{}, problem.Errorf(problem.MissingParameter, "AADSTS900144: The request body must contain the following parameter: 'client_id'.")
	case f.ClientSecret != "":
		return subject{}, problem.Errorf(problem.BadCredential, "AADSTS7000215: Invalid client secret provided. Innate gives out no client secrets: run the program as a workload, with a managed identity")
	case f.Assertion == "":
		return subject{}, problem.Errorf(problem.NoCredential, "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	case f.AssertionType == "":
		return subject{}, problem.Errorf(problem.MissingParameter, "AADSTS900144: The request body must contain the following parameter: 'client_assertion_type'.")
	case f.AssertionType != jwtBearer:
		return subject{}, problem.Errorf(problem.Invalid, "AADSTS90013: The client_assertion_type '%s' is not supported; %s is.", problem.Clip(f.AssertionType), jwtBearer)
	}
	return s.exchange(ctx, r.Tenant, f.ClientID, f.Assertion)
}
