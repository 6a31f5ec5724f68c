package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/resource"
)

const typeIdentity = "Microsoft.ManagedIdentity/userAssignedIdentities"

func identityCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "identity",
		Short: "User-assigned identities, and which resources have them",
		Long: `User-assigned identities, and which resources have them. One is a resource of its own: it can be attached to many
resources, and what role assignments it has stays when they go. It is named by its name, in the group of innate dev's
sample, or by its resource ID.`,
		Example: "  innate identity create shop\n  innate identity attach shop app1\n  innate identity resources shop",
	}
	c.AddCommand(identityCreate(f), identityList(f), identityShow(f), identityDelete(f), identityDeleted(f), identityRecover(f), identityAttach(f), identityDetach(f), identityResources(f))
	return group(c)
}

// identityProperties are the properties of a user-assigned identity.
type identityProperties struct {
	PrincipalID    string              `json:"principalId,omitempty"`
	ClientID       string              `json:"clientId,omitempty"`
	TenantID       string              `json:"tenantId,omitempty"`
	IsolationScope string              `json:"isolationScope,omitempty"`
	Restrictions   *identityRestricted `json:"assignmentRestrictions,omitempty"`
}

type identityRestricted struct {
	Providers []string `json:"providers"`
}

type identityNode struct {
	node[identityProperties]
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags"`
}

// restrictions says in short where it may be attached.
func (n identityNode) restrictions() string {
	var parts []string
	if n.Properties.Restrictions != nil {
		parts = append(parts, n.Properties.Restrictions.Providers...)
	}
	if strings.EqualFold(n.Properties.IsolationScope, "Regional") {
		parts = append(parts, "in "+n.Location)
	}
	return strings.Join(parts, ", ")
}

// resourceGroup is the sample's resource group.
func (a *acting) resourceGroup() (resource.ID, error) {
	return resource.Parse("/subscriptions/" + a.in.SubscriptionID + "/resourceGroups/" + a.in.ResourceGroup)
}

// userAssigned finds a user-assigned identity by its name or resource ID.
func (a *acting) userAssigned(name string) (resource.ID, error) {
	if strings.HasPrefix(name, "/") {
		id, err := resource.Parse(name)
		if err == nil && !strings.EqualFold(id.Type(), typeIdentity) {
			err = fmt.Errorf("%s is no user-assigned identity: a name or .../providers/%s/NAME was expected", id, typeIdentity)
		}
		return id, err
	}
	return a.named(typeIdentity, name)
}

// named is the resource of a type in the sample's group; a child's name is
// "parent/child".
func (a *acting) named(typ, name string) (resource.ID, error) {
	group, err := a.resourceGroup()
	if err != nil {
		return resource.ID{}, err
	}
	namespace, rest, ok := strings.Cut(typ, "/")
	types, names := strings.Split(rest, "/"), strings.Split(name, "/")
	if !ok || len(types) != len(names) || name == "" {
		return resource.ID{}, fmt.Errorf("%q is not the name of a %s: one name for each of %s was expected, with a slash between them, or a resource ID", name, typ, rest)
	}
	path := group.String() + "/providers/" + namespace
	for i := range types {
		path += "/" + types[i] + "/" + names[i]
	}
	return resource.Parse(path)
}

// withIdentity does something with an identity.
func (m *managing) withIdentity(c *cobra.Command, name string, do func(*acting, resource.ID) error) error {
	a, err := m.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	id, err := a.userAssigned(name)
	if err != nil {
		return err
	}
	return do(a, id)
}

func identityCreate(f *flags) *cobra.Command {
	m := managing{flags: f}
	var location string
	var only []string
	var regional, replace bool
	c := m.bind(&cobra.Command{
		Use: "create NAME [--only PROVIDER]... [--regional]", Short: "Make a user-assigned identity", Args: oneArg("NAME"),
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				var p identityProperties
				if len(only) > 0 {
					p.Restrictions = &identityRestricted{Providers: only}
				}
				if regional {
					p.IsolationScope = "Regional"
				}
				return m.make(c, a, id, map[string]any{"location": location, "properties": p}, replace)
			})
		},
	}, true)
	c.Flags().StringVar(&location, "location", "local", "where it is")
	c.Flags().StringArrayVar(&only, "only", nil, "resource provider (Microsoft.Compute) or type (Microsoft.Web/sites) that it may be attached to; may be repeated")
	c.Flags().BoolVar(&regional, "regional", false, "it may be attached to resources of its location alone")
	c.Flags().BoolVar(&replace, "replace", false, "write it anew if it is there already; its ids stay")
	return c
}

