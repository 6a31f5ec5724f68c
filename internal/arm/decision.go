package arm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// The decisions of a scope answer questions about who may do what there, by
// what is in the database now. They change nothing.
//
//	POST {scope}/providers/Innate.Authorization/decisions/check       Question -> DecisionView: may this principal do this, and why
//	POST {scope}/providers/Innate.Authorization/decisions/whoCan      Question without a principal -> WhoCan: who may do this
//	POST {scope}/providers/Innate.Authorization/decisions/whatCan     Question without an action -> WhatCan: what may this principal do
//	POST {scope}/providers/Innate.Authorization/decisions/whatBreaks  {"roleAssignmentId"} -> WhatBreaks: what would go with it
//
// Whoever asks about somebody else needs [actionAssignmentRead] at the scope,
// and is told of what is assigned elsewhere only where they have it too. Who
// asks about themselves needs nothing.
const typeDecision = "innate.authorization/decisions"

const actionDecisions = "Innate.Authorization/decisions/"

// serveDecision serves {scope}/providers/Innate.Authorization/decisions/{name}.
func (a *API) serveDecision(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	serve, ok := map[string]func(context.Context, access.Caller, resource.ID, json.RawMessage, string) (any, error){
		"check": a.check, "whocan": a.whoCan, "whatcan": a.whatCan, "whatbreaks": a.whatBreaks,
	}[strings.ToLower(id.Name())]
	if !ok {
		return problem.Errorf(problem.NotFound, "There is no question '%s'; check, whoCan, whatCan and whatBreaks are there.", problem.Clip(id.Name()))
	}
	if r.Method != http.MethodPost {
		return notAllowed(r, "POST")
	}
	var body json.RawMessage
	if err := web.ReadJSON(r, &body); err != nil {
		return err
	}
	v, err := serve(r.Context(), q.c, id.Scope(), body, q.q.Get("$skiptoken"))
	if err != nil {
		return err
	}
	if l, ok := v.(WhoCan); ok && l.Next != "" {
		if l.NextLink, err = a.nextLink(r.Context(), q, l.Next); err != nil {
			return err
		}
		v = l
	}
	return web.WriteJSON(w, http.StatusOK, v)
}

// Question is what the decisions are asked.
type Question struct {
	// Action or DataAction is the operation, "Microsoft.KeyVault/vaults/read".
	Action     string `json:"action"`
	DataAction string `json:"dataAction"`
	// PrincipalID is an object id or a client id; ResourceID is the resource
	// that an identity belongs to, or that has but one. Neither is the caller.
	PrincipalID string `json:"principalId"`
	ResourceID  string `json:"resourceId"`
	// Attributes are what conditions can ask about, as the operation would have
	// them. What is not given is not known.
	Attributes struct {
		Request     given `json:"request"`
		Resource    given `json:"resource"`
		Principal   given `json:"principal"`
		Environment given `json:"environment"`
		Caller      given `json:"caller"`
	} `json:"attributes"`
}

// given are attributes by name; a value is a text, a number, true or false, or
// a list of them.
type given map[string]values

type values []string

func (v *values) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) != nil {
		list = []json.RawMessage{b}
	}
	for _, raw := range list {
		var s string
		switch {
		case json.Unmarshal(raw, &s) == nil && !isNull(raw):
		case len(raw) > 0 && (raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9') || string(raw) == "true" || string(raw) == "false":
			s = string(raw)
		default:
			return problem.Errorf(problem.Invalid, "An attribute's value is %s; a text, a number, true, false or a list of them was expected.", problem.Clip(string(raw)))
		}
		*v = append(*v, s)
	}
	return nil
}

func (g given) values() access.Values {
	out := access.Values{}
	for k, v := range g {
		out[k] = v
	}
	return out
}

// strictly decodes a body whose members are all known; shape says which.
func strictly(body json.RawMessage, into any, shape string) error {
	var d Document
	if err := json.Unmarshal(body, &d); err != nil || d == nil {
		if p, ok := errors.AsType[*problem.Error](err); ok {
			return p
		}
		return problem.Errorf(problem.Invalid, "The request content is no object; one with %s was expected.", shape)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p
	}
	if err != nil {
		what := strings.TrimPrefix(err.Error(), "json: ")
		return &problem.Error{Kind: problem.Invalid, Err: err, Detail: fmt.Sprintf("The request content is not as expected: %s; an object with %s was expected.", problem.Clip(what), shape)}
	}
	return nil
}

