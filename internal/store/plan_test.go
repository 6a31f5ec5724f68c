package store

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestQueriesGoByTheirIndex keeps what is read for a token or a page from
// growing with the tenant: SQLite's planner is asked which index it takes and
// how much of it.
func TestQueriesGoByTheirIndex(t *testing.T) {
	t.Parallel()
	db, err := Open(t.Context(), Config{SQLite: filepath.Join(t.TempDir(), "innate.db"), Chain: "c"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, tt := range []struct {
		stmt string
		args int
		want []string
	}{
		{getIdentities, 2, []string{"SEARCH a USING COVERING INDEX sqlite_autoindex_attachment_1 (tenant=? AND resource_key=?)", "principal_resource (tenant=? AND resource_key=?)"}},
		{principalsOfSome, 1 + holdingsMost, []string{"principal_resource (tenant=? AND resource_key=?)"}},
		{identitiesOfSome, 1 + holdingsMost, []string{"SEARCH a USING COVERING INDEX sqlite_autoindex_attachment_1 (tenant=? AND resource_key=?)", "principal_resource (tenant=? AND resource_key=?)"}},
		{getSystemIdentity, 2, []string{"principal_resource (tenant=? AND resource_key=?)"}},
		{getPrincipalOf, 2, []string{"principal_resource (tenant=? AND resource_key=?)"}},
		{getPrincipalOfClient, 2, []string{"principal_client (tenant=? AND client=?)"}},
		{attachedTo, 2, []string{"attachment_identity (tenant=? AND identity_key=?)"}},
		{assignmentsOfSome, 9, []string{"(tenant=? AND principal=?)"}},
		{getAbove, 3, []string{"SEARCH t USING INDEX sqlite_autoindex_management_tree_1 (tenant=? AND key=?)"}},
		{getFacts, 3, []string{
			"SEARCH t USING INDEX sqlite_autoindex_management_tree_1 (tenant=? AND key=?)",
			"SEARCH m USING COVERING INDEX group_member_member (tenant=? AND member=?)",
			"SEARCH g USING INDEX sqlite_autoindex_principal_1 (tenant=? AND id=?)",
			"SEARCH a USING INDEX assignment_principal (tenant=? AND principal=?)",
			"SEARCH p USING COVERING INDEX sqlite_autoindex_deny_principal_1 (tenant=? AND principal=? AND excluded=?)",
			"SEARCH d USING INDEX sqlite_autoindex_deny_assignment_1 (tenant=? AND key=?)",
			"SEARCH r USING INDEX sqlite_autoindex_role_definition_1 (tenant=? AND id=?)",
		}},
		{assignmentsOfRole, 4, []string{"assignment_role (tenant=? AND role=? AND scope_key>?)"}},
		{listDefinitions, 3, []string{"(tenant=? AND id>?)"}},
		{getDefinitionNamed, 2, []string{"role_definition_name (tenant=? AND name_key=?)"}},
		{listDenialsAt, 4, []string{"deny_assignment_scope (tenant=? AND (scope_key,key)>(?,?)"}},
		{denialsNaming, 9, []string{"SEARCH p USING COVERING INDEX sqlite_autoindex_deny_principal_1 (tenant=? AND principal=?)", "(tenant=? AND key=?)"}},
		{denialsWithin, 4, []string{"(tenant=? AND scope_key>? AND scope_key<?)"}},
		{deleteDenialsWithin, 4, []string{"(tenant=? AND scope_key>? AND scope_key<?)"}},
		{dropDenied, 2, []string{"deny_principal_key (tenant=? AND key=?)"}},
		{listGroups, 3, []string{"(tenant=? AND id>?)"}},
		{listGroupsNamed, 4, []string{"directory_group_name (tenant=? AND name_key=? AND id>?)"}},
		{listPrincipals, 3, []string{"(tenant=? AND id>?)"}},
		{listPrincipalsOfKind, 4, []string{"principal_kind (tenant=? AND kind=? AND id>?)"}},
		{listPrincipalsOfClient, 4, []string{"principal_client (tenant=? AND client=?)"}},
		{listPrincipalsNamed, 5, []string{"principal_name (tenant=? AND <expr>>? AND <expr><?)"}},
		{listMembers, 4, []string{"(tenant=? AND group_id=? AND member>?)", "(tenant=? AND id=?)"}},
		{groupsOf, 2, []string{"group_member_member (tenant=? AND member=?)", "(tenant=? AND id=?)"}},
		{groupsOfThrough, 2, []string{"group_member_member (tenant=? AND member=?)", "(tenant=? AND id=?)"}},
		{leaveAll, 2, []string{"group_member_member (tenant=? AND member=?)"}},
		{listAssignmentsAt, 4, []string{"assignment_scope (tenant=? AND (scope_key,key)>(?,?)"}},
		{listAssignmentsOfAt, 5, []string{"assignment_principal (tenant=? AND principal=? AND key>?)"}},
		{listAssignmentsOfBelow, 6, []string{"assignment_principal (tenant=? AND (principal,key)>(?,?)"}},
		{sameAssignment, 4, []string{"(tenant=? AND scope_key=? AND role=? AND principal=?)"}},
		{dropScopes.stmt, 4, []string{"(tenant=? AND scope_key>? AND scope_key<?)"}},
		{dropTheirs[0].stmt, 4, []string{"assignment_principal (tenant=? AND principal=?)", "principal_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropTheirs[1].stmt, 4, []string{"(tenant=? AND principal=?)", "principal_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropTheirs[2].stmt, 4, []string{"group_member_member (tenant=? AND member=?)", "principal_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropPrincipals, 4, []string{"principal_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropAttached.stmt, 4, []string{"(tenant=? AND resource_key>? AND resource_key<?)"}},
		{touchUsers, 5, []string{"SEARCH resource USING COVERING INDEX sqlite_autoindex_resource_1 (tenant=? AND key=?)", "attachment_identity (tenant=? AND identity_key>? AND identity_key<?)"}},
		{dropUses.stmt, 4, []string{"attachment_identity (tenant=? AND identity_key>? AND identity_key<?)"}},
		{dropAPIs.stmt, 4, []string{"api_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropNames.stmt, 4, []string{"claimed_name_resource (tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropTerms.stmt, 4, []string{"(tenant=? AND resource_key>? AND resource_key<?)"}},
		{dropRows.stmt, 4, []string{"(tenant=? AND key>? AND key<?)"}},
		{listResources, 4, []string{"(tenant=? AND key>? AND key<?)"}},
		{listResourcesOfType, 5, []string{"resource_type (tenant=? AND (type_key,key)>(?,?)"}},
		{listBoundResources, 4, []string{"resource_bound (tenant=? AND bound_key>? AND bound_key<?)"}},
		{listBoundTo, 3, []string{"resource_bound (tenant=? AND bound_key=?)"}},
		{listPlaced, 5, []string{"resource_type (tenant=? AND (type_key,key)>(?,?)", "SEARCH resource USING INDEX resource_bound (tenant=? AND bound_key=?)"}},
		{getKnownHost, 1, []string{"(kind=? AND name=?)", "(tenant=? AND key=?)"}},
		{getVaultNamed, 1, []string{"(kind=? AND name=?)", "(tenant=? AND key=?)"}},
		{getAPI, 2, []string{"(tenant=? AND audience_key=?)"}},
		{stands, 5, []string{"SEARCH p USING INDEX sqlite_autoindex_resource_1 (tenant=? AND key=?)", "SEARCH h USING INDEX sqlite_autoindex_resource_1 (tenant=? AND key=?)", "(tenant=? AND host_uid=?)"}},
		{getPrincipalOfClient, 2, []string{"principal_client (tenant=? AND client=?)"}},
		{candidates, 4, []string{"federated_credential_subject (tenant=? AND principal=? AND issuer=? AND subject=?)"}},
		{trustsIssuer, 3, []string{"(tenant=? AND principal=? AND issuer=?)"}},
		{trustStands, 3, []string{"federated_credential_trust (tenant=? AND trust=?)"}},
		{otherFederated, 5, []string{"(tenant=? AND principal=? AND issuer=? AND subject=?)"}},
		{listFederated, 4, []string{"(tenant=? AND principal=? AND name_key>?)"}},
		{hostOf, 1, []string{"(serial=?)", "(tenant=? AND uid=?)"}},
		{getLatest, 3, []string{"(tenant=? AND vault_key=? AND name_key=?)", "(tenant=? AND vault_key=? AND name_key=? AND number=?)"}},
		{listSecrets, 5, []string{"(tenant=? AND vault_key=? AND name_key>?)"}},
		{listVersions, 5, []string{"(tenant=? AND vault_key=? AND name_key=? AND number<?)"}},
		{listChanges, 3, []string{"(tenant=? AND revision>? AND revision<?)"}},
		{listBatches, 4, []string{"(tenant=? AND chain=? AND seq>?)"}},
		{firstSince, 3, []string{"COVERING INDEX audit_batch_at (tenant=? AND chain=? AND at_ms>?)"}},
		{locksAt, 9, []string{"resource_bound (tenant=? AND bound_key=?)"}},
		{getTerms, 2, []string{"(tenant=? AND resource_key=?)"}},
		{listResourcesWith, 5, []string{"resource_term_term (tenant=? AND term=? AND resource_key>? AND resource_key<?)", "SEARCH r USING INDEX sqlite_autoindex_resource_1 (tenant=? AND key=?)"}},
		{getOperation, 2, []string{"(tenant=? AND id=?)"}},
		{lastOperation, 2, []string{"operation_target (tenant=? AND target_key=?)"}},
		{sweepOperations, 1, []string{"operation_ended (ended_ms>? AND ended_ms<?)"}},
		{lostOperations, 1, []string{"operation_lease (lease_ms<?)"}},
		{listUses, 4, []string{
			"SEARCH p USING INDEX principal_resource (tenant=? AND resource_key>? AND resource_key<?)",
			"attachment_identity (tenant=? AND identity_key=?)", "assignment_principal (tenant=? AND principal=?)",
			"group_member_member (tenant=? AND member=?)", "federated_credential_subject (tenant=? AND principal=?)",
		}},
		{purgeDue, 1, []string{"secret_purge (purge_ms>? AND purge_ms<?)"}},
	} {
		plan, err := many(t.Context(), db.read, scanPlan, "EXPLAIN QUERY PLAN "+tt.stmt, make([]any, tt.args)...)
		if err != nil {
			t.Errorf("%s: %v", tt.stmt, err)
			continue
		}
		text := strings.Join(plan, "\n")
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s\n\tgoes by\n%s\n\twant it to go by %q", tt.stmt, text, want)
			}
		}
	}
}

func scanPlan(r row) (string, error) {
	var id, parent, unused int
	var detail string
	err := r.Scan(&id, &parent, &unused, &detail)
	return detail, err
}
