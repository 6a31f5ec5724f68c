package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// View is a resource as clients read it.
type View map[string]any

// Get returns a resource.
func (a *API) Get(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	return a.GetExpanded(ctx, c, id, "")
}

// GetExpanded is Get with members that are there only if they are asked for:
// their names, with commas between them.
func (a *API) GetExpanded(ctx context.Context, c access.Caller, id resource.ID, expand string) (View, error) {
	t, err := a.typeOf(id)
	if err != nil {
		return nil, err
	}
	ev, err := a.permit(ctx, c, t.Name+"/read", id)
	if err != nil {
		return nil, err
	}
	v, err := a.view(ctx, t, c, id, expand)
	if t.Polling == PollBody {
		v, err = a.stateOf(ctx, c.Tenant, id, v, err)
	}
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return nil, a.refuse(ctx, ev, p)
	}
	if err != nil {
		return nil, err
	}
	return v, a.read(ctx, ev)
}

// view reads a resource and says it in its type's words, with the members that
// expand names.
func (a *API) view(ctx context.Context, t *Type, c access.Caller, id resource.ID, expand string) (View, error) {
	r, err := a.Store.Resource(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, notFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", id, err)
	}
	have, err := a.Store.Identities(ctx, c.Tenant, directory.Holder(id).Key())
	if err != nil {
		return nil, fmt.Errorf("reading the identities of %s: %w", id, err)
	}
	var own directory.Principal
	if t.OwnPrincipal != "" {
		if own, err = a.Store.PrincipalOf(ctx, c.Tenant, id.Key()); err != nil {
			return nil, fmt.Errorf("reading the principal of %s: %w", id, err)
		}
	}
	v := t.view(a.Names.Asked(c.Asked), r, have, own)
	return v, t.expand(r, v, expand)
}

// expand adds what $expand asks for. Types that know of none ignore it, as
// services do.
func (t *Type) expand(r Resource, v View, expand string) error {
	props, ok := v["properties"].(map[string]any)
	if expand == "" || len(t.Expand) == 0 || !ok {
		return nil
	}
	for _, word := range strings.Split(expand, ",") {
		word = strings.TrimSpace(word)
		member, ok := t.Expand[strings.ToLower(word)]
		if !ok {
			return problem.Errorf(problem.Invalid, "The query parameter '$expand' has '%s', which %s does not know; instanceView and userData it does.", problem.Clip(word), t.Name)
		}
		if m := member(r); m != nil {
			props[strings.ToLower(word[:1])+word[1:]] = m
		}
	}
	return nil
}

func (t *Type) view(names web.Names, r Resource, have []directory.Principal, own directory.Principal) View {
	v := View{}
	for k, raw := range r.Body {
		v[k] = raw
	}
	props := t.properties(r.Body)
	props["provisioningState"] = "Succeeded"
	if t.View != nil {
		t.View(r, own, props)
	}
	if t.Links != nil {
		t.Links(names, r, props)
	}
	v["id"], v["name"], v["type"], v["properties"] = r.ID.String(), r.ID.Name(), t.Name, props
	v["etag"] = etag(r)
	v["systemData"] = map[string]any{
		"createdBy": r.CreatedBy, "createdByType": "ManagedIdentity", "createdAt": stamp(r.Created),
		"lastModifiedBy": r.UpdatedBy, "lastModifiedByType": "ManagedIdentity", "lastModifiedAt": stamp(r.Updated),
	}
	if id := t.identityView(have); id != nil {
		v["identity"] = id
	}
	if t.Whole != nil {
		t.Whole(r, v)
	}
	return v
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Subscriptions lists the subscriptions in or above which the caller has a
// role, but for those that a denial hides: the list needs no right of its own.
func (a *API) Subscriptions(ctx context.Context, c access.Caller) (List, error) {
	all, err := a.Store.Resources(ctx, c.Tenant, "", typeSubscription, Page{Limit: 10000})
	if err != nil {
		return List{}, fmt.Errorf("listing subscriptions: %w", err)
	}
	facts, err := a.Directory.Store.Facts(ctx, c.Tenant, c.Principal, resource.Root)
	if err != nil {
		return List{}, fmt.Errorf("reading the caller's role assignments: %w", err)
	}
	tree, err := a.Store.Tree(ctx, c.Tenant)
	if err != nil {
		return List{}, err
	}
	root := RootGroup(c.Tenant).Key()
	// Looked up, and not looked for: who has a role in each of thousands would
	// have each compared with all.
	has := map[string]bool{}
	for _, as := range facts.Assignments {
		has[as.Scope.Key()], has[as.Scope.SubscriptionID().Key()] = true, true
	}
	hidden := a.denials(c)
	out := List{Value: []View{}}
	for _, s := range all {
		over := append(tree.above(s.ID.Key(), root), s.ID.Key(), resource.Root.Key())
		if !c.System && !slices.ContainsFunc(over, func(key string) bool { return has[key] }) {
			continue
		}
		if denied, err := hidden.refuse(ctx, typeSubscription+"/read", s.ID); err != nil {
			return List{}, err
		} else if !denied {
			out.Value = append(out.Value, subscriptionView(s))
		}
	}
	ev := a.event(c, "Microsoft.Resources/subscriptions/read", resource.Root)
	ev.Reason = fmt.Sprintf("%d of %d subscriptions, by the caller's roles", len(out.Value), len(all))
	return out, a.read(ctx, ev)
}

func subscriptionView(r Resource) View {
	var name string
	_ = json.Unmarshal(r.Body["displayName"], &name)
	return View{
		"id": r.ID.String(), "subscriptionId": r.ID.Subscription(), "tenantId": r.Tenant, "displayName": name,
		"state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": []any{},
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Internal_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
	}
}
