package arm_test

import (
	"strings"
	"testing"
)

// TestBadInput: every fault has ARM's code, names the part of the request, and
// changes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	before, err := w.srv.DB.Revision(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	vm, list := vms+"/vm1", g1+"/resources"
	for _, tt := range []struct {
		status                     int
		code, target, method, path string
		body                       string
	}{
		{400, "MissingApiVersionParameter", "api-version", "GET", vm + "?x=1", ""},
		{400, "InvalidApiVersionParameter", "api-version", "GET", vm + "?api-version=latest", ""},
		{400, "InvalidRequestContent", "api-version", "GET", vm + "?api-version=2024-01-01&API-VERSION=2024-01-01", ""},
		{400, "InvalidFilterInQueryString", "$filter", "GET", list + "?api-version=2024-01-01&$filter=kind%20eq%20'x'", ""},
		{400, "InvalidFilterInQueryString", "$filter", "GET", list + "?api-version=2024-01-01&$filter=name%20eq", ""},
		{400, "InvalidRequestContent", "$top", "GET", list + "?api-version=2024-01-01&$top=none", ""},
		{400, "InvalidRequestContent", "$skiptoken", "GET", list + "?api-version=2024-01-01&$skiptoken=x", ""},
		{400, "InvalidRequestContent", "$expand", "GET", list + "?api-version=2024-01-01&$expand=x", ""},
		{400, "InvalidRequestContent", "location", "PUT", vms + "/vm2", `{}`},
		{400, "InvalidRequestContent", "location", "PUT", vm, `{"location":1}`},
		{400, "PropertyChangeNotAllowed", "location", "PUT", vm, `{"location":"elsewhere"}`},
		{400, "InvalidRequestContent", "tags", "PUT", vm, `{"location":"local","tags":[]}`},
		{400, "InvalidRequestContent", "properties", "PUT", vm, `{"location":"local","properties":[]}`},
		{400, "InvalidRequestContent", "", "PUT", vm, `{"location":"local"`},
		{400, "InvalidRequestContent", "", "PUT", vm, ``},
		{400, "InvalidRequestContent", "$", "PUT", vm, `null`},
		{400, "InvalidResourceName", "", "PUT", vms + "/-", local},
		{400, "InvalidResourceId", "", "PUT", "/subscriptions", local + " "},
		{404, "InvalidResourceType", "", "PUT", g1 + "/providers/Nobody.Knows/it/x", local},
		{400, "InvalidRequestContent", "properties.level", "PUT", g1 + locks + "/l", `{"properties":{"level":"x"}}`},
		{400, "InvalidRequestContent", "properties.tags", "PUT", g1 + tags, `{}`},
		{400, "InvalidRequestContent", "operation", "PATCH", g1 + tags, `{"operation":"x","properties":{"tags":{"a":"b"}}}`},
	} {
		if tt.path == "/subscriptions" {
			tt.status, tt.code = 405, "MethodNotAllowed"
		}
		r := w.owner.refused(tt.status, tt.code, tt.method, tt.path, tt.body)
		if got := r.str("error", "target"); got != tt.target {
			t.Errorf("%s %s %s: the target is %q, want %q: %s", tt.method, tt.path, tt.body, got, tt.target, r.text)
		}
	}
	// Several faults of one body at once.
	r := w.owner.refused(400, "InvalidRequestContent", "PUT", vm, `{"location":7,"tags":[],"properties":1}`)
	for _, target := range []string{`"target":"tags"`, `"target":"location"`, `"target":"properties"`} {
		if !strings.Contains(r.text, target) {
			t.Errorf("faults at once: %s lacks %s", r.text, target)
		}
	}
	if after, err := w.srv.DB.Revision(t.Context(), tenantA); err != nil || after != before {
		t.Errorf("bad input took the tenant from revision %d to %d, %v", before, after, err)
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range []reply{
		w.owner.must(200, "GET", g1, "", "X-Ms-Correlation-Request-Id", "abc-1"),
		w.owner.must(404, "GET", g1+"x", "", "X-Ms-Correlation-Request-Id", "abc-1"),
	} {
		for header, want := range map[string]string{
			"X-Ms-Correlation-Request-Id": "abc-1", "X-Ms-Routing-Request-Id": "LOCAL:20260921T", "Strict-Transport-Security": "max-age=", "Cache-Control": "no-cache",
			"X-Ms-Request-Id": "-",
		} {
			if got := r.header.Get(header); !strings.Contains(got, want) {
				t.Errorf("%s is %q, want %q in it", header, got, want)
			}
		}
	}
	if got := w.owner.must(200, "GET", g1, "", "X-Ms-Correlation-Request-Id", "a b<script>").header; got.Get("X-Ms-Correlation-Request-Id") != got.Get("X-Ms-Request-Id") {
		t.Errorf("a correlation id that is none comes back as %q", got.Get("X-Ms-Correlation-Request-Id"))
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := func(ns string) string {
		return w.owner.must(200, "GET", sub+"/providers/"+ns, "").str("registrationState")
	}
	for _, v := range w.owner.must(200, "GET", sub+"/providers", "").values() {
		if v["registrationState"] != "Registered" || len(v["resourceTypes"].([]any)) == 0 {
			t.Errorf("a namespace: %v", v)
		}
	}
	w.owner.must(200, "POST", sub+"/providers/microsoft.compute/unregister", "")
	if got := state("Microsoft.Compute") + state("Microsoft.Web"); got != "NotRegisteredRegistered" {
		t.Errorf("after one was unregistered: %s", got)
	}
	w.owner.must(201, "PUT", vms+"/vm1", local) // works all the same
	w.owner.must(200, "POST", sub+"/providers/Microsoft.Compute/register", "")
	if got := state("MICROSOFT.COMPUTE"); got != "Registered" {
		t.Errorf("after it was registered: %s", got)
	}
	reader := w.as(tenantA, "reader", roleReader+" "+sub)
	reader.must(200, "GET", sub+"/providers", "")
	reader.refused(403, "AuthorizationFailed", "POST", sub+"/providers/Microsoft.Compute/unregister", "")
	nobody := w.as(tenantA, "nobody")
	nobody.refused(403, "AuthorizationFailed", "GET", sub+"/providers", "")
	nobody.must(200, "GET", "/providers", "")
	if l := nobody.must(200, "GET", "/providers/Microsoft.ManagedIdentity/operations", ""); !strings.Contains(l.text, "Microsoft.ManagedIdentity/userAssignedIdentities/write") {
		t.Errorf("operations: %s", l.text)
	}
	w.owner.refused(404, "InvalidResourceType", "GET", sub+"/providers/Nobody.Knows", "")
	w.root().refused(404, "SubscriptionNotFound", "GET", "/subscriptions/none/providers", "")
	w.root().refused(404, "SubscriptionNotFound", "POST", "/subscriptions/none/providers/Microsoft.Web/register", "")
}
