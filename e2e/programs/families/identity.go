package main

import (
	"context"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
	"github.com/google/uuid"
)

func identities(ctx context.Context, m *manager) error {
	return errors.Join(userAssigned(ctx, m), systemAssigned(ctx, m), roles(ctx, m), resources(ctx, m))
}

// userAssigned tells the story of a user-assigned identity.
func userAssigned(ctx context.Context, m *manager) error {
	c, err := armmsi.NewUserAssignedIdentitiesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-identity"
	made, err := c.CreateOrUpdate(ctx, m.group, name, armmsi.Identity{
		Location: to.Ptr(location), Tags: map[string]*string{"a": to.Ptr("b")},
		Properties: &armmsi.UserAssignedIdentityProperties{IsolationScope: to.Ptr(armmsi.IsolationScopeRegional)},
	}, nil)
	if err != nil {
		return err
	}
	patched, err := c.Update(ctx, m.group, name, armmsi.IdentityUpdate{Tags: map[string]*string{"c": to.Ptr("d")}}, nil)
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	near, err := all(ctx, "listing identities", c.NewListByResourceGroupPager(m.group, nil), func(p armmsi.UserAssignedIdentitiesClientListByResourceGroupResponse) []*armmsi.Identity {
		return p.Value
	})
	if err != nil {
		return err
	}
	far, err := all(ctx, "listing all identities", c.NewListBySubscriptionPager(nil), func(p armmsi.UserAssignedIdentitiesClientListBySubscriptionResponse) []*armmsi.Identity {
		return p.Value
	})
	if err != nil {
		return err
	}
	listed := func(l []*armmsi.Identity) bool {
		for _, i := range l {
			if says(i.ID) == says(made.ID) && says(i.Properties.PrincipalID) == says(made.Properties.PrincipalID) {
				return true
			}
		}
		return false
	}
	if err := expect("the identity", map[string]bool{
		"it has a principal, which stays": says(got.Properties.PrincipalID) != "" && says(got.Properties.PrincipalID) == says(made.Properties.PrincipalID),
		"it has a client id and a tenant": says(got.Properties.ClientID) != "" && says(got.Properties.TenantID) != "",
		"its tags are the patch's":        says(patched.Tags["c"]) == "d" && patched.Tags["a"] == nil,
		"its isolation scope is kept":     says(got.Properties.IsolationScope) == string(armmsi.IsolationScopeRegional),
		"it is in both lists":             listed(near) && listed(far),
	}); err != nil {
		return err
	}
	ops, err := armmsi.NewOperationsClient(m.cred, m.opt)
	if err != nil {
		return err
	}
	names, err := all(ctx, "listing operations", ops.NewListPager(nil), func(p armmsi.OperationsClientListResponse) []*armmsi.Operation { return p.Value })
	if err != nil {
		return err
	}
	if err := expect("the operations", map[string]bool{"they have names and say what they are": len(names) > 3 && says(names[0].Name) != "" && says(names[0].Display.Operation) != ""}); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, m.group, name, nil); err != nil {
		return err
	}
	_, err = c.Get(ctx, m.group, name, nil)
	return absent("the identity", err)
}

// systemAssigned reads the identity of the sample's machine.
func systemAssigned(ctx context.Context, m *manager) error {
	c, err := armmsi.NewSystemAssignedIdentitiesClient(m.cred, m.opt)
	if err != nil {
		return err
	}
	got, err := c.GetByScope(ctx, "subscriptions/"+m.subscription+"/resourceGroups/"+m.group+"/providers/Microsoft.Compute/virtualMachines/vm1", nil)
	if err != nil {
		return err
	}
	return expect("the machine's own identity", map[string]bool{
		"it has a location": says(got.Location) == location,
		"it has its ids":    says(got.Properties.PrincipalID) != "" && says(got.Properties.ClientID) != "" && says(got.Properties.TenantID) != "",
		"it has a URL":      strings.HasPrefix(says(got.Properties.ClientSecretURL), "https://"),
	})
}

