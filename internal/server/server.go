// Package server is the control plane put together: the wiring of its rooms,
// by hand, on this one page, and the listener that serves them.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/graph"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/portal"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/vault"
	"github.com/innate-id/innate/internal/web"
)

// Version is the program's version; release builds set it.
var Version = "dev"

// Server is a control plane. Its rooms are exported for the programs that are
// wired around it: "innate dev", bootstrap and tests.
type Server struct {
	Names     web.Names
	DB        *store.DB
	Ring      *keyring.Ring
	Directory *directory.Directory
	STS       *sts.Service
	ARM       *arm.API
	Graph     *graph.Graph
	Vault     *vault.Vault
	Fleet     *fleet.Fleet
	// CA is the local CA, nil with certificates from files.
	CA *keyring.Authority
	// PublicCA vouches for the public cloud's names, nil without them. It is
	// not the local CA, which people trust for more than one program.
	PublicCA *keyring.Authority

	log   *slog.Logger
	ln    net.Listener
	certs *certificates
	lock  *os.File // on a SQLite database
	now   func() time.Time
}

// Open wires a control plane and opens its listener; Serve serves it.
func Open(ctx context.Context, cfg Config, log *slog.Logger, now func() time.Time) (_ *Server, err error) {
	s := &Server{log: log, now: now}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("opening the TLS listener: %w", err)
	}
	s.Names = web.Names{Domain: cfg.Domain, Port: cfg.Port, Public: cfg.PublicNames}
	if s.Names.Port == 0 {
		s.Names.Port = s.ln.Addr().(*net.TCPAddr).Port
	}
	life, err := time.ParseDuration(cfg.TokenLife)
	if err != nil {
		return nil, fmt.Errorf("token_life: %w", err)
	}
	retention, err := cfg.retention()
	if err != nil {
		return nil, fmt.Errorf("identity_retention: %w", err)
	}
	root, err := seal.OpenFile(cfg.RootKeyFile)
	if err != nil {
		return nil, err
	}
	pg, err := cfg.Database.postgres()
	if err != nil {
		return nil, err
	}
	if cfg.Database.SQLite != "" {
		if s.lock, err = alone(cfg.Database.SQLite); err != nil {
			return nil, err
		}
	}
	s.DB, err = store.Open(ctx, store.Config{SQLite: cfg.Database.SQLite, Postgres: pg, Chain: cfg.Replica, Log: log, Now: now})
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}

	box := &seal.Box{Root: root}
	s.Ring = &keyring.Ring{Store: s.DB, Box: box, Config: keyring.DefaultConfig, Now: now}
	s.Directory = &directory.Directory{Store: s.DB, Now: now}
	issuers, err := cfg.Federation.issuers(now)
	if err != nil {
		return nil, err
	}
	s.STS = &sts.Service{Directory: s.Directory, Ring: s.Ring, Names: s.Names, Issuers: issuers, Life: life, Now: now}
	cursors := cursor.Sealer{Box: box}
	s.ARM = &arm.API{Store: s.DB, Directory: s.Directory, Names: s.Names, Cursors: cursors, Now: now, Log: log, Retention: retention, Limits: cfg.Limits.of(now)}
	s.Graph = &graph.Graph{Store: s.DB, Directory: s.Directory, ARM: s.ARM, Names: s.Names, Cursors: cursors, Now: now}
	s.Vault = &vault.Vault{Store: s.DB, Box: box, Authorize: s.Directory.Authorize, Now: now}
	s.Fleet = &fleet.Fleet{Store: s.DB, Ring: s.Ring, Names: s.Names, Issue: s.issue, Authorize: s.Directory.Authorize, Now: now, Log: log}
	s.ARM.Register(arm.Own(s.Names, s.STS.Reserved)...)
	s.ARM.Federate(s.STS.TryAssertion)
	s.ARM.Register(vault.Type(box))
	s.ARM.Register(s.Fleet.Types()...)
	added, err := arm.Rows(slices.Collect(maps.Values(s.ARM.Types)), registered(cfg.ResourceTypes))
	if err != nil {
		return nil, fmt.Errorf("resource_types: %w", err)
	}
	s.ARM.Register(added...)
	s.ARM.Common, s.ARM.Places = s.Fleet.Actions(), s.Fleet.Places

	if cfg.TLS.LocalCA {
		if s.CA, err = s.Ring.Authority(ctx, "", keyring.KindServerCA, cfg.Domain); err != nil {
			return nil, err
		}
	}
	if cfg.PublicNames {
		if s.PublicCA, err = s.Ring.Passing(web.PublicDomains()); err != nil {
			return nil, err
		}
	}
	s.certs = &certificates{server: s, files: cfg.TLS}
	return s, s.certs.check()
}

