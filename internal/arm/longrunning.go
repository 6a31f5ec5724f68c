package arm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// reply is an answer that is not written yet.
type reply struct {
	status int
	// view is the body; nil for none.
	view View
}

// longOperation is something that may take longer than a client should wait.
type longOperation struct {
	// target is the resource that it is done to.
	target resource.ID
	action string
	style  Polling
	// begun is the status of a PUT or PATCH that goes on, of [PollAsync].
	begun int
	// do does it, in at most one [API.write]: that write says of the operation
	// that it succeeded. Its context does not end with the request once the
	// client was told to poll.
	do func(ctx context.Context) (reply, error)
}

// longRunning does o and answers. Where that takes longer than the API's
// patience, or the client asks for it (Prefer: respond-async, RFC 7240), the
// client is told where to poll, and the operation goes on. What is refused
// before the write is refused in either case at once.
func (a *API) longRunning(w http.ResponseWriter, r *http.Request, q request, o longOperation) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	n := &running{
		a: a, longOperation: o, c: q.c, method: r.Method, began: a.Now(), id: uuid.NewString(), cancel: cancel,
		announced: make(chan struct{}), tried: make(chan struct{}), done: make(chan struct{}),
	}
	n.async.Store(o.style != PollNever && prefersAsync(r))
	go n.run(context.WithValue(ctx, runningKey{}, n))
	var impatient <-chan time.Time
	if o.style != PollNever {
		wait := time.NewTimer(cmp.Or(a.Patience, patience))
		defer wait.Stop()
		impatient = wait.C
	}
	for {
		select {
		case <-n.done:
			return n.answer(w)
		case <-n.announced:
			return n.accepted(w, r, q)
		case <-r.Context().Done():
			if n.state.CompareAndSwap(quiet, inline) || n.state.Load() == inline {
				cancel() // nobody is there to be told
				<-n.done
			}
			return r.Context().Err()
		case <-impatient:
			if n.state.CompareAndSwap(quiet, told) {
				go n.announce(ctx)
			}
		}
	}
}

// prefersAsync reads the header Prefer.
func prefersAsync(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Prefer"), func(v string) bool {
		return slices.ContainsFunc(strings.Split(v, ","), func(p string) bool {
			name, _, _ := strings.Cut(p, ";")
			return strings.EqualFold(strings.TrimSpace(name), "respond-async")
		})
	})
}

// The states of a running operation: who will tell the client how it ended.
const (
	quiet  int32 = iota // not decided
	inline              // the request waits for it
	told                // its row does
)

// running is an operation under way in this process.
type running struct {
	longOperation
	a      *API
	c      access.Caller
	method string
	id     string
	began  time.Time
	// async is set before the write begins if the client shall not wait for it.
	async atomic.Bool
	state atomic.Int32
	// tried is closed when it was tried to write the operation down, and lost
	// is why that failed; announced, when it is written down; done, when all is
	// over, and out and err are there.
	tried, announced, done chan struct{}
	lost                   error
	cancel                 context.CancelFunc
	out                    reply
	err                    error
}

type runningKey struct{}

// runningIn finds the operation that a context is of, nil if it is of none.
func runningIn(ctx context.Context) *running {
	n, _ := ctx.Value(runningKey{}).(*running)
	return n
}

// run runs the operation to its end, and writes down how it ended if the client
// was told to ask.
func (n *running) run(ctx context.Context) {
	defer n.cancel()
	defer close(n.done)
	n.out, n.err = guarded(func() (reply, error) { return n.do(ctx) })
	if n.state.CompareAndSwap(quiet, inline); n.state.Load() == inline {
		return
	}
	<-n.tried
	if n.err != nil && n.lost != nil { // the one is because of the other
		n.err = errors.Join(n.lost, n.err)
	}
	// The operation's context may have ended with it.
	if err := n.end(context.WithoutCancel(ctx)); err != nil && n.a.Log != nil {
		n.a.Log.LogAttrs(ctx, slog.LevelError, "ending a long-running operation", slog.String("operation", n.id), slog.Any("err", err))
	}
}

