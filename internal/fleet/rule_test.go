package fleet_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const (
	rules  = "/providers/Innate.Fleet/callerRules/"
	shared = ops + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared"
	second = ops + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/second"
)

// shop is a program that the kernel saw connect.
var shop = fleetapi.Evidence{Door: "run", Selectors: []string{"systemd:id:shop.service", "unix:uid:1000"}, Grade: "kernel"}

// askAs is ask with evidence.
func askAs(ev fleetapi.Evidence, placement, workload string) fleetapi.TokenRequest {
	r := ask(placement, workload)
	r.Evidence, r.Caller = ev, "what the host likes to say"
	return r
}

// rule writes a rule with these properties.
func (c caller) rule(on, name, properties string) map[string]any {
	c.w.t.Helper()
	return c.must(201, "PUT", on+rules+name, `{"properties":`+properties+`}`)
}

// ruled is a world with vm1 placed on h1.
func ruled(t *testing.T) (*world, *agent) {
	t.Helper()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.place("h1", "p1", vms+"/vm1")
	return w, h
}

func TestCallerRulesAreResources(t *testing.T) {
	t.Parallel()
	w, _ := ruled(t)
	on := vms + "/vm1"
	made := w.owner.rule(on, "shop", `{"selectors":["systemd:id:shop.service"],"audiences":["https://vault.azure.net"],"grade":"kernel"}`)
	if made["id"] != on+rules+"shop" || made["type"] != fleet.TypeCallerRule || made["etag"] == "" {
		t.Errorf("made as %v", made)
	}
	got := w.owner.must(200, "GET", strings.ToUpper(on)+rules+"SHOP", "")
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("it reads otherwise than it was made:\n%s", diff)
	}
	// What was read can be written back: computed members are dropped.
	back, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	w.owner.must(200, "PUT", on+rules+"shop", string(back))
	w.owner.must(200, "PATCH", on+rules+"shop", `{"properties":{"mode":"audit"}}`)
	l, _ := w.owner.must(200, "GET", on+strings.TrimSuffix(rules, "/"), "")["value"].([]any)
	if len(l) != 1 {
		t.Errorf("the list has %v", l)
	}
	p, _ := l[0].(map[string]any)["properties"].(map[string]any)
	if p["mode"] != "audit" || p["grade"] != "kernel" {
		t.Errorf("patched to %v", p)
	}
	if all, _ := w.owner.must(200, "GET", ops+"/resources", "")["value"].([]any); strings.Contains(fmt.Sprint(all), "callerRules") || !strings.Contains(fmt.Sprint(all), "vm1") {
		t.Errorf("the list of all resources has %v", all)
	}
	w.owner.must(412, "PUT", on+rules+"shop", `{"properties":{"selectors":["unix:uid:1"]}}`, "If-None-Match", "*")
	w.owner.must(412, "PATCH", on+rules+"shop", `{"properties":{"mode":"enforce"}}`, "If-Match", `"1"`)
	w.owner.must(200, "DELETE", on+rules+"shop", "")
	w.owner.must(204, "DELETE", on+rules+"shop", "")
	w.owner.rule(on, "a", `{"selectors":["unix:uid:1"]}`)
	w.owner.must(200, "DELETE", on, "")
	w.owner.must(404, "GET", on+rules+"a", "")
	w.owner.must(201, "PUT", on, machine) // made again, it has no rule of before
	if l, _ := w.owner.must(200, "GET", on+strings.TrimSuffix(rules, "/"), "")["value"].([]any); len(l) != 0 {
		t.Errorf("a resource made again has the rules %v", l)
	}
}

