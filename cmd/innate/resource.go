package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

func resourceCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "resource",
		Short: "Resources of any type: make, read, list, delete",
		Long: `Resources of any type: make, read, list, delete. A resource is named by its resource ID; with --type by its name in the
group of innate dev's sample ("vm1/agent" with --type Microsoft.Compute/virtualMachines/extensions); or as one of the sample.`,
		Example: "  innate resource put vm9 --type Microsoft.Compute/virtualMachines --identity SystemAssigned\n" +
			"  innate resource put --file template.json\n  innate resource list --type Microsoft.Web/sites --tag env=prod",
	}
	c.AddCommand(resourcePut(f), resourceGet(f), resourceList(f), resourceDelete(f))
	return group(c)
}

// typeFlag adds --type.
func typeFlag(c *cobra.Command, typ *string) {
	c.Flags().StringVar(typ, "type", "", "resource type, Namespace/type")
}

// lookup finds a resource by its ID, by its type and name, or in the sample.
func (a *acting) lookup(typ, name string) (resource.ID, error) {
	switch {
	case strings.HasPrefix(name, "/"):
		id, err := resource.Parse(name)
		if err == nil && typ != "" && !strings.EqualFold(id.Type(), typ) {
			err = fmt.Errorf("%s is no %s", id, typ)
		}
		return id, err
	case typ != "":
		return a.named(typ, name)
	}
	return a.resource(name)
}

func resourcePut(f *flags) *cobra.Command {
	m := managing{flags: f}
	var typ, location, kind, identity, file string
	c := m.bind(&cobra.Command{
		Use: "put [RESOURCE] [--type TYPE] [--file FILE]", Short: "Make or replace a resource", Args: cobra.MaximumNArgs(1),
		DisableFlagsInUseLine: true,
		Long: `Make or replace a resource, from flags or from a file: a JSON document as the management API has it (location, identity,
properties, ...), whose "id", or "type" and "name", say which resource it is unless RESOURCE does.`,
		RunE: func(c *cobra.Command, args []string) error {
			doc, err := document(c.InOrStdin(), file)
			if err != nil {
				return err
			}
			for member, v := range map[string]string{"location": location, "kind": kind} {
				if v != "" || member == "location" && file == "" {
					doc[member] = cmp.Or(v, "local")
				}
			}
			if identity != "" {
				doc["identity"] = map[string]string{"type": identity}
			}
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			id, err := a.written(c, typ, args, doc)
			if err != nil {
				return err
			}
			var made json.RawMessage
			if _, err := a.arm(c.Context(), http.MethodPut, armPath(id), doc, &made); err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), made)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), id)
			return err
		},
	}, true)
	typeFlag(c, &typ)
	c.Flags().StringVar(&location, "location", "", `where it is (default "local", or what the file says)`)
	c.Flags().StringVar(&kind, "kind", "", "member kind, for example functionapp")
	c.Flags().StringVar(&identity, "identity", "", "SystemAssigned or None; innate identity attach adds user-assigned ones")
	c.Flags().StringVar(&file, "file", "", `JSON document; "-" is the standard input`)
	m.waitFlag(c)
	return c
}

// document reads a JSON object, whose numbers stay as they are written.
func document(stdin io.Reader, file string) (map[string]any, error) {
	doc := map[string]any{}
	if file == "" {
		return doc, nil
	}
	var b []byte
	var err error
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(stdin, 1<<20+1))
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil || dec.More() || doc == nil {
		return nil, errors.Join(fmt.Errorf("%s is no JSON object", file), err)
	}
	return doc, nil
}

