package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/server"
)

func auditCommand(config *string) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Check the record of decisions"}
	c.AddCommand(&cobra.Command{
		Use:   "verify",
		Short: "Check every chain of the record from its beginning",
		Long: `Check every chain of the record from its beginning: that no batch was changed, taken out or put in. It prints
each chain with its last number and hash. Keep those lines elsewhere: a later run that does not pass through them
shows a record that was cut short or rewritten whole.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openIdle(c, *config)
			if err != nil {
				return err
			}
			defer s.Close()
			return verify(c, s)
		},
	})
	return c
}

// openIdle opens the database of a configuration, and serves nothing.
func openIdle(c *cobra.Command, config string) (*server.Server, error) {
	cfg, err := server.ReadConfig(config)
	if err != nil {
		return nil, err
	}
	cfg.Listen = "127.0.0.1:0"
	return server.Open(c.Context(), cfg, logger(c.ErrOrStderr()), time.Now)
}

// verify checks the chains of all tenants and of the installation itself.
func verify(c *cobra.Command, s *server.Server) error {
	tenants, err := s.DB.Tenants(c.Context())
	if err != nil {
		return err
	}
	ids := []string{""}
	for _, t := range tenants {
		ids = append(ids, t.ID)
	}
	for _, tenant := range ids {
		heads, err := s.DB.Heads(c.Context(), tenant)
		if err != nil {
			return err
		}
		for _, chain := range slices.Sorted(maps.Keys(heads)) {
			hash, err := verifyChain(c.Context(), s, tenant, chain, heads)
			if err != nil {
				return err
			}
			owner := "tenant " + tenant
			if tenant == "" {
				owner = "installation"
			}
			if _, err := fmt.Fprintf(c.OutOrStdout(), "%s chain %s: %d batches, whole, %s\n", owner, chain, heads[chain], hash); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyPage is how many batches are checked at once.
const verifyPage = 500

// verifyChain checks one chain up to its head and returns the head's hash.
func verifyChain(ctx context.Context, s *server.Server, tenant, chain string, heads map[string]int64) (string, error) {
	// The other chains are passed over by beginning at their ends.
	after := maps.Clone(heads)
	after[chain] = 0
	hash := ""
	for after[chain] < heads[chain] {
		all, err := s.DB.Batches(ctx, tenant, after, verifyPage)
		if err != nil {
			return "", err
		}
		page := slices.DeleteFunc(all, func(b audit.Batch) bool { return b.Chain != chain || b.Seq > heads[chain] })
		if err := audit.Verify(after[chain], hash, page); err != nil {
			return "", fmt.Errorf("the record of tenant %q is not whole: %w", tenant, err)
		}
		if len(page) == 0 {
			return "", fmt.Errorf("the record of tenant %q is not whole: chain %s ends at batch %d, and its head says %d", tenant, chain, after[chain], heads[chain])
		}
		last := page[len(page)-1]
		after[chain], hash = last.Seq, last.Hash
	}
	return hash, nil
}
