package store

import (
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
)

// A resource goes with all that is below it, by a statement a table however much
// that is: with SQLite nobody else commits meanwhile, and a statement a row would
// have everybody wait until they give up.

// drop is one of these statements. Its parameters are the tenant, the key, and
// the range below that.
type drop struct {
	what, stmt string
	// kind is of the rows of the feed whose keys the statement returns; "" if it
	// returns none.
	kind string
}

// principalsIn are those of the resources. The last comparison is for the index.
var principalsIn = column{key: "resource_key"}.within() + ` AND resource_key <> ''`

// Those are found by the principals, and so go before them.
var dropTheirs = []drop{
	{"their role assignments", `DELETE FROM assignment WHERE tenant = $1 AND principal IN (SELECT id FROM principal WHERE ` + principalsIn + `)
	RETURNING principal`, arm.ChangeAssignment},
	{"their federated credentials", `DELETE FROM federated_credential WHERE tenant = $1 AND principal IN (SELECT id FROM principal WHERE ` + principalsIn + `)
	RETURNING principal`, arm.ChangeCredential},
	{"their memberships", `DELETE FROM group_member WHERE tenant = $1 AND member IN (SELECT id FROM principal WHERE ` + principalsIn + `)
	RETURNING group_id`, arm.ChangeGroup},
}

var deleteDenialsWithin = `DELETE FROM deny_assignment WHERE ` + column{key: "scope_key"}.within() + ` RETURNING key`

var dropPrincipals = `DELETE FROM principal WHERE ` + principalsIn + ` RETURNING ` + principalColumns

var (
	dropScopes   = drop{"role assignments", `DELETE FROM assignment WHERE ` + column{key: "scope_key"}.within() + ` RETURNING principal`, arm.ChangeAssignment}
	dropAttached = drop{"attached identities", `DELETE FROM attachment WHERE ` + column{key: "resource_key"}.within() + ` RETURNING resource_key`, arm.ChangeIdentity}
	dropUses     = drop{"attachments", `DELETE FROM attachment WHERE ` + column{key: "identity_key"}.within() + ` RETURNING resource_key`, arm.ChangeIdentity}
	dropAPIs     = drop{"audiences", `DELETE FROM api WHERE ` + column{key: "resource_key"}.within() + ` RETURNING resource_key`, arm.ChangeAPI}
	dropNames    = drop{"names", `DELETE FROM claimed_name WHERE ` + column{key: "resource_key"}.within(), ""}
	dropTerms    = drop{"terms", `DELETE FROM resource_term WHERE ` + column{key: "resource_key"}.within(), ""}
	dropRows     = drop{"resources", `DELETE FROM resource WHERE ` + column{key: "key"}.within() + ` RETURNING key`, arm.ChangeResource}
)

// touchUsers are of those that have an identity that goes: what clients read of
// them is another than before, and so is their ETag.
var touchUsers = `
	UPDATE resource SET etag = $5
	WHERE tenant = $1 AND key IN (SELECT resource_key FROM attachment WHERE ` + column{key: "identity_key"}.within() + `)
	RETURNING key`

// DeleteTree deletes the resource and all below it, with what is theirs: their
// principals and all that those have, their attachments, role and deny
// assignments at them, names and audiences. No error if absent.
// [problem.Conflict] if a vault among them holds secrets.
func (t *writeTx) DeleteTree(key string) error {
	key = fold(key)
	lo, hi := below(key)
	in := []any{t.tenant, key, lo, hi}
	if err := t.deleteDenials(deleteDenialsWithin, in...); err != nil {
		return err
	}
	if err := t.drop(in, append(dropTheirs, dropScopes)...); err != nil {
		return err
	}
	gone, err := many(t.ctx, t.q, scanPrincipal, dropPrincipals, in...)
	if err != nil {
		return fmt.Errorf("deleting the principals of %s: %w", key, err)
	}
	for _, p := range gone {
		t.principalChanged(p)
	}
	if err := t.drop(in, dropAttached); err != nil { // users that go are not touched
		return err
	}
	users, err := many(t.ctx, t.q, scanned[string], touchUsers, append(in, t.revision)...)
	if err != nil {
		return fmt.Errorf("changing who has an identity of %s: %w", key, err)
	}
	for _, k := range users {
		t.change(arm.ChangeResource, k)
	}
	return t.drop(in, dropUses, dropAPIs, dropNames, dropTerms, dropRows)
}

func (t *writeTx) drop(in []any, drops ...drop) error {
	for _, d := range drops {
		if d.kind == "" {
			if _, err := t.exec(d.stmt, in...); err != nil {
				return fmt.Errorf("deleting the %s of %s: %w", d.what, in[1], err)
			}
			continue
		}
		keys, err := many(t.ctx, t.q, scanned[string], d.stmt, in...)
		if dangling(err) {
			return &problem.Error{Kind: problem.Conflict, Detail: fmt.Sprintf("%s is, or has in it, a vault that still holds secrets", in[1]), Err: err}
		}
		if err != nil {
			return fmt.Errorf("deleting the %s of %s: %w", d.what, in[1], err)
		}
		for _, k := range keys {
			t.change(d.kind, k)
		}
	}
	return nil
}
