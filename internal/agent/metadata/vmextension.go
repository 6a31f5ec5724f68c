package metadata

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/innate-id/innate/internal/problem"
)

// PathVMExtension is the path of the old virtual machine extension.
const PathVMExtension = "/oauth2/token"

// deprecatedSince is when the extension was: at the end of January 2019
// it was to be used no more. The header is of RFC 9745.
var deprecatedSince = time.Date(2019, 1, 31, 0, 0, 0, 0, time.UTC)

// maxWarned bounds how many callers are remembered as told.
const maxWarned = 1000

// vmExtension serves what the virtual machine extension served before there
// was a metadata service, for programs that are as old:
//
//	GET  /oauth2/token?resource=...
//	POST /oauth2/token              resource=...
//	Metadata: true
//
// Every answer says that it is deprecated, and the log says once who still asks.
type vmExtension struct {
	Agent
	mu     sync.Mutex // guards what follows
	warned map[string]bool
}

// VMExtension returns the handler of a VM extension's door.
func VMExtension(a Agent) http.Handler {
	d := &vmExtension{Agent: a, warned: map[string]bool{}}
	return d.observed("vmextension", d.serve)
}

func (d *vmExtension) serve(ev *Event, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Deprecation", fmt.Sprintf("@%d", deprecatedSince.Unix()))
	id := begin(w)
	body, err := d.answer(ev, w, r)
	if err == nil {
		write(w, http.StatusOK, body)
		return
	}
	p := problem.Of(err)
	ev.failed("vmextension", id, p)
	status, words := imdsError(p)
	refusal(w, r, status)
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", "GET, POST")
	}
	write(w, status, words)
}

func (d *vmExtension) answer(ev *Event, w http.ResponseWriter, r *http.Request) (any, error) {
	path, err := path(r)
	if err != nil {
		return nil, err
	}
	if path != PathVMExtension {
		return nil, problem.Errorf(problem.UnknownType, "Not found")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return nil, problem.Errorf(problem.MethodNotAllowed, "Only GET and POST are allowed")
	}
	if err := guard(r); err != nil {
		return nil, err
	}
	if err := marked(r); err != nil {
		return nil, err
	}
	q, err := formQuery(w, r)
	if err != nil {
		return nil, err
	}
	c, err := d.place(r, ev)
	if err != nil {
		return nil, err
	}
	d.warn(r, c)
	tok, err := d.token(r.Context(), ev, c, q)
	if err != nil {
		return nil, err
	}
	return d.tokenBody(tok, q), nil
}

// formQuery reads what is asked for from the query and the body together.
func formQuery(w http.ResponseWriter, r *http.Request) (*Query, error) {
	all, err := values(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	form, err := form(w, r)
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(form)) {
		all[k] = append(all[k], form[k]...)
	}
	if err := once(all); err != nil {
		return nil, err
	}
	var q Query
	return &q, q.read(all)
}

// form reads a POST's body. One of no stated length is refused: two readers
// could see its end in two places, and no client sends one.
func form(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.Method != http.MethodPost {
		return nil, bodyless(r)
	}
	if r.ContentLength < 0 {
		return nil, problem.Errorf(problem.Invalid, "The body must have a Content-Length")
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, problem.Errorf(problem.Invalid, "The body must be application/x-www-form-urlencoded")
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, &problem.Error{Kind: problem.TooLarge, Detail: fmt.Sprintf("The body could not be read; it must be at most %d bytes, sent at once", maxForm), Err: err}
	}
	return values(string(text))
}

// maxForm is the longest form, in bytes.
const maxForm = 8 << 10

// warn says once for each caller that it uses something old.
func (d *vmExtension) warn(r *http.Request, c *Caller) {
	who := c.Evidence.String()
	d.mu.Lock()
	told := d.warned[who] || len(d.warned) >= maxWarned
	if !told {
		d.warned[who] = true
	}
	d.mu.Unlock()
	if !told {
		d.Log.LogAttrs(r.Context(), slog.LevelWarn, "a program uses the deprecated VM extension endpoint: have it ask http://169.254.169.254/metadata/identity/oauth2/token",
			slog.String("caller", who), slog.String("workload", c.Workload))
	}
}
