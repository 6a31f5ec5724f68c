package dev

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/web"
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
	p := &proxy{domain: "innate.localhost", listen: listen, secret: rand.Text(), log: slog.New(slog.DiscardHandler)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	u, err := url.Parse(p.url(s.Listener.Addr().String()))
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

// TestProxyAsksWhoItServes: another user of the machine reaches its port, and
// gets neither the world through the user's own proxy nor our names.
func TestProxyAsksWhoItServes(t *testing.T) {
	ours := upstream(t, "ours")
	p := startTestProxy(t, ours.Listener.Addr().String())
	secret, _ := p.User.Password()
	for name, header := range map[string]string{
		"nothing":             "",
		"another password":    "Proxy-Authorization: Basic aW5uYXRlOng=\r\n",
		"no password":         "Proxy-Authorization: Basic aW5uYXRlOg==\r\n",
		"another scheme":      "Proxy-Authorization: Bearer " + secret + "\r\n",
		"as a server expects": "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("innate:"+secret)) + "\r\n",
	} {
		for _, to := range []string{"login.innate.localhost:443", "example.com:443"} {
			c, err := net.Dial("tcp", p.Host)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", to, to, header)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusProxyAuthRequired || !strings.HasPrefix(resp.Header.Get("Proxy-Authenticate"), "Basic ") {
				t.Errorf("CONNECT %s with %s = %s %v, want 407 and how to ask", to, name, resp.Status, resp.Header)
			}
			resp.Body.Close()
			c.Close()
		}
	}
}

// TestProxyPublicNames: who asks for it is led here by the public cloud's
// names, and to the real cloud by none; who does not is not affected.
func TestProxyPublicNames(t *testing.T) {
	const ours, refused, elsewhere = "here", "refused", "elsewhere"
	names := web.Names{Domain: "innate.localhost", Port: 8443, Public: true}
	for _, tt := range []struct{ to, asking, plain string }{
		{"management.azure.com:443", ours, elsewhere},
		{"LOGIN.microsoftonline.COM.:443", ours, elsewhere},
		{"demo.vault.azure.net:443", ours, elsewhere},
		{"graph.microsoft.com:443", ours, elsewhere},
		{"management.azure.com:8443", refused, elsewhere}, // not where the cloud serves it
		{"a.demo.vault.azure.net:443", refused, elsewhere},
		{"demo.blob.core.windows.net:443", refused, elsewhere},
		{"portal.azure.com:443", refused, elsewhere},
		{"azure.com:443", refused, elsewhere},
		{"notazure.com:443", elsewhere, elsewhere},
		{"azure.com.example:443", elsewhere, elsewhere},
		{"packages.example.org:443", elsewhere, elsewhere},
		{"management.innate.localhost:8443", ours, ours},
	} {
		say := func(p *proxy, public bool) string {
			switch here, err := p.leads(tt.to, public); {
			case err != nil:
				return refused
			case here:
				return ours
			}
			return elsewhere
		}
		with := &proxy{domain: "innate.localhost", public: names.Serves}
		without := &proxy{domain: "innate.localhost"}
		if got := say(with, true); got != tt.asking {
			t.Errorf("%s leads who asks for public names %s, want %s", tt.to, got, tt.asking)
		}
		for _, p := range []*proxy{with, without} {
			if got := say(p, false); got != tt.plain {
				t.Errorf("%s leads who does not ask %s, want %s", tt.to, got, tt.plain)
			}
		}
		// An instance that was started without them fakes none, and leads
		// nobody to the real cloud who takes it for this.
		if got := say(without, true); tt.plain == elsewhere && tt.asking != elsewhere && got != refused {
			t.Errorf("without public names %s leads who asks for them %s, want %s", tt.to, got, refused)
		}
	}
}

// TestProxyUserAsksForPublicNames: which names a program means is in its
// HTTPS_PROXY.
func TestProxyUserAsksForPublicNames(t *testing.T) {
	ours := upstream(t, "ours")
	p := &proxy{
		domain: "innate.localhost", listen: ours.Listener.Addr().String(), secret: rand.Text(), log: slog.New(slog.DiscardHandler),
		public: web.Names{Public: true}.Serves,
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	in := Instance{PublicNames: true, Endpoints: Endpoints{Proxy: p.url(s.Listener.Addr().String()), Management: "https://management.innate.localhost:8443"}}
	env, err := in.Public("/data", map[string]string{"AZURE_AUTHORITY_HOST": "x", "KEEP": "y"}, ".azure.net,management.azure.com,corp.example")
	if err != nil {
		t.Fatal(err)
	}
	if env["AZURE_AUTHORITY_HOST"] != "" || env["KEEP"] != "y" || strings.Contains(env["NO_PROXY"], "azure") || !strings.Contains(env["NO_PROXY"], "corp.example") {
		t.Errorf("the variables are %v", env)
	}
	u, err := url.Parse(env["HTTPS_PROXY"])
	if err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := hc.Get("https://demo.vault.azure.net/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "ours" {
		t.Errorf("demo.vault.azure.net is %q, want ours", b)
	}
	if _, err := hc.Get("https://demo.blob.core.windows.net/"); err == nil || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("demo.blob.core.windows.net: %v, want the proxy's refusal", err)
	}
	in.PublicNames = false
	if _, err := in.Public("/data", nil, ""); err == nil || !strings.Contains(err.Error(), "start it with --public-names") {
		t.Errorf("of an instance without public names: %v", err)
	}
}
