package arm

import (
	"net/http"

	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// operation is one of a provider's operations, as portals list them to those
// who make custom roles.
type operation struct{ name, resource, does, says string }

var identityOperations = []operation{
	{typeIdentity + "/read", "User Assigned Identity", "Get User Assigned Identity", "Reads a user assigned identity"},
	{typeIdentity + "/write", "User Assigned Identity", "Create/Update User Assigned Identity", "Makes or changes a user assigned identity"},
	{typeIdentity + "/delete", "User Assigned Identity", "Delete User Assigned Identity", "Deletes a user assigned identity"},
	{actionAssign, "User Assigned Identity", "Assign User Assigned Identity", "Gives a resource a user assigned identity"},
	{typeIdentity + "/listAssociatedResources/action", "User Assigned Identity", "List Associated Resources", "Lists the resources that have a user assigned identity"},
	{typeIdentity + "/federatedIdentityCredentials/read", "Federated Identity Credential", "Get Federated Identity Credential", "Reads federated identity credentials"},
	{typeIdentity + "/federatedIdentityCredentials/write", "Federated Identity Credential", "Create/Update Federated Identity Credential", "Makes or changes a federated identity credential"},
	{typeIdentity + "/federatedIdentityCredentials/delete", "Federated Identity Credential", "Delete Federated Identity Credential", "Deletes a federated identity credential"},
	{actionReadSystem, "Identity", "Get System Assigned Identity", "Reads the system assigned identity of a resource"},
}

// serveIdentityOperations serves /providers/Microsoft.ManagedIdentity/operations.
// It says nothing of the tenant: whoever has a token may read it.
func (a *API) serveIdentityOperations(w http.ResponseWriter, r *http.Request, q request, _ []string) error {
	ev := a.event(q.c, "Microsoft.ManagedIdentity/operations/read", resource.Root)
	ev.Reason = "everybody's to read"
	if err := a.read(r.Context(), ev); err != nil {
		return err
	}
	out := []any{}
	for _, o := range identityOperations {
		out = append(out, map[string]any{"name": o.name, "display": map[string]string{
			"provider": "Microsoft Managed Identity", "resource": o.resource, "operation": o.does, "description": o.says,
		}})
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{"value": out})
}
