package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/web"
)

// TypeVault is the resource type of vaults.
const TypeVault = "Microsoft.KeyVault/vaults"

// nameKind is the kind of installation-wide name that a vault claims: its host
// name's first label.
const nameKind = "vault"

const (
	maxName  = 24
	nameRule = "3 to 24 letters, digits and hyphens are allowed, beginning with a letter, ending with a letter or digit, without two hyphens in a row"
)

// properties are the members of a vault's properties that mean something here.
type properties struct {
	EnableRBAC      *bool             `json:"enableRbacAuthorization"`
	AccessPolicies  []json.RawMessage `json:"accessPolicies"`
	PurgeProtection *bool             `json:"enablePurgeProtection"`
}

// Type is the row that the vault adds to the management API.
func Type(box *seal.Box) *arm.Type {
	return &arm.Type{
		Name:        TypeVault,
		NamePattern: regexp.MustCompile(`^[A-Za-z](-?[A-Za-z0-9]){2,23}$`),
		NameRule:    nameRule,
		Unique:      nameKind,
		Polling:     arm.PollAsync,
		Waited:      []string{"PATCH", "DELETE"},
		Computed:    []string{"vaultUri", "tenantId"},
		Check: func(_ context.Context, _ *arm.Resource, r *arm.Resource) error {
			return checkVault(*r)
		},
		Deleting: func(tx arm.Tx, r arm.Resource) error {
			n, err := tx.LiveSecrets(r.ID.Key())
			if err != nil {
				return err
			}
			if n > 0 {
				return problem.Errorf(problem.Conflict, "The vault '%s' still holds %d secrets, deleted ones that can be recovered included; delete and purge them first: this version has no soft delete of vaults, and would lose them.", r.ID.Name(), n)
			}
			return nil
		},
		Moved: func(ctx context.Context, tx arm.Tx, r arm.Resource, m arm.Move) (bool, error) {
			return false, reseal(ctx, box, tx, r, m)
		},
		Attributes: func(r arm.Resource, at resource.ID) (access.Values, error) {
			tags, err := arm.Tags(r)
			name := ""
			if !at.Equal(r.ID) {
				name = at.Name()
			}
			return Place{Name: r.ID.Name(), Tags: tags}.values(name), err
		},
		View: func(r arm.Resource, _ directory.Principal, p map[string]any) {
			for name, v := range map[string]any{
				"tenantId": r.Tenant, "enableRbacAuthorization": true, "enableSoftDelete": true, "softDeleteRetentionInDays": 90,
			} {
				delete(p, member(p, name))
				p[name] = v
			}
			for name, v := range map[string]any{
				"sku": map[string]any{"family": "A", "name": "standard"}, "accessPolicies": []any{}, "publicNetworkAccess": "Enabled",
			} {
				if _, ok := p[member(p, name)]; !ok {
					p[name] = v
				}
			}
		},
		Links: func(names web.Names, r arm.Resource, p map[string]any) {
			delete(p, member(p, "vaultUri"))
			p["vaultUri"] = names.Vault(strings.ToLower(r.ID.Name())) + "/"
		},
	}
}

// reseal seals the secrets of a vault that moved for their new place: a sealed
// value opens where its vault is, and nowhere else.
func reseal(ctx context.Context, box *seal.Box, tx arm.Tx, r arm.Resource, m arm.Move) error {
	was, ok, err := r.ID.Moved(m.To, m.From)
	if err != nil || !ok {
		return err // something else of it moved
	}
	from, to := Place{Tenant: r.Tenant, ID: was}, Place{Tenant: r.Tenant, ID: r.ID}
	return tx.Reseal(r.ID.Key(), func(name, version string, sealed []byte) ([]byte, error) {
		value, err := box.Open(ctx, sealing(from, name, version), sealed)
		if err != nil {
			return nil, fmt.Errorf("unsealing secret %s of %s: %w", name, was, err)
		}
		again, err := box.Seal(ctx, sealing(to, name, version), value)
		if err != nil {
			return nil, fmt.Errorf("sealing secret %s of %s: %w", name, r.ID, err)
		}
		return again, nil
	})
}

// member finds how the members of properties spell a name: it compares without
// case.
func member(p map[string]any, name string) string {
	for have := range p {
		if strings.EqualFold(have, name) {
			return have
		}
	}
	return name
}

// checkVault refuses what a vault here would not honour: rights that were
// asked for in another way than by roles must not silently mean nothing.
func checkVault(r arm.Resource) error {
	// The pattern cannot count the hyphens in.
	if len(r.ID.Name()) > maxName {
		return problem.Errorf(problem.BadName, "The name '%s' is not valid for %s: %s.", r.ID.Name(), TypeVault, nameRule)
	}
	var p properties
	if raw := arm.Document(r.Body).Member("properties"); len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return problem.Errorf(problem.Invalid, "The members 'enableRbacAuthorization' and 'enablePurgeProtection' of properties must be true or false, 'accessPolicies' a list.")
		}
	}
	switch {
	case p.EnableRBAC != nil && !*p.EnableRBAC:
		return problem.Errorf(problem.NotSupported, "Vaults are authorized by roles alone: set 'enableRbacAuthorization' to true or leave it out.")
	case len(p.AccessPolicies) > 0:
		return problem.Errorf(problem.NotSupported, "Access policies are not supported; assign Key Vault roles instead and leave 'accessPolicies' empty.")
	case p.PurgeProtection != nil && *p.PurgeProtection:
		return problem.Errorf(problem.NotSupported, "Purge protection is not supported in this version; leave 'enablePurgeProtection' out.")
	}
	return nil
}
