package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func tokenCommand(f *flags) *cobra.Command {
	var resource, clientID, as string
	var decode bool
	c := &cobra.Command{
		Use:   "token --resource URI",
		Short: "Ask the local endpoint for a token, as a workload does",
		Long: `Ask the local endpoint for a token, as a workload does, and print it.

Within "innate run" it acts as that workload; from a plain shell as ops, or as --as says.`,
		Example: "  innate token --as vm1 --resource https://vault.azure.net --decode",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if resource == "" {
				return usage(c, "say which API the token is for, for example --resource https://vault.azure.net")
			}
			a, err := actAs(c.Context(), f, as, "ops", clientID)
			if err != nil {
				return err
			}
			defer a.release()
			t, err := a.id.Token(c.Context(), resource)
			if err != nil {
				return err
			}
			if !decode {
				_, err := fmt.Fprintln(c.OutOrStdout(), t.Value)
				return err
			}
			return printDecoded(c, t.Value)
		},
	}
	c.Flags().StringVar(&resource, "resource", "", "the API that the token is for, for example https://vault.azure.net")
	c.Flags().StringVar(&clientID, "client-id", "", "client id of a user-assigned identity (default: the workload's default identity)")
	c.Flags().BoolVar(&decode, "decode", false, "print header and claims, without the signature, instead of the token")
	asFlag(c, f, &as, "ops")
	return c
}

// asFlag adds --as.
func asFlag(c *cobra.Command, f *flags, as *string, fallback string) {
	c.Flags().StringVar(as, "as", "", "act as this sample resource or resource ID (default: the workload that this shell is, else "+fallback+")")
	_ = c.RegisterFlagCompletionFunc("as", completeFlag(f)) // the flag exists: one line above
}

// printDecoded prints what a token says. It checks nothing.
func printDecoded(c *cobra.Command, raw string) error {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return errors.New("the token is not a JWT")
	}
	var doc struct {
		Header json.RawMessage `json:"header"`
		Claims json.RawMessage `json:"claims"`
	}
	for i, to := range []*json.RawMessage{&doc.Header, &doc.Claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return errors.New("the token is not a JWT")
		}
		*to = b
	}
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(doc)
}
