package arm_test

import (
	"sync"
	"testing"
)

const locks = "/providers/Microsoft.Authorization/locks"

func lock(level string) string { return `{"properties":{"level":"` + level + `","notes":"why"}}` }

func TestLocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	vm := vms + "/vm1"
	w.owner.must(201, "PUT", vm, local)
	w.owner.must(201, "PUT", vms+"/vm2", local)
	r := w.owner.must(201, "PUT", vm+locks+"/keep", lock("CanNotDelete"))
	if r.str("properties", "level") != "CanNotDelete" || r.str("properties", "notes") != "why" || r.str("properties", "provisioningState") != "" || r.str("type") != "Microsoft.Authorization/locks" {
		t.Errorf("a lock: %s", r.text)
	}
	// It stops deletes of what it locks, and of what that is in; nothing else.
	w.owner.refused(409, "ScopeLocked", "DELETE", vm, "")
	w.owner.refused(409, "ScopeLocked", "DELETE", g1, "")
	w.owner.must(200, "PATCH", vm, `{"tags":{"a":"b"}}`)
	w.owner.must(200, "DELETE", vms+"/vm2", "")
	w.owner.must(200, "DELETE", vm+locks+"/keep", "")
	w.owner.must(204, "DELETE", vm+locks+"/keep", "")

	// ReadOnly stops all changes, at its scope and below: documents, children,
	// roles, tags, and new resources.
	w.owner.must(201, "PUT", g1+locks+"/freeze", lock("readonly"))
	who := w.as(tenantA, "who")
	for _, c := range [][3]string{
		{"PUT", vm, local}, {"PATCH", vm, `{"tags":{}}`}, {"DELETE", vm, ""}, {"DELETE", g1, ""}, {"PUT", g1, local}, {"PUT", vms + "/new", local},
		{"PUT", assignmentID(vm, "00000000-0000-4000-8000-000000000001"), assignmentBody(roleReader, who.oid)},
		{"PUT", vm + tags, `{"properties":{"tags":{"a":"b"}}}`},
	} {
		w.owner.refused(409, "ScopeLocked", c[0], c[1], c[2])
	}
	w.owner.must(200, "GET", vm, "")
	w.owner.must(201, "PUT", sub+"/resourceGroups/g2", local)
	w.owner.must(200, "PUT", g1+locks+"/freeze", lock("CanNotDelete"))
	w.owner.must(200, "PATCH", vm, `{"tags":{}}`)

	// What is bound to a resource dies with it, unless it is locked.
	host := sub + "/resourceGroups/g2/providers/Innate.Fleet/hosts/h1"
	w.owner.must(201, "PUT", host, `{}`)
	w.owner.must(201, "PUT", host+"/placements/p", `{"properties":{"door":"run","selectors":["unix:uid:0"],"resourceId":"`+vm+`"}}`)
	w.owner.must(201, "PUT", host+locks+"/keep", lock("CanNotDelete"))
	w.owner.must(200, "DELETE", g1+locks+"/freeze", "")
	w.owner.refused(409, "ScopeLocked", "DELETE", vm, "")
	w.owner.must(200, "DELETE", host+locks+"/keep", "")
	w.owner.must(200, "DELETE", vm, "")

	w.owner.must(201, "PUT", sub+locks+"/all", lock("CanNotDelete"))
	w.owner.refused(409, "ScopeLocked", "DELETE", sub+"/resourceGroups/g2", "")
}

func TestLocksAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	for _, scope := range []string{sub, g1, vms + "/vm1"} {
		w.owner.must(201, "PUT", scope+locks+"/l", lock("CanNotDelete"))
	}
	for _, tt := range []struct {
		at, filter string
		want       int
	}{
		{sub, "", 3}, {g1, "", 3}, {vms + "/vm1", "", 3}, {sub, "atScope()", 1}, {g1, "atScope()", 2}, {vms + "/vm1", "atScope()", 3},
	} {
		l := w.owner.must(200, "GET", tt.at+locks+"?api-version=2020-05-01&$filter="+tt.filter, "").values()
		if len(l) != tt.want {
			t.Errorf("at %s with %q: %d locks, want %d: %v", tt.at, tt.filter, len(l), tt.want, l)
		}
	}
	w.owner.refused(400, "InvalidFilterInQueryString", "GET", g1+locks+"?api-version=2020-05-01&$filter=level%20eq%20'x'", "")
	if n := len(w.owner.must(200, "GET", g1+"/resources", "").values()); n != 1 {
		t.Errorf("the mixed list has %d entries with the lock", n)
	}
}

func TestWhoMayLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g1+locks+"/l", lock("CanNotDelete"))
	contributor := w.as(tenantA, "contributor", roleContributor+" "+g1)
	contributor.must(200, "GET", g1+locks+"/l", "")
	contributor.refused(403, "AuthorizationFailed", "DELETE", g1+locks+"/l", "")
	contributor.refused(403, "AuthorizationFailed", "PUT", g1+locks+"/l2", lock("ReadOnly"))
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", g1+locks, "")
	for _, bad := range []string{`{}`, lock("Maybe"), `{"properties":{"level":7}}`, `{"properties":[]}`} {
		w.owner.refused(400, "InvalidRequestContent", "PUT", g1+locks+"/bad", bad)
	}
	w.owner.refused(404, "ResourceGroupNotFound", "PUT", sub+"/resourceGroups/none"+locks+"/l", lock("ReadOnly"))
	w.root().refused(400, "InvalidResourceId", "PUT", locks+"/l", lock("ReadOnly"))
}

// TestLockCountsFromItsCommit: of a lock and a delete that race, one is
// refused or the resource was gone before.
func TestLockCountsFromItsCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 8 {
		w.owner.must(201, "PUT", vms+"/vm1", local)
		var locked, gone reply
		var both sync.WaitGroup
		both.Go(func() { locked, _ = w.owner.send("PUT", vms+"/vm1"+locks+"/l", lock("CanNotDelete")) })
		both.Go(func() { gone, _ = w.owner.send("DELETE", vms+"/vm1", "") })
		both.Wait()
		switch there := w.owner.do("GET", vms+"/vm1", "").status == 200; {
		case locked.status == 201 && gone.status == 409 && there:
			w.owner.must(200, "DELETE", vms+"/vm1"+locks+"/l", "")
			w.owner.must(200, "DELETE", vms+"/vm1", "")
		case locked.status == 404 && gone.status == 200 && !there:
		default:
			t.Errorf("lock %d, delete %d, and the resource is there: %v", locked.status, gone.status, there)
		}
	}
}
