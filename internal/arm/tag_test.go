package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const tags = "/providers/Microsoft.Resources/tags/default"

func (r reply) tags() map[string]any {
	p, _ := r.body["properties"].(map[string]any)
	t, _ := p["tags"].(map[string]any)
	return t
}

func TestTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", `{"location":"local","tags":{"a":"1"},"properties":{"x":1}}`)
	for _, scope := range []string{sub, g1, vms + "/vm1"} {
		for _, step := range []struct {
			method, body string
			want         map[string]any
		}{
			{"PUT", `{"properties":{"tags":{"Env":"prod","b":"2"}}}`, map[string]any{"Env": "prod", "b": "2"}},
			{"PATCH", `{"operation":"Merge","properties":{"tags":{"env":"test","c":""}}}`, map[string]any{"env": "test", "b": "2", "c": ""}},
			{"PATCH", `{"operation":"delete","properties":{"tags":{"ENV":"test","b":"other"}}}`, map[string]any{"b": "2", "c": ""}},
			{"PATCH", `{"operation":"Replace","properties":{"tags":{"d":"4"}}}`, map[string]any{"d": "4"}},
			{"DELETE", "", map[string]any{}},
			{"PUT", `{"properties":{"tags":{"e":"5"}}}`, map[string]any{"e": "5"}},
		} {
			r := w.owner.must(200, step.method, scope+tags, step.body)
			if diff := cmp.Diff(step.want, r.tags()); diff != "" {
				t.Errorf("%s %s at %s (-want +got):\n%s", step.method, step.body, scope, diff)
			}
			if diff := cmp.Diff(step.want, w.owner.must(200, "GET", scope+tags, "").tags()); diff != "" {
				t.Errorf("read at %s (-want +got):\n%s", scope, diff)
			}
		}
	}
	vm := w.owner.must(200, "GET", vms+"/vm1", "")
	if vm.str("tags", "e") != "5" || !strings.Contains(vm.text, `"x":1`) {
		t.Errorf("the resource whose tags were written: %s", vm.text)
	}
	before := w.owner.must(200, "GET", vms+"/vm1", "").text
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf(`"t%d":""`, i))
	}
	for _, bad := range []string{
		`{}`, `{"properties":{"tags":[]}}`, `{"properties":{"tags":{"a":null}}}`, `{"properties":{"tags":{"a":1}}}`, `{"properties":{"tags":{"":"x"}}}`,
		`{"operation":"Merge","properties":{"tags":{` + strings.Join(many, ",") + `}}}`, // with what is there 51
		`{"operation":"Add","properties":{"tags":{"a":"b"}}}`, `{"properties":{"tags":{"a":"b"}}}`,
	} {
		w.owner.refused(400, "InvalidRequestContent", "PATCH", vms+"/vm1"+tags, bad)
	}
	if after := w.owner.must(200, "GET", vms+"/vm1", "").text; after != before {
		t.Errorf("bad tags changed the resource:\n%s\n%s", before, after)
	}
	w.owner.refused(400, "InvalidResourceName", "PUT", g1+"/providers/Microsoft.Resources/tags/other", `{"properties":{"tags":{}}}`)
	w.owner.refused(404, "ResourceNotFound", "PUT", vms+"/none"+tags, `{"properties":{"tags":{}}}`)
	w.as(tenantA, "reader", roleReader+" "+g1).refused(403, "AuthorizationFailed", "PUT", g1+tags, `{"properties":{"tags":{}}}`)
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", g1+tags, "")
}
