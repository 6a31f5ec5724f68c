// Command manage does what an operator's program does with the Azure SDK's
// management libraries. Run it as a workload that may:
//
//	innate run ops -- manage vm create web1 SystemAssigned
//
// A management program must be told where the management API is (there is no
// variable that the SDK reads by itself): it takes AZURE_AUTHORITY_HOST,
// ARM_METADATA_HOSTNAME and AZURE_SUBSCRIPTION_ID, which innate run sets, and
// works in the resource group RESOURCE_GROUP ("demo" if unset). What it gets
// it prints as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/google/uuid"
)

const location = "local"

func main() {
	out, err := run(context.Background(), os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// manager has what every command needs.
type manager struct {
	subscription, group string
	cred                azcore.TokenCredential
	opt                 *arm.ClientOptions
}

// commands by their first two words; the rest are arguments.
var commands = map[string]struct {
	usage string
	do    func(ctx context.Context, m *manager, args []string) (any, error)
}{
	"vm create":       {"vm create NAME [SystemAssigned | IDENTITY-ID...]", createVM},
	"vm get":          {"vm get NAME", getVM},
	"vm attach":       {"vm attach NAME IDENTITY-ID", attachVM},
	"vm delete":       {"vm delete NAME", deleteVM},
	"identity create": {"identity create NAME", createIdentity},
	"identity get":    {"identity get NAME", getIdentity},
	"identity delete": {"identity delete NAME", deleteIdentity},
	"trust add":       {"trust add IDENTITY NAME ISSUER SUBJECT", addTrust},
	"trust list":      {"trust list IDENTITY", listTrusts},
	"trust delete":    {"trust delete IDENTITY NAME", deleteTrust},
	"role assign":     {"role assign SCOPE ROLE-ID PRINCIPAL-ID", assignRole},
	"role remove":     {"role remove ASSIGNMENT-ID", removeRole},
}

func run(ctx context.Context, args []string) (any, error) {
	if len(args) < 3 {
		return nil, errors.New("a command was expected: vm, identity or role")
	}
	cmd, ok := commands[args[0]+" "+args[1]]
	if !ok {
		return nil, fmt.Errorf("there is no command %q", args[0]+" "+args[1])
	}
	if args = args[2:]; len(args) < len(strings.Fields(strings.Split(cmd.usage, " [")[0]))-2 {
		return nil, fmt.Errorf("expected: manage %s", cmd.usage)
	}
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	endpoint := "https://" + os.Getenv("ARM_METADATA_HOSTNAME")
	m := &manager{
		subscription: os.Getenv("AZURE_SUBSCRIPTION_ID"), group: os.Getenv("RESOURCE_GROUP"), cred: cred,
		opt: &arm.ClientOptions{ClientOptions: policy.ClientOptions{Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: os.Getenv("AZURE_AUTHORITY_HOST"),
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: endpoint, Audience: endpoint}},
		}}},
	}
	if m.group == "" {
		m.group = "demo"
	}
	return cmd.do(ctx, m, args)
}

func (m *manager) vms() (*armcompute.VirtualMachinesClient, error) {
	return armcompute.NewVirtualMachinesClient(m.subscription, m.cred, m.opt)
}

func (m *manager) identities() (*armmsi.UserAssignedIdentitiesClient, error) {
	return armmsi.NewUserAssignedIdentitiesClient(m.subscription, m.cred, m.opt)
}

func createVM(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.vms()
	if err != nil {
		return nil, err
	}
	vm := armcompute.VirtualMachine{Location: to.Ptr(location)}
	switch ids := args[1:]; {
	case len(ids) == 1 && ids[0] == "SystemAssigned":
		vm.Identity = &armcompute.VirtualMachineIdentity{Type: to.Ptr(armcompute.ResourceIdentityTypeSystemAssigned)}
	case len(ids) > 0:
		vm.Identity = &armcompute.VirtualMachineIdentity{
			Type: to.Ptr(armcompute.ResourceIdentityTypeUserAssigned), UserAssignedIdentities: map[string]*armcompute.UserAssignedIdentitiesValue{},
		}
		for _, id := range ids {
			vm.Identity.UserAssignedIdentities[id] = &armcompute.UserAssignedIdentitiesValue{}
		}
	}
	p, err := c.BeginCreateOrUpdate(ctx, m.group, args[0], vm, nil)
	if err != nil {
		return nil, err
	}
	done, err := p.PollUntilDone(ctx, nil)
	return done.VirtualMachine, err
}

