package arm_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

// roleGiver is User Access Administrator.
const roleGiver = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"

// TestGroupThatMovesGivesRoles: a management group comes, with all below it,
// under whoever has roles where it goes. Who may write groups and not give roles
// does not do that.
func TestGroupThatMovesGivesRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	for _, g := range []string{"/a", "/mine"} {
		top.must(200, "PUT", mgs+g, `{}`)
	}
	top.must(200, "PUT", mgs+"/a"+sub, "")
	thief := w.as(tenantA, "thief", roleContributor+" /", roleOwner+" "+mgs+"/mine")
	thief.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/a", below(mgs+"/mine"))
	thief.refused(403, "LinkedAuthorizationFailed", "PATCH", mgs+"/a", `{"parentGroupId":"`+mgs+`/mine"}`)
	thief.must(200, "PATCH", mgs+"/a", `{"displayName":"Renamed"}`)
	thief.refused(403, "AuthorizationFailed", "PUT", assignmentID(g1, uuid.NewString()), assignmentBody(roleOwner, thief.oid))
	top.must(200, "PUT", mgs+"/a", below(mgs+"/mine"))
	// Who may give roles under a condition cannot give those of a whole group.
	some := w.as(tenantA, "some", roleContributor+" /")
	top.must(201, "PUT", assignmentID(sub, uuid.NewString()), withCondition(assignmentBody(roleGiver, some.oid), "@Principal[Innate.Directory/principals:name] StringEquals 'some'"))
	some.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/"+tenantA+sub, "")
}

// TestMovesDoNotEvadeDenials: nobody steps out of a denial by taking a resource,
// a subscription or a group from under it, whatever other rights they have.
func TestMovesDoNotEvadeDenials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	for _, g := range []string{"/a", "/b"} {
		top.must(200, "PUT", mgs+g, `{}`)
	}
	top.must(200, "PUT", mgs+"/inner", below(mgs+"/a"))
	top.must(200, "PUT", mgs+"/inner"+sub, "")
	owner := w.as(tenantA, "denied", roleOwner+" /")
	writes := w.as(tenantA, "writes", roleContributor+" /", "f58310d9-a9f6-439a-9e8d-f62e7b41a168 /")
	top.must(201, "PUT", denialPath(mgs+"/a", name1), denialBody("No machines", `"Microsoft.Compute/*"`, owner.oid))
	for _, c := range []*caller{owner, writes} {
		c.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/b"+sub, "")
		c.refused(403, "LinkedAuthorizationFailed", "DELETE", mgs+"/inner"+sub, "")
		c.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/inner", below(mgs+"/b"))
	}
	owner.refused(403, "AuthorizationFailed", "PUT", vms+"/vm", local)
	top.must(200, "PUT", mgs+"/b"+sub, "") // who may lift the denial

	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	kv, secret := w.vault("kv1")
	top.must(201, "PUT", denialPath(g1, name2), denialBody("No secrets", `"Microsoft.KeyVault/vaults/secrets/*"`, owner.oid))
	top.assign(roleSecrets, owner.oid, sub)
	owner.forVaults().must(403, "GET", secret, "")
	owner.refused(403, "LinkedAuthorizationFailed", "POST", g1+"/moveResources", moveBody(g2, kv))
	owner.forVaults().must(403, "GET", secret, "")
	top.must(204, "POST", g1+"/moveResources", moveBody(g2, kv))
}

// TestDenialBelowHolds: a denial at a resource is not evaded by what is done to
// the group that it is in.
func TestDenialBelowHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	vm := vms + "/vm1"
	w.owner.must(201, "PUT", vm, `{"location":"local","tags":{"very":"secret"}}`)
	w.owner.must(201, "PUT", vms+"/vm2", local)
	who := w.as(tenantA, "who", roleOwner+" "+sub)
	w.owner.must(201, "PUT", denialPath(vm, name1), denialBody("Hands off", `"Microsoft.Compute/*"`, who.oid))
	who.refused(403, "AuthorizationFailed", "GET", vm, "")
	for _, list := range []string{vms, g1 + "/resources", sub + "/resources", sub + "/providers/Microsoft.Compute/virtualMachines"} {
		r := who.must(200, "GET", list, "")
		if strings.Contains(r.text, "vm1") || strings.Contains(r.text, "secret") || !strings.Contains(r.text, "vm2") {
			t.Errorf("%s lists %s", list, r.text)
		}
	}
	if r := who.must(200, "GET", sub+"/tagNames", ""); strings.Contains(r.text, "secret") {
		t.Errorf("the names of tags are %s", r.text)
	}
	who.refused(403, "AuthorizationFailed", "DELETE", vm, "")
	who.refused(403, "LinkedAuthorizationFailed", "DELETE", g1, "")
	who.refused(403, "LinkedAuthorizationFailed", "POST", g1+"/moveResources", moveBody(g2, vm))
	w.owner.must(200, "GET", vm, "")
	who.must(204, "POST", g1+"/moveResources", moveBody(g2, vms+"/vm2"))
	w.owner.must(200, "DELETE", g1, "")
}

