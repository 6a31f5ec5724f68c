package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/agent/capture"
)

// captureCommand looks after what capture leaves in the kernel.
func captureCommand(stdout io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "capture",
		Short: "Look after the capture of 169.254.169.254, which outlives the agent",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(offCommand(stdout))
	return cmd
}

func offCommand(stdout io.Writer) *cobra.Command {
	var bpffs string
	cmd := &cobra.Command{
		Use:   "off",
		Short: "Take the capture out of the kernel; the agent must be stopped",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := capture.Remove(bpffs); err != nil {
				return err
			}
			fmt.Fprintf(stdout, "%s is not captured any more\n", capture.Address)
			return nil
		},
	}
	cmd.Flags().StringVar(&bpffs, "bpffs", capture.DefaultBPFFS, "where the bpf filesystem is mounted, as in the configuration")
	return cmd
}
