package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
)

// holdingsMost is how many keys a statement takes: a page, the row that says
// whether there is another, and some room. It is always that many, the last one
// several times, so that there is one text to parse and plan.
const holdingsMost = 128

// someKeys are the parameters $2, $3 and so on for the keys.
var someKeys = func() string {
	var out []string
	for i := range holdingsMost {
		out = append(out, "$"+strconv.Itoa(i+2))
	}
	return strings.Join(out, ", ")
}()

// principalsOfSome finds both the principal that a resource is and its
// system-assigned identity: a resource has at most one of its own.
var principalsOfSome = `SELECT ` + principalColumns + ` FROM principal
	WHERE tenant = $1 AND resource_key IN (` + someKeys + `) AND resource_key <> ''`

// identitiesOfSome is getIdentities of some; the cross join is there for the
// same reason.
var identitiesOfSome = `
	SELECT p.tenant, p.id, p.client, p.kind, p.name, p.resource, p.system, p.enabled, p.valid_from_ms, p.created_ms, a.resource_key
	FROM attachment a CROSS JOIN principal p
	WHERE a.tenant = $1 AND a.resource_key IN (` + someKeys + `) AND p.tenant = a.tenant AND p.resource_key = a.identity_key
		AND p.resource_key <> '' AND p.system = 0
	ORDER BY a.resource_key, a.identity_key`

// attached is an identity and the key of a resource that has it.
type attached struct {
	to       string
	identity directory.Principal
}

func scanAttached(r row) (attached, error) {
	var out attached
	var err error
	out.identity, err = scanPrincipal(withKey{r, &out.to})
	return out, err
}

// withKey is a row whose last column is not a principal's.
type withKey struct {
	row
	key *string
}

func (r withKey) Scan(dest ...any) error { return r.row.Scan(append(dest, r.key)...) }

// Holdings is [DB.PrincipalOf] and [DB.Identities] of many resources at once, by
// key. It asks two statements of each 128 of them.
func (db *DB) Holdings(ctx context.Context, tenant string, resourceKeys []string) (map[string]arm.Holding, error) {
	out := map[string]arm.Holding{}
	keys := make([]string, len(resourceKeys))
	for i, k := range resourceKeys {
		keys[i] = fold(k)
	}
	slices.Sort(keys)
	for some := range slices.Chunk(slices.Compact(keys), holdingsMost) {
		if err := db.holdings(ctx, out, tenant, some); err != nil {
			return nil, fmt.Errorf("reading who belongs to %s and %d more: %w", some[0], len(some)-1, err)
		}
	}
	return out, nil
}

func (db *DB) holdings(ctx context.Context, out map[string]arm.Holding, tenant string, keys []string) error {
	args := []any{tenant}
	for i := range holdingsMost {
		args = append(args, keys[min(i, len(keys)-1)])
	}
	own, err := many(ctx, db.read, scanPrincipal, principalsOfSome, args...)
	if err != nil {
		return err
	}
	for _, p := range own {
		h := arm.Holding{Own: p}
		if p.System {
			h.Identities = []directory.Principal{p}
		}
		out[p.Resource.Key()] = h
	}
	more, err := many(ctx, db.read, scanAttached, identitiesOfSome, args...)
	if err != nil {
		return err
	}
	for _, a := range more {
		h := out[a.to]
		h.Identities = append(h.Identities, a.identity)
		out[a.to] = h
	}
	return nil
}
