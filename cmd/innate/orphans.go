package main

import (
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

// orphan is an entry of the report, as the management API has it.
type orphan struct {
	Kind        string `json:"kind"`
	ID          string `json:"id"`
	PrincipalID string `json:"principalId,omitempty"`
	Reason      string `json:"reason"`
}

func orphansCommand(f *flags) *cobra.Command {
	m := managing{flags: f}
	var scope string
	c := m.bind(&cobra.Command{
		Use:   "orphans",
		Short: "List identities and rules that nothing uses",
		Long: `List what nothing uses: user-assigned identities that no resource has and that trust no other issuer, identities
without a role, principals that are disabled and have roles, caller rules that give an identity which the resource does not have. Nothing of it is
broken; whoever tidies up begins here.`,
		Example: "  innate orphans\n  innate orphans --scope /subscriptions/ID/resourceGroups/NAME --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			if scope == "" {
				scope = "/subscriptions/" + a.in.SubscriptionID
			}
			id, err := resource.Parse(scope)
			if err != nil {
				return err
			}
			found, err := list[orphan](c.Context(), a, id, "providers/Innate.Directory/orphans")
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), found)
			}
			var rows [][]string
			for _, o := range found {
				rows = append(rows, []string{o.Kind, o.ID, o.Reason})
			}
			return table(c.OutOrStdout(), "Everything is used.", []string{"KIND", "ID", "WHY"}, rows)
		},
	}, true)
	c.Flags().StringVar(&scope, "scope", "", "look below this resource ID (default: the subscription)")
	return c
}
