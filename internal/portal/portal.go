// Package portal is the pages for people. For now there is one, which needs no
// sign-in and says nothing that is not public: where the parts of this
// installation are and which tenants' keys to trust.
package portal

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

//go:embed page.html
var files embed.FS

// Portal serves portal.{domain}.
type Portal struct {
	Names web.Names
	// CA is the local CA's certificate in PEM; empty where there is none.
	CA []byte
	// Version is the program's version.
	Version string
}

// Handler serves / and, where there is a local CA, /ca.pem.
func (p *Portal) Handler(log *slog.Logger) (http.Handler, error) {
	page, err := template.ParseFS(files, "page.html")
	if err != nil {
		return nil, fmt.Errorf("parsing the portal's page: %w", err)
	}
	s := &web.Surface{Name: "portal", Log: log, Write: writeProblem}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", s.Handle(func(w http.ResponseWriter, _ *http.Request) error {
		var b bytes.Buffer
		if err := page.Execute(&b, p); err != nil {
			return fmt.Errorf("rendering the page: %w", err)
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(b.Bytes()) // an error is a reader that left
		return nil
	}))
	mux.Handle("GET /ca.pem", s.Handle(func(w http.ResponseWriter, _ *http.Request) error {
		if len(p.CA) == 0 {
			return problem.Errorf(problem.NotFound, "this installation has no local CA")
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(p.CA)
		return nil
	}))
	mux.Handle("/", s.Handle(func(_ http.ResponseWriter, r *http.Request) error {
		return problem.Errorf(problem.NotFound, "there is no %s %s here", r.Method, r.URL.Path)
	}))
	return mux, nil
}

// writeProblem: nothing but a path can be wrong here.
func writeProblem(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
	status := http.StatusInternalServerError
	if p.Kind == problem.NotFound {
		status = http.StatusNotFound
	}
	_ = web.WriteJSON(w, status, map[string]string{"error": p.Detail})
}
