package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/vault"
)

// versionColumns are those of a version v of a secret s, but for its value.
const versionColumns = `s.name, v.version, v.content_type, v.tags, v.enabled, v.not_before_ms, v.expires_ms, v.created_ms, v.updated_ms, s.deleted_ms, s.purge_ms`

// versionOfSecret joins the two tables.
const versionOfSecret = ` FROM secret s JOIN secret_version v ON v.tenant = s.tenant AND v.vault_key = s.vault_key AND v.name_key = s.name_key `

// scanVersion reads versionColumns, and more columns into more.
func scanVersion(r row, more ...any) (vault.Secret, error) {
	var s vault.Secret
	var tags string
	var notBefore, expires, created, updated, deleted, purge int64
	dest := []any{&s.Name, &s.Version, &s.ContentType, &tags, &s.Enabled, &notBefore, &expires, &created, &updated, &deleted, &purge}
	if err := r.Scan(append(dest, more...)...); err != nil {
		return s, err
	}
	s.NotBefore, s.Expires, s.Created, s.Updated = at(notBefore), at(expires), at(created), at(updated)
	s.Deleted, s.PurgeAt = at(deleted), at(purge)
	if err := json.Unmarshal([]byte(tags), &s.Tags); err != nil {
		return s, fmt.Errorf("decoding the tags of secret %s: %w", s.Name, err)
	}
	return s, nil
}

func scanInfo(r row) (vault.Secret, error) { return scanVersion(r) }

func scanSecret(r row) (vault.Secret, error) {
	var sealed []byte
	s, err := scanVersion(r, &sealed)
	s.Sealed = sealed
	return s, err
}

func noSecret(name, version string) error {
	if version == "" {
		return problem.Errorf(problem.NotFound, "there is no secret %q", name)
	}
	return problem.Errorf(problem.NotFound, "there is no version %q of the secret %q", version, name)
}

const getLatest = `SELECT ` + versionColumns + `, v.sealed` + versionOfSecret + `
	WHERE s.tenant = $1 AND s.vault_key = $2 AND s.name_key = $3 AND v.number = s.latest AND s.deleted_ms = 0`

const getVersion = `SELECT ` + versionColumns + `, v.sealed` + versionOfSecret + `
	WHERE s.tenant = $1 AND s.vault_key = $2 AND s.name_key = $3 AND v.version = $4 AND s.deleted_ms = 0`

// Secret returns a version, or with version "" the latest, of a secret that
// lives; [problem.NotFound].
func (db *DB) Secret(ctx context.Context, tenant, vaultKey, name, version string) (vault.Secret, error) {
	stmt, args := getLatest, []any{tenant, fold(vaultKey), fold(name)}
	if version != "" {
		stmt, args = getVersion, append(args, fold(version))
	}
	return one(ctx, db.read, noSecret(name, version), scanSecret, stmt, args...)
}

// With $4 = 1 listSecrets lists the soft-deleted ones.
const listSecrets = `SELECT ` + versionColumns + versionOfSecret + `
	WHERE s.tenant = $1 AND s.vault_key = $2 AND s.name_key > $3 AND v.number = s.latest
		AND CASE WHEN s.deleted_ms > 0 THEN 1 ELSE 0 END = $4
	ORDER BY s.name_key LIMIT $5`

// Secrets lists the latest version of each live secret (deleted: of each
// soft-deleted one) without its value, by lower-case name > after. A limit that
// is not positive means all.
func (db *DB) Secrets(ctx context.Context, tenant, vaultKey string, deleted bool, after string, max int) ([]vault.Secret, error) {
	out, err := many(ctx, db.read, scanInfo, listSecrets, tenant, fold(vaultKey), fold(after), bit(deleted), limit(max))
	if err != nil {
		return nil, fmt.Errorf("listing the secrets of %s: %w", vaultKey, err)
	}
	return out, nil
}

const listVersions = `SELECT ` + versionColumns + versionOfSecret + `
	WHERE s.tenant = $1 AND s.vault_key = $2 AND s.name_key = $3 AND s.deleted_ms = 0 AND v.number < $4
	ORDER BY v.number DESC LIMIT $5`

const versionNumber = `SELECT number FROM secret_version
	WHERE tenant = $1 AND vault_key = $2 AND name_key = $3 AND version = $4`

// Versions lists the versions of a live secret without values, newest first,
// those older than the version "after" ("" from the newest; none if there is no
// such version). A limit that is not positive means all.
func (db *DB) Versions(ctx context.Context, tenant, vaultKey, name, after string, max int) ([]vault.Secret, error) {
	before := int64(math.MaxInt64)
	if after != "" {
		var err error
		before, err = one(ctx, db.read, nil, scanned[int64], versionNumber, tenant, fold(vaultKey), fold(name), fold(after))
		if err != nil {
			return nil, fmt.Errorf("reading a version of secret %s: %w", name, err)
		}
	}
	out, err := many(ctx, db.read, scanInfo, listVersions, tenant, fold(vaultKey), fold(name), before, limit(max))
	if err != nil {
		return nil, fmt.Errorf("listing the versions of secret %s: %w", name, err)
	}
	return out, nil
}

// encodeTags writes tags as JSON, which escapes what text columns cannot hold.
func encodeTags(tags map[string]string) (string, error) {
	b, err := json.Marshal(tags)
	if err != nil {
		return "", fmt.Errorf("encoding tags: %w", err)
	}
	return string(b), nil
}

const countSecrets = `SELECT COUNT(*) FROM secret WHERE tenant = $1 AND vault_key = $2 AND latest > 0`

// LiveSecrets counts the vault's secrets, soft-deleted ones included.
func (t *writeTx) LiveSecrets(vaultKey string) (int, error) {
	n, err := one(t.ctx, t.q, nil, scanned[int], countSecrets, t.tenant, fold(vaultKey))
	if err != nil {
		return 0, fmt.Errorf("counting the secrets of %s: %w", vaultKey, err)
	}
	return n, nil
}
