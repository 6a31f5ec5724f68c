package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// member reads a member of an answer as it stands in the text: what a decoder
// would round shows.
func member(t *testing.T, text string, path ...string) string {
	t.Helper()
	raw := json.RawMessage(text)
	for _, k := range path {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		raw = m[k]
	}
	return string(raw)
}

func TestUnknownMembersAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	props := `{"big":12345678901234567890,"deep":{"a":[1,{"b":null}]},"huge":1e999,"text":"<&> \u00e9"}`
	w.owner.must(201, "PUT", id, `{"location":"local","zones":["1"],"plan":{"name":"x"},"properties":`+props+`}`)
	for _, r := range []reply{
		w.owner.must(200, "GET", id, ""),
		w.owner.must(200, "PATCH", id, `{}`),
		w.owner.must(200, "PATCH", id, `{"properties":{}}`),
	} {
		for path, want := range map[string]string{
			"zones": `["1"]`, "plan.name": `"x"`, "properties.big": "12345678901234567890", "properties.huge": "1e999",
			"properties.deep": `{"a":[1,{"b":null}]}`,
		} {
			if got := member(t, r.text, strings.Split(path, ".")...); got != want {
				t.Errorf("%s = %s, want %s", path, got, want)
			}
		}
		if got := r.str("properties", "text"); got != "<&> é" {
			t.Errorf("properties.text = %q", got)
		}
	}
	if l := w.owner.must(200, "GET", vms, ""); len(l.values()) != 1 || !strings.Contains(l.text, "12345678901234567890") {
		t.Errorf("the list has %s", l.text)
	}
}

func TestReadOnlyMembersAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.owner.must(201, "PUT", vms+"/vm1", local)
	lies := `{"location":"local","id":"/x","ID":null,"name":"y","Type":"z","etag":"0","systemData":{"createdBy":"me"},
		"properties":{"provisioningState":"Failed","vmId":"v"}}`
	w.owner.refused(400, "InvalidRequestContent", "PUT", vms+"/vm1", lies) // id is there twice
	after := w.owner.must(200, "PUT", vms+"/vm1", strings.Replace(lies, `"ID":null,`, "", 1))
	for _, b := range []reply{before, after} {
		delete(b.body, "etag")
		delete(b.body, "systemData")
	}
	if diff := cmp.Diff(before.body, after.body); diff != "" {
		t.Errorf("a client's read-only members count (-before +after):\n%s", diff)
	}
	uai := w.owner.must(201, "PUT", uais+"/shared", `{"location":"local","properties":{"principalId":"p","PRINCIPALID2":1,"clientId":"c","tenantId":"t"}}`)
	if !guid.MatchString(uai.str("properties", "principalId")) || uai.str("properties", "tenantId") != tenantA || uai.str("properties", "clientId") == "c" {
		t.Errorf("an identity's ids are the client's: %s", uai.text)
	}
}

