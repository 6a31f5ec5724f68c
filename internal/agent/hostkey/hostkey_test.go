package hostkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/hostkey"
	"github.com/innate-id/innate/internal/fleetapi"
)

const host = "/subscriptions/s/resourceGroups/g/providers/Innate.Fleet/hosts/h1"

func load(t *testing.T, dir string) *hostkey.Key {
	t.Helper()
	k, err := hostkey.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue signs a certificate for the key in csr.
func issue(t *testing.T, csr []byte, expires time.Time) fleetapi.EnrolResponse {
	t.Helper()
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := req.CheckSignature(); err != nil {
		t.Fatal(err)
	}
	if pub, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		t.Errorf("the request's key is %T, want ECDSA P-256", req.PublicKey)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: expires.Add(-24 * time.Hour), NotAfter: expires, DNSNames: []string{"h1"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, req.PublicKey, ca)
	if err != nil {
		t.Fatal(err)
	}
	return fleetapi.EnrolResponse{Host: host, Tenant: "t", Certificate: der, Expires: expires}
}

func csr(t *testing.T, k *hostkey.Key) []byte {
	t.Helper()
	der, err := k.CSR()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestKeyStaysAndCertificateChanges(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "state")
	k := load(t, dir)
	if k.Certificate() != nil || k.Host() != "" || !k.Expires().IsZero() {
		t.Error("a new key has a certificate")
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "host.key"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s = %v, %v; want mode %04o", name, info.Mode(), err, want)
		}
	}
	expires := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	if err := k.SetCertificate(issue(t, csr(t, k), expires)); err != nil {
		t.Fatal(err)
	}
	again := load(t, dir)
	if again.Host() != host || !again.Expires().Equal(expires) || !again.RenewAt().Equal(expires.Add(-12*time.Hour)) {
		t.Errorf("loaded again: host %q, expires %v, renew at %v", again.Host(), again.Expires(), again.RenewAt())
	}
	later := expires.Add(time.Hour)
	if err := again.SetCertificate(issue(t, csr(t, again), later)); err != nil {
		t.Fatal(err)
	}
	if !load(t, dir).Expires().Equal(later) {
		t.Error("the renewed certificate was not kept")
	}
}

func TestCertificateOfAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	k, other := load(t, t.TempDir()), load(t, t.TempDir())
	if err := k.SetCertificate(issue(t, csr(t, other), time.Now().Add(time.Hour))); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("SetCertificate = %v, want an error about another key", err)
	}
	if k.Certificate() != nil {
		t.Error("the refused certificate is used")
	}
}

// The certificate serves a TLS handshake and its key cannot be taken out.
func TestCertificateSignsAndHidesItsKey(t *testing.T) {
	t.Parallel()
	k := load(t, t.TempDir())
	if err := k.SetCertificate(issue(t, csr(t, k), time.Now().Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Certificate().PrivateKey.(*ecdsa.PrivateKey); ok {
		t.Error("the private key can be read out of the certificate")
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{*k.Certificate()}})
	go server.Handshake()
	if err := tls.Client(b, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Errorf("handshake = %v", err)
	}
}

func TestOpenKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"readable by others": {func(dir string) error { return os.Chmod(filepath.Join(dir, "host.key"), 0o640) }, "chmod 600"},
		"directory writable": {func(dir string) error { return os.Chmod(dir, 0o770) }, "chmod 700"},
		"no key":             {func(dir string) error { return os.WriteFile(filepath.Join(dir, "host.key"), []byte("x"), 0o600) }, "enrol the host anew"},
		"symbolic link": {func(dir string) error {
			if err := os.Rename(filepath.Join(dir, "host.key"), filepath.Join(dir, "elsewhere")); err != nil {
				return err
			}
			return os.Symlink("elsewhere", filepath.Join(dir, "host.key"))
		}, "opening the host key"},
		"broken certificate": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "host.json"), []byte("{"), 0o600) }, "enrol the host anew"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			load(t, dir)
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := hostkey.LoadOrCreate(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("LoadOrCreate = %v, want an error with %q", err, tt.want)
			}
		})
	}
}
