package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func roleCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "role",
		Short: "Roles, and who has which of them where",
		Long: `Roles, and who has which of them where. A role is a list of actions; assigned to somebody at a scope, it counts there and
at everything below, from the next call on. SCOPE is "/" (everything), a resource ID, or the name of a resource; without
--scope it is the subscription.`,
		Example: "  innate role list\n  innate role assign Reader vm1\n  innate role create machine-operator.json\n  innate role assignments --of vm1",
	}
	c.AddCommand(roleList(f), roleShow(f), roleCreate(f), roleDelete(f), roleAssign(f), roleUnassign(f), roleAssignments(f))
	return group(c)
}

const (
	definitions = "providers/Microsoft.Authorization/roleDefinitions"
	given       = "providers/Microsoft.Authorization/roleAssignments"
)

// definitionProperties are those of a role, as files for "role create" have them.
type definitionProperties struct {
	RoleName         string            `json:"roleName"`
	Type             string            `json:"type,omitempty"`
	Description      string            `json:"description,omitempty"`
	AssignableScopes []string          `json:"assignableScopes"`
	Permissions      []rolePermissions `json:"permissions"`
}

type rolePermissions struct {
	Actions          []string `json:"actions,omitempty"`
	NotActions       []string `json:"notActions,omitempty"`
	DataActions      []string `json:"dataActions,omitempty"`
	NotDataActions   []string `json:"notDataActions,omitempty"`
	Condition        string   `json:"condition,omitempty"`
	ConditionVersion string   `json:"conditionVersion,omitempty"`
}

type roleNode = node[definitionProperties]

// scoped are the flags of commands that are about a scope.
type scoped struct {
	managing
	scope string
}

func (s *scoped) bind(c *cobra.Command, prints bool) *cobra.Command {
	s.managing.bind(c, prints)
	c.Flags().StringVar(&s.scope, "scope", "", "where: \"/\", a resource ID, the name of a resource or a vault, or VAULT/SECRET (default: the subscription)")
	return c
}

// at does something at the scope.
func (s *scoped) at(c *cobra.Command, do func(*acting, resource.ID) error) error {
	a, err := s.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	scope, err := a.scope(s.scope)
	if err != nil {
		return fmt.Errorf("--scope: %w", err)
	}
	return do(a, scope)
}

// role finds a role that can be assigned at a scope or below, by its name or GUID.
func (a *acting) role(ctx context.Context, scope resource.ID, name string) (roleNode, error) {
	if _, err := uuid.Parse(name); err == nil && len(name) == 36 {
		id, err := scope.Extension("Microsoft.Authorization/roleDefinitions", name)
		if err != nil {
			return roleNode{}, err
		}
		var r roleNode
		_, err = a.arm(ctx, http.MethodGet, armPath(id), nil, &r)
		return r, err
	}
	found, err := listWhere[roleNode](ctx, a, scope, definitions, "atScopeAndBelow() and roleName eq "+quoted(name))
	if err != nil {
		return roleNode{}, err
	}
	if len(found) == 0 {
		return roleNode{}, fmt.Errorf("there is no role %q at %s (innate role list)", name, scope)
	}
	return found[0], nil
}

func roleList(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	var custom bool
	c := s.bind(&cobra.Command{
		Use: "list", Short: "List the roles that can be assigned at a scope or below", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				filter := "atScopeAndBelow()"
				if custom {
					filter += " and type eq 'CustomRole'"
				}
				roles, err := listWhere[roleNode](c.Context(), a, scope, definitions, filter)
				if err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), roles)
				}
				var rows [][]string
				for _, r := range roles {
					rows = append(rows, []string{r.Properties.RoleName, r.Properties.Type, r.Name})
				}
				return table(c.OutOrStdout(), "There is no such role.", []string{"NAME", "TYPE", "ID"}, rows)
			})
		},
	}, true)
	c.Flags().BoolVar(&custom, "custom", false, "only the tenant's own")
	return c
}

