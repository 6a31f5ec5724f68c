package arm

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// operationPaths are where clients poll.
func operationPaths() []path {
	var out []path
	for _, prefix := range []string{"subscriptions/*/providers/*/locations/*/", "providers/*/locations/*/"} {
		out = append(out,
			path{prefix + "operationStatuses/*", []string{"GET"}, (*API).serveOperationStatus},
			path{prefix + "operationResults/*", []string{"GET"}, (*API).serveOperationResult})
	}
	return out
}

// serveOperationStatus serves what Azure-AsyncOperation points to.
func (a *API) serveOperationStatus(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	o, ev, err := a.polled(r.Context(), q, args[len(args)-1])
	if err != nil {
		return err
	}
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	v := View{"id": operationPath(o, "operationStatuses"), "name": o.ID, "resourceId": o.Target.String(), "status": o.Status, "startTime": stamp(o.Started)}
	switch o.Status {
	case InProgress:
		w.Header().Set("Retry-After", "1")
	case Failed:
		v["endTime"], v["error"] = stamp(o.Ended), map[string]string{"code": words[o.Kind].code, "message": o.Message}
	default:
		v["endTime"], v["percentComplete"] = stamp(o.Ended), 100
	}
	return web.WriteJSON(w, http.StatusOK, v)
}

// serveOperationResult serves what Location points to: 202 until the operation
// has ended, and then what its request would have been answered. That is the
// resource as it is, with the right to read it that the caller has now.
func (a *API) serveOperationResult(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	o, ev, err := a.polled(r.Context(), q, args[len(args)-1])
	if err != nil {
		return err
	}
	if o.Status == Succeeded && (o.Method == http.MethodPut || o.Method == http.MethodPatch) {
		v, err := a.Get(r.Context(), q.c, o.Target)
		return answer(w, http.StatusOK, v, err)
	}
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	switch o.Status {
	case InProgress:
		w.Header().Set("Location", a.operationURL(q.c, o, "operationResults")+"?api-version="+q.q.Get("api-version"))
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusAccepted)
	case Failed:
		return recorded{o.failure()} // the poll is on record, and so is the failure
	default:
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

// failure is the error of an operation.
func (o Operation) failure() *problem.Error { return &problem.Error{Kind: o.Kind, Detail: o.Message} }

// lostMessage is the failure of an operation whose process died. That nothing
// came of it is so: what it would have changed and its row are one transaction.
const lostMessage = "The server that ran the operation stopped before it was done. Nothing was changed; send the request again."

// polled finds the operation that a path names, for who may ask about it: who
// began it, or who may read its target. To all others it is not there. ev is
// to be recorded with the answer.
func (a *API) polled(ctx context.Context, q request, id string) (Operation, audit.Event, error) {
	ev := a.event(q.c, "Microsoft.Resources/operations/read", q.on())
	none := problem.Errorf(problem.NotFound, "The operation '%s' is not known; operations are forgotten a day after they ended.", problem.Clip(id))
	if _, err := uuid.Parse(id); err != nil {
		return Operation{}, ev, a.refuse(ctx, ev, problem.Errorf(problem.Invalid, "The operation id '%s' is not valid; the GUID was expected that the header Location or Azure-AsyncOperation had.", problem.Clip(id)))
	}
	o, err := a.Store.Operation(ctx, q.c.Tenant, id)
	if problem.Is(err, problem.NotFound) {
		return o, ev, a.refuse(ctx, ev, none)
	}
	if err != nil {
		return o, ev, fmt.Errorf("reading operation %s: %w", id, err)
	}
	ev.Target = o.Target.String()
	if o.Principal != q.c.Principal {
		d, err := a.Directory.Authorize(ctx, q.c, readOf(o))
		if err != nil {
			return o, ev, err
		}
		if !d.Allowed {
			return o, ev, a.refuse(ctx, ev, none)
		}
	}
	o, err = a.giveUp(ctx, o)
	return o, ev, err
}

// readOf is the right that the target of an operation is read with.
func readOf(o Operation) access.Operation {
	return access.Operation{Action: o.Target.Type() + "/read", Scope: o.Target}
}

// giveUp ends an operation whose lease is over, in the database too: if its
// process lives after all, its transaction finds that it does not count.
func (a *API) giveUp(ctx context.Context, o Operation) (Operation, error) {
	now := a.Now()
	if o.Status != InProgress || !o.Lease.Before(now) {
		return o, nil
	}
	lost := o
	lost.Status, lost.Kind, lost.Message, lost.Ended = Failed, problem.Interrupted, lostMessage, now
	ev := audit.Event{
		Tenant: o.Tenant, At: now, Action: o.Action, Target: o.Target.String(), Outcome: audit.Refused, Principal: o.Principal,
		Reason: "operation " + o.ID + " was lost with the process that ran it",
	}
	if err := a.Store.LoseOperation(ctx, lost, ev); err != nil {
		return o, fmt.Errorf("giving up operation %s: %w", o.ID, err)
	}
	return a.Store.Operation(ctx, o.Tenant, o.ID) // it may have ended, or been renewed
}

// stateOf is a resource of a type whose own provisioningState says how a
// long-running operation on it ended; v and err are what reading it came to.
func (a *API) stateOf(ctx context.Context, tenant string, id resource.ID, v View, err error) (View, error) {
	if err != nil && !problem.Is(err, problem.NotFound) {
		return v, err
	}
	o, oerr := a.Store.LastOperation(ctx, tenant, id.Key())
	if oerr == nil {
		o, oerr = a.giveUp(ctx, o)
	}
	if problem.Is(oerr, problem.NotFound) || oerr == nil && (o.Status == Succeeded || o.Method == http.MethodDelete) {
		return v, err
	}
	switch {
	case oerr != nil:
		return nil, fmt.Errorf("reading the last operation on %s: %w", id, oerr)
	case err != nil && o.Status == Failed:
		return nil, o.failure()
	case err != nil:
		return underWay(o, "Creating"), nil
	case o.Status == InProgress:
		return v.inState("Updating"), nil
	case changed(v).Before(o.Started):
		return v.inState(Failed), nil
	}
	return v, nil
}

// inState says the state of a resource.
func (v View) inState(state string) View {
	if p, ok := v["properties"].(map[string]any); ok {
		p["provisioningState"] = state
	}
	return v
}

// changes reports whether a long-running operation is under way on the resource.
func (v View) changes() bool {
	p, _ := v["properties"].(map[string]any)
	return p["provisioningState"] == "Creating" || p["provisioningState"] == "Updating"
}

// changed is when the resource was last changed.
func changed(v View) time.Time {
	data, _ := v["systemData"].(map[string]any)
	s, _ := data["lastModifiedAt"].(string)
	at, _ := time.Parse(time.RFC3339, s) // our own text; of another, zero is before all
	return at
}
