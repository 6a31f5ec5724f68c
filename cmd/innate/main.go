// Command innate is Innate at a shell: the whole system on a laptop (innate
// dev), programs run as workloads (innate run), tokens, secrets, the record.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/dev"
	"github.com/innate-id/innate/internal/server"
)

func main() { os.Exit(run()) }

// exitCode ends the program with the exit code of a child, silently.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "innate:", err)
	return 1
}

// flags are those of every command.
type flags struct{ data string }

// dir is the data folder.
func (f *flags) dir() (string, error) { return dev.DataDir(f.data) }

// instance is the running innate dev, and its folder.
func (f *flags) instance() (dev.Instance, string, error) {
	dir, err := f.dir()
	if err != nil {
		return dev.Instance{}, "", err
	}
	in, err := dev.ReadInstance(dir)
	return in, dir, err
}

func root() *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:           "innate",
		Short:         "Managed identities for machines that you own",
		Long:          "Innate gives every workload an identity, so that nobody keeps credentials in configuration files.\n\nBegin with \"innate dev\": the whole system, on this machine, with a sample to try.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       server.Version,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&f.data, "data", "", "data folder of innate dev (default: $INNATE_DATA, else innate in the user's state directory)")
	c.AddCommand(devCommand(&f), runCommand(&f), envCommand(&f), tokenCommand(&f), secretCommand(&f), auditCommand(&f))
	return c
}
