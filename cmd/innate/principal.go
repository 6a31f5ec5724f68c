package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/resource"
)

// principalHelp is what a command's PRINCIPAL may be.
const principalHelp = `PRINCIPAL is the name or the resource ID of a resource, for its system-assigned identity; the resource ID of a
user-assigned identity; the name of a group; or an object id.`

// principal finds an object id.
func (a *acting) principal(ctx context.Context, name string) (string, error) {
	if _, err := uuid.Parse(name); err == nil && len(name) == 36 {
		return strings.ToLower(name), nil
	}
	if !strings.HasPrefix(name, "/") {
		switch found, err := a.groupsNamed(ctx, name); {
		case err != nil:
			return "", err
		case len(found) == 1:
			return found[0].Name, nil
		case len(found) > 1:
			return "", fmt.Errorf("%d groups are named %q: give the object id of one (innate group list)", len(found), name)
		}
	}
	id, err := a.resource(name)
	if err != nil {
		return "", fmt.Errorf("%q is the name of no group, and of no resource: %w", name, err)
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