// TestNestedGroupAndDenial: a group within a denied one is as good as the denied
// one to who is in it.
func TestNestedGroupAndDenial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	who := w.as(tenantA, "who", roleContributor+" /")
	inner := w.group("Inner", who.oid)
	outer := w.group("Outer", inner)
	w.root().must(201, "PUT", denialPath(sub, name1), denialBody("No machines", `"Microsoft.Compute/*"`, outer))
	who.refused(403, "AuthorizationFailed", "PUT", vms+"/vm1", local)
	who.refused(409, "Conflict", "DELETE", groupsPath+"/"+inner, "")
	who.refused(403, "AuthorizationFailed", "PUT", vms+"/vm1", local)
	w.root().must(200, "DELETE", denialPath(sub, name1), "")
	who.must(200, "DELETE", groupsPath+"/"+inner, "")
}

// TestRoleStaysAssignable: who says what a role is decides over all who have it;
// so nobody gets to have it where it cannot be assigned, by a recovery or a move.
func TestRoleStaysAssignable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.addSubscription(w.owner)
	w.owner.must(201, "PUT", far, local)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	uai := w.owner.must(201, "PUT", uais+"/app-id", local)
	oid := uai.str("properties", "principalId")
	role := uuid.NewString()
	both := strings.Replace(roleBody("Both", g1, "*/read"), `"`+g1+`"`, `"`+g1+`","`+g2+`"`, 1)
	w.owner.must(201, "PUT", rolePath(sub, role), both)
	w.owner.must(201, "PUT", assignmentID(g2, uuid.NewString()), assignmentBody(role, oid))
	w.owner.must(200, "DELETE", uais+"/app-id", "")
	w.owner.must(201, "PUT", rolePath(sub, role), roleBody("Both", g1, "*/read"))
	back := w.owner.must(200, "POST", deletedIDs+"/"+oid+"/recover", "")
	if len(back.recovered("restoredRoleAssignments")) != 0 || len(back.recovered("notRestoredRoleAssignments")) != 1 {
		t.Errorf("a role came back where it cannot be assigned: %s", back.text)
	}
	// A resource that moves out of where its roles can be.
	w.owner.must(201, "PUT", vms+"/vm1", local)
	at := assignmentID(vms+"/vm1", uuid.NewString())
	w.owner.must(201, "PUT", at, assignmentBody(role, oid))
	w.owner.refused(409, "Conflict", "POST", g1+"/moveResources", moveBody(far, vms+"/vm1"))
	w.owner.must(200, "GET", vms+"/vm1", "")
	w.owner.must(200, "DELETE", at, "")
	w.owner.must(204, "POST", g1+"/moveResources", moveBody(far, vms+"/vm1"))
	// A subscription, and a group above it.
	top := w.root()
	for _, g := range []string{"/a", "/b"} {
		top.must(200, "PUT", mgs+g, `{}`)
	}
	top.must(200, "PUT", mgs+"/inner", below(mgs+"/a"))
	top.must(200, "PUT", mgs+"/inner"+sub, "")
	above := top.role("Above", mgs+"/a", "*/read")
	at = assignmentID(g1, uuid.NewString())
	top.must(201, "PUT", at, assignmentBody(above, oid))
	top.refused(409, "Conflict", "PUT", mgs+"/b"+sub, "")
	top.refused(409, "Conflict", "DELETE", mgs+"/inner"+sub, "")
	top.refused(409, "Conflict", "PUT", mgs+"/inner", below(mgs+"/b"))
	top.must(200, "PUT", mgs+"/inner2", below(mgs+"/a"))
	top.must(200, "PUT", mgs+"/inner2"+sub, "")
	top.must(200, "DELETE", at, "")
	top.must(200, "PUT", mgs+"/b"+sub, "")
	w.checkStore()
}

