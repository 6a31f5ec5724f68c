package arm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// hold makes each write of the API wait; release lets all of them go on.
func (w *world) hold() (release func()) {
	gate := make(chan struct{})
	if w.gate.Swap(&gate) == nil { // later, operations under way read the field
		w.srv.ARM.Store = between{w.srv.DB, func() { <-*w.gate.Load() }}
	}
	return func() { close(gate) }
}

// poll asks until the answer has the status or is refused.
func (c *caller) poll(path string, over func(reply) bool) reply {
	c.w.t.Helper()
	for range 500 {
		if r := c.do("GET", path, ""); over(r) {
			return r
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.w.t.Fatalf("%s does not end", path)
	return reply{}
}

func ended(r reply) bool { return r.str("status") != "InProgress" }

func arrived(r reply) bool { return r.status != 202 }

const async = "respond-async, wait=1"

func TestLongRunningOperationsOfAllStyles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sites, groups := g1+"/providers/Microsoft.Web/sites", sub+"/resourceGroups"
	w.owner.must(201, "PUT", groups+"/gone", local)
	release := w.hold()

	vm := w.owner.must(201, "PUT", vms+"/vm1", local, "Prefer", async)
	if vm.header.Get("Preference-Applied") != "respond-async" || vm.header.Get("Retry-After") != "1" || vm.str("properties", "provisioningState") != "Creating" {
		t.Errorf("PUT of a machine, asynchronous: %v %s", vm.header, vm.text)
	}
	status := vm.header.Get("Azure-AsyncOperation")
	if r := w.owner.must(200, "GET", status, ""); r.str("status") != "InProgress" || r.header.Get("Retry-After") != "1" || r.str("startTime") == "" {
		t.Errorf("status while it runs: %s", r.text)
	}
	group := w.owner.must(202, "DELETE", groups+"/gone", "", "Prefer", async).header.Get("Location")
	if r := w.owner.must(202, "GET", group, ""); r.header.Get("Location") != group || r.text != "" {
		t.Errorf("result while it runs: %v %s", r.header, r.text)
	}
	site := w.owner.must(202, "PUT", sites+"/s1", local, "Prefer", async)
	if site.header.Get("Location")+site.header.Get("Azure-AsyncOperation") != "" {
		t.Errorf("a style that polls the resource has an address to poll: %v", site.header)
	}
	if r := w.owner.must(200, "GET", sites+"/s1", ""); r.str("properties", "provisioningState") != "Creating" || r.str("name") != "s1" || r.header.Get("Retry-After") != "1" {
		t.Errorf("a web app that is being made: %s", r.text)
	}
	release()

	if r := w.owner.poll(status, ended); r.str("status") != "Succeeded" || r.str("endTime") == "" || r.str("resourceId") != vms+"/vm1" {
		t.Errorf("status at the end: %s", r.text)
	}
	w.owner.must(200, "GET", vms+"/vm1", "")
	// The same operation by its other address is the resource.
	if r := w.owner.must(200, "GET", strings.Replace(status, "operationStatuses", "operationResults", 1), ""); r.str("name") != "vm1" {
		t.Errorf("result of a PUT: %s", r.text)
	}
	if r := w.owner.poll(group, arrived); r.status != 204 {
		t.Errorf("result of a delete: %d %s", r.status, r.text)
	}
	w.owner.refused(404, "ResourceGroupNotFound", "GET", groups+"/gone", "")
	w.owner.poll(sites+"/s1", func(r reply) bool { return r.str("properties", "provisioningState") == "Succeeded" })

	// A change of what is there: the resource says that it is being changed.
	w.advance(time.Second)
	release = w.hold()
	w.owner.must(202, "PUT", sites+"/s1", `{"location":"local","tags":{"a":"b"}}`, "Prefer", async)
	if r := w.owner.must(200, "GET", sites+"/s1", ""); r.str("properties", "provisioningState") != "Updating" || r.str("tags", "a") != "" || r.header.Get("Retry-After") != "1" {
		t.Errorf("a web app that is being changed: %s", r.text)
	}
	release()
	r := w.owner.poll(sites+"/s1", func(r reply) bool { return r.str("properties", "provisioningState") == "Succeeded" })
	if r.str("tags", "a") != "b" || r.header.Get("Retry-After") != "" {
		t.Errorf("a web app that was changed: %s", r.text)
	}
}

// TestOperationsAreSaidAsClientsTakeThem: what each family's clients take for
// the end of an operation is its end, and what they take for a beginning is said
// with the status and in the header that they take.
func TestOperationsAreSaidAsClientsTakeThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := g1 + "/providers/"
	const status, location = "Azure-AsyncOperation", "Location"
	type want struct {
		status int
		poll   string // "" for an end
	}
	for path, want := range map[string][3]want{ // PUT, PATCH, DELETE
		vms + "/a":                   {{201, status}, {200, status}, {202, status}},
		sets + "/a":                  {{201, status}, {200, status}, {202, status}},
		in + "Microsoft.Web/sites/a": {{202, "body"}, {200, ""}, {200, ""}},
		in + "Microsoft.DataFactory/factories/aaa":           {{200, ""}, {200, ""}, {200, ""}},
		in + "Microsoft.KeyVault/vaults/aaa":                 {{201, status}, {200, ""}, {200, ""}},
		in + "Microsoft.Storage/storageAccounts/aaa":         {{202, location}, {200, ""}, {200, ""}},
		in + "Microsoft.ContainerInstance/containerGroups/a": {{201, status}, {200, ""}, {202, status}},
		in + "Microsoft.App/containerApps/a":                 {{201, status}, {200, status}, {202, status}},
		in + "Microsoft.HybridCompute/machines/a":            {{200, ""}, {200, ""}, {200, ""}},
		uais + "/aaa":               {{201, ""}, {200, ""}, {200, ""}},
		sub + "/resourceGroups/aaa": {{201, ""}, {200, ""}, {202, location}},
	} {
		for i, method := range []string{"PUT", "PATCH", "DELETE"} {
			body := []string{local, `{"tags":{"a":"b"}}`, ""}[i]
			r := w.owner.must(want[i].status, method, path, body, "Prefer", async)
			poll, told := want[i].poll, r.header.Get("Preference-Applied") != ""
			if told != (poll != "") || poll != "" && poll != "body" && r.header.Get(poll) == "" {
				t.Errorf("%s %s asynchronously: %v, want to poll %q", method, path, r.header, poll)
			}
			switch {
			case poll == "body":
				w.owner.poll(path, func(r reply) bool { return r.str("properties", "provisioningState") == "Succeeded" })
			case poll == status:
				if r := w.owner.poll(r.header.Get(poll), ended); r.str("status") != "Succeeded" {
					t.Errorf("%s %s: %s", method, path, r.text)
				}
			case poll == location:
				w.owner.poll(r.header.Get(poll), arrived)
			}
		}
		if r := w.owner.do("GET", path, ""); r.status != 404 {
			t.Errorf("%s after all: %d %s", path, r.status, r.text)
		}
	}
}

