// Command innate-agent answers the programs of one host with the tokens of
// the identities that the control plane placed there.
//
//	innate-agent --config /etc/innate/agent.yaml [--check]
//	innate-agent capture off
//
// It prints one line that begins with "ready" when it answers, logs to
// standard error, and stops in good order on SIGTERM. On SIGHUP it looks
// whether its program and configuration, as they are on disk now, are good, and
// if so replaces itself by them with its sockets open (upgrade.go). It exits
// with 0 when it was asked to stop, 1 when it could not go on, 2 when it was
// started wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// misuse is a fault in the command line or the configuration.
type misuse struct{ err error }

func (m misuse) Error() string { return m.err.Error() }
func (m misuse) Unwrap() error { return m.err }

// run is the program; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout, stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "innate-agent: %v\n", err)
	if _, ok := errors.AsType[misuse](err); ok {
		return 2
	}
	return 1
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:           "innate-agent --config FILE",
		Short:         "Answer this host's programs with their identities' tokens",
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return misuse{errors.New("no configuration is given: use --config FILE")}
			}
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			program, err := self()
			if err != nil {
				return err
			}
			p := &process{program: program, file: file, hangup: hangup, stdout: stdout}
			if err := p.load(stderr); err != nil {
				return misuse{err}
			}
			if check {
				fmt.Fprintf(stdout, "%s is good\n", file)
				return nil
			}
			return p.serve(cmd.Context())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{err} })
	cmd.Flags().StringVar(&file, "config", "", "the configuration, a YAML file")
	cmd.Flags().BoolVar(&check, "check", false, "only check the configuration")
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(captureCommand(stdout))
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse{fmt.Errorf("argument %q: none is expected", args[0])}
	}
	return nil
}