// TestLocksHoldElsewhere: what is written by other ways than a PUT is a write too.
func TestLocksHoldElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	w.owner.must(201, "PUT", g2, local)
	oid := w.owner.must(201, "PUT", uais+"/app-id", local).str("properties", "principalId")
	w.owner.assign(roleReader, oid, g2)
	w.owner.must(200, "DELETE", uais+"/app-id", "")
	w.owner.must(201, "PUT", g1+locks+"/freeze", lock("ReadOnly"))
	w.owner.refused(409, "ScopeLocked", "POST", deletedIDs+"/"+oid+"/recover", "")
	w.owner.must(200, "DELETE", g1+locks+"/freeze", "")
	w.owner.must(201, "PUT", g2+locks+"/freeze", lock("ReadOnly"))
	w.owner.refused(409, "ScopeLocked", "POST", deletedIDs+"/"+oid+"/recover", "")
	back := w.owner.must(200, "POST", deletedIDs+"/"+oid+"/recover", `{"properties":{"roleAssignments":"Permitted"}}`)
	if len(back.recovered("restoredRoleAssignments")) != 0 {
		t.Errorf("a role was given at a locked scope: %s", back.text)
	}
	host := g1 + "/providers/Innate.Fleet/hosts/h1"
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", host+locks+"/freeze", lock("ReadOnly"))
	for _, action := range []string{"createEnrolmentToken", "readmit", "evict"} {
		w.owner.refused(409, "ScopeLocked", "POST", host+"/"+action, "")
	}
	w.owner.must(200, "POST", uais+"/app-id/listAssociatedResources", "")
	w.owner.must(200, "DELETE", host+locks+"/freeze", "")
	w.owner.must(200, "POST", host+"/createEnrolmentToken", "")
	w.checkStore()
}

// TestQuestionsTellNoMoreThanTheDirectory: who may read role assignments
// somewhere does not learn, by asking about others there, what identity a
// resource elsewhere has, or what an identity belongs to.
func TestQuestionsTellNoMoreThanTheDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	vm := w.owner.must(201, "PUT", vms+"/vm", block("SystemAssigned"))
	oid := vm.str("identity", "principalId")
	reader := w.as(tenantA, "reader", roleReader+" "+g2)
	reader.refused(403, "AuthorizationFailed", "GET", vms+"/vm", "")
	for _, question := range []string{"check", "whatCan"} {
		action := map[string]string{"check": `,"action":"a/read"`}[question]
		for _, id := range []string{vms + "/vm", vms + "/none"} {
			r := reader.refused(400, "PrincipalNotFound", "POST", g2+decisions+question, `{"resourceId":"`+id+`"`+action+`}`)
			if want := "The resource '" + id + "' has no identity."; r.str("error", "message") != want {
				t.Errorf("%s about %s: %s, want %s", question, id, r.text, want)
			}
		}
		r := reader.must(200, "POST", g2+decisions+question, about(oid, action))
		if strings.Contains(r.text, vms) || strings.Contains(r.text, `"vm"`) || r.str("principal", "id") != oid {
			t.Errorf("%s tells %s", question, r.text)
		}
	}
	w.owner.assign(roleReader, oid, g2)
	r := reader.must(200, "POST", g2+decisions+"whoCan", `{"action":"Microsoft.Compute/virtualMachines/read"}`)
	if !strings.Contains(r.text, `"name":"vm"`) || strings.Contains(r.text, vms) {
		t.Errorf("of who has a role at the group it knows %s", r.text)
	}
}

// TestAliasOfAnother: who may make subscriptions in one place does not learn
// those of others by their aliases.
func TestAliasOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	top.must(200, "PUT", mgs+"/a", `{}`)
	const alias = "/providers/Microsoft.Subscription/aliases/theirs"
	made := top.must(201, "PUT", alias, `{"properties":{"displayName":"Theirs"}}`)
	body := `{"properties":{"displayName":"Mine","additionalProperties":{"managementGroupId":"` + mgs + `/a"}}}`
	inA := w.as(tenantA, "in-a", roleOwner+" "+mgs+"/a")
	r := inA.refused(409, "Conflict", "PUT", alias, body)
	if strings.Contains(r.text, made.str("properties", "subscriptionId")) {
		t.Errorf("the refusal tells the subscription: %s", r.text)
	}
	top.must(200, "PUT", alias, body)
	// A management group that is there and one that is not are refused alike.
	nobody := w.as(tenantA, "nobody")
	is, none := nobody.refused(403, "AuthorizationFailed", "PUT", mgs+"/a", `{}`), nobody.refused(403, "AuthorizationFailed", "PUT", mgs+"/z", `{}`)
	if strings.ReplaceAll(is.str("error", "message"), mgs+"/a", mgs+"/z") != none.str("error", "message") {
		t.Errorf("a group that is there: %s; one that is not: %s", is.text, none.text)
	}
}