// TestWhatIsNoRuleIsRefusedWhole: and the rule that was there stays.
func TestWhatIsNoRuleIsRefusedWhole(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	id := vms + "/vm1" + rules + "r"
	w.owner.rule(vms+"/vm1", "r", `{"selectors":["unix:uid:7"]}`)
	many := func(n int, s string) string {
		return `["` + strings.Repeat(s+`","`, n-1) + s + `"]`
	}
	for what, body := range map[string]string{
		"nothing":                    `{}`,
		"no selectors":               `{"properties":{}}`,
		"null selectors":             `{"properties":{"selectors":null}}`,
		"empty selectors":            `{"properties":{"selectors":[]}}`,
		"a misspelt member":          `{"properties":{"selectors":["unix:uid:1"],"audience":["https://vault.azure.net"]}}`,
		"selector":                   `{"properties":{"selector":["unix:uid:1"]}}`,
		"a member in the wrong room": `{"properties":{"selectors":["unix:uid:1"]},"audiences":["https://vault.azure.net"]}`,
		"an unknown selector":        `{"properties":{"selectors":["k8s:ns:a"]}}`,
		"one good, one bad":          `{"properties":{"selectors":["unix:uid:1","unix:uid:"]}}`,
		"too many selectors":         `{"properties":{"selectors":` + many(65, "unix:uid:1") + `}}`,
		"a number":                   `{"properties":{"selectors":[1]}}`,
		"a string":                   `{"properties":{"selectors":"unix:uid:1"}}`,
		"an unknown grade":           `{"properties":{"selectors":["unix:uid:1"],"grade":"Kernel"}}`,
		"an unknown mode":            `{"properties":{"selectors":["unix:uid:1"],"mode":"off"}}`,
		"an empty audience":          `{"properties":{"selectors":["unix:uid:1"],"audiences":[""]}}`,
		"a scope":                    `{"properties":{"selectors":["unix:uid:1"],"audiences":["https://vault.azure.net/.default"]}}`,
		"too many audiences":         `{"properties":{"selectors":["unix:uid:1"],"audiences":` + many(65, "api://x") + `}}`,
		"an identity that is none":   `{"properties":{"selectors":["unix:uid:1"],"identity":"shared"}}`,
		"an identity of another":     `{"properties":{"selectors":["unix:uid:1"],"identity":"` + shared + `"}}`,
		"another resource's own":     `{"properties":{"selectors":["unix:uid:1"],"identity":"` + vms + `/vm2"}}`,
		"an identity block":          `{"identity":{"type":"SystemAssigned"},"properties":{"selectors":["unix:uid:1"]}}`,
		"a member twice":             `{"properties":{"selectors":["unix:uid:1"],"Selectors":["unix:uid:2"]}}`,
	} {
		if e, _ := w.owner.must(400, "PUT", id, body)["error"].(map[string]any); e["message"] == "" {
			t.Errorf("%s is refused without a word", what)
		}
	}
	w.owner.must(400, "PATCH", id, `{"properties":{"selectors":null}}`)
	var ps fleetapi.Placements
	h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	want := []fleetapi.CallerRule{{Resource: vms + "/vm1", Name: "r", Selectors: []string{"unix:uid:7"}, Mode: "enforce"}}
	if diff := cmp.Diff(want, ps.Rules); diff != "" {
		t.Errorf("the rules are (-want +got)\n%s", diff)
	}
	// On what can be no caller's resource, there is none.
	body := `{"properties":{"selectors":["unix:uid:1"]}}`
	for on, status := range map[string]int{
		vms + "/none": 404, hosts + "/h1": 400, hosts + "/h1/placements/p1": 400, vms + "/vm1" + rules + "r": 400, ops: 400, sub: 400,
	} {
		w.owner.must(status, "PUT", on+rules+"x", body)
	}
}

