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
	ev, text, err := door.Described(ctx)
	if err != nil {
		a.refused("door:unknown grade:none", "the caller could not be identified")
		return metadata.Caller{}, &problem.Error{Kind: problem.CallerRefused, Detail: "this caller could not be identified", Err: err}
	}
	who := sought{ev: ev}
	st, as, err := a.inGroup(ev)
	if err != nil {
		a.refused(text, "the program is of a start that is over")
		return metadata.Caller{}, err
	}
	if st != nil {
		ev, text = as, as.String()
		who = st.soughtAs(as)
	}
	p, err := a.feed.find(ctx, who)
	if err != nil {
		return metadata.Caller{}, a.refusal(text, err, remedyPlacement)
	}
	return metadata.Caller{Workload: p.Resource, Placement: p.Name, Evidence: ev, Text: text, Found: &p}, nil
}

// started finds which workload a start's secret stands for. A start whose
// placement was taken away since is over.
func (a *Agent) started(ctx context.Context, secret string) (metadata.Caller, error) {
	s, ok := a.starts.find(secret)
	by, text, err := door.Described(ctx)
	if err != nil {
		text = evidence.Evidence{Door: RunDoor}.String()
	}
	if ok && a.carried(s, by) {
		a.refused(text, "the secret of a start was shown by a program outside it")
		return metadata.Caller{}, problem.Errorf(problem.CallerRefused, "the secret is of a start that this program is no part of: ask for one of its own (innate run)")
	}
	if !ok {
		a.refused(text, "no start has the secret that was shown")
		return metadata.Caller{}, problem.Errorf(problem.Unauthenticated, "the secret is not one of a running start on this host: "+
			"it ends with the program that was started; start the program anew")
	}
	p, err := a.feed.find(ctx, s.sought())
	if err != nil {
		return metadata.Caller{}, a.refusal(s.text, err, remedyPlacement)
	}
	return metadata.Caller{Workload: p.Resource, Placement: p.Name, Evidence: s.ev, Text: s.text, Found: &p}, nil
}

// request is one token request of one caller, on its way.
type request struct {
	*Agent
	ctx    context.Context
	caller metadata.Caller
	query  metadata.Query
}

// token gets a token for a caller: by its placement and the caller rules of
// the workload, from memory or from the control plane, which judges again. A
// refusal of the control plane's may only mean that the agent has not heard of
// something yet.
func (a *Agent) token(ctx context.Context, c metadata.Caller, q metadata.Query) (fleetapi.TokenResponse, error) {
	r := &request{a, ctx, c, q}
	d, err := a.feed.decide(ctx, r.sought(), r.want())
	if err != nil {
		return fleetapi.TokenResponse{}, a.refusal(c.Text, err, remedyRule)
	}
	tok, err := a.tokens.Get(ctx, r.ask(d))
	if !problem.Is(err, problem.CallerRefused) || errors.Is(err, errJudged) {
		return tok, err
	}
	if err := a.feed.load(ctx); err != nil {
		return tok, err
	}
	again, refused := a.feed.now().decide(r.sought(), r.want())
	switch {
	case refused != nil:
		return tok, a.refusal(c.Text, refused, remedyRule)
	case again.Name == d.Name && again.Resource == d.Resource && again.Identity == d.Identity:
		return tok, err
	}
	return a.tokens.Get(ctx, r.ask(again))
}

// sought is the caller, to find its placement again: a start is one resource's
// and one placement's, anybody else is what the placements say now.
func (r *request) sought() sought {
	was, _ := r.caller.Found.(*found) // of this caller's evidence, and nothing else
	if r.caller.Evidence.Start != "" {
		s := sought{ev: r.caller.Evidence, resource: r.caller.Workload, placement: r.caller.Placement}
		if was != nil {
			s.uid = was.UID
		}
		return s
	}
	return sought{ev: r.caller.Evidence, was: was}
}

