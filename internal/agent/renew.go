package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/innate-id/innate/internal/agent/hostkey"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// renewCheck is how often the clock is looked at: one that is set, or a
// machine that slept, must not make a renewal late by more than this.
const renewCheck = 30 * time.Second

// enrol gets the host its certificate if it has none that is good, and reads
// its placements. A certificate that the control plane no longer takes (the
// host was deleted and made again) is no good either.
func (a *Agent) enrol(ctx context.Context) error {
	why := "it has no certificate"
	if a.key.Certificate() != nil {
		why = "its certificate ended at " + a.key.Expires().Format(time.RFC3339)
		if a.now().Before(a.key.Expires()) {
			err := a.feed.load(ctx)
			if !problem.Is(err, problem.Unauthenticated) {
				return err
			}
			why = "the control plane no longer takes its certificate"
		}
	}
	if a.cfg.EnrolToken == "" && a.cfg.EnrolCertificateFile == "" {
		return problem.Errorf(problem.Unauthenticated, "this host is not enrolled: %s; ask the control plane for "+
			"a one-time enrolment token for this host and give it to the agent", why)
	}
	resp, err := a.certified(ctx)
	if err != nil {
		return fmt.Errorf("enrolling this host: %w", err)
	}
	if err := a.key.SetCertificate(resp); err != nil {
		return err
	}
	// Connections made so far showed another certificate or none.
	a.client.http.CloseIdleConnections()
	a.log.Info("host enrolled", "host", resp.Host, "expires", resp.Expires)
	return a.feed.load(ctx)
}

// certified has the host's key certified for the one-time token, or else for
// the certificate that the machine has already.
func (a *Agent) certified(ctx context.Context) (fleetapi.EnrolResponse, error) {
	csr, err := a.key.CSR()
	if err != nil {
		return fleetapi.EnrolResponse{}, err
	}
	if a.cfg.EnrolToken != "" {
		resp, err := a.client.enrol(ctx, fleetapi.EnrolRequest{Token: a.cfg.EnrolToken, CSR: csr})
		if !problem.Is(err, problem.BadCredential) || a.cfg.EnrolCertificateFile == "" {
			return resp, err
		}
		a.log.Info("the enrolment token is no good; enrolling by the machine's certificate", "err", err)
	}
	own, err := hostkey.LoadOwn(a.cfg.EnrolCertificateFile, a.cfg.EnrolKeyFile)
	if err != nil {
		return fleetapi.EnrolResponse{}, err
	}
	return a.client.showing(own).enrol(ctx, fleetapi.EnrolRequest{CSR: csr})
}

// renewals renews the host's certificate at half of its life until ctx ends.
// The key stays; a renewal that fails is tried again, for the other half.
func (a *Agent) renewals(ctx context.Context) {
	for {
		wait := min(max(a.key.RenewAt().Sub(a.now()), 0), renewCheck)
		if err := pause(ctx, wait); err != nil {
			return
		}
		if a.now().Before(a.key.RenewAt()) {
			continue
		}
		if err := a.renew(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("host certificate not renewed; trying on", "expires", a.key.Expires(), "err", err)
		}
		// Also after success: by a clock that is wrong, the new certificate
		// can be past its half as well.
		if err := pause(ctx, renewCheck/2+rand.N(renewCheck/2)); err != nil {
			return
		}
	}
}

func (a *Agent) renew(ctx context.Context) error {
	csr, err := a.key.CSR()
	if err != nil {
		return err
	}
	resp, err := a.client.renew(ctx, fleetapi.RenewRequest{CSR: csr})
	if err != nil {
		return fmt.Errorf("renewing the host certificate: %w", err)
	}
	if !a.now().Before(resp.Expires) {
		return fmt.Errorf("renewing the host certificate: the new one ended at %v; are the clocks of both right?", resp.Expires)
	}
	if err := a.key.SetCertificate(resp); err != nil {
		return err
	}
	// New connections show the new certificate.
	a.client.http.CloseIdleConnections()
	a.log.Info("host certificate renewed", "host", resp.Host, "expires", resp.Expires)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
