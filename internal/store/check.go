package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/resource"
)

// Fault is something that must never be: one row that refers to another one
// which is not there.
type Fault struct {
	Tenant string
	// Kind says what is wrong, Key which row, About what it refers to.
	Kind, Key, About string
}

func (f Fault) String() string {
	return "tenant " + f.Tenant + ": " + f.Kind + ": " + f.Key + " -> " + f.About
}

// credentialsIdentity is the key of the identity of a federated credential's
// resource, and credentialsName the credential's own name: what is before and after
// the last two words of its key.
const (
	upToName            = `rtrim(r.key, replace(r.key, '/', ''))`
	credentialsIdentity = `substr(r.key, 1, LENGTH(` + upToName + `) - LENGTH('/federatedidentitycredentials/'))`
	credentialsName     = `substr(r.key, LENGTH(` + upToName + `) + 1)`
)

// faults is one statement, so that it shows one moment: writes go on beside it.
//
// A scope may name something in a resource (a secret of a vault), which has no
// row of its own: then the resource right above it must be there. The last
// column is the deepest row that the scope lies in, to be looked at by [DB.Check].
const faults = `
	SELECT tenant, 'a role assignment without its principal' AS kind, id AS row_key, principal AS about, '' AS above FROM assignment a
	WHERE NOT EXISTS (SELECT 1 FROM principal p WHERE p.tenant = a.tenant AND p.id = a.principal)
	UNION ALL
	SELECT tenant, 'a role assignment without its scope', id, scope_key, COALESCE((SELECT MAX(r.key) FROM resource r
		WHERE r.tenant = a.tenant AND r.key < a.scope_key AND substr(a.scope_key, 1, LENGTH(r.key) + 1) = r.key || '/'), '') FROM assignment a
	WHERE scope_key <> '/' AND NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = a.tenant AND r.key = a.scope_key)
	UNION ALL
	SELECT tenant, 'a principal without its resource', id, resource_key, '' FROM principal p
	WHERE resource_key <> '' AND NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = p.tenant AND r.key = p.resource_key)
	UNION ALL
	SELECT tenant, 'an identity without its principal', id, key, '' FROM resource r
	WHERE type_key = 'microsoft.managedidentity/userassignedidentities'
		AND NOT EXISTS (SELECT 1 FROM principal p WHERE p.tenant = r.tenant AND p.resource_key = r.key AND p.resource_key <> '')
	UNION ALL
	SELECT tenant, 'an attachment without its resource', resource_key, identity_key, '' FROM attachment a
	WHERE NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = a.tenant AND r.key = a.resource_key)
	UNION ALL
	SELECT tenant, 'an attachment without its identity', resource_key, identity_key, '' FROM attachment a
	WHERE NOT EXISTS (SELECT 1 FROM principal p WHERE p.tenant = a.tenant AND p.resource_key = a.identity_key AND p.resource_key <> '' AND p.system = 0)
	UNION ALL
	SELECT tenant, 'a row bound to a resource that is not there', key, bound_key, '' FROM resource r
	WHERE bound_key <> '' AND NOT EXISTS (SELECT 1 FROM resource o WHERE o.tenant = r.tenant AND o.key = r.bound_key)
	UNION ALL
	SELECT tenant, 'a name claimed for a resource that is not there', kind || ' ' || name, resource_key, '' FROM claimed_name n
	WHERE NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = n.tenant AND r.key = n.resource_key)
	UNION ALL
	SELECT tenant, 'an audience of an application that is not there', audience, resource_key, '' FROM api a
	WHERE NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = a.tenant AND r.key = a.resource_key)
	UNION ALL
	SELECT tenant, 'a certificate of a host that is not there', serial, host_uid, '' FROM certificate c
	WHERE NOT EXISTS (SELECT 1 FROM resource r WHERE r.tenant = c.tenant AND r.uid = c.host_uid)
	UNION ALL
	SELECT tenant, 'a federated credential without its identity', name, principal, '' FROM federated_credential f
	WHERE NOT EXISTS (SELECT 1 FROM principal p WHERE p.tenant = f.tenant AND p.id = f.principal)
	UNION ALL
	SELECT f.tenant, 'a federated credential without its resource', f.name, p.resource_key, '' FROM federated_credential f CROSS JOIN principal p
	WHERE p.tenant = f.tenant AND p.id = f.principal AND NOT EXISTS (SELECT 1 FROM resource r
		WHERE r.tenant = f.tenant AND r.key = p.resource_key || '/federatedidentitycredentials/' || f.name_key)
	UNION ALL
	SELECT tenant, 'a federated credential that nothing is matched with', key, key, '' FROM resource r
	WHERE type_key = 'microsoft.managedidentity/userassignedidentities/federatedidentitycredentials'
		AND NOT EXISTS (SELECT 1 FROM principal p CROSS JOIN federated_credential f
			WHERE p.tenant = r.tenant AND p.resource_key = ` + credentialsIdentity + ` AND p.resource_key <> ''
			AND f.tenant = r.tenant AND f.principal = p.id AND f.name_key = ` + credentialsName + `)
	UNION ALL
	SELECT tenant, 'a membership without its group', member, group_id, '' FROM group_member m
	WHERE NOT EXISTS (SELECT 1 FROM directory_group g WHERE g.tenant = m.tenant AND g.id = m.group_id)
	UNION ALL
	SELECT tenant, 'a membership without its member', group_id, member, '' FROM group_member m
	WHERE NOT EXISTS (SELECT 1 FROM principal p WHERE p.tenant = m.tenant AND p.id = m.member)
	UNION ALL
	SELECT tenant, 'a deleted identity that lives', principal, key, '' FROM deleted_identity d
	WHERE EXISTS (SELECT 1 FROM principal p WHERE p.tenant = d.tenant AND p.id = d.principal)`

type foundFault struct {
	Fault
	above string
}

func scanFault(r row) (foundFault, error) {
	var f foundFault
	err := r.Scan(&f.Tenant, &f.Kind, &f.Key, &f.About, &f.above)
	return f, err
}

// Check looks for rows that refer to what is not there, in all tenants. There
// are none, whatever happened: one that is found is a fault of the program or of
// whoever changed the database by hand. It reads everything.
func (db *DB) Check(ctx context.Context) ([]Fault, error) {
	found, err := many(ctx, db.read, scanFault, faults)
	if err != nil {
		return nil, fmt.Errorf("checking the database: %w", err)
	}
	var out []Fault
	for _, f := range found {
		if f.above != "" && rightAbove(f.above, f.About) {
			continue
		}
		out = append(out, f.Fault)
	}
	return out, nil
}

// rightAbove reports whether scope names an object within the resource: a group
// has resources in it, and these must be there themselves.
func rightAbove(key, scope string) bool {
	in, err := resource.Parse(key)
	if err != nil {
		return false
	}
	id, err := resource.Parse(scope)
	return err == nil && id.Parent().Equal(in) && strings.HasPrefix(strings.ToLower(id.Type()), strings.ToLower(in.Type())+"/")
}
