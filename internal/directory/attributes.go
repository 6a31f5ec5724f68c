package directory

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
)

// The attributes that every operation has, whatever it is: who does it, by
// which program, and when. What is in them nobody sends: it is read here.
const (
	// attrPrincipal is of the principal itself, and cannot be chosen by it.
	attrPrincipal = "Innate.Directory/principals:"
	// attrTags are the tags of the resource that the identity belongs to. Azure
	// has attributes of a principal under attrCustom, so they are there too.
	// Who may write the tags decides what conditions on them say.
	attrTags   = "Innate.Directory/principals/tags:"
	attrCustom = "Microsoft.Directory/CustomSecurityAttributes/Id:"
	// attrCaller is the evidence of the program that a token was given to.
	attrCaller = "Innate.Fleet/callers:"
	attrNow    = "UtcNow"
)

// fill adds what the directory knows to the attributes of an operation by c.
func (d *Directory) fill(ctx context.Context, c access.Caller, a access.Attributes) (access.Attributes, error) {
	who, err := d.principalValues(ctx, c)
	if err != nil {
		return a, err
	}
	a.Principal = who
	a.Environment = access.Values{attrNow: {d.Now().UTC().Format(time.RFC3339Nano)}}
	a.Caller = callerValues(c.Via)
	return a, nil
}

func (d *Directory) principalValues(ctx context.Context, c access.Caller) (access.Values, error) {
	p, err := d.Store.Principal(ctx, c.Tenant, c.Principal)
	if problem.Is(err, problem.NotFound) {
		return nil, nil // a host, of which nothing is said
	}
	if err != nil {
		return nil, fmt.Errorf("reading principal %s: %w", c.Principal, err)
	}
	out := access.Values{
		attrPrincipal + "objectId": {p.ID}, attrPrincipal + "name": {p.Name}, attrPrincipal + "kind": {string(p.Kind)},
	}
	if p.Resource.IsZero() {
		return out, nil
	}
	out[attrPrincipal+"resourceId"], out[attrPrincipal+"resourceType"] = []string{p.Resource.String()}, []string{p.Resource.Type()}
	tags, err := d.Store.Tags(ctx, c.Tenant, p.Resource.Key())
	if err != nil {
		return nil, fmt.Errorf("reading the tags of %s: %w", p.Resource, err)
	}
	for k, v := range tags {
		out[attrTags+k], out[attrCustom+k] = []string{v}, []string{v}
	}
	return out, nil
}

// callerValues reads a token's words about the program that asked for it. Of
// words that cannot be read nothing is known, and what a condition says about
// them does not hold.
func callerValues(via string) access.Values {
	ev, err := evidence.ParseDescription(via)
	if err != nil {
		return nil
	}
	out := access.Values{attrCaller + "door": {ev.Door}, attrCaller + "grade": {ev.Grade.String()}}
	for _, s := range ev.Selectors {
		out[attrCaller+"selectors"] = append(out[attrCaller+"selectors"], string(s))
	}
	return out
}
