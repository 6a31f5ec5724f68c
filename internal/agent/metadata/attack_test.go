package metadata_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
)

// dialect is one way to ask for a token, as a good request in parts.
type dialect struct {
	name                string
	handler             http.Handler
	path, query, header string
}

func (d dialect) request(head string) string {
	return "GET " + d.path + d.query + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + d.header + head + "\r\n"
}

func dialects(t testing.TB) []dialect {
	t.Helper()
	var asked metadata.Query
	a := documented(nil)
	a.Token = agent(&asked, nil).Token
	a.Place = func(context.Context) (*metadata.Caller, error) { return user(os.Getuid()), nil }
	keys, err := metadata.OpenKeys(filepath.Join(t.TempDir(), "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	const yes = "Metadata: true\r\n"
	return []dialect{
		{"imds", metadata.IMDS(a), tokenPath, goodQuery, yes},
		{"instance", metadata.IMDS(a), "/metadata/instance", "?api-version=2021-02-01", yes},
		{"attested", metadata.IMDS(a), "/metadata/attested/document", "?api-version=2021-02-01", yes},
		{"info", metadata.IMDS(a), "/metadata/identity/info", "?api-version=2021-02-01", yes},
		{"appservice", metadata.AppService(a), "/msi/token", "?api-version=2019-08-01&resource=https://vault.azure.net", "X-IDENTITY-HEADER: " + secret + "\r\n"},
		{"vmextension", metadata.VMExtension(a), "/oauth2/token", "?resource=https://vault.azure.net", yes},
		{"arc", metadata.Arc(a, keys), tokenPath, arcQuery, yes},
	}
}

// gave reports whether an answer holds anything of worth.
func gave(answer string) bool {
	for _, what := range []string{"a.b.c", "web1", "c2lnbmVk", "7f1e6a3c", "WWW-Authenticate"} {
		if strings.Contains(answer, what) {
			return true
		}
	}
	return false
}

// exchange sends bytes and returns all that comes back until the door closes.
func exchange(t *testing.T, d *door.Door, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The door may close before it has read all: that is an answer too.
	_, _ = io.WriteString(conn, text)
	_ = conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// TestBadInput sends each attack to each dialect. None is given anything, and
// what follows an attack on its connection is no request.
func TestBadInput(t *testing.T) {
	t.Parallel()
	for _, d := range dialects(t) {
		listening := open(t, d.handler)
		good := d.request("")
		if answer := exchange(t, listening, good+good); strings.Count(answer, "HTTP/1.1 ") != 2 || !gave(answer) {
			t.Fatalf("%s: two good requests on one connection = %s", d.name, answer)
		}
		with := func(head string) string { return d.request(head) }
		target := func(to string) string { return strings.Replace(good, d.path+d.query, to, 1) }
		host := func(h string) string { return strings.Replace(good, "127.0.0.1", h, 1) }
		parent, last := filepath.Dir(d.path), filepath.Base(d.path)
		key, value, _ := strings.Cut(strings.TrimSuffix(d.header, "\r\n"), ": ")
		header := func(h string) string { return strings.Replace(good, d.header, h, 1) }
		// Whatever comes after must not be answered: it may be part of the attack.
		for name, text := range map[string]string{
			"no header":                     header(""),
			"empty header":                  header(key + ":\r\n"),
			"header with another value":     header(key + ": no\r\n"),
			"header twice":                  with(d.header),
			"header as a list":              header(key + ": " + value + ", " + value + "\r\n"),
			"header with a blank in it":     header(key + " : " + value + "\r\n"),
			"header look-alike":             header(strings.Replace(key, "a", "а", 1) + "x: " + value + "\r\n"),
			"header with an underscore":     header(strings.ReplaceAll("X_"+key, "-", "_") + ": " + value + "\r\n"),
			"header in the query":           strings.Replace(header(""), d.query, d.query+"&Metadata=true", 1),
			"header after the end":          header("\r\n" + d.header),
			"X-Forwarded-For":               with("X-Forwarded-For: 10.0.0.1\r\n"),
			"X-Forwarded-For, empty":        with("x-forwarded-for:\r\n"),
			"X-Forwarded-For, folded":       with("X-Forwarded-For:\r\n 10.0.0.1\r\n"),
			"X-Forwarded-For by a line":     with("X: a\nX-Forwarded-For: 10.0.0.1\r\n"),
			"X-Forwarded-For by a return":   with("X: a\rX-Forwarded-For: 10.0.0.1\r\n"),
			"Forwarded":                     with("Forwarded: for=10.0.0.1\r\n"),
			"Via":                           with("Via: 1.1 proxy\r\n"),
			"host is a name":                host("metadata.evil.example"),
			"host is a name with a port":    host("metadata.evil.example:80"),
			"host is a user at an address":  host("127.0.0.1@evil.example"),
			"host is decimal":               host("2130706433"),
			"host is octal":                 host("0177.0.0.1"),
			"host is hexadecimal":           host("0x7f.0.0.1"),
			"host is short":                 host("127.1"),
			"host has a zone":               host("[fe80::1%25lo]"),
			"two hosts":                     with("Host: 127.0.0.1\r\n"),
			"no host":                       strings.Replace(good, "Host: 127.0.0.1\r\n", "", 1),
			"CONNECT":                       "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n" + d.header + "\r\n",
			"CONNECT to the path":           strings.Replace(good, "GET ", "CONNECT ", 1),
			"absolute form":                 target("http://127.0.0.1" + d.path + d.query),
			"absolute form of a name":       target("http://evil.example" + d.path + d.query),
			"authority in the path":         target("//evil.example" + d.path + d.query),
			"dot segment":                   target(parent + "/./" + last + d.query),
			"dot dot segment":               target(parent + "/x/../" + last + d.query),
			"encoded slash":                 target(parent + "%2F" + last + d.query),
			"encoded slash, small":          target(parent + "%2f" + last + d.query),
			"encoded letter":                target(parent + "/%" + hex(last[0]) + last[1:] + d.query),
			"encoded twice":                 target(parent + "/%25" + hex(last[0]) + last[1:] + d.query),
			"encoded dots":                  target("/%2e%2e" + d.path + d.query),
			"encoded zero":                  target(d.path + "%00" + d.query),
			"path parameter":                target(parent + ";x=1/" + last + d.query),
			"path parameter at the end":     target(d.path + ";x=1" + d.query),
			"look-alike in the path":        target(strings.Replace(d.path, "e", "е", 1) + "x" + d.query),
			"full-width path":               target(parent + "／" + last + d.query),
			"back slash":                    target(parent + "\\" + last + d.query),
			"capitals":                      target(strings.ToUpper(d.path) + d.query),
			"fragment":                      target(d.path + "%23" + d.query),
			"blank in the path":             target(parent + " /" + last + d.query),
			"HEAD":                          strings.Replace(good, "GET ", "HEAD ", 1),
			"PUT":                           strings.Replace(good, "GET ", "PUT ", 1),
			"small get":                     strings.Replace(good, "GET ", "get ", 1),
			"HTTP/1.0 with a name":          strings.Replace(strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1), "127.0.0.1", "evil.example", 1),
			"HTTP/0.9":                      "GET " + d.path + d.query + "\r\n\r\n",
			"HTTP/2 by prior knowledge":     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"body":                          with("Content-Length: 5\r\n") + "hello",
			"body that is a request":        with("Content-Length: 1000\r\n") + good,
			"chunked":                       with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
			"chunked and a length":          with("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + good,
			"a length and chunked":          with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "0\r\n\r\n" + good,
			"chunked, written oddly":        with("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n" + good,
			"chunked twice":                 with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n" + good,
			"two lengths":                   with("Content-Length: 0\r\nContent-Length: 5\r\n") + good,
			"a length as a list":            with("Content-Length: 0, 5\r\n") + good,
			"a length with a sign":          with("Content-Length: +5\r\n") + good,
			"a length below zero":           with("Content-Length: -1\r\n") + good,
			"a length in hexadecimal":       with("Content-Length: 0x10\r\n") + good,
			"upgrade":                       with("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Forwarded-For: 1\r\n"),
			"expectation":                   with("Expect: 100-continue\r\nContent-Length: 5\r\n"),
			"header flood":                  with(strings.Repeat("X-Flood: 1\r\n", 3000)),
			"one long header":               with("X: " + strings.Repeat("x", 20<<10) + "\r\n"),
			"long request line":             target(d.path + d.query + "&x=" + strings.Repeat("x", 20<<10)),
			"body flood":                    with("Content-Length: 1000000\r\n") + strings.Repeat("x", 1_000_000),
			"body flood in chunks":          with("Transfer-Encoding: chunked\r\n") + strings.Repeat("5\r\nhello\r\n", 10_000),
			"query key twice":               strings.Replace(good, d.query, d.query+"&"+d.query[1:], 1),
			"query key twice, once encoded": strings.Replace(good, d.query, d.query+"&%72"+"esource=x&resource=x&api%2Dversion=2021-02-01&api-version=2021-02-01", 1),
			"query does not parse":          strings.Replace(good, d.query, d.query+"&x=%zz", 1),
			"query with a semicolon":        strings.Replace(good, d.query, d.query+";x=1", 1),
		} {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				answer := exchange(t, listening, text)
				// Not the attack and not what follows it.
				if gave(answer) || strings.Contains(answer, "HTTP/1.1 2") || strings.Contains(answer, "HTTP/1.1 3") {
					t.Errorf("was answered: %.600s", answer)
				}
			})
		}
	}
}

func hex(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

// FuzzRequest sends any bytes to every dialect. Whoever is given something has
// asked for it as a local program does.
func FuzzRequest(f *testing.F) {
	all := dialects(f)
	for _, d := range all {
		f.Add([]byte(d.request("")))
		f.Add([]byte(d.request("X-Forwarded-For: 1\r\n")))
		f.Add([]byte(strings.Replace(d.request("Content-Length: 3\r\n")+"a=b", "GET", "POST", 1)))
	}
	f.Add([]byte("POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\nresource=x"))
	f.Add([]byte("GET /metadata/instance/compute/name?api-version=2021-02-01&format=text HTTP/1.1\r\nHost: [::1]\r\nMetadata: True\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, d := range all {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
			if err != nil {
				return
			}
			w := httptest.NewRecorder()
			d.handler.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError || w.Code/100 == 3 || w.Code == 0 {
				t.Errorf("%s answers %q with %d %s", d.name, text, w.Code, w.Body)
			}
			if w.Header().Get("Content-Type") == "" || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s answers %q with headers %v", d.name, text, w.Header())
			}
			if answer := w.Body.String() + strings.Join(w.Header()["Www-Authenticate"], ""); w.Code != 200 && !strings.Contains(answer, "Basic realm") {
				continue
			}
			for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
				if r.Header[name] != nil {
					t.Errorf("%s answers %q, which has %s", d.name, text, name)
				}
			}
			path, _, _ := strings.Cut(r.RequestURI, "?")
			if !strings.HasPrefix(path, "/") || strings.Contains(path, "%") || strings.Contains(path, "/.") && strings.Contains(path+"/", "./") {
				t.Errorf("%s answers %q, whose path is not plain", d.name, text)
			}
			mark, want := "Metadata", "true"
			if d.name == "appservice" {
				mark, want = "X-Identity-Header", secret
				if r.URL.Query().Get("api-version") == "2017-09-01" {
					mark = "Secret"
				}
			}
			if v := r.Header.Values(mark); len(v) != 1 || !strings.EqualFold(strings.TrimSpace(v[0]), want) {
				t.Errorf("%s answers %q without its header", d.name, text)
			}
			if host := strings.ToLower(r.Host); strings.ContainsAny(strings.TrimPrefix(host, "localhost"), "ghijklmnopqrstuvwxyz") {
				t.Errorf("%s answers %q, whose host is a name", d.name, text)
			}
		}
	})
}