func TestRulesAreBounded(t *testing.T) {
	t.Parallel()
	w, _ := ruled(t)
	w.owner.must(201, "PUT", vms+"/vm2", machine)
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		for i := range 199 {
			if err := tx.PutResource(ruleRow(vms+"/vm1", fmt.Sprintf("r%d", i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	body := `{"selectors":["unix:uid:1"]}`
	w.owner.rule(vms+"/vm1", "last", body)
	w.owner.refused(409, "Conflict", "PUT", vms+"/vm1"+rules+"more", `{"properties":`+body+`}`)
	w.owner.must(200, "PUT", vms+"/vm1"+rules+"last", `{"properties":`+body+`}`)
	w.owner.rule(vms+"/vm2", "more", body)
}

// ruleRow is a rule as stored.
func ruleRow(on, name string) arm.Resource {
	return arm.Resource{
		Tenant: tenantA, ID: resource.MustParse(on + rules + name), Type: fleet.TypeCallerRule, UID: uuid.NewString(), BoundTo: resource.MustParse(on),
		Body: map[string]json.RawMessage{"properties": json.RawMessage(`{"selectors":["unix:uid:1"]}`)},
	}
}

// TestWritingARuleNeedsTheResource: whoever adds, loosens or deletes a rule
// lets programs in, and so must be one who may write what they then are.
func TestWritingARuleNeedsTheResource(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	on := vms + "/vm1"
	w.owner.rule(on, "r", `{"selectors":["unix:uid:7"]}`)
	w.owner.rule(on, "mine", `{"selectors":["unix:uid:7"]}`)
	mallory := w.as(tenantA, unique("mallory"), roleContributor+" "+on+rules+"r", roleContributor+" "+on+rules+"mine")
	loose := `{"properties":{"selectors":["unix:uid:1000"]}}`
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", on+rules+"mine", loose)
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", on+rules+"r", loose)
	mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", on+rules+"r", `{"properties":{"mode":"audit"}}`)
	mallory.refused(403, "LinkedAuthorizationFailed", "DELETE", on+rules+"r", "")
	mallory.must(200, "GET", on+rules+"r", "")
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, askAs(shop, "p1", on))
	alice := w.as(tenantA, unique("alice"), roleContributor+" "+on)
	alice.must(200, "PUT", on+rules+"r", loose)
	h.must(200, "POST", fleetapi.PathToken, askAs(shop, "p1", on), nil)
	alice.must(200, "DELETE", on+rules+"r", "")
	alice.must(200, "DELETE", on+rules+"mine", "")
	// Another tenant's rules on a resource of the same name are about that.
	b := w.addTenant(tenantB)
	b.must(201, "PUT", on, machine)
	b.rule(on, "r", `{"selectors":["unix:uid:9"]}`)
	h.must(200, "POST", fleetapi.PathToken, askAs(shop, "p1", on), nil)
}

func TestWarningsOfRules(t *testing.T) {
	t.Parallel()
	w, _ := ruled(t)
	for selectors, warned := range map[string]bool{
		`["unix:path:/usr/bin/python3"]`: true, `["unix:sha256:` + strings.Repeat("a", 64) + `"]`: true, `["unix:path:/usr/bin/node","unix:uid:1"]`: false, `["systemd:id:a.service"]`: false,
	} {
		p, _ := w.owner.rule(vms+"/vm1", unique("r"), `{"selectors":`+selectors+`,"warnings":["mine"]}`)["properties"].(map[string]any)
		ws, ok := p["warnings"].([]any)
		if !ok || warned != (len(ws) == 1) || warned && !strings.Contains(fmt.Sprint(ws), "systemd:id:") {
			t.Errorf("a rule with %s warns %v", selectors, p["warnings"])
		}
	}
}

// TestRulesDecide: what is asked, what comes of it, what the record says.
func TestRulesDecide(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/vm1"
	w.owner.must(201, "PUT", shared, `{"location":"local"}`)
	w.owner.must(201, "PUT", second, `{"location":"local"}`)
	w.owner.must(200, "PATCH", vm, `{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"`+shared+`":{},"`+second+`":{}}}}`)
	with := func(change func(*fleetapi.TokenRequest)) fleetapi.TokenRequest {
		r := askAs(shop, "p1", vm)
		r.Evidence.Selectors = slices.Clone(r.Evidence.Selectors)
		change(&r)
		return r
	}
	plain := with(func(*fleetapi.TokenRequest) {})
	unit := `"selectors":["systemd:id:shop.service"]`
	for _, tt := range []struct {
		what  string
		rules []string // properties
		req   fleetapi.TokenRequest
		// is the identity that comes of it; "" is a refusal.
		is string
		// says is in the record's reason.
		says string
	}{
		{"no rule", nil, plain, vm, ""},
		{"one that matches", []string{`{` + unit + `}`}, plain, vm, "allowed by caller rule r0"},
		{"one that does not", []string{`{"selectors":["unix:uid:0"]}`}, plain, "", "no caller rule of the resource allows it; rule r0: the caller is not unix:uid:0"},
		{"one of two", []string{`{"selectors":["unix:uid:0"]}`, `{` + unit + `}`}, plain, vm, "allowed by caller rule r1"},
		{"another user, same program", []string{`{` + unit + `}`}, with(func(r *fleetapi.TokenRequest) { r.Evidence.Selectors = []string{"unix:uid:1000"} }), "", "the caller is not systemd:id:shop.service"},
		{"the rule's identity", []string{`{` + unit + `,"identity":"` + shared + `"}`}, plain, shared, "allowed by caller rule r0"},
		{"the rule's identity is its own", []string{`{` + unit + `,"identity":"` + strings.ToUpper(vm) + `"}`}, plain, vm, "allowed"},
		{"the one named", []string{`{` + unit + `,"identity":"` + shared + `"}`}, with(func(r *fleetapi.TokenRequest) { r.ResourceID = strings.ToLower(shared) }), shared, "allowed"},
		{"another named", []string{`{` + unit + `,"identity":"` + shared + `"}`}, with(func(r *fleetapi.TokenRequest) { r.ResourceID = second }), "", "rule r0: it gives another identity"},
		{"two names in one request", []string{`{` + unit + `,"identity":"` + shared + `"}`}, with(func(r *fleetapi.TokenRequest) { r.ResourceID, r.ClientID = shared, w.client1(second) }), "", "it gives another identity"},
		{"another named, by its client id", []string{`{` + unit + `,"identity":"` + shared + `"}`}, with(func(r *fleetapi.TokenRequest) { r.ClientID = w.client1(second) }), "", "it gives another identity"},
		{"another that another rule gives", []string{`{` + unit + `,"identity":"` + shared + `"}`, `{"selectors":["unix:uid:1000"],"identity":"` + second + `"}`}, with(func(r *fleetapi.TokenRequest) { r.ClientID = w.client1(second) }), second, "caller rule r1"},
		{"two that give different ones", []string{`{` + unit + `,"identity":"` + shared + `"}`, `{"selectors":["unix:uid:1000"],"identity":"` + second + `"}`}, plain, "", "name one in the request"},
		{"the more exact of two", []string{`{` + unit + `,"identity":"` + shared + `"}`, `{"selectors":["unix:uid:1000","systemd:id:shop.service"],"identity":"` + second + `"}`}, plain, second, "caller rule r1"},
		{"another audience", []string{`{` + unit + `,"audiences":["https://vault.azure.net"]}`}, plain, "", "rule r0: it is not for this audience"},
		{"that audience", []string{`{` + unit + `,"audiences":["https://management.azure.com"]}`}, plain, vm, "allowed"},
		{"a lesser grade", []string{`{` + unit + `,"grade":"kernel"}`}, with(func(r *fleetapi.TokenRequest) { r.Evidence.Grade = "after-the-fact" }), "", "asks for evidence of grade kernel"},
		{"an unknown grade", []string{`{` + unit + `}`}, with(func(r *fleetapi.TokenRequest) { r.Evidence.Grade = "best" }), "", "is no grade"},
		{"no grade", []string{`{` + unit + `}`}, with(func(r *fleetapi.TokenRequest) { r.Evidence.Grade = "" }), "", "is no grade"},
		{"an interpreter by its file", []string{`{"selectors":["unix:sha256:aa"]}`}, with(func(r *fleetapi.TokenRequest) {
			r.Evidence.Selectors, r.Evidence.Interpreter = []string{"unix:sha256:aa"}, true
		}), "", "the caller is an interpreter"},
		{"a secret per start", []string{`{"selectors":["unix:uid:1000"],"grade":"secret"}`}, with(func(r *fleetapi.TokenRequest) { r.Evidence.Grade = "secret" }), vm, "allowed"},
		{"no evidence, a rule", []string{`{"selectors":["unix:uid:1000"]}`}, ask("p1", vm), "", "sends no evidence"},
		{"no evidence, an audit rule", []string{`{"selectors":["unix:uid:1000"],"mode":"audit"}`}, ask("p1", vm), vm, "would be refused"},
		{"only the words of it", []string{`{"selectors":["unix:uid:1000"]}`}, with(func(r *fleetapi.TokenRequest) {
			r.Evidence, r.Caller = fleetapi.Evidence{}, "door:run unix:uid:1000 grade:kernel"
		}), "", "no caller rule"},
		{"an audit rule that does not match", []string{`{"selectors":["unix:uid:0"],"mode":"audit"}`}, plain, vm, "would be refused if the rules in audit mode were enforced: no caller rule of the resource allows it; rule r0: the caller is not unix:uid:0"},
		{"an audit rule that gives another identity", []string{`{` + unit + `,"mode":"audit","identity":"` + shared + `"}`}, plain, vm, "would be refused"},
		{"an audit rule lets nobody in", []string{`{"selectors":["unix:uid:0"]}`, `{` + unit + `,"mode":"audit"}`}, plain, "", "no caller rule"},
		{"through another door", nil, with(func(r *fleetapi.TokenRequest) { r.Evidence.Door = "imds" }), "", "another door"},
		{"too much of it", nil, with(func(r *fleetapi.TokenRequest) { r.Evidence.Selectors = slices.Repeat([]string{"unix:uid:1"}, 513) }), "", "over 512 selectors"},
	} {
		for i, p := range tt.rules {
			w.owner.rule(vm, fmt.Sprintf("r%d", i), p)
		}
		status, b := h.do("POST", fleetapi.PathToken, tt.req)
		var out fleetapi.TokenResponse
		_ = json.Unmarshal(b, &out) // a refusal has none of it
		ev := w.last(tenantA, 1)[0]
		switch {
		case !strings.EqualFold(out.Identity, tt.is) || (status == 200) != (tt.is != ""):
			t.Errorf("%s: %d %s, want %q", tt.what, status, b, tt.is)
		case (ev.Outcome == audit.Allowed) != (tt.is != "") || !strings.Contains(ev.Reason, tt.says) || ev.Host != "h1":
			t.Errorf("%s: on record as %+v, want %q", tt.what, ev, tt.says)
		case tt.is != "" && len(tt.req.Evidence.Selectors) > 0 && ev.Via != "door:run "+strings.Join(tt.req.Evidence.Selectors, " ")+" grade:"+tt.req.Evidence.Grade:
			t.Errorf("%s: the record has the caller as %q", tt.what, ev.Via)
		case tt.is == "" && strings.Contains(string(b), "rule r0"):
			t.Errorf("%s: the program is told of the rules: %s", tt.what, b)
		}
		for i := range tt.rules {
			w.owner.must(200, "DELETE", fmt.Sprintf("%s%sr%d", vm, rules, i), "")
		}
	}
}

// client1 is the client id of a user-assigned identity.
func (w *world) client1(id string) string {
	w.t.Helper()
	p, err := w.srv.DB.PrincipalOf(w.t.Context(), tenantA, resource.MustParse(id).Key())
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Client
}

// TestPlacementsSelectorsAreCheckedAgain: an agent's mistake is not ours.
func TestPlacementsSelectorsAreCheckedAgain(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	w.owner.must(200, "PATCH", hosts+"/h1/placements/p1", `{"properties":{"selectors":["unix:uid:1000"]}}`)
	h.must(200, "POST", fleetapi.PathToken, askAs(shop, "p1", vms+"/vm1"), nil)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, askAs(fleetapi.Evidence{Door: "run", Selectors: []string{"unix:uid:1001"}, Grade: "kernel"}, "p1", vms+"/vm1"))
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, askAs(fleetapi.Evidence{Door: "run", Grade: "kernel"}, "p1", vms+"/vm1"))
}

// TestARuleWhoseIdentityIsGoneOpensNothing: a rule is closed while the resource
// has not what it gives, and the resource stays closed with it.
func TestARuleWhoseIdentityIsGoneOpensNothing(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/vm1"
	both := `{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"` + shared + `":{}}}}`
	for what, end := range map[string]func(){
		"detached": func() { w.owner.must(200, "PATCH", vm, `{"identity":{"type":"SystemAssigned"}}`) },
		"deleted":  func() { w.owner.must(200, "DELETE", shared, "") },
	} {
		if _, err := w.srv.DB.Resource(t.Context(), tenantA, resource.MustParse(shared).Key()); problem.Is(err, problem.NotFound) {
			w.owner.must(201, "PUT", shared, `{"location":"local"}`)
		}
		w.owner.must(200, "PATCH", vm, both)
		w.owner.rule(vm, "r", `{"selectors":["unix:uid:1000"],"identity":"`+shared+`"}`)
		h.must(200, "POST", fleetapi.PathToken, askAs(shop, "p1", vm), nil)
		client := w.client1(shared)
		end()
		h.refused(problem.IdentityNotFound, "POST", fleetapi.PathToken, askAs(shop, "p1", vm))
		other := askAs(fleetapi.Evidence{Door: "run", Selectors: []string{"unix:uid:5"}, Grade: "kernel"}, "p1", vm)
		h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, other)
		named := askAs(shop, "p1", vm)
		named.ClientID = client
		h.refused(problem.IdentityNotFound, "POST", fleetapi.PathToken, named)
		if r := w.owner.must(200, "GET", vm+rules+"r", ""); r["name"] != "r" {
			t.Errorf("%s: the rule is gone", what)
		}
		w.owner.must(200, "DELETE", vm+rules+"r", "")
	}
	// Its system-assigned identity is the resource's own, as long as it has one.
	w.owner.rule(vm, "own", `{"selectors":["unix:uid:1000"],"identity":"`+vm+`"}`)
	w.owner.must(200, "PATCH", vm, `{"identity":{"type":"None"}}`)
	h.refused(problem.IdentityNotFound, "POST", fleetapi.PathToken, askAs(shop, "p1", vm))
	w.owner.refused(400, "InvalidRequestContent", "PUT", vm+rules+"own", `{"properties":{"selectors":["unix:uid:1000"],"identity":"`+vm+`"}}`)
}

