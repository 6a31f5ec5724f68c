package agent

import (
	"context"
	"errors"
	"strings"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// place finds which workload the peer of a connection is.
func (a *Agent) place(ctx context.Context) (metadata.Caller, error) {
	ev, err := door.Caller(ctx)
	if err != nil {
		a.refused(evidence.Evidence{Door: "unknown"}, "the caller could not be identified")
		return metadata.Caller{}, &problem.Error{Kind: problem.CallerRefused, Detail: "this caller could not be identified", Err: err}
	}
	return a.placed(ctx, ev)
}

func (a *Agent) placed(ctx context.Context, ev evidence.Evidence) (metadata.Caller, error) {
	p, err := a.feed.find(ctx, func(p fleetapi.Placement) bool { return admits(p, ev) })
	if err != nil {
		return metadata.Caller{}, a.refusal(ev, err)
	}
	return metadata.Caller{Workload: p.Resource, Placement: p.Name, Evidence: ev}, nil
}

// started finds which workload a start's secret stands for. A start whose
// placement was taken away since is over.
func (a *Agent) started(ctx context.Context, secret string) (metadata.Caller, error) {
	s, ok := a.starts.find(secret)
	if !ok {
		ev, err := door.Caller(ctx)
		if err != nil {
			ev.Door = RunDoor
		}
		a.refused(ev, "no start has the secret that was shown")
		return metadata.Caller{}, problem.Errorf(problem.Unauthenticated, "the secret is not one of a running start on this host: "+
			"it ends with the program that was started; start the program anew")
	}
	p, err := a.feed.find(ctx, s.covers)
	if err != nil {
		return metadata.Caller{}, a.refusal(s.ev, err)
	}
	return metadata.Caller{Workload: p.Resource, Placement: p.Name, Evidence: s.ev}, nil
}

// token gets a token for a caller. A refusal of the placement itself may only
// mean that it was moved a moment ago, before the agent heard of it.
func (a *Agent) token(ctx context.Context, c metadata.Caller, q metadata.Query) (fleetapi.TokenResponse, error) {
	tok, err := a.tokens.Get(ctx, request(c, q))
	if !problem.Is(err, problem.CallerRefused) {
		return tok, err
	}
	if err := a.feed.load(ctx); err != nil {
		return tok, err
	}
	match := func(p fleetapi.Placement) bool { return admits(p, c.Evidence) }
	if c.Evidence.Start != "" {
		match = func(p fleetapi.Placement) bool { return admits(p, c.Evidence) && sameResource(p.Resource, c.Workload) }
	}
	p, found := a.feed.find(ctx, match)
	if found != nil || p.Name == c.Placement && p.Resource == c.Workload {
		return tok, err
	}
	c.Workload, c.Placement = p.Resource, p.Name
	return a.tokens.Get(ctx, request(c, q))
}

func request(c metadata.Caller, q metadata.Query) tokens.Request {
	return tokens.Request{
		Workload: c.Workload, Placement: c.Placement, Audience: q.Resource,
		ClientID: q.ClientID, ObjectID: q.ObjectID, ResourceID: q.ResourceID,
		Caller: c.Evidence.String(), BypassCache: q.BypassCache, RefreshSHA256: q.RefreshSHA256, From: q.From,
	}
}

// refusal puts the agent's own "no" on record and adds, for the caller, who
// it was taken for and what to do.
func (a *Agent) refusal(ev evidence.Evidence, err error) error {
	p, ok := errors.AsType[*problem.Error](err)
	if !ok || p.Kind != problem.CallerRefused {
		return err
	}
	a.refused(ev, p.Detail)
	return &problem.Error{Kind: p.Kind, Err: p.Err, Detail: p.Detail + " (" + ev.String() +
		"): ask whoever manages this host for a placement with this door and selectors that match"}
}

// refused records a refusal. One that cannot be recorded stays a refusal: it
// gives nothing away.
func (a *Agent) refused(ev evidence.Evidence, reason string) {
	err := a.journal.Refused(fleetapi.Refusal{At: a.now().UTC(), Count: 1, Caller: ev.String(), Reason: reason})
	if err != nil {
		a.log.Warn("refusal not on record", "caller", ev.String(), "reason", reason, "err", err)
	}
}

// sameResource compares resource IDs, which have no case.
func sameResource(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
