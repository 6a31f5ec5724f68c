package dev

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// upstream is a TLS server that says who it is.
func upstream(t *testing.T, name string) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	t.Cleanup(s.Close)
	return s
}

func startTestProxy(t *testing.T, listen string) *url.URL {
	t.Helper()
	s := httptest.NewServer(&proxy{domain: "innate.localhost", listen: listen, log: slog.New(slog.DiscardHandler)})
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestProxyKnowsOurNames: the installation's names lead to its listener,
// whatever their port; every other one to where it leads.
func TestProxyKnowsOurNames(t *testing.T) {
	ours, other := upstream(t, "ours"), upstream(t, "other")
	p := startTestProxy(t, ours.Listener.Addr().String())
	hc := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(p), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	for to, want := range map[string]string{
		"https://demo.vault.innate.localhost:8443/": "ours",
		"https://LOGIN.Innate.LOCALHOST./":          "ours",
		"https://innate.localhost/":                 "ours",
		other.URL:                                   "other",
		// A name that only ends like ours is not ours.
		"https://notinnate.localhost.invalid/": "",
	} {
		resp, err := hc.Get(to)
		got := ""
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			got = string(b)
		}
		if got != want {
			t.Errorf("through the proxy, %s is %q (%v), want %q", to, got, err, want)
		}
	}
}

// TestProxyOnlyTunnels: it is no way to fetch plain HTTP, for anyone who finds it.
func TestProxyOnlyTunnels(t *testing.T) {
	p := startTestProxy(t, "127.0.0.1:1")
	for _, line := range []string{"GET http://169.254.169.254/metadata HTTP/1.1", "GET / HTTP/1.1", "POST http://example.com/ HTTP/1.1"} {
		c, err := net.Dial("tcp", p.Host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s\r\nHost: example.com\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", line)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s = %s, want 405", line, resp.Status)
		}
		resp.Body.Close()
		c.Close()
	}
}

// TestProxyGoesThroughTheUsersOwn: behind a company's proxy, the world is
// reached through that one, with its credentials.
func TestProxyGoesThroughTheUsersOwn(t *testing.T) {
	world := upstream(t, "world")
	auth := make(chan string, 1)
	company := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth <- r.Header.Get("Proxy-Authorization")
		if r.Host != "world.example:443" {
			t.Errorf("the company's proxy was asked for %q", r.Host)
		}
		up, err := net.Dial("tcp", world.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(down, "HTTP/1.1 200 OK\r\n\r\n")
		tunnel(down, down, up)
		up.Close()
		down.Close()
	}))
	t.Cleanup(company.Close)
	up, err := url.Parse(strings.Replace(company.URL, "http://", "http://me:secret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{domain: "innate.localhost", log: slog.New(slog.DiscardHandler)}
	c, err := p.through(t.Context(), up, "world.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-auth; got != "Basic bWU6c2VjcmV0" {
		t.Errorf("Proxy-Authorization = %q, want Basic me:secret", got)
	}
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	fmt.Fprint(tc, "GET / HTTP/1.1\r\nHost: world.example\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "world" {
		t.Errorf("through the company's proxy came %q, want world", b)
	}
}

func TestWithHosts(t *testing.T) {
	names := []string{"login.innate.localhost", "demo.vault.innate.localhost"}
	block := "# innate dev: begin\n127.0.0.1 login.innate.localhost demo.vault.innate.localhost\n# innate dev: end\n"
	for _, tt := range []struct {
		name, in string
		names    []string
		want     string
	}{
		{"added at the end", "127.0.0.1 localhost\n", names, "127.0.0.1 localhost\n" + block},
		{"a file without a last line end", "127.0.0.1 localhost", names, "127.0.0.1 localhost\n" + block},
		{"an empty file", "", names, block},
		{"replaced", "a\n# innate dev: begin\nold\n# innate dev: end\nb\n", names, "a\nb\n" + block},
		{"removed", "a\n" + block + "b\n", nil, "a\nb\n"},
		{"nothing to remove", "a\n", nil, "a\n"},
	} {
		if got := WithHosts(tt.in, tt.names); got != tt.want {
			t.Errorf("%s: %s", tt.name, cmp.Diff(tt.want, got))
		}
	}
}

// TestWriteHostsKeepsTheFile: the file is written in place, its mode stays, and
// what others wrote stays.
func TestWriteHostsKeepsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("127.0.0.1 localhost\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(path, []string{"x.innate.localhost"}); err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(path, nil); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "127.0.0.1 localhost\n" || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("after adding and removing, the hosts file is %q with mode %v, want it as it was", b, after.Mode())
	}
}