const questionShape = "'action' or 'dataAction', perhaps 'principalId' or 'resourceId', and perhaps 'attributes' ('request', 'resource', 'principal', 'environment', 'caller')"

var oneAction = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)+$`)

// operation reads what the question is about.
func (q Question) operation(scope resource.ID) (access.Operation, error) {
	op := access.Operation{Action: q.Action, Scope: scope, Attributes: access.Attributes{
		Request: q.Attributes.Request.values(), Resource: q.Attributes.Resource.values(), Principal: q.Attributes.Principal.values(),
		Environment: q.Attributes.Environment.values(), Caller: q.Attributes.Caller.values(),
	}}
	if (q.Action == "") == (q.DataAction == "") {
		return op, problem.Errorf(problem.Invalid, "One of 'action' and 'dataAction' was expected.")
	}
	if q.DataAction != "" {
		op.Action, op.Data = q.DataAction, true
	}
	if len(op.Action) > 512 || !oneAction.MatchString(op.Action) {
		return op, problem.Errorf(problem.Invalid, "The action '%s' is not one operation, like Microsoft.KeyVault/vaults/read.", problem.Clip(op.Action))
	}
	return op, nil
}

// asking is one question under way.
type asking struct {
	*API
	c     access.Caller
	scope resource.ID
	ev    audit.Event
	// self: it is about the caller.
	self bool
	// own is what decides about the caller, to see what it may be told.
	own access.Facts
	// groups are names that were looked up.
	groups map[string]string
}

// ask begins a question about somebody; who is the caller itself or anybody else.
func (a *API) ask(ctx context.Context, c access.Caller, scope resource.ID, name, who string) (*asking, error) {
	q := &asking{API: a, c: c, scope: scope, self: who != "" && who == c.Principal, groups: map[string]string{}}
	q.ev = a.event(c, actionDecisions+name+"/action", scope)
	q.ev.Reason = "asks about itself"
	var err error
	if !q.self {
		if q.ev, err = a.permit(ctx, c, actionAssignmentRead, scope); err != nil {
			return nil, err
		}
		q.ev.Action = actionDecisions + name + "/action"
	}
	if q.own, err = a.Directory.Store.Facts(ctx, c.Tenant, c.Principal, scope); err != nil {
		return nil, fmt.Errorf("reading the rights of %s: %w", c.Principal, err)
	}
	return q, nil
}

// may reports whether the caller may do an action elsewhere.
func (q *asking) may(action string, at resource.ID) bool {
	return q.c.System || access.Judge(access.Operation{Action: action, Scope: at}, q.own).Allowed
}

// sees reports whether the caller may be told of what is assigned at a scope:
// what counts at the scope that is asked about is part of the answer.
func (q *asking) sees(at resource.ID) bool {
	return q.self || q.own.Covers(at, q.scope) || q.may(actionAssignmentRead, at)
}

// answer records the question; it is on record before it is answered.
func (q *asking) answer(ctx context.Context, v any) (any, error) {
	if err := q.Store.Record(ctx, q.ev); err != nil {
		return nil, fmt.Errorf("recording a question: %w", err)
	}
	return v, nil
}

// PrincipalView is a principal in an answer.
type PrincipalView struct {
	ID       string `json:"id"`
	ClientID string `json:"clientId,omitempty"`
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	// ResourceID is what an identity belongs to.
	ResourceID string `json:"resourceId,omitempty"`
	// Disabled: its tokens are refused, whatever roles it has.
	Disabled bool `json:"disabled,omitempty"`
}

// principal is p as the caller may know it. Who may read what it belongs to, is
// told of it; who sees an assignment that names it, whose that is; anybody else
// knows its id, having asked by it.
func (q *asking) principal(p directory.Principal, named bool) PrincipalView {
	v := PrincipalView{ID: p.ID, Kind: string(p.Kind), Disabled: !p.Enabled}
	reads := q.reads(p)
	if reads || named {
		v.ClientID, v.Name = p.Client, p.Name
	}
	if reads {
		v.ResourceID = p.Resource.String()
	}
	return v
}

// reads reports whether the caller may read what p belongs to.
func (q *asking) reads(p directory.Principal) bool {
	switch {
	case q.self:
		return true
	case p.Kind == directory.Group:
		return q.may(actionGroupRead, resource.Root)
	case p.Resource.IsZero():
		return false
	}
	return q.may(p.Resource.Type()+"/read", p.Resource)
}

// subject finds whom a question is about. A missing one is an error that the
// caller is told when it may ask at all.
func (a *API) subject(ctx context.Context, c access.Caller, q Question) (p directory.Principal, missing, err error) {
	unknown := func(format string, args ...any) (directory.Principal, error, error) {
		return directory.Principal{}, problem.Errorf(problem.PrincipalNotFound, format, args...), nil
	}
	switch {
	case q.PrincipalID != "" && q.ResourceID != "":
		return p, nil, problem.Errorf(problem.Invalid, "At most one of 'principalId' and 'resourceId' was expected.")
	case q.ResourceID != "":
		id, err := resource.Parse(q.ResourceID)
		if err != nil {
			return p, nil, problem.Errorf(problem.Invalid, "The member 'resourceId' is not a resource ID: %s.", problem.Of(err).Detail)
		}
		if p, err = a.Store.PrincipalOf(ctx, c.Tenant, id.Key()); !problem.Is(err, problem.NotFound) {
			return p, nil, err
		}
		have, err := a.Store.Identities(ctx, c.Tenant, id.Key())
		if err != nil || len(have) == 1 {
			return append(have, p)[0], nil, err
		}
		if len(have) > 1 {
			return unknown("The resource '%s' has %d identities and none of its own; give the 'principalId' of one.", id, len(have))
		}
		return p, noIdentity(id.String()), nil
	}
	id := strings.ToLower(q.PrincipalID)
	if id == "" {
		id = c.Principal
	} else if _, err := uuid.Parse(id); err != nil || len(id) != 36 {
		return p, nil, problem.Errorf(problem.Invalid, "The member 'principalId' is '%s'; an object id or a client id (a GUID) was expected.", problem.Clip(q.PrincipalID))
	}
	if p, err = a.Store.Principal(ctx, c.Tenant, id); !problem.Is(err, problem.NotFound) {
		return p, nil, err
	}
	if p, err = a.Store.PrincipalOfClient(ctx, c.Tenant, id); problem.Is(err, problem.UnknownClient) {
		return unknown("Principal %s does not exist in the directory %s.", id, c.Tenant)
	}
	return p, nil, err
}

func noIdentity(id string) error {
	return problem.Errorf(problem.PrincipalNotFound, "The resource '%s' has no identity.", id)
}

// about begins a question about a principal.
func (a *API) about(ctx context.Context, c access.Caller, scope resource.ID, name string, in Question) (*asking, directory.Principal, error) {
	p, missing, err := a.subject(ctx, c, in)
	if err != nil {
		return nil, p, err
	}
	q, err := a.ask(ctx, c, scope, name, p.ID)
	if err != nil {
		return nil, p, err
	}
	if in.ResourceID != "" && missing == nil && !q.reads(p) {
		// Whose resource the caller cannot read has none, as one that is not there.
		missing = noIdentity(in.ResourceID)
	}
	if missing != nil {
		return nil, p, a.refuse(ctx, q.ev, problem.Of(missing))
	}
	q.ev.Reason += "; about " + p.ID
	return q, p, nil
}

// DecisionView is the answer of check.
type DecisionView struct {
	Allowed bool `json:"allowed"`
	// Depends: it would be allowed, if a condition were known to hold.
	Depends      bool          `json:"depends,omitempty"`
	Principal    PrincipalView `json:"principal"`
	Action       string        `json:"action"`
	IsDataAction bool          `json:"isDataAction"`
	Scope        string        `json:"scope"`
	// Summary says the decision in a few words.
	Summary string       `json:"summary"`
	Reasons []ReasonView `json:"reasons"`
}

// ReasonView is what one assignment contributes.
type ReasonView struct {
	ID string `json:"id"`
	// Type is RoleAssignment or DenyAssignment.
	Type string `json:"type"`
	// Name is the role's or the deny assignment's.
	Name  string `json:"name"`
	Scope string `json:"scope"`
	// Group is the group that it is for, if it is not for the principal itself.
	Group  *GroupView `json:"group,omitempty"`
	Grants bool       `json:"grants"`
	Denies bool       `json:"denies"`
	// Depends: it would grant, if its condition were known to hold.
	Depends bool   `json:"depends,omitempty"`
	Why     string `json:"why"`
}

// GroupView is a group by which somebody has something.
type GroupView struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (a *API) check(ctx context.Context, c access.Caller, scope resource.ID, body json.RawMessage, _ string) (any, error) {
	var in Question
	if err := strictly(body, &in, questionShape); err != nil {
		return nil, err
	}
	op, err := in.operation(scope)
	if err != nil {
		return nil, err
	}
	q, p, err := a.about(ctx, c, scope, "check", in)
	if err != nil {
		return nil, err
	}
	if op, err = q.known(ctx, op); err != nil {
		return nil, err
	}
	d, f, err := q.decide(ctx, p, op)
	if err != nil {
		return nil, err
	}
	out := DecisionView{Allowed: d.Allowed, Action: op.Action, IsDataAction: op.Data, Scope: scope.String(), Summary: d.String()}
	if out.Reasons, err = q.reasons(ctx, d, f, func(access.Reason) bool { return true }); err != nil {
		return nil, err
	}
	out.Principal = q.principal(p, len(out.Reasons) > 0)
	depends := func(r access.Reason) bool { return r.Depends }
	if out.Depends = !d.Allowed && d.By.IsZero() && slices.ContainsFunc(d.Reasons, depends); out.Depends {
		out.Summary = "it depends on a condition, of which not all is known"
	}
	if !p.Enabled {
		out.Depends, out.Allowed, out.Summary = false, false, "the principal is disabled: its tokens are refused"
	}
	return q.answer(ctx, out)
}

// known adds to an operation what is there to say of its resource, as far as
// the caller may read it.
func (q *asking) known(ctx context.Context, op access.Operation) (access.Operation, error) {
	on := op.Scope
	t, err := q.typeOf(on)
	if err != nil {
		on = on.Parent()
		t, err = q.typeOf(on)
	}
	if err != nil || t.Attributes == nil {
		return op, nil
	}
	r := Resource{Tenant: q.c.Tenant, ID: on, Type: t.Name}
	if q.may(t.Name+"/read", on) {
		if r, err = q.Store.Resource(ctx, q.c.Tenant, on.Key()); problem.Is(err, problem.NotFound) {
			return op, nil
		} else if err != nil {
			return op, fmt.Errorf("reading %s: %w", on, err)
		}
	}
	have, err := t.Attributes(r, op.Scope)
	if err != nil {
		return op, err
	}
	op.Attributes.Resource = directory.Before(op.Attributes.Resource, have)
	return op, nil
}

// decide decides about somebody by what is there now. What conditions say of
// its attributes is unknown to who may not read the resource that has them.
func (q *asking) decide(ctx context.Context, p directory.Principal, op access.Operation) (access.Decision, access.Facts, error) {
	if q.self {
		return q.Directory.Explain(ctx, q.c, op, true)
	}
	known := p.Resource.IsZero() || q.may(p.Resource.Type()+"/read", p.Resource)
	return q.Directory.Explain(ctx, access.Caller{Tenant: q.c.Tenant, Principal: p.ID}, op, known)
}

// reasons are those that the caller may be told of, of those that it wants.
func (q *asking) reasons(ctx context.Context, d access.Decision, f access.Facts, want func(access.Reason) bool) ([]ReasonView, error) {
	out := []ReasonView{}
	for _, r := range d.Reasons {
		if !want(r) || !q.sees(r.Scope) {
			continue
		}
		v := ReasonView{
			ID: r.Assignment.String(), Type: "RoleAssignment", Name: r.Role, Scope: r.Scope.String(),
			Grants: r.Grants, Denies: r.Denies, Depends: r.Depends, Why: r.Why,
		}
		if r.Denial {
			v.Type = "DenyAssignment"
		}
		var err error
		if v.Group, err = q.group(ctx, f, r.Principal); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// group is the group among the facts' principals that holder is; nil for the
// principal itself and for everyone.
func (q *asking) group(ctx context.Context, f access.Facts, holder string) (*GroupView, error) {
	if holder == "" || holder == access.Everyone || len(f.Principals) == 0 || strings.EqualFold(holder, f.Principals[0]) {
		return nil, nil
	}
	name, ok := q.groups[holder]
	if !ok {
		g, err := q.Store.Group(ctx, q.c.Tenant, holder)
		if err != nil && !problem.Is(err, problem.NotFound) {
			return nil, fmt.Errorf("reading group %s: %w", holder, err)
		}
		name = g.Name
		q.groups[holder] = name
	}
	return &GroupView{ID: holder, Name: name}, nil
}