func roleShow(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	return s.bind(&cobra.Command{
		Use: "show ROLE", Short: "Show what a role allows", Args: oneArg("ROLE"),
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				r, err := a.role(c.Context(), scope, args[0])
				if err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), r)
				}
				return r.Properties.describe(r.Name).print(c.OutOrStdout())
			})
		},
	}, true)
}

func (d definitionProperties) describe(id string) *prose {
	p := &prose{}
	p.line("role        %s", word(d.RoleName))
	p.line("id          %s", id)
	p.line("type        %s", d.Type)
	for _, s := range d.AssignableScopes {
		p.line("assignable  %s", s)
	}
	for _, b := range d.Permissions {
		for _, l := range []struct {
			name string
			all  []string
		}{{"action", b.Actions}, {"but not", b.NotActions}, {"data action", b.DataActions}, {"but not", b.NotDataActions}} {
			for _, action := range l.all {
				p.line("%-11s %s", l.name, word(action))
			}
		}
		if b.Condition != "" {
			p.line("if          %s", word(b.Condition))
		}
	}
	return p
}

func roleCreate(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	var replace bool
	c := s.bind(&cobra.Command{
		Use: "create FILE", Short: "Create a role of the tenant's own from a JSON file", Args: oneArg("FILE"),
		Long: `Create a role of the tenant's own from a JSON file ("-" is standard input) with the properties of a role definition:

  {
    "roleName": "Machine Operator",
    "description": "Restart machines.",
    "assignableScopes": ["/subscriptions/ID"],
    "permissions": [{"actions": ["Microsoft.Compute/*/read", "Microsoft.Compute/virtualMachines/restart/action"]}]
  }

Without assignableScopes it is assignable at --scope. A change of a role (--replace) counts at once, for everybody who has it.`,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := readDefinition(c, args[0])
			if err != nil {
				return err
			}
			return s.at(c, func(a *acting, scope resource.ID) error {
				if len(d.AssignableScopes) == 0 {
					d.AssignableScopes = []string{scope.String()}
				}
				r, err := a.define(c.Context(), scope, d, replace)
				if err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), r)
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), r.Name)
				return err
			})
		},
	}, true)
	c.Flags().BoolVar(&replace, "replace", false, "change the role of this name, if there is one")
	return c
}

// readDefinition reads a file strictly: a misspelled member would be a role
// that says less or more than meant.
func readDefinition(c *cobra.Command, path string) (definitionProperties, error) {
	var d definitionProperties
	in := c.InOrStdin()
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return d, err
		}
		defer file.Close()
		in = file
	}
	dec := json.NewDecoder(io.LimitReader(in, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("reading the role in %s: %w; see \"innate role create --help\"", path, err)
	}
	return d, nil
}

// define writes a role under a new GUID or, with replace, that of its name.
func (a *acting) define(ctx context.Context, scope resource.ID, d definitionProperties, replace bool) (roleNode, error) {
	found, err := listWhere[roleNode](ctx, a, scope, definitions, "atScopeAndBelow() and roleName eq "+quoted(d.RoleName))
	if err != nil {
		return roleNode{}, err
	}
	name := uuid.NewString()
	if len(found) > 0 {
		if !replace {
			return roleNode{}, fmt.Errorf("there is a role %q already; --replace changes it", d.RoleName)
		}
		name = found[0].Name
	}
	id, err := scope.Extension("Microsoft.Authorization/roleDefinitions", name)
	if err != nil {
		return roleNode{}, err
	}
	var r roleNode
	_, err = a.arm(ctx, http.MethodPut, armPath(id), map[string]any{"properties": d}, &r)
	return r, err
}

func roleDelete(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	return s.bind(&cobra.Command{
		Use: "delete ROLE", Short: "Delete a role of the tenant's own that nobody has", Args: oneArg("ROLE"),
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				r, err := a.role(c.Context(), scope, args[0])
				if err != nil {
					return err
				}
				id, err := scope.Extension("Microsoft.Authorization/roleDefinitions", r.Name)
				if err != nil {
					return err
				}
				return a.remove(c.Context(), id)
			})
		},
	}, false)
}
