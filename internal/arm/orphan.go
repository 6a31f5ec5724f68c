package arm

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Uses is a principal of a resource, and what uses it.
type Uses struct {
	directory.Principal
	// Attached: a resource has it. Role: it has one at some scope. Member: it is
	// in a group. Federated: it trusts tokens of other issuers, whose programs may
	// be it without any resource.
	Attached, Role, Member, Federated bool
}

// Orphan is something that nothing uses, or that says what is not so. Nothing of
// it is broken, but somebody may want to tidy up.
type Orphan struct {
	Kind string `json:"kind"`
	// ID is the resource's that it is about.
	ID string `json:"id"`
	// PrincipalID is an identity's.
	PrincipalID string `json:"principalId,omitempty"`
	Reason      string `json:"reason"`
}

// The kinds of orphans.
const (
	orphanUnattached = "unattachedIdentity"
	orphanRoleless   = "identityWithoutRole"
	orphanDisabled   = "disabledPrincipalWithRole"
	orphanRule       = "unusableRow"
)

var orphanKinds = []string{orphanUnattached, orphanRoleless, orphanDisabled, orphanRule}

const actionOrphans = "Innate.Directory/orphans/read"

// orphanPage bounds how much is looked at for one page, which may then have
// fewer entries than there are.
const orphanPage = 500

// serveOrphans serves GET {scope}/providers/Innate.Directory/orphans.
func (a *API) serveOrphans(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	can := "kind eq '{kind}' with one of " + strings.Join(orphanKinds, ", ")
	all, err := terms(q.q.Get("$filter"), can)
	if err != nil {
		return err
	}
	kind := ""
	for _, t := range all {
		if kind = named(t, "kind"); len(all) > 1 || !slices.Contains(orphanKinds, kind) {
			return problem.Errorf(problem.BadFilter, "The $filter '%s' asks for something else than %s.", problem.Clip(q.q.Get("$filter")), can).At("$filter")
		}
	}
	l, err := a.Orphans(r.Context(), q.c, probe.Scope(), kind, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

// Orphans lists what nothing uses below a scope, as far as no denial hides it:
// first identities, by their resources, then rows that a type finds useless. kind
// "" means all.
func (a *API) Orphans(ctx context.Context, c access.Caller, scope resource.ID, kind, after string) (List, error) {
	ev, err := a.permit(ctx, c, actionOrphans, scope)
	if err != nil {
		return List{}, err
	}
	// The rows of each type follow on those of the one before; "" are principals.
	typ, key, _ := strings.Cut(after, " ")
	var found []Orphan
	var last string
	if typ == "" {
		found, last, err = a.unused(ctx, c, scope, key)
	} else {
		found, last, err = a.useless(ctx, c, scope, typ, key)
	}
	if err != nil {
		return List{}, err
	}
	out := List{Value: []View{}}
	if last == "" {
		typ = a.nextUseless(typ)
	}
	if last != "" || typ != "" {
		out.Next = typ + " " + last
	}
	for _, o := range found {
		if kind == "" || kind == o.Kind {
			v := View{"kind": o.Kind, "id": o.ID, "reason": o.Reason}
			if o.PrincipalID != "" {
				v["principalId"] = o.PrincipalID
			}
			out.Value = append(out.Value, v)
		}
	}
	return out, a.read(ctx, ev)
}

// unhidden leaves out what a denial hides of rows, which are of a page of so many,
// and says after what the next page begins; "" if there is none. It begins after
// the last row that is not hidden, which the caller may know, unless all are.
// about is what a row tells of, its own ID first.
func unhidden[T any](ctx context.Context, hidden *denials, scope resource.ID, rows []T, about func(T) []resource.ID, page int) (out []T, last string, err error) {
	for _, r := range rows {
		ids := about(r)
		hide, err := hidden.hide(ctx, scope, Need{actionOrphans, ids[0]}, ids...)
		if err != nil {
			return nil, "", err
		}
		if !hide {
			out, last = append(out, r), ids[0].Key()
		}
	}
	if len(rows) < page {
		return out, "", nil
	}
	return out, cmp.Or(last, about(rows[page-1])[0].Key()), nil
}

// unused looks at a page of principals; last is "" after the last one.
func (a *API) unused(ctx context.Context, c access.Caller, scope resource.ID, after string) (out []Orphan, last string, err error) {
	us, err := a.Store.Uses(ctx, c.Tenant, scope.Key(), Page{After: after, Limit: orphanPage})
	if err != nil {
		return nil, "", err
	}
	us, last, err = unhidden(ctx, a.denials(c), scope, us, func(u Uses) []resource.ID { return []resource.ID{u.Resource} }, orphanPage)
	if err != nil {
		return nil, "", err
	}
	for _, u := range us {
		add := func(kind, why string) {
			out = append(out, Orphan{Kind: kind, ID: u.Resource.String(), PrincipalID: u.ID, Reason: why})
		}
		managed := u.Kind == directory.ManagedIdentity
		if managed && !u.System && !u.Attached && !u.Federated {
			add(orphanUnattached, "no resource has this identity, and it has no federated credential")
		}
		if managed && !u.Role && !u.Member {
			add(orphanRoleless, "it has no role, and is in no group that could have one")
		}
		if !u.Enabled && u.Role {
			add(orphanDisabled, "it is disabled and has roles, which count again when it is enabled")
		}
	}
	return out, last, nil
}

// useless looks at a page of the rows of a type.
func (a *API) useless(ctx context.Context, c access.Caller, scope resource.ID, typ, after string) (out []Orphan, last string, err error) {
	t := a.Types[typ]
	if t == nil || t.Useless == nil {
		return nil, "", problem.Errorf(problem.Invalid, "The query parameter '$skiptoken' is not one that this API gave out.")
	}
	rs, err := a.Store.Resources(ctx, c.Tenant, scope.Key(), typ, Page{After: after, Limit: PageSize})
	if err != nil {
		return nil, "", fmt.Errorf("listing below %s: %w", scope, err)
	}
	rs, last, err = unhidden(ctx, a.denials(c), scope, rs, func(r Resource) []resource.ID { return []resource.ID{r.ID, r.BoundTo} }, PageSize)
	if err != nil {
		return nil, "", err
	}
	var bound []string
	for _, r := range rs {
		bound = append(bound, r.BoundTo.Key())
	}
	have, err := a.Store.Holdings(ctx, c.Tenant, bound)
	if err != nil {
		return nil, "", fmt.Errorf("reading the identities of what rows are bound to: %w", err)
	}
	for _, r := range rs {
		if why := t.Useless(r, have[r.BoundTo.Key()].Identities); why != "" {
			out = append(out, Orphan{Kind: orphanRule, ID: r.ID.String(), Reason: why})
		}
	}
	return out, last, nil
}

// nextUseless is the type whose rows are looked at after those of typ.
func (a *API) nextUseless(typ string) string {
	var all []string
	for name, t := range a.Types {
		if t.Useless != nil && name > typ {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return slices.Min(all)
}
