package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

// givenProperties are those of a role assignment.
type givenProperties struct {
	RoleDefinitionID string  `json:"roleDefinitionId"`
	PrincipalID      string  `json:"principalId"`
	PrincipalType    string  `json:"principalType,omitempty"`
	Scope            string  `json:"scope,omitempty"`
	Description      *string `json:"description,omitempty"`
	Condition        *string `json:"condition,omitempty"`
	ConditionVersion *string `json:"conditionVersion,omitempty"`
}

type givenNode = node[givenProperties]

// role is the GUID of the role.
func (p givenProperties) role() string {
	return p.RoleDefinitionID[strings.LastIndexByte(p.RoleDefinitionID, '/')+1:]
}

func roleAssign(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	var condition, description string
	c := s.bind(&cobra.Command{
		Use: "assign ROLE PRINCIPAL", Short: "Give somebody a role", Args: exactly("ROLE", "PRINCIPAL"),
		Long: "Give somebody a role. With a condition the role counts only where that holds, for example\n\n" +
			"  @Resource[Microsoft.KeyVault/vaults/secrets:name] StringLike 'shop-*'\n\n" + principalHelp,
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				want, err := a.wanted(c.Context(), scope, args[0], args[1])
				if err != nil {
					return err
				}
				if description != "" {
					want.Description = &description
				}
				if condition != "" {
					version := "2.0"
					want.Condition, want.ConditionVersion = &condition, &version
				}
				id, err := scope.Extension("Microsoft.Authorization/roleAssignments", uuid.NewString())
				if err != nil {
					return err
				}
				var made givenNode
				if _, err := a.arm(c.Context(), http.MethodPut, armPath(id), map[string]any{"properties": want}, &made); err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), made)
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), made.ID)
				return err
			})
		},
	}, true)
	c.Flags().StringVar(&condition, "condition", "", "when the role counts, in the language of role assignment conditions, version 2.0")
	c.Flags().StringVar(&description, "description", "", "what it is for")
	return c
}

// wanted is a role of a principal.
func (a *acting) wanted(ctx context.Context, scope resource.ID, role, principal string) (givenProperties, error) {
	r, err := a.role(ctx, scope, role)
	if err != nil {
		return givenProperties{}, err
	}
	who, err := a.principal(ctx, principal)
	return givenProperties{RoleDefinitionID: r.ID, PrincipalID: who}, err
}

func roleUnassign(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	return s.bind(&cobra.Command{
		Use: "unassign ROLE PRINCIPAL", Short: "Take a role away from somebody", Args: exactly("ROLE", "PRINCIPAL"),
		Long: "Take a role away from somebody, at exactly the scope.\n\n" + principalHelp,
		RunE: func(c *cobra.Command, args []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				want, err := a.wanted(c.Context(), scope, args[0], args[1])
				if err != nil {
					return err
				}
				all, err := listWhere[givenNode](c.Context(), a, scope, given, "atScope() and principalId eq "+quoted(want.PrincipalID))
				if err != nil {
					return err
				}
				for _, g := range all {
					if g.Properties.role() != want.role() || !strings.EqualFold(g.Properties.Scope, scope.String()) {
						continue
					}
					id, err := resource.Parse(g.ID)
					if err != nil {
						return err
					}
					return a.remove(c.Context(), id)
				}
				return fmt.Errorf("%s does not have the role %s at %s itself (innate role assignments --of %s)", args[1], args[0], scope, args[1])
			})
		},
	}, false)
}

func roleAssignments(f *flags) *cobra.Command {
	s := scoped{managing: managing{flags: f}}
	var of string
	c := s.bind(&cobra.Command{
		Use: "assignments", Short: "List who has which role, at a scope, above it and below", Args: noArgs,
		Long: "List who has which role, at a scope, above it and below; with --of what somebody has, also by groups.\n\n" + principalHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.at(c, func(a *acting, scope resource.ID) error {
				filter := ""
				if of != "" {
					who, err := a.principal(c.Context(), of)
					if err != nil {
						return err
					}
					filter = "assignedTo(" + quoted(who) + ")"
				}
				all, err := listWhere[givenNode](c.Context(), a, scope, given, filter)
				if err != nil {
					return err
				}
				if s.asJSON {
					return printJSON(c.OutOrStdout(), all)
				}
				names, err := a.roleNames(c.Context(), scope)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, g := range all {
					p := g.Properties
					role, condition := names[p.role()], ""
					if role == "" {
						role = p.role()
					}
					if p.Condition != nil {
						condition = *p.Condition
					}
					rows = append(rows, []string{role, p.PrincipalType, p.PrincipalID, p.Scope, condition})
				}
				return table(c.OutOrStdout(), "Nobody has a role there.", []string{"ROLE", "TYPE", "PRINCIPAL", "SCOPE", "CONDITION"}, rows)
			})
		},
	}, true)
	c.Flags().StringVar(&of, "of", "", "only what this PRINCIPAL has")
	return c
}

// roleNames are the names of the roles by GUID.
func (a *acting) roleNames(ctx context.Context, scope resource.ID) (map[string]string, error) {
	roles, err := listWhere[roleNode](ctx, a, scope, definitions, "atScopeAndBelow()")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, r := range roles {
		out[r.Name] = r.Properties.RoleName
	}
	return out, nil
}
