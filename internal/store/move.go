package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// column is a place where a table has the ID of a resource, by which a row is
// found: key is the column of the ID in lower case, text its neighbour in the
// author's case, "" where there is none.
type column struct{ table, key, text string }

// places are all of them but the resources themselves and the secrets in them,
// whose references need an order. A column that names a resource and is not
// here would be left behind by a move: TestMoveKnowsEveryColumn sees to it.
var places = []column{
	{"principal", "resource_key", "resource"},
	{"attachment", "resource_key", ""},
	{"attachment", "identity_key", ""},
	{"assignment", "scope_key", "scope"},
	{"assignment", "key", "id"},
	{"deny_assignment", "scope_key", "scope"},
	{"deny_assignment", "key", "id"},
	{"deny_principal", "key", ""},
	{"claimed_name", "resource_key", ""},
	{"api", "resource_key", "resource"},
	{"resource", "bound_key", "bound_to"},
	{"resource_term", "resource_key", ""},
}

// range of a node: itself and what lies below it. The first comparison is for
// the index.
func (n column) within() string {
	return `tenant = $1 AND ` + n.key + ` >= $2 AND ` + n.key + ` < $4 AND (` + n.key + ` = $2 OR ` + n.key + ` > $3)`
}

// renamed makes of a column whose beginning is the old ID one with the new ID
// in its place; $5 is where what follows it begins.
func renamed(column, to string) string { return to + ` || substr(` + column + `, $5)` }

func (n column) rename() string {
	set := n.key + ` = ` + renamed(n.key, `CAST($6 AS TEXT)`)
	if n.text != "" {
		set += `, ` + n.text + ` = ` + renamed(n.text, `CAST($7 AS TEXT)`)
	}
	return `UPDATE ` + n.table + ` SET ` + set + ` WHERE ` + n.within()
}

// renaming are the parameters of a statement about what moves. Not every
// statement has a use for the last of them.
type renaming struct {
	tenant           string
	key, lo, hi      string
	rest             int
	toKey, to        string
	from, toID       resource.ID
	toLow, toHighest string
}

func newRenaming(tenant string, from, to resource.ID) renaming {
	lo, hi := below(from.Key())
	tlo, thi := below(to.Key())
	return renaming{tenant: tenant, key: from.Key(), lo: lo, hi: hi, rest: len(from.String()) + 1, toKey: to.Key(), to: to.String(),
		from: from, toID: to, toLow: tlo, toHighest: thi}
}

func (r renaming) scope() []any { return []any{r.tenant, r.key, r.lo, r.hi} }

func (r renaming) all(n column) []any {
	args := append(r.scope(), r.rest, r.toKey)
	if n.text != "" {
		args = append(args, r.to)
	}
	return args
}

// Move gives the resource from the ID to, and all below it IDs below that, with
// everything in the database that has one of the old IDs. Nothing may be at to
// or below it. [problem.Invalid] if an ID would get too long.
//
// Rows of types that say IDs in their bodies are not rewritten: who moves does
// so. The feed has the old and the new key of each resource, its principals,
// whoever has roles there, and the resources that a moved identity is attached to.
func (t *writeTx) Move(from, to resource.ID, at time.Time) error {
	r := newRenaming(t.tenant, from, to)
	if err := t.fits(r); err != nil {
		return err
	}
	if err := t.tellMoved(r); err != nil {
		return err
	}
	if err := t.keepMoved(r, at); err != nil {
		return err
	}
	if err := t.moveResources(r); err != nil {
		return err
	}
	for _, n := range places {
		if _, err := t.exec(n.rename(), r.all(n)...); err != nil {
			return fmt.Errorf("moving %s.%s: %w", n.table, n.key, err)
		}
	}
	return t.tellMoved(newRenaming(t.tenant, to, from))
}

// fits refuses a move after which an ID could not be read any more.
func (t *writeTx) fits(r renaming) error {
	for _, n := range append(places, column{"resource", "key", "id"}) {
		longest, err := one(t.ctx, t.q, nil, scanned[int], `SELECT COALESCE(MAX(LENGTH(`+n.key+`)), 0) FROM `+n.table+` WHERE `+n.within(), r.scope()...)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", n.table, err)
		}
		if longest-len(r.key)+len(r.toKey) > resource.MaxLen {
			return problem.Errorf(problem.Invalid, "A resource ID below %s would be over %d bytes long.", r.to, resource.MaxLen)
		}
	}
	return nil
}