// TestRulesReachTheHost: with the placements, and at once by the stream, where
// they are of a resource that is placed there.
func TestRulesReachTheHost(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/vm1"
	w.owner.must(201, "PUT", vms+"/vm2", machine)
	s := h.changes(w.revision(tenantA))
	s.caughtUp()
	w.owner.rule(vms+"/vm2", "r", `{"selectors":["unix:uid:1"]}`)
	if m := s.to(w.revision(tenantA)); m.Placements || len(m.Resources) > 0 {
		t.Errorf("a rule of what is not placed here is told of: %+v", m)
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"made", func() { w.owner.rule(vm, "r", `{"selectors":["unix:uid:1"],"mode":"audit"}`) }},
		{"changed", func() { w.owner.must(200, "PATCH", vm+rules+"r", `{"properties":{"mode":"enforce"}}`) }},
		{"deleted", func() { w.owner.must(200, "DELETE", vm+rules+"r", "") }},
	} {
		step.do()
		if m := s.to(w.revision(tenantA)); !m.Placements || !slices.Contains(m.Resources, strings.ToLower(vm)) {
			t.Errorf("a rule was %s, and the stream says %+v", step.what, m)
		}
	}
	w.owner.rule(vm, "R", `{"selectors":["unix:uid:1"],"audiences":["api://a"],"grade":"kernel","mode":"audit"}`)
	var ps fleetapi.Placements
	h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	want := []fleetapi.CallerRule{{Resource: vm, Name: "R", Selectors: []string{"unix:uid:1"}, Audiences: []string{"api://a"}, Grade: "kernel", Mode: "audit"}}
	if diff := cmp.Diff(want, ps.Rules); diff != "" || len(ps.Placements) != 1 || ps.Revision != w.revision(tenantA) {
		t.Errorf("placements are %+v (-want +got)\n%s", ps, diff)
	}
}

