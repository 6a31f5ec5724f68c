// Package hostkey keeps the host's own key and the certificate that proves to
// the control plane which host this is.
//
// What a newcomer would get wrong: the key is made once and stays. Enrolment
// and every renewal only replace the certificate, so a stolen old certificate
// is worth nothing without the one key, and the key never leaves this package:
// what [Key.Certificate] hands out can sign and cannot be read. Whoever can
// read the key file IS the host, so a file that others can read is refused,
// not repaired: it must count as stolen.
package hostkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/resource"
)

// The files of the state directory.
const (
	keyFile  = "host.key"  // PKCS#8 in PEM, 0600
	metaFile = "host.json" // a fleetapi.EnrolResponse: nothing in it is secret
)

// Key is the host's key with its present certificate.
type Key struct {
	dir string
	key *ecdsa.PrivateKey

	mu   sync.RWMutex // guards what follows
	meta fleetapi.EnrolResponse
	leaf *x509.Certificate // nil before enrolment
}

// LoadOrCreate opens the key in dir, with its certificate if it has one, and
// makes both dir (0700) and key (ECDSA P-256, 0600) where they are missing.
func LoadOrCreate(dir string) (*Key, error) {
	if err := prepare(dir); err != nil {
		return nil, err
	}
	k := &Key{dir: dir}
	err := k.load()
	if errors.Is(err, fs.ErrNotExist) {
		err = k.create()
	}
	if err != nil {
		return nil, err
	}
	return k, k.loadMeta()
}

// prepare makes dir; one that others can write is refused, for they could put
// their own key there.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("state directory %s can be written by others (mode %04o): run chmod 700 %s", dir, perm, dir)
	}
	return nil
}

func (k *Key) load() error {
	path := filepath.Join(k.dir, keyFile)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("opening the host key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at the host key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("host key %s is no regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("host key %s can be read by others (mode %04o), who may have copied it: "+
			"delete it and enrol the host anew, or run chmod 600 %s if you are sure that nobody did", path, perm, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return fmt.Errorf("reading the host key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return fmt.Errorf("host key %s is not a PEM private key: delete it and enrol the host anew", path)
	}
	// The parser's own error is left out: it could quote the key.
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return fmt.Errorf("host key %s is not an ECDSA P-256 key: delete it and enrol the host anew", path)
	}
	k.key = key
	return nil
}

func (k *Key) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the host key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the host key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := renameio.WriteFile(filepath.Join(k.dir, keyFile), text, 0o600); err != nil {
		return fmt.Errorf("writing the host key: %w", err)
	}
	k.key = key
	return nil
}

func (k *Key) loadMeta() error {
	path := filepath.Join(k.dir, metaFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the host certificate: %w", err)
	}
	var meta fleetapi.EnrolResponse
	if err := json.Unmarshal(text, &meta); err != nil {
		return fmt.Errorf("host certificate %s does not parse (delete it and enrol the host anew): %w", path, err)
	}
	leaf, err := k.check(meta)
	if err != nil {
		return fmt.Errorf("host certificate %s (delete it and enrol the host anew): %w", path, err)
	}
	k.meta, k.leaf = meta, leaf
	return nil
}

// check refuses a certificate that is not for this key or names no host.
func (k *Key) check(meta fleetapi.EnrolResponse) (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(meta.Certificate)
	if err != nil {
		return nil, fmt.Errorf("parsing the host certificate: %w", err)
	}
	if !k.key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the host certificate is for another key")
	}
	if _, err := resource.Parse(meta.Host); err != nil {
		return nil, fmt.Errorf("reading the host's name: %w", err)
	}
	return leaf, nil
}

// CSR returns a PKCS#10 request for the key. Its subject says nothing: the
// control plane knows the host by the token or by the present certificate.
func (k *Key) CSR() ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "innate-agent"}}, k.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate request: %w", err)
	}
	return csr, nil
}

// SetCertificate keeps the certificate that the control plane gave, on disk
// first. One that is for another key is refused and changes nothing.
func (k *Key) SetCertificate(resp fleetapi.EnrolResponse) error {
	leaf, err := k.check(resp)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(resp, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the host certificate: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := renameio.WriteFile(filepath.Join(k.dir, metaFile), append(bytes.TrimSpace(text), '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the host certificate: %w", err)
	}
	k.meta, k.leaf = resp, leaf
	return nil
}

// Certificate returns the client certificate, nil before enrolment. Its
// private key signs and cannot be taken out.
func (k *Key) Certificate() *tls.Certificate {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.leaf == nil {
		return nil
	}
	return &tls.Certificate{Certificate: [][]byte{k.meta.Certificate}, PrivateKey: signer{k.key}, Leaf: k.leaf}
}

// Host returns the resource ID of the host, "" before enrolment.
func (k *Key) Host() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.meta.Host
}

// Tenant returns the id of the tenant that the host is in, "" before enrolment.
func (k *Key) Tenant() string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.meta.Tenant
}

// Expires returns when the certificate ends, the zero time before enrolment.
func (k *Key) Expires() time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.leaf == nil {
		return time.Time{}
	}
	return k.leaf.NotAfter
}

// RenewAt returns when half of the certificate's life is over.
func (k *Key) RenewAt() time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.leaf == nil {
		return time.Time{}
	}
	return k.leaf.NotBefore.Add(k.leaf.NotAfter.Sub(k.leaf.NotBefore) / 2)
}

// signer is a key that can be used and not read.
type signer struct{ key *ecdsa.PrivateKey }

func (s signer) Public() crypto.PublicKey { return s.key.Public() }

func (s signer) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(r, digest, opts)
}
