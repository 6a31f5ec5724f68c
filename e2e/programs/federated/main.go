// Command federated is a program that runs elsewhere: it has a token of another
// issuer in the file AZURE_FEDERATED_TOKEN_FILE, and AZURE_CLIENT_ID,
// AZURE_TENANT_ID and AZURE_AUTHORITY_HOST, as programs in a cluster have them.
// With the Azure SDK for Go's credential for that, or the one that its argument
// "assertion" asks for, it prints the secret greeting of the vault at VAULT_URL.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	value, err := read(context.Background(), len(os.Args) > 1 && os.Args[1] == "assertion")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(value)
}

func read(ctx context.Context, assertion bool) (string, error) {
	cred, err := credential(assertion)
	if err != nil {
		return "", err
	}
	client, err := azsecrets.NewClient(os.Getenv("VAULT_URL"), cred, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.GetSecret(ctx, "greeting", "", nil)
	if err != nil {
		return "", err
	}
	return *resp.Value, nil
}

// credential does without instance discovery, which asks the public cloud.
func credential(assertion bool) (azcore.TokenCredential, error) {
	if !assertion {
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{DisableInstanceDiscovery: true})
	}
	get := func(context.Context) (string, error) {
		b, err := os.ReadFile(os.Getenv("AZURE_FEDERATED_TOKEN_FILE"))
		return string(b), err
	}
	return azidentity.NewClientAssertionCredential(os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID"), get,
		&azidentity.ClientAssertionCredentialOptions{DisableInstanceDiscovery: true})
}
