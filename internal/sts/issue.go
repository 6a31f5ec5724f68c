// Package sts is the token service: it turns who somebody is into a
// short-lived signed token for one API, and publishes what others need to check
// it (discovery, JWKS).
//
// Every token, whether a client posted a form or an agent asked for a
// workload, goes through the one pipeline in [Service.Issue]; a refusal takes
// the same path and is recorded as well. The client never chooses the shape of
// a token: the API does.
package sts

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/issuer"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/token"
	"github.com/innate-id/innate/internal/web"
)

// The bounds of a token's life.
const (
	MinLife     = 10 * time.Minute
	MaxLife     = 24 * time.Hour
	DefaultLife = time.Hour
)

// Service issues and checks tokens.
type Service struct {
	Directory *directory.Directory
	Ring      *keyring.Ring
	Names     web.Names
	// Issuers are the keys of other issuers, whose tokens federated credentials
	// trust.
	Issuers *issuer.Keys
	// Life is how long a token lives, between [MinLife] and [MaxLife].
	Life time.Duration
	Now  func() time.Time
}

// Request asks for a token.
type Request struct {
	Tenant string
	// Audience is the API as asked for: a v1 resource.
	Audience string
	// Workload, Identity, Host and Evidence are set when an agent asks for a
	// workload: the resource that asks, which of its identities, through which
	// machine, for which local program.
	Workload resource.ID
	Identity directory.Selector
	Host     string
	// Placement is the statement on that host by which it asks.
	Placement resource.ID
	Evidence  string
	// Check, if there is one, may refuse the identity that was found. It returns
	// what goes on record, refused or not.
	Check func(directory.Principal) (string, error)
	// Form is set when a client posted it.
	Form *Form
	// Asked is the host name that it was posted to: the token's issuer is by
	// the same. Empty means our own.
	Asked string
}

// Issued is a token with what its bearer may know of it.
type Issued struct {
	Token string
	// ID is the token's uti.
	ID        string
	Principal directory.Principal
	// Resource echoes the audience as asked for.
	Resource           string
	NotBefore, Expires time.Time
	// Revision is the tenant revision that the decision was taken at.
	Revision int64
}

// subject is who a grant found behind a request.
type subject struct {
	principal directory.Principal
	// proof is the token's appidacr: "2" is a key that the client holds.
	proof string
	// credential is the federated credential that the client proved itself by, if
	// it did.
	credential federation.Credential
	// reason goes on record: what the client proved itself by, or with an error
	// more than the client is told.
	reason string
}

// grant finds out who stands behind a request. With an error, what it returns
// is whom the request was about, as far as that is known.
type grant func(ctx context.Context, s *Service, r Request) (subject, error)

// Issue is the pipeline. c is who asks on the subject's behalf: a host for its
// workloads, nobody for a posted form.
func (s *Service) Issue(ctx context.Context, c access.Caller, r Request, g grant) (Issued, error) {
	ev := audit.Event{
		Tenant: r.Tenant, At: s.Now(), Action: "Innate.Token/issue/action", Target: r.target(), Outcome: audit.Refused,
		Principal: c.Principal, Name: c.Name, Host: r.Host, Via: r.Evidence, Audience: problem.Clip(r.Audience), Request: c.Request,
	}
	out, err := s.issue(ctx, r, g, &ev)
	if err != nil {
		p := problem.Of(err)
		if p.Kind == problem.Internal || p.Kind == problem.Unavailable && ev.Reason == "" || p.Kind == problem.UnknownTenant {
			return Issued{}, err // nothing was decided
		}
		if p.Kind == problem.CallerRefused {
			ev.Outcome = audit.Denied
		}
		if ev.Reason == "" {
			ev.Reason = p.Detail
		}
	}
	// 7. Record, before the answer leaves.
	if rerr := s.Directory.Store.Record(ctx, ev); rerr != nil {
		return Issued{}, fmt.Errorf("recording a token request: %w", rerr)
	}
	// 8. Answer.
	return out, err
}

func (s *Service) issue(ctx context.Context, r Request, g grant, ev *audit.Event) (Issued, error) {
	// 1. The tenant. Its revision is read first: a change after it may
	// concern this token, and whoever caches it is told so.
	rev, err := s.Directory.Store.Revision(ctx, r.Tenant)
	if err != nil {
		return Issued{}, err
	}
	// 2. The grant: who stands behind the request?
	who, err := g(ctx, s, r)
	p := who.principal
	ev.Reason = who.reason
	if who.credential.Trust != "" || who.reason != "" {
		ev.Target = p.Resource.String() // the client is no resource of ours; the identity is
	}
	if err != nil {
		return Issued{}, err
	}
	ev.Principal, ev.Name = p.ID, p.Name
	// 3. Who: does it still exist, and may it have tokens?
	if !p.Enabled {
		return Issued{}, problem.Errorf(problem.Denied, "AADSTS7000112: the identity %s is disabled", p.Client)
	}
	// 4. What: the API.
	aud, err := s.audience(ctx, r.Tenant, r.Audience)
	if err != nil {
		return Issued{}, err
	}
	// 5. May it: any principal may have a token for any API of its tenant;
	// what it may do there, the API decides by roles. A workload's caller rules
	// are asked about the identity that it turned out to be.
	if r.Check != nil {
		if ev.Reason, err = r.Check(p); err != nil {
			return Issued{}, err
		}
	}
	// 6. Mint.
	claims := s.claims(r, who, aud)
	signer, err := s.Ring.Signer(ctx, r.Tenant)
	if err != nil {
		return Issued{}, fmt.Errorf("finding the signing key: %w", err)
	}
	raw, err := token.Mint(claims, signer)
	if err != nil {
		return Issued{}, err
	}
	ev.Outcome, ev.Token = audit.Allowed, claims.ID
	return Issued{
		Token: raw, ID: claims.ID, Principal: p, Resource: r.Audience, Revision: rev,
		NotBefore: time.Unix(claims.NotBefore, 0).UTC(), Expires: time.Unix(claims.Expires, 0).UTC(),
	}, nil
}