// want is what is asked for, as far as the program says it.
func (r *request) want() evidence.Want {
	return evidence.Want{Audience: r.query.Resource, Identity: r.query.ResourceID,
		Named: r.query.ClientID != "" || r.query.ObjectID != "" || r.query.ResourceID != ""}
}

// ask is the question to memory and to the control plane.
func (r *request) ask(d decision) tokens.Request {
	return tokens.Request{
		Workload: d.Resource, Placement: d.Name, Audience: r.query.Resource,
		ClientID: r.query.ClientID, ObjectID: r.query.ObjectID, ResourceID: r.identity(d),
		Caller: r.caller.Text, BypassCache: r.query.BypassCache, RefreshSHA256: r.query.RefreshSHA256,
		Evidence: r.caller.Evidence, Confirm: r.confirm, From: r.query.From,
	}
}

// identity is the resource ID of the identity to ask for: the program's word,
// else the rule's. A system-assigned identity has none to be asked by; it is
// what is given when none is named.
func (r *request) identity(d decision) string {
	if r.query.ResourceID == "" && !sameResource(d.Verdict.Identity, d.Resource) {
		return d.Verdict.Identity
	}
	return r.query.ResourceID
}

// errJudged marks a refusal that was judged by what is newest.
var errJudged = errors.New("judged by the caller rules as they are")

// judged is a refusal by the caller rules, on record, that nobody need ask
// about again.
func (r *request) judged(err error) error {
	err = r.refusal(r.caller.Text, err, remedyRule)
	if p := problem.Of(err); p.Kind == problem.CallerRefused {
		return &problem.Error{Kind: p.Kind, Detail: p.Detail, Err: errJudged}
	}
	return err
}

// confirm judges once more when the token is there: only now it is known whose
// it is, and the rules may have changed while it was on its way. It says what
// rules in audit mode would have done.
func (r *request) confirm(tok fleetapi.TokenResponse) (would string, err error) {
	want := r.want()
	known := evidence.Want{Audience: want.Audience, Named: true, Identity: tok.Identity}
	err = r.feed.sure(r.ctx, func(b *book) error {
		d, err := b.decide(r.sought(), known)
		if err != nil {
			return err
		}
		would = d.Would
		if !want.Named {
			// Enforced, the rules would choose the identity.
			would = d.rules.judge(r.caller.Evidence, want).Would
		}
		return nil
	})
	if err != nil {
		return "", r.judged(err)
	}
	if would != "" && r.audited.first(r.caller.Workload+" "+r.caller.Text+" "+would) {
		r.log.Warn("caller rules in audit mode would refuse this caller", "workload", r.caller.Workload, "caller", r.caller.Text, "reason", would)
	}
	return would, nil
}

// What to do about a refusal.
const (
	remedyPlacement = "ask whoever manages this host for a placement with this door and selectors that match"
	remedyRule      = "ask whoever manages the resource for a caller rule with selectors that match; \"innate access explain\" says which there are"
)

// refusal puts the agent's own "no" on record and adds, for the caller, who
// it was taken for and what to do.
func (a *Agent) refusal(caller string, err error, remedy string) error {
	p, ok := errors.AsType[*problem.Error](err)
	if !ok || p.Kind != problem.CallerRefused {
		return err
	}
	a.refused(caller, p.Detail)
	return &problem.Error{Kind: p.Kind, Err: p.Err, Detail: p.Detail + " (" + caller + "): " + remedy}
}

// refused records a refusal. One that cannot be recorded stays a refusal: it
// gives nothing away.
func (a *Agent) refused(caller, reason string) {
	err := a.journal.Refused(fleetapi.Refusal{At: a.now().UTC(), Count: 1, Caller: caller, Reason: reason})
	if err != nil {
		a.log.Warn("refusal not on record", "caller", caller, "reason", reason, "err", err)
	}
}

// sameResource compares resource IDs, which have no case.
func sameResource(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
