package arm

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

func TestEveryKindHasItsWords(t *testing.T) {
	t.Parallel()
	a := &API{Names: web.Names{Domain: "innate.test", Port: 443}}
	seen := 0
	for _, k := range problem.Kinds() {
		wd, ok := words[k]
		if !ok || wd.status < 400 || wd.status > 599 || wd.code == "" {
			t.Errorf("kind %s is said as %+v", k, wd)
		}
		if wd.status >= 500 && k != problem.Internal && k != problem.Unavailable {
			t.Errorf("kind %s is %d, which says that the fault is ours", k, wd.status)
		}
		// A 409 with one of these makes clients register a provider and wait for minutes.
		if strings.Contains(wd.code, "Registration") || strings.Contains(wd.code, "NotRegistered") {
			t.Errorf("kind %s has the code %s", k, wd.code)
		}
		seen++
		for _, method := range []string{"GET", "HEAD"} {
			rec := httptest.NewRecorder()
			r := httptest.NewRequest(method, "/x", nil)
			r.Header.Set("Authorization", "Bearer x")
			a.writeProblem(rec, r, problem.Errorf(k, "a \"detail\""))
			if rec.Code != wd.status || rec.Header().Get("x-ms-error-code") != wd.code {
				t.Errorf("%s: kind %s is answered %d %s, want %+v", method, k, rec.Code, rec.Header().Get("x-ms-error-code"), wd)
			}
			if (wd.status == 401) != (rec.Header().Get("WWW-Authenticate") != "") || (wd.status == 429 || wd.status == 503) != (rec.Header().Get("Retry-After") != "") {
				t.Errorf("kind %s has the headers %v", k, rec.Header())
			}
			var e armError
			if method == "HEAD" {
				if rec.Body.Len() > 0 {
					t.Errorf("kind %s answers HEAD with a body", k)
				}
			} else if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.Error.Code != wd.code || e.Error.Message != `a "detail"` {
				t.Errorf("kind %s has the body %s", k, rec.Body)
			}
		}
	}
	if seen != len(words) {
		t.Errorf("the table has %d kinds, and there are %d", len(words), seen)
	}
}

func TestRoleAssignmentsHaveTheirOwnWords(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/subscriptions/s/providers/microsoft.authorization/ROLEASSIGNMENTS/g/": "RoleAssignmentUpdateNotPermitted",
		"/subscriptions/s/resourceGroups/roleAssignments":                       "PropertyChangeNotAllowed",
		"/": "PropertyChangeNotAllowed",
	} {
		if got := wordOf(httptest.NewRequest("PUT", path, nil), problem.Immutable).code; got != want {
			t.Errorf("at %s, immutable is %s, want %s", path, got, want)
		}
	}
}

// stalled is a connection whose reader reads no more: a write ends when its
// deadline has come, and only then.
type stalled struct {
	http.ResponseWriter
	deadline time.Time
}

func (s *stalled) SetWriteDeadline(at time.Time) error { s.deadline = at; return nil }
func (s *stalled) Flush()                              {}

func (s *stalled) Write([]byte) (int, error) {
	if s.deadline.IsZero() {
		return 0, errors.New("it waits for ever")
	}
	return 0, errors.New("i/o timeout")
}

// TestAReaderWhoReadsNoMoreIsCutOff: each write of a stream has a deadline.
func TestAReaderWhoReadsNoMoreIsCutOff(t *testing.T) {
	t.Parallel()
	s := &stalled{ResponseWriter: httptest.NewRecorder()}
	tl := tail{scope: resource.Root, out: json.NewEncoder(s), flush: http.NewResponseController(s), pending: []audit.Event{{Target: "/"}}}
	if err := tl.write(time.Time{}); err == nil || err.Error() != "i/o timeout" {
		t.Errorf("writing to a reader who stalls: %v, want a timeout", err)
	}
	if left := time.Until(s.deadline); left <= 0 || left > sendTimeout {
		t.Errorf("the deadline is in %s", left)
	}
}
