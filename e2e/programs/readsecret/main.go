// Command readsecret is the program that Innate must not ask to change: the
// Azure SDK for Go with its default credential and no other options. It prints
// a secret of the vault at VAULT_URL: its argument, or greeting.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	name := "greeting"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	value, err := read(context.Background(), name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(value)
}

func read(ctx context.Context, name string) (string, error) {
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return "", err
	}
	client, err := azsecrets.NewClient(os.Getenv("VAULT_URL"), cred, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return "", err
	}
	return *resp.Value, nil
}