// guarded turns a panic into an error: this goroutine is not the server's, and
// its panic would end the program.
func guarded(f func() (reply, error)) (out reply, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("a long-running operation panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// row is the operation as stored.
func (n *running) row(status string) Operation {
	now := n.a.Now()
	o := Operation{
		Tenant: n.c.Tenant, ID: n.id, Target: n.target, Method: n.method, Action: n.action, Principal: n.c.Principal,
		Status: status, Started: n.began, Lease: now.Add(leaseLife),
	}
	if status != InProgress {
		o.Ended = now
	}
	return o
}

// announce writes down that the operation runs, so that the client can be told.
// The database may have one writer, which the operation holds: then this waits
// for the operation. An operation that cannot be written down is ended.
func (n *running) announce(ctx context.Context) {
	defer close(n.tried)
	ev := n.a.event(n.c, n.action, n.target)
	ev.Reason = "goes on as operation " + n.id
	if n.lost = n.a.Store.AddOperation(ctx, n.row(InProgress), ev); n.lost != nil {
		n.cancel()
		return
	}
	go n.renew(ctx)
	close(n.announced)
}

// renew keeps the operation's lease until it ended.
func (n *running) renew(ctx context.Context) {
	tick := time.NewTicker(leaseLife / 4)
	defer tick.Stop()
	for {
		select {
		case <-n.done:
			return
		case <-tick.C:
			// One that fails is made up for by the next; without any the operation
			// is given up, and its transaction finds that out.
			_ = n.a.Store.RenewOperation(ctx, n.row(InProgress), n.a.Now().Add(leaseLife))
		}
	}
}

// begin is called when all is checked and the write is next. It tells a client
// that does not want to wait.
func (n *running) begin(ctx context.Context) error {
	if n.async.Load() && n.state.CompareAndSwap(quiet, told) {
		n.announce(ctx)
		return n.lost
	}
	return nil
}

// within makes the write say that the operation succeeded.
func (n *running) within(fn func(Tx) error) func(Tx) error {
	return func(tx Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if n.state.CompareAndSwap(quiet, inline); n.state.Load() == inline {
			return nil
		}
		return tx.EndOperation(n.row(Succeeded))
	}
}

// end writes down how an operation ended that the client was told to ask about.
// If its write did so, this changes nothing.
func (n *running) end(ctx context.Context) error {
	o := n.row(Succeeded)
	if n.err == nil {
		return n.a.Store.EndOperation(ctx, o)
	}
	p := problem.Of(n.err)
	o.Status, o.Kind, o.Message = Failed, p.Kind, p.Detail
	ev := n.a.event(n.c, n.action, n.target)
	ev.Outcome, ev.Reason = audit.Refused, "operation "+n.id+" failed: "+p.Detail
	return errors.Join(internalOnly(n.err), n.a.Store.EndOperation(ctx, o, ev))
}

// internalOnly is err if nobody but the log is told what it is.
func internalOnly(err error) error {
	if err != nil && problem.Of(err).Kind == problem.Internal {
		return err
	}
	return nil
}

// answer writes what became of an operation that the client waited for.
func (n *running) answer(w http.ResponseWriter) error {
	switch {
	case n.err != nil:
		return n.err
	case n.out.view == nil:
		w.WriteHeader(n.out.status)
		return nil
	}
	return answer(w, n.out.status, n.out.view, nil)
}

// accepted tells the client where to poll.
func (n *running) accepted(w http.ResponseWriter, r *http.Request, q request) error {
	h := w.Header()
	h.Set("Retry-After", "1")
	if prefersAsync(r) {
		h.Set("Preference-Applied", "respond-async")
	}
	o := n.row(InProgress)
	put := n.method == http.MethodPut || n.method == http.MethodPatch
	version := "?api-version=" + q.q.Get("api-version")
	status := http.StatusAccepted
	switch {
	case n.style == PollBody && put:
	case n.style == PollAsync && put:
		h.Set("Azure-AsyncOperation", n.a.operationURL(n.c, o, "operationStatuses")+version)
		status = n.begun
	case n.style == PollAsync:
		h.Set("Azure-AsyncOperation", n.a.operationURL(n.c, o, "operationStatuses")+version)
		fallthrough
	default:
		h.Set("Location", n.a.operationURL(n.c, o, "operationResults")+version)
	}
	if !put {
		w.WriteHeader(status)
		return nil
	}
	return web.WriteJSON(w, status, underWay(o, "Creating"))
}

// underWay is a resource of which nothing is known but that it is being made.
func underWay(o Operation, state string) View {
	return View{"id": o.Target.String(), "name": o.Target.Name(), "type": o.Target.Type(), "properties": map[string]any{"provisioningState": state}}
}

// operationURL is where c asks about an operation: by the name that it asked by.
func (a *API) operationURL(c access.Caller, o Operation, what string) string {
	return a.Names.Asked(c.Asked).Management() + operationPath(o, what)
}

func operationPath(o Operation, what string) string {
	ns, _, _ := strings.Cut(o.Target.Type(), "/")
	sub := ""
	if s := o.Target.SubscriptionID(); !s.IsZero() {
		sub = s.String()
	}
	return sub + "/providers/" + cmp.Or(ns, "Microsoft.Resources") + "/locations/global/" + what + "/" + o.ID
}

// takesLong looks whether so much is below a resource that a client should not
// wait until it is gone. It is asked once the caller is known to be allowed.
func (a *API) takesLong(ctx context.Context, tenant string, id resource.ID) error {
	n := runningIn(ctx)
	if n == nil || n.style == PollNever || n.async.Load() {
		return nil
	}
	many := cmp.Or(a.Many, manyBelow)
	rs, err := a.Store.Resources(ctx, tenant, id.Key(), "", Page{Limit: many + 1})
	if err != nil {
		return fmt.Errorf("counting what is below %s: %w", id, err)
	}
	n.async.Store(len(rs) > many)
	return nil
}
