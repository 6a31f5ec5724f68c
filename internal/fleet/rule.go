package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// TypeCallerRule is a caller rule, an extension of what it is about:
// {resource}/providers/Innate.Fleet/callerRules/{name}.
const TypeCallerRule = "Innate.Fleet/callerRules"

// Bounds of what is compared for each caller.
const (
	maxRules     = 200
	maxAudiences = 64
)

// RuleProperties are the properties of a caller rule.
type RuleProperties struct {
	// Selectors must all hold of a caller. 1 to 64 of them.
	Selectors []string `json:"selectors"`
	// Identity is the resource ID of the user-assigned identity that the rule
	// gives, attached to the resource; or the resource's own ID, for its
	// system-assigned one. "" means any that it has.
	//
	// An identity that is detached or deleted later leaves the rule as it is:
	// it then gives what the resource has not, which is nothing, and opens the
	// resource for nobody.
	Identity string `json:"identity,omitempty"`
	// Audiences are what the rule is for, at most 64; none means every audience.
	Audiences []string `json:"audiences,omitempty"`
	// Grade is the word of the least grade of evidence; "" for any.
	Grade string `json:"grade,omitempty"`
	// Mode is "enforce" (the default) or "audit".
	Mode string `json:"mode,omitempty"`
}

// ruleType is the row of caller rules.
//
// Who writes one decides which programs are the resource: a rule that is
// loosened, added beside others or deleted lets somebody in. So all of that
// needs the right that placing the resource needs.
func ruleType() *arm.Type {
	return &arm.Type{
		Name: TypeCallerRule, NoLocation: true, Extension: true, NamePattern: name, NameRule: nameRule, Computed: []string{"warnings"},
		Linked: func(_ context.Context, _ string, id resource.ID, _ arm.Document) ([]arm.Need, error) {
			return []arm.Need{toBe(id.Scope())}, nil
		},
		Unlinked: func(id resource.ID) []arm.Need { return []arm.Need{toBe(id.Scope())} },
		Check: func(_ context.Context, _ *arm.Resource, r *arm.Resource) error {
			if !placeable(r.ID.Scope()) {
				return problem.Errorf(problem.Invalid, "A caller rule is about a resource that can have an identity; '%s' is none.", r.ID.Scope())
			}
			r.BoundTo = r.ID.Scope()
			_, _, err := rule(r.Body, r.ID)
			return err
		},
		Written: ruleWritten,
		Useless: ruleUseless,
		Moved: func(_ context.Context, _ arm.Tx, r arm.Resource, m arm.Move) (bool, error) {
			return m.Rewrite(r.Body, "identity")
		},
		View: func(r arm.Resource, _ directory.Principal, properties map[string]any) {
			properties["warnings"] = []string{}
			if _, e, err := rule(r.Body, r.ID); err == nil && len(e.Warnings()) > 0 {
				properties["warnings"] = e.Warnings()
			}
		},
	}
}

// ruleWritten checks, within the write, how many rules the resource has and
// that it has the identity.
func ruleWritten(tx arm.Tx, r arm.Resource) error {
	scope := r.ID.Scope()
	all, err := tx.Resources(scope.Key(), false)
	if err != nil {
		return err
	}
	n := 0
	for _, s := range all {
		if s.BoundTo.Equal(scope) && strings.EqualFold(s.Type, TypeCallerRule) {
			n++
		}
	}
	if n > maxRules {
		return problem.Errorf(problem.Conflict, "The resource '%s' has %d caller rules, and at most that many are allowed.", scope.Name(), maxRules)
	}
	p, _, err := rule(r.Body, r.ID)
	if err != nil || p.Identity == "" {
		return err
	}
	have, err := tx.Identities(directory.Holder(scope).Key())
	if err != nil {
		return err
	}
	for _, h := range have {
		if strings.EqualFold(h.Resource.String(), p.Identity) {
			return nil
		}
	}
	return problem.Errorf(problem.Invalid, "The member 'properties.identity' is '%s', which '%s' does not have; attach the identity to it first, or enable its system-assigned one.", p.Identity, scope.Name())
}

// ruleUseless says of a rule that it gives an identity that its resource has not.
func ruleUseless(r arm.Resource, have []directory.Principal) string {
	p, _, err := rule(r.Body, r.ID)
	if err != nil || p.Identity == "" {
		return ""
	}
	for _, h := range have {
		if strings.EqualFold(h.Resource.String(), p.Identity) {
			return ""
		}
	}
	return "it gives the identity " + p.Identity + ", which the resource does not have"
}

// rule reads and checks a rule's document, in which nothing may be that is not
// understood: what a misspelt member was to forbid would be allowed.
func rule(d arm.Document, id resource.ID) (RuleProperties, evidence.Rule, error) {
	var p RuleProperties
	for k := range d {
		if !strings.EqualFold(k, "properties") && !strings.EqualFold(k, "tags") {
			return p, evidence.Rule{}, problem.Errorf(problem.Invalid, "A caller rule has no member '%s'; what it says is in 'properties'.", problem.Clip(k))
		}
	}
	raw := d.Member("properties")
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, evidence.Rule{}, &problem.Error{Kind: problem.Invalid, Err: err,
			Detail: "The member 'properties' needs 'selectors' (strings) and may have 'identity', 'grade', 'mode' (strings) and 'audiences' (strings), and nothing else; it was refused as it is: " + problem.Clip(strings.TrimPrefix(err.Error(), "json: ")) + "."}
	}
	e, err := p.rule(id)
	return p, e, err
}

