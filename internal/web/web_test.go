package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
)

var quiet = slog.New(slog.DiscardHandler)

func TestPath(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string // nil means refused
	}{
		{"/", []string{}},
		{"/secrets", []string{"secrets"}},
		{"/secrets/db/", []string{"secrets", "db"}},
		{"//metadata//identity/oauth2/token/", []string{"metadata", "identity", "oauth2", "token"}},
		{"/secrets/a%20b", []string{"secrets", "a b"}},
		{"/a+b", []string{"a+b"}},
		{"/secrets/a%2Fb", nil},
		{"/secrets/a%2fb", nil},
		{"/secrets/..%2Fkeys", nil},
		{"/secrets/../keys", nil},
		{"/secrets/%2e%2e/keys", nil},
		{"/./secrets", nil},
		{"/secrets/a%5Cb", nil},
		{"/secrets/a%00b", nil},
		{"/secrets/...", []string{"secrets", "..."}},
	} {
		u, err := url.ParseRequestURI(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := Path(&http.Request{URL: u})
		if ok != (tt.want != nil) || (ok && cmp.Diff(tt.want, append([]string{}, got...)) != "") {
			t.Errorf("Path(%s) = %q, %v, want %q", tt.in, got, ok, tt.want)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("/a//b/%2e%2e/%2F")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s)
		if err != nil {
			return
		}
		segs, ok := Path(&http.Request{URL: u})
		for _, seg := range segs {
			if !ok || seg == "" || seg == "." || seg == ".." || strings.ContainsAny(seg, "/\\\x00") {
				t.Errorf("Path(%q) = %q, %v", s, segs, ok)
			}
		}
	})
}

func TestHosts(t *testing.T) {
	named := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
	}
	h := &Hosts{
		Exact:    map[string]http.Handler{"login.d.test": named("login"), "x.vault.d.test": named("exact")},
		Below:    map[string]http.Handler{"vault.d.test": named("vault")},
		NotFound: named("none"),
	}
	for _, tt := range []struct{ host, want string }{
		{"login.d.test", "login"},
		{"LOGIN.D.test:8443", "login"},
		{"login.d.test.", "login"},
		{"demo.vault.d.test:443", "vault"},
		{"x.vault.d.test", "exact"},
		{"a.demo.vault.d.test", "none"}, // one label, not two
		{"vault.d.test", "none"},
		{"demovault.d.test", "none"},
		{"127.0.0.1:80", "none"},
		{"[::1]:80", "none"},
		{"", "none"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Body.String(); got != tt.want {
			t.Errorf("host %q goes to %s, want %s", tt.host, got, tt.want)
		}
	}
}

func TestReadJSON(t *testing.T) {
	type body struct {
		Name  string `json:"name"`
		Count int64  `json:"count"`
		Inner struct {
			On *bool `json:"on"`
		} `json:"inner"`
	}
	for _, tt := range []struct {
		in   string
		kind problem.Kind // "" means taken
		says string
	}{
		{`{"name":"a","count":1}`, "", ""},
		{` {"name":"\ud83d\ude00 \\ud83d \u00e9"} `, "", ""},
		{"", problem.Invalid, "no body"},
		{"{", problem.Invalid, "not JSON: at byte 1"},
		{`{"name":"a"} x`, problem.Invalid, "not JSON"},
		{`{"name":1}`, problem.Invalid, `has a number at "name" where a string was expected`},
		{`{"count":1.5}`, problem.Invalid, `at "count" where a number was expected`},
		{`{"inner":[]}`, problem.Invalid, `has a array at "inner" where an object was expected`},
		{`{"inner":{"on":"yes"}}`, problem.Invalid, `at "inner.on" where true or false was expected`},
		{"{\"name\":\"\xff\"}", problem.Invalid, "not UTF-8"}, // would become U+FFFD
		{`{"name":"\ud83d"}`, problem.Invalid, "surrogate"},
		{`{"name":"\ud83dx\ude00"}`, problem.Invalid, "surrogate"},
		{`{"name":"\ude00\ud83d"}`, problem.Invalid, "surrogate"},
		{`{"name":"` + strings.Repeat("a", MaxBody) + `"}`, problem.TooLarge, "over 1048576 bytes"},
	} {
		var b body
		err := ReadJSON(httptest.NewRequest("PUT", "/", strings.NewReader(tt.in)), &b)
		if tt.kind == "" {
			if err != nil {
				t.Errorf("ReadJSON(%s) = %v", tt.in, err)
			}
			continue
		}
		if !problem.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("ReadJSON(%.40q) = %v, want %s: %s", tt.in, err, tt.kind, tt.says)
		}
	}
}

func TestIdentify(t *testing.T) {
	var inside string
	h := Identify(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { inside = RequestID(r.Context()) }))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Ms-Client-Request-Id", "a-b_c.1")
	r.Header.Set("Client-Request-Id", "<script>")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if inside == "" || w.Header().Get("X-Ms-Request-Id") != inside {
		t.Errorf("request id %q inside, %q in the answer", inside, w.Header().Get("X-Ms-Request-Id"))
	}
	if got := w.Header().Get("X-Ms-Client-Request-Id"); got != "a-b_c.1" {
		t.Errorf("the client's id comes back as %q", got)
	}
	if got, ok := w.Header()["Client-Request-Id"]; ok {
		t.Errorf("an id that is no token comes back: %q", got)
	}
	if got := RequestID(t.Context()); got != "" {
		t.Errorf("RequestID outside of a request = %q", got)
	}
}

func TestHandleWritesOnce(t *testing.T) {
	s := &Surface{Name: "test", Log: quiet, Write: func(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
		w.WriteHeader(418)
		_, _ = io.WriteString(w, string(p.Kind)+" "+p.Detail)
	}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("doing: %w", problem.Errorf(problem.Denied, "no")), "denied no"},
		{errors.New("password=hunter2"), "internal internal error"},
	} {
		w := httptest.NewRecorder()
		s.Handle(func(http.ResponseWriter, *http.Request) error { return tt.err }).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if got := w.Body.String(); got != tt.want {
			t.Errorf("%v is written as %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestCancelledRequestIsNoEmpty200(t *testing.T) {
	s := &Surface{Log: quiet, Write: func(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
		if p.Kind != problem.Unavailable {
			t.Errorf("kind = %s", p.Kind)
		}
		w.WriteHeader(503)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	s.Handle(func(_ http.ResponseWriter, r *http.Request) error { return r.Context().Err() }).
		ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
	if w.Code != 503 {
		t.Errorf("status = %d, want 503", w.Code)
	}
}

func TestRecoverCutsTheConnection(t *testing.T) {
	srv := httptest.NewServer(Recover(quiet, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("boom")
	})))
	t.Cleanup(srv.Close)
	res, err := http.Get(srv.URL)
	if err != nil {
		return // cut before the header
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("an answer that panicked half-way looks whole")
	}
}

func TestWriteJSON(t *testing.T) {
	w := httptest.NewRecorder()
	if err := WriteJSON(w, 201, map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	if w.Code != 201 || w.Body.String() != `{"a":1}` || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %s %v", w.Code, w.Body, w.Header())
	}
	if err := WriteJSON(httptest.NewRecorder(), 200, func() {}); err == nil {
		t.Error("WriteJSON(a function) = nil")
	}
}
