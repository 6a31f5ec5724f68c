package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

// TryAssertion reads a token as if it were shown for the principal. It asks the
// token's issuer for its keys only if contact is set, and a credential of the
// principal trusts it.
type TryAssertion func(ctx context.Context, p directory.Principal, token string, contact bool) (federation.Claims, federation.Signature, error)

// evaluateRequest is the body of POST {identity}/evaluateFederatedToken. One of
// Token and Claims is set.
type evaluateRequest struct {
	// Token is a token of another issuer. It is neither kept nor logged.
	Token string `json:"token"`
	// Claims are what a token would say.
	Claims json.RawMessage `json:"claims"`
	// Verify asks the token's issuer for its keys, to check the signature.
	Verify bool `json:"verify"`
}

// String keeps a token out of logs.
func (evaluateRequest) String() string { return "[redacted]" }

// evaluation says whether a token would do, and how near each credential came.
type evaluation struct {
	Matches bool `json:"matches"`
	// Credential is the name of the one that matches.
	Credential string              `json:"credential,omitempty"`
	Signature  evaluationSignature `json:"signature"`
	// Nearest are the credentials, what matches first, then what came nearest:
	// at most 20. Others is how many there are besides.
	Nearest []evaluationNear `json:"nearest"`
	Others  int              `json:"others"`
}

type evaluationSignature struct {
	Verified bool   `json:"verified"`
	Why      string `json:"why,omitempty"`
}

type evaluationNear struct {
	Credential string           `json:"credential"`
	Matches    bool             `json:"matches"`
	Parts      []evaluationPart `json:"parts"`
}

type evaluationPart struct {
	Part    string `json:"part"`
	Matches bool   `json:"matches"`
	Why     string `json:"why"`
}

// nearestMost is how many credentials a dry run tells of.
const nearestMost = 20

// evaluate is a dry run: would this token do for the identity, and if not, what
// came nearest?
func (a *API) evaluate(try TryAssertion) func(context.Context, access.Caller, Resource, json.RawMessage, *audit.Event) (any, error) {
	return func(ctx context.Context, _ access.Caller, r Resource, body json.RawMessage, ev *audit.Event) (any, error) {
		p, err := a.Store.PrincipalOf(ctx, r.Tenant, r.ID.Key())
		if err != nil {
			return nil, fmt.Errorf("reading the principal of %s: %w", r.ID, err)
		}
		cl, sig, err := readEvaluate(ctx, try, p, body)
		if err != nil {
			return nil, err
		}
		out, err := a.nearest(ctx, p, cl)
		if err != nil {
			return nil, err
		}
		out.Signature = evaluationSignature{sig.Verified, sig.Why}
		ev.Reason += fmt.Sprintf("; a dry run of the issuer %q for %q: matches=%v", problem.Clip(cl.Issuer), problem.Clip(cl.Subject), out.Matches)
		if err := a.Store.Record(ctx, *ev); err != nil {
			return nil, fmt.Errorf("recording a dry run: %w", err)
		}
		return out, nil
	}
}

func readEvaluate(ctx context.Context, try TryAssertion, p directory.Principal, body json.RawMessage) (federation.Claims, federation.Signature, error) {
	var q evaluateRequest
	if err := json.Unmarshal(body, &q); err != nil || (q.Token == "") == isNull(q.Claims) {
		// Not the decoder's words: they could hold a piece of the token.
		return federation.Claims{}, federation.Signature{}, problem.Errorf(problem.Invalid, "The request content needs either 'token' (a string) or 'claims' (an object), and may have 'verify' (true or false).")
	}
	if q.Token != "" {
		return try(ctx, p, q.Token, q.Verify)
	}
	cl, err := federation.ParseClaims(q.Claims)
	if err != nil {
		return cl, federation.Signature{}, problem.Errorf(problem.Invalid, "The member 'claims' is not what a token could say: %s.", problem.Of(err).Detail)
	}
	why := "there is none: these are claims without a token"
	if !cl.Expires.IsZero() {
		why += " (they say that it expires at " + cl.Expires.Format(time.RFC3339) + ")"
	}
	return cl, federation.Signature{Why: why}, nil
}

// judged is a credential and how the claims stand to it.
type judged struct {
	name    string
	verdict federation.Verdict
}

// nearest holds the claims against all of the principal's credentials.
func (a *API) nearest(ctx context.Context, p directory.Principal, cl federation.Claims) (evaluation, error) {
	out := evaluation{Nearest: []evaluationNear{}}
	var best []judged
	for page := (Page{Limit: 1000}); ; {
		cs, err := a.Store.FederatedCredentials(ctx, p.Tenant, p.ID, page)
		if err != nil {
			return out, err
		}
		for _, c := range cs {
			best = append(best, judged{c.Name, c.Match(cl)})
		}
		slices.SortStableFunc(best, func(x, y judged) int { return federation.Nearer(x.verdict, y.verdict) })
		if len(best) > nearestMost {
			out.Others += len(best) - nearestMost
			best = best[:nearestMost]
		}
		if len(cs) < page.Limit {
			break
		}
		page.After = cs[len(cs)-1].Name
	}
	for _, j := range best {
		n := evaluationNear{Credential: j.name, Matches: j.verdict.Matches, Parts: []evaluationPart{}}
		for _, f := range j.verdict.Findings {
			n.Parts = append(n.Parts, evaluationPart{f.Part, f.Matches, f.Why})
		}
		out.Nearest = append(out.Nearest, n)
	}
	if len(best) > 0 && best[0].verdict.Matches {
		out.Matches, out.Credential = true, best[0].name
	}
	return out, nil
}
