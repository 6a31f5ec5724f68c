package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// typeAlias is how clients of ARM make subscriptions: under a name of their
// choice, so that a request that is sent twice makes one.
const typeAlias = "Microsoft.Subscription/aliases"

const (
	actionSubscriptionWrite  = typeSubscription + "/write"
	actionSubscriptionDelete = typeSubscription + "/delete"
)

// aliasBody is the body of PUT /providers/Microsoft.Subscription/aliases/{name}.
type aliasBody struct {
	Properties struct {
		DisplayName string `json:"displayName"`
		// SubscriptionID is a GUID that nobody has; empty for a fresh one.
		SubscriptionID string `json:"subscriptionId"`
		Additional     struct {
			ManagementGroupID string `json:"managementGroupId"`
		} `json:"additionalProperties"`
	} `json:"properties"`
}

// UnmarshalJSON reads a body as strictly as a [Document].
func (b *aliasBody) UnmarshalJSON(raw []byte) error {
	var d Document
	if err := d.UnmarshalJSON(raw); err != nil {
		return err
	}
	type plain aliasBody
	return json.Unmarshal(raw, (*plain)(b))
}

// serveAlias serves /providers/Microsoft.Subscription/aliases/{name}.
func (a *API) serveAlias(w http.ResponseWriter, r *http.Request, q request, id resource.ID) error {
	if !id.Scope().IsRoot() {
		return problem.Errorf(problem.BadID, "An alias is below no other resource; /providers/%s/{name} was expected.", typeAlias)
	}
	switch r.Method {
	case http.MethodPut:
		var b aliasBody
		if err := web.ReadJSON(r, &b); err != nil {
			return err
		}
		v, created, err := a.CreateSubscription(r.Context(), q.c, id, b)
		return answer(w, status(created), v, err)
	case http.MethodGet:
		v, err := a.alias(r.Context(), q.c, id)
		return answer(w, http.StatusOK, v, err)
	}
	return notAllowed(r, "GET and PUT")
}

// CreateSubscription makes a subscription below a management group, by default
// the root group, for who may write subscriptions there. The same alias again
// is the same subscription.
func (a *API) CreateSubscription(ctx context.Context, c access.Caller, alias resource.ID, b aliasBody) (View, bool, error) {
	p := b.Properties
	group := RootGroup(c.Tenant)
	if s := p.Additional.ManagementGroupID; s != "" {
		var err error
		if group, err = groupNamed(s); err != nil {
			return nil, false, err
		}
	}
	ev, err := a.permit(ctx, c, actionSubscriptionWrite, group)
	if err != nil {
		return nil, false, err
	}
	if p.SubscriptionID == "" {
		p.SubscriptionID = uuid.NewString()
	}
	if _, err := uuid.Parse(p.SubscriptionID); err != nil || len(p.SubscriptionID) != 36 {
		return nil, false, a.refuse(ctx, ev, problem.Errorf(problem.Invalid, "The member 'properties.subscriptionId' is '%s'; a GUID was expected.", problem.Clip(p.SubscriptionID)).At("properties.subscriptionId"))
	}
	if err := subscriptionName(p.DisplayName); err != nil {
		return nil, false, a.refuse(ctx, ev, problem.Of(err))
	}
	sub, err := resource.Parse("/subscriptions/" + strings.ToLower(p.SubscriptionID))
	if err != nil {
		return nil, false, err
	}
	ev.Target = sub.String()
	var v View
	var created bool
	err = a.write(ctx, ev, func(tx Tx) error {
		created = false
		if have, err := tx.Resource(alias.Key()); err == nil {
			d, err := a.Directory.Authorize(ctx, c, access.Operation{Action: typeSubscription + "/read", Scope: have.BoundTo})
			if err == nil && !d.Allowed {
				err = problem.Errorf(problem.Conflict, "The alias '%s' is another subscription's; choose another name.", alias.Name())
			}
			v = aliasView(have)
			return err
		} else if !problem.Is(err, problem.NotFound) {
			return err
		}
		if _, err := tx.Resource(sub.Key()); err == nil {
			return problem.Errorf(problem.Exists, "The subscription '%s' exists.", sub.Name())
		} else if !problem.Is(err, problem.NotFound) {
			return err
		}
		if _, err := managementGroup(tx.Resource, c.Tenant, group); err != nil {
			return err
		}
		now := a.Now()
		row := func(id resource.ID, typ string, body Document) Resource {
			return Resource{Tenant: c.Tenant, ID: id, Type: typ, UID: uuid.NewString(), Body: body, Created: now, Updated: now, CreatedBy: c.Principal, UpdatedBy: c.Principal}
		}
		body, named := Document{}, Document{}
		named.set("displayName", p.DisplayName)
		body.set("subscriptionId", sub.Name())
		r := row(alias, typeAlias, body)
		r.BoundTo = sub // an alias goes with what it names
		if err := tx.PutResource(row(sub, typeSubscription, named)); err != nil {
			return err
		}
		if err := tx.PutResource(r); err != nil {
			return err
		}
		v, created = aliasView(r), true
		if group.Equal(RootGroup(c.Tenant)) {
			return nil
		}
		return tx.PutParent(sub.Key(), group.Key())
	})
	return v, created, err
}

