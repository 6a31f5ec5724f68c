package metadata

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/problem"
)

// Outcome is how a request ended.
type Outcome string

// Outcomes.
const (
	OK        Outcome = "ok"
	Refused   Outcome = "refused"   // by a decision: who asks, or what for
	Throttled Outcome = "throttled" // asked too often
	Failed    Outcome = "error"     // nobody could decide
)

// Dialects are the names that a dialect may have in an [Event]; who counts by
// them has a bound.
func Dialects() []string { return []string{"imds", "appservice", "vmextension", "arc", "instance"} }

// Event is one request, whole: what a line of the log and the metrics are made
// of. Nothing in it is what a client sent, but for what Err quotes of it.
type Event struct {
	Dialect string
	// Request is the id that the client was given with a refusal.
	Request string
	Outcome Outcome
	// Kind and Err say why not; empty with [OK].
	Kind problem.Kind
	Err  error
	// Caller is who asked, or what is known of them; nil where nothing is.
	Caller *Caller
	// Cache says where a token came from; empty where none was got.
	Cache tokens.Source
	Took  time.Duration
}

// Refusals are what anybody on the host can cause as fast as they like: so
// many lines a second at most, after so many at once.
const (
	linesPerSecond = 20
	linesAtOnce    = 200
)

// dialect answers one request and notes in its event how.
type dialect func(ev *Event, w http.ResponseWriter, r *http.Request)

// events are used again for request after request; nothing keeps them.
var events = sync.Pool{New: func() any { return new(Event) }}

// observed makes a handler of a dialect, whose requests are events.
func (a *Agent) observed(name string, answer dialect) http.Handler {
	lines := rate.NewLimiter(linesPerSecond, linesAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ev := events.Get().(*Event)
		*ev = Event{Dialect: name, Outcome: OK}
		answer(ev, w, r)
		ev.Took = time.Since(began)
		if a.Observe != nil {
			a.Observe(ev)
		}
		ev.log(r.Context(), a.Log, lines)
		events.Put(ev)
	})
}

// place finds who asks by the connection.
func (a *Agent) place(r *http.Request, ev *Event) (*Caller, error) {
	c, err := a.Place(r.Context())
	return ev.noted(r, c, err)
}

// started finds who asks by a secret.
func (a *Agent) started(r *http.Request, ev *Event, secret string) (*Caller, error) {
	c, err := a.Started(r.Context(), secret)
	return ev.noted(r, c, err)
}

// noted notes who asks.
func (ev *Event) noted(r *http.Request, c *Caller, err error) (*Caller, error) {
	if err != nil {
		// Who was refused is known by the connection, or not at all.
		if known, err := door.Caller(r.Context()); err == nil {
			ev.Caller = &Caller{Evidence: known}
		}
		return nil, err
	}
	ev.Caller = c
	return c, nil
}

// failed notes why a request was refused, and the id that its client was given.
func (ev *Event) failed(dialect, id string, p *problem.Error) {
	ev.Dialect, ev.Request, ev.Kind, ev.Err = dialect, id, p.Kind, p
	switch p.Kind {
	case problem.Throttled:
		ev.Outcome = Throttled
	case problem.Unavailable, problem.Internal:
		ev.Outcome = Failed
	default:
		ev.Outcome = Refused
	}
}

// log writes the request's one line: at debug if it was answered, or else at
// info, unless there are too many of those.
func (ev *Event) log(ctx context.Context, log *slog.Logger, lines *rate.Limiter) {
	level := slog.LevelDebug
	switch {
	case ev.Kind == problem.Internal:
		level = slog.LevelError
	case ev.Outcome != OK:
		level = slog.LevelInfo
	}
	if log.Enabled(ctx, level) && (level != slog.LevelInfo || lines.Allow()) {
		ev.write(ctx, log, level)
	}
}

func (ev *Event) write(ctx context.Context, log *slog.Logger, level slog.Level) {
	var who Caller
	if ev.Caller != nil {
		who = *ev.Caller
	}
	attrs := []slog.Attr{slog.String("dialect", ev.Dialect), slog.String("outcome", string(ev.Outcome)), slog.String("caller", who.Evidence.String()),
		slog.String("placement", who.Placement), slog.String("cache", string(ev.Cache)), slog.Duration("took", ev.Took)}
	if ev.Err != nil {
		attrs = append(attrs, slog.String("request", ev.Request), slog.String("kind", string(ev.Kind)), slog.Any("err", ev.Err))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}
