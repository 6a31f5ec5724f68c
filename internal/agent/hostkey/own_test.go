package hostkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent/hostkey"
)

func TestTheMachinesOwnKeyIsNobodyElses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, b []byte, mode os.FileMode) string {
		t.Helper()
		f := filepath.Join(dir, name)
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
		if err := os.WriteFile(f, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(f, mode); err != nil {
			t.Fatal(err)
		}
		return f
	}
	cert := file("cert", "CERTIFICATE", der, 0o644)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		key, says string
	}{
		{file("private", "PRIVATE KEY", secret, 0o600), ""},
		{file("group", "PRIVATE KEY", secret, 0o640), ""},
		{file("open", "PRIVATE KEY", secret, 0o604), "run chmod 600"},
		{file("written", "PRIVATE KEY", secret, 0o660), "run chmod 600"},
		{file("another", "PRIVATE KEY", wrong, 0o600), "reading the machine's certificate"},
		{file("none", "NOTHING", secret, 0o600), "reading the machine's certificate"},
		{filepath.Join(dir, "absent"), "looking at the key"},
	} {
		got, err := hostkey.LoadOwn(cert, tt.key)
		if tt.says == "" && (err != nil || len(got.Certificate) != 1) {
			t.Errorf("LoadOwn(%s) = %v", filepath.Base(tt.key), err)
		}
		if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("LoadOwn(%s) = %v, want %q", filepath.Base(tt.key), err, tt.says)
		}
	}
}
