package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/innate-id/innate/internal/problem"
)

// Limits of the listener. There is no write timeout: streams live long; each
// sets its own.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 48 << 10 // a token of 16 KiB, its neighbours, and slack
	drainTimeout  = 5 * time.Second
)

// Serve serves until ctx ends, then lets requests finish and closes everything.
func (s *Server) Serve(ctx context.Context) error {
	defer s.Close()
	h, err := s.handler()
	if err != nil {
		return err
	}
	// Streams end when base does; only then can Shutdown end.
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return base },
		TLSConfig:   s.certs.config(),
		ErrorLog:    logWriter(s.log),
	}
	var tending sync.WaitGroup
	tending.Go(func() { s.tend(base) })
	defer tending.Wait()
	defer end()
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(s.ln, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	end()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		_ = srv.Close() // what did not finish in time is cut off
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// tend does what is due every hour: keys near their end, rows past theirs.
func (s *Server) tend(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.tendOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "hourly upkeep", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Server) tendOnce(ctx context.Context) error {
	tenants, err := s.DB.Tenants(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range tenants {
		errs = append(errs, s.Ring.Tend(ctx, t.ID))
	}
	return errors.Join(append(errs, s.DB.Sweep(ctx, s.now()))...)
}

// certificates are what the listener shows.
type certificates struct {
	server *Server
	files  TLS

	mu     sync.Mutex
	loaded *tls.Certificate // guarded by mu
	stamp  string           // of the files that loaded came from; guarded by mu
}

// check finds out at start whether there is a certificate to show.
func (c *certificates) check() error {
	if c.files.LocalCA {
		return nil
	}
	_, err := c.fromFiles()
	return err
}

func (c *certificates) config() *tls.Config {
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.get}
	agents := base.Clone()
	// Whose certificate it is, the fleet finds out: each tenant has a CA of
	// its own, and the handshake does not know the tenant yet.
	agents.ClientAuth = tls.RequestClientCert
	base.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if strings.EqualFold(h.ServerName, "fleet."+c.server.Names.Domain) {
			return agents, nil
		}
		return nil, nil
	}
	return base
}

func (c *certificates) get(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !c.files.LocalCA {
		return c.fromFiles()
	}
	name := strings.ToLower(strings.TrimSuffix(h.ServerName, "."))
	if c.server.PublicCA != nil && c.server.Names.Serves(name) && ValidDomain(name) {
		return c.server.Ring.ServerCertificate(h.Context(), c.server.PublicCA, name)
	}
	below, ok := strings.CutSuffix(name, "."+c.server.Names.Domain)
	if !ok || strings.Count(below, ".") > 1 || !ValidDomain(name) {
		return nil, fmt.Errorf("no certificate for the server name %q: it is not one under %s", problem.Clip(h.ServerName), c.server.Names.Domain)
	}
	return c.server.Ring.ServerCertificate(h.Context(), c.server.CA, name)
}

// fromFiles returns the certificate in the files, read again when they change.
// Files that cannot be read while a certificate is loaded change nothing.
func (c *certificates) fromFiles() (*tls.Certificate, error) {
	stamp := ""
	for _, f := range []string{c.files.CertificateFile, c.files.KeyFile} {
		if st, err := os.Stat(f); err == nil {
			stamp += fmt.Sprint(st.ModTime().UnixNano(), st.Size(), ";")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && stamp == c.stamp {
		return c.loaded, nil
	}
	cert, err := tls.LoadX509KeyPair(c.files.CertificateFile, c.files.KeyFile)
	if err != nil {
		if c.loaded != nil {
			c.server.log.Error("reading the TLS certificate again", "err", err)
			return c.loaded, nil
		}
		return nil, fmt.Errorf("reading the TLS certificate: %w", err)
	}
	c.loaded, c.stamp = &cert, stamp
	return c.loaded, nil
}
