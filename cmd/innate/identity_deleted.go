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

// recoveredNode is an identity that is there again, and what became of what it
// had.
type recoveredNode struct {
	identityNode
	Recovery struct {
		Restored    []string `json:"restoredRoleAssignments"`
		NotRestored []struct {
			ID     string `json:"id,omitempty"`
			Scope  string `json:"scope,omitempty"`
			Reason string `json:"reason"`
		} `json:"notRestoredRoleAssignments"`
		Credentials     []string   `json:"restoredFederatedIdentityCredentials"`
		LostCredentials []lostNode `json:"notRestoredFederatedIdentityCredentials"`
		Groups          []string   `json:"restoredGroupMemberships"`
		LostGroups      []lostNode `json:"notRestoredGroupMemberships"`
		Attachments     []lostNode `json:"notRestoredAttachments"`
	} `json:"recovery"`
}

// lostNode is something that did not come back.
type lostNode struct {
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason"`
}

// write says what came back and what did not.
func (n recoveredNode) write(p *prose) {
	r := n.Recovery
	p.line("%s", n.ID)
	p.line("role assignments restored: %d, not restored: %d", len(r.Restored), len(r.NotRestored))
	for _, lost := range r.NotRestored {
		p.line("not restored at %s: %s", word(lost.Scope), shownWhy(lost.Reason))
	}
	for _, part := range []struct {
		what string
		got  []string
		lost []lostNode
	}{{"federated credentials", r.Credentials, r.LostCredentials}, {"group memberships", r.Groups, r.LostGroups}} {
		if len(part.got)+len(part.lost) > 0 {
			p.line("%s restored: %d, not restored: %d", part.what, len(part.got), len(part.lost))
		}
		for _, lost := range part.lost {
			p.line("not restored: %s: %s", word(lost.ID), shownWhy(lost.Reason))
		}
	}
	for _, lost := range r.Attachments {
		p.line("not attached to %s: %s", word(lost.ID), shownWhy(lost.Reason))
	}
}

func identityRecover(f *flags) *cobra.Command {
	m := managing{flags: f}
	var name string
	var permitted bool
	c := m.bind(&cobra.Command{
		Use: "recover NAME", Short: "Bring a deleted identity back, with its ids and what it had", Args: oneArg("NAME"),
		Long: `Bring a deleted identity back, with its ids, its role assignments, its federated credentials and its memberships of groups.
That gives rights, and takes the right to give each of them; with --permitted what one may not give is left out, for good.
Resources that had the identity are listed and do not get it back: innate identity attach gives it to them anew. Tokens from
before stay refused. NAME is its name, or its principal id.`,
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
			back.write(p)
			return p.print(c.OutOrStdout())
		},
	}, true)
	c.Flags().StringVar(&name, "name", "", "its name from now on, where another identity has the old one")
	c.Flags().BoolVar(&permitted, "permitted", false, "without what one may not give")
	return c
}