// TestDocumentsThatAreRefused: each leaves nothing behind.
func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	uai := uais + "/uai"
	w.owner.must(201, "PUT", uai, local)
	many := make([]string, 51)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":""`, i)
	}
	for _, tt := range []struct{ what, body string }{
		{"no body", ``},
		{"not JSON", `{"location":`},
		{"two values", `{"location":"local"} {}`},
		{"null", `null`},
		{"an array", `[]`},
		{"a string", `"local"`},
		{"not UTF-8", "{\"location\":\"\xff\"}"},
		{"no location", `{}`},
		{"a null location", `{"location":null}`},
		{"an empty location", `{"location":""}`},
		{"a number as location", `{"location":7}`},
		{"a long location", `{"location":"` + strings.Repeat("x", 91) + `"}`},
		{"a member twice", `{"location":"local","location":"local"}`},
		{"a member twice, in another case", `{"location":"local","Location":"local"}`},
		{"identity twice", `{"location":"local","identity":{"type":"None"},"Identity":{"type":"SystemAssigned"}}`},
		{"identity.type twice", `{"location":"local","identity":{"type":"None","Type":"SystemAssigned"}}`},
		{"one identity twice", `{"location":"local","identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{},"` + strings.ToUpper(uai) + `":null}}}`},
		{"a property twice", `{"location":"local","properties":{"a":1,"A":2}}`},
		{"a property twice, deep down", `{"location":"local","properties":{"a":[{"b":1,"b":2}]}}`},
		{"properties of another kind", `{"location":"local","properties":[]}`},
		{"tags of another kind", `{"location":"local","tags":[]}`},
		{"a tag that is a number", `{"location":"local","tags":{"a":1}}`},
		{"a tag that is null", `{"location":"local","tags":{"a":null}}`},
		{"a tag without a name", `{"location":"local","tags":{"":"x"}}`},
		{"a tag twice", `{"location":"local","tags":{"env":"x","ENV":"y"}}`},
		{"a long tag name", `{"location":"local","tags":{"` + strings.Repeat("x", 513) + `":""}}`},
		{"a long tag value", `{"location":"local","tags":{"x":"` + strings.Repeat("x", 257) + `"}}`},
		{"51 tags", `{"location":"local","tags":{` + strings.Join(many, ",") + `}}`},
		{"deep properties", `{"location":"local","properties":{"x":` + strings.Repeat("[", 9990) + strings.Repeat("]", 9990) + `}}`},
		{"deeper than JSON goes", `{"location":"local","properties":{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`},
	} {
		code := "InvalidRequestContent"
		w.owner.refused(400, code, "PUT", vms+"/vm1", tt.body)
		if got := w.owner.do("GET", vms+"/vm1", ""); got.status != 404 {
			t.Errorf("%s: the refused document left %d %.200s", tt.what, got.status, got.text)
			w.owner.must(200, "DELETE", vms+"/vm1", "")
		}
	}
	w.owner.refused(413, "RequestContentTooLarge", "PUT", vms+"/vm1", `{"location":"`+strings.Repeat("x", 1<<20)+`"}`)
	if l := w.owner.must(200, "GET", vms, ""); len(l.values()) != 0 {
		t.Errorf("refused documents left %s", l.text)
	}
}

func TestPatchMerges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	w.owner.must(201, "PUT", id, `{"location":"West Europe","Tags":{"a":"1","b":"2"},"zones":["1"],"properties":{"Size":"small","os":{"disk":1,"nic":2}}}`)
	for _, tt := range []struct {
		patch string
		path  string
		want  string
	}{
		{`{"tags":{"c":"3"}}`, "tags", `{"c":"3"}`}, // tags are replaced whole
		{`{"TAGS":{"d":"4"}}`, "tags", `{"d":"4"}`},
		{`{"tags":null}`, "tags", ``},
		{`{"zones":null}`, "zones", ``},
		{`{"zones":["2","3"]}`, "zones", `["2","3"]`},
		{`{"location":null}`, "location", `"West Europe"`},
		{`{"location":"westeurope"}`, "location", `"westeurope"`},
		{`{"properties":{"os":{"disk":null}}}`, "properties.os", `{"nic":2}`},
		{`{"properties":{"OS":{"nic":3}}}`, "properties.OS", `{"nic":3}`}, // names compare without case
		{`{"properties":{"size":null}}`, "properties.Size", ``},
		{`{"properties":{"new":{"x":null,"y":1}}}`, "properties.new", `{"y":1}`}, // RFC 7396 section 2
		{`{"properties":null}`, "properties.OS", ``},
	} {
		r := w.owner.must(200, "PATCH", id, tt.patch)
		if got := member(t, r.text, strings.Split(tt.path, ".")...); got != tt.want {
			t.Errorf("after PATCH %s %s is %s, want %s", tt.patch, tt.path, got, tt.want)
		}
	}
	if r := w.owner.must(200, "GET", id, ""); r.body["Tags"] != nil {
		t.Errorf("members have the client's case: %s", r.text)
	}
}

func TestLocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	w.owner.must(201, "PUT", id, `{"location":"West Europe"}`)
	w.owner.must(200, "PUT", id, `{"location":"westeurope"}`)
	w.owner.must(200, "PUT", id, `{"LOCATION":"WESTEUROPE"}`)
	if got := w.owner.must(200, "PUT", id, `{}`).str("location"); got != "WESTEUROPE" {
		t.Errorf("PUT without a location answers %q", got)
	}
	for _, m := range []string{"PUT", "PATCH"} {
		w.owner.refused(400, "PropertyChangeNotAllowed", m, id, `{"location":"northeurope"}`)
	}
	host := g1 + "/providers/Innate.Fleet/hosts/h" // of a type that needs none
	w.owner.must(201, "PUT", host, `{"location":"here"}`)
	w.owner.refused(400, "PropertyChangeNotAllowed", "PATCH", host, `{"location":"there"}`)
}

