package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/resource"
)

func placementCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "placement",
		Short: "Which callers of a host are which resource",
		Long: `Which callers of a host are which resource: what comes through a door of the host, from callers that match all
selectors, is the resource. Of several that match, the one with the most selectors counts.`,
		Example: "  innate placement create shop --door host --resource app1 --selector systemd:id:shop.service\n  innate placement list",
	}
	c.AddCommand(placementList(f), placementCreate(f), placementDelete(f))
	return group(c)
}

// placementProperties are the properties of a placement.
type placementProperties struct {
	Door       string   `json:"door"`
	Selectors  []string `json:"selectors,omitempty"`
	ResourceID string   `json:"resourceId"`
}

type placementNode = node[placementProperties]

func placementsOf(ctx context.Context, a *acting, host resource.ID) ([]placementNode, error) {
	return list[placementNode](ctx, a, host, "placements")
}

func printPlacements(w io.Writer, placements []placementNode) error {
	var rows [][]string
	for _, p := range placements {
		selectors := strings.Join(p.Properties.Selectors, ",")
		if selectors == "" {
			selectors = "any"
		}
		rows = append(rows, []string{p.Name, p.Properties.Door, selectors, shortTarget(p.Properties.ResourceID)})
	}
	return table(w, "Nothing is placed on this host; innate placement create places a resource.", []string{"NAME", "DOOR", "SELECTORS", "RESOURCE"}, rows)
}

// hostFlag adds --host.
func hostFlag(c *cobra.Command, host *string) {
	c.Flags().StringVar(host, "host", "", "name or resource ID of the host (default: this machine)")
}

func placementList(f *flags) *cobra.Command {
	m := managing{flags: f}
	var host string
	c := m.bind(&cobra.Command{
		Use: "list", Short: "List what is placed on a host", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return m.withHost(c, host, func(a *acting, id resource.ID) error {
				placements, err := placementsOf(c.Context(), a, id)
				if err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), placements)
				}
				return printPlacements(c.OutOrStdout(), placements)
			})
		},
	}, true)
	hostFlag(c, &host)
	return c
}

func placementCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var host, to string
	var p placementProperties
	var replace bool
	c := m.bind(&cobra.Command{
		Use: "create NAME --door DOOR --resource RESOURCE [--selector S]...", Short: "Place a resource on a host", Args: oneArg("NAME"),
		Long: `Place a resource on a host. It takes the right to write the resource: whoever places it has programs run as it.

Without a selector every caller of the door is the resource. The door "run" is programs started with innate run.`,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			if p.Door == "" || to == "" {
				return usage(c, "say what is placed where: --door and --resource")
			}
			if err := checkSelectors(p.Selectors); err != nil {
				return err
			}
			return m.withHost(c, host, func(a *acting, id resource.ID) error {
				target, err := a.resource(to)
				if err != nil {
					return err
				}
				p.ResourceID = target.String()
				at, err := id.Child("placements", args[0])
				if err != nil {
					return err
				}
				return m.make(c, a, at, map[string]any{"properties": p}, replace)
			})
		},
	}, true)
	hostFlag(c, &host)
	c.Flags().StringVar(&p.Door, "door", "", "name of the agent's door")
	c.Flags().StringVar(&to, "resource", "", "sample resource or resource ID that the callers are")
	c.Flags().StringArrayVar(&p.Selectors, "selector", nil, "what must hold of a caller, for example systemd:id:shop.service; may be repeated, all must hold")
	c.Flags().BoolVar(&replace, "replace", false, "write it anew if it is there already")
	completeSelectors(c)
	_ = c.RegisterFlagCompletionFunc("resource", completeFlag(f)) // the flag exists: three lines above
	return c
}

func placementDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	var host string
	c := m.bind(&cobra.Command{
		Use: "delete NAME", Short: "Take a placement away", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withHost(c, host, func(a *acting, id resource.ID) error {
				at, err := id.Child("placements", args[0])
				if err != nil {
					return err
				}
				return a.remove(c.Context(), at)
			})
		},
	}, false)
	hostFlag(c, &host)
	return c
}

// checkSelectors says what is wrong before anything is asked.
func checkSelectors(selectors []string) error {
	for _, s := range selectors {
		if _, err := evidence.Parse(s); err != nil {
			return fmt.Errorf("--selector: %w", err)
		}
	}
	return nil
}

// completeSelectors completes what a selector begins with.
func completeSelectors(c *cobra.Command) {
	_ = c.RegisterFlagCompletionFunc("selector", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return evidence.Prefixes(), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}) // every caller has the flag
}
