package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// endpoint plays a local endpoint; serve answers, asked counts.
type endpoint struct {
	*httptest.Server
	asked atomic.Int64
	last  atomic.Pointer[http.Request]
}

func newEndpoint(t *testing.T, serve func(w http.ResponseWriter, n int64)) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.last.Store(r)
		serve(w, e.asked.Add(1))
	}))
	t.Cleanup(e.Close)
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_POD_IDENTITY_AUTHORITY_HOST"} {
		t.Setenv(name, "")
	}
	return e
}

func lives(life time.Duration) func(http.ResponseWriter, int64) {
	return func(w http.ResponseWriter, n int64) {
		fmt.Fprintf(w, `{"access_token":"t%d","client_id":"c","expires_on":"%d","resource":"r"}`, n, time.Now().Add(life).Unix())
	}
}

func TestShapes(t *testing.T) {
	e := newEndpoint(t, lives(time.Hour))
	t.Run("App Service", func(t *testing.T) {
		t.Setenv("IDENTITY_ENDPOINT", e.URL+"/msi/token?kept=1")
		t.Setenv("IDENTITY_HEADER", "secret")
		t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
		tok, err := (&Identity{ClientID: "me"}).Token(t.Context(), "https://vault.azure.net")
		if err != nil {
			t.Fatal(err)
		}
		r := e.last.Load()
		q := r.URL.Query()
		if r.URL.Path != "/msi/token" || r.Header.Get("X-Identity-Header") != "secret" || q.Get("api-version") != "2019-08-01" ||
			q.Get("resource") != "https://vault.azure.net" || q.Get("client_id") != "me" || q.Get("kept") != "1" {
			t.Errorf("asked %s with %v", r.URL, r.Header)
		}
		if strings.Contains(tok.String(), tok.Value) || fmt.Sprint(tok) != tok.String() {
			t.Errorf("a token prints as %s", tok)
		}
	})
	t.Run("IMDS", func(t *testing.T) {
		t.Setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", e.URL+"/")
		if _, err := new(Identity).Token(t.Context(), "r"); err != nil {
			t.Fatal(err)
		}
		r := e.last.Load()
		if r.URL.Path != "/metadata/identity/oauth2/token" || r.Header.Get("Metadata") != "true" || r.URL.Query().Has("client_id") {
			t.Errorf("asked %s with %v", r.URL, r.Header)
		}
	})
}

// TestTokenIsKeptAndShared: many callers, one request; a token near its end is
// replaced, one of another API is another's.
func TestTokenIsKeptAndShared(t *testing.T) {
	e := newEndpoint(t, lives(time.Hour))
	id := &Identity{Endpoint: e.URL, Header: "x"}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if tok, err := id.Token(t.Context(), "a"); err != nil || tok.Value != "t1" {
				t.Errorf("Token = %v, %v", tok, err)
			}
		})
	}
	wg.Wait()
	if n := e.asked.Load(); n != 1 {
		t.Errorf("50 callers asked the endpoint %d times, want 1", n)
	}
	if tok, err := id.Token(t.Context(), "b"); err != nil || tok.Value != "t2" {
		t.Errorf("a token for another API is %q, %v; want t2", tok.Value, err)
	}
	short := newEndpoint(t, lives(early-time.Minute))
	id = &Identity{Endpoint: short.URL, Header: "x"}
	for want := 1; want <= 2; want++ {
		if tok, err := id.Token(t.Context(), "a"); err != nil || tok.Value != "t"+strconv.Itoa(want) {
			t.Errorf("a token that ends in four minutes: got %q, %v; want t%d", tok.Value, err, want)
		}
	}
}

// TestRefusalIsNotKept: the next call asks again, and may get its token.
func TestRefusalIsNotKept(t *testing.T) {
	e := newEndpoint(t, func(w http.ResponseWriter, n int64) {
		if n == 1 {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_request","error_description":"Identity not found"}`)
			return
		}
		lives(time.Hour)(w, n)
	})
	id := &Identity{Endpoint: e.URL, Header: "x"}
	_, err := id.Token(t.Context(), "a")
	if r, ok := errors.AsType[*Error](err); !ok || r.Status != 400 || r.Code != "invalid_request" || r.Message != "Identity not found" {
		t.Errorf("a refusal is %v", err)
	}
	if tok, err := id.Token(t.Context(), "a"); err != nil || tok.Value != "t2" {
		t.Errorf("after a refusal: %q, %v", tok.Value, err)
	}
}

