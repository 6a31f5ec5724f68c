package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/resource"
)

// principalHelp is what a command's PRINCIPAL may be.
const principalHelp = `PRINCIPAL is the name or the resource ID of a resource, for its system-assigned identity, or of a user-assigned
identity; the name of a group; or an object id.`

// whom finds out whom a name is of: what has an object id, or the resource whose
// identity is meant. A name that is of several is refused: a role would be given
// to somebody else than was meant.
func (a *acting) whom(ctx context.Context, name string) (object string, id resource.ID, err error) {
	if _, err := uuid.Parse(name); err == nil && len(name) == 36 {
		return strings.ToLower(name), id, nil
	}
	if strings.HasPrefix(name, "/") {
		id, err = a.resource(name)
		return "", id, err
	}
	groups, err := a.groupsNamed(ctx, name)
	if err != nil {
		return "", id, err
	}
	resources, err := a.resourcesNamed(ctx, name)
	if err != nil {
		return "", id, err
	}
	switch {
	case len(groups)+len(resources) > 1:
		var of []string
		for _, g := range groups {
			of = append(of, "the group "+g.Name)
		}
		for _, r := range resources {
			of = append(of, r.String())
		}
		return "", id, fmt.Errorf("%q is the name of %s: give an object id or a resource ID", name, strings.Join(of, " and of "))
	case len(groups) == 1:
		return groups[0].Name, id, nil
	case len(resources) == 1:
		return "", resources[0], nil
	}
	_, err = a.resource(name)
	return "", id, fmt.Errorf("%q is the name of no group, and of no user-assigned identity in the resource group %s: %w", name, a.in.ResourceGroup, err)
}

// resourcesNamed are the sample resource and the user-assigned identity of that
// name. Who may not read the identity finds none.
func (a *acting) resourcesNamed(ctx context.Context, name string) (out []resource.ID, err error) {
	if w, ok := a.in.Resources[name]; ok {
		id, err := resource.Parse(w.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	id, err := a.userAssigned(name)
	if err != nil {
		return out, nil // no name of an identity
	}
	_, err = a.arm(ctx, http.MethodGet, armPath(id), nil, nil)
	if e, ok := errors.AsType[*armError](err); ok && slices.Contains([]string{"ResourceNotFound", "ResourceGroupNotFound", "AuthorizationFailed"}, e.Code) {
		return out, nil
	}
	return append(out, id), err
}

// principal finds an object id.
func (a *acting) principal(ctx context.Context, name string) (string, error) {
	object, id, err := a.whom(ctx, name)
	if err != nil || object != "" {
		return object, err
	}
	return a.identityOf(ctx, id)
}

// identityOf is the object id of the identity that a resource has or is.
func (a *acting) identityOf(ctx context.Context, id resource.ID) (string, error) {
	var r struct {
		Identity   struct{ PrincipalID string }
		Properties struct{ PrincipalID string }
	}
	if _, err := a.arm(ctx, http.MethodGet, armPath(id), nil, &r); err != nil {
		return "", err
	}
	switch {
	case r.Properties.PrincipalID != "":
		return r.Properties.PrincipalID, nil
	case r.Identity.PrincipalID != "":
		return r.Identity.PrincipalID, nil
	}
	return "", fmt.Errorf("%s has no system-assigned identity; give the resource ID of one of its user-assigned ones", id)
}

// groupsNamed finds groups by their names. Who may not read groups finds none.
func (a *acting) groupsNamed(ctx context.Context, name string) ([]groupNode, error) {
	found, err := listWhere[groupNode](ctx, a, resource.Root, groupCollection, "displayName eq "+quoted(name))
	if e, ok := errors.AsType[*armError](err); ok && e.Code == "AuthorizationFailed" {
		return nil, nil
	}
	return found, err
}

// quoted is a text in a filter.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// listWhere is list with a filter.
func listWhere[T any](ctx context.Context, a *acting, under resource.ID, collection, filter string) ([]T, error) {
	first := armPath(under, collection)
	if under.IsRoot() {
		first = "/" + collection + "?api-version=" + apiVersion
	}
	if filter != "" {
		first += "&" + url.Values{"$filter": {filter}}.Encode()
	}
	return pages[T](ctx, a, first)
}
