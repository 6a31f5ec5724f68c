package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/seal"
)

// config is a control plane on a free port with everything under a folder.
func config(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "root.key")
	if _, err := seal.CreateFile(key); err != nil {
		t.Fatal(err)
	}
	return Config{
		Domain: "innate.test", Listen: "127.0.0.1:0", RootKeyFile: key, Replica: "test", TokenLife: "1h",
		Database: Database{SQLite: filepath.Join(dir, "db")}, TLS: TLS{LocalCA: true},
	}
}

func open(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	return s
}

func handshake(s *Server, pool *x509.CertPool, name string) (*x509.Certificate, error) {
	c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: pool, ServerName: name})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0], nil
}

// TestLocalCAServesItsDomainAlone: certificates are made for names that this
// installation can have, and for no others.
func TestLocalCAServesItsDomainAlone(t *testing.T) {
	s := open(t, config(t))
	for name, want := range map[string]bool{
		"login.innate.test": true, "LOGIN.innate.test": true, "demo.vault.innate.test": true, "anything.innate.test": true,
		"innate.test": false, "a.b.c.innate.test": false, "example.com": false, "notinnate.test": false, "-x.innate.test": false,
	} {
		cert, err := handshake(s, s.CA.Trusts(), name)
		if (err == nil) != want {
			t.Errorf("a handshake for %q = %v, want it to work: %v", name, err, want)
		}
		if err == nil && !strings.EqualFold(cert.DNSNames[0], name) {
			t.Errorf("the certificate for %q is for %v", name, cert.DNSNames)
		}
	}
}

// TestOldTLSIsRefused: TLS 1.1 is not spoken.
func TestOldTLSIsRefused(t *testing.T) {
	s := open(t, config(t))
	c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: s.CA.Trusts(), ServerName: "login.innate.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err == nil {
		c.Close()
		t.Error("a TLS 1.1 handshake worked")
	}
}

// TestUnknownHostIsMisdirected: a name that is not of this installation is told so.
func TestUnknownHostIsMisdirected(t *testing.T) {
	s := open(t, config(t))
	hc := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.CA.Trusts(), ServerName: "login.innate.test"},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", s.Addr()) },
	}}
	for host, want := range map[string]int{
		"portal.innate.test": 200, "PORTAL.INNATE.TEST:8443": 200, "nothing.innate.test": 421, "example.com": 421, "innate.test": 421,
		"a.portal.innate.test": 421, "x.blob.innate.test": 421, "127.0.0.1": 421,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://login.innate.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("Host %q = %s, want %d", host, resp.Status, want)
		}
	}
}

// writeCertificate writes a self-signed certificate, as an operator's tool
// renews one.
func writeCertificate(t *testing.T, cfg Config, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{cfg.TLS.KeyFile: {Type: "PRIVATE KEY", Bytes: pk}, cfg.TLS.CertificateFile: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// TestCertificateFilesAreReadAgain: a renewed certificate is shown without a
// restart, and a broken renewal changes nothing.
func TestCertificateFilesAreReadAgain(t *testing.T) {
	cfg := config(t)
	dir := t.TempDir()
	cfg.TLS = TLS{CertificateFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	if _, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now); err == nil || !strings.Contains(err.Error(), "TLS certificate") {
		t.Fatalf("opening without certificate files = %v, want an error that says so", err)
	}
	first := writeCertificate(t, cfg, "login.innate.test")
	s := open(t, cfg)
	if _, err := handshake(s, first, "login.innate.test"); err != nil {
		t.Fatalf("with the first certificate: %v", err)
	}
	second := writeCertificate(t, cfg, "login.innate.test")
	if _, err := handshake(s, second, "login.innate.test"); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	if err := os.WriteFile(cfg.TLS.CertificateFile, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(s, second, "login.innate.test"); err != nil {
		t.Errorf("after a broken renewal: %v", err)
	}
}

// TestOnlyFleetAsksForCertificates: a browser at the portal is not asked for one.
func TestOnlyFleetAsksForCertificates(t *testing.T) {
	s := open(t, config(t))
	for name, want := range map[string]bool{"fleet.innate.test": true, "portal.innate.test": false, "login.innate.test": false} {
		asked := false
		c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: s.CA.Trusts(), ServerName: name,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return &tls.Certificate{}, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if asked != want {
			t.Errorf("%s asked for a client certificate: %v, want %v", name, asked, want)
		}
	}
}

// TestSQLiteIsForOneProgram: a second one says so, by whatever path it comes,
// and the database is free again when the first has ended.
func TestSQLiteIsForOneProgram(t *testing.T) {
	cfg := config(t)
	first, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(cfg.Database.SQLite, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cfg.Database.SQLite, link} {
		second := cfg
		second.Database.SQLite = path
		s, err := Open(t.Context(), second, slog.New(slog.DiscardHandler), time.Now)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "stop the other one first") {
			t.Errorf("a second server on %s = %v, want an error that says to stop the other", path, err)
		}
	}
	first.Close()
	again, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.Close()
}
