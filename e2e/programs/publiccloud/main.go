// Command publiccloud is a program that was written for the public cloud and
// knows of nothing else: the SDKs' own defaults, and the names of the cloud in
// its text. It takes no address from anywhere. Run it unchanged against a laptop:
//
//	innate run --public-names vm1 -- publiccloud secret demo greeting
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("expected: publiccloud secret VAULT NAME | identities GROUP | name OBJECT-ID")
	}
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return err
	}
	switch args[0] {
	case "secret":
		return secret(ctx, cred, args[1], args[2])
	case "identities":
		return identities(ctx, cred, args[1])
	case "name":
		return name(ctx, cred, args[1])
	}
	return fmt.Errorf("there is no command %q", args[0])
}

func secret(ctx context.Context, cred *azidentity.DefaultAzureCredential, vault, name string) error {
	client, err := azsecrets.NewClient("https://"+vault+".vault.azure.net/", cred, nil)
	if err != nil {
		return err
	}
	got, err := client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return err
	}
	fmt.Println(*got.Value)
	fmt.Println(*got.ID)
	return nil
}

func identities(ctx context.Context, cred *azidentity.DefaultAzureCredential, group string) error {
	client, err := armmsi.NewUserAssignedIdentitiesClient(os.Getenv("AZURE_SUBSCRIPTION_ID"), cred, nil)
	if err != nil {
		return err
	}
	for pager := client.NewListByResourceGroupPager(group, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, id := range page.Value {
			fmt.Println(*id.Name)
		}
	}
	return nil
}

// name asks Graph as the SDK's own pipeline does any other API.
func name(ctx context.Context, cred *azidentity.DefaultAzureCredential, object string) error {
	auth := runtime.NewBearerTokenPolicy(cred, []string{"https://graph.microsoft.com/.default"}, nil)
	pipeline := runtime.NewPipeline("publiccloud", "v1", runtime.PipelineOptions{PerRetry: []policy.Policy{auth}}, &policy.ClientOptions{})
	req, err := runtime.NewRequest(ctx, http.MethodGet, "https://graph.microsoft.com/v1.0/servicePrincipals/"+object+"?$select=displayName")
	if err != nil {
		return err
	}
	resp, err := pipeline.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return runtime.NewResponseError(resp)
	}
	var sp struct{ DisplayName string }
	if err := json.NewDecoder(resp.Body).Decode(&sp); err != nil {
		return err
	}
	fmt.Println(sp.DisplayName)
	return nil
}
