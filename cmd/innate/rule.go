package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/resource"
)

func ruleCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "rule",
		Short: "Which programs of a resource may have which identity",
		Long: `Which programs of a resource may have which identity, for which APIs (caller rules).

While a resource has no rule, every caller that is placed as the resource may have every identity of it. With one rule
that is enforced, everything that no rule allows is refused. Begin with --mode audit: it refuses nothing, and the
record says what it would.`,
		Example: "  innate rule create app1 shop --selector systemd:id:shop.service --mode audit\n  innate rule create app1 worker --executable /usr/local/bin/worker --identity shared --audience https://vault.azure.net\n  innate rule list app1",
	}
	c.AddCommand(ruleList(f), ruleShow(f), ruleCreate(f), ruleDelete(f))
	return group(c)
}

// ruleProperties are the properties of a caller rule.
type ruleProperties struct {
	Selectors []string `json:"selectors"`
	Identity  string   `json:"identity,omitempty"`
	Audiences []string `json:"audiences,omitempty"`
	Grade     string   `json:"grade,omitempty"`
	Mode      string   `json:"mode,omitempty"`
	// Warnings are the server's.
	Warnings []string `json:"warnings,omitempty"`
}

type ruleNode = node[ruleProperties]

// rule is what it judges callers by.
func (p ruleProperties) rule(name string) (evidence.Rule, error) {
	r := evidence.Rule{Name: name, Identity: p.Identity, Audiences: p.Audiences, Enforce: p.Mode != fleetapi.ModeAudit}
	for _, s := range p.Selectors {
		r.Selectors = append(r.Selectors, evidence.Selector(s))
	}
	if p.Grade == "" {
		return r, nil
	}
	var err error
	r.Grade, err = evidence.ParseGrade(p.Grade)
	return r, err
}

func rulesOf(ctx context.Context, a *acting, on resource.ID) ([]ruleNode, error) {
	return list[ruleNode](ctx, a, on, "providers/Innate.Fleet/callerRules")
}

// ruleID is the resource ID of a rule on a resource.
func ruleID(on resource.ID, name string) (resource.ID, error) {
	if name == "" || strings.Contains(name, "/") {
		return resource.ID{}, fmt.Errorf("%q is not the name of a rule: it has no slash", name)
	}
	return resource.Parse(on.String() + "/providers/Innate.Fleet/callerRules/" + name)
}

// onResource does something with a resource.
func (m *managing) onResource(c *cobra.Command, name string, do func(*acting, resource.ID) error) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.resource(name)
	if err != nil {
		return err
	}
	return do(a, id)
}

func ruleList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list RESOURCE", Short: "List the caller rules of a resource", Args: oneArg("RESOURCE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onResource(c, args[0], func(a *acting, on resource.ID) error {
				rules, err := rulesOf(c.Context(), a, on)
				if err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), rules)
				}
				var rows [][]string
				for _, r := range rules {
					p := r.Properties
					rows = append(rows, []string{r.Name, p.mode(), strings.Join(p.Selectors, ","), shortTarget(p.Identity), strings.Join(p.Audiences, ","), p.Grade})
				}
				return table(c.OutOrStdout(), args[0]+" has no caller rule: every caller placed as it may have every identity of it.",
					[]string{"NAME", "MODE", "SELECTORS", "IDENTITY", "AUDIENCES", "GRADE"}, rows)
			})
		},
	}, true)
}

func (p ruleProperties) mode() string {
	if p.Mode == "" {
		return fleetapi.ModeEnforce
	}
	return p.Mode
}

func ruleShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show RESOURCE RULE", Short: "Show a caller rule", Args: exactly("RESOURCE", "RULE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return m.onResource(c, args[0], func(a *acting, on resource.ID) error {
				id, err := ruleID(on, args[1])
				if err != nil {
					return err
				}
				var raw map[string]any
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &raw); err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), raw)
				}
				var r ruleNode
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &r); err != nil {
					return err
				}
				return printRule(c.OutOrStdout(), r)
			})
		},
	}, true)
}

