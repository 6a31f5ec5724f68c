package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func managementGroupCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "management-group",
		Short: "Management groups, which subscriptions are in",
		Long: `Management groups, which subscriptions are in, and other management groups. A role on one counts for everything below.
GROUP is its name. At the top is the root group, whose name is the tenant's id.`,
		Example: "  innate management-group create shops --display-name 'All shops'\n  innate management-group move SUBSCRIPTION --to shops\n  innate management-group show shops",
	}
	c.AddCommand(managementGroupList(f), managementGroupCreate(f), managementGroupShow(f), managementGroupMove(f), managementGroupDelete(f))
	return group(c)
}

const typeManagementGroup = "Microsoft.Management/managementGroups"

type managementGroupProperties struct {
	DisplayName string `json:"displayName,omitempty"`
	Details     struct {
		Parent struct {
			ID   string `json:"id,omitempty"`
			Name string `json:"name,omitempty"`
		} `json:"parent,omitzero"`
	} `json:"details,omitzero"`
	Children []struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		DisplayName string `json:"displayName"`
	} `json:"children,omitempty"`
}

type managementGroupNode = node[managementGroupProperties]

// managementGroupID is the ID of a management group that is given by its name or ID.
func managementGroupID(name string) (resource.ID, error) {
	text := name
	if !strings.HasPrefix(name, "/") {
		text = "/providers/" + typeManagementGroup + "/" + name
	}
	id, err := resource.Parse(text)
	if err != nil || !strings.EqualFold(id.Type(), typeManagementGroup) || !id.Scope().IsRoot() {
		return id, fmt.Errorf("%q is neither the name of a management group nor its ID, /providers/%s/NAME", name, typeManagementGroup)
	}
	return id, nil
}

func (a *acting) managementGroups(ctx context.Context) ([]managementGroupNode, error) {
	return listWhere[managementGroupNode](ctx, a, resource.Root, "providers/"+typeManagementGroup, "")
}

func managementGroupList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list", Short: "List the management groups that one may read", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			all, err := a.managementGroups(c.Context())
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			var rows [][]string
			for _, g := range all {
				rows = append(rows, []string{g.Name, g.Properties.DisplayName})
			}
			return table(c.OutOrStdout(), "There is no management group that you may read.", []string{"NAME", "DISPLAY NAME"}, rows)
		},
	}, true)
}

func managementGroupCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var display, in string
	c := m.bind(&cobra.Command{
		Use: "create GROUP", Short: "Make a management group", Args: oneArg("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onManagementGroup(c, args[0], func(a *acting, id resource.ID) error {
				all, err := a.managementGroups(c.Context())
				if err != nil {
					return err
				}
				for _, g := range all {
					if strings.EqualFold(g.ID, id.String()) {
						return fmt.Errorf("there is a management group %q already", g.Name)
					}
				}
				p := managementGroupProperties{DisplayName: display}
				if in != "" {
					parent, err := managementGroupID(in)
					if err != nil {
						return fmt.Errorf("--in: %w", err)
					}
					p.Details.Parent.ID = parent.String()
				}
				var made managementGroupNode
				if _, err := a.arm(c.Context(), http.MethodPut, armPath(id), map[string]any{"properties": p}, &made); err != nil {
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
	c.Flags().StringVar(&display, "display-name", "", "what people read (default: its name)")
	c.Flags().StringVar(&in, "in", "", "management group that it is in (default: the root group)")
	return c
}

// onManagementGroup does something with a management group.
func (m *managing) onManagementGroup(c *cobra.Command, name string, do func(*acting, resource.ID) error) error {
	id, err := managementGroupID(name)
	if err != nil {
		return err
	}
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	return do(a, id)
}

func managementGroupShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show GROUP", Short: "Show a management group and what is in it", Args: oneArg("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onManagementGroup(c, args[0], func(a *acting, id resource.ID) error {
				var g managementGroupNode
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(id)+"&$expand=children", nil, &g); err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), g)
				}
				p := &prose{}
				p.line("group        %s", word(g.Name))
				p.line("name         %s", word(g.Properties.DisplayName))
				if parent := g.Properties.Details.Parent.Name; parent != "" {
					p.line("in           %s", word(parent))
				}
				for _, child := range g.Properties.Children {
					kind := "group"
					if strings.HasPrefix(child.ID, "/subscriptions/") {
						kind = "subscription"
					}
					p.line("has          %s %s %s", kind, word(child.Name), word(child.DisplayName))
				}
				return p.print(c.OutOrStdout())
			})
		},
	}, true)
}

func managementGroupMove(f *flags) *cobra.Command {
	m := managing{flags: f}
	var to string
	c := m.bind(&cobra.Command{
		Use: "move GROUP|SUBSCRIPTION --to GROUP", Short: "Put a management group or a subscription into another management group",
		Args: oneArg("GROUP or SUBSCRIPTION"), DisableFlagsInUseLine: true,
		Long: `Put a management group or a subscription into another management group. Who has roles there has them on what is moved,
and who had them by where it was has them no more: so it takes the right to give roles on a subscription.`,
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return usage(c, "say where to: --to GROUP")
			}
			return m.onManagementGroup(c, to, func(a *acting, target resource.ID) error {
				return a.moveBelow(c.Context(), args[0], target)
			})
		},
	}, false)
	c.Flags().StringVar(&to, "to", "", "management group that it is to be in")
	return c
}

// moveBelow puts the management group or subscription of a name below another group.
func (a *acting) moveBelow(ctx context.Context, name string, target resource.ID) error {
	all, err := a.managementGroups(ctx)
	if err != nil {
		return err
	}
	for _, g := range all {
		if strings.EqualFold(g.Name, name) || strings.EqualFold(g.ID, name) {
			id, err := resource.Parse(g.ID)
			if err != nil {
				return err
			}
			_, err = a.arm(ctx, http.MethodPatch, armPath(id), map[string]string{"parentGroupId": target.String()}, &g)
			return err
		}
	}
	sub, err := a.subscription(ctx, strings.TrimPrefix(name, "/subscriptions/"))
	if err != nil {
		return fmt.Errorf("%q is the name of no management group: %w", name, err)
	}
	var moved node[any]
	_, err = a.arm(ctx, http.MethodPut, armPath(target, "subscriptions", sub.Name()), nil, &moved)
	return err
}

func managementGroupDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "delete GROUP", Short: "Delete a management group that nothing is in, with its roles", Args: oneArg("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onManagementGroup(c, args[0], func(a *acting, id resource.ID) error { return a.remove(c.Context(), id) })
		},
	}, false)
}
