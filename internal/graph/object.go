package graph

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

// object is an object of the directory as clients read it.
type object map[string]any

// The types of objects.
const (
	typeServicePrincipal = "servicePrincipal"
	typeGroup            = "group"
)

func typeOf(p directory.Principal) string {
	if p.Kind == directory.Group {
		return typeGroup
	}
	return typeServicePrincipal
}

// typed marks an object in a list of several types.
func typed(typ string, o object) object {
	out := object{"@odata.type": "#microsoft.graph." + typ}
	for k, v := range o {
		out[k] = v
	}
	return out
}

// names are the members that say who somebody is, and nothing of what and where.
var names = []string{"id", "displayName", "appId", "servicePrincipalType", "securityEnabled", "mailEnabled"}

// named leaves of an object who it is.
func named(o object) object {
	out := object{}
	for k, v := range o {
		if !slices.Contains(names, k) {
			v = nil
		}
		out[k] = v
	}
	return out
}

func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

// servicePrincipal is a principal that is no group. An identity has no
// application object, and nothing of it is anybody's to change here: it is born
// and dies with its resource.
func servicePrincipal(p directory.Principal) object {
	none := []any{}
	alternative, owner := []any{}, any(p.Tenant)
	names := []any{p.Client}
	if p.Kind == directory.ManagedIdentity {
		explicit := "isExplicit=True"
		if p.System {
			explicit = "isExplicit=False"
		}
		alternative, owner = []any{explicit, p.Resource.String()}, nil
		sum := sha256.Sum256([]byte(p.Tenant + "/" + p.ID))
		names = append(names, "https://identity.azure.net/"+base64.StdEncoding.EncodeToString(sum[:]))
	}
	return object{
		"id": p.ID, "appId": p.Client, "displayName": p.Name, "appDisplayName": nil, "description": nil, "appDescription": nil,
		"servicePrincipalType": string(p.Kind), "accountEnabled": p.Enabled, "createdDateTime": stamp(p.Created), "deletedDateTime": nil,
		"alternativeNames": alternative, "servicePrincipalNames": names, "appOwnerOrganizationId": owner, "appRoleAssignmentRequired": false,
		"applicationTemplateId": nil, "disabledByMicrosoftStatus": nil, "homepage": nil, "loginUrl": nil, "logoutUrl": nil, "notes": nil,
		"notificationEmailAddresses": none, "preferredSingleSignOnMode": nil, "preferredTokenSigningKeyThumbprint": nil, "replyUrls": none,
		"samlSingleSignOnSettings": nil, "signInAudience": nil, "tags": none, "tokenEncryptionKeyId": nil, "info": nil,
		"keyCredentials": none, "passwordCredentials": none, "appRoles": none, "oauth2PermissionScopes": none,
		"resourceSpecificApplicationPermissions": none, "verifiedPublisher": map[string]any{"displayName": nil, "verifiedPublisherId": nil, "addedDateTime": nil},
	}
}

// group is a security group: there are no others.
func group(g arm.Group) object {
	var description any
	if g.Description != "" {
		description = g.Description
	}
	none := []any{}
	return object{
		"id": g.ID, "displayName": g.Name, "description": description, "createdDateTime": stamp(g.Created), "deletedDateTime": nil,
		"securityEnabled": true, "mailEnabled": false, "mail": nil, "mailNickname": nil, "groupTypes": none, "visibility": nil,
		"isAssignableToRole": nil, "membershipRule": nil, "membershipRuleProcessingState": nil, "classification": nil,
		"onPremisesSyncEnabled": nil, "proxyAddresses": none, "renewedDateTime": stamp(g.Created), "expirationDateTime": nil,
		"resourceProvisioningOptions": none, "creationOptions": none, "theme": nil, "preferredLanguage": nil, "preferredDataLocation": nil,
	}
}
