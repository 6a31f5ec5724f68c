package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func hostCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "host",
		Short: "Machines that run innate-agent",
		Long: `Machines that run innate-agent. A host is enrolled once, with a one-time token; after that it has a key of its own,
and can be what is placed on it and nothing else.

A host is named by its name, in the group of this machine's host, or by its resource ID.`,
		Example: "  innate host create web7\n  innate host enrol-token web7 --file token   # carry it to web7\n  innate host evict web7                       # its certificates count no more",
	}
	c.AddCommand(hostList(f), hostShow(f), hostCreate(f), hostToken(f), hostEvict(f), hostDelete(f))
	return group(c)
}

type hostNode = node[map[string]any]

func hostList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list", Short: "List the hosts of the subscription", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			sub, err := resource.Parse("/subscriptions/" + a.in.SubscriptionID)
			if err != nil {
				return err
			}
			hosts, err := list[hostNode](c.Context(), a, sub, "providers/Innate.Fleet/hosts")
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), hosts)
			}
			var rows [][]string
			for _, h := range hosts {
				rows = append(rows, []string{h.Name, h.ID})
			}
			return table(c.OutOrStdout(), "There is no host; innate host create NAME makes one.", []string{"NAME", "ID"}, rows)
		},
	}, true)
}

func hostShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show [NAME]", Short: "Show a host and what is placed on it (default: this machine)", Args: atMostOne("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			id, err := a.host(first(args))
			if err != nil {
				return err
			}
			var h map[string]any
			if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &h); err != nil {
				return err
			}
			placements, err := placementsOf(c.Context(), a, id)
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), map[string]any{"host": h, "placements": placements})
			}
			fmt.Fprintln(c.OutOrStdout(), id)
			return printPlacements(c.OutOrStdout(), placements)
		},
	}, true)
}

func hostCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "create NAME", Short: "Make a host, which a machine can enrol as", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withHost(c, args[0], func(a *acting, id resource.ID) error {
				return m.make(c, a, id, map[string]any{}, false)
			})
		},
	}, true)
}

func hostToken(f *flags) *cobra.Command {
	m := managing{flags: f}
	var file string
	c := m.bind(&cobra.Command{
		Use: "enrol-token NAME", Short: "Make a one-time token that turns a machine into the host", Args: oneArg("NAME"),
		Long: `Make a one-time token that turns a machine into the host. Whoever has it first is the host: give it to the machine
and nobody else, best as a file (enrolment_token_file of innate-agent). It is good once, and not for long.`,
		RunE: func(c *cobra.Command, args []string) error {
			return m.withHost(c, args[0], func(a *acting, id resource.ID) error {
				var t struct {
					Token   string `json:"token"`
					Expires string `json:"expires"`
				}
				if _, err := a.arm(c.Context(), http.MethodPost, armPath(id, "createEnrolmentToken"), nil, &t); err != nil {
					return err
				}
				switch {
				case file != "":
					if err := renameio.WriteFile(file, []byte(t.Token+"\n"), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
						return fmt.Errorf("writing the token: %w", err)
					}
				case m.asJSON:
					return printJSON(c.OutOrStdout(), t)
				default:
					fmt.Fprintln(c.OutOrStdout(), t.Token)
				}
				_, err := fmt.Fprintf(os.Stderr, "innate: the token is good once, until %s\n", t.Expires)
				return err
			})
		},
	}, true)
	c.Flags().StringVar(&file, "file", "", "write the token to this file, which only its owner may read, and print nothing")
	return c
}

func hostEvict(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "evict NAME", Short: "End every certificate and enrolment token of a host, at once", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withHost(c, args[0], func(a *acting, id resource.ID) error {
				resp, err := a.arm(c.Context(), http.MethodPost, armPath(id, "evict"), nil, nil)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			})
		},
	}, false)
}

func hostDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "delete NAME", Short: "Delete a host with its placements, certificates and tokens", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withHost(c, args[0], func(a *acting, id resource.ID) error { return a.remove(c.Context(), id) })
		},
	}, false)
}

// withHost does something with the host of that name.
func (m *managing) withHost(c *cobra.Command, name string, do func(*acting, resource.ID) error) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.host(name)
	if err != nil {
		return err
	}
	return do(a, id)
}

// atMostOne takes an argument or none.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(c, "at most one argument was expected, %s; there are %d", what, len(args))
		}
		return nil
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
