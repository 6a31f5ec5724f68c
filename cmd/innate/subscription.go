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

func subscriptionCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "subscription",
		Short: "Subscriptions, which resource groups are in",
		Long: `Subscriptions, which resource groups are in. A role on one counts for everything in it. SUBSCRIPTION is its id, or its
name if that is one's alone.`,
		Example: "  innate subscription create shop\n  innate subscription rename shop 'the shop'\n  innate subscription cancel 'the shop'",
	}
	c.AddCommand(subscriptionList(f), subscriptionCreate(f), subscriptionRename(f), subscriptionCancel(f))
	return group(c)
}

// subscriptionNode is a subscription as the management API has it.
type subscriptionNode struct {
	ID          string `json:"id"`
	Name        string `json:"subscriptionId"`
	DisplayName string `json:"displayName"`
	State       string `json:"state"`
}

func (a *acting) subscriptions(ctx context.Context) ([]subscriptionNode, error) {
	return pages[subscriptionNode](ctx, a, armURL("/subscriptions"))
}

// subscription finds a subscription by its id, or by its name.
func (a *acting) subscription(ctx context.Context, name string) (resource.ID, error) {
	if _, err := uuid.Parse(name); err == nil && len(name) == 36 {
		return resource.Parse("/subscriptions/" + name)
	}
	all, err := a.subscriptions(ctx)
	if err != nil {
		return resource.ID{}, err
	}
	var found []subscriptionNode
	for _, s := range all {
		if strings.EqualFold(s.DisplayName, name) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return resource.ID{}, fmt.Errorf("there is no subscription %q (innate subscription list)", name)
	case 1:
		return resource.Parse(found[0].ID)
	}
	return resource.ID{}, fmt.Errorf("%d subscriptions are named %q: give the id of one (innate subscription list)", len(found), name)
}

func subscriptionList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list", Short: "List the subscriptions that one may read", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			all, err := a.subscriptions(c.Context())
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			var rows [][]string
			for _, s := range all {
				rows = append(rows, []string{s.DisplayName, s.Name, s.State})
			}
			return table(c.OutOrStdout(), "There is no subscription that you may read.", []string{"NAME", "ID", "STATE"}, rows)
		},
	}, true)
}

func subscriptionCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var in string
	c := m.bind(&cobra.Command{
		Use: "create NAME", Short: "Make a subscription and print its id", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			p := map[string]any{"displayName": args[0]}
			if in != "" {
				parent, err := managementGroupID(in)
				if err != nil {
					return fmt.Errorf("--in: %w", err)
				}
				p["additionalProperties"] = map[string]string{"managementGroupId": parent.String()}
			}
			// An alias makes a request that is sent twice make one; this one is not.
			alias := "/providers/Microsoft.Subscription/aliases/" + uuid.NewString()
			var made node[struct {
				SubscriptionID string `json:"subscriptionId"`
			}]
			if _, err := a.arm(c.Context(), http.MethodPut, armURL(alias), map[string]any{"properties": p}, &made); err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), made)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), made.Properties.SubscriptionID)
			return err
		},
	}, true)
	c.Flags().StringVar(&in, "in", "", "management group that it is in (default: the root group)")
	return c
}

// onSubscription posts an action of a subscription.
func (m *managing) onSubscription(c *cobra.Command, name, action string, body any) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.subscription(c.Context(), name)
	if err != nil {
		return err
	}
	resp, err := a.arm(c.Context(), http.MethodPost, armPath(id, "providers/Microsoft.Subscription", action), body, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func subscriptionRename(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "rename SUBSCRIPTION NAME", Short: "Give a subscription another name", Args: exactly("SUBSCRIPTION", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onSubscription(c, args[0], "rename", map[string]string{"subscriptionName": args[1]})
		},
	}, false)
}

func subscriptionCancel(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "cancel SUBSCRIPTION", Short: "Delete a subscription that nothing is in", Args: oneArg("SUBSCRIPTION"),
		RunE: func(c *cobra.Command, args []string) error { return m.onSubscription(c, args[0], "cancel", nil) },
	}, false)
}
