package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/vault"
)

// WriteSecrets runs fn and records *ev in one group-committed unit: an error
// from fn undoes its part alone and is returned. fn may run more than once. It
// takes no revision and waits for no other tenant or vault.
func (db *DB) WriteSecrets(ctx context.Context, ev *audit.Event, fn func(vault.Tx) error) error {
	first := *ev
	return db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) {
		*ev = first
		tx := &secretTx{ctx: ctx, q: q}
		if err := fn(tx); err != nil {
			return nil, err
		}
		if err := tx.dropUnused(); err != nil {
			return nil, err
		}
		return db.dated(*ev)
	}})
}

// secretTx is a write of secrets under way; it is the [vault.Tx].
type secretTx struct {
	ctx context.Context
	q   querier
	// held are the names that were locked before they had a version.
	held []secretName
}

type secretName struct{ tenant, vaultKey, nameKey string }

func nameOf(at vault.Place, name string) secretName {
	return secretName{at.Tenant, fold(at.ID.Key()), fold(name)}
}

// secretRow is a row of the table secret: the secret without its versions.
type secretRow struct {
	latest  int64
	deleted bool
}

func scanSecretRow(r row) (secretRow, error) {
	var s secretRow
	var deleted int64
	err := r.Scan(&s.latest, &deleted)
	s.deleted = deleted > 0
	return s, err
}

const vaultUID = `SELECT uid FROM resource WHERE tenant = $1 AND key = $2`

// stands refuses if the vault is not the one that at was found to be.
func (t *secretTx) stands(at vault.Place) error {
	uid, err := one(t.ctx, t.q, nil, scanned[string], vaultUID, at.Tenant, fold(at.ID.Key()))
	if err != nil {
		return fmt.Errorf("reading the vault %s: %w", at.ID, err)
	}
	if uid == "" || uid != at.UID {
		return noVault(at)
	}
	return nil
}

func noVault(at vault.Place) error {
	return problem.Errorf(problem.VaultNotFound, "there is no vault %s, or another one was made in its place; ask again", at.ID)
}

// holdSecret locks a name until the commit, also one that nobody has set: the
// row without a version stands for it, and whoever else wants the name waits.
const holdSecret = `
	INSERT INTO secret (tenant, vault_key, name_key, name, latest, deleted_ms, purge_ms) VALUES ($1, $2, $3, $4, 0, 0, 0)
	ON CONFLICT (tenant, vault_key, name_key) DO UPDATE SET latest = secret.latest
	RETURNING latest, deleted_ms`

// hold locks the name and says what stands there; latest is 0 if nothing does.
// [problem.VaultNotFound] if the vault is gone, or another one.
func (t *secretTx) hold(at vault.Place, name string) (secretRow, error) {
	n := nameOf(at, name)
	if err := t.stands(at); err != nil {
		return secretRow{}, err
	}
	s, err := one(t.ctx, t.q, nil, scanSecretRow, holdSecret, n.tenant, n.vaultKey, n.nameKey, name)
	if dangling(err) {
		return secretRow{}, noVault(at) // it went between the two statements
	}
	if err != nil {
		return secretRow{}, fmt.Errorf("locking secret %s: %w", name, err)
	}
	if s.latest == 0 {
		t.held = append(t.held, n)
	}
	// From here on the row keeps its vault from going. Before, another
	// replica may have deleted it and made it anew.
	return s, t.stands(at)
}

const dropUnusedSecret = `DELETE FROM secret WHERE tenant = $1 AND vault_key = $2 AND name_key = $3 AND latest = 0`

// dropUnused takes away the rows that only held a name.
func (t *secretTx) dropUnused() error {
	for _, n := range t.held {
		if _, err := exec(t.ctx, t.q, dropUnusedSecret, n.tenant, n.vaultKey, n.nameKey); err != nil {
			return fmt.Errorf("releasing a secret's name: %w", err)
		}
	}
	return nil
}

// existing is hold for a secret that must be there.
func (t *secretTx) existing(at vault.Place, name string) (secretRow, error) {
	s, err := t.hold(at, name)
	if err == nil && s.latest == 0 {
		return s, noSecret(name, "")
	}
	return s, err
}

const latestVersion = `SELECT ` + versionColumns + `, v.sealed` + versionOfSecret + `
	WHERE s.tenant = $1 AND s.vault_key = $2 AND s.name_key = $3 AND v.number = s.latest`

// Latest returns the latest version, of a live or soft-deleted secret;
// [problem.NotFound] if the name was never set or was purged.
func (t *secretTx) Latest(at vault.Place, name string) (vault.Secret, error) {
	if _, err := t.existing(at, name); err != nil {
		return vault.Secret{}, err
	}
	n := nameOf(at, name)
	return one(t.ctx, t.q, noSecret(name, ""), scanSecret, latestVersion, n.tenant, n.vaultKey, n.nameKey)
}

