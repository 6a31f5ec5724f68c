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

// place finds which workload the peer of a connection is. Evidence is the
// connection's and a book never changes, so that what the one says of the other
// is found once and holds for every request until there is another book. Not so
// for who is in a start's group: a start can end at any moment.
func (a *Agent) place(ctx context.Context) (*metadata.Caller, error) {
	p, err := door.Of(ctx)
	if err != nil {
		a.refused("door:unknown grade:none", "the caller could not be identified")
		return nil, &problem.Error{Kind: problem.CallerRefused, Detail: "this caller could not be identified", Err: err}
	}
	kept := p.Kept.(*peer)
	if c := kept.placed; c != nil && c.Found.(*found).in == a.feed.now() {
		return c, nil
	}
	kept.placed = nil
	st, as, err := a.inGroup(p.Evidence)
	if err != nil {
		a.refused(p.Text, "the program is of a start that is over")
		return nil, err
	}
	if st != nil {
		return a.placed(ctx, st.soughtAs(as), as.String())
	}
	c, err := a.placed(ctx, sought{ev: p.Evidence}, p.Text)
	if err == nil {
		kept.placed = c
	}
	return c, err
}

// placed finds the placement of who is sought. text is the evidence in words.
func (a *Agent) placed(ctx context.Context, who sought, text string) (*metadata.Caller, error) {
	p, err := a.feed.find(ctx, who)
	if err != nil {
		return nil, a.refusal(text, err, remedyPlacement)
	}
	p.caller = metadata.Caller{Workload: p.Resource, Placement: p.Name, Evidence: who.ev, Text: text, Found: p}
	return &p.caller, nil
}

// started finds which workload a start's secret stands for. A start whose
// placement was taken away since is over.
func (a *Agent) started(ctx context.Context, secret string) (*metadata.Caller, error) {
	s, ok := a.starts.find(secret)
	var by evidence.Evidence
	text := evidence.Evidence{Door: RunDoor}.String()
	if p, err := door.Of(ctx); err == nil {
		by, text = p.Evidence, p.Text
	}
	if ok && a.carried(s, by) {
		a.refused(text, "the secret of a start was shown by a program outside it")
		return nil, problem.Errorf(problem.CallerRefused, "the secret is of a start that this program is no part of: ask for one of its own (innate run)")
	}
	if !ok {
		a.refused(text, "no start has the secret that was shown")
		return nil, problem.Errorf(problem.Unauthenticated, "the secret is not one of a running start on this host: "+
			"it ends with the program that was started; start the program anew")
	}
	return a.placed(ctx, s.sought(), s.text)
}

// request is what one caller asks for. Who asks the same again over its
// connection is given the same request, with what was said to it: a book never
// changes, so that its yes holds until there is another book. That there is none
// is looked up twice for every answer, here and in confirm, so that an answer is
// judged by what is newest, and costs a judgement only where there is a newer
// book. A no is never kept.
type request struct {
	*Agent
	caller *metadata.Caller
	query  *metadata.Query
	// confirmed is what a book said of the token's own identity.
	confirmed struct {
		by       *book
		identity string
		would    string
	}
	// decided is what a book said; its book is nil until one did.
	decided decision
	// ask is the question to memory and to the control plane that goes with it.
	ask tokens.Request
}

// request returns what c asks for, with what was said to it.
func (a *Agent) request(c *metadata.Caller, q *metadata.Query) *request {
	r := &c.Found.(*found).asked
	if r.query != q {
		*r = request{Agent: a, caller: c, query: q}
	}
	return r
}

// token gets a token for a caller: by its placement and the caller rules of
// the workload, from memory or from the control plane, which judges again.
func (a *Agent) token(ctx context.Context, c *metadata.Caller, q *metadata.Query) (*fleetapi.TokenResponse, tokens.Source, error) {
	r := a.request(c, q)
	if r.decided.by != a.feed.now() {
		d, err := a.feed.decide(ctx, r.sought(), r.want())
		if err != nil {
			return nil, "", a.refusal(c.Text, err, remedyRule)
		}
		r.decide(d)
	}
	tok, from, err := a.tokens.Get(ctx, &r.ask)
	if problem.Is(err, problem.CallerRefused) && !errors.Is(err, errJudged) {
		return r.again(ctx, err)
	}
	return tok, from, err
}

// again is for when the control plane refused the caller: that may only mean
// that the agent has not heard of something yet.
func (r *request) again(ctx context.Context, said error) (*fleetapi.TokenResponse, tokens.Source, error) {
	if err := r.feed.load(ctx); err != nil {
		return nil, tokens.Miss, said
	}
	d, refused := r.feed.now().decide(r.sought(), r.want())
	switch was := r.decided; {
	case refused != nil:
		return nil, tokens.Miss, r.refusal(r.caller.Text, refused, remedyRule)
	case d.Name == was.Name && d.Resource == was.Resource && d.Identity == was.Identity:
		return nil, tokens.Miss, said
	}
	r.decide(d)
	return r.tokens.Get(ctx, &r.ask)
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

// decide takes a decision.
func (r *request) decide(d decision) {
	r.decided = d
	r.ask = tokens.Request{
		Workload: d.Resource, Placement: d.Name, Audience: r.query.Resource,
		ClientID: r.query.ClientID, ObjectID: r.query.ObjectID, ResourceID: r.identity(d),
		Caller: r.caller.Text, BypassCache: r.query.BypassCache, RefreshSHA256: r.query.RefreshSHA256,
		Evidence: r.caller.Evidence, Confirm: r.confirm,
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
func (r *request) confirm(ctx context.Context, tok *fleetapi.TokenResponse) (would string, err error) {
	if r.confirmed.by == r.feed.now() && r.confirmed.identity == tok.Identity {
		return r.confirmed.would, nil
	}
	want := r.want()
	known := evidence.Want{Audience: want.Audience, Named: true, Identity: tok.Identity}
	var by *book
	err = r.feed.sure(ctx, func(b *book) error {
		d, err := b.decide(r.sought(), known)
		if err != nil {
			return err
		}
		by, would = b, d.Would
		if !want.Named {
			// Enforced, the rules would choose the identity.
			would = d.rules.judge(r.caller.Evidence, want).Would
		}
		return nil
	})
	if err != nil {
		return "", r.judged(err)
	}
	r.confirmed.by, r.confirmed.identity, r.confirmed.would = by, tok.Identity, would
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
