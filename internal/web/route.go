package web

import (
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Hosts routes by host name. A name without a handler gets NotFound.
type Hosts struct {
	// Exact maps a lower-case host name without port to its handler.
	Exact map[string]http.Handler
	// Below maps a parent domain to the handler of all names one label below it.
	Below map[string]http.Handler
	// NotFound serves every other name.
	NotFound http.Handler
}

func (h *Hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := HostName(r)
	if next, ok := h.Exact[host]; ok {
		next.ServeHTTP(w, r)
		return
	}
	if _, parent, ok := strings.Cut(host, "."); ok {
		if next, ok := h.Below[parent]; ok {
			next.ServeHTTP(w, r)
			return
		}
	}
	h.NotFound.ServeHTTP(w, r)
}

// HostName returns the request's host name: lower case, without port and
// trailing dot.
func HostName(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// Path returns the request's path as segments, tolerant as the services are
// whose wire we speak: doubled and trailing slashes do not count, and nothing
// is ever redirected. ok is false for dot segments, encoded slashes, backslashes
// and undecodable bytes: no client sends them, and a segment with a slash in it
// would be read as two where segments are joined again.
func Path(r *http.Request) (segs []string, ok bool) {
	for _, s := range strings.Split(r.URL.EscapedPath(), "/") {
		if s == "" {
			continue
		}
		d, err := url.PathUnescape(s)
		if err != nil || d == "." || d == ".." || strings.ContainsAny(d, "/\\\x00") {
			return nil, false
		}
		segs = append(segs, d)
	}
	return segs, true
}

// Recover turns a panic in next into a log event with the stack and cuts the
// connection without an answer: half of one must not look whole.
func Recover(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				log.LogAttrs(r.Context(), slog.LevelError, "handler panicked",
					slog.String("path", problem.Clip(r.URL.Path)), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(w, r)
	})
}