var (
	movedKeys       = `SELECT key FROM resource WHERE ` + column{key: "key"}.within()
	movedPrincipals = `SELECT id FROM principal WHERE ` + column{key: "resource_key"}.within()
	movedHolders    = `SELECT DISTINCT principal FROM assignment WHERE ` + column{key: "scope_key"}.within()
	movedAttached   = `SELECT DISTINCT resource_key FROM attachment WHERE ` + column{key: "identity_key"}.within()
	movedHaving     = `SELECT DISTINCT resource_key FROM attachment WHERE ` + column{key: "resource_key"}.within()
	movedSystems    = `SELECT resource_key FROM principal WHERE system = 1 AND ` + column{key: "resource_key"}.within()
	movedAPIs       = `SELECT DISTINCT resource_key FROM api WHERE ` + column{key: "resource_key"}.within()
)

// tellMoved leaves in the feed what is at the old IDs; called for the new ones,
// what is there.
func (t *writeTx) tellMoved(r renaming) error {
	for _, f := range []struct{ stmt, kind string }{
		{movedKeys, arm.ChangeResource}, {movedPrincipals, arm.ChangePrincipal}, {movedHolders, arm.ChangeAssignment},
		{movedAttached, arm.ChangeIdentity}, {movedHaving, arm.ChangeIdentity}, {movedSystems, arm.ChangeIdentity}, {movedAPIs, arm.ChangeAPI},
	} {
		keys, err := many(t.ctx, t.q, scanned[string], f.stmt, r.scope()...)
		if err != nil {
			return fmt.Errorf("finding what moves: %w", err)
		}
		for _, k := range keys {
			t.change(f.kind, k)
		}
	}
	return nil
}

const (
	// forgetMovedTo is for where something is now: whoever went from there is
	// not followed any more.
	forgetMovedTo = `DELETE FROM moved WHERE tenant = $1 AND old_key >= $2 AND old_key < $4 AND (old_key = $2 OR old_key > $3)`
	forgetMoved   = `DELETE FROM moved WHERE tenant = $1 AND old_key = $2`
)

var addMoved = `
	INSERT INTO moved (tenant, old_key, new_id, at_ms)
	SELECT tenant, key, ` + renamed("id", `CAST($6 AS TEXT)`) + `, CAST($7 AS BIGINT) FROM resource WHERE ` + column{key: "key"}.within()

// keepMoved keeps where everything went.
func (t *writeTx) keepMoved(r renaming, at time.Time) error {
	for _, where := range [][]any{{r.tenant, r.toKey, r.toLow, r.toHighest}, r.scope()} {
		if _, err := t.exec(forgetMovedTo, where...); err != nil {
			return fmt.Errorf("forgetting what went from %s: %w", r.toKey, err)
		}
	}
	if _, err := t.exec(addMoved, append(r.scope(), r.rest, r.to, ms(at))...); err != nil {
		return fmt.Errorf("keeping where %s went: %w", r.key, err)
	}
	return nil
}

// Secrets refer to their vault's row, and their versions to theirs. So the new
// rows are made before the old ones go.
var (
	copyResources = `
	INSERT INTO resource (tenant, key, id, type, type_key, uid, body, bound_to, bound_key, etag, created_ms, updated_ms, created_by, updated_by)
	SELECT tenant, ` + renamed("key", `CAST($6 AS TEXT)`) + `, ` + renamed("id", `CAST($7 AS TEXT)`) + `, type, type_key, uid, body, bound_to, bound_key,
		CAST($8 AS BIGINT), created_ms, updated_ms, created_by, updated_by
	FROM resource WHERE ` + column{key: "key"}.within()

	// holdSecrets locks the secrets: whoever adds a version to one waits, and
	// then finds that the vault is gone.
	holdSecrets = `UPDATE secret SET latest = latest WHERE ` + column{key: "vault_key"}.within() + ` RETURNING vault_key, name_key`

	dropResources = `DELETE FROM resource WHERE ` + column{key: "key"}.within()

	// holdResources is PostgreSQL's own, see [postgres.hold].
	holdResources = `SELECT 1 FROM resource WHERE ` + column{key: "key"}.within() + ` FOR UPDATE`
)

// Each secret goes by itself, once it is locked.
const (
	copySecret = `
	INSERT INTO secret (tenant, vault_key, name_key, name, latest, deleted_ms, purge_ms)
	SELECT tenant, $4, name_key, name, latest, deleted_ms, purge_ms
	FROM secret WHERE tenant = $1 AND vault_key = $2 AND name_key = $3`

	copyVersions = `
	INSERT INTO secret_version (tenant, vault_key, name_key, version, number, sealed, content_type, tags, enabled,
		not_before_ms, expires_ms, created_ms, updated_ms)
	SELECT tenant, $4, name_key, version, number, sealed, content_type, tags, enabled,
		not_before_ms, expires_ms, created_ms, updated_ms
	FROM secret_version WHERE tenant = $1 AND vault_key = $2 AND name_key = $3`
)

