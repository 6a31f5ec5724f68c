package arm_test

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestActivityLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/before", local)
	w.advance(10 * time.Minute)
	made := w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(201, "PUT", sub+"/resourceGroups/g2", local)
	w.owner.must(200, "GET", vms+"/vm1", "")
	nobody := w.as(tenantA, "nobody")
	nobody.refused(403, "AuthorizationFailed", "DELETE", vms+"/vm1", "")
	w.owner.must(200, "DELETE", vms+"/vm1", "")
	w.advance(10 * time.Minute)
	w.owner.must(201, "PUT", vms+"/after", local)

	const path = sub + "/providers/Microsoft.Insights/eventtypes/management/values"
	log := func(more string) []map[string]any {
		t.Helper()
		f := "eventTimestamp ge '" + start.Add(5*time.Minute).Format(time.RFC3339) + "' and eventTimestamp le '" + start.Add(15*time.Minute).Format(time.RFC3339) + "'" + more
		return w.owner.must(200, "GET", path+"?api-version=2015-04-01&$filter="+url.QueryEscape(f), "").values()
	}
	value := func(v map[string]any, k string) string {
		m, _ := v[k].(map[string]any)
		s, _ := m["value"].(string)
		return s
	}
	for _, v := range log("") {
		if id := v["resourceId"].(string); strings.HasSuffix(id, "/before") || strings.HasSuffix(id, "/after") || strings.HasSuffix(value(v, "operationName"), "/read") {
			t.Errorf("the log has %v", v)
		}
	}
	one := log(" and resourceUri eq '" + strings.ToUpper(vms) + "/vm1'")
	if len(one) != 3 {
		t.Fatalf("the log of one machine has %d events, want 3: %v", len(one), one)
	}
	counts := map[string]int{}
	for _, v := range one {
		counts[value(v, "operationName")+" "+value(v, "status")+" "+value(v, "subStatus")]++
		auth, _ := v["authorization"].(map[string]any)
		if auth["action"] != value(v, "operationName") || auth["scope"] != vms+"/vm1" || v["eventTimestamp"] == "" || v["caller"] == "" || v["resourceGroupName"] != "g1" {
			t.Errorf("an event: %v", v)
		}
	}
	for _, want := range []string{"Microsoft.Compute/virtualMachines/write Succeeded ", "Microsoft.Compute/virtualMachines/delete Failed Forbidden", "Microsoft.Compute/virtualMachines/delete Succeeded "} {
		if counts[want] != 1 {
			t.Errorf("the log lacks %q: %v", want, counts)
		}
	}
	for more, want := range map[string]int{
		" and resourceGroupName eq 'g2'":                                     1,
		" and resourceGroupName eq 'G1' and status eq 'Failed'":              1,
		" and resourceProvider eq 'Microsoft.Compute'":                       3,
		" and caller eq '" + nobody.oid + "'":                                1,
		" and correlationId eq '" + made.header.Get("X-Ms-Request-Id") + "'": 1,
		" and resourceUri eq '" + vms + "/none'":                             0,
	} {
		if got := len(log(more)); got != want {
			t.Errorf("%s: %d events, want %d", more, got, want)
		}
	}
	for _, bad := range []string{"", "eventTimestamp ge 'now'", "eventTimestamp le '2026-09-21T00:00:00Z'", "eventTimestamp ge '2020-01-01T00:00:00Z'",
		"eventTimestamp ge '2026-09-21T00:00:00Z' and level eq 'x'", "eventTimestamp ge '2026-09-21T00:00:00Z' or status eq 'x'"} {
		w.owner.refused(400, "InvalidFilterInQueryString", "GET", path+"?api-version=2015-04-01&$filter="+url.QueryEscape(bad), "")
	}
	good := url.QueryEscape("eventTimestamp ge '" + start.Format(time.RFC3339) + "'")
	w.owner.refused(400, "InvalidRequestContent", "GET", path+"?api-version=2015-04-01&$skiptoken=x&$filter="+good, "")
	nobody.refused(403, "AuthorizationFailed", "GET", path+"?api-version=2015-04-01&$filter="+good, "")
	w.as(tenantA, "in-a-group", roleReader+" "+g1).refused(403, "AuthorizationFailed", "GET", path+"?api-version=2015-04-01&$filter="+good, "")

	// Pages: every event once.
	for range 250 {
		w.owner.must(200, "PATCH", g1, `{}`)
	}
	seen := map[string]int{}
	next := path + "?api-version=2015-04-01&$filter=" + url.QueryEscape("eventTimestamp ge '"+start.Format(time.RFC3339)+"' and resourceUri eq '"+g1+"'")
	pages := 0
	for ; next != ""; pages++ {
		r := w.owner.must(200, "GET", next, "")
		for _, v := range r.values() {
			seen[v["correlationId"].(string)]++
		}
		next = r.str("nextLink")
	}
	if len(seen) != 251 || pages < 2 {
		t.Errorf("%d events of 251 in %d pages", len(seen), pages)
	}
}
