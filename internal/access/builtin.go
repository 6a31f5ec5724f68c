package access

import (
	"slices"
	"strings"
	"sync"
)

// The built-in roles have the GUIDs, names and permissions that Azure
// publishes, so that role assignments written for Azure mean the same here.

// BuiltIn returns the built-in role with this GUID, compared without case. Its
// lists are shared: do not change them.
func BuiltIn(id string) (Role, bool) {
	r, ok := byID()[lower(id)]
	return r, ok
}

// byID is made once: every decision asks it.
var byID = sync.OnceValue(func() map[string]Role {
	m := map[string]Role{}
	for _, r := range builtIns() {
		m[r.ID] = r
	}
	return m
})

// BuiltIns returns all built-in roles by name. The caller owns what it gets.
func BuiltIns() []Role {
	all := builtIns()
	slices.SortFunc(all, func(a, b Role) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// role makes a role with one permission block.
func role(id, name, description string, actions, notActions, dataActions []string) Role {
	return Role{ID: id, Name: name, Description: description, Permissions: []Permission{{
		// Empty, not nil: the published JSON has [] for a list with nothing in it.
		Actions:        append([]string{}, actions...),
		NotActions:     append([]string{}, notActions...),
		DataActions:    append([]string{}, dataActions...),
		NotDataActions: []string{},
	}}}
}

// under puts prefix before each name.
func under(prefix string, names ...string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// commonReads is what most specific roles have besides their own subject.
func commonReads() []string {
	return []string{
		"Microsoft.Authorization/*/read",
		"Microsoft.Insights/alertRules/*",
		"Microsoft.Resources/deployments/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read",
		"Microsoft.Support/*",
	}
}

// vaultReads is what the roles for a vault's data have on the management side.
func vaultReads() []string {
	return append(commonReads(), under("Microsoft.KeyVault/",
		"checkNameAvailability/read", "deletedVaults/read", "locations/*/read", "vaults/*/read", "operations/read")...)
}

func builtIns() []Role {
	return slices.Concat(generalRoles(), identityRoles(), vaultRoles(), delegateRoles(), keyRoles(), certificateRoles())
}

func generalRoles() []Role {
	return []Role{
		role("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Owner",
			"Grants full access to manage all resources, including the ability to assign roles.",
			[]string{"*"}, nil, nil),
		role("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor",
			"Grants full access to manage all resources, but does not allow you to assign roles.",
			[]string{"*"}, []string{
				"Microsoft.Authorization/*/Delete",
				"Microsoft.Authorization/*/Write",
				"Microsoft.Authorization/elevateAccess/Action",
				"Microsoft.Blueprint/blueprintAssignments/write",
				"Microsoft.Blueprint/blueprintAssignments/delete",
				"Microsoft.Compute/galleries/share/action",
				"Microsoft.Purview/consents/write",
				"Microsoft.Purview/consents/delete",
				"Microsoft.Resources/deploymentStacks/manageDenySetting/action",
				"Microsoft.Subscription/cancel/action",
				"Microsoft.Subscription/enable/action",
			}, nil),
		role("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader",
			"View all resources, but does not allow you to make any changes.",
			[]string{"*/read"}, nil, nil),
		role("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "User Access Administrator",
			"Lets you manage user access to resources.",
			[]string{"*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"}, nil, nil),
		role("f58310d9-a9f6-439a-9e8d-f62e7b41a168", "Role Based Access Control Administrator",
			"Manage access to resources by assigning roles, and in no other way.",
			[]string{
				"Microsoft.Authorization/roleAssignments/write",
				"Microsoft.Authorization/roleAssignments/delete",
				"*/read",
				"Microsoft.Support/*",
			}, nil, nil),
	}
}

func identityRoles() []Role {
	const uami = "Microsoft.ManagedIdentity/userAssignedIdentities/"
	return []Role{
		role("e40ec5ca-96e0-45a2-b4ff-59039f2c2b59", "Managed Identity Contributor",
			"Create, read, update and delete user-assigned identities.",
			slices.Concat(under(uami, "read", "write", "delete",
				"federatedIdentityCredentials/read", "federatedIdentityCredentials/write", "federatedIdentityCredentials/delete",
				"revokeTokens/action"), commonReads()), nil, nil),
		role("f1a07417-d97a-45cb-824c-7a7467783830", "Managed Identity Operator",
			"Read and assign user-assigned identities.",
			slices.Concat(under(uami, "*/read", "*/assign/action"), commonReads()), nil, nil),
	}
}

func vaultRoles() []Role {
	const vaults = "Microsoft.KeyVault/vaults/"
	return []Role{
		role("00482a5a-887f-4fb3-b363-3b7fe8e74483", "Key Vault Administrator",
			"Perform all data plane operations on a key vault and all objects in it: certificates, keys and secrets. Cannot manage vaults or role assignments.",
			vaultReads(), nil, under(vaults, "*")),
		role("21090545-7ca7-4776-b22c-e363652d74d2", "Key Vault Reader",
			"Read metadata of key vaults and of their certificates, keys and secrets. Cannot read secret values or key material.",
			vaultReads(), nil, under(vaults, "*/read", "secrets/readMetadata/action")),
		role("f25e0fa2-a7c8-4377-a976-54943a77a395", "Key Vault Contributor",
			"Lets you manage key vaults, but not access to them.",
			append(commonReads(), "Microsoft.KeyVault/*"),
			under("Microsoft.KeyVault/", "locations/deletedVaults/purge/action", "hsmPools/*", "managedHsms/*"), nil),
		role("b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "Key Vault Secrets Officer",
			"Perform any action on the secrets of a key vault, except manage permissions.",
			vaultReads(), nil, under(vaults, "secrets/*")),
		role("4633458b-17de-408a-b874-0445c86b69e6", "Key Vault Secrets User",
			"Read secret contents.",
			nil, nil, under(vaults, "secrets/getSecret/action", "secrets/readMetadata/action")),
	}
}

func keyRoles() []Role {
	const vaults, keys = "Microsoft.KeyVault/vaults/", "Microsoft.KeyVault/vaults/keys/"
	return []Role{
		role("14b46e9e-c2b7-41b4-b07b-48a6ebf60603", "Key Vault Crypto Officer",
			"Perform any action on the keys of a key vault, except manage permissions.",
			vaultReads(), nil, under(vaults, "keys/*", "keyrotationpolicies/*")),
		role("12338af0-0e69-4776-bea7-57ae8d297424", "Key Vault Crypto User",
			"Perform cryptographic operations using keys.",
			nil, nil, under(keys, "read", "update/action", "backup/action", "encrypt/action", "decrypt/action",
				"wrap/action", "unwrap/action", "sign/action", "verify/action")),
		role("e147488a-f6f5-4113-8e2d-b22465e65bf6", "Key Vault Crypto Service Encryption User",
			"Read metadata of keys and perform wrap and unwrap operations.",
			under("Microsoft.EventGrid/eventSubscriptions/", "write", "read", "delete"), nil,
			under(keys, "read", "wrap/action", "unwrap/action")),
		role("08bbd89e-9f13-488c-ac41-acfcb10c90ab", "Key Vault Crypto Service Release User",
			"Release keys.",
			nil, nil, under(keys, "release/action")),
	}
}

func certificateRoles() []Role {
	const vaults = "Microsoft.KeyVault/vaults/"
	return []Role{
		role("a4417e6f-fecd-4de8-b567-7b0420556985", "Key Vault Certificates Officer",
			"Perform any action on the certificates of a key vault, except manage permissions.",
			vaultReads(), nil, under(vaults, "certificatecas/*", "certificates/*", "certificatecontacts/write")),
		role("db79e9a7-68ee-4b58-9aeb-b90e7c24fcba", "Key Vault Certificate User",
			"Read certificate contents.",
			nil, nil, under(vaults, "certificates/read", "secrets/getSecret/action", "secrets/readMetadata/action", "keys/read")),
	}
}

// delegateRoles give roles, and only those that their conditions name.
func delegateRoles() []Role {
	r := role("8b54135c-b56d-4d72-a534-26097cfdc8d8", "Key Vault Data Access Administrator",
		"Manage access to key vaults by adding or removing role assignments of the roles for their data, and of no other role.",
		[]string{
			"Microsoft.Authorization/roleAssignments/write",
			"Microsoft.Authorization/roleAssignments/delete",
			"Microsoft.Authorization/*/read",
			"Microsoft.Resources/deployments/*",
			"Microsoft.Resources/subscriptions/resourceGroups/read",
			"Microsoft.Resources/subscriptions/read",
			"Microsoft.Management/managementGroups/read",
			"Microsoft.Support/*",
			"Microsoft.KeyVault/vaults/*/read",
		}, nil, nil)
	const roles = "{00482a5a-887f-4fb3-b363-3b7fe8e74483, a4417e6f-fecd-4de8-b567-7b0420556985, 14b46e9e-c2b7-41b4-b07b-48a6ebf60603, e147488a-f6f5-4113-8e2d-b22465e65bf6, " +
		"12338af0-0e69-4776-bea7-57ae8d297424, 21090545-7ca7-4776-b22c-e363652d74d2, b86a8fe4-44ce-4948-aee5-eccb2c155cd7, 4633458b-17de-408a-b874-0445c86b69e6}"
	r.Permissions[0].ConditionVersion = "2.0"
	r.Permissions[0].Condition = "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR " +
		"(@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals" + roles + ")) AND " +
		"((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR " +
		"(@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals" + roles + "))"
	return []Role{r}
}
