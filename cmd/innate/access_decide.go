package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// deciding are the flags of questions to the management API about who may do
// what.
type deciding struct {
	managing
	data, notData bool
	attributes    []string
}

const decidingHelp = `
A PRINCIPAL is an object id, a client id, the resource ID of what the identity belongs to, or the name of a sample
resource, a group or a user-assigned identity. A SCOPE is a resource ID, VAULT/SECRET, a sample resource, or a vault by its name;
without one it is the subscription. An ACTION is one operation, for example Microsoft.KeyVault/vaults/secrets/getSecret/action.

Whoever asks about others needs the right to read role assignments at the scope, and sees what is assigned elsewhere
only where they have it too.`

// commonActions are what people ask about most, for completion.
var commonActions = []string{
	"Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.KeyVault/vaults/secrets/setSecret/action",
	"Microsoft.KeyVault/vaults/secrets/readMetadata/action", "Microsoft.KeyVault/vaults/secrets/delete",
	"Microsoft.Authorization/roleAssignments/write", "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
	"Microsoft.Resources/subscriptions/resourceGroups/write",
}

func (d *deciding) flags(c *cobra.Command) *cobra.Command {
	fl := c.Flags()
	fl.BoolVar(&d.data, "data", false, "the action is a data action (default for what is done to secrets, keys and certificates)")
	fl.BoolVar(&d.notData, "management", false, "the action is a management action")
	fl.StringArrayVar(&d.attributes, "attribute", nil, "SOURCE:NAME=VALUE for conditions, SOURCE one of request, resource, principal, environment, caller; may be repeated")
	c.MarkFlagsMutuallyExclusive("data", "management")
	return c
}

// dataRooms are where operations are on data, but for those that management has.
var dataRooms = []string{"secrets", "keys", "certificates"}

// isData reports whether an action is taken for a data action.
func (d *deciding) isData(action string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(action), "microsoft.keyvault/vaults/")
	room, verb, _ := strings.Cut(rest, "/")
	return d.data || !d.notData && ok && slices.Contains(dataRooms, room) && verb != "" && verb != "write" && (verb != "read" || room != "secrets")
}

// question is the body that asks about an action.
func (d *deciding) question(action string) (map[string]any, error) {
	body := map[string]any{"action": action}
	if d.isData(action) {
		body = map[string]any{"dataAction": action}
	}
	given := map[string]map[string][]string{}
	for _, a := range d.attributes {
		name, value, ok := strings.Cut(a, "=")
		source, name, named := strings.Cut(name, ":")
		if !ok || !named || !slices.Contains([]string{"request", "resource", "principal", "environment", "caller"}, source) {
			return nil, fmt.Errorf("--attribute: %q is not SOURCE:NAME=VALUE, for example resource:Microsoft.KeyVault/vaults/secrets:name=db", a)
		}
		if given[source] == nil {
			given[source] = map[string][]string{}
		}
		given[source][name] = append(given[source][name], value)
	}
	if len(given) > 0 {
		body["attributes"] = given
	}
	return body, nil
}

// subject adds to a question whom it is about. Which identity a resource has,
// the API finds: who may ask need not be able to read the resource.
func (a *acting) subject(ctx context.Context, name string, body map[string]any) error {
	if name == "me" {
		return nil
	}
	object, id, err := a.whom(ctx, name)
	if err != nil {
		return err
	}
	if object != "" {
		body["principalId"] = object
	} else {
		body["resourceId"] = id.String()
	}
	return nil
}

// scope finds what a question is asked of.
func (a *acting) scope(name string) (resource.ID, error) {
	const vaults = "Microsoft.KeyVault/vaults"
	vault, secret, inVault := strings.Cut(name, "/")
	switch w, ok := a.in.Resources[name]; {
	case name == "":
		return resource.Parse("/subscriptions/" + a.in.SubscriptionID)
	case strings.HasPrefix(name, "/"):
		return resource.Parse(name)
	case ok:
		return resource.Parse(w.ID)
	case inVault:
		id, err := a.named(vaults, vault)
		if err != nil {
			return id, err
		}
		return id.Child("secrets", secret)
	case a.in.Vaults[strings.ToLower(name)] != "":
		return a.named(vaults, name)
	}
	return resource.ID{}, fmt.Errorf("%q is no scope: a resource ID, VAULT/SECRET, or one of %s was expected", name,
		strings.Join(slices.Sorted(maps.Keys(a.in.Resources)), ", "))
}

// decide asks a question at a scope.
func (a *acting) decide(ctx context.Context, scope resource.ID, question string, body, out any) error {
	path := strings.TrimSuffix(scope.String(), "/") + "/providers/Innate.Authorization/decisions/" + question
	id, err := resource.Parse(path)
	if err != nil {
		return err
	}
	_, err = a.arm(ctx, http.MethodPost, armPath(id), body, out)
	return err
}

