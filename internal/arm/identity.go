package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// identityBlock is the member "identity" of a resource as a client writes it.
type identityBlock struct {
	Type *string                    `json:"type"`
	User map[string]json.RawMessage `json:"userAssignedIdentities"`
}

// identityPlan is what a block asks for, before it is held against what is.
type identityPlan struct {
	// absent: the document has no block; identities stay as they are.
	absent bool
	// typed: the block has a type, and system and user are what it says.
	typed, system, user bool
	// attach and detach are user-assigned identities by key; ids has their
	// spelling.
	attach, detach map[string]resource.ID
	// replace: identities that are not listed go (PUT).
	replace bool
}

// planIdentity reads a block. patch says that the request is a PATCH, where the
// map is merged and null detaches.
func (t *Type) planIdentity(raw json.RawMessage, present, patch bool) (identityPlan, error) {
	p := identityPlan{attach: map[string]resource.ID{}, detach: map[string]resource.ID{}, replace: !patch}
	if !present || isNull(raw) {
		p.absent = true
		return p, nil
	}
	var b identityBlock
	if err := json.Unmarshal(raw, &b); err != nil {
		return p, problem.Errorf(problem.Invalid, "The member 'identity' must be an object with 'type' and 'userAssignedIdentities'.")
	}
	if b.Type != nil {
		if err := t.readType(*b.Type, &p); err != nil {
			return p, err
		}
	} else if !patch {
		return p, problem.Errorf(problem.BadIdentity, "The member 'identity.type' is missing; expected %s.", t.identityWords())
	}
	for text, v := range b.User {
		id, err := resource.Parse(text)
		if err != nil || !strings.EqualFold(id.Type(), typeIdentity) {
			return p, problem.Errorf(problem.BadIdentity, "The identity '%s' is not the resource ID of a user-assigned identity (.../providers/%s/{name}).", problem.Clip(text), typeIdentity)
		}
		if p.attach[id.Key()].Equal(id) || p.detach[id.Key()].Equal(id) {
			return p, problem.Errorf(problem.BadIdentity, "The identity '%s' is listed more than once.", id)
		}
		switch {
		case isNull(v):
			p.detach[id.Key()] = id
		case object(v) != nil:
			p.attach[id.Key()] = id
		default:
			return p, problem.Errorf(problem.BadIdentity, "The identity '%s' has a value that is not {}, or null to detach it.", id)
		}
	}
	if len(p.attach) > 0 && (!t.User || p.typed && !p.user) {
		return p, problem.Errorf(problem.BadIdentity, "The member 'identity.userAssignedIdentities' needs a type that includes UserAssigned; expected %s.", t.identityWords())
	}
	return p, nil
}

// readType reads identity.type, with or without a space after the comma.
func (t *Type) readType(s string, p *identityPlan) error {
	p.typed = true
	words := strings.Split(s, ",")
	for _, w := range words {
		switch strings.ToLower(strings.TrimSpace(w)) {
		case "systemassigned":
			p.system = true
		case "userassigned":
			p.user = true
		case "none":
			if len(words) == 1 {
				continue
			}
			fallthrough
		default:
			return problem.Errorf(problem.BadIdentity, "The identity type '%s' is not valid; expected %s.", problem.Clip(s), t.identityWords())
		}
	}
	if p.system && !t.System || p.user && !t.User {
		return problem.Errorf(problem.BadIdentity, "The identity type '%s' is not possible for %s; expected %s.", problem.Clip(s), t.Name, t.identityWords())
	}
	return nil
}

// identityWords lists the values of identity.type that the type takes.
func (t *Type) identityWords() string {
	out := []string{"None"}
	if t.System {
		out = append(out, "SystemAssigned")
	}
	if t.User {
		out = append(out, "UserAssigned")
	}
	if t.System && t.User {
		out = append(out, "\"SystemAssigned"+t.Separator+"UserAssigned\"")
	}
	return strings.Join(out, ", ")
}

const actionAssign = typeIdentity + "/assign/action"

