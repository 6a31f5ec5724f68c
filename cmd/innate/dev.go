package main

import (
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/dev"
)

func devCommand(f *flags) *cobra.Command {
	var opt dev.Options
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system on this machine, with a sample to try",
		Long: `Run the control plane and an agent in one process, on loopback, with data that is kept between starts.

The sample: virtual machine vm1, whose identity may read the secrets of the vault demo; vm2, which has no
identity; function app app1, whose own identity may not read them but whose user-assigned identity "shared"
may; and ops, a build agent whose identity owns the tenant.

It prints what to try and, when everything is up, a line that begins with "ready".`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			opt.Data, opt.Out = dir, c.OutOrStdout()
			return dev.Run(c.Context(), opt)
		},
	}
	c.Flags().IntVar(&opt.Port, "port", 8443, "TLS port; 0 picks a free one")
	c.Flags().StringVar(&opt.Domain, "domain", "innate.localhost", "parent of all host names")
	c.Flags().BoolVar(&opt.Reset, "reset", false, "start over: delete innate dev's own files in the data folder, secrets included; other files stay")
	c.Flags().BoolVar(&opt.NoSample, "no-sample", false, "make no sample (ops is made all the same)")
	c.Flags().BoolVar(&opt.Capture, "capture", false, "answer at 169.254.169.254 too, the programs of innate run alone, by the kernel's word of who asks (needs root)")
	c.Flags().StringSliceVar(&opt.CaptureCgroups, "capture-cgroup", nil, "with --capture: capture only what runs in this control group (cgroup v2), and under innate run; else all of this machine")
	c.Flags().StringVar(&opt.TypesFile, "types", "", "YAML file with more resource types (resource_types, as in innated's configuration)")
	c.Flags().BoolVar(&opt.PublicNames, "public-names", false, "answer for the public cloud's own names too, to programs of innate run --public-names")
	c.Flags().BoolVar(&opt.WriteHosts, "write-hosts", false, "keep a marked block in the hosts file while running (needs root)")
	return c
}