func printRule(w io.Writer, r ruleNode) error {
	p := r.Properties
	var b strings.Builder
	line := func(name, value, absent string) {
		if value == "" {
			value = absent
		}
		fmt.Fprintf(&b, "%-10s %s\n", name, value)
	}
	line("rule", word(r.Name), "")
	line("mode", word(p.mode()), "")
	for _, s := range p.Selectors {
		line("selector", word(s), "")
	}
	line("identity", shown(p.Identity), "any that the resource has")
	if len(p.Audiences) == 0 {
		line("audience", "", "any")
	}
	for _, a := range p.Audiences {
		line("audience", word(a), "")
	}
	line("grade", p.Grade, "any")
	for _, x := range p.Warnings {
		line("warning", x, "")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shown is a word of a table; nothing stays nothing.
func shown(s string) string {
	if s == "" {
		return ""
	}
	return word(s)
}

func ruleCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var p ruleProperties
	var executable, identity string
	var replace bool
	c := m.bind(&cobra.Command{
		Use: "create RESOURCE RULE --selector S... [--identity I] [--audience A]... [--grade G] [--mode audit|enforce]", Short: "Make a caller rule on a resource",
		Args: exactly("RESOURCE", "RULE"), ValidArgsFunction: completeNames(f), DisableFlagsInUseLine: true,
		Long: `Make a caller rule on a resource: callers that match all selectors may have the identity for the audiences.

The first rule that is enforced closes the resource for everybody else. --mode audit tries it out: nothing is refused,
and "innate audit tail" shows what would be.`,
		RunE: func(c *cobra.Command, args []string) error {
			if executable != "" {
				s, err := digest(c, executable)
				if err != nil {
					return err
				}
				p.Selectors = append(p.Selectors, s)
			}
			if len(p.Selectors) == 0 {
				return usage(c, "say which callers the rule is for: --selector or --executable")
			}
			if err := checkSelectors(p.Selectors); err != nil {
				return err
			}
			return m.onResource(c, args[0], func(a *acting, on resource.ID) error {
				id, err := ruleID(on, args[1])
				if err != nil {
					return err
				}
				if p.Identity, err = a.identity(on, identity); err != nil {
					return err
				}
				var made ruleNode
				if err := a.create(c.Context(), id, map[string]any{"properties": p}, replace, &made); err != nil {
					return err
				}
				for _, w := range made.Properties.Warnings {
					fmt.Fprintf(c.ErrOrStderr(), "innate: warning: %s\n", w)
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), made)
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), id)
				return err
			})
		},
	}, true)
	fl := c.Flags()
	fl.StringArrayVar(&p.Selectors, "selector", nil, "what must hold of a caller, for example systemd:id:shop.service; may be repeated, all must hold")
	fl.StringVar(&executable, "executable", "", "a program on this machine: its digest must be the caller's (unix:sha256)")
	fl.StringVar(&identity, "identity", "", "the identity that it gives, also to who names none: a user-assigned identity's name or resource ID, or \"system\" (default: any)")
	fl.StringArrayVar(&p.Audiences, "audience", nil, "an API that it is for, for example https://vault.azure.net; may be repeated (default: every API)")
	fl.StringVar(&p.Grade, "grade", "", "how good the evidence must be at least: secret, after-the-fact or kernel (default: any)")
	fl.StringVar(&p.Mode, "mode", fleetapi.ModeEnforce, "enforce, or audit: refuse nothing, and record what would be")
	fl.BoolVar(&replace, "replace", false, "write it anew if it is there already")
	completeSelectors(c)
	fixed := func(name string, values ...string) {
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	}
	fixed("mode", fleetapi.ModeAudit, fleetapi.ModeEnforce)
	fixed("grade", "secret", "after-the-fact", "kernel")
	return c
}

// identity is the resource ID of an identity by its name, in on's group;
// "system" is on's own.
func (a *acting) identity(on resource.ID, name string) (string, error) {
	switch {
	case name == "":
		return "", nil
	case name == "system":
		return on.String(), nil
	case strings.HasPrefix(name, "/"):
		id, err := resource.Parse(name)
		return id.String(), err
	case strings.Contains(name, "/"):
		return "", fmt.Errorf("%q is neither an identity's name nor a resource ID", name)
	}
	id, err := resource.Parse(on.GroupID().String() + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name)
	return id.String(), err
}

// digest is the selector of a program by its file. It warns of an interpreter,
// which is every script that it runs.
func digest(c *cobra.Command, file string) (string, error) {
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", fmt.Errorf("--executable: %w", err)
	}
	r, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("--executable: %w", err)
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return "", fmt.Errorf("--executable: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("--executable: %s is not a file", path)
	}
	in := bufio.NewReader(r)
	if head, err := in.Peek(2); err == nil && string(head) == "#!" {
		return "", errors.New("--executable: " + file + " is a script: what the kernel runs is its interpreter, and so no caller has this digest. " +
			"Name the unit (--selector systemd:id:NAME.service) or the container (--selector container:name:NAME) instead")
	}
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return "", fmt.Errorf("--executable: reading %s: %w", path, err)
	}
	if evidence.IsInterpreter(path) {
		fmt.Fprintf(c.ErrOrStderr(), "innate: warning: %s is an interpreter: its file is every script that it runs. Add the unit (--selector systemd:id:NAME.service) "+
			"or the container (--selector container:name:NAME)\n", path)
	}
	return "unix:sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func ruleDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "delete RESOURCE RULE", Short: "Delete a caller rule", Args: exactly("RESOURCE", "RULE"), ValidArgsFunction: completeNames(f),
		Long: "Delete a caller rule. The last one that is enforced opens the resource for every caller that is placed as it.",
		RunE: func(c *cobra.Command, args []string) error {
			return m.onResource(c, args[0], func(a *acting, on resource.ID) error {
				id, err := ruleID(on, args[1])
				if err != nil {
					return err
				}
				return a.remove(c.Context(), id)
			})
		},
	}, false)
}
