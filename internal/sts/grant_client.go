package sts

import (
	"context"

	"github.com/innate-id/innate/internal/problem"
)

// grants are the grant types that the token endpoint has.
var grants = map[string]grant{
	"client_credentials": grantClientCredentials,
}

// grantClientCredentials: a client that proves who it is with a credential of
// its own (RFC 6749 section 4.4). Innate hands out no client secrets, and trusts no
// foreign issuer yet; so no credential can verify, and each refusal says which
// part lacked and what to do instead.
func grantClientCredentials(_ context.Context, _ *Service, r Request) (subject, error) {
	f := r.Form
	switch {
	case f.ClientID == "":
		return subject{}, problem.Errorf(problem.MissingParameter, "AADSTS900144: The request body must contain the following parameter: 'client_id'.")
	case f.ClientSecret != "":
		return subject{}, problem.Errorf(problem.BadCredential, "AADSTS7000215: Invalid client secret provided. Innate gives out no client secrets: run the program as a workload, with a managed identity")
	case f.Assertion != "":
		return subject{}, problem.Errorf(problem.BadCredential, "AADSTS70021: No matching federated identity record found for presented assertion")
	}
	return subject{}, problem.Errorf(problem.NoCredential, "AADSTS7000218: The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
}