// onScope opens what asks, and finds the scope.
func (d *deciding) onScope(c *cobra.Command, name string, ask func(a *acting, scope resource.ID) error) error {
	a, err := d.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	scope, err := a.scope(name)
	if err != nil {
		return err
	}
	return ask(a, scope)
}

// between takes from least to most arguments, which are what.
func between(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usage(c, "%s was expected; there are %d arguments", what, len(args))
		}
		return nil
	}
}

// completeAt completes the argument at place n with names, and the one at place
// action, if not negative, with actions.
func completeAt(f *flags, n, action int) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case n:
			return completeNames(f)(c, nil, s)
		case action:
			return commonActions, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func accessCheck(f *flags) *cobra.Command {
	d := &deciding{managing: managing{flags: f}}
	return d.flags(d.bind(&cobra.Command{
		Use: "check PRINCIPAL ACTION [SCOPE]", Short: "Say whether somebody may do something, and why",
		Long: `Say whether somebody may do something, and why: what every role assignment and deny assignment contributes.
It ends with exit code 1 if the answer is no. The PRINCIPAL "me" is who asks.
` + decidingHelp,
		Example:               "  innate access check app1 Microsoft.KeyVault/vaults/secrets/getSecret/action demo/greeting\n  innate access check me Microsoft.Authorization/roleAssignments/write",
		DisableFlagsInUseLine: true, Args: between(2, 3, "PRINCIPAL ACTION [SCOPE]"), ValidArgsFunction: completeAt(f, 0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			body, err := d.question(args[1])
			if err != nil {
				return err
			}
			return d.onScope(c, first(args[2:]), func(a *acting, scope resource.ID) error {
				if err := a.subject(c.Context(), args[0], body); err != nil {
					return err
				}
				var out arm.DecisionView
				if err := a.decide(c.Context(), scope, "check", body, &out); err != nil {
					return err
				}
				if d.asJSON {
					err = printJSON(c.OutOrStdout(), out)
				} else {
					p := &prose{}
					p.decision(out)
					err = p.print(c.OutOrStdout())
				}
				if err == nil && !out.Allowed {
					err = exitCode(1)
				}
				return err
			})
		},
	}, true))
}

func (p *prose) decision(d arm.DecisionView) {
	kind := "management"
	if d.IsDataAction {
		kind = "data"
	}
	p.line("principal %s", who(d.Principal))
	p.line("action    %s (%s)", word(d.Action), kind)
	p.line("scope     %s", word(d.Scope))
	answer := "refused: "
	if d.Allowed || d.Depends {
		answer = ""
	}
	p.line("answer    %s%s", answer, d.Summary)
	for _, r := range d.Reasons {
		p.reason(r)
	}
}

func (p *prose) reason(r arm.ReasonView) {
	says := "no"
	switch {
	case r.Denies:
		says = "denies"
	case r.Grants:
		says = "gives"
	case r.Depends:
		says = "may give"
	}
	through := ""
	if r.Group != nil {
		through = ", through the group " + word(r.Group.Name)
	}
	what := "role"
	if r.Type == "DenyAssignment" {
		what = "denial"
	}
	p.line("%-9s %s %q at %s%s: %s", says, what, r.Name, word(r.Scope), through, r.Why)
	p.line("          %s", word(r.ID))
}

// who is a principal in words.
func who(v arm.PrincipalView) string {
	s := fmt.Sprintf("%s (%s) %s", word(v.Name), v.Kind, v.ID)
	if v.ResourceID != "" {
		s += " of " + word(v.ResourceID)
	}
	if v.Disabled {
		s += ", disabled"
	}
	return s
}

func accessWhoCan(f *flags) *cobra.Command {
	d := &deciding{managing: managing{flags: f}}
	return d.flags(d.bind(&cobra.Command{
		Use: "who-can ACTION [SCOPE]", Short: "List everybody who may do something, by which path, and where they run",
		Long: `List everybody who may do something, by which path (role assignment, group), and of an identity which resources
have it and on which hosts programs are those resources. Whom a deny assignment keeps from it is listed as refused.
` + decidingHelp,
		Example:               "  innate access who-can Microsoft.KeyVault/vaults/secrets/getSecret/action demo/greeting",
		DisableFlagsInUseLine: true, Args: between(1, 2, "ACTION [SCOPE]"), ValidArgsFunction: completeAt(f, 1, 0),
		RunE: func(c *cobra.Command, args []string) error {
			body, err := d.question(args[0])
			if err != nil {
				return err
			}
			return d.onScope(c, first(args[1:]), func(a *acting, scope resource.ID) error {
				all, err := a.whoCan(c.Context(), scope, body)
				if err != nil {
					return err
				}
				if d.asJSON {
					return printJSON(c.OutOrStdout(), all)
				}
				p := &prose{}
				p.whoCan(all)
				return p.print(c.OutOrStdout())
			})
		},
	}, true))
}

