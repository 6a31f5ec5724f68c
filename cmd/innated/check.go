package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func checkCommand(config *string) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Look for rows that refer to what is not there",
		Long: `Look for rows that refer to what is not there: a role assignment without its principal or its scope, an identity
without its resource, a name of a resource that is gone. There are none, whatever was asked of the server and however
it ended; after somebody restored or changed the database by hand there may be. It reads the whole database, changes
nothing, and ends with 1 if it found something. With a SQLite database, stop innated first.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openIdle(c, *config)
			if err != nil {
				return err
			}
			defer s.Close()
			faults, err := s.DB.Check(c.Context())
			if err != nil {
				return err
			}
			for _, f := range faults {
				if _, err := fmt.Fprintln(c.OutOrStdout(), f); err != nil {
					return err
				}
			}
			if len(faults) > 0 {
				return fmt.Errorf("%d rows refer to what is not there", len(faults))
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "every row refers to what is there")
			return err
		},
	}
}