func identityList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list", Short: "List the user-assigned identities of the subscription", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			group, err := a.resourceGroup()
			if err != nil {
				return err
			}
			all, err := list[identityNode](c.Context(), a, group.SubscriptionID(), "providers/"+typeIdentity)
			if err != nil {
				return err
			}
			if m.asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			var rows [][]string
			for _, n := range all {
				rows = append(rows, []string{n.Name, n.Properties.ClientID, n.Properties.PrincipalID, n.restrictions()})
			}
			return table(c.OutOrStdout(), "There is no user-assigned identity; innate identity create makes one.", []string{"NAME", "CLIENT ID", "PRINCIPAL ID", "ONLY FOR"}, rows)
		},
	}, true)
}

func identityShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show NAME", Short: "Show a user-assigned identity", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				if m.asJSON {
					return printResource(c, a, id)
				}
				var n identityNode
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(id), nil, &n); err != nil {
					return err
				}
				w := c.OutOrStdout()
				for _, line := range [][2]string{
					{"id", n.ID}, {"client", n.Properties.ClientID}, {"principal", n.Properties.PrincipalID}, {"location", n.Location}, {"only for", n.restrictions()},
				} {
					if line[1] == "" {
						continue
					}
					if _, err := fmt.Fprintf(w, "%-10s %s\n", line[0], shown(line[1])); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}, true)
}

func identityDelete(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "delete NAME", Short: "Delete a user-assigned identity: resources lose it, and its role assignments go", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error { return a.remove(c.Context(), id) })
		},
	}, false)
}

// attached is what a resource says of its identities.
type attached struct {
	Identity struct {
		User map[string]any `json:"userAssignedIdentities"`
	} `json:"identity"`
}

func (r attached) has(id resource.ID) bool {
	for k := range r.Identity.User {
		if strings.EqualFold(k, id.String()) {
			return true
		}
	}
	return false
}

// setIdentity attaches an identity to a resource, or detaches it (value nil),
// and leaves the resource its others.
func (a *acting) setIdentity(ctx context.Context, id resource.ID, to string, value any) error {
	on, err := a.resource(to)
	if err != nil {
		return err
	}
	var is attached
	if _, err := a.arm(ctx, http.MethodGet, armPath(on), nil, &is); err != nil {
		return err
	}
	if value == nil && !is.has(id) {
		return fmt.Errorf("%s does not have the identity %s", on, id)
	}
	_, err = a.arm(ctx, http.MethodPatch, armPath(on), map[string]any{"identity": map[string]any{"userAssignedIdentities": map[string]any{id.String(): value}}}, &is)
	return err
}

func identityAttach(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "attach NAME RESOURCE", Short: "Attach an identity to a resource", Args: exactly("NAME", "RESOURCE"),
		Long: `Attach an identity to a resource, which keeps those that it has. It takes the right to write the resource and the right
to assign the identity: whoever is the resource can be the identity from then on.`,
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				return a.setIdentity(c.Context(), id, args[1], map[string]any{})
			})
		},
	}, false)
}

func identityDetach(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "detach NAME RESOURCE", Short: "Take an identity from a resource, and the tokens that it has out", Args: exactly("NAME", "RESOURCE"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				return a.setIdentity(c.Context(), id, args[1], nil)
			})
		},
	}, false)
}

func identityResources(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "resources NAME", Short: "List the resources that have an identity", Args: oneArg("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				all, err := a.associated(c.Context(), id)
				if err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), all)
				}
				var rows [][]string
				for _, r := range all {
					rows = append(rows, []string{r.Name, r.Type, r.ID})
				}
				return table(c.OutOrStdout(), "No resource has this identity; innate identity attach gives it to one.", []string{"NAME", "TYPE", "ID"}, rows)
			})
		},
	}, true)
}

type associatedNode struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

// associated reads what has an identity: the first page with POST, the others
// with GET.
func (a *acting) associated(ctx context.Context, id resource.ID) ([]associatedNode, error) {
	out := []associatedNode{}
	method := http.MethodPost
	for next := armPath(id, "listAssociatedResources"); next != ""; method = http.MethodGet {
		var page struct {
			Value    []associatedNode
			NextLink string
		}
		if _, err := a.arm(ctx, method, next, nil, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Value...)
		rest, ours := strings.CutPrefix(page.NextLink, a.in.Endpoints.Management)
		if !ours && page.NextLink != "" { // which would be given our token
			return nil, errors.New("the management API's next page is at another address")
		}
		next = rest
	}
	return out, nil
}
