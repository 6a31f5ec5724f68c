package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/vault"
)

// claimName changes a row only for the resource that has the name already.
const claimName = `
	INSERT INTO claimed_name (kind, name, tenant, resource_key) VALUES ($1, $2, $3, $4)
	ON CONFLICT (kind, name) DO UPDATE SET resource_key = claimed_name.resource_key
	WHERE claimed_name.tenant = excluded.tenant AND claimed_name.resource_key = excluded.resource_key`

// ClaimName takes a name that is unique in the installation for a resource;
// [problem.Exists] if another resource has it.
func (t *writeTx) ClaimName(kind, name, resourceKey string) error {
	n, err := t.exec(claimName, kind, fold(name), t.tenant, fold(resourceKey))
	if err != nil {
		return fmt.Errorf("claiming the %s name %s: %w", kind, name, err)
	}
	if n == 0 {
		return problem.Errorf(problem.Exists, "the %s name %q is taken", kind, name)
	}
	t.change(arm.ChangeResource, fold(resourceKey))
	return nil
}

const nameTaken = `SELECT COUNT(*) FROM claimed_name WHERE kind = $1 AND name = $2`

// NameTaken reports whether a name that is unique in the installation is some
// resource's, of whichever tenant.
func (db *DB) NameTaken(ctx context.Context, kind, name string) (bool, error) {
	n, err := one(ctx, db.read, nil, scanned[int], nameTaken, kind, fold(name))
	if err != nil {
		return false, fmt.Errorf("looking for the %s name %s: %w", kind, name, err)
	}
	return n > 0, nil
}

const releaseNames = `DELETE FROM claimed_name WHERE tenant = $1 AND resource_key = $2`

// ReleaseNames gives back all names of the resource.
func (t *writeTx) ReleaseNames(resourceKey string) error {
	n, err := t.exec(releaseNames, t.tenant, fold(resourceKey))
	if err != nil {
		return fmt.Errorf("releasing the names of %s: %w", resourceKey, err)
	}
	if n > 0 {
		t.change(arm.ChangeResource, fold(resourceKey))
	}
	return nil
}

const getVaultNamed = `
	SELECT r.tenant, r.id, r.type, r.uid, r.body, r.bound_to, r.etag, r.created_ms, r.updated_ms, r.created_by, r.updated_by
	FROM claimed_name n JOIN resource r ON r.tenant = n.tenant AND r.key = n.resource_key
	WHERE n.kind = 'vault' AND n.name = $1`

// VaultNamed finds the vault with this host name label;
// [problem.VaultNotFound].
func (db *DB) VaultNamed(ctx context.Context, name string) (vault.Place, error) {
	none := problem.Errorf(problem.VaultNotFound, "there is no vault named %q", name)
	r, err := one(ctx, db.read, none, scanResource, getVaultNamed, fold(name))
	if err != nil {
		return vault.Place{}, err
	}
	p := vault.Place{Tenant: r.Tenant, ID: r.ID, UID: r.UID, Name: r.ID.Name()}
	if location, ok := r.Body["location"]; ok {
		if err := json.Unmarshal(location, &p.Location); err != nil {
			return vault.Place{}, fmt.Errorf("reading the location of %s: %w", r.ID, err)
		}
	}
	return p, nil
}

// audienceKey is how audiences compare: without case and trailing slashes.
func audienceKey(audience string) string { return strings.TrimRight(fold(audience), "/") }

const getAPI = `SELECT tenant, audience, client, token_version, resource FROM api WHERE tenant = $1 AND audience_key = $2`

func scanAPI(r row) (directory.API, error) {
	var a directory.API
	var res string
	err := r.Scan(&a.Tenant, &a.Audience, &a.Client, &a.TokenVersion, &res)
	if err != nil {
		return a, err
	}
	a.Resource, err = parseID(res)
	return a, err
}

// API returns the registered API with this audience, compared without case and
// without trailing slashes; [problem.UnknownAudience] if none.
func (db *DB) API(ctx context.Context, tenant, audience string) (directory.API, error) {
	none := problem.Errorf(problem.UnknownAudience, "the audience %q is not registered in this tenant", audience)
	return one(ctx, db.read, none, scanAPI, getAPI, tenant, audienceKey(audience))
}

const listAPIs = `
	SELECT tenant, audience, client, token_version, resource FROM api
	WHERE tenant = $1 AND resource_key = $2 ORDER BY audience_key`

// APIs returns the audiences of an application, in their order.
func (t *writeTx) APIs(resourceKey string) ([]directory.API, error) {
	return many(t.ctx, t.q, scanAPI, listAPIs, t.tenant, fold(resourceKey))
}

// putAPI changes no row if the audience is another application's.
const putAPI = `
	INSERT INTO api (tenant, audience_key, audience, client, token_version, resource, resource_key)
	VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (tenant, audience_key) DO UPDATE SET
		audience = excluded.audience, client = excluded.client, token_version = excluded.token_version, resource = excluded.resource
	WHERE api.resource_key = excluded.resource_key`

// PutAPI registers an audience for an application; [problem.Exists] if another
// application has it.
func (t *writeTx) PutAPI(a directory.API) error {
	n, err := t.exec(putAPI, t.tenant, audienceKey(a.Audience), a.Audience, a.Client, a.TokenVersion, a.Resource.String(), a.Resource.Key())
	if err != nil {
		return fmt.Errorf("registering the audience %s: %w", a.Audience, err)
	}
	if n == 0 {
		return problem.Errorf(problem.Exists, "the audience %q is another application's", a.Audience)
	}
	t.change(arm.ChangeAPI, a.Resource.Key())
	return nil
}

const deleteAPIs = `DELETE FROM api WHERE tenant = $1 AND resource_key = $2`

// DeleteAPIs deletes the audiences of an application.
func (t *writeTx) DeleteAPIs(resourceKey string) error {
	n, err := t.exec(deleteAPIs, t.tenant, fold(resourceKey))
	if err != nil {
		return fmt.Errorf("deleting the audiences of %s: %w", resourceKey, err)
	}
	if n > 0 {
		t.change(arm.ChangeAPI, fold(resourceKey))
	}
	return nil
}
