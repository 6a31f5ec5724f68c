package arm

import (
	"github.com/innate-id/innate/internal/directory"
)

// identityType is the row of user-assigned identities.
func identityType() *Type {
	t := (&Type{Name: typeIdentity, OwnPrincipal: directory.ManagedIdentity}).
		named(`^[A-Za-z0-9][A-Za-z0-9_-]{2,127}$`, "3 to 128 letters, digits and - _ are allowed, beginning with a letter or digit")
	t.Computed = []string{"tenantId", "principalId", "clientId"}
	// A client that knows nothing of restrictions must not lift them.
	t.Sticky = []string{memberRestrictions, memberIsolation}
	t.Check = checkRestrictions
	t.Changing = restrictionsHold
	t.View = func(r Resource, own directory.Principal, p map[string]any) {
		delete(p, "provisioningState")
		p["tenantId"], p["principalId"], p["clientId"] = r.Tenant, own.ID, own.Client
	}
	t.Reads = map[string]Read{"listassociatedresources": {
		Name: "listAssociatedResources", Post: true, Needs: typeIdentity + "/listAssociatedResources/action", Do: associatedResources,
	}}
	return t
}
