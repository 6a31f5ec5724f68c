package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

const apiVersion = "2026-01-01"

// managing are the flags of commands that call the management API.
type managing struct {
	*flags
	as     string
	asJSON bool
	noWait bool
}

// bind adds the flags to c.
func (m *managing) bind(c *cobra.Command, prints bool) *cobra.Command {
	asFlag(c, m.flags, &m.as, "ops")
	if prints {
		c.Flags().BoolVar(&m.asJSON, "json", false, "print what the management API answers, as JSON")
	}
	return c
}

var errNowhere = errors.New("innate dev is not running here, and nothing else says where the management API is: " +
	"on a host of an installation, set AZURE_AUTHORITY_HOST (https://login.DOMAIN) and AZURE_SUBSCRIPTION_ID, and SSL_CERT_FILE if it has an authority of its own")

// open acts as --as says. The caller releases what it returns.
func (m *managing) open(c *cobra.Command) (*acting, error) {
	a, err := actAs(c.Context(), m.flags, m.as, "ops", "")
	if err != nil {
		return nil, err
	}
	if a.in == nil {
		a.release()
		return nil, errNowhere
	}
	a.stdout, a.stderr, a.noWait = c.OutOrStdout(), c.ErrOrStderr(), m.noWait
	return a, nil
}

// node is a resource as the management API has it, with properties T.
type node[T any] struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties T      `json:"properties"`
}

// armPath is the path of a resource, or of one of its actions, in the management API.
func armPath(id resource.ID, action ...string) string {
	return armURL(strings.Join(append([]string{id.String()}, action...), "/"))
}

// armURL is a path in the management API that is no resource ID.
func armURL(path string) string {
	return (&url.URL{Path: path}).EscapedPath() + "?api-version=" + apiVersion
}

// list reads a collection page by page. Each item is T, or raw JSON.
func list[T any](ctx context.Context, a *acting, under resource.ID, collection string) ([]T, error) {
	return pages[T](ctx, a, armPath(under, collection))
}

// pages reads a list from its first page on.
func pages[T any](ctx context.Context, a *acting, first string) ([]T, error) {
	out := []T{}
	read := map[string]bool{}
	for next := first; next != ""; {
		if read[next] {
			return nil, fmt.Errorf("reading the next page: it is %s again, which was read", next)
		}
		read[next] = true
		var page struct {
			Value    []T
			NextLink string
		}
		if _, err := a.arm(ctx, http.MethodGet, next, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Value...)
		if next = page.NextLink; next != "" {
			var err error
			if next, err = a.ours(next); err != nil {
				return nil, fmt.Errorf("reading the next page: %w", err)
			}
		}
	}
	return out, nil
}

// create writes a resource that is not there yet, or any with replace.
func (a *acting) create(ctx context.Context, id resource.ID, body any, replace bool, out any) error {
	header := http.Header{}
	if !replace {
		header.Set("If-None-Match", "*")
	}
	_, err := a.armIf(ctx, http.MethodPut, armPath(id), header, body, out)
	if e, ok := errors.AsType[*armError](err); ok && !replace && e.Code == "PreconditionFailed" {
		return fmt.Errorf("%s is there already; --replace writes it anew", id)
	}
	return err
}

// make creates a resource and prints its ID, or what the API answers.
func (m *managing) make(c *cobra.Command, a *acting, id resource.ID, body any, replace bool) error {
	var made map[string]any
	if err := a.create(c.Context(), id, body, replace, &made); err != nil {
		return err
	}
	if m.asJSON {
		return printJSON(c.OutOrStdout(), made)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), id)
	return err
}

// remove deletes a resource that is there.
func (a *acting) remove(ctx context.Context, id resource.ID) error {
	resp, err := a.arm(ctx, http.MethodDelete, armPath(id), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return fmt.Errorf("there is no %s", id)
	}
	return nil
}

// host finds a host by its name, in the group of this machine's, or by its
// resource ID; "" is this machine.
func (a *acting) host(name string) (resource.ID, error) {
	own, err := resource.Parse(a.in.Host)
	if err != nil {
		return resource.ID{}, fmt.Errorf("reading this machine's own resource ID: %w", err)
	}
	switch {
	case name == "":
		return own, nil
	case strings.HasPrefix(name, "/"):
		id, err := resource.Parse(name)
		if err == nil && !strings.EqualFold(id.Type(), own.Type()) {
			err = fmt.Errorf("%s is no host: a name or .../providers/%s/NAME was expected", id, own.Type())
		}
		return id, err
	}
	return sibling(own, name)
}

// sibling is the resource of id's type and group that has another name.
func sibling(id resource.ID, name string) (resource.ID, error) {
	if strings.Contains(name, "/") {
		return resource.ID{}, fmt.Errorf("%q is neither a name nor a resource ID, which begins with /subscriptions/", name)
	}
	return resource.Parse(strings.TrimSuffix(id.String(), id.Name()) + name)
}

// resource finds what programs can be, as "innate run" does.
func (a *acting) resource(name string) (resource.ID, error) {
	id, err := a.in.Resolve(name)
	if err != nil {
		return resource.ID{}, err
	}
	return resource.Parse(id)
}

// table prints rows under their heads, or what nothing means.
func table(w io.Writer, nothing string, heads []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, nothing)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, r := range rows {
		cells := slices.Clone(r)
		for i, c := range cells {
			cells[i] = cmp.Or(shown(c), "-")
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// printJSON prints v for machines.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
