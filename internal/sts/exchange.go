package sts

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/token"
)

// clockLeeway is what other issuers' clocks are forgiven.
const clockLeeway = 5 * time.Minute

// exchange finds the identity that a foreign token stands for. The order is
// what keeps a stranger from having us do things: the client must exist, and one
// of its credentials trust the issuer, before the issuer is asked for its keys;
// and what the credentials say is held against the token, and told, when its
// signature has verified.
//
// A token may be shown again until it expires: the field's clients do, each
// process on a host with the same file.
func (s *Service) exchange(ctx context.Context, tenant, client, raw string) (subject, error) {
	a, cl, err := parseAssertion(raw)
	if err != nil {
		return subject{}, err
	}
	p, err := s.client(ctx, tenant, client)
	if err != nil {
		return subject{}, err
	}
	who := subject{principal: p, proof: "2"}
	who.reason = fmt.Sprintf("assertion of the issuer %q for %q, not verified", problem.Clip(cl.Issuer), problem.Clip(cl.Subject))
	if !p.Enabled {
		return who.refused(problem.Denied, "AADSTS7000112: the identity %s is disabled", p.Client)
	}
	trusts, err := s.Directory.Store.TrustsIssuer(ctx, tenant, p.ID, cl.Issuer)
	if err != nil {
		return who, err
	}
	if !trusts {
		return who.refused(problem.BadCredential, "AADSTS700211: No matching federated identity record found for presented assertion issuer '%s'. Issuers compare exactly, with their case and the slash at their end.", echo(cl.Issuer))
	}
	if err := s.verifyAssertion(ctx, raw, a, cl.Issuer); err != nil {
		return who.because(err)
	}
	if err := s.inTime(cl); err != nil {
		return who.because(err)
	}
	return s.matching(ctx, who, cl)
}

// refused is a refusal that goes on record with what is known of the request.
func (w subject) refused(k problem.Kind, format string, args ...any) (subject, error) {
	return w.because(problem.Errorf(k, format, args...))
}

func (w subject) because(err error) (subject, error) {
	p := problem.Of(err)
	if p.Kind == problem.Internal {
		return subject{}, err
	}
	w.reason += ": " + p.Detail
	return w, err
}

// parseAssertion reads a token of which nothing is true yet.
func parseAssertion(raw string) (*token.Assertion, federation.Claims, error) {
	bad := func(err error) error {
		return problem.Errorf(problem.BadCredential, "AADSTS50027: JWT token is invalid or malformed: %s.", problem.Of(err).Detail)
	}
	a, err := token.ParseAssertion(raw)
	if err != nil {
		return nil, federation.Claims{}, bad(err)
	}
	cl, err := federation.ParseClaims(a.Unverified())
	if err != nil {
		return nil, cl, bad(err)
	}
	for name, missing := range map[string]bool{"iss": cl.Issuer == "", "sub": cl.Subject == "", "aud": len(cl.Audience) == 0, "exp": cl.Expires.IsZero()} {
		if missing {
			return nil, cl, bad(problem.Errorf(problem.Invalid, "it has no %s", name))
		}
	}
	return a, cl, nil
}

// client finds the identity that a client says it is.
func (s *Service) client(ctx context.Context, tenant, id string) (directory.Principal, error) {
	unknown := problem.Errorf(problem.UnknownClient, "AADSTS700016: Application with identifier '%s' was not found in the directory '%s'. Use the client id of a user-assigned identity.", echo(id), tenant)
	if !guid(id) {
		return directory.Principal{}, unknown
	}
	p, err := s.Directory.Store.PrincipalOfClient(ctx, tenant, id)
	if problem.Is(err, problem.UnknownClient) {
		return p, unknown
	}
	if err != nil {
		return p, fmt.Errorf("finding the client: %w", err)
	}
	return p, nil
}

// own reports whether the issuer is this installation, and of which tenant. By a
// name of the public cloud it is, if the tenant is here: others there are not ours.
func (s *Service) own(ctx context.Context, issuer string) (tenant string, ok bool, err error) {
	if rest, ok := strings.CutPrefix(issuer, s.Names.Login()+"/"); ok {
		tenant, _, _ = strings.Cut(rest, "/")
		return tenant, true, nil
	}
	_, rest, _ := strings.Cut(strings.TrimPrefix(issuer, "https://"), "/")
	if tenant, _, _ = strings.Cut(rest, "/"); !guid(tenant) || !slices.Contains(s.issuers(tenant), issuer) {
		return "", false, nil
	}
	_, err = s.Directory.Store.Tenant(ctx, tenant)
	if problem.Is(err, problem.UnknownTenant) {
		return "", false, nil
	}
	return tenant, err == nil, err
}

