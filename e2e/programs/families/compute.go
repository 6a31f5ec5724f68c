package main

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
)

func compute(ctx context.Context, m *manager) error {
	id, err := m.identity(ctx, "for-compute")
	if err != nil {
		return err
	}
	return errors.Join(machine(ctx, m, id), scaleSet(ctx, m, id))
}

// machine tells the story of a virtual machine and its extension.
func machine(ctx context.Context, m *manager, id string) error {
	vms, err := armcompute.NewVirtualMachinesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	extensions, err := armcompute.NewVirtualMachineExtensionsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-vm"
	create, err := vms.BeginCreateOrUpdate(ctx, m.group, name, armcompute.VirtualMachine{
		Location: to.Ptr(location), Zones: []*string{to.Ptr("1")}, Tags: map[string]*string{"made": to.Ptr("here")},
		Identity: &armcompute.VirtualMachineIdentity{
			Type:                   to.Ptr(armcompute.ResourceIdentityTypeSystemAssignedUserAssigned),
			UserAssignedIdentities: map[string]*armcompute.UserAssignedIdentitiesValue{id: {}},
		},
		Properties: &armcompute.VirtualMachineProperties{
			HardwareProfile: &armcompute.HardwareProfile{VMSize: to.Ptr(armcompute.VirtualMachineSizeTypesStandardD1)},
			OSProfile:       &armcompute.OSProfile{ComputerName: to.Ptr("c"), AdminPassword: to.Ptr("hunter2")},
		},
	}, nil)
	made, err := done(ctx, "creating a machine", create, err)
	if err != nil {
		return err
	}
	got, err := vms.Get(ctx, m.group, name, &armcompute.VirtualMachinesClientGetOptions{Expand: to.Ptr(armcompute.InstanceViewTypesInstanceView)})
	if err != nil {
		return err
	}
	user := got.Identity.UserAssignedIdentities[id]
	if err := expect("the machine", map[string]bool{
		"its identities are spelt as the SDK has it": says(got.Identity.Type) == string(armcompute.ResourceIdentityTypeSystemAssignedUserAssigned),
		"it has a principal":                         says(got.Identity.PrincipalID) != "" && says(got.Identity.PrincipalID) == says(made.Identity.PrincipalID) && says(got.Identity.TenantID) != "",
		"it has the user-assigned identity":          user != nil && says(user.ClientID) != "" && says(user.PrincipalID) != "",
		"it has a vmId":                              says(got.Properties.VMID) != "",
		"it is in its zone":                          len(got.Zones) == 1 && says(got.Zones[0]) == "1",
		"its size is kept":                           says(got.Properties.HardwareProfile.VMSize) == string(armcompute.VirtualMachineSizeTypesStandardD1),
		"its password is not told":                   got.Properties.OSProfile.AdminPassword == nil && says(got.Properties.OSProfile.ComputerName) == "c",
		"it succeeded":                               says(got.Properties.ProvisioningState) == "Succeeded",
		"its view was asked for":                     got.Properties.InstanceView != nil && len(got.Properties.InstanceView.Statuses) > 0,
	}); err != nil {
		return err
	}
	view, err := vms.InstanceView(ctx, m.group, name, nil)
	if err != nil {
		return err
	}
	if err := expect("its view", map[string]bool{"it says Succeeded": len(view.Statuses) == 1 && says(view.Statuses[0].Code) == "ProvisioningState/succeeded"}); err != nil {
		return err
	}
	// Null detaches; the rest stays.
	patch, err := vms.BeginUpdate(ctx, m.group, name, armcompute.VirtualMachineUpdate{Identity: &armcompute.VirtualMachineIdentity{
		Type: to.Ptr(armcompute.ResourceIdentityTypeSystemAssigned), UserAssignedIdentities: map[string]*armcompute.UserAssignedIdentitiesValue{id: nil},
	}}, nil)
	patched, err := done(ctx, "detaching an identity", patch, err)
	if err != nil {
		return err
	}
	if err := expect("the machine after null", map[string]bool{
		"it has its own identity alone": says(patched.Identity.Type) == "SystemAssigned" && len(patched.Identity.UserAssignedIdentities) == 0,
		"its principal stays":           says(patched.Identity.PrincipalID) == says(made.Identity.PrincipalID),
		"its tags stay":                 says(patched.Tags["made"]) == "here",
	}); err != nil {
		return err
	}
	begin, err := extensions.BeginCreateOrUpdate(ctx, m.group, name, "agent", armcompute.VirtualMachineExtension{
		Location: to.Ptr(location), Properties: &armcompute.VirtualMachineExtensionProperties{
			Publisher: to.Ptr("p"), Type: to.Ptr("t"), Settings: map[string]any{"a": "b"}, ProtectedSettings: map[string]any{"key": "hunter2"}},
	}, nil)
	ext, err := done(ctx, "creating an extension", begin, err)
	if err != nil {
		return err
	}
	if err := expect("the extension", map[string]bool{"its secrets are not told": ext.Properties.ProtectedSettings == nil && ext.Properties.Settings != nil}); err != nil {
		return err
	}
	list, err := all(ctx, "listing machines", vms.NewListPager(m.group, nil), func(p armcompute.VirtualMachinesClientListResponse) []*armcompute.VirtualMachine { return p.Value })
	if err != nil {
		return err
	}
	listed := false
	for _, vm := range list {
		listed = listed || says(vm.Name) == name
	}
	if err := expect("the list", map[string]bool{"the machine is in it": listed}); err != nil {
		return err
	}
	del, err := vms.BeginDelete(ctx, m.group, name, nil)
	if _, err := done(ctx, "deleting a machine", del, err); err != nil {
		return err
	}
	_, err = vms.Get(ctx, m.group, name, nil)
	return absent("the machine", err)
}