func subscriptionName(s string) error {
	if s == "" || len(s) > 64 {
		return problem.Errorf(problem.Invalid, "The name of a subscription has 1 to 64 characters; this one has %d.", len(s)).At("properties.displayName")
	}
	return nil
}

func aliasView(r Resource) View {
	var sub string
	_ = json.Unmarshal(r.Body["subscriptionId"], &sub) // we wrote it
	return View{
		"id": r.ID.String(), "name": r.ID.Name(), "type": typeAlias,
		"properties": map[string]any{"subscriptionId": sub, "provisioningState": Succeeded, "acceptOwnershipState": "Completed"},
	}
}

// alias shows an alias to who may read its subscription.
func (a *API) alias(ctx context.Context, c access.Caller, id resource.ID) (View, error) {
	none := problem.Errorf(problem.NotFound, "The alias '%s' is not found.", id.Name())
	r, err := a.Store.Resource(ctx, c.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", id, err)
	}
	d, err := a.Directory.Authorize(ctx, c, access.Operation{Action: typeSubscription + "/read", Scope: r.BoundTo})
	if err != nil {
		return nil, err
	}
	if !d.Allowed {
		return nil, none
	}
	return aliasView(r), a.read(ctx, a.event(c, typeAlias+"/read", id))
}

// serveSubscriptionAction serves POST /subscriptions/{s}/providers/Microsoft.Subscription/{rename,cancel}.
func (a *API) serveSubscriptionAction(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	id, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	if segs := strings.Split(q.path, "/"); strings.EqualFold(segs[len(segs)-1], "cancel") {
		if _, err := a.Delete(r.Context(), q.c, id, Condition{}); err != nil {
			return err
		}
		return web.WriteJSON(w, http.StatusOK, map[string]string{"subscriptionId": id.Name()})
	}
	var b struct {
		SubscriptionName string `json:"subscriptionName"`
	}
	if err := web.ReadJSON(r, &b); err != nil {
		return err
	}
	if err := a.RenameSubscription(r.Context(), q.c, id, b.SubscriptionName); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, map[string]string{"subscriptionId": id.Name()})
}

// RenameSubscription gives a subscription another display name.
func (a *API) RenameSubscription(ctx context.Context, c access.Caller, id resource.ID, name string) error {
	ev, err := a.permit(ctx, c, actionSubscriptionWrite, id)
	if err != nil {
		return err
	}
	if err := subscriptionName(name); err != nil {
		return a.refuse(ctx, ev, problem.Of(err))
	}
	return a.write(ctx, ev, func(tx Tx) error {
		r, err := tx.Resource(id.Key())
		if problem.Is(err, problem.NotFound) {
			return notFound(id)
		}
		if err != nil {
			return err
		}
		Document(r.Body).set("displayName", name)
		r.Updated, r.UpdatedBy = a.Now(), c.Principal
		return tx.PutResource(r)
	})
}

// empty refuses to delete a subscription that something is in: what is
// deleted with it would be a lot, and nobody named it.
func empty(r Resource, with []Resource) error {
	if r.Type != typeSubscription {
		return nil
	}
	in := slices.DeleteFunc(slices.Clone(with), func(n Resource) bool { return !r.ID.Contains(n.ID) })
	if len(in) > 0 {
		return problem.Errorf(problem.Conflict, "The subscription '%s' has %d resources and groups, %s among them; delete them first.", r.ID.Name(), len(in), in[0].ID)
	}
	return nil
}

// serveLocations serves /subscriptions/{s}/locations: there is one place, where
// this installation is.
func (a *API) serveLocations(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	id, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	if _, err := a.Get(r.Context(), q.c, id); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"value": []View{{
		"id": id.String() + "/locations/local", "name": "local", "type": "Region", "displayName": "Local", "regionalDisplayName": "Local",
		"metadata": map[string]string{"regionType": "Physical", "regionCategory": "Recommended"},
	}}})
}
