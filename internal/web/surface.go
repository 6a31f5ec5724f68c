// Package web is the plumbing under every surface: handlers that return an
// error, one place that writes it, one log event a request, limits, and
// routing by host name.
//
// A handler writes nothing before it returns an error. It never logs: what it
// returns is logged once, by [Surface.Handle].
package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
)

// MaxBody is the largest request body that [ReadJSON] takes, in bytes.
const MaxBody = 1 << 20

// Handler serves a request or says why it could not. It writes nothing before
// it returns an error.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Surface is what differs between APIs: how each writes a problem.
type Surface struct {
	// Name is the surface in the log.
	Name  string
	Log   *slog.Logger
	Write func(w http.ResponseWriter, r *http.Request, p *problem.Error)
	// Again says of an error that it is one of many, the first of which was
	// logged: the log has it at debug level alone. May be nil.
	Again func(err error) bool
}

// Handle adapts h. It is the only place where an error becomes a response.
func (s *Surface) Handle(h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			s.Log.LogAttrs(r.Context(), slog.LevelInfo, "client went away", slog.String("surface", s.Name), slog.String("path", problem.Clip(r.URL.Path)))
			// At a shutdown the client is still there, and no answer at all
			// would reach it as an empty 200.
			s.Write(w, r, problem.Errorf(problem.Unavailable, "the request was cancelled before it was done; try again"))
			return
		}
		p := problem.Of(err)
		level := slog.LevelInfo
		switch {
		case p.Kind == problem.Internal:
			level = slog.LevelError
		case s.Again != nil && s.Again(err):
			level = slog.LevelDebug
		}
		s.Log.LogAttrs(r.Context(), level, "request refused",
			slog.String("surface", s.Name), slog.String("method", problem.Clip(r.Method)), slog.String("path", problem.Clip(r.URL.Path)),
			slog.String("request", RequestID(r.Context())), slog.String("kind", string(p.Kind)), slog.Any("err", err))
		s.Write(w, r, p)
	})
}

type requestIDKey struct{}

// RequestID returns the id that [Identify] gave the request, "" outside of one.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// Identify gives every request an id, in the context and as x-ms-request-id,
// and echoes the client's own x-ms-client-request-id and client-request-id if
// they are plain GUIDs or short tokens.
func Identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.NewString()
		w.Header().Set("X-Ms-Request-Id", id)
		for _, h := range []string{"X-Ms-Client-Request-Id", "Client-Request-Id"} {
			if v := r.Header.Get(h); v != "" && len(v) <= 64 && plain(v) {
				w.Header().Set(h, v)
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id)))
	})
}

func plain(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}) < 0
}

// WriteJSON writes v with the status. The answer is never cached.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		return nil // the client is gone; there is nobody to tell
	}
	return nil
}

// body reads the request's body, and one byte more than [MaxBody] of one that
// is too long.
func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return nil, &problem.Error{Kind: problem.Invalid, Detail: "the request body could not be read", Err: err}
	}
	return b, nil
}

// Buffer reads the request's body, so that it is there whole for [ReadJSON].
func Buffer(r *http.Request) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

// ReadJSON decodes the request's body, one JSON value of at most [MaxBody]
// bytes, into v. Errors are [problem.Invalid] or [problem.TooLarge] and say
// where the body is wrong.
func ReadJSON(r *http.Request, v any) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	if len(b) > MaxBody {
		return problem.Errorf(problem.TooLarge, "the request body is over %d bytes", MaxBody)
	}
	if len(b) == 0 {
		return problem.Errorf(problem.Invalid, "the request has no body; a JSON object was expected")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return badJSON(err)
	}
	if !wellFormed(b) {
		return problem.Errorf(problem.Invalid, "the request body is not UTF-8, or has half of a surrogate pair")
	}
	return nil
}

// wellFormed reports whether the JSON text b is UTF-8 and its \u escapes name
// whole characters. encoding/json puts U+FFFD for what is not, and so would
// change a client's secret without a word.
func wellFormed(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for i := 0; i+1 < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		i++
		r, ok := escape(b[i:])
		if !ok || !utf16.IsSurrogate(r) {
			continue
		}
		low, ok := rune(0), false
		if i+5 < len(b) && b[i+5] == '\\' {
			low, ok = escape(b[i+6:])
		}
		if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
			return false
		}
		i += 10
	}
	return true
}

// escape reads "uXXXX" at the start of b.
func escape(b []byte) (rune, bool) {
	if len(b) < 5 || b[0] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[1:5]), 16, 16)
	return rune(n), err == nil
}

func badJSON(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return problem.Errorf(problem.Invalid, "the request body is not JSON: at byte %d: %v", e.Offset, e)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return problem.Errorf(problem.Invalid, "the request body has a %s at %q where %s was expected", e.Value, e.Field, jsonWord(e.Type.Kind().String()))
	}
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	return &problem.Error{Kind: problem.Invalid, Detail: "the request body is not the JSON that was expected", Err: err}
}

// jsonWord says a Go kind in JSON's words.
func jsonWord(kind string) string {
	switch {
	case kind == "struct" || kind == "map" || kind == "ptr":
		return "an object"
	case kind == "slice" || kind == "array":
		return "an array"
	case kind == "bool":
		return "true or false"
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint") || strings.HasPrefix(kind, "float"):
		return "a number"
	}
	return "a " + kind
}
