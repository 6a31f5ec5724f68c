package fleet_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// explain asks about a caller.
func (c caller) explain(on string, q fleet.ExplainRequest) fleet.Explanation {
	c.w.t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		c.w.t.Fatal(err)
	}
	answer, err := json.Marshal(c.must(200, "POST", on+"/explainCaller", string(b)))
	if err != nil {
		c.w.t.Fatal(err)
	}
	var out fleet.Explanation
	if err := json.Unmarshal(answer, &out); err != nil {
		c.w.t.Fatal(err)
	}
	return out
}

// TestARecordedEventIsExplained: the words of the event are all that is needed.
func TestARecordedEventIsExplained(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/vm1"
	w.owner.must(201, "PUT", hosts+"/h2", `{}`)
	w.owner.must(201, "PUT", hosts+"/h2/placements/p2", `{"properties":{"door":"imds","resourceId":"`+vm+`"}}`)
	w.owner.rule(vm, "a", `{"selectors":["unix:uid:0"]}`)
	w.owner.rule(vm, "b", `{"selectors":["systemd:id:shop.service"],"audiences":["https://vault.azure.net"]}`)
	w.owner.rule(vm, "c", `{"selectors":["unix:uid:5"],"mode":"audit"}`)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, askAs(shop, "p1", vm))
	ev := w.last(tenantA, 1)[0]
	if ev.Via == "" || ev.Audience != api || ev.Target != vm {
		t.Fatalf("on record as %+v", ev)
	}
	got := w.owner.explain(ev.Target, fleet.ExplainRequest{Via: ev.Via, Audience: ev.Audience})
	if got.Note == "" {
		t.Error("nothing says what the words leave out")
	}
	got.Note = ""
	want := fleet.Explanation{
		Caller: "door:run systemd:id:shop.service unix:uid:1000 grade:kernel",
		Placements: []fleet.ExplainedPlacement{
			{ID: hosts + "/h1/placements/p1", Door: "run", Matches: true},
			{ID: hosts + "/h2/placements/p2", Door: "imds", Why: "the caller came through the door run"},
		},
		Verdict: fleet.ExplainedVerdict{Reason: "no caller rule of the resource allows it", Misses: []fleet.ExplainedMiss{
			{Rule: "a", Why: "the caller is not unix:uid:0"}, {Rule: "b", Why: "it is not for this audience"}, {Rule: "c", Why: "the caller is not unix:uid:5"},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("explained as (-want +got)\n%s", diff)
	}
	got = w.owner.explain(vm, fleet.ExplainRequest{Evidence: &shop, Audience: "https://vault.azure.net/", Identity: vm})
	if !got.Verdict.Allowed || got.Verdict.Rule != "b" || got.Note != "" {
		t.Errorf("what is allowed is explained as %+v", got)
	}
	if ev := w.actions(tenantA); ev["Innate.Fleet/callerRules/read"] < 2 {
		t.Errorf("no explanation is on record: %v", ev)
	}
}

// actions counts what is on record in all of a tenant's chains.
func (w *world) actions(tenant string) map[string]int {
	w.t.Helper()
	bs, err := w.srv.DB.Batches(w.t.Context(), tenant, nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]int{}
	for _, b := range bs {
		evs, err := b.Events()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, ev := range evs {
			out[ev.Action]++
		}
	}
	return out
}

// TestExplainingReadsNoMoreThanReading: rules and placements are told to those
// alone who may read them.
func TestExplainingReadsNoMoreThanReading(t *testing.T) {
	t.Parallel()
	w, _ := ruled(t)
	vm := vms + "/vm1"
	w.owner.rule(vm, "secret", `{"selectors":["unix:uid:0"]}`)
	const reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	body := `{"via":"door:run grade:none"}`
	w.as(tenantA, unique("nobody")).refused(403, "AuthorizationFailed", "POST", vm+"/explainCaller", body)
	b := w.addTenant(tenantB)
	b.must(404, "POST", vm+"/explainCaller", body)
	of := w.as(tenantA, unique("reader"), reader+" "+vm)
	got := of.explain(vm, fleet.ExplainRequest{Via: "door:run grade:none"})
	if len(got.Placements) != 0 || got.Hidden != 1 || len(got.Verdict.Misses) != 1 {
		t.Errorf("one who may read the resource is told %+v", got)
	}
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `{"via":"x"}`, `{"via":"door:run grade:none","evidence":{"door":"run","grade":"none"}}`, `{"via":"door:run grade:none","audiance":"x"}`,
		`{"evidence":{"door":"run","grade":"best"}}`, `{"evidence":{"door":"run","grade":"none","selectors":["uid:1"]}}`, `{"via":"door:run grade:none","identity":"x"}`,
	} {
		of.must(400, "POST", vm+"/explainCaller", body)
	}
	for _, on := range []string{hosts + "/h1", hosts + "/h1/placements/p1", vm + rules + "secret"} {
		w.owner.must(400, "POST", on+"/explainCaller", body)
	}
	for _, on := range []string{ops, sub} {
		w.owner.must(404, "POST", on+"/explainCaller", body)
	}
	w.owner.must(404, "POST", vms+"/none/explainCaller", body)
}