// roles gives an identity a role and takes it away.
func roles(ctx context.Context, m *manager) error {
	defs, err := armauthorization.NewRoleDefinitionsClient(m.cred, m.opt)
	if err != nil {
		return err
	}
	assignments, err := armauthorization.NewRoleAssignmentsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	ids, err := armmsi.NewUserAssignedIdentitiesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	who, err := ids.CreateOrUpdate(ctx, m.group, "sdk-reader", armmsi.Identity{Location: to.Ptr(location)}, nil)
	if err != nil {
		return err
	}
	scope := "/subscriptions/" + m.subscription + "/resourceGroups/" + m.group
	found, err := all(ctx, "finding a role", defs.NewListPager(scope, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq 'Reader'")}),
		func(p armauthorization.RoleDefinitionsClientListResponse) []*armauthorization.RoleDefinition {
			return p.Value
		})
	if err != nil {
		return err
	}
	if err := expect("the roles called Reader", map[string]bool{"there is one, which is built in": len(found) == 1 && says(found[0].Properties.RoleType) == "BuiltInRole"}); err != nil {
		return err
	}
	name := uuid.NewString()
	made, err := assignments.Create(ctx, scope, name, armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
		RoleDefinitionID: found[0].ID, PrincipalID: who.Properties.PrincipalID, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
	}}, nil)
	if err != nil {
		return err
	}
	got, err := assignments.Get(ctx, scope, name, nil)
	if err != nil {
		return err
	}
	list, err := all(ctx, "listing assignments", assignments.NewListForScopePager(scope, &armauthorization.RoleAssignmentsClientListForScopeOptions{Filter: to.Ptr("principalId eq '" + *who.Properties.PrincipalID + "'")}),
		func(p armauthorization.RoleAssignmentsClientListForScopeResponse) []*armauthorization.RoleAssignment {
			return p.Value
		})
	if err != nil {
		return err
	}
	if err := expect("the role assignment", map[string]bool{
		"it is at the scope":     strings.EqualFold(says(got.Properties.Scope), scope),
		"it is of the principal": says(got.Properties.PrincipalID) == *who.Properties.PrincipalID,
		"it is the one listed":   len(list) == 1 && says(list[0].ID) == says(made.ID),
	}); err != nil {
		return err
	}
	if _, err := assignments.DeleteByID(ctx, *made.ID, nil); err != nil {
		return err
	}
	_, err = ids.Delete(ctx, m.group, "sdk-reader", nil)
	return err
}

// resources tells the story of a resource group and of a resource of a type that
// the program knows by name alone.
func resources(ctx context.Context, m *manager) error {
	groups, err := armresources.NewResourceGroupsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	c, err := armresources.NewClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name, version = "sdk-group", "2024-01-01"
	made, err := groups.CreateOrUpdate(ctx, name, armresources.ResourceGroup{Location: to.Ptr(location)}, nil)
	if err != nil {
		return err
	}
	there, err := groups.CheckExistence(ctx, name, nil)
	if err != nil {
		return err
	}
	id := *made.ID + "/providers/Innate.Build/agentPools/sdk-pool"
	create, err := c.BeginCreateOrUpdateByID(ctx, id, version, armresources.GenericResource{
		Location: to.Ptr(location), Kind: to.Ptr("k"), ManagedBy: to.Ptr("m"), SKU: &armresources.SKU{Name: to.Ptr("s"), Capacity: to.Ptr[int32](3)},
		Identity:   &armresources.Identity{Type: to.Ptr(armresources.ResourceIdentityTypeSystemAssigned)},
		Properties: map[string]any{"deep": map[string]any{"list": []any{"x", nil}}},
	}, nil)
	pool, err := done(ctx, "creating a resource by its ID", create, err)
	if err != nil {
		return err
	}
	deep, _ := pool.Properties.(map[string]any)["deep"].(map[string]any)
	list, err := all(ctx, "listing resources", c.NewListByResourceGroupPager(name, &armresources.ClientListByResourceGroupOptions{Filter: to.Ptr("resourceType eq 'Innate.Build/agentPools'")}),
		func(p armresources.ClientListByResourceGroupResponse) []*armresources.GenericResourceExpanded {
			return p.Value
		})
	if err != nil {
		return err
	}
	patch, err := c.BeginUpdateByID(ctx, id, version, armresources.GenericResource{Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	patched, err := done(ctx, "patching a resource", patch, err)
	if err != nil {
		return err
	}
	if err := expect("the resource", map[string]bool{
		"its group is there":    there.Success,
		"it has a principal":    says(pool.Identity.PrincipalID) != "" && says(patched.Identity.PrincipalID) == says(pool.Identity.PrincipalID),
		"what it is is kept":    says(pool.Kind) == "k" && says(pool.ManagedBy) == "m" && *pool.SKU.Capacity == 3,
		"its properties are":    len(deep["list"].([]any)) == 2,
		"it is the one listed":  len(list) == 1 && says(list[0].ID) == id,
		"its tags are patched":  says(patched.Tags["a"]) == "b",
		"its type is spelt out": says(pool.Type) == "Innate.Build/agentPools",
	}); err != nil {
		return err
	}
	del, err := groups.BeginDelete(ctx, name, nil)
	if _, err := done(ctx, "deleting a group", del, err); err != nil {
		return err
	}
	if there, err = groups.CheckExistence(ctx, name, nil); err != nil {
		return err
	}
	_, err = c.GetByID(ctx, id, version, nil)
	return errors.Join(expect("the group", map[string]bool{"it is gone": !there.Success}), gone(err))
}

// gone checks that a resource is not there, nor the group that it was in.
func gone(err error) error {
	if err != nil && strings.Contains(err.Error(), "ResourceGroupNotFound") {
		return nil
	}
	return absent("the resource", err)
}
