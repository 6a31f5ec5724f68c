package dev

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// proxy is a loopback CONNECT proxy (RFC 9110 section 9.3.6) that resolves the
// installation's names: everything under domain goes to the TLS listener,
// everything else where it would have gone without it, through the user's own
// proxy if there is one. It sees no plain text: TLS is end to end.
//
// It serves only who has its secret, which is in the URL that programs get: it
// lends them the credential of the user's own proxy, and every user of the
// machine can reach its port.
type proxy struct {
	domain string
	listen string // where domain's names are served
	secret string // of one run; never empty
	// public reports which names of the public cloud are served too, for who
	// says so by the user name [publicUser]. Nil serves none.
	public func(host string) bool
	log    *slog.Logger
	dialer net.Dialer
}

const (
	proxyDialTimeout = 30 * time.Second
	proxyIdle        = 15 * time.Minute
)

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		refuse(w, http.StatusMethodNotAllowed, "this proxy tunnels TLS alone (CONNECT)")
		return
	}
	user, ok := p.admits(r)
	if !ok {
		w.Header().Set("Proxy-Authenticate", `Basic realm="innate dev"`)
		refuse(w, http.StatusProxyAuthRequired, "this proxy is for programs under \"innate run\"; its user and password are in their HTTPS_PROXY")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), proxyDialTimeout)
	defer cancel()
	up, err := p.dial(ctx, r.Host, user == publicUser)
	if err != nil {
		p.log.Info("proxy: connecting", "to", r.Host, "err", err)
		refuse(w, http.StatusBadGateway, "connecting to "+r.Host+" did not work: "+err.Error())
		return
	}
	defer up.Close()
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.log.Error("proxy: taking over a connection", "err", err)
		return
	}
	defer down.Close()
	if _, err := io.WriteString(down, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	tunnel(down, buf.Reader, up)
}

// The users go with the secret: clients drop a password without a user.
const (
	proxyUser = "innate"
	// publicUser is led here by the public cloud's names too: so each program's
	// HTTPS_PROXY says which names it means, and one that does not ask for it
	// is not affected.
	publicUser = "public"
)

// url is the proxy's address with what it asks for.
func (p *proxy) url(addr string) string {
	return (&url.URL{Scheme: "http", User: url.UserPassword(proxyUser, p.secret), Host: addr}).String()
}

// admits reports whether a request has the proxy's secret, and as which user.
func (p *proxy) admits(r *http.Request) (user string, ok bool) {
	a := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	user, got, ok := a.BasicAuth()
	return user, ok && p.secret != "" && subtle.ConstantTimeCompare([]byte(got), []byte(p.secret)) == 1
}

// refuse answers what could not be tunnelled.
func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, why+"\n") // an error is a client that left
}

// dial connects to what the client calls host.
func (p *proxy) dial(ctx context.Context, host string, public bool) (net.Conn, error) {
	here, err := p.leads(host, public)
	if err != nil {
		return nil, err
	}
	if here {
		return p.dialer.DialContext(ctx, "tcp", p.listen)
	}
	up, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if err != nil {
		return nil, errors.New("the proxy in the environment of innate dev is not a URL")
	}
	if up == nil {
		return p.dialer.DialContext(ctx, "tcp", host)
	}
	return p.through(ctx, up, host)
}

// leads reports whether what the client calls host is here; public says that
// the client means the public cloud's names too.
func (p *proxy) leads(host string, public bool) (here bool, err error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return false, fmt.Errorf("%q is not host:port", host)
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == p.domain || strings.HasSuffix(name, "."+p.domain) {
		return true, nil
	}
	if public && CloudName(name) {
		return true, p.checkPublic(name, port)
	}
	return false, nil
}

// through opens a tunnel in the user's own proxy.
func (p *proxy) through(ctx context.Context, up *url.URL, host string) (net.Conn, error) {
	if up.Scheme != "http" {
		return nil, fmt.Errorf("the proxy in the environment of innate dev is of the kind %s; only http is supported", up.Scheme)
	}
	addr := up.Host
	if up.Port() == "" {
		addr = net.JoinHostPort(up.Hostname(), "80")
	}
	c, err := p.dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(d) // a socket that cannot have one fails at the write
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: host}, Host: host, Header: http.Header{}}
	if pw, ok := up.User.Password(); ok {
		a := http.Request{Header: http.Header{}}
		a.SetBasicAuth(up.User.Username(), pw)
		req.Header.Set("Proxy-Authorization", a.Header.Get("Authorization"))
	}
	if err := req.Write(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if resp.StatusCode != http.StatusOK || br.Buffered() > 0 {
		return nil, errors.Join(fmt.Errorf("the proxy %s answered %s", up.Host, resp.Status), c.Close())
	}
	_ = c.SetDeadline(time.Time{}) // likewise
	return c, nil
}

// tunnel copies both ways until both are done or nothing moves for long.
func tunnel(down net.Conn, buffered io.Reader, up net.Conn) {
	var wg sync.WaitGroup
	pump := func(dst net.Conn, from net.Conn, src io.Reader) {
		_, _ = io.Copy(dst, &idle{c: from, r: src}) // ends with either side; there is nobody to tell
		if h, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite() // the other side may be gone already
		}
	}
	wg.Go(func() { pump(up, down, buffered) })
	wg.Go(func() { pump(down, up, up) })
	wg.Wait()
}

// idle gives every read a deadline.
type idle struct {
	c net.Conn
	r io.Reader
}

func (i *idle) Read(b []byte) (int, error) {
	if err := i.c.SetReadDeadline(time.Now().Add(proxyIdle)); err != nil {
		return 0, err
	}
	return i.r.Read(b)
}