// claims is the token's content.
func (s *Service) claims(r Request, who subject, aud Audience) token.Claims {
	now := s.Now()
	p := who.principal
	c := token.Claims{
		Audience: aud.Value, IssuedAt: now.Unix(), NotBefore: now.Add(-token.Backdate).Unix(), Expires: now.Add(s.life()).Unix(),
		IDType: "app", ObjectID: p.ID, Subject: p.ID, TenantID: r.Tenant, ID: token.NewID(),
		Caller: r.Evidence, Host: r.Host, Placement: r.Placement.String(), Credential: who.credential.Trust,
	}
	if p.Kind == directory.ManagedIdentity {
		c.IdentityResource = mirid(p.Resource)
		// An instance of a scale set asks with the set's identity.
		if !r.Workload.IsZero() && !r.Workload.Equal(p.Resource) {
			c.AskedBy = mirid(r.Workload)
		}
	}
	names := s.Names.Asked(r.Asked)
	if aud.Version == 2 {
		c.Version, c.Issuer, c.AZP, c.AZPACR = "2.0", issuerV2(names, r.Tenant), p.Client, who.proof
	} else {
		c.Version, c.Issuer, c.AppID, c.AppIDACR = "1.0", issuerV1(names, r.Tenant), p.Client, who.proof
		c.IDP = c.Issuer
	}
	return c
}

// mirid spells a resource ID as the field's tokens do: resourcegroups in lower case.
func mirid(id resource.ID) string {
	s := id.String()
	segs := strings.Split(s, "/")
	if len(segs) > 3 && strings.EqualFold(segs[3], "resourceGroups") {
		segs[3] = "resourcegroups"
	}
	return strings.Join(segs, "/")
}

func (s *Service) life() time.Duration {
	if s.Life == 0 {
		return DefaultLife
	}
	return min(max(s.Life, MinLife), MaxLife)
}

// target is what the event says was asked on.
func (r Request) target() string {
	if !r.Workload.IsZero() {
		return r.Workload.String()
	}
	return "/"
}

// IssuerV1 is the iss of version 1 tokens.
func (s *Service) IssuerV1(tenant string) string { return issuerV1(s.Names, tenant) }

// IssuerV2 is the iss of version 2 tokens, and of the v2.0 discovery document.
func (s *Service) IssuerV2(tenant string) string { return issuerV2(s.Names, tenant) }

func issuerV1(n web.Names, tenant string) string { return n.Issuer() + "/" + tenant + "/" }

func issuerV2(n web.Names, tenant string) string { return n.Login() + "/" + tenant + "/v2.0" }

// issuers are what the tokens of a tenant may say. Those by the public cloud's
// names are ours as much as the others: the key decides, not the name.
func (s *Service) issuers(tenant string) []string {
	out := []string{s.IssuerV1(tenant), s.IssuerV2(tenant)}
	if s.Names.Public {
		n := s.Names.Asked(web.PublicHosts("login")[0])
		out = append(out, issuerV1(n, tenant), issuerV2(n, tenant))
	}
	return out
}

// ForWorkload issues a token of an identity of a workload to an agent. c is
// the host, which the fleet has authenticated and found to hold the workload.
func (s *Service) ForWorkload(ctx context.Context, c access.Caller, r Request) (Issued, error) {
	r.Tenant = c.Tenant
	return s.Issue(ctx, c, r, grantManagedIdentity)
}

// grantManagedIdentity: the workload's identity, as the request selects it.
func grantManagedIdentity(ctx context.Context, s *Service, r Request) (subject, error) {
	p, err := s.Directory.Select(ctx, r.Tenant, r.Workload, r.Identity)
	return subject{principal: p, proof: "2"}, err
}

// Authenticate finds the caller behind a request's bearer token for an API of
// the family. tenant "" accepts a token of any tenant. A token counts only
// while its principal does.
func (s *Service) Authenticate(ctx context.Context, r *http.Request, family Family, tenant string) (access.Caller, error) {
	raw, err := bearer(r)
	if err != nil {
		return access.Caller{}, err
	}
	c, err := s.check(ctx, raw, family, tenant)
	if s.Names.Public {
		c.Asked = web.HostName(r)
	}
	return c, err
}

func bearer(r *http.Request) (string, error) {
	hs := r.Header.Values("Authorization")
	if len(hs) == 0 {
		return "", problem.Errorf(problem.Unauthenticated, "Request is missing a Bearer token.")
	}
	scheme, raw, _ := strings.Cut(hs[0], " ")
	if len(hs) > 1 || !strings.EqualFold(scheme, "Bearer") || raw == "" {
		return "", problem.Errorf(problem.Unauthenticated, "the Authorization header is not one \"Bearer\" and a token")
	}
	return raw, nil
}
