package arm_test

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTagNamesOfASubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.owner.must(200, "GET", sub+"/tagNames", ""); len(r.values()) != 0 {
		t.Errorf("tags in use where there are none: %s", r.text)
	}
	w.owner.must(201, "PUT", vms+"/vm1", `{"location":"local","tags":{"Env":"prod","team":"a"}}`)
	w.owner.must(201, "PUT", vms+"/vm2", `{"location":"local","tags":{"env":"prod"}}`)
	w.owner.must(201, "PUT", vms+"/vm3", `{"location":"local","tags":{"ENV":"Prod"}}`)
	w.owner.must(200, "PUT", sub+tags, `{"properties":{"tags":{"team":"b"}}}`)
	w.owner.must(200, "PUT", g1+tags, `{"properties":{"tags":{"team":"b"}}}`)
	// Another tenant's tags are its own, though its subscription has the same id.
	b := w.addTenant(tenantB)
	b.must(200, "PUT", sub+tags, `{"properties":{"tags":{"secret":"project"}}}`)

	value := func(tag, v string, n int) map[string]any {
		return map[string]any{"id": sub + "/tagNames/" + tag + "/tagValues/" + v, "tagValue": v, "count": map[string]any{"type": "Total", "value": json.Number(strconv.Itoa(n))}}
	}
	want := []map[string]any{
		{"id": sub + "/tagNames/Env", "tagName": "Env", "count": map[string]any{"type": "Total", "value": json.Number("3")}, "values": []any{value("Env", "Prod", 1), value("Env", "prod", 2)}},
		{"id": sub + "/tagNames/team", "tagName": "team", "count": map[string]any{"type": "Total", "value": json.Number("3")}, "values": []any{value("team", "a", 1), value("team", "b", 2)}},
	}
	if diff := cmp.Diff(want, w.as(tenantA, "reader", roleReader+" "+sub).must(200, "GET", sub+"/tagnames", "").values()); diff != "" {
		t.Errorf("tags in use (-want +got):\n%s", diff)
	}
	w.owner.must(200, "DELETE", vms+"/vm3", "")
	if got := w.owner.must(200, "GET", sub+"/tagNames", "").values()[0]["values"]; !cmp.Equal(got, any([]any{value("Env", "prod", 2)})) {
		t.Errorf("a tag that nothing has any more is in use: %v", got)
	}

	// A right in a group is none to read what others' groups have.
	w.as(tenantA, "of-g1", roleOwner+" "+g1).refused(403, "AuthorizationFailed", "GET", sub+"/tagNames", "")
	w.owner.refused(405, "MethodNotAllowed", "PUT", sub+"/tagNames", `{}`)
	none := "/subscriptions/51515151-0000-4000-8000-00000000dead/tagNames"
	w.owner.refused(403, "AuthorizationFailed", "GET", none, "")
	w.root().refused(404, "SubscriptionNotFound", "GET", none, "")
}