// TestOperationThatTakesTooLongGoesOnByItself: nobody asked for it.
func TestOperationThatTakesTooLongGoesOnByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.ARM.Patience = time.Millisecond
	release := w.hold()
	r := w.owner.must(201, "PUT", vms+"/vm1", local)
	status := r.header.Get("Azure-AsyncOperation")
	if status == "" || r.header.Get("Preference-Applied") != "" {
		t.Fatalf("after the API's patience: %v", r.header)
	}
	release()
	if r := w.owner.poll(status, ended); r.str("status") != "Succeeded" {
		t.Errorf("status at the end: %s", r.text)
	}
}

func TestDeleteOfManyDoesNotMakeItsClientWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.ARM.Many = 50
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		for range 60 {
			r := arm.Resource{Tenant: tenantA, ID: resource.MustParse(vms + "/" + uuid.NewString()), Type: "Microsoft.Compute/virtualMachines", Body: arm.Document{}}
			if err := tx.PutResource(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	result := w.owner.must(202, "DELETE", g1, "").header.Get("Location")
	if r := w.owner.poll(result, arrived); r.status != 204 {
		t.Errorf("result: %d %s", r.status, r.text)
	}
	w.owner.refused(404, "ResourceGroupNotFound", "GET", g1, "")
}

// TestFailureOfAnOperationIsARMs in each style.
func TestFailureOfAnOperationIsARMs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	site := g1 + "/providers/Microsoft.Web/sites/s1"
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(200, "PUT", site, local)
	w.advance(time.Second)
	stale := []string{"Prefer", async, "If-Match", `"0"`}

	r := w.owner.must(201, "PUT", vms+"/vm1", local, stale...)
	r = w.owner.poll(r.header.Get("Azure-AsyncOperation"), ended)
	if r.str("status") != "Failed" || r.str("error", "code") != "PreconditionFailed" || r.str("error", "message") == "" {
		t.Errorf("status of what failed: %s", r.text)
	}
	r = w.owner.must(202, "DELETE", g1, "", stale...)
	r = w.owner.poll(r.header.Get("Location"), arrived)
	if p := r.wrong(412, "PreconditionFailed"); p != "" {
		t.Errorf("result of what failed: %d %s: %s", r.status, r.text, p)
	}
	w.owner.must(202, "PUT", site, local, stale...)
	w.owner.poll(site, func(r reply) bool { return r.str("properties", "provisioningState") == "Failed" })
	w.owner.must(200, "PUT", site, local)
	if r := w.owner.must(200, "GET", site, ""); r.str("properties", "provisioningState") != "Succeeded" {
		t.Errorf("after a later success: %s", r.text)
	}
	// There is no resource to say it.
	missing := sub + "/resourceGroups/none/providers/Microsoft.Web/sites/s1"
	top := w.root()
	top.must(202, "PUT", missing, local, "Prefer", async)
	r = top.poll(missing, func(r reply) bool { return r.status != 200 })
	if p := r.wrong(404, "ResourceGroupNotFound"); p != "" {
		t.Errorf("a resource that could not be made: %d %s: %s", r.status, r.text, p)
	}
}