func getVM(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.vms()
	if err != nil {
		return nil, err
	}
	got, err := c.Get(ctx, m.group, args[0], nil)
	return got.VirtualMachine, err
}

// attachVM gives a machine one more identity and leaves it those that it has.
func attachVM(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.vms()
	if err != nil {
		return nil, err
	}
	kind := armcompute.ResourceIdentityTypeUserAssigned
	have, err := c.Get(ctx, m.group, args[0], nil)
	if err != nil {
		return nil, err
	}
	if id := have.Identity; id != nil && id.PrincipalID != nil {
		kind = armcompute.ResourceIdentityTypeSystemAssignedUserAssigned
	}
	p, err := c.BeginUpdate(ctx, m.group, args[0], armcompute.VirtualMachineUpdate{Identity: &armcompute.VirtualMachineIdentity{
		Type: to.Ptr(kind), UserAssignedIdentities: map[string]*armcompute.UserAssignedIdentitiesValue{args[1]: {}},
	}}, nil)
	if err != nil {
		return nil, err
	}
	done, err := p.PollUntilDone(ctx, nil)
	return done.VirtualMachine, err
}

func deleteVM(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.vms()
	if err != nil {
		return nil, err
	}
	p, err := c.BeginDelete(ctx, m.group, args[0], nil)
	if err != nil {
		return nil, err
	}
	_, err = p.PollUntilDone(ctx, nil)
	return struct{}{}, err
}

func createIdentity(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.identities()
	if err != nil {
		return nil, err
	}
	made, err := c.CreateOrUpdate(ctx, m.group, args[0], armmsi.Identity{Location: to.Ptr(location)}, nil)
	return made.Identity, err
}

func getIdentity(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.identities()
	if err != nil {
		return nil, err
	}
	got, err := c.Get(ctx, m.group, args[0], nil)
	return got.Identity, err
}

func deleteIdentity(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.identities()
	if err != nil {
		return nil, err
	}
	_, err = c.Delete(ctx, m.group, args[0], nil)
	return struct{}{}, err
}

func (m *manager) trusts() (*armmsi.FederatedIdentityCredentialsClient, error) {
	return armmsi.NewFederatedIdentityCredentialsClient(m.subscription, m.cred, m.opt)
}

func addTrust(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.trusts()
	if err != nil {
		return nil, err
	}
	made, err := c.CreateOrUpdate(ctx, m.group, args[0], args[1], armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
		Issuer: to.Ptr(args[2]), Subject: to.Ptr(args[3]), Audiences: []*string{to.Ptr("api://AzureADTokenExchange")},
	}}, nil)
	if err != nil {
		return nil, err
	}
	got, err := c.Get(ctx, m.group, args[0], *made.Name, nil)
	return got.FederatedIdentityCredential, err
}

// listTrusts lists them one on a page.
func listTrusts(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.trusts()
	if err != nil {
		return nil, err
	}
	var names []string
	for p := c.NewListPager(m.group, args[0], &armmsi.FederatedIdentityCredentialsClientListOptions{Top: to.Ptr(int32(1))}); p.More(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range page.Value {
			names = append(names, *v.Name)
		}
	}
	return map[string]any{"names": names}, nil
}

func deleteTrust(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := m.trusts()
	if err != nil {
		return nil, err
	}
	_, err = c.Delete(ctx, m.group, args[0], args[1], nil)
	return struct{}{}, err
}

func assignRole(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := armauthorization.NewRoleAssignmentsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return nil, err
	}
	made, err := c.Create(ctx, args[0], uuid.NewString(), armauthorization.RoleAssignmentCreateParameters{
		Properties: &armauthorization.RoleAssignmentProperties{
			RoleDefinitionID: to.Ptr("/subscriptions/" + m.subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + args[1]),
			PrincipalID:      to.Ptr(args[2]), PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
		},
	}, nil)
	return made.RoleAssignment, err
}

func removeRole(ctx context.Context, m *manager, args []string) (any, error) {
	c, err := armauthorization.NewRoleAssignmentsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return nil, err
	}
	_, err = c.DeleteByID(ctx, args[0], nil)
	return struct{}{}, err
}
