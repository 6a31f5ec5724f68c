package main

import (
	"context"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/datafactory/armdatafactory/v9"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage"
)

func data(ctx context.Context, m *manager) error {
	id, err := m.identity(ctx, "for-data")
	if err != nil {
		return err
	}
	return errors.Join(factory(ctx, m, id), account(ctx, m, id), keyVault(ctx, m))
}

// factory tells the story of a data factory.
func factory(ctx context.Context, m *manager, id string) error {
	c, err := armdatafactory.NewFactoriesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-factory"
	made, err := c.CreateOrUpdate(ctx, m.group, name, armdatafactory.Factory{
		Location: to.Ptr(location),
		Identity: &armdatafactory.FactoryIdentity{
			Type:                   to.Ptr(armdatafactory.FactoryIdentityTypeSystemAssignedUserAssigned),
			UserAssignedIdentities: map[string]any{id: map[string]any{}},
		},
		Properties:           &armdatafactory.FactoryProperties{PublicNetworkAccess: to.Ptr(armdatafactory.PublicNetworkAccessDisabled)},
		AdditionalProperties: map[string]any{"more": "kept"},
	}, nil)
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	if err := expect("the factory", map[string]bool{
		"its identities are spelt as the SDK has it": says(got.Identity.Type) == string(armdatafactory.FactoryIdentityTypeSystemAssignedUserAssigned),
		"it has a principal":                         says(got.Identity.PrincipalID) != "" && says(got.Identity.PrincipalID) == says(made.Identity.PrincipalID),
		"it has the user-assigned identity":          got.Identity.UserAssignedIdentities[id] != nil,
		"it has a version and when it was made":      says(got.Properties.Version) == "2018-06-01" && got.Properties.CreateTime != nil,
		"it succeeded":                               says(got.Properties.ProvisioningState) == "Succeeded",
		"it has an ETag":                             says(got.ETag) != "",
		"what is not in the schema is kept":          got.AdditionalProperties["more"] == "kept",
	}); err != nil {
		return err
	}
	// A PUT that says nothing of identities is refused while there are any.
	_, err = c.CreateOrUpdate(ctx, m.group, name, armdatafactory.Factory{Location: to.Ptr(location)}, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != "FailedIdentityOperation" {
		return errors.Join(errors.New("a PUT without identities was not refused"), err)
	}
	patched, err := c.Update(ctx, m.group, name, armdatafactory.FactoryUpdateParameters{
		Identity: &armdatafactory.FactoryIdentity{Type: to.Ptr(armdatafactory.FactoryIdentityTypeSystemAssigned)}, Tags: map[string]*string{"a": to.Ptr("b")},
	}, nil)
	if err != nil {
		return err
	}
	list, err := all(ctx, "listing factories", c.NewListByResourceGroupPager(m.group, nil), func(p armdatafactory.FactoriesClientListByResourceGroupResponse) []*armdatafactory.Factory {
		return p.Value
	})
	if err != nil {
		return err
	}
	if err := expect("the factory after a patch", map[string]bool{
		"it has its own identity alone": says(patched.Identity.Type) == "SystemAssigned" && len(patched.Identity.UserAssignedIdentities) == 0,
		"it is the one in the list":     len(list) == 1 && says(list[0].Name) == name,
	}); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, m.group, name, nil); err != nil {
		return err
	}
	_, err = c.Get(ctx, m.group, name, nil)
	return absent("the factory", err)
}

