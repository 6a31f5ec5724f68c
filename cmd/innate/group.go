package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func groupCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "group",
		Short: "Groups of identities, which share roles",
		Long: `Groups of identities, which share roles. A member has every role of the group from its next call on, and has it no
more once it is out, also with tokens that it has. Groups may be members of groups.`,
		Example: "  innate group create readers\n  innate group add readers vm1\n  innate role assign \"Key Vault Secrets User\" readers --scope /subscriptions/ID/resourceGroups/NAME",
	}
	c.AddCommand(groupCreate(f), groupList(f), groupShow(f), groupChange(f, true), groupChange(f, false), groupDelete(f))
	return group(c)
}

const groupCollection = "providers/Innate.Directory/groups"

type groupProperties struct {
	DisplayName string `json:"displayName"`
	Description string `json:"description,omitempty"`
}

// groupNode is a group; its name is its object id.
type groupNode = node[groupProperties]

type memberNode = node[struct {
	PrincipalID   string `json:"principalId"`
	PrincipalType string `json:"principalType"`
	DisplayName   string `json:"displayName"`
}]

// group finds a group by its name or object id.
func (a *acting) group(ctx context.Context, name string) (resource.ID, error) {
	id := name
	if _, err := uuid.Parse(name); err != nil || len(name) != 36 {
		found, err := listWhere[groupNode](ctx, a, resource.Root, groupCollection, "displayName eq "+quoted(name))
		switch {
		case err != nil:
			return resource.ID{}, err
		case len(found) == 0:
			return resource.ID{}, fmt.Errorf("there is no group %q (innate group list)", name)
		case len(found) > 1:
			return resource.ID{}, fmt.Errorf("%d groups are named %q: give the object id of one (innate group list)", len(found), name)
		}
		id = found[0].Name
	}
	return resource.Parse("/" + groupCollection + "/" + id)
}

func groupCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var description string
	c := m.bind(&cobra.Command{
		Use: "create NAME", Short: "Create a group and print its object id", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			found, err := listWhere[groupNode](c.Context(), a, resource.Root, groupCollection, "displayName eq "+quoted(args[0]))
			if err != nil {
				return err
			}
			if len(found) > 0 {
				return fmt.Errorf("there is a group %q already: %s", args[0], found[0].Name)
			}
			id, err := resource.Parse("/" + groupCollection + "/" + uuid.NewString())
			if err != nil {
				return err
			}
			body := map[string]any{"properties": groupProperties{DisplayName: args[0], Description: description}}
			var made groupNode
			if _, err := a.arm(c.Context(), http.MethodPut, armPath(id), body, &made); err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), made)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), made.Name)
			return err
		},
	}, true)
	c.Flags().StringVar(&description, "description", "", "what the group is for")
	return c
}

func groupList(f *flags) *cobra.Command {
	m := managing{flags: f}
	var of string
	c := m.bind(&cobra.Command{
		Use: "list", Short: "List the groups", Args: noArgs,
		Long: "List the groups, with --of those that somebody is in, also through other groups.\n\n" + principalHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			filter := ""
			if of != "" {
				who, err := a.principal(c.Context(), of)
				if err != nil {
					return err
				}
				filter = "hasMember(" + quoted(who) + ")"
			}
			groups, err := listWhere[groupNode](c.Context(), a, resource.Root, groupCollection, filter)
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), groups)
			}
			var rows [][]string
			for _, g := range groups {
				rows = append(rows, []string{g.Properties.DisplayName, g.Name, g.Properties.Description})
			}
			return table(c.OutOrStdout(), "There is no group.", []string{"NAME", "OBJECT ID", "DESCRIPTION"}, rows)
		},
	}, true)
	c.Flags().StringVar(&of, "of", "", "only the groups that this PRINCIPAL is in")
	return c
}

// onGroup does something with a group.
func (m *managing) onGroup(c *cobra.Command, name string, do func(*acting, resource.ID) error) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.group(c.Context(), name)
	if err != nil {
		return err
	}
	return do(a, id)
}

func groupShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show GROUP", Short: "Show a group and who is in it", Args: oneArg("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onGroup(c, args[0], func(a *acting, id resource.ID) error {
				var g groupNode
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &g); err != nil {
					return err
				}
				members, err := list[memberNode](c.Context(), a, id, "members")
				if err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), map[string]any{"group": g, "members": members})
				}
				p := &prose{}
				p.line("group     %s", word(g.Properties.DisplayName))
				p.line("object id %s", g.Name)
				for _, who := range members {
					p.line("member    %s %s %s", who.Properties.PrincipalType, who.Name, word(who.Properties.DisplayName))
				}
				return p.print(c.OutOrStdout())
			})
		},
	}, true)
}

// groupChange is add or remove.
func groupChange(f *flags, add bool) *cobra.Command {
	m := managing{flags: f}
	verb, short := "remove", "Take somebody out of a group"
	if add {
		verb, short = "add", "Put somebody into a group"
	}
	return m.bind(&cobra.Command{
		Use: verb + " GROUP PRINCIPAL", Short: short, Long: short + ".\n\n" + principalHelp, Args: exactly("GROUP", "PRINCIPAL"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onGroup(c, args[0], func(a *acting, id resource.ID) error {
				who, err := a.principal(c.Context(), args[1])
				if err != nil {
					return err
				}
				member, err := id.Child("members", who)
				if err != nil {
					return err
				}
				if !add {
					resp, err := a.arm(c.Context(), http.MethodDelete, armPath(member), nil, nil)
					if err != nil {
						return err
					}
					defer resp.Body.Close()
					if resp.StatusCode == http.StatusNoContent {
						return fmt.Errorf("%s is not in the group %s itself", args[1], args[0])
					}
					return nil
				}
				_, err = a.arm(c.Context(), http.MethodPut, armPath(member), nil, &memberNode{})
				return err
			})
		},
	}, false)
}

func groupDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "delete GROUP", Short: "Delete a group, with its roles", Args: oneArg("GROUP"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onGroup(c, args[0], func(a *acting, id resource.ID) error { return a.remove(c.Context(), id) })
		},
	}, false)
}