// whoCan reads all pages.
func (a *acting) whoCan(ctx context.Context, scope resource.ID, body any) (arm.WhoCan, error) {
	var all arm.WhoCan
	if err := a.decide(ctx, scope, "whoCan", body, &all); err != nil {
		return all, err
	}
	for next := all.NextLink; next != ""; {
		path, ours := strings.CutPrefix(next, a.in.Endpoints.Management)
		if !ours {
			return all, errors.New("the management API's next page is at another address")
		}
		var page arm.WhoCan
		if _, err := a.arm(ctx, http.MethodPost, path, body, &page); err != nil {
			return all, err
		}
		all.Value, all.Incomplete, next = append(all.Value, page.Value...), append(all.Incomplete, page.Incomplete...), page.NextLink
	}
	all.NextLink = ""
	return all, nil
}

func (p *prose) whoCan(all arm.WhoCan) {
	if len(all.Value) == 0 {
		p.line("nobody may do %s at %s", word(all.Action), word(all.Scope))
	}
	for i, row := range all.Value {
		if i > 0 {
			p.line("")
		}
		answer := "allowed"
		switch {
		case row.Depends:
			answer = "depends"
		case !row.Allowed:
			answer = "refused"
		}
		p.line("%-9s %s", answer, who(row.Principal))
		for _, r := range row.Paths {
			p.reason(r)
		}
		p.identityOf(row.IdentityOf, row.HiddenResources)
	}
	for _, g := range all.Incomplete {
		p.line("\nnot all members of the group %s (%s) were looked at: it has too many", word(g.Name), g.ID)
	}
}

func (p *prose) identityOf(all []arm.IdentityOf, hidden int) {
	for _, on := range all {
		p.line("is        %s", word(on.ResourceID))
		for _, at := range on.Places {
			from := "every caller"
			if len(at.Selectors) > 0 {
				from = strings.Join(at.Selectors, " ")
			}
			p.line("on        %s by the door %s: %s", word(at.Host), word(at.Door), from)
		}
		if on.HiddenPlaces > 0 {
			p.line("          and by %d placements that you may not read", on.HiddenPlaces)
		}
	}
	if hidden > 0 {
		p.line("          and of %d resources that you may not read", hidden)
	}
}

func accessWhatCan(f *flags) *cobra.Command {
	d := &deciding{managing: managing{flags: f}}
	return d.bind(&cobra.Command{
		Use: "what-can PRINCIPAL [SCOPE]", Short: "List what somebody may do, at a scope and below",
		Long: `List what somebody may do, at a scope and below it: their roles and their groups', and what deny assignments take.
The PRINCIPAL "me" is who asks.
` + decidingHelp,
		DisableFlagsInUseLine: true, Args: between(1, 2, "PRINCIPAL [SCOPE]"), ValidArgsFunction: completeAt(f, 0, -1),
		RunE: func(c *cobra.Command, args []string) error {
			return d.onScope(c, first(args[1:]), func(a *acting, scope resource.ID) error {
				body := map[string]any{}
				if err := a.subject(c.Context(), args[0], body); err != nil {
					return err
				}
				var out arm.WhatCan
				if err := a.decide(c.Context(), scope, "whatCan", body, &out); err != nil {
					return err
				}
				if d.asJSON {
					return printJSON(c.OutOrStdout(), out)
				}
				p := &prose{}
				p.whatCan(out)
				return p.print(c.OutOrStdout())
			})
		},
	}, true)
}

func (p *prose) whatCan(out arm.WhatCan) {
	p.line("principal %s", who(out.Principal))
	if len(out.RoleAssignments) == 0 {
		p.line("nothing   is given at %s or below", word(out.Scope))
	}
	for _, h := range out.RoleAssignments {
		p.held("role", h)
	}
	for _, h := range out.DenyAssignments {
		p.held("denied by", h)
	}
}

func (p *prose) held(what string, h arm.HeldView) {
	through := ""
	if h.Group != nil {
		through = ", through the group " + word(h.Group.Name)
	}
	if h.OnlyAtScope {
		through += ", not below"
	}
	p.line("\n%-9s %q at %s%s", what, h.Name, word(h.Scope), through)
	p.line("          %s", word(h.ID))
	for _, b := range h.Permissions {
		for _, l := range []struct {
			name     string
			patterns []string
		}{{"actions", b.Actions}, {"but not", b.NotActions}, {"data", b.DataActions}, {"but not", b.NotDataActions}, {"if", compact(b.Condition)}} {
			for _, pattern := range l.patterns {
				p.line("%-9s %s", l.name, pattern)
			}
		}
	}
	for _, c := range compact(h.Condition) {
		p.line("%-9s %s", "if", c)
	}
}

// compact is s as a list of one, or none.
func compact(s string) []string {
	if s == "" {
		return nil
	}
	return []string{strings.Join(strings.Fields(s), " ")}
}
