package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// deletedNode is a deleted user-assigned identity that can be recovered.
type deletedNode = node[struct {
	IdentityID  string `json:"identityId"`
	PrincipalID string `json:"principalId"`
	ClientID    string `json:"clientId"`
	Deleted     string `json:"deletionDate"`
	PurgeAt     string `json:"scheduledPurgeDate"`
	Roles       int    `json:"roleAssignmentCount"`
}]

func (a *acting) deletedIdentities(ctx context.Context) ([]deletedNode, error) {
	return pages[deletedNode](ctx, a, armURL("/subscriptions/"+a.in.SubscriptionID+"/providers/Microsoft.ManagedIdentity/deletedUserAssignedIdentities"))
}

// deletedIdentity finds a deleted identity by its name or object id.
func (a *acting) deletedIdentity(ctx context.Context, name string) (deletedNode, error) {
	all, err := a.deletedIdentities(ctx)
	if err != nil {
		return deletedNode{}, err
	}
	var found []deletedNode
	for _, d := range all {
		if strings.EqualFold(d.Name, name) || strings.EqualFold(d.Properties.PrincipalID, name) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return deletedNode{}, fmt.Errorf("there is no deleted identity %q that can be recovered (innate identity deleted)", name)
	case 1:
		return found[0], nil
	}
	return deletedNode{}, fmt.Errorf("%d deleted identities are named %q: give the principal id of one (innate identity deleted)", len(found), name)
}

func identityDeleted(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "deleted", Short: "List the deleted identities that can be recovered", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			all, err := a.deletedIdentities(c.Context())
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			var rows [][]string
			for _, d := range all {
				rows = append(rows, []string{d.Name, d.Properties.PrincipalID, d.Properties.Deleted, d.Properties.PurgeAt, fmt.Sprint(d.Properties.Roles)})
			}
			return table(c.OutOrStdout(), "No deleted identity can be recovered.", []string{"NAME", "PRINCIPAL ID", "DELETED", "GONE AFTER", "ROLES"}, rows)
		},
	}, true)
}

// recoveredNode is an identity that is there again, and what became of its roles.
type recoveredNode struct {
	identityNode
	Recovery struct {
		Restored    []string `json:"restoredRoleAssignments"`
		NotRestored []struct {
			ID     string `json:"id,omitempty"`
			Scope  string `json:"scope,omitempty"`
			Reason string `json:"reason"`
		} `json:"notRestoredRoleAssignments"`
	} `json:"recovery"`
}

func identityRecover(f *flags) *cobra.Command {
	m := managing{flags: f}
	var name string
	var permitted bool
	c := m.bind(&cobra.Command{
		Use: "recover NAME", Short: "Bring a deleted identity back, with its ids and its role assignments", Args: oneArg("NAME"),
		Long: `Bring a deleted identity back, with its ids and its role assignments. That gives roles, and takes the right to give each of
them; with --permitted those that one may not give are left out, for good. Resources that had the identity do not get it
back: innate identity attach gives it to them anew. NAME is its name, or its principal id.`,
		RunE: func(c *cobra.Command, args []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			d, err := a.deletedIdentity(c.Context(), args[0])
			if err != nil {
				return err
			}
			want := map[string]string{}
			if name != "" {
				want["name"] = name
			}
			if permitted {
				want["roleAssignments"] = "Permitted"
			}
			var back recoveredNode
			if _, err := a.arm(c.Context(), http.MethodPost, armURL(d.ID+"/recover"), map[string]any{"properties": want}, &back); err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), back)
			}
			p := &prose{}
			p.line("%s", back.ID)
			p.line("%d role assignments restored, %d not", len(back.Recovery.Restored), len(back.Recovery.NotRestored))
			for _, lost := range back.Recovery.NotRestored {
				p.line("not restored at %s: %s", word(lost.Scope), shownWhy(lost.Reason))
			}
			return p.print(c.OutOrStdout())
		},
	}, true)
	c.Flags().StringVar(&name, "name", "", "its name from now on, where another identity has the old one")
	c.Flags().BoolVar(&permitted, "permitted", false, "without the role assignments that one may not give")
	return c
}
