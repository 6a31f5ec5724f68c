package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func moveCommand(f *flags) *cobra.Command {
	m := managing{flags: f}
	var to string
	var validate bool
	c := m.bind(&cobra.Command{
		Use: "move RESOURCE... --to GROUP [--validate]", Short: "Move resources to another resource group, all or none",
		DisableFlagsInUseLine: true, ValidArgsFunction: completeFlag(f),
		Long: `Move resources to another resource group, all or none. They keep what they are and have: identities with their ids, role
assignments, placements, secrets; what they inherit is the new group's. RESOURCE is the name of a resource or a resource
ID, all of one group; what is below a resource moves with it. GROUP is the name of a group of innate dev's subscription,
or a resource ID.`,
		Example: "  innate move vm1 app1 --to shop --validate\n  innate move vm1 app1 --to shop",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(c, "say what to move: RESOURCE...")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return usage(c, "say where to: --to GROUP")
			}
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			return a.move(c, args, to, validate)
		},
	}, false)
	c.Flags().StringVar(&to, "to", "", "resource group that they are to be in")
	c.Flags().BoolVar(&validate, "validate", false, "only say whether it could be done")
	return c
}

// move moves resources of one group; with validate it only asks.
func (a *acting) move(c *cobra.Command, names []string, to string, validate bool) error {
	target, err := a.groupOf(to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	ids := make([]string, len(names))
	var from resource.ID
	for i, name := range names {
		id, err := a.lookup("", name)
		if err != nil {
			return err
		}
		if from.IsZero() {
			from = id.GroupID()
		}
		if id.GroupID().IsZero() {
			return fmt.Errorf("%s is in no resource group", id)
		}
		ids[i] = id.String()
	}
	action, said := "moveResources", "moved"
	if validate {
		action, said = "validateMoveResources", "can move"
	}
	body := map[string]any{"resources": ids, "targetResourceGroup": target.String()}
	resp, err := a.arm(c.Context(), http.MethodPost, armPath(from, action), body, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s to %s: %s\n", said, target, strings.Join(ids, " "))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// groupOf finds a resource group by its name in the subscription, or by its ID.
func (a *acting) groupOf(name string) (resource.ID, error) {
	if !strings.HasPrefix(name, "/") {
		if strings.Contains(name, "/") {
			return resource.ID{}, fmt.Errorf("%q is neither a group's name nor a resource ID, which begins with /subscriptions/", name)
		}
		return resource.Parse("/subscriptions/" + a.in.SubscriptionID + "/resourceGroups/" + name)
	}
	id, err := resource.Parse(name)
	if err == nil && !id.Equal(id.GroupID()) {
		err = fmt.Errorf("%s is no resource group", id)
	}
	return id, err
}