func TestConditions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	w.owner.refused(412, "PreconditionFailed", "PUT", id, local, "If-Match", "*")
	w.owner.refused(412, "PreconditionFailed", "DELETE", id, "", "If-Match", `"5"`)
	w.owner.refused(412, "PreconditionFailed", "PATCH", id, `{}`, "If-Match", `"5"`)
	first := w.owner.must(201, "PUT", id, local, "If-None-Match", "*").header.Get("ETag")
	w.owner.refused(412, "PreconditionFailed", "PUT", id, local, "If-None-Match", "*")
	w.owner.refused(412, "PreconditionFailed", "DELETE", id, "", "If-None-Match", "*")
	second := w.owner.must(200, "PUT", id, local, "If-Match", first).header.Get("ETag")
	for _, stale := range []string{first, `"ffffffffffffffff"`, `"99999999999999999999999"`, `"-1"`, "x", first + `, "0"`, "W/" + first} {
		for _, m := range []string{"PUT", "PATCH", "DELETE"} {
			w.owner.refused(412, "PreconditionFailed", m, id, local, "If-Match", stale)
		}
	}
	for _, bad := range []string{`""`, `"`, `*, "1"`, second + " 1", "W/", "," + second} {
		for _, header := range []string{"If-Match", "If-None-Match"} {
			if r := w.owner.refused(400, "InvalidRequestContent", "PUT", id, local, header, bad); r.str("error", "target") != header {
				t.Errorf("%s: %s is refused at %s", header, bad, r.str("error", "target"))
			}
		}
	}
	third := w.owner.must(200, "PATCH", id, `{}`, "If-Match", `"0", W/`+second).header.Get("ETag")
	w.owner.refused(412, "PreconditionFailed", "PATCH", id, `{}`, "If-None-Match", `"0", W/`+third)
	w.owner.must(200, "PATCH", id, `{}`, "If-None-Match", `"0", `+second)
	w.owner.must(200, "PATCH", id, `{}`, "If-Match", "*")
	if got, want := w.owner.must(204, "HEAD", id, "").header.Get("ETag"), w.owner.must(200, "GET", id, "").header.Get("ETag"); got != want || got == "" {
		t.Errorf("HEAD answers the ETag %s, GET %s", got, want)
	}
	third = w.owner.must(200, "GET", id, "").header.Get("ETag")
	w.owner.must(200, "DELETE", id, "", "If-Match", third)
}

// TestConcurrentPatchesLoseNothing: of those who read the same ETag, one wins
// and the others are told; in the end every change is there.
func TestConcurrentPatchesLoseNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	w.owner.must(201, "PUT", id, `{"location":"local","properties":{}}`)
	const clients = 8
	lost := make([]int, clients)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for {
				got, err := w.owner.send("GET", id, "")
				if err != nil {
					t.Error(err)
					return
				}
				r, err := w.owner.send("PATCH", id, fmt.Sprintf(`{"properties":{"c%d":true}}`, i), "If-Match", got.header.Get("ETag"))
				if err != nil || r.status != 200 && r.status != 412 {
					t.Errorf("PATCH = %d %s, %v", r.status, r.text, err)
					return
				}
				if r.status == 200 {
					return
				}
				lost[i]++
			}
		})
	}
	all.Wait()
	props, _ := w.owner.must(200, "GET", id, "").body["properties"].(map[string]any)
	for i := range clients {
		if props[fmt.Sprintf("c%d", i)] != true {
			t.Errorf("the change of client %d is lost; there is %v (%v tries)", i, props, lost)
		}
	}
}

// TestAnswersAreOfTheirOwnWrite: what a PUT answers is what it wrote, not what
// another wrote after it: with that one's ETag the first would overwrite it.
func TestAnswersAreOfTheirOwnWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/vm1"
	w.owner.must(201, "PUT", id, local)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 8 {
				mine := fmt.Sprintf("%d/%d", i, j)
				r, err := w.owner.send("PUT", id, `{"location":"local","properties":{"by":"`+mine+`"}}`)
				if err != nil || r.status != 200 || r.str("properties", "by") != mine {
					t.Errorf("PUT by %s = %d %s, %v", mine, r.status, r.text, err)
				}
			}
		})
	}
	all.Wait()
}
