package sts

import (
	"context"
	"crypto"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/token"
	"github.com/innate-id/innate/internal/web"
)

// check verifies a token for an API of the family and finds its principal.
func (s *Service) check(ctx context.Context, raw string, family Family, tenant string) (access.Caller, error) {
	var keyErr error
	claims, err := token.Verify(raw, token.Expect{
		Tenant:   tenant,
		Issuers:  func(t string) []string { return []string{s.IssuerV1(t), s.IssuerV2(t)} },
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
		return access.Caller{}, err
	}
	p, err := s.Directory.Alive(ctx, claims.TenantID, claims.ObjectID, time.Unix(claims.IssuedAt, 0))
	if err != nil {
		return access.Caller{}, err
	}
	return access.Caller{
		Tenant: claims.TenantID, Principal: p.ID, Client: p.Client, Issuer: claims.Issuer, Name: p.Name,
		Via: claims.Caller, Request: web.RequestID(ctx),
	}, nil
}
