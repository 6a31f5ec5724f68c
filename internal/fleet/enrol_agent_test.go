package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	innateagent "github.com/innate-id/innate/internal/agent"
)

// TestAnAgentEnrolsByTheMachinesCertificate: the program that runs on hosts,
// against the real control plane.
func TestAnAgentEnrolsByTheMachinesCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.advance(time.Since(start)) // the agent's sockets go by the clock of this machine
	w.owner = w.caller(tenantA, rootAgent)
	root := newPKI(t, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	w.owner.knownHost(201, "h1", root.entry("h1.corp.test"))
	own := leaf(t, root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	dir := t.TempDir()
	secret, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	for f, b := range map[string][]byte{certFile: pemCertificate(own.Certificate[0]), keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})} {
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(w.srv.CA.Certificate())
	run := func(change func(*innateagent.Config)) error {
		t.Helper()
		cfg := innateagent.Config{
			ControlPlane: w.srv.Names.Fleet(), CA: pool, StateDir: filepath.Join(dir, unique("state")), EnrolCertificateFile: certFile, EnrolKeyFile: keyFile, Now: w.clock,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, w.srv.Addr())
			},
		}
		change(&cfg)
		a, err := innateagent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Start(t.Context()); err != nil {
			return err
		}
		a.Close()
		return nil
	}
	state := filepath.Join(dir, "kept")
	for what, change := range map[string]func(*innateagent.Config){
		"a new machine":                   func(*innateagent.Config) {},
		"one whose token is spent":        func(c *innateagent.Config) { c.EnrolToken = "spent" },
		"one that is to start once again": func(c *innateagent.Config) { c.StateDir = state },
	} {
		if err := run(change); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.owner.must(200, "POST", hosts+"/h1/evict", "")
	if err := run(func(c *innateagent.Config) { c.StateDir = state }); err == nil || !strings.Contains(err.Error(), "readmit") {
		t.Errorf("an agent of an evicted host starts: %v", err)
	}
	if err := run(func(c *innateagent.Config) { c.EnrolKeyFile += ".gone" }); err == nil || !strings.Contains(err.Error(), "looking at the key") {
		t.Errorf("an agent without the key starts: %v", err)
	}
}