// issue is the fleet's way to the token service.
func (s *Server) issue(ctx context.Context, c access.Caller, w fleet.Wanted) (fleetapi.TokenResponse, error) {
	t, err := s.STS.ForWorkload(ctx, c, sts.Request{
		Audience: w.Audience, Workload: w.Workload, Identity: w.Identity, Host: w.Host, Placement: w.Placement, Evidence: w.Evidence, Check: w.Check,
	})
	if err != nil {
		return fleetapi.TokenResponse{}, err
	}
	return fleetapi.TokenResponse{
		AccessToken: t.Token, TokenID: t.ID, Principal: t.Principal.ID, ClientID: t.Principal.Client, Identity: t.Principal.Resource.String(),
		Resource: t.Resource, NotBefore: t.NotBefore, Expires: t.Expires, Revision: t.Revision,
	}, nil
}

// handler routes by host name.
func (s *Server) handler() (http.Handler, error) {
	var ca []byte
	if s.CA != nil {
		ca = s.CA.PEM()
	}
	pages, err := (&portal.Portal{Names: s.Names, CA: ca, Version: Version}).Handler(s.log)
	if err != nil {
		return nil, err
	}
	d := s.Names.Domain
	unknown := &web.Surface{Name: "unknown host", Log: s.log, Write: func(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
		_ = web.WriteJSON(w, http.StatusMisdirectedRequest, map[string]any{"error": map[string]string{"code": "UnknownHost", "message": p.Detail}})
	}}
	shared := s.shared()
	vaults := s.Vault.Handler(vault.Surface{
		Log: s.log, Names: s.Names,
		Authenticate: func(ctx context.Context, r *http.Request, tenant string) (access.Caller, error) {
			return s.STS.Authenticate(ctx, r, sts.KeyVault, tenant)
		},
	})
	hosts := &web.Hosts{
		Exact: map[string]http.Handler{"fleet." + d: s.Fleet.Handler(s.log), "portal." + d: pages},
		Below: map[string]http.Handler{"vault." + d: vaults},
		NotFound: unknown.Handle(func(_ http.ResponseWriter, r *http.Request) error {
			return problem.Errorf(problem.NotFound, "the host name %q is not one of this installation's; there are login, management, graph, portal, fleet and {name}.vault under %s", r.Host, d)
		}),
	}
	for label, h := range shared {
		hosts.Exact[label+"."+d] = h
		for _, host := range web.PublicHosts(label) {
			if s.Names.Public {
				hosts.Exact[host] = h
			}
		}
	}
	if s.Names.Public {
		hosts.Below[web.PublicVaults] = vaults
	}
	return web.Recover(s.log, web.Identify(hosts)), nil
}

// shared are the services that the public cloud has names for too.
func (s *Server) shared() map[string]http.Handler {
	return map[string]http.Handler{
		"login": s.STS.Handler(s.log),
		"management": s.ARM.Handler(s.log, func(ctx context.Context, r *http.Request) (access.Caller, error) {
			return s.STS.Authenticate(ctx, r, sts.ARM, "")
		}),
		"graph": s.Graph.Handler(s.log, func(ctx context.Context, r *http.Request) (access.Caller, error) {
			return s.STS.Authenticate(ctx, r, sts.Graph, "")
		}),
	}
}

// Addr is where the TLS listener listens.
func (s *Server) Addr() string {
	a := s.ln.Addr().(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
	}
	return a.String()
}

// Close closes the listener and the database. It is for a server that does
// not serve; Serve closes by itself.
func (s *Server) Close() {
	if s.ln != nil {
		_ = s.ln.Close() // it is closed already after Serve
	}
	if s.DB != nil {
		if err := s.DB.Close(); err != nil {
			s.log.Error("closing the database", "err", err)
		}
	}
	if s.lock != nil {
		_ = s.lock.Close() // the lock goes with the descriptor
	}
}
