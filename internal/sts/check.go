package sts

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/token"
	"github.com/innate-id/innate/internal/web"
)

// check verifies a token for an API of the family and finds its principal.
func (s *Service) check(ctx context.Context, raw string, family Family, tenant string) (access.Caller, error) {
	var keyErr error
	claims, err := token.Verify(raw, token.Expect{
		Tenant:   tenant,
		Issuers:  s.issuers,
		Audience: func(aud string) bool { f, ok := s.family(aud); return ok && f == family },
		Key: func(t, kid string) (crypto.PublicKey, bool) {
			if !guid(t) { // nothing vouches for it yet
				return nil, false
			}
			k, ok, err := s.Ring.PublicKey(ctx, t, kid)
			keyErr = err
			return k, ok
		},
		Now: s.Now(),
	})
	if keyErr != nil {
		return access.Caller{}, keyErr
	}
	if err != nil {
		return access.Caller{}, s.presented(ctx, claims, err)
	}
	p, err := s.Directory.Alive(ctx, claims.TenantID, claims.ObjectID, time.Unix(claims.IssuedAt, 0))
	if err == nil {
		err = s.attached(ctx, claims)
	}
	if err == nil {
		err = s.placed(ctx, claims)
	}
	if err == nil {
		err = s.trusted(ctx, claims)
	}
	if err != nil {
		return access.Caller{}, s.presented(ctx, claims, err)
	}
	return access.Caller{
		Tenant: claims.TenantID, Principal: p.ID, Client: p.Client, Issuer: claims.Issuer, Name: p.Name,
		Via: claims.Caller, Request: web.RequestID(ctx),
	}, nil
}

// attached checks that the resource that asked for a token of a user-assigned
// identity still has that identity: detaching takes the tokens that are out.
func (s *Service) attached(ctx context.Context, c token.Claims) error {
	if c.AskedBy == "" {
		return nil
	}
	gone := problem.Errorf(problem.Revoked, "the token's identity is no longer assigned to the resource that asked for it")
	by, err := resource.Parse(c.AskedBy)
	if err != nil {
		return gone // a claim of ours always parses
	}
	has, err := s.has(ctx, c, by)
	if err != nil || has {
		return err
	}
	// It may be the same resource under another ID by now.
	now, err := s.now(ctx, c, by)
	if err != nil {
		return err
	}
	if has, err = s.has(ctx, c, now); err != nil || has {
		return err
	}
	return gone
}

// has reports whether the resource has the token's identity.
func (s *Service) has(ctx context.Context, c token.Claims, id resource.ID) (bool, error) {
	have, err := s.Directory.Store.Identities(ctx, c.TenantID, directory.Holder(id).Key())
	if err != nil {
		return false, fmt.Errorf("reading the identities of %s: %w", id, err)
	}
	return slices.ContainsFunc(have, func(p directory.Principal) bool { return strings.EqualFold(p.ID, c.ObjectID) }), nil
}

// now is where a resource is that a token names by the ID that it had when the
// token was made.
func (s *Service) now(ctx context.Context, c token.Claims, was resource.ID) (resource.ID, error) {
	to, err := s.Directory.Store.Moved(ctx, c.TenantID, was, time.Unix(c.IssuedAt, 0))
	if err != nil || to.IsZero() {
		return was, err
	}
	return to, nil
}

// placed checks that the machine that the token was asked for by is still the
// workload's: taking a placement away, or evicting a host, takes the tokens that
// are out.
func (s *Service) placed(ctx context.Context, c token.Claims) error {
	if c.Placement == "" {
		return nil
	}
	gone := problem.Errorf(problem.Revoked, "the token was asked for by a machine that the identity's resource is no longer placed on, or that was evicted since")
	workload := c.AskedBy
	if workload == "" {
		workload = c.IdentityResource
	}
	by, err := resource.Parse(workload)
	if err != nil {
		return gone // a claim of ours always parses
	}
	placement, err := resource.Parse(c.Placement)
	if err != nil {
		return gone
	}
	since := time.Unix(c.IssuedAt, 0)
	stands, err := s.Directory.Store.Stands(ctx, c.TenantID, placement, by, since)
	if err != nil || stands {
		return err
	}
	// The workload may have moved, or its host.
	if by, err = s.now(ctx, c, by); err != nil {
		return err
	}
	if placement, err = s.now(ctx, c, placement); err != nil {
		return err
	}
	if stands, err = s.Directory.Store.Stands(ctx, c.TenantID, placement, by, since); err != nil || stands {
		return err
	}
	return gone
}

// trusted checks that the federated credential that the token was issued by says
// what it said then: taking it away, or having it trust others, takes the tokens
// that are out.
func (s *Service) trusted(ctx context.Context, c token.Claims) error {
	if c.Credential == "" {
		return nil
	}
	stands, err := s.Directory.Store.TrustStands(ctx, c.TenantID, c.ObjectID, c.Credential)
	if err == nil && !stands {
		return problem.Errorf(problem.Revoked, "the federated credential that the token was issued by was removed or changed since")
	}
	return err
}

// presented records that a token of ours was refused (revoked, expired, for
// another API), and returns why. A token that did not verify leaves no event:
// anybody can make those, and nothing in them is true.
func (s *Service) presented(ctx context.Context, c token.Claims, why error) error {
	p := problem.Of(why)
	if c.TenantID == "" || p.Kind == problem.Internal || p.Kind == problem.Unavailable {
		return why
	}
	target := resource.Root
	if id, err := resource.Parse(c.IdentityResource); err == nil {
		target = id
	}
	ev := audit.Event{
		Tenant: c.TenantID, At: s.Now(), Action: "Innate.Token/present/action", Target: target.String(), Outcome: audit.Refused,
		Principal: c.ObjectID, Via: c.Caller, Audience: problem.Clip(c.Audience), Token: c.ID, Reason: p.Detail, Request: web.RequestID(ctx),
	}
	if err := s.Directory.Store.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording a refused token: %w", err)
	}
	return why
}
