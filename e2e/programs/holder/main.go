// Command holder is a long-running program: one credential and one client for
// its whole life. For every secret's name on standard input it reads that
// secret of the vault at VAULT_URL and prints a line of JSON:
//
//	{"value":"..."}                                        or
//	{"status":403,"error":"..."}
//
// with "tokens", how many tokens the client has asked its credential for: a
// right that comes or goes between two lines with the same number did so under
// one and the same token.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

type answer struct {
	Value  string `json:"value,omitempty"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
	Tokens int64  `json:"tokens"`
}

// counting counts what passes through a credential.
type counting struct {
	azcore.TokenCredential
	n atomic.Int64
}

func (c *counting) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.n.Add(1)
	return c.TokenCredential.GetToken(ctx, o)
}

func main() {
	if err := serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	inner, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return err
	}
	cred := &counting{TokenCredential: inner}
	client, err := azsecrets.NewClient(os.Getenv("VAULT_URL"), cred, nil)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		a := read(ctx, client, lines.Text())
		a.Tokens = cred.n.Load()
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

func read(ctx context.Context, client *azsecrets.Client, name string) answer {
	resp, err := client.GetSecret(ctx, name, "", nil)
	if err == nil {
		return answer{Value: *resp.Value}
	}
	a := answer{Error: err.Error()}
	var re *azcore.ResponseError
	if errors.As(err, &re) {
		a.Status = re.StatusCode
	}
	return a
}
