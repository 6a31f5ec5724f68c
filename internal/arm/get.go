package arm

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
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

// PageSize is how many items a list answer has.
const PageSize = 100

// Get returns a resource.
func (a *API) Get(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	t, err := a.typeOf(id)
	if err != nil {
		return nil, err
	}
	ev, err := a.permit(ctx, c, t.Name+"/read", id)
	if err != nil {
		return nil, err
	}
	v, err := a.view(ctx, t, c, id)
	if p := problem.Of(err); err != nil && p.Kind != problem.Internal {
		return nil, a.refuse(ctx, ev, p)
	}
	if err != nil {
		return nil, err
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return nil, fmt.Errorf("recording a read: %w", err)
	}
	return v, nil
}

// view reads a resource and says it in its type's words.
func (a *API) view(ctx context.Context, t *Type, c access.Caller, id resource.ID) (View, error) {
	r, err := a.Store.Resource(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, notFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", id, err)
	}
	have, err := a.Store.Identities(ctx, c.Tenant, id.Key())
	if err != nil {
		return nil, fmt.Errorf("reading the identities of %s: %w", id, err)
	}
	var own directory.Principal
	if t.OwnPrincipal != "" {
		if own, err = a.Store.PrincipalOf(ctx, c.Tenant, id.Key()); err != nil {
			return nil, fmt.Errorf("reading the principal of %s: %w", id, err)
		}
	}
	return t.view(a.Names.Asked(c.Asked), r, have, own), nil
}

func (t *Type) view(names web.Names, r Resource, have []directory.Principal, own directory.Principal) View {
	v := View{}
	for k, raw := range r.Body {
		v[k] = raw
	}
	props := properties(r.Body)
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
	return v
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// List is one page of a list and where the next begins.
type List struct {
	Value []View
	// Next is the token of the next page; "" on the last.
	Next string
}

// List lists the resources of a type below parent; typ "" means all types.
func (a *API) List(ctx context.Context, c access.Caller, parent resource.ID, typ, skip string) (List, error) {
	action := "Microsoft.Resources/subscriptions/resources/read"
	if typ != "" {
		t, ok := a.Types[strings.ToLower(typ)]
		if !ok {
			probe, err := parent.Extension(typ, "x")
			if err != nil {
				return List{}, err
			}
			if _, err = a.typeOf(probe); err == nil { // a filter that is no type, but with a name behind it ends in one
				err = problem.Errorf(problem.UnknownType, "The resource type '%s' is not known here.", problem.Clip(typ))
			}
			return List{}, err
		}
		typ, action = t.Name, t.Name+"/read"
	}
	ev, err := a.permit(ctx, c, action, parent)
	if err != nil {
		return List{}, err
	}
	after, err := decodeSkip(skip)
	if err != nil {
		return List{}, a.refuse(ctx, ev, problem.Of(err))
	}
	if !parent.IsRoot() {
		if _, err := a.Store.Resource(ctx, c.Tenant, parent.Key()); problem.Is(err, problem.NotFound) {
			return List{}, a.refuse(ctx, ev, problem.Of(notFound(parent)))
		} else if err != nil {
			return List{}, fmt.Errorf("reading %s: %w", parent, err)
		}
	}
	out, err := a.page(ctx, c, parent, typ, after)
	if err != nil {
		return List{}, err
	}
	if err := a.Store.Record(ctx, ev); err != nil {
		return List{}, fmt.Errorf("recording a list: %w", err)
	}
	return out, nil
}

func (a *API) page(ctx context.Context, c access.Caller, parent resource.ID, typ, after string) (List, error) {
	out := List{Value: []View{}}
	rs, err := a.Store.Resources(ctx, c.Tenant, parent.Key(), typ, Page{After: after, Limit: PageSize + 1})
	if err != nil {
		return out, fmt.Errorf("listing below %s: %w", parent, err)
	}
	if len(rs) > PageSize {
		rs = rs[:PageSize]
		out.Next = encodeSkip(rs[PageSize-1].ID.Key())
	}
	for _, r := range rs {
		t, ok := a.Types[strings.ToLower(r.Type)]
		if !ok || typ == "" && (r.Type == typeGroup || r.Type == typeSubscription || t.Extension) {
			continue // groups and extensions are no "resources" to ARM's mixed list
		}
		v, err := a.view(ctx, t, c, r.ID)
		if problem.Is(err, problem.NotFound) || problem.Is(err, problem.GroupNotFound) {
			continue // deleted since the page was read
		}
		if err != nil {
			return out, err
		}
		out.Value = append(out.Value, v)
	}
	return out, nil
}

// Subscriptions lists the subscriptions in or above which the caller has a
// role: the list needs no right of its own.
func (a *API) Subscriptions(ctx context.Context, c access.Caller) (List, error) {
	all, err := a.Store.Resources(ctx, c.Tenant, "", typeSubscription, Page{Limit: 10000})
	if err != nil {
		return List{}, fmt.Errorf("listing subscriptions: %w", err)
	}
	facts, err := a.Directory.Store.Facts(ctx, c.Tenant, c.Principal, resource.Root)
	if err != nil {
		return List{}, fmt.Errorf("reading the caller's role assignments: %w", err)
	}
	out := List{Value: []View{}}
	for _, s := range all {
		seen := c.System
		for _, as := range facts.Assignments {
			seen = seen || as.Scope.Contains(s.ID) || s.ID.Contains(as.Scope)
		}
		if seen {
			out.Value = append(out.Value, subscriptionView(s))
		}
	}
	ev := a.event(c, "Microsoft.Resources/subscriptions/read", resource.Root)
	ev.Reason = fmt.Sprintf("%d of %d subscriptions, by the caller's roles", len(out.Value), len(all))
	if err := a.Store.Record(ctx, ev); err != nil {
		return List{}, fmt.Errorf("recording a list: %w", err)
	}
	return out, nil
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

func encodeSkip(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodeSkip(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", problem.Errorf(problem.Invalid, "The query parameter '$skiptoken' is not one that this API gave out.")
	}
	return string(b), nil
}
