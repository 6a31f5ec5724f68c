package metadata

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
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
	// Evidence is what is known of who asked, Placement what that made of them.
	Evidence  evidence.Evidence
	Placement string
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

type eventKey struct{}

// observing is the context of a request with its event in it.
type observing struct {
	context.Context
	event Event
}

func (o *observing) Value(key any) any {
	if key == (eventKey{}) {
		return &o.event
	}
	return o.Context.Value(key)
}

// observed makes a handler of dialect whose requests are events.
func (a Agent) observed(dialect string, handler func(Agent) http.Handler) http.Handler {
	lines := rate.NewLimiter(linesPerSecond, linesAtOnce)
	h := handler(a.noted())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx := &observing{r.Context(), Event{Dialect: dialect, Outcome: OK}}
		ev := &ctx.event
		h.ServeHTTP(w, r.WithContext(ctx))
		ev.Took = time.Since(began)
		if a.Observe != nil {
			a.Observe(ev)
		}
		ev.log(ctx, a.Log, lines)
	})
}

// noted is the agent whose answers are noted in the request's event.
func (a Agent) noted() Agent {
	place, started, token := a.Place, a.Started, a.Token
	seen := func(ctx context.Context, c Caller, err error) {
		ev, ok := ctx.Value(eventKey{}).(*Event)
		if !ok {
			return
		}
		if ev.Evidence, ev.Placement = c.Evidence, c.Placement; err != nil {
			// Who was refused is known by the connection, or not at all.
			ev.Evidence, _ = door.Caller(ctx)
		}
	}
	a.Place = func(ctx context.Context) (Caller, error) {
		c, err := place(ctx)
		seen(ctx, c, err)
		return c, err
	}
	a.Started = func(ctx context.Context, secret string) (Caller, error) {
		c, err := started(ctx, secret)
		seen(ctx, c, err)
		return c, err
	}
	a.Token = func(ctx context.Context, c Caller, q Query) (fleetapi.TokenResponse, error) {
		if ev, ok := ctx.Value(eventKey{}).(*Event); ok {
			q.From = &ev.Cache
		}
		return token(ctx, c, q)
	}
	return a
}

// failed notes why a request was refused, and the id that its client was given.
func (a *Agent) failed(r *http.Request, dialect, id string, p *problem.Error) {
	ev, ok := r.Context().Value(eventKey{}).(*Event)
	if !ok {
		return
	}
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
	if !log.Enabled(ctx, level) || level == slog.LevelInfo && !lines.Allow() {
		return
	}
	attrs := []slog.Attr{slog.String("dialect", ev.Dialect), slog.String("outcome", string(ev.Outcome)), slog.String("caller", ev.Evidence.String()),
		slog.String("placement", ev.Placement), slog.String("cache", string(ev.Cache)), slog.Duration("took", ev.Took)}
	if ev.Err != nil {
		attrs = append(attrs, slog.String("request", ev.Request), slog.String("kind", string(ev.Kind)), slog.Any("err", ev.Err))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}
