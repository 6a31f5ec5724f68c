// Package bench measures Innate against what it cannot beat: an empty handler,
// a bare signature. README.md has the method and the last figures.
package bench

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/dev"
	"github.com/innate-id/innate/internal/store"
	"github.com/innate-id/innate/internal/testkit"
	"github.com/innate-id/innate/internal/token"
)

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "innate-bench-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "innate")
	cmd := exec.Command("go", "build", "-o", out, "../cmd/innate")
	cmd.Stderr = os.Stderr
	return out, cmd.Run()
})

// start starts innate dev on data and returns when it is ready.
func start(b *testing.B, data string, args ...string) (stop func()) {
	b.Helper()
	bin, err := build()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"dev", "--data", data, "--port", "0"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready") {
			return func() {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				_ = cmd.Wait()
			}
		}
	}
	b.Fatal("innate dev ended before it was ready")
	return nil
}

// BenchmarkStart is from exec to the line "ready".
func BenchmarkStart(b *testing.B) {
	if _, err := build(); err != nil {
		b.Fatal(err)
	}
	b.Run("empty", func(b *testing.B) {
		for b.Loop() {
			stop := start(b, filepath.Join(b.TempDir(), "data"))
			b.StopTimer()
			stop()
			b.StartTimer()
		}
	})
	b.Run("kept", func(b *testing.B) {
		data := filepath.Join(b.TempDir(), "data")
		start(b, data)()
		for b.Loop() {
			stop := start(b, data)
			b.StopTimer()
			stop()
			b.StartTimer()
		}
	})
}

// BenchmarkMint is a whole token against the signature in it.
func BenchmarkMint(b *testing.B) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256([]byte("innate"))
	b.Run("bare-signature", func(b *testing.B) {
		for b.Loop() {
			if _, err := key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("token", func(b *testing.B) {
		now := time.Now()
		for b.Loop() {
			_, err := token.Mint(token.Claims{
				Audience: "https://vault.azure.net", Issuer: "https://login.innate.localhost/t/", IssuedAt: now.Unix(), Expires: now.Unix() + 3600,
				IDType: "app", ObjectID: "o", Subject: "o", TenantID: "t", ID: token.NewID(), Version: "1.0",
			}, token.Signer{KeyID: "k", Key: key})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// empty is what every figure over HTTP is held against.
var empty = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })

// get asks for url in parallel, with a header.
func get(b *testing.B, hc *http.Client, url, header, value string) {
	b.Helper()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest(http.MethodGet, url, nil)
			if err != nil {
				b.Error(err)
				return
			}
			req.Header.Set(header, value)
			resp, err := hc.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				b.Errorf("GET %s = %s", url, resp.Status)
				return
			}
		}
	})
}

// instance starts an innate dev for a benchmark.
func instance(b *testing.B) dev.Instance {
	b.Helper()
	data := filepath.Join(b.TempDir(), "data")
	b.Cleanup(start(b, data))
	in, err := dev.ReadInstance(data)
	if err != nil {
		b.Fatal(err)
	}
	return in
}

func plainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
}

func tlsClient(b *testing.B, in dev.Instance) *http.Client {
	pem, err := os.ReadFile(in.CAFile)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, in.Listen)
		},
	}}
}

// BenchmarkSecret is a secret read from the vault: token verified, principal
// and roles looked up, value unsealed, event on disk.
func BenchmarkSecret(b *testing.B) {
	b.Run("empty-handler", func(b *testing.B) {
		srv := httptest.NewTLSServer(empty)
		defer srv.Close()
		hc := srv.Client()
		hc.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
		get(b, hc, srv.URL, "Authorization", "x")
	})
	b.Run("innate", func(b *testing.B) {
		in := instance(b)
		env := in.Resources["vm1"].Env
		req, err := http.NewRequest(http.MethodGet, env["IDENTITY_ENDPOINT"]+"?api-version=2019-08-01&resource=https://vault.azure.net", nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("X-Identity-Header", env["IDENTITY_HEADER"])
		resp, err := plainClient().Do(req)
		if err != nil {
			b.Fatal(err)
		}
		var tok struct {
			AccessToken string `json:"access_token"`
		}
		err = json.NewDecoder(resp.Body).Decode(&tok)
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		hc := tlsClient(b, in)
		b.ResetTimer()
		get(b, hc, in.Vaults["demo"]+"/secrets/greeting?api-version=7.4", "Authorization", "Bearer "+tok.AccessToken)
	})
}

// BenchmarkRecord is an event on disk, by callers that each wait for theirs.
func BenchmarkRecord(b *testing.B) {
	for name, cfg := range map[string]func(*testing.B) store.Config{
		"sqlite":   func(b *testing.B) store.Config { return store.Config{SQLite: filepath.Join(b.TempDir(), "db")} },
		"postgres": func(b *testing.B) store.Config { return store.Config{Postgres: testkit.Postgres(b)} },
	} {
		b.Run(name, func(b *testing.B) {
			c := cfg(b)
			c.Chain, c.Now = "bench", time.Now
			db, err := store.Open(context.Background(), c)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = db.Close() })
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := db.Record(context.Background(), audit.Event{At: time.Now(), Action: "Innate.Bench/event", Target: "/", Outcome: audit.Allowed}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