// rule checks the properties and returns what callers are judged by.
func (p *RuleProperties) rule(id resource.ID) (evidence.Rule, error) {
	e := evidence.Rule{Name: id.Name(), Audiences: p.Audiences, Identity: p.Identity, Enforce: true}
	if len(p.Selectors) == 0 || len(p.Selectors) > maxSelectors {
		return e, problem.Errorf(problem.Invalid, "The member 'properties.selectors' has %d entries; 1 to %d were expected.", len(p.Selectors), maxSelectors)
	}
	for _, s := range p.Selectors {
		sel, err := evidence.Parse(s)
		if err != nil {
			return e, err
		}
		e.Selectors = append(e.Selectors, sel)
	}
	if err := checkAudiences(p.Audiences); err != nil {
		return e, err
	}
	if p.Identity != "" {
		ident, err := resource.Parse(p.Identity)
		if err != nil {
			return e, problem.Errorf(problem.Invalid, "The member 'properties.identity' is not a resource ID: %s.", problem.Of(err).Detail)
		}
		e.Identity = ident.String()
	}
	if p.Grade != "" {
		var err error
		if e.Grade, err = evidence.ParseGrade(p.Grade); err != nil {
			return e, err
		}
	}
	switch p.Mode {
	case "", fleetapi.ModeEnforce:
	case fleetapi.ModeAudit:
		e.Enforce = false
	default:
		return e, problem.Errorf(problem.Invalid, "The member 'properties.mode' is '%s'; \"%s\" or \"%s\" was expected.", problem.Clip(p.Mode), fleetapi.ModeEnforce, fleetapi.ModeAudit)
	}
	return e, nil
}

func checkAudiences(all []string) error {
	if len(all) > maxAudiences {
		return problem.Errorf(problem.Invalid, "The member 'properties.audiences' has %d entries; at most %d are allowed.", len(all), maxAudiences)
	}
	for _, a := range all {
		if a == "" || len(a) > 512 || !utf8.ValidString(a) || strings.ContainsFunc(a, unicode.IsControl) {
			return problem.Errorf(problem.Invalid, "The member 'properties.audiences' has '%s'; 1 to 512 bytes without control characters were expected, for example \"https://vault.azure.net\".", problem.Clip(a))
		}
		if strings.HasSuffix(strings.ToLower(a), "/.default") {
			return problem.Errorf(problem.Invalid, "The member 'properties.audiences' has '%s', which is a scope: no program would match it. Leave out \"/.default\".", problem.Clip(a))
		}
	}
	return nil
}

// rules returns what callers of a resource are judged by.
func (f *Fleet) rules(ctx context.Context, tenant string, on resource.ID) ([]evidence.Rule, error) {
	rs, err := f.ruled(ctx, tenant, on)
	if err != nil {
		return nil, err
	}
	out := make([]evidence.Rule, 0, len(rs))
	for _, r := range rs {
		_, e, err := rule(r.Body, r.ID)
		if err != nil {
			// It was checked when it was written. One that is not understood
			// must not count as absent.
			return nil, fmt.Errorf("reading caller rule %s: %w", r.ID, internal(err))
		}
		out = append(out, e)
	}
	return out, nil
}

// ruled returns the rules of a resource as they are stored. Those of a scale set
// are of its instances too: they say who may have its identities.
func (f *Fleet) ruled(ctx context.Context, tenant string, on resource.ID) ([]arm.Resource, error) {
	rs, err := f.Store.BoundTo(ctx, tenant, on.Key(), TypeCallerRule)
	if err != nil {
		return nil, err
	}
	holder := directory.Holder(on)
	if holder.Equal(on) {
		return rs, nil
	}
	of, err := f.Store.BoundTo(ctx, tenant, holder.Key(), TypeCallerRule)
	return append(rs, of...), err
}

// internal makes of a problem that only a client could cause one of ours.
func internal(err error) error {
	return &problem.Error{Kind: problem.Internal, Detail: "internal error", Err: err}
}

// message is the rule as agents get it.
func (p RuleProperties) message(id resource.ID) fleetapi.CallerRule {
	mode := p.Mode
	if mode == "" {
		mode = fleetapi.ModeEnforce
	}
	return fleetapi.CallerRule{
		Resource: id.Scope().String(), Name: id.Name(), Selectors: p.Selectors, Identity: p.Identity, Audiences: p.Audiences, Grade: p.Grade, Mode: mode,
	}
}

// ruledKey is the key of the resource that a rule with this key is on; "" if it
// is no rule's key.
func ruledKey(key string) string {
	id, err := resource.Parse(key)
	if err != nil || !strings.EqualFold(id.Type(), TypeCallerRule) {
		return ""
	}
	return id.Scope().Key()
}

// placeable reports whether a resource can be placed on a host, and so have
// caller rules: it is in a group and none of the fleet's own.
func placeable(id resource.ID) bool {
	if id.GroupID().IsZero() || id.Equal(id.GroupID()) {
		return false
	}
	for _, t := range []string{TypeHost, TypePlacement, TypeCallerRule} {
		if strings.EqualFold(id.Type(), t) {
			return false
		}
	}
	return true
}
