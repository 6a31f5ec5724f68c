package keyring_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/innate-id/innate/internal/keyring"
)

// TestKeysAreSealedInTheDatabase looks at every byte of the files: neither the
// private keys nor any of their parts may be there.
func TestKeysAreSealedInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	signer(t, r, tenantA)
	for _, kind := range []string{keyring.KindSigning, keyring.KindFleetCA} {
		if kind == keyring.KindFleetCA {
			if _, err := r.Authority(t.Context(), tenantA, kind, ""); err != nil {
				t.Fatal(err)
			}
		}
		for _, rec := range records(t, w, tenantA, kind) {
			if k, err := x509.ParsePKCS8PrivateKey(rec.Sealed); err == nil {
				t.Errorf("the %s key is in clear: %T", kind, k)
			}
		}
	}
	s, err := r.Signer(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	key := s.Key.(*rsa.PrivateKey)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(w.path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for name, part := range map[string][]byte{
			"its exponent": key.D.Bytes(), "a prime": key.Primes[0].Bytes(), "another prime": key.Primes[1].Bytes(),
			"the head of PKCS#8": {0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7}, "PEM": []byte("PRIVATE KEY"),
		} {
			if bytes.Contains(b, part) {
				t.Errorf("%s holds %s of a private key", filepath.Base(f), name)
			}
		}
		if !bytes.Contains(b, key.N.Bytes()) && f == w.path {
			t.Error("the certificate is not in the file that was searched")
		}
	}
}

// TestChangedRowsAreRefused: somebody who can write the database, but has no
// root key, makes a key of his own the tenant's.
func TestChangedRowsAreRefused(t *testing.T) {
	t.Parallel()
	for name, stmts := range map[string][]string{
		"the certificate of another tenant's key": {`UPDATE ring_key SET public = (SELECT public FROM ring_key WHERE tenant = '` + tenantB + `' AND kind = 'signing') WHERE tenant = '` + tenantA + `' AND kind = 'signing'`},
		"the sealed key of another tenant":        {`UPDATE ring_key SET sealed = (SELECT sealed FROM ring_key WHERE tenant = '` + tenantB + `' AND kind = 'signing') WHERE tenant = '` + tenantA + `' AND kind = 'signing'`},
		"another tenant's whole row": {`DELETE FROM ring_key WHERE tenant = '` + tenantA + `' AND kind = 'signing'`,
			`UPDATE ring_key SET tenant = '` + tenantA + `' WHERE tenant = '` + tenantB + `' AND kind = 'signing'`},
		"another name": {`UPDATE ring_key SET id = 'mine' WHERE kind = 'signing'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			signer(t, w.ring(), tenantA)
			signer(t, w.ring(), tenantB)
			tamper(t, w, stmts...)
			if s, err := w.ring().Signer(t.Context(), tenantA); err == nil {
				t.Errorf("it signs with %s", s.KeyID)
			}
			if set, err := w.ring().JWKS(t.Context(), tenantA); err == nil {
				t.Errorf("it publishes %v", set)
			}
		})
	}
	t.Run("the certificate of an authority", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		for _, tenant := range []string{tenantA, tenantB} {
			if _, err := w.ring().Authority(t.Context(), tenant, keyring.KindFleetCA, ""); err != nil {
				t.Fatal(err)
			}
		}
		tamper(t, w, `UPDATE ring_key SET public = (SELECT public FROM ring_key WHERE tenant = '`+tenantB+`') WHERE tenant = '`+tenantA+`'`)
		if _, err := w.ring().Authority(t.Context(), tenantA, keyring.KindFleetCA, ""); err == nil {
			t.Error("hosts are let in by a certificate whose key is another's")
		}
	})
}

func tamper(t *testing.T, w *world, stmts ...string) {
	t.Helper()
	raw, err := sql.Open("sqlite", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, stmt := range stmts {
		res, err := raw.ExecContext(t.Context(), stmt)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			t.Fatalf("%s changes %d rows, %v", stmt, n, err)
		}
	}
}