// scaleSet tells the story of a scale set and its instances.
func scaleSet(ctx context.Context, m *manager, id string) error {
	sets, err := armcompute.NewVirtualMachineScaleSetsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	instances, err := armcompute.NewVirtualMachineScaleSetVMsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-set"
	create, err := sets.BeginCreateOrUpdate(ctx, m.group, name, armcompute.VirtualMachineScaleSet{
		Location: to.Ptr(location), SKU: &armcompute.SKU{Name: to.Ptr("Standard_D1"), Capacity: to.Ptr[int64](1)},
		Identity:   &armcompute.VirtualMachineScaleSetIdentity{Type: to.Ptr(armcompute.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcompute.VirtualMachineScaleSetProperties{OrchestrationMode: to.Ptr(armcompute.OrchestrationModeUniform)},
	}, nil)
	set, err := done(ctx, "creating a scale set", create, err)
	if err != nil {
		return err
	}
	begin, err := instances.BeginUpdate(ctx, m.group, name, "0", armcompute.VirtualMachineScaleSetVM{Location: to.Ptr(location)}, nil)
	vm, err := done(ctx, "making an instance", begin, err)
	if err != nil {
		return err
	}
	if err := expect("the instance", map[string]bool{
		"it knows its number":         says(vm.InstanceID) == "0",
		"its identity is the set's":   vm.Identity != nil && says(vm.Identity.PrincipalID) != "" && says(vm.Identity.PrincipalID) == says(set.Identity.PrincipalID),
		"it has a vmId of its own":    says(vm.Properties.VMID) != "" && says(vm.Properties.VMID) != says(set.Properties.UniqueID),
		"the set keeps its capacity":  set.SKU.Capacity != nil && *set.SKU.Capacity == 1,
		"the set's mode is what came": says(set.Properties.OrchestrationMode) == "Uniform",
	}); err != nil {
		return err
	}
	patch, err := sets.BeginUpdate(ctx, m.group, name, armcompute.VirtualMachineScaleSetUpdate{Identity: &armcompute.VirtualMachineScaleSetIdentity{
		Type:                   to.Ptr(armcompute.ResourceIdentityTypeSystemAssignedUserAssigned),
		UserAssignedIdentities: map[string]*armcompute.UserAssignedIdentitiesValue{id: {}},
	}}, nil)
	if _, err := done(ctx, "attaching an identity to the set", patch, err); err != nil {
		return err
	}
	got, err := instances.Get(ctx, m.group, name, "0", nil)
	if err != nil {
		return err
	}
	// As it was read, it can be written.
	again, err := instances.BeginUpdate(ctx, m.group, name, "0", got.VirtualMachineScaleSetVM, nil)
	if _, err := done(ctx, "writing an instance as it was read", again, err); err != nil {
		return err
	}
	list, err := all(ctx, "listing instances", instances.NewListPager(m.group, name, nil), func(p armcompute.VirtualMachineScaleSetVMsClientListResponse) []*armcompute.VirtualMachineScaleSetVM {
		return p.Value
	})
	if err != nil {
		return err
	}
	view, err := instances.GetInstanceView(ctx, m.group, name, "0", nil)
	if err != nil {
		return err
	}
	if err := expect("the instance", map[string]bool{
		"it has what the set was given": got.Identity.UserAssignedIdentities[id] != nil,
		"it is in the list":             len(list) == 1 && says(list[0].InstanceID) == "0",
		"its view says Succeeded":       len(view.Statuses) == 1,
	}); err != nil {
		return err
	}
	del, err := instances.BeginDelete(ctx, m.group, name, "0", nil)
	if _, err := done(ctx, "deleting an instance", del, err); err != nil {
		return err
	}
	gone, err := sets.BeginDelete(ctx, m.group, name, nil)
	if _, err := done(ctx, "deleting a scale set", gone, err); err != nil {
		return err
	}
	_, err = sets.Get(ctx, m.group, name, nil)
	return absent("the scale set", err)
}
