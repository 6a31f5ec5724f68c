// Command innate is Innate at a shell: the whole system on a laptop (innate
// dev), programs run as workloads (innate run), tokens, secrets, the record.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/dev"
	"github.com/innate-id/innate/internal/server"
)

func main() { os.Exit(run()) }

// exitCode ends the program with the exit code of a child, silently.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// failure ends the program with a code of its own, and says why.
type failure struct {
	code int
	err  error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil || errors.Is(err, errGoesOn) {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "innate:", lines(err.Error()))
	if f, ok := errors.AsType[failure](err); ok {
		return f.code
	}
	return 1
}

// lines keeps the text of an error, which may be a server's, from steering a
// terminal. It may have more than one line.
func lines(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r) {
			return '.'
		}
		return r
	}, strings.ReplaceAll(s, "\r\n", "\n"))
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
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, "%w", err) })
	c.PersistentFlags().StringVar(&f.data, "data", "", "data folder of innate dev (default: $INNATE_DATA, else innate in the user's state directory)")
	c.AddCommand(devCommand(&f), runCommand(&f), execCommand(&f), envCommand(&f), tokenCommand(&f), secretCommand(&f), auditCommand(&f),
		hostCommand(&f), placementCommand(&f), ruleCommand(&f), identityCommand(&f), resourceCommand(&f), roleCommand(&f), groupCommand(&f), federationCommand(&f), orphansCommand(&f),
		lockCommand(&f), tagCommand(&f), moveCommand(&f), subscriptionCommand(&f), managementGroupCommand(&f), operationCommand(&f), accessCommand(&f), doctorCommand(&f))
	return group(c)
}

// group makes c a command that does nothing but hold others. A word that is
// none of them is an error: a script that misspells one must not go on.
func group(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.SuggestionsMinimumDistance = 2
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		if like := c.SuggestionsFor(args[0]); len(like) > 0 {
			return usage(c, "there is no command %q; did you mean %q?", c.CommandPath()+" "+args[0], c.CommandPath()+" "+like[0])
		}
		return usage(c, "there is no command %q", c.CommandPath()+" "+args[0])
	}
	return c
}

// noArgs takes no argument.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(c, "no argument was expected; there is %q", args[0])
	}
	return nil
}

// exactly takes as many arguments as what names.
func exactly(what ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return usage(c, "%d arguments were expected, %s; there are %d", len(what), strings.Join(what, " and "), len(args))
		}
		return nil
	}
}

// oneArg takes one argument, which is what.
func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(c, "one argument was expected, %s; there are %d", what, len(args))
		}
		return nil
	}
}

// usage is an error in the command line: it says where the right words are.
func usage(c *cobra.Command, format string, args ...any) error {
	return fmt.Errorf(format+"; see \"%s --help\"", append(args, c.CommandPath())...)
}
