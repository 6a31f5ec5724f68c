package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/innate-id/innate/client"
)

func secretCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Read and write secrets, through a vault",
		Long: `Read and write secrets, through a vault and its role checks.

A vault is a name ("demo") or a URL. Within "innate run" the commands act as that workload; from a plain shell as
ops, or as --as says.`,
	}
	var as, clientID string
	c.PersistentFlags().StringVar(&clientID, "client-id", "", "client id of a user-assigned identity")
	open := func(c *cobra.Command, place string) (*acting, *client.Vault, string, error) {
		vault, name, _ := strings.Cut(place, "/")
		if strings.HasPrefix(place, "https://") {
			vault, name = splitURL(place)
		}
		if strings.Contains(name, "/") {
			return nil, nil, "", fmt.Errorf("%q is not VAULT/NAME: a secret's name has no slash, and a version cannot be given", place)
		}
		a, err := actAs(c.Context(), f, as, "ops", clientID)
		if err != nil {
			return nil, nil, "", err
		}
		v, err := a.vault(vault)
		if err != nil {
			a.release()
		}
		return a, v, name, err
	}
	for _, sub := range []*cobra.Command{secretGet(open), secretSet(open), secretList(open)} {
		asFlag(sub, f, &as, "ops")
		c.AddCommand(sub)
	}
	return group(c)
}

// splitURL splits https://vault/secrets/name or https://vault into vault and name.
func splitURL(s string) (vault, name string) {
	rest := strings.TrimPrefix(s, "https://")
	host, path, _ := strings.Cut(rest, "/")
	return "https://" + host, strings.TrimPrefix(strings.Trim(path, "/"), "secrets/")
}

// vault finds a vault by its name or URL.
func (a *acting) vault(name string) (*client.Vault, error) {
	if strings.HasPrefix(name, "https://") {
		return &client.Vault{URL: name, Identity: a.id, HTTP: a.http}, nil
	}
	if name == "" || strings.ContainsAny(name, "/.:") {
		return nil, fmt.Errorf("%q is not the name of a vault, nor its https:// URL", name)
	}
	if a.in == nil {
		return nil, fmt.Errorf("innate dev is not running here, so the vault must be given by its https:// URL")
	}
	url, ok := a.in.Vaults[strings.ToLower(name)]
	if !ok { // made since innate dev started
		url = strings.Replace(a.in.Endpoints.Management, "https://management.", "https://"+strings.ToLower(name)+".vault.", 1)
	}
	return &client.Vault{URL: url, Identity: a.id, HTTP: a.http}, nil
}

// hint adds to an error about a vault that is not there which ones are.
func (a *acting) hint(err error) error {
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "VaultNotFound" || a.in == nil || len(a.in.Vaults) == 0 {
		return err
	}
	return fmt.Errorf("%w; the running instance began with: %s", err, strings.Join(slices.Sorted(maps.Keys(a.in.Vaults)), ", "))
}

type opener func(c *cobra.Command, place string) (*acting, *client.Vault, string, error)

func secretGet(open opener) *cobra.Command {
	return &cobra.Command{
		Use: "get VAULT/NAME", Short: "Print a secret's latest value", Args: oneArg("VAULT/NAME"),
		Example: "  innate secret get demo/greeting",
		RunE: func(c *cobra.Command, args []string) error {
			a, v, name, err := open(c, args[0])
			if err != nil {
				return err
			}
			defer a.release()
			if name == "" {
				return errors.New("name the secret: VAULT/NAME")
			}
			s, err := v.Get(c.Context(), name)
			if err != nil {
				return a.hint(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), s.Value)
			return err
		},
	}
}

func secretSet(open opener) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "set VAULT/NAME", Short: "Make a new version of a secret", Args: oneArg("VAULT/NAME"),
		Long: `Make a new version of a secret. The value comes from standard input or a file, never from the command line,
where every user of the machine could read it. At a terminal it is asked for without echo; one line end at
the end of piped input is taken off.`,
		Example: "  printf %s \"$VALUE\" | innate secret set demo/db-password\n  innate secret set demo/tls-key --file key.pem",
		RunE: func(c *cobra.Command, args []string) error {
			if _, name, _ := strings.Cut(strings.TrimPrefix(args[0], "https://"), "/"); name == "" {
				return errors.New("name the secret: VAULT/NAME")
			}
			value, err := readValue(c, file)
			if err != nil {
				return err
			}
			a, v, name, err := open(c, args[0])
			if err != nil {
				return err
			}
			defer a.release()
			s, err := v.Set(c.Context(), name, value)
			if err != nil {
				return a.hint(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), s.ID)
			return err
		},
	}
	c.Flags().StringVar(&file, "file", "", "read the value from this file, as it is")
	return c
}

const maxValue = 25600

func readValue(c *cobra.Command, file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the value: %w", err)
		}
		return string(b), nil
	}
	if in, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(c.ErrOrStderr(), "Value: ")
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(c.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("reading the value: %w", err)
		}
		return string(b), nil
	}
	b, err := io.ReadAll(io.LimitReader(c.InOrStdin(), maxValue+3))
	if err != nil {
		return "", fmt.Errorf("reading the value: %w", err)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if s == "" {
		return "", errors.New("standard input has no value (to set an empty one, give an empty file with --file)")
	}
	if len(s) > maxValue {
		return "", fmt.Errorf("the value is over %d bytes long", maxValue)
	}
	return s, nil
}

func secretList(open opener) *cobra.Command {
	return &cobra.Command{
		Use: "list VAULT", Short: "List a vault's secrets, without values", Args: oneArg("VAULT"),
		RunE: func(c *cobra.Command, args []string) error {
			a, v, name, err := open(c, args[0])
			if err != nil {
				return err
			}
			defer a.release()
			if name != "" {
				return errors.New("list takes a vault, without a secret's name")
			}
			return a.hint(v.List(c.Context(), func(s client.Secret) error {
				_, err := fmt.Fprintln(c.OutOrStdout(), s.Name())
				return err
			}))
		},
	}
}