// account tells the story of a storage account.
func account(ctx context.Context, m *manager, id string) error {
	c, err := armstorage.NewAccountsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdkaccount"
	free := func() (bool, error) {
		r, err := c.CheckNameAvailability(ctx, armstorage.AccountCheckNameAvailabilityParameters{Name: to.Ptr(name), Type: to.Ptr("Microsoft.Storage/storageAccounts")}, nil)
		return r.NameAvailable != nil && *r.NameAvailable, err
	}
	before, err := free()
	if err != nil {
		return err
	}
	create, err := c.BeginCreate(ctx, m.group, name, armstorage.AccountCreateParameters{
		Location: to.Ptr(location), Kind: to.Ptr(armstorage.KindStorageV2), SKU: &armstorage.SKU{Name: to.Ptr(armstorage.SKUNameStandardLRS)},
		Identity: &armstorage.Identity{
			Type: to.Ptr(armstorage.IdentityTypeSystemAssignedUserAssigned), UserAssignedIdentities: map[string]*armstorage.UserAssignedIdentity{id: {}},
		},
	}, nil)
	if _, err := done(ctx, "creating a storage account", create, err); err != nil {
		return err
	}
	after, err := free()
	if err != nil {
		return err
	}
	got, err := c.GetProperties(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	domain := strings.TrimPrefix(strings.TrimPrefix(m.opt.Cloud.Services["resourceManager"].Endpoint, "https://"), "management.")
	if err := expect("the storage account", map[string]bool{
		"its name was free and is not now":           before && !after,
		"its identities are spelt as the SDK has it": says(got.Identity.Type) == string(armstorage.IdentityTypeSystemAssignedUserAssigned),
		"it has the user-assigned identity":          got.Identity.UserAssignedIdentities[id] != nil,
		"its endpoints are of this installation":     says(got.Properties.PrimaryEndpoints.Blob) == "https://"+name+".blob."+domain+"/",
		"its kind is kept":                           says(got.Kind) == string(armstorage.KindStorageV2),
	}); err != nil {
		return err
	}
	patched, err := c.Update(ctx, m.group, name, armstorage.AccountUpdateParameters{Identity: &armstorage.Identity{Type: to.Ptr(armstorage.IdentityTypeNone)}}, nil)
	if err != nil {
		return err
	}
	if err := expect("the storage account after None", map[string]bool{"it has no identity": patched.Identity == nil}); err != nil {
		return err
	}
	_, err = c.Delete(ctx, m.group, name, nil)
	return err
}

// keyVault tells the story of a vault, which has no identity.
func keyVault(ctx context.Context, m *manager) error {
	c, err := armkeyvault.NewVaultsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-vault"
	demo, err := c.Get(ctx, m.group, "demo", nil)
	if err != nil {
		return err
	}
	create, err := c.BeginCreateOrUpdate(ctx, m.group, name, armkeyvault.VaultCreateOrUpdateParameters{
		Location: to.Ptr(location), Properties: &armkeyvault.VaultProperties{
			TenantID: demo.Properties.TenantID, SKU: &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNameStandard)},
			EnableRbacAuthorization: to.Ptr(true),
		},
	}, nil)
	made, err := done(ctx, "creating a vault", create, err)
	if err != nil {
		return err
	}
	check, err := c.CheckNameAvailability(ctx, armkeyvault.VaultCheckNameAvailabilityParameters{Name: to.Ptr(name), Type: to.Ptr("Microsoft.KeyVault/vaults")}, nil)
	if err != nil {
		return err
	}
	patched, err := c.Update(ctx, m.group, name, armkeyvault.VaultPatchParameters{Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	if err != nil {
		return err
	}
	list, err := all(ctx, "listing vaults", c.NewListByResourceGroupPager(m.group, nil), func(p armkeyvault.VaultsClientListByResourceGroupResponse) []*armkeyvault.Vault { return p.Value })
	if err != nil {
		return err
	}
	if err := expect("the vault", map[string]bool{
		"it has a URI":           strings.HasPrefix(says(made.Properties.VaultURI), "https://"+name+".vault."),
		"its name is in use now": check.NameAvailable != nil && !*check.NameAvailable && says(check.Reason) == string(armkeyvault.ReasonAlreadyExists),
		"its tags are":           says(patched.Tags["a"]) == "b",
		"it is in the list":      len(list) == 2,
	}); err != nil {
		return err
	}
	_, err = c.Delete(ctx, m.group, name, nil)
	return err
}