func (t *writeTx) moveResources(r renaming) error {
	if err := t.postgres.hold(t.ctx, t.q, holdResources, r.scope()...); err != nil {
		return fmt.Errorf("locking %s: %w", r.key, err)
	}
	if _, err := t.exec(copyResources, append(r.scope(), r.rest, r.toKey, r.to, t.revision)...); err != nil {
		return fmt.Errorf("moving %s: %w", r.key, err)
	}
	held, err := many(t.ctx, t.q, func(row row) (secretName, error) {
		n := secretName{tenant: t.tenant}
		return n, row.Scan(&n.vaultKey, &n.nameKey)
	}, holdSecrets, r.scope()...)
	if err != nil {
		return fmt.Errorf("locking the secrets of %s: %w", r.key, err)
	}
	for _, n := range held {
		to := r.toKey + n.vaultKey[len(r.key):]
		for _, stmt := range []string{copySecret, copyVersions} {
			if _, err := t.exec(stmt, n.tenant, n.vaultKey, n.nameKey, to); err != nil {
				return fmt.Errorf("moving a secret of %s: %w", n.vaultKey, err)
			}
		}
		if _, err := t.exec(purgeSecret, n.tenant, n.vaultKey, n.nameKey); err != nil {
			return fmt.Errorf("moving a secret of %s: %w", n.vaultKey, err)
		}
	}
	if _, err = t.exec(dropResources, r.scope()...); err != nil {
		return fmt.Errorf("moving %s: %w", r.key, err)
	}
	return nil
}

// sealedPage bounds how many values are in memory at a time.
const sealedPage = 200

const sealedVersions = `
	SELECT name_key, version, sealed FROM secret_version
	WHERE tenant = $1 AND vault_key = $2 AND (name_key, version) > ($3, $4) ORDER BY name_key, version LIMIT $5`

const reseal = `UPDATE secret_version SET sealed = $5 WHERE tenant = $1 AND vault_key = $2 AND name_key = $3 AND version = $4`

type sealedVersion struct {
	name, version string
	sealed        []byte
}

func scanSealed(r row) (sealedVersion, error) {
	var v sealedVersion
	err := r.Scan(&v.name, &v.version, &v.sealed)
	return v, err
}

// Reseal replaces the sealed value of every version of every secret of the
// vault by what again makes of it.
func (t *writeTx) Reseal(vaultKey string, again func(name, version string, sealed []byte) ([]byte, error)) error {
	var last sealedVersion
	for {
		page, err := many(t.ctx, t.q, scanSealed, sealedVersions, t.tenant, fold(vaultKey), last.name, last.version, sealedPage)
		if err != nil {
			return fmt.Errorf("reading the secrets of %s: %w", vaultKey, err)
		}
		for _, v := range page {
			sealed, err := again(v.name, v.version, v.sealed)
			if err != nil {
				return err
			}
			if _, err := t.exec(reseal, t.tenant, fold(vaultKey), v.name, v.version, sealed); err != nil {
				return fmt.Errorf("sealing secret %s anew: %w", v.name, err)
			}
			last = v
		}
		if len(page) < sealedPage {
			return nil
		}
	}
}

const getMoved = `SELECT new_id, at_ms FROM moved WHERE tenant = $1 AND old_key = $2`

// maxHops bounds how often one resource is followed.
const maxHops = 16

type movedTo struct {
	id resource.ID
	at int64
}

func scanMoved(r row) (movedTo, error) {
	var m movedTo
	var id string
	if err := r.Scan(&id, &m.at); err != nil {
		return m, err
	}
	var err error
	m.id, err = parseID(id)
	return m, err
}

// Moved follows a resource that was at an ID at a time to where it is now; the
// zero ID if it did not move since, or if another one has been there meanwhile.
func (db *DB) Moved(ctx context.Context, tenant string, from resource.ID, since time.Time) (resource.ID, error) {
	var now resource.ID
	after := ms(since)
	for range maxHops {
		m, err := one(ctx, db.read, nil, scanMoved, getMoved, tenant, from.Key())
		if err != nil {
			return resource.ID{}, fmt.Errorf("reading where %s went: %w", from, err)
		}
		if m.id.IsZero() || m.at < after {
			break
		}
		now, from, after = m.id, m.id, m.at
	}
	return now, nil
}

const resourceWithUID = `SELECT ` + resourceColumns + ` FROM resource WHERE tenant = $1 AND uid = $2`

// ResourceWithUID finds a resource by its UID, wherever it is now;
// [problem.NotFound].
func (t *writeTx) ResourceWithUID(uid string) (arm.Resource, error) {
	none := problem.Errorf(problem.NotFound, "there is no resource with the UID %s", uid)
	return one(t.ctx, t.q, none, scanResource, resourceWithUID, t.tenant, uid)
}
