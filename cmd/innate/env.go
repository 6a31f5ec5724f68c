package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/dev"
)

func envCommand(f *flags) *cobra.Command {
	var format string
	var public bool
	c := &cobra.Command{
		Use:   "env NAME",
		Short: "Print the variables that make a program run as a sample resource",
		Long: `Print the variables that make a program run as a sample resource, for an editor or a shell:

  eval "$(innate env vm1)"

IDENTITY_HEADER among them is a secret: who has it can act as the resource until innate dev ends. Prefer
"innate run", whose secret ends with the program.`,
		Args: oneArg("a sample resource's name (vm1)"),
		RunE: func(c *cobra.Command, args []string) error {
			in, dir, err := f.instance()
			if err != nil {
				return err
			}
			id, err := in.Resolve(args[0])
			if err != nil {
				return err
			}
			for _, w := range in.Resources {
				if w.ID != id {
					continue
				}
				env := w.Env
				if public {
					if env, err = in.Public(dir, env, dev.UserNoProxy()); err != nil {
						return err
					}
				}
				return printEnv(c.OutOrStdout(), format, env)
			}
			return fmt.Errorf("%s is not of the sample; \"innate run %s -- COMMAND\" runs a program as it", id, id)
		},
		ValidArgsFunction: completeNames(f),
	}
	c.Flags().BoolVar(&public, "public-names", false, publicNamesUsage)
	c.Flags().StringVar(&format, "format", "sh", "sh, dotenv or json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"sh", "dotenv", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists: one line above
	return c
}

func printEnv(w io.Writer, format string, env map[string]string) error {
	if format != "sh" { // no other can take a variable away
		env = maps.Clone(env)
		maps.DeleteFunc(env, func(_, v string) bool { return v == "" })
	}
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(env)
	case "sh", "dotenv":
		for _, k := range slices.Sorted(maps.Keys(env)) {
			line := k + "=" + dotenvQuote(env[k])
			switch {
			case format == "sh" && env[k] == "":
				line = "unset " + k
			case format == "sh":
				line = "export " + k + "='" + strings.ReplaceAll(env[k], "'", `'\''`) + "'"
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("--format %q is not one of sh, dotenv and json", format)
}

// dotenvQuote quotes a value for .env files; readers agree on double quotes
// with backslashes.
func dotenvQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`", "\n", `\n`).Replace(s) + `"`
}
