package server

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/innate-id/innate/internal/issuer"
)

var hostPattern = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (f Federation) check() error {
	var errs []error
	if _, ok := issuer.ParseReach(f.Reach); !ok && f.Reach != "" {
		errs = append(errs, fmt.Errorf("federation.reach: %q is not public, private or loopback", f.Reach))
	}
	for _, h := range f.Hosts {
		if !hostPattern.MatchString(h) {
			errs = append(errs, fmt.Errorf("federation.hosts: %q is not a host name in lower case, nor *. and one", h))
		}
	}
	return errors.Join(errs...)
}

// roots are whom to trust for issuers' certificates; nil for the system's.
func (f Federation) roots() (*x509.CertPool, error) {
	if f.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(f.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading federation.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("federation.ca_file %s holds no certificate in PEM", f.CAFile)
	}
	return pool, nil
}

// issuers are the keys of other issuers, none of which is known yet.
func (f Federation) issuers(now func() time.Time) (*issuer.Keys, error) {
	roots, err := f.roots()
	if err != nil {
		return nil, err
	}
	reach, _ := issuer.ParseReach(f.Reach) // "" is the issuers' own default
	return issuer.New(issuer.Config{Reach: reach, Hosts: f.Hosts, Roots: roots, Now: now}), nil
}
