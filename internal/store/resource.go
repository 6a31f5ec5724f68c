package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const resourceColumns = `tenant, id, type, uid, body, bound_to, etag, created_ms, updated_ms, created_by, updated_by`

func scanResource(r row) (arm.Resource, error) {
	var n arm.Resource
	var id, bound string
	var body []byte
	var created, updated int64
	err := r.Scan(&n.Tenant, &id, &n.Type, &n.UID, &body, &bound, &n.ETag, &created, &updated, &n.CreatedBy, &n.UpdatedBy)
	if err != nil {
		return n, err
	}
	n.Created, n.Updated = at(created), at(updated)
	if n.ID, err = parseID(id); err != nil {
		return n, err
	}
	if n.BoundTo, err = parseID(bound); err != nil {
		return n, err
	}
	if err := json.Unmarshal(body, &n.Body); err != nil {
		return n, fmt.Errorf("decoding the body of %s: %w", id, err)
	}
	return n, nil
}

const getResource = `SELECT ` + resourceColumns + ` FROM resource WHERE tenant = $1 AND key = $2`

func resourceAt(ctx context.Context, q querier, tenant, key string) (arm.Resource, error) {
	none := problem.Errorf(problem.NotFound, "there is no resource %s", key)
	return one(ctx, q, none, scanResource, getResource, tenant, fold(key))
}

// Resource returns [problem.NotFound] if there is none with this key.
func (db *DB) Resource(ctx context.Context, tenant, key string) (arm.Resource, error) {
	return resourceAt(ctx, db.read, tenant, key)
}

// Resource is as in [DB.Resource], within the transaction.
func (t *writeTx) Resource(key string) (arm.Resource, error) {
	return resourceAt(t.ctx, t.q, t.tenant, key)
}

// Tags returns the tags of the resource with this key; none if there is no such
// resource.
func (db *DB) Tags(ctx context.Context, tenant, resourceKey string) (map[string]string, error) {
	r, err := db.Resource(ctx, tenant, resourceKey)
	if problem.Is(err, problem.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return arm.Tags(r)
}

const listResources = `SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND key > $2 AND key < $3 ORDER BY key LIMIT $4`

// listResourcesOfType compares pairs, so that it can only go by the index on
// type: by the one on key it would read the tenant to find a few hosts.
const listResourcesOfType = `SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND (type_key, key) > ($5, $2) AND (type_key, key) < ($5, $3) ORDER BY type_key, key LIMIT $4`

// Resources lists by key. under "" means the whole tenant, else only what lies
// below that key; typ "" means all types (compared without case). A limit that
// is not positive means all.
func (db *DB) Resources(ctx context.Context, tenant, under, typ string, p arm.Page) ([]arm.Resource, error) {
	lo, hi := below(fold(under))
	stmt, args := listResources, []any{tenant, max(lo, fold(p.After)), hi, limit(p.Limit)}
	if typ != "" {
		stmt, args = listResourcesOfType, append(args, fold(typ))
	}
	out, err := many(ctx, db.read, scanResource, stmt, args...)
	if err != nil {
		return nil, fmt.Errorf("listing resources: %w", err)
	}
	return out, nil
}

// listBoundResources lists what is bound to the key $2 or into the range $3 to
// $4 below it. The first range holds both, and is what the index is asked for.
const listBoundResources = `SELECT ` + resourceColumns + ` FROM resource
	WHERE tenant = $1 AND bound_key <> '' AND bound_key >= $2 AND bound_key < $4 AND (bound_key = $2 OR bound_key > $3)`

// Resources lists everything below the key "under", and with bound also what is
// bound to under or to something below it.
func (t *writeTx) Resources(under string, bound bool) ([]arm.Resource, error) {
	under = fold(under)
	lo, hi := below(under)
	out, err := many(t.ctx, t.q, scanResource, listResources, t.tenant, lo, hi, limit(0))
	if err != nil {
		return nil, fmt.Errorf("listing what is below %s: %w", under, err)
	}
	if !bound {
		return out, nil
	}
	more, err := many(t.ctx, t.q, scanResource, listBoundResources, t.tenant, under, lo, hi)
	if err != nil {
		return nil, fmt.Errorf("listing what is bound to %s: %w", under, err)
	}
	return byKey(append(out, more...), func(r arm.Resource) resource.ID { return r.ID }), nil
}

// byKey sorts by the keys of IDs and leaves each but once.
func byKey[T any](all []T, id func(T) resource.ID) []T {
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(id(a).Key(), id(b).Key()) })
	return slices.CompactFunc(all, func(a, b T) bool { return id(a).Equal(id(b)) })
}

const putResource = `
	INSERT INTO resource (tenant, key, id, type, type_key, uid, body, bound_to, bound_key, etag, created_ms, updated_ms, created_by, updated_by)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
	ON CONFLICT (tenant, key) DO UPDATE SET
		id = excluded.id, type = excluded.type, type_key = excluded.type_key, uid = excluded.uid, body = excluded.body,
		bound_to = excluded.bound_to, bound_key = excluded.bound_key, etag = excluded.etag,
		created_ms = excluded.created_ms, updated_ms = excluded.updated_ms,
		created_by = excluded.created_by, updated_by = excluded.updated_by`

// PutResource creates or replaces the row; the store sets ETag to Revision.
func (t *writeTx) PutResource(r arm.Resource) error {
	if r.ID.IsZero() {
		return problem.Errorf(problem.Invalid, "a resource needs an ID")
	}
	body, err := encodeBody(r.Body)
	if err != nil {
		return fmt.Errorf("encoding the body of %s: %w", r.ID, err)
	}
	_, err = t.exec(putResource, t.tenant, r.ID.Key(), r.ID.String(), r.Type, fold(r.Type), r.UID, body,
		r.BoundTo.String(), r.BoundTo.Key(), t.revision, ms(r.Created), ms(r.Updated), r.CreatedBy, r.UpdatedBy)
	if err != nil {
		return fmt.Errorf("writing resource %s: %w", r.ID, err)
	}
	if _, err := t.exec(forgetMoved, t.tenant, r.ID.Key()); err != nil {
		return fmt.Errorf("forgetting what went from %s: %w", r.ID, err)
	}
	t.change(arm.ChangeResource, r.ID.Key())
	return t.putTerms(r)
}

// encodeBody keeps the client's text as it is, "<" and all.
func encodeBody(body map[string]json.RawMessage) ([]byte, error) {
	if len(body) == 0 {
		return []byte("{}"), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(body)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