// mayAttach checks the caller's right to each identity that the plan newly
// attaches, and returns the keys that it checked. One that is attached now is
// not among them: it may be detached before the write, which must not attach it
// again for a caller who has no right to it.
func (a *API) mayAttach(ctx context.Context, c access.Caller, r resource.ID, p identityPlan) (map[string]bool, error) {
	checked := map[string]bool{}
	if len(p.attach) == 0 {
		return checked, nil
	}
	have, err := a.Store.Identities(ctx, c.Tenant, r.Key())
	if err != nil {
		return nil, fmt.Errorf("reading the identities of %s: %w", r, err)
	}
	attached := map[string]bool{}
	for _, h := range have {
		attached[h.Resource.Key()] = true
	}
	for key, id := range p.attach {
		if attached[key] {
			continue
		}
		d, err := a.Directory.Authorize(ctx, c, access.Operation{Action: actionAssign, Scope: id})
		if err != nil {
			return nil, err
		}
		if !d.Allowed {
			return nil, a.deny(ctx, a.event(c, actionAssign, id), problem.Errorf(problem.LinkedDenied,
				"The client '%s' with object id '%s' has permission to perform the write on '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s'.",
				c.Client, c.Principal, r, actionAssign, id), d)
		}
		checked[key] = true
	}
	return checked, nil
}

// applyIdentity makes the resource's identities what the plan says, within the
// write. checked are the identities that the caller may attach.
func (a *API) applyIdentity(tx Tx, r Resource, p identityPlan, checked map[string]bool) error {
	if p.absent {
		return nil
	}
	have, err := tx.Identities(r.ID.Key())
	if err != nil {
		return err
	}
	attached := map[string]resource.ID{}
	var system *directory.Principal
	for _, h := range have {
		if h.System {
			system = &h
			continue
		}
		attached[h.Resource.Key()] = h.Resource
	}
	for key := range attached {
		_, listed := p.attach[key]
		_, null := p.detach[key]
		if null || p.typed && !p.user || p.replace && !listed {
			if err := tx.Detach(r.ID.Key(), key); err != nil {
				return err
			}
			delete(attached, key)
		}
	}
	if err := a.attach(tx, r, p, attached, checked); err != nil {
		return err
	}
	if p.typed && p.user && len(attached) == 0 {
		return problem.Errorf(problem.BadIdentity, "The identity type includes UserAssigned, but 'identity.userAssignedIdentities' names none.")
	}
	switch {
	case p.typed && p.system && system == nil:
		return tx.PutPrincipal(directory.NewPrincipal(r.Tenant, directory.ManagedIdentity, r.ID, true, a.Now()))
	case p.typed && !p.system && system != nil:
		return tx.DeletePrincipal(system.ID)
	}
	return nil
}

func (a *API) attach(tx Tx, r Resource, p identityPlan, attached map[string]resource.ID, checked map[string]bool) error {
	for key, id := range p.attach {
		if _, ok := attached[key]; ok {
			continue
		}
		if _, err := tx.Resource(key); problem.Is(err, problem.NotFound) {
			return problem.Errorf(problem.BadIdentity, "The identity '%s' does not exist; create it first.", id)
		} else if err != nil {
			return err
		}
		if !checked[key] {
			return problem.Errorf(problem.Conflict, "The identities of %s were changed at the same time; read it again and retry.", r.ID)
		}
		if err := tx.Attach(r.ID.Key(), key); err != nil {
			return err
		}
		attached[key] = id
	}
	return nil
}

// identityView is the member "identity" as clients read it; nil for none.
func (t *Type) identityView(have []directory.Principal) map[string]any {
	if len(have) == 0 {
		return nil
	}
	out := map[string]any{}
	user := map[string]any{}
	var words []string
	for _, p := range have {
		if p.System {
			out["principalId"], out["tenantId"] = p.ID, p.Tenant
			words = append(words, "SystemAssigned")
			continue
		}
		user[p.Resource.String()] = map[string]any{"principalId": p.ID, "clientId": p.Client}
	}
	if len(user) > 0 {
		words = append(words, "UserAssigned")
		out["userAssignedIdentities"] = user
	}
	out["type"] = strings.Join(words, t.Separator)
	return out
}
