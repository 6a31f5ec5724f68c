package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/client"
	"github.com/innate-id/innate/internal/dev"
)

// slowAPI is a management API whose operation is over after so many looks.
type slowAPI struct {
	*httptest.Server
	// style is the header that says where to ask; "" for none.
	style string
	// looks is how often it says that the operation is under way.
	looks int
	// failed has it end badly.
	failed bool
	// busy is how many looks are refused before.
	busy int
	// looked is told of each look.
	looked func()
	asked  []string
}

func newSlowAPI(t *testing.T, style string, looks int) *slowAPI {
	s := &slowAPI{style: style, looks: looks, looked: func() {}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

const slowResource = "/subscriptions/s/resourceGroups/g"

func (s *slowAPI) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		fmt.Fprintf(w, `{"access_token":"tok","expires_on":"%d","token_type":"Bearer"}`, time.Now().Add(time.Hour).Unix())
		return
	}
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	w.Header().Set("Retry-After", "0")
	if r.Method != http.MethodGet {
		if s.style != "" {
			w.Header().Set(s.style, s.URL+"/operation?api-version=1")
		}
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if s.looked(); s.busy > 0 {
		s.busy--
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":{"code":"TooManyRequests","message":"later"}}`)
		return
	}
	s.looks--
	under := s.looks >= 0
	switch {
	case r.URL.Path == slowResource && s.style == "" && under:
		fmt.Fprint(w, `{"properties":{"provisioningState":"Updating"}}`)
	case r.URL.Path == slowResource:
		fmt.Fprint(w, `{"name":"g","properties":{"provisioningState":"Succeeded"}}`)
	case s.style == "Location" && under:
		w.WriteHeader(http.StatusAccepted)
	case s.style == "Location" && s.failed:
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error":{"code":"ScopeLocked","message":"it is locked"}}`)
	case s.style == "Location":
		w.WriteHeader(http.StatusNoContent)
	case under:
		fmt.Fprint(w, `{"status":"InProgress"}`)
	case s.failed:
		fmt.Fprint(w, `{"status":"Failed","error":{"code":"ScopeLocked","message":"it is locked"}}`)
	default:
		fmt.Fprint(w, `{"status":"Succeeded"}`)
	}
}

// acting calls the API; what it prints is in the buffer.
func (s *slowAPI) acting() (*acting, *bytes.Buffer) {
	var out bytes.Buffer
	return &acting{
		id: &client.Identity{Endpoint: s.URL + "/token", Header: "h"}, http: s.Client(), in: &dev.Instance{Endpoints: dev.Endpoints{Management: s.URL}},
		stdout: &out, stderr: io.Discard,
	}, &out
}

func TestCommandsWaitForTheEnd(t *testing.T) {
	t.Parallel()
	for _, style := range []string{"Azure-AsyncOperation", "Location", ""} {
		s := newSlowAPI(t, style, 2)
		a, _ := s.acting()
		var got node[struct{}]
		if _, err := a.arm(t.Context(), http.MethodPut, slowResource, map[string]any{}, &got); err != nil || got.Name != "g" {
			t.Errorf("%q: a PUT is %v, %v; asked %q", style, got, err, s.asked)
		}
		if n := len(s.asked); n != 5 { // the PUT, two looks, the end, the resource
			t.Errorf("%q: asked %q", style, s.asked)
		}
	}
	s := newSlowAPI(t, "Location", 1)
	a, _ := s.acting()
	resp, err := a.arm(t.Context(), http.MethodDelete, slowResource, nil, nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("a DELETE: %v", err)
	}
	resp.Body.Close()
}

func TestFailureOfAnOperationIsTheCommands(t *testing.T) {
	t.Parallel()
	for _, style := range []string{"Azure-AsyncOperation", "Location"} {
		s := newSlowAPI(t, style, 1)
		s.failed = true
		a, _ := s.acting()
		_, err := a.arm(t.Context(), http.MethodDelete, slowResource, nil, nil)
		if err == nil || err.Error() != "ScopeLocked: it is locked" {
			t.Errorf("%s: the error is %v", style, err)
		}
	}
}

// TestBusyAPIIsNoFailureOfAnOperation: it is asked again, and an end to that is
// told from an end of the operation.
func TestBusyAPIIsNoFailureOfAnOperation(t *testing.T) {
	t.Parallel()
	for _, style := range []string{"Azure-AsyncOperation", "Location", ""} {
		s := newSlowAPI(t, style, 1)
		s.busy = 3
		a, _ := s.acting()
		if _, err := a.arm(t.Context(), http.MethodPut, slowResource, map[string]any{}, nil); err != nil || s.busy > 0 {
			t.Errorf("%q: %v, with %d refusals left", style, err, s.busy)
		}
	}
	s := newSlowAPI(t, "Location", 1)
	s.busy = 1_000_000
	a, _ := s.acting()
	_, err := a.arm(t.Context(), http.MethodDelete, slowResource, nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "TooManyRequests: later; the operation goes on: look at it with: innate operation show '") {
		t.Errorf("refused for ever: %v", err)
	}
}

// TestInterruptedCommandSaysWhereToLook: the operation goes on without it.
func TestInterruptedCommandSaysWhereToLook(t *testing.T) {
	t.Parallel()
	s := newSlowAPI(t, "Location", 1_000_000)
	ctx, cancel := context.WithCancel(t.Context())
	s.looked = cancel
	a, _ := s.acting()
	_, err := a.arm(ctx, http.MethodDelete, slowResource, nil, nil)
	f, ok := errors.AsType[failure](err)
	if !ok || f.code != 130 || !strings.HasSuffix(err.Error(), "the operation goes on: look at it with: innate operation show '"+s.URL+"/operation?api-version=1'") {
		t.Errorf("interrupted: %v", err)
	}
}

func TestCommandThatIsNotToWaitSaysWhereToLook(t *testing.T) {
	t.Parallel()
	for style, want := range map[string]string{"Azure-AsyncOperation": "/operation?api-version=1", "Location": "/operation?api-version=1", "": slowResource} {
		s := newSlowAPI(t, style, 1_000_000)
		a, out := s.acting()
		a.noWait = true
		_, err := a.arm(t.Context(), http.MethodPut, slowResource, map[string]any{}, &node[struct{}]{})
		if !errors.Is(err, errGoesOn) || out.String() != s.URL+want+"\n" || len(s.asked) != 1 {
			t.Errorf("%q: %v, printed %q, asked %q", style, err, out, s.asked)
		}
	}
}

// TestTokenGoesToTheManagementAPIAlone: an answer must not name another place
// that it is sent to.
func TestTokenGoesToTheManagementAPIAlone(t *testing.T) {
	t.Parallel()
	a := &acting{in: &dev.Instance{Endpoints: dev.Endpoints{Management: "https://management.example.com"}}}
	for link, want := range map[string]string{
		"https://management.example.com/a?b=c": "/a?b=c",
		"/a?b=c":                               "/a?b=c",
		"https://management.example.com.evil.test/a": "",
		"https://management.example.com@evil.test/a": "",
		"https://evil.test/a":                        "",
		"//evil.test/a":                              "",
		"https://management.example.com":             "",
		"":                                           "",
	} {
		if got, err := a.ours(link); got != want || (err == nil) != (want != "") {
			t.Errorf("ours(%q) = %q, %v, want %q", link, got, err, want)
		}
	}
}
