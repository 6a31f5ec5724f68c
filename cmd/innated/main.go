// Command innated is the control plane: token service, management API, vaults
// and the agents' API, over one SQL database. Any number of replicas may run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "innated:", err)
		return 1
	}
	return 0
}

func root() *cobra.Command {
	var config string
	var check bool
	c := &cobra.Command{
		Use:           "innated --config FILE",
		Short:         "The control plane of Innate",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       server.Version,
		Args:          cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.ReadConfig(config)
			if err != nil {
				return err
			}
			if check {
				if err := cfg.CheckFiles(); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.OutOrStdout(), "the configuration is valid")
				return err
			}
			return serve(c, cfg)
		},
	}
	c.PersistentFlags().StringVar(&config, "config", "/etc/innate/innated.yaml", "configuration file")
	c.Flags().BoolVar(&check, "check", false, "check the configuration and the files that it names, and exit")
	c.AddCommand(bootstrapCommand(&config), auditCommand(&config), checkCommand(&config))
	return c
}

func logger(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

func serve(c *cobra.Command, cfg server.Config) error {
	if _, err := os.Stat(cfg.RootKeyFile); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the root key %s is missing; a new installation begins with: innated bootstrap", cfg.RootKeyFile)
	}
	s, err := server.Open(c.Context(), cfg, logger(c.ErrOrStderr()), time.Now)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.OutOrStdout(), "ready: %s on %s\n", s.Names.Authority(), s.Addr()); err != nil {
		s.Close()
		return err
	}
	return s.Serve(c.Context())
}

// bootstrapped is what bootstrap prints.
type bootstrapped struct {
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
	ResourceGroup  string `json:"resourceGroup"`
	// Host and Owner are the resource IDs of the first machine and of the
	// build agent that owns the tenant.
	Host  string `json:"host"`
	Owner string `json:"owner"`
	// EnrolmentToken enrols the host once; absent with --token-file.
	EnrolmentToken string    `json:"enrolmentToken,omitempty"`
	TokenExpires   time.Time `json:"enrolmentTokenExpires"`
	// CA is the local CA's certificate in PEM, if there is one.
	CA string `json:"ca,omitempty"`
}

func bootstrapCommand(config *string) *cobra.Command {
	var q server.Bootstrap
	var to outputs
	c := &cobra.Command{
		Use:   "bootstrap --host NAME",
		Short: "Begin an installation: root key, tenant, first host, owner",
		Long: `Begin an installation. It makes, where missing, the root key, a tenant with a subscription, a first host, and a
build agent "ops" on that host whose identity owns the tenant; and it makes a one-time token that enrols the
host. From there everything is done with roles, by programs run as ops on that host:

  innate run --agent-socket /run/innate/agent.sock OWNER-ID -- COMMAND

Run again, it completes what a run that was cut short left out, and makes a new token: that is also the way back
in when the first host is lost. With a SQLite database, stop innated first.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := server.ReadConfig(*config)
			if err != nil {
				return err
			}
			return bootstrap(c, cfg, q, to)
		},
	}
	c.Flags().StringVar(&q.Host, "host", "", "name of the first host")
	c.Flags().StringVar(&q.TenantName, "name", "innate", "name of the tenant")
	c.Flags().StringVar(&q.Group, "group", "innate", "resource group of the first host")
	c.Flags().StringVar(&q.Location, "location", "local", "location of the resource group")
	c.Flags().StringArrayVar(&q.Selectors, "selector", []string{"unix:uid:0"}, "which users of the host may run programs as ops")
	c.Flags().StringVar(&to.token, "token-file", "", "write the one-time token to this file (0600) instead of printing it")
	c.Flags().StringVar(&to.ca, "ca-file", "", "write the local CA's certificate to this file as well, to be carried to the hosts")
	_ = c.MarkFlagRequired("host") // the flag exists: seven lines above
	return c
}

// outputs are the files that bootstrap writes; "" is none.
type outputs struct{ token, ca string }

func bootstrap(c *cobra.Command, cfg server.Config, q server.Bootstrap, to outputs) error {
	if to.ca != "" && !cfg.TLS.LocalCA {
		return errors.New("--ca-file: there is no local CA in this configuration (tls.local_ca); hosts trust who issued tls.certificate_file")
	}
	if _, err := os.Stat(cfg.RootKeyFile); errors.Is(err, fs.ErrNotExist) {
		if _, err := seal.CreateFile(cfg.RootKeyFile); err != nil {
			return err
		}
	}
	cfg.Listen = "127.0.0.1:0" // nothing is served; with PostgreSQL, innated may be running already
	s, err := server.Open(c.Context(), cfg, logger(c.ErrOrStderr()), time.Now)
	if err != nil {
		return err
	}
	defer s.Close()
	q.Owner = "ops"
	if q.Tenant, q.Subscription, err = s.Only(c.Context()); err != nil {
		return err
	}
	b, err := s.Bootstrap(c.Context(), q)
	if err != nil {
		return err
	}
	token, expires, err := s.Enrolment(c.Context(), b.Tenant, b.Host)
	if err != nil {
		return err
	}
	out := bootstrapped{
		TenantID: b.Tenant, SubscriptionID: b.Subscription, ResourceGroup: q.Group, Host: b.Host.String(), Owner: b.Owner.String(),
		EnrolmentToken: token, TokenExpires: expires.UTC().Truncate(time.Second),
	}
	if s.CA != nil {
		out.CA = string(s.CA.PEM())
	}
	if err := to.write(&out); err != nil {
		return err
	}
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// write writes the files. A token that is in a file is not printed as well.
func (to outputs) write(out *bootstrapped) error {
	if to.ca != "" {
		if err := renameio.WriteFile(to.ca, []byte(out.CA), 0o644); err != nil {
			return fmt.Errorf("writing the CA's certificate: %w", err)
		}
	}
	if to.token != "" {
		if err := renameio.WriteFile(to.token, []byte(out.EnrolmentToken), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
			return fmt.Errorf("writing the token: %w", err)
		}
		out.EnrolmentToken = ""
	}
	return nil
}
