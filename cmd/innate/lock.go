package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func lockCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "lock",
		Short: "Locks, which keep resources from being deleted or changed",
		Long: `Locks, which keep resources from being deleted or changed, whoever has the right to, until the lock is removed. A lock
counts for what it is on and for everything below. RESOURCE is the name of a resource or a resource ID, also that of a
group or a subscription.`,
		Example: "  innate lock add app1 --notes 'the shop runs on it'\n  innate lock add /subscriptions/ID/resourceGroups/NAME --level ReadOnly\n  innate lock list",
	}
	c.AddCommand(lockList(f), lockAdd(f), lockRemove(f))
	return group(c)
}

const typeLock = "Microsoft.Authorization/locks"

type lockProperties struct {
	Level string `json:"level"`
	Notes string `json:"notes,omitempty"`
}

func lockList(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	return s.bind(&cobra.Command{
		Use: "list", Short: "List the locks that count at a scope, and those below it", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				locks, err := listWhere[node[lockProperties]](c.Context(), a, scope, "providers/"+typeLock, "")
				if err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), locks)
				}
				var rows [][]string
				for _, l := range locks {
					id, err := resource.Parse(l.ID)
					if err != nil {
						return fmt.Errorf("reading the list: %w", err)
					}
					rows = append(rows, []string{l.Name, l.Properties.Level, id.Scope().String(), l.Properties.Notes})
				}
				return table(c.OutOrStdout(), "Nothing is locked.", []string{"NAME", "LEVEL", "ON", "NOTES"}, rows)
			})
		},
	}, true)
}

// lockName adds --name.
func lockName(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "name", "lock", "name of the lock, where a resource has several")
}

func lockAdd(f *flags) *cobra.Command {
	m := managing{flags: f}
	var p lockProperties
	var name string
	c := m.bind(&cobra.Command{
		Use: "add RESOURCE [--level LEVEL]", Short: "Lock a resource and what is below it", Args: oneArg("RESOURCE"), ValidArgsFunction: completeNames(f),
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			return m.withResource(c, "", args[0], func(a *acting, on resource.ID) error {
				id, err := on.Extension(typeLock, name)
				if err != nil {
					return err
				}
				var made node[lockProperties]
				if err := a.create(c.Context(), id, map[string]any{"properties": p}, false, &made); err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), made)
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), made.ID)
				return err
			})
		},
	}, true)
	c.Flags().StringVar(&p.Level, "level", "CanNotDelete", "CanNotDelete, or ReadOnly for no change at all")
	c.Flags().StringVar(&p.Notes, "notes", "", "what it is for")
	lockName(c, &name)
	_ = c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"CanNotDelete", "ReadOnly"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists: four lines above
	return c
}

func lockRemove(f *flags) *cobra.Command {
	m := managing{flags: f}
	var name string
	c := m.bind(&cobra.Command{
		Use: "remove RESOURCE", Short: "Take a lock away", Args: oneArg("RESOURCE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withResource(c, "", args[0], func(a *acting, on resource.ID) error {
				id, err := on.Extension(typeLock, name)
				if err != nil {
					return err
				}
				return a.remove(c.Context(), id)
			})
		},
	}, false)
	lockName(c, &name)
	return c
}