func TestAnswersFromMemoryUnderAuditRules(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	served := fleetapi.Served{At: start, Count: 1, Workload: vms + "/vm1", Principal: someone, Audience: api, Caller: "door:run grade:none", Would: "no caller rule of the resource allows it"}
	h.must(204, "POST", fleetapi.PathEvents, fleetapi.EventsRequest{Batch: 1, Served: []fleetapi.Served{served}}, nil)
	if ev := w.last(tenantA, 1)[0]; !strings.Contains(ev.Reason, "would be refused if the rules in audit mode were enforced: no caller rule") {
		t.Errorf("recorded as %+v", ev)
	}
}

// BenchmarkPlacements reads a host with 1000 placements and 200 rules.
func BenchmarkPlacements(b *testing.B) {
	w := newWorld(b)
	h := w.owner.enrol("full")
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	err := w.srv.DB.Write(b.Context(), &ev, func(tx arm.Tx) error {
		for i := range 1000 {
			vm := fmt.Sprintf("%s/b%d", vms, i)
			p := arm.Resource{Tenant: tenantA, ID: resource.MustParse(fmt.Sprintf("%s/full/placements/p%d", hosts, i)), Type: fleet.TypePlacement, UID: uuid.NewString(), BoundTo: resource.MustParse(vm)}
			p.Body = map[string]json.RawMessage{"properties": json.RawMessage(`{"door":"run","selectors":["unix:uid:1000"],"resourceId":"` + vm + `"}`)}
			rows := []arm.Resource{p}
			if i%5 == 0 {
				rows = append(rows, ruleRow(vm, "r"))
			}
			for _, r := range rows {
				if err := tx.PutResource(r); err != nil {
					return err
				}
			}
		}
		for i := range 10000 { // rules of what is placed elsewhere
			if err := tx.PutResource(ruleRow(fmt.Sprintf("%s/e%d", vms, i), "r")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	var ps fleetapi.Placements
	for b.Loop() {
		h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	}
	if len(ps.Placements) != 1000 || len(ps.Rules) != 200 {
		b.Fatalf("%d placements and %d rules", len(ps.Placements), len(ps.Rules))
	}
}