// TestCallerThatGivesUp: one that stops waiting does not fail the others.
func TestCallerThatGivesUp(t *testing.T) {
	release := make(chan struct{})
	e := newEndpoint(t, func(w http.ResponseWriter, n int64) { <-release; lives(time.Hour)(w, n) })
	id := &Identity{Endpoint: e.URL, Header: "x"}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := id.Token(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled caller got %v", err)
	}
	close(release)
	if tok, err := id.Token(t.Context(), "a"); err != nil || tok.Value != "t1" {
		t.Errorf("who goes on waiting got %q, %v; want t1", tok.Value, err)
	}
}

func TestBadAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON": "<html>", "no token": "{}", "no expiry": `{"access_token":"x"}`, "a date": `{"access_token":"x","expires_on":"06/20/2019"}`,
	} {
		e := newEndpoint(t, func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, body) })
		if tok, err := (&Identity{Endpoint: e.URL, Header: "x"}).Token(t.Context(), "a"); err == nil {
			t.Errorf("%s: got %v, want an error", name, tok)
		}
	}
	e := newEndpoint(t, func(w http.ResponseWriter, _ int64) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(http.StatusFound)
	})
	if _, err := (&Identity{Endpoint: e.URL, Header: "x"}).Token(t.Context(), "a"); err == nil || strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("a redirect = %v, want a refusal that did not follow it", err)
	}
}

// TestVault: paging, Key Vault's errors, and a next page elsewhere, to which
// no token goes.
func TestVault(t *testing.T) {
	e := newEndpoint(t, lives(time.Hour))
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t1" || !r.URL.Query().Has("api-version") {
			t.Errorf("%s came with %q", r.URL, r.Header.Get("Authorization"))
		}
		switch r.Method + " " + r.URL.Path + r.URL.Query().Get("$skiptoken") {
		case "GET /secrets":
			fmt.Fprintf(w, `{"value":[{"id":"%s/secrets/a"}],"nextLink":"%s/secrets?api-version=1&$skiptoken=2"}`, srv.URL, srv.URL)
		case "GET /secrets2":
			fmt.Fprintf(w, `{"value":[{"id":"%s/secrets/b"}],"nextLink":"%s/secrets"}`, srv.URL, other.URL)
		case "GET /secrets/a":
			fmt.Fprintf(w, `{"id":"%s/secrets/a/1","value":"v"}`, srv.URL)
		case "GET /secrets/a/0":
			fmt.Fprintf(w, `{"id":"%s/secrets/a/0","value":"old"}`, srv.URL)
		default:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"error":{"code":"Forbidden","message":"no\r\nnever","innererror":{"code":"ForbiddenByRbac"}}}`)
		}
	}))
	t.Cleanup(srv.Close)
	v := &Vault{URL: srv.URL, Identity: &Identity{Endpoint: e.URL, Header: "x"}}
	var names []string
	err := v.List(t.Context(), func(s Secret) error { names = append(names, s.Name()); return nil })
	if strings.Join(names, ",") != "a,b" || err == nil || elsewhere.Load() != 0 {
		t.Errorf("List = %v, %v, with %d requests elsewhere; want a and b, an error, and none", names, err, elsewhere.Load())
	}
	if s, err := v.Get(t.Context(), "a"); err != nil || s.Value != "v" || s.Name() != "a" {
		t.Errorf("Get = %+v, %v", s, err)
	}
	if s, err := v.GetVersion(t.Context(), "a", "0"); err != nil || s.Value != "old" {
		t.Errorf("GetVersion = %+v, %v", s, err)
	}
	for _, value := range []string{"\xff", "key\x00\xc3\x28", "\xed\xa0\x80"} {
		if _, err := v.Set(t.Context(), "a", value); err == nil || !strings.Contains(err.Error(), "encode binary values, for example with base64") {
			t.Errorf("Set(%q) = %v, want a refusal that names base64", value, err)
		} else if _, asked := errors.AsType[*Error](err); asked {
			t.Errorf("Set(%q) asked the vault: %v", value, err)
		}
	}
	_, err = v.Set(t.Context(), "a", "x")
	if r, ok := errors.AsType[*Error](err); !ok || r.Status != 403 || r.Code != "Forbidden/ForbiddenByRbac" || r.Message != "no\nnever" {
		t.Errorf("a refusal is %v", err)
	}
}