// written is which resource a document is of.
func (a *acting) written(c *cobra.Command, typ string, args []string, doc map[string]any) (resource.ID, error) {
	text := func(member string) string { s, _ := doc[member].(string); return s }
	switch {
	case len(args) == 1:
		return a.lookup(cmp.Or(typ, text("type")), args[0])
	case text("id") != "":
		return a.lookup(typ, text("id"))
	case text("name") != "":
		return a.lookup(cmp.Or(typ, text("type")), text("name"))
	}
	return resource.ID{}, usage(c, "say which resource it is: RESOURCE, or a file with \"id\", or with \"type\" and \"name\"")
}

// printResource prints a resource as the management API answers it.
func printResource(c *cobra.Command, a *acting, id resource.ID) error {
	var got json.RawMessage
	if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &got); err != nil {
		return err
	}
	return printJSON(c.OutOrStdout(), got)
}

func resourceGet(f *flags) *cobra.Command {
	m := managing{flags: f}
	var typ string
	c := m.bind(&cobra.Command{
		Use: "get RESOURCE", Short: "Print a resource, as JSON", Args: oneArg("RESOURCE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withResource(c, typ, args[0], func(a *acting, id resource.ID) error { return printResource(c, a, id) })
		},
	}, false)
	typeFlag(c, &typ)
	return c
}

// withResource does something with a resource of any type.
func (m *managing) withResource(c *cobra.Command, typ, name string, do func(*acting, resource.ID) error) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.lookup(typ, name)
	if err != nil {
		return err
	}
	return do(a, id)
}

// resourceNode is a resource in a list.
type resourceNode struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Type     string `json:"type"`
	Location string `json:"location"`
	Identity struct {
		Type string `json:"type"`
	} `json:"identity"`
}

func resourceList(f *flags) *cobra.Command {
	m := managing{flags: f}
	var typ, tag string
	c := m.bind(&cobra.Command{
		Use: "list", Short: "List the resources of the subscription", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := tagFilter(c, tag)
			if err != nil {
				return err
			}
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			group, err := a.resourceGroup()
			if err != nil {
				return err
			}
			collection := "resources"
			if typ != "" {
				collection = "providers/" + typ
			}
			all, err := listWhere[json.RawMessage](c.Context(), a, group.SubscriptionID(), collection, filter)
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			return resourceTable(c.OutOrStdout(), all)
		},
	}, true)
	typeFlag(c, &typ)
	c.Flags().StringVar(&tag, "tag", "", "only those with this tag: NAME, or NAME=VALUE")
	return c
}

// tagFilter is what --tag asks a list for.
func tagFilter(c *cobra.Command, tag string) (string, error) {
	if tag == "" {
		return "", nil
	}
	name, value, valued := strings.Cut(tag, "=")
	if name == "" {
		return "", usage(c, "%q is no tag: --tag NAME or --tag NAME=VALUE was expected", tag)
	}
	filter := "tagName eq " + quoted(name)
	if valued {
		filter += " and tagValue eq " + quoted(value)
	}
	return filter, nil
}

func resourceTable(w io.Writer, all []json.RawMessage) error {
	var rows [][]string
	for _, raw := range all {
		var n resourceNode
		if err := json.Unmarshal(raw, &n); err != nil {
			return fmt.Errorf("reading the list: %w", err)
		}
		id, err := resource.Parse(n.ID)
		if err != nil {
			return fmt.Errorf("reading the list: %w", err)
		}
		rows = append(rows, []string{n.Name, n.Type, id.Group(), n.Location, n.Identity.Type})
	}
	return table(w, "There is no such resource; innate resource put makes one.", []string{"NAME", "TYPE", "GROUP", "LOCATION", "IDENTITY"}, rows)
}

func resourceDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	var typ string
	c := m.bind(&cobra.Command{
		Use: "delete RESOURCE", Short: "Delete a resource, all that is below it, and its own identity", Args: oneArg("RESOURCE"), ValidArgsFunction: completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withResource(c, typ, args[0], func(a *acting, id resource.ID) error { return a.remove(c.Context(), id) })
		},
	}, false)
	typeFlag(c, &typ)
	m.waitFlag(c)
	return c
}
