package portal

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

func get(t *testing.T, p *Portal, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	h, err := p.Handler(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w
}

// TestPage: the page says where things are, loads nothing from anywhere, and
// cannot be framed or run scripts.
func TestPage(t *testing.T) {
	p := &Portal{Names: web.Names{Domain: "id.example.com", Port: 8443}, CA: []byte("PEM"), Version: "<script>alert(1)</script>"}
	w := get(t, p, http.MethodGet, "/")
	body := w.Body.String()
	for _, want := range []string{"https://login.id.example.com:8443", "https://management.id.example.com:8443", "https://{name}.vault.id.example.com:8443", "/ca.pem"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, not := range []string{"<script", "src=", "http://"} {
		if strings.Contains(body, not) {
			t.Errorf("the page has %s", not)
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("Content-Security-Policy = %q", csp)
	}
}

func TestCertificate(t *testing.T) {
	with, without := &Portal{CA: []byte("PEM")}, &Portal{}
	if w := get(t, with, http.MethodGet, "/ca.pem"); w.Code != http.StatusOK || w.Body.String() != "PEM" {
		t.Errorf("/ca.pem = %d %q", w.Code, w.Body)
	}
	if w := get(t, without, http.MethodGet, "/ca.pem"); w.Code != http.StatusNotFound {
		t.Errorf("/ca.pem without a local CA = %d, want 404", w.Code)
	}
	if strings.Contains(get(t, without, http.MethodGet, "/").Body.String(), "ca.pem") {
		t.Error("the page offers a certificate that is not there")
	}
	for _, path := range []string{"/nothing", "/ca.pem/", "/index.html"} {
		if w := get(t, with, http.MethodGet, path); w.Code != http.StatusNotFound {
			t.Errorf("%s = %d, want 404", path, w.Code)
		}
	}
}

// TestEveryKindHasAStatus: nothing that goes wrong here looks like success.
func TestEveryKindHasAStatus(t *testing.T) {
	for _, k := range problem.Kinds() {
		w := httptest.NewRecorder()
		writeProblem(w, nil, problem.Errorf(k, "x"))
		if w.Code < 400 {
			t.Errorf("%s is written with %d", k, w.Code)
		}
	}
}
