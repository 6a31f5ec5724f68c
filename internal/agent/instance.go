package agent

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// maxInstances bounds what is remembered of resources; a host has no more
// placements than that.
const maxInstances = 1000

// instances remembers what the resources placed on this host are, by the
// freshness rule: what the stream says changed is forgotten, and what is
// remembered counts only while the stream is heard, or else, where the owner
// said so, while nobody can be asked.
type instances struct {
	ask        func(context.Context, fleetapi.InstanceRequest) (fleetapi.Instance, error)
	fresh      func() bool
	serveStale bool

	mu    sync.Mutex // guards what follows
	known map[described]fleetapi.Instance
	// drops counts the changes: an answer that was on its way meanwhile is
	// given, but not kept.
	drops int64
}

// described is which resource is remembered, by which placement.
type described struct{ Workload, Placement string }

func of(r fleetapi.InstanceRequest) described { return described{r.Workload, r.Placement} }

func newInstances(ask func(context.Context, fleetapi.InstanceRequest) (fleetapi.Instance, error), fresh func() bool, serveStale bool) *instances {
	return &instances{ask: ask, fresh: fresh, serveStale: serveStale, known: map[described]fleetapi.Instance{}}
}

func (x *instances) get(ctx context.Context, req fleetapi.InstanceRequest) (fleetapi.Instance, error) {
	// Freshness first: a change heard between the two questions then still
	// finds the resource forgotten.
	fresh := x.fresh()
	x.mu.Lock()
	in, ok := x.known[of(req)]
	x.mu.Unlock()
	if ok && fresh {
		return in, nil
	}
	asked, err := x.fetch(ctx, req)
	if ok && x.serveStale && problem.Is(err, problem.Unavailable) && x.still(req) {
		return in, nil
	}
	return asked, err
}

// still reports whether what is remembered was not taken back meanwhile.
func (x *instances) still(req fleetapi.InstanceRequest) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.known[of(req)]
	return ok
}

// fetch asks the control plane and remembers what it says. Each caller's
// question is its own: one that was on its way already may have missed what
// the caller just did.
func (x *instances) fetch(ctx context.Context, req fleetapi.InstanceRequest) (fleetapi.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, placementsTimeout)
	defer cancel()
	x.mu.Lock()
	before := x.drops
	x.mu.Unlock()
	in, err := x.ask(ctx, req)
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case err != nil && !problem.Is(err, problem.Unavailable):
		delete(x.known, of(req)) // the control plane's own no
	case err == nil && before == x.drops && (len(x.known) < maxInstances || x.has(req)):
		x.known[of(req)] = in
	}
	return in, err
}

func (x *instances) has(req fleetapi.InstanceRequest) bool {
	_, ok := x.known[of(req)]
	return ok
}

// drop forgets what a change is about: a resource, all below it, and all where
// it is not known.
func (x *instances) drop(ch fleetapi.Change) {
	if !ch.All && !ch.Placements && len(ch.Resources) == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drops++
	if ch.All || ch.Placements {
		clear(x.known)
		return
	}
	for req := range x.known {
		for _, r := range ch.Resources {
			if within(req.Workload, r) {
				delete(x.known, req)
				break
			}
		}
	}
}

// within reports whether a resource is another one or below it.
func within(id, scope string) bool {
	id, scope = strings.ToLower(id)+"/", strings.ToLower(strings.TrimSuffix(scope, "/"))+"/"
	return strings.HasPrefix(id, scope)
}

// instance says what a caller's workload is. Whoever was placed may know: that
// takes no caller rule, for it gives no right.
func (a *Agent) instance(ctx context.Context, c *metadata.Caller) (fleetapi.Instance, error) {
	return asPlaced(ctx, a, c, func(c *metadata.Caller) (fleetapi.Instance, error) {
		return a.instances.get(ctx, fleetapi.InstanceRequest{Workload: c.Workload, Placement: c.Placement, Caller: c.Text, Evidence: tokens.Wire(c.Evidence)})
	})
}

// attest has the control plane sign what a caller's workload is. To others that
// is as good as being it, so it takes a caller rule where there are any, for its
// own audience or for every one.
func (a *Agent) attest(ctx context.Context, c *metadata.Caller, nonce string) ([]byte, error) {
	resp, err := asPlaced(ctx, a, c, func(c *metadata.Caller) (fleetapi.AttestResponse, error) {
		r := &request{Agent: a, caller: c}
		d, err := a.feed.decide(ctx, r.sought(), evidence.Want{Audience: fleetapi.AudienceAttest, Named: true})
		if err != nil {
			return fleetapi.AttestResponse{}, r.judged(err)
		}
		return a.client.attest(ctx, fleetapi.AttestRequest{Workload: d.Resource, Placement: d.Name, Nonce: nonce, Caller: c.Text, Evidence: tokens.Wire(c.Evidence)})
	})
	return resp.Signature, err
}

// asPlaced asks for a caller. A refusal of the placement itself may only mean
// that it was moved a moment ago, before the agent heard of it.
func asPlaced[T any](ctx context.Context, a *Agent, c *metadata.Caller, ask func(*metadata.Caller) (T, error)) (T, error) {
	out, err := ask(c)
	if !problem.Is(err, problem.CallerRefused) || errors.Is(err, errJudged) {
		return out, err
	}
	if err := a.feed.load(ctx); err != nil {
		return out, err
	}
	again, err := a.place(ctx)
	if err != nil {
		return out, err
	}
	return ask(again)
}