// TestRefusalsDoNotWait: what can be said at once is, and leaves no operation.
func TestRefusalsDoNotWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nobody := w.as(tenantA, "nobody")
	nobody.refused(403, "AuthorizationFailed", "DELETE", g1, "", "Prefer", async)
	nobody.refused(403, "AuthorizationFailed", "PUT", vms+"/vm1", local, "Prefer", async)
	w.owner.refused(400, "InvalidRequestContent", "PUT", vms+"/vm1", `{"location":7}`, "Prefer", async)
	if _, err := w.srv.DB.LastOperation(t.Context(), tenantA, resource.MustParse(vms+"/vm1").Key()); err == nil {
		t.Error("a refusal left an operation")
	}
}

// TestWhoMayPoll: who began it, and who may read its target. To others it is
// not there.
func TestWhoMayPoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm2", local)
	starter := w.as(tenantA, "starter", roleContributor+" "+g1)
	r := starter.must(201, "PUT", vms+"/vm1", local, "Prefer", async)
	status := r.header.Get("Azure-AsyncOperation")
	starter.poll(status, ended)
	w.as(tenantA, "reader", roleReader+" "+vms+"/vm1").must(200, "GET", status, "")
	for _, c := range []*caller{w.as(tenantA, "nobody"), w.as(tenantA, "beside", roleReader+" "+vms+"/vm2"), w.addTenant(tenantB)} {
		for _, what := range []string{"operationStatuses", "operationResults"} {
			c.refused(404, "ResourceNotFound", "GET", strings.Replace(status, "operationStatuses", what, 1), "")
		}
	}
	// Who began it sees how it ended, and not what came of it once the right is gone.
	w.owner.must(200, "DELETE", assignmentOf(w, starter.oid, g1), "")
	starter.must(200, "GET", status, "")
	starter.refused(403, "AuthorizationFailed", "GET", strings.Replace(status, "operationStatuses", "operationResults", 1), "")
	w.owner.refused(404, "ResourceNotFound", "GET", sub+"/providers/Microsoft.Compute/locations/global/operationStatuses/"+uuid.NewString(), "")
	w.owner.refused(400, "InvalidRequestContent", "GET", sub+"/providers/Microsoft.Compute/locations/global/operationStatuses/1", "")
	w.owner.refused(405, "MethodNotAllowed", "PUT", status, "{}")
}

// TestLostOperationFails: a replica took it over and died.
func TestLostOperationFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := arm.Operation{
		Tenant: tenantA, ID: uuid.NewString(), Target: resource.MustParse(vms + "/vm1"), Method: "PUT", Action: "Microsoft.Compute/virtualMachines/write",
		Principal: w.owner.oid, Status: arm.InProgress, Started: start, Lease: start.Add(time.Minute),
	}
	if err := w.srv.DB.AddOperation(t.Context(), o, audit.Event{Tenant: tenantA, At: start, Action: o.Action, Target: "/", Outcome: audit.Allowed}); err != nil {
		t.Fatal(err)
	}
	status := sub + "/providers/Microsoft.Compute/locations/global/operationStatuses/" + o.ID
	w.advance(time.Minute)
	if r := w.owner.must(200, "GET", status, ""); r.str("status") != "InProgress" {
		t.Errorf("while its lease holds: %s", r.text)
	}
	w.advance(time.Second)
	for range 2 {
		if r := w.owner.must(200, "GET", status, ""); r.str("status") != "Failed" || r.str("error", "code") != "OperationInterrupted" {
			t.Errorf("after its lease: %s", r.text)
		}
	}
	r := w.owner.do("GET", strings.Replace(status, "operationStatuses", "operationResults", 1), "")
	if p := r.wrong(409, "OperationInterrupted"); p != "" {
		t.Errorf("its result: %d %s: %s", r.status, r.text, p)
	}
}
