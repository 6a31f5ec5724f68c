package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func tagCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "tag",
		Short: "Tags of resources, groups and subscriptions",
		Long: `Tags of resources, groups and subscriptions: names with values that people, scripts and the conditions of role assignments
go by. Names compare without case. Who may write tags (Microsoft.Resources/tags/write) need not be allowed to write the
resource. SCOPE is the name of a resource or a resource ID, also that of a group or a subscription.`,
		Example: "  innate tag set app1 env=prod owner='the shop'\n  innate tag list /subscriptions/ID/resourceGroups/NAME\n  innate resource list --tag env=prod",
	}
	c.AddCommand(tagList(f), tagSet(f), tagRemove(f), tagReplace(f))
	return group(c)
}

const typeTags = "Microsoft.Resources/tags"

type tagsNode = node[tagsProperties]

type tagsProperties struct {
	Tags map[string]string `json:"tags"`
}

// tagging are the flags of commands about the tags of a scope.
type tagging struct{ managing }

func newTagging(f *flags) *tagging { return &tagging{managing{flags: f}} }

// at finds the tags of a scope and prints what do makes of them, as JSON or, if
// shows, as a table.
func (t *tagging) at(c *cobra.Command, name string, shows bool, do func(a *acting, tags resource.ID) (tagsNode, error)) error {
	return t.withResource(c, "", name, func(a *acting, on resource.ID) error {
		id, err := on.Extension(typeTags, "default")
		if err != nil {
			return err
		}
		got, err := do(a, id)
		switch {
		case err != nil:
			return err
		case t.asJSON:
			return printJSON(c.OutOrStdout(), got)
		case !shows:
			return nil
		}
		var rows [][]string
		for _, name := range slices.Sorted(maps.Keys(got.Properties.Tags)) {
			rows = append(rows, []string{name, got.Properties.Tags[name]})
		}
		return table(c.OutOrStdout(), "There is no tag.", []string{"NAME", "VALUE"}, rows)
	})
}

func (a *acting) tags(ctx context.Context, id resource.ID) (got tagsNode, err error) {
	_, err = a.arm(ctx, http.MethodGet, armPath(id), nil, &got)
	return got, err
}

// changeTags merges tags with those that are there, takes them out, or puts them
// in their place.
func (a *acting) changeTags(ctx context.Context, id resource.ID, operation string, tags map[string]string) (got tagsNode, err error) {
	body := map[string]any{"operation": operation, "properties": tagsProperties{Tags: tags}}
	_, err = a.arm(ctx, http.MethodPatch, armPath(id), body, &got)
	return got, err
}

func tagList(f *flags) *cobra.Command {
	t := newTagging(f)
	return t.bind(&cobra.Command{
		Use: "list SCOPE", Short: "List the tags of a scope itself", Args: oneArg("SCOPE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return t.at(c, args[0], true, func(a *acting, id resource.ID) (tagsNode, error) { return a.tags(c.Context(), id) })
		},
	}, true)
}

// scopeAnd takes a SCOPE and at least so many others.
func scopeAnd(least int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < 1+least {
			return usage(c, "SCOPE and %s were expected; there are %d arguments", what, len(args))
		}
		return nil
	}
}

// readTags reads NAME=VALUE arguments.
func readTags(c *cobra.Command, args []string) (map[string]string, error) {
	out := map[string]string{}
	folded := map[string]string{}
	for _, s := range args {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usage(c, "%q is no tag: NAME=VALUE was expected", s)
		}
		if other, ok := folded[strings.ToLower(name)]; ok {
			return nil, usage(c, "there are two tags %q and %q; names compare without case", other, name)
		}
		out[name], folded[strings.ToLower(name)] = value, name
	}
	return out, nil
}

func tagSet(f *flags) *cobra.Command {
	t := newTagging(f)
	return t.bind(&cobra.Command{
		Use: "set SCOPE NAME=VALUE...", Short: "Set tags and leave the others", Args: scopeAnd(1, "NAME=VALUE..."), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			tags, err := readTags(c, args[1:])
			if err != nil {
				return err
			}
			return t.at(c, args[0], false, func(a *acting, id resource.ID) (tagsNode, error) {
				return a.changeTags(c.Context(), id, "Merge", tags)
			})
		},
	}, true)
}

func tagReplace(f *flags) *cobra.Command {
	t := newTagging(f)
	return t.bind(&cobra.Command{
		Use: "replace SCOPE [NAME=VALUE...]", Short: "Put tags in the place of all that are there", Args: scopeAnd(0, "NAME=VALUE..."), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			tags, err := readTags(c, args[1:])
			if err != nil {
				return err
			}
			return t.at(c, args[0], false, func(a *acting, id resource.ID) (tagsNode, error) {
				return a.changeTags(c.Context(), id, "Replace", tags)
			})
		},
	}, true)
}

func tagRemove(f *flags) *cobra.Command {
	t := newTagging(f)
	return t.bind(&cobra.Command{
		Use: "remove SCOPE NAME...", Short: "Take tags away, whatever their values", Args: scopeAnd(1, "NAME..."), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return t.at(c, args[0], false, func(a *acting, id resource.ID) (tagsNode, error) {
				return a.removeTags(c.Context(), id, args[1:])
			})
		},
	}, true)
}

// removeTags takes tags away. The API takes those that have the values that we
// say: so these are read first.
func (a *acting) removeTags(ctx context.Context, id resource.ID, names []string) (tagsNode, error) {
	have, err := a.tags(ctx, id)
	if err != nil {
		return have, err
	}
	gone := map[string]string{}
	for _, name := range names {
		is, ok := tagOf(have, name)
		if !ok {
			return have, fmt.Errorf("%s has no tag %q", id.Scope(), name)
		}
		gone[is] = have.Properties.Tags[is]
	}
	left, err := a.changeTags(ctx, id, "Delete", gone)
	if err != nil {
		return left, err
	}
	for name := range gone {
		if _, ok := tagOf(left, name); ok {
			return left, fmt.Errorf("the tag %q was given another value at the same time, and is still there", name)
		}
	}
	return left, nil
}

// tagOf finds a tag by its name without case.
func tagOf(n tagsNode, name string) (is string, ok bool) {
	for is := range n.Properties.Tags {
		if strings.EqualFold(is, name) {
			return is, true
		}
	}
	return "", false
}