// Version returns one version of a live secret; [problem.NotFound].
func (t *secretTx) Version(at vault.Place, name, version string) (vault.Secret, error) {
	if _, err := t.existing(at, name); err != nil {
		return vault.Secret{}, err
	}
	n := nameOf(at, name)
	return one(t.ctx, t.q, noSecret(name, version), scanSecret, getVersion, n.tenant, n.vaultKey, n.nameKey, fold(version))
}

// nextVersion keeps the name as its first author wrote it.
const nextVersion = `
	UPDATE secret SET latest = latest + 1, name = CASE WHEN latest = 0 THEN $4 ELSE name END
	WHERE tenant = $1 AND vault_key = $2 AND name_key = $3
	RETURNING latest`

const putVersion = `
	INSERT INTO secret_version (tenant, vault_key, name_key, version, number, sealed, content_type, tags, enabled,
		not_before_ms, expires_ms, created_ms, updated_ms)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

// AddVersion makes s the latest version; it creates the secret if need be.
// [problem.VaultNotFound] if the vault is gone, [problem.DeletedRecoverable] if the secret is soft-deleted.
func (t *secretTx) AddVersion(at vault.Place, s vault.Secret) error {
	have, err := t.hold(at, s.Name)
	if err != nil {
		return err
	}
	if have.deleted {
		return problem.Errorf(problem.DeletedRecoverable, "the secret %q is deleted but recoverable", s.Name)
	}
	tags, err := encodeTags(s.Tags)
	if err != nil {
		return err
	}
	n := nameOf(at, s.Name)
	number, err := one(t.ctx, t.q, noSecret(s.Name, ""), scanned[int64], nextVersion, n.tenant, n.vaultKey, n.nameKey, s.Name)
	if err != nil {
		return fmt.Errorf("counting the versions of secret %s: %w", s.Name, err)
	}
	_, err = exec(t.ctx, t.q, putVersion, n.tenant, n.vaultKey, n.nameKey, fold(s.Version), number, blob(s.Sealed), s.ContentType, tags,
		bit(s.Enabled), ms(s.NotBefore), ms(s.Expires), ms(s.Created), ms(s.Updated))
	if err != nil {
		return fmt.Errorf("adding a version of secret %s: %w", s.Name, err)
	}
	return nil
}

const updateVersion = `
	UPDATE secret_version SET content_type = $5, tags = $6, enabled = $7, not_before_ms = $8, expires_ms = $9,
		created_ms = $10, updated_ms = $11
	WHERE tenant = $1 AND vault_key = $2 AND name_key = $3 AND version = $4`

// UpdateVersion changes everything of a version but its value;
// [problem.NotFound] if the live secret has no such version.
func (t *secretTx) UpdateVersion(at vault.Place, s vault.Secret) error {
	have, err := t.existing(at, s.Name)
	if err != nil {
		return err
	}
	if have.deleted {
		return noSecret(s.Name, "")
	}
	tags, err := encodeTags(s.Tags)
	if err != nil {
		return err
	}
	n := nameOf(at, s.Name)
	changed, err := exec(t.ctx, t.q, updateVersion, n.tenant, n.vaultKey, n.nameKey, fold(s.Version), s.ContentType, tags,
		bit(s.Enabled), ms(s.NotBefore), ms(s.Expires), ms(s.Created), ms(s.Updated))
	if err != nil {
		return fmt.Errorf("updating a version of secret %s: %w", s.Name, err)
	}
	if changed == 0 {
		return noSecret(s.Name, s.Version)
	}
	return nil
}

const setDeleted = `
	UPDATE secret SET deleted_ms = $4, purge_ms = $5
	WHERE tenant = $1 AND vault_key = $2 AND name_key = $3`

// SetDeleted soft-deletes a secret, or with zero times recovers it;
// [problem.NotFound] if there is none.
func (t *secretTx) SetDeleted(at vault.Place, name string, deleted, purgeAt time.Time) error {
	if _, err := t.existing(at, name); err != nil {
		return err
	}
	n := nameOf(at, name)
	if _, err := exec(t.ctx, t.q, setDeleted, n.tenant, n.vaultKey, n.nameKey, ms(deleted), ms(purgeAt)); err != nil {
		return fmt.Errorf("deleting or recovering secret %s: %w", name, err)
	}
	return nil
}

const purgeSecret = `DELETE FROM secret WHERE tenant = $1 AND vault_key = $2 AND name_key = $3`

// Purge removes a secret with all its versions; [problem.NotFound] if there is
// none.
func (t *secretTx) Purge(at vault.Place, name string) error {
	if _, err := t.existing(at, name); err != nil {
		return err
	}
	n := nameOf(at, name)
	if _, err := exec(t.ctx, t.q, purgeSecret, n.tenant, n.vaultKey, n.nameKey); err != nil {
		return fmt.Errorf("purging secret %s: %w", name, err)
	}
	return nil
}