// verifyAssertion checks who signed the token. Our own are checked as whatever
// shows them is: one of a deleted identity, or of a machine that was evicted, is
// no good here either, nor is one that was made for another API.
func (s *Service) verifyAssertion(ctx context.Context, raw string, a *token.Assertion, issuer string) error {
	tenant, ok, err := s.own(ctx, issuer)
	if err != nil {
		return fmt.Errorf("finding out whose issuer %s is: %w", problem.Clip(issuer), err)
	}
	if ok {
		_, err := s.check(ctx, raw, Exchange, tenant)
		if p := problem.Of(err); err != nil && p.Kind != problem.Internal && p.Kind != problem.Unavailable {
			return problem.Errorf(problem.BadCredential, "AADSTS50027: JWT token is invalid or malformed: %s.", p.Detail)
		}
		return err
	}
	keys, err := s.Issuers.Of(ctx, issuer, a)
	if p := problem.Of(err); err != nil && p.Kind == problem.Unavailable {
		// 503, with a Retry-After of a second: clients of this kind try again, and
		// those in JavaScript, which stay away for a minute after any 5xx without
		// one, do not. A 4xx would have them give up for a fault that passes.
		return &problem.Error{Kind: problem.Unavailable, Detail: "AADSTS90033: " + p.Detail + ". Try again.", Err: p.Err}
	}
	if err != nil {
		return err
	}
	key, found := a.Find(keys)
	if !found {
		return problem.Errorf(problem.BadCredential, "AADSTS50027: JWT token is invalid or malformed: the issuer publishes no key with its kid '%s'.", echo(a.KeyID))
	}
	if _, err := a.Verify(key); err != nil {
		return problem.Errorf(problem.BadCredential, "AADSTS50027: JWT token is invalid or malformed: %s.", problem.Of(err).Detail)
	}
	return nil
}

// inTime checks the token's times.
func (s *Service) inTime(cl federation.Claims) error {
	now := s.Now()
	late := func(why string, at time.Time) error {
		return problem.Errorf(problem.TokenExpired, "AADSTS700024: Client assertion is not within its valid time range: %s %s; it is %s.", why, at.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	switch {
	case !now.Before(cl.Expires.Add(clockLeeway)):
		return late("it expired at", cl.Expires)
	case now.Add(clockLeeway).Before(cl.NotBefore):
		return late("it is not valid before", cl.NotBefore)
	case now.Add(clockLeeway).Before(cl.IssuedAt):
		return late("it was issued at", cl.IssuedAt)
	}
	return nil
}

// matching finds the credential that the verified claims match.
func (s *Service) matching(ctx context.Context, who subject, cl federation.Claims) (subject, error) {
	found, err := s.Directory.Store.FederatedCandidates(ctx, who.principal.Tenant, who.principal.ID, cl.Issuer, candidateSubject(cl))
	if err != nil {
		return subject{}, err
	}
	who.reason = fmt.Sprintf("assertion of the issuer %q for %q", problem.Clip(cl.Issuer), problem.Clip(cl.Subject))
	audience, expressions := false, false
	for _, c := range found {
		v := c.Match(cl)
		if v.Matches {
			who.credential = c
			who.reason += fmt.Sprintf(", by the federated credential %q", c.Name)
			return who, nil
		}
		audience = audience || v.Part("subject") || v.Part("expression")
		expressions = expressions || c.Subject == ""
	}
	switch {
	case audience:
		return who.refused(problem.BadCredential, "AADSTS700212: No matching federated identity record found for presented assertion audience '%s'. Check the credential's audiences.", echo(strings.Join(cl.Audience, "', '")))
	case expressions:
		return who.refused(problem.BadCredential, "AADSTS70021: No matching federated identity record found for presented assertion with the subject '%s'. No credential has this subject, and no expression is true for it; innate federation test says which came nearest.", echo(cl.Subject))
	}
	return who.refused(problem.BadCredential, "AADSTS700213: No matching federated identity record found for presented assertion subject '%s'. Subjects compare exactly; innate federation test says which came nearest.", echo(cl.Subject))
}

// candidateSubject is the subject to look for: one that is longer than any in a
// credential is in none.
func candidateSubject(cl federation.Claims) string {
	if len(cl.Subject) > federation.MaxSubject {
		return ""
	}
	return cl.Subject
}

// echo is a text of the client's in an answer to it: short, on one line.
func echo(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, problem.Clip(s))
}

// TryAssertion reads a token as [Service.exchange] would, for a dry run. It asks
// the issuer only if contact is set and the principal trusts it.
func (s *Service) TryAssertion(ctx context.Context, p directory.Principal, raw string, contact bool) (federation.Claims, federation.Signature, error) {
	a, cl, err := parseAssertion(raw)
	if err != nil {
		return cl, federation.Signature{}, problem.Errorf(problem.Invalid, "The member 'token' is not one that could be exchanged: %s", strings.TrimPrefix(problem.Of(err).Detail, "AADSTS50027: "))
	}
	_, own, err := s.own(ctx, cl.Issuer)
	if err != nil {
		return cl, federation.Signature{}, fmt.Errorf("finding out whose issuer %s is: %w", problem.Clip(cl.Issuer), err)
	}
	trusts, err := s.Directory.Store.TrustsIssuer(ctx, p.Tenant, p.ID, cl.Issuer)
	switch {
	case err != nil:
		return cl, federation.Signature{}, err
	case !trusts:
		return cl, federation.Signature{Why: "not checked: the identity has no credential of its issuer"}, nil
	case !contact && !own:
		return cl, federation.Signature{Why: "not checked: that takes the issuer's keys, and asking for them was not wanted (verify)"}, nil
	}
	err = s.verifyAssertion(ctx, raw, a, cl.Issuer)
	if err == nil {
		err = s.inTime(cl)
	}
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return cl, federation.Signature{Why: p.Detail}, nil
	}
	return cl, federation.Signature{Verified: err == nil}, err
}
