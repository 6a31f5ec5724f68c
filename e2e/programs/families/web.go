package main

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appservice/armappservice/v4"
)

// web tells the story of a web app, a function app and a slot.
func web(ctx context.Context, m *manager) error {
	id, err := m.identity(ctx, "for-web")
	if err != nil {
		return err
	}
	c, err := armappservice.NewWebAppsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	for name, kind := range map[string]string{"sdk-site": "app", "sdk-function": "functionapp,linux"} {
		if err := site(ctx, m, c, name, kind, id); err != nil {
			return err
		}
	}
	list, err := all(ctx, "listing apps", c.NewListByResourceGroupPager(m.group, nil), func(p armappservice.WebAppsClientListByResourceGroupResponse) []*armappservice.Site { return p.Value })
	if err != nil {
		return err
	}
	kinds := map[string]string{}
	for _, s := range list {
		kinds[says(s.Name)] = says(s.Kind)
	}
	if err := expect("the list", map[string]bool{"both apps are in it": kinds["sdk-site"] == "app" && kinds["sdk-function"] == "functionapp,linux"}); err != nil {
		return err
	}
	if err := slot(ctx, m, c, "sdk-site"); err != nil {
		return err
	}
	for _, name := range []string{"sdk-site", "sdk-function"} {
		if _, err := c.Delete(ctx, m.group, name, nil); err != nil {
			return err
		}
		_, err := c.Get(ctx, m.group, name, nil)
		if err := absent("the app "+name, err); err != nil {
			return err
		}
	}
	return nil
}

func site(ctx context.Context, m *manager, c *armappservice.WebAppsClient, name, kind, id string) error {
	create, err := c.BeginCreateOrUpdate(ctx, m.group, name, armappservice.Site{
		Location: to.Ptr(location), Kind: to.Ptr(kind),
		Identity: &armappservice.ManagedServiceIdentity{
			Type:                   to.Ptr(armappservice.ManagedServiceIdentityTypeSystemAssignedUserAssigned),
			UserAssignedIdentities: map[string]*armappservice.UserAssignedIdentity{id: {}},
		},
		Properties: &armappservice.SiteProperties{HTTPSOnly: to.Ptr(true), SiteConfig: &armappservice.SiteConfig{
			AppSettings: []*armappservice.NameValuePair{{Name: to.Ptr("A"), Value: to.Ptr("hunter2")}},
		}},
	}, nil)
	made, err := done(ctx, "creating the app "+name, create, err)
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	if err := expect("the app "+name, map[string]bool{
		"its kind is kept":                           says(got.Kind) == kind,
		"its identities are spelt as the SDK has it": says(got.Identity.Type) == string(armappservice.ManagedServiceIdentityTypeSystemAssignedUserAssigned),
		"it has a principal":                         says(got.Identity.PrincipalID) != "" && says(got.Identity.PrincipalID) == says(made.Identity.PrincipalID),
		"it has the user-assigned identity":          got.Identity.UserAssignedIdentities[id] != nil && says(got.Identity.UserAssignedIdentities[id].ClientID) != "",
		"it has a host name":                         says(got.Properties.DefaultHostName) != "" && len(got.Properties.HostNames) == 1,
		"it runs, as far as it is known":             says(got.Properties.State) == "Running",
		"what it was asked is kept":                  got.Properties.HTTPSOnly != nil && *got.Properties.HTTPSOnly,
		"its settings' values are not told":          got.Properties.SiteConfig.AppSettings[0].Value == nil,
	}); err != nil {
		return err
	}
	patched, err := c.Update(ctx, m.group, name, armappservice.SitePatchResource{Identity: &armappservice.ManagedServiceIdentity{Type: to.Ptr(armappservice.ManagedServiceIdentityTypeSystemAssigned)}}, nil)
	if err != nil {
		return err
	}
	return expect("the app "+name+" after a patch", map[string]bool{
		"it has its own identity alone": says(patched.Identity.Type) == "SystemAssigned" && len(patched.Identity.UserAssignedIdentities) == 0,
		"its principal stays":           says(patched.Identity.PrincipalID) == says(made.Identity.PrincipalID),
	})
}

// slot: it has an identity of its own.
func slot(ctx context.Context, m *manager, c *armappservice.WebAppsClient, name string) error {
	app, err := c.Get(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	create, err := c.BeginCreateOrUpdateSlot(ctx, m.group, name, "staging", armappservice.Site{
		Location: to.Ptr(location), Identity: &armappservice.ManagedServiceIdentity{Type: to.Ptr(armappservice.ManagedServiceIdentityTypeSystemAssigned)},
	}, nil)
	made, err := done(ctx, "creating a slot", create, err)
	if err != nil {
		return err
	}
	got, err := c.GetSlot(ctx, m.group, name, "staging", nil)
	if err != nil {
		return err
	}
	if err := expect("the slot", map[string]bool{
		"it has a principal of its own": says(got.Identity.PrincipalID) != "" && says(got.Identity.PrincipalID) != says(app.Identity.PrincipalID) && says(got.Identity.PrincipalID) == says(made.Identity.PrincipalID),
		"it is named with its app":      says(got.Name) == name+"/staging",
	}); err != nil {
		return err
	}
	list, err := all(ctx, "listing slots", c.NewListSlotsPager(m.group, name, nil), func(p armappservice.WebAppsClientListSlotsResponse) []*armappservice.Site { return p.Value })
	if err != nil {
		return err
	}
	if err := expect("the slots", map[string]bool{"there is one": len(list) == 1}); err != nil {
		return err
	}
	patched, err := c.UpdateSlot(ctx, m.group, name, "staging", armappservice.SitePatchResource{Identity: &armappservice.ManagedServiceIdentity{Type: to.Ptr(armappservice.ManagedServiceIdentityTypeNone)}}, nil)
	if err != nil {
		return err
	}
	if err := expect("the slot after None", map[string]bool{"it has no identity": patched.Identity == nil || says(patched.Identity.PrincipalID) == ""}); err != nil {
		return err
	}
	_, err = c.DeleteSlot(ctx, m.group, name, "staging", nil)
	return err
}
