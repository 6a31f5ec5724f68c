package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
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
func Type(names web.Names, box *seal.Box) *arm.Type {
	return &arm.Type{
		Name:        TypeVault,
		NamePattern: regexp.MustCompile(`^[A-Za-z](-?[A-Za-z0-9]){2,23}$`),
		NameRule:    nameRule,
		Computed:    []string{"vaultUri", "tenantId"},
		Check: func(_ context.Context, _ *arm.Resource, r *arm.Resource) error {
			return checkVault(*r)
		},
		Written: func(tx arm.Tx, r arm.Resource) error {
			err := tx.ClaimName(nameKind, strings.ToLower(r.ID.Name()), r.ID.Key())
			if problem.Is(err, problem.Exists) {
				return problem.Errorf(problem.Exists, "The vault name '%s' is already in use; vault names are unique in an installation.", r.ID.Name())
			}
			return err
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
		View: func(r arm.Resource, _ directory.Principal, p map[string]any) {
			have := map[string]string{} // names of members compare without case
			for name := range p {
				have[strings.ToLower(name)] = name
			}
			for name, v := range map[string]any{
				"vaultUri": names.Vault(strings.ToLower(r.ID.Name())) + "/", "tenantId": r.Tenant,
				"enableRbacAuthorization": true, "enableSoftDelete": true, "softDeleteRetentionInDays": 90,
			} {
				if was, ok := have[strings.ToLower(name)]; ok {
					delete(p, was)
				}
				p[name] = v
			}
			for name, v := range map[string]any{
				"sku": map[string]any{"family": "A", "name": "standard"}, "accessPolicies": []any{}, "publicNetworkAccess": "Enabled",
			} {
				if _, ok := have[strings.ToLower(name)]; !ok {
					p[name] = v
				}
			}
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

// checkVault refuses what a vault here would not honour: rights that were
// asked for in another way than by roles must not silently mean nothing.
func checkVault(r arm.Resource) error {
	// The pattern cannot count the hyphens in.
	if len(r.ID.Name()) > maxName {
		return problem.Errorf(problem.Invalid, "The name '%s' is not valid for %s: %s.", r.ID.Name(), TypeVault, nameRule)
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
