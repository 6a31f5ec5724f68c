// Command families does with the Azure SDK's management libraries what operators
// do with each family of resources: make them with identities, read and list
// them, change their identities, delete them. It ends with an error at the first
// answer that is not what it was to be.
//
//	innate run ops -- families compute
//
// It takes AZURE_AUTHORITY_HOST, ARM_METADATA_HOSTNAME and AZURE_SUBSCRIPTION_ID,
// which innate run sets, and works in the resource group RESOURCE_GROUP ("demo"
// if unset).
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
)

const location = "local"

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("all as it was to be")
}

// manager has what every family needs.
type manager struct {
	subscription, group string
	cred                azcore.TokenCredential
	opt                 *arm.ClientOptions
}

var families = map[string]func(ctx context.Context, m *manager) error{
	"identity": identities, "compute": compute, "web": web, "data": data, "longrunning": longRunning,
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 || families[args[0]] == nil {
		return errors.New("one of identity, compute, web, data and longrunning was expected")
	}
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return err
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
	return families[args[0]](ctx, m)
}

// identity makes a user-assigned identity and returns its resource ID.
func (m *manager) identity(ctx context.Context, name string) (string, error) {
	c, err := armmsi.NewUserAssignedIdentitiesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return "", err
	}
	made, err := c.CreateOrUpdate(ctx, m.group, name, armmsi.Identity{Location: to.Ptr(location)}, nil)
	if err != nil {
		return "", err
	}
	return *made.ID, nil
}

// done waits for a long-running operation that began.
func done[T any](ctx context.Context, what string, p *runtime.Poller[T], err error) (T, error) {
	var out T
	if err != nil {
		return out, fmt.Errorf("%s: %w", what, err)
	}
	if out, err = p.PollUntilDone(ctx, nil); err != nil {
		return out, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// all reads a list to its end.
func all[P, T any](ctx context.Context, what string, pager *runtime.Pager[P], values func(P) []T) ([]T, error) {
	var out []T
	for pager.More() {
		p, err := pager.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, values(p)...)
	}
	return out, nil
}

// says is the text behind a pointer of any string type; "" behind none.
func says[S ~string](s *S) string {
	if s == nil {
		return ""
	}
	return string(*s)
}

// expect returns an error that says which claims do not hold. Claims are a
// sentence and whether it holds.
func expect(what string, claims map[string]bool) error {
	var errs []error
	for claim, holds := range claims {
		if !holds {
			errs = append(errs, fmt.Errorf("%s: it is not so that %s", what, claim))
		}
	}
	return errors.Join(errs...)
}

// absent checks that an error is the service's word for a resource that is not there.
func absent(what string, err error) error {
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok && e.StatusCode == http.StatusNotFound && e.ErrorCode == "ResourceNotFound" {
		return nil
	}
	return fmt.Errorf("%s: read after it was deleted: %w", what, errors.Join(errors.New("want ResourceNotFound"), err))
}
