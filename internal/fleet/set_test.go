package fleet_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	set      = ops + "/providers/Microsoft.Compute/virtualMachineScaleSets/set1"
	instance = set + "/virtualMachines/0"
)

// setPlaced is a world with an instance of a scale set placed on h1.
func setPlaced(t *testing.T) (*world, *agent) {
	t.Helper()
	w := newWorld(t)
	h := w.owner.enrol("h1")
	w.owner.must(201, "PUT", shared, `{"location":"local"}`)
	w.owner.must(201, "PUT", set, `{"location":"local","identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"`+shared+`":{}}}}`)
	w.owner.must(200, "PUT", instance, `{"location":"local"}`)
	w.owner.place("h1", "p1", instance)
	return w, h
}

// TestAnInstanceHasItsSetsIdentities: by whichever it asks, and until the set
// has it no more.
func TestAnInstanceHasItsSetsIdentities(t *testing.T) {
	t.Parallel()
	w, h := setPlaced(t)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, ask("p1", set)) // the instance is placed, and not the set
	var own, user fleetapi.TokenResponse
	h.must(200, "POST", fleetapi.PathToken, ask("p1", instance), &own)
	named := ask("p1", instance)
	named.ResourceID = shared
	h.must(200, "POST", fleetapi.PathToken, named, &user)
	if own.Identity != set || user.Identity != shared {
		t.Errorf("the identities are %s and %s", own.Identity, user.Identity)
	}
	reads := func(tok fleetapi.TokenResponse) caller { return caller{w: w, tenant: tenantA, token: tok.AccessToken} }
	w.owner.must(201, "PUT", ops+"/providers/Microsoft.Authorization/roleAssignments/"+strings.Repeat("1", 8)+"-0000-4000-8000-000000000001",
		`{"properties":{"roleDefinitionId":"`+sub+`/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7","principalId":"`+own.Principal+`","principalType":"ServicePrincipal"}}`)
	reads(own).must(200, "GET", set, "")
	reads(user).refused(403, "AuthorizationFailed", "GET", set, "")
	// The instance's document says of which set it is.
	status, b := h.do("POST", fleetapi.PathInstance, fleetapi.InstanceRequest{Workload: instance, Placement: "p1"})
	var doc fleetapi.Instance
	if err := json.Unmarshal(b, &doc); err != nil || status != 200 || doc.Name != "0" || !strings.Contains(string(doc.Properties), `"virtualMachineScaleSet":{"id":"`+set+`"}`) {
		t.Errorf("the instance is %d %s", status, b)
	}
	// Detached from the set, the token of the one is over, and of both with None.
	w.owner.must(200, "PATCH", set, `{"identity":{"userAssignedIdentities":{"`+shared+`":null}}}`)
	reads(user).refused(401, "InvalidAuthenticationToken", "GET", set, "")
	h.refused(problem.IdentityNotFound, "POST", fleetapi.PathToken, named)
	reads(own).must(200, "GET", set, "")
	// So it is with the instance gone, and its place.
	w.owner.must(200, "DELETE", instance, "")
	reads(own).refused(401, "InvalidAuthenticationToken", "GET", set, "")
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, ask("p1", instance))
}

// TestPlacingAnInstanceNeedsItsSet: an instance is the whole set in all that its
// identities may do, so to write one machine of it is not enough.
func TestPlacingAnInstanceNeedsItsSet(t *testing.T) {
	t.Parallel()
	w, _ := setPlaced(t)
	mallory := w.as(tenantA, "mallory", roleContributor+" "+instance, roleContributor+" "+hosts+"/h1")
	mallory.must(200, "PATCH", instance, `{"tags":{"is":"hers"}}`)
	body := `{"properties":{"door":"run","resourceId":"` + instance + `"}}`
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", hosts+"/h1/placements/mine", body)
	mallory.refused(403, "LinkedAuthorizationFailed", "POST", hosts+"/h1/createEnrolmentToken", "")
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", instance+rules+"open", `{"properties":{"selectors":["unix:uid:1"]}}`)
	w.as(tenantA, "owner", roleContributor+" "+set, roleContributor+" "+hosts+"/h1").must(201, "PUT", hosts+"/h1/placements/mine", body)
}

// TestRulesOfASetAreItsInstances: who narrows down whose a set's identities are
// has done so for all its machines, here and at the agent.
func TestRulesOfASetAreItsInstances(t *testing.T) {
	t.Parallel()
	w, h := setPlaced(t)
	other := fleetapi.Evidence{Door: "run", Selectors: []string{"unix:uid:33"}, Grade: "kernel"}
	s := h.changes(w.revision(tenantA))
	s.caughtUp()
	w.owner.rule(set, "shop", `{"selectors":["systemd:id:shop.service"],"identity":"`+set+`"}`)
	if m := s.to(w.revision(tenantA)); !m.Placements || !slices.Contains(m.Resources, strings.ToLower(instance)) {
		t.Errorf("of the set's rule the host hears %+v", m)
	}
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, askAs(other, "p1", instance))
	for _, id := range []string{"", set} { // an agent says what the rule gave it
		req := askAs(shop, "p1", instance)
		req.ResourceID = id
		var got fleetapi.TokenResponse
		h.must(200, "POST", fleetapi.PathToken, req, &got)
		if got.Identity != set {
			t.Errorf("asked for %q the identity is %s", id, got.Identity)
		}
	}
	named := askAs(shop, "p1", instance)
	named.ResourceID = shared // which no rule gives
	h.refused(problem.CallerRefused, "POST", fleetapi.PathToken, named)
	var ps fleetapi.Placements
	h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	if len(ps.Rules) != 1 || ps.Rules[0].Resource != instance || ps.Rules[0].Name != "shop" || ps.Rules[0].Identity != set {
		t.Errorf("the host has the rules %+v", ps.Rules)
	}
	// One of the instance's own adds to them.
	w.owner.rule(instance, "more", `{"selectors":["unix:uid:33"],"identity":"`+shared+`"}`)
	var got fleetapi.TokenResponse
	h.must(200, "POST", fleetapi.PathToken, askAs(other, "p1", instance), &got)
	if got.Identity != shared {
		t.Errorf("the instance's rule gives %s", got.Identity)
	}
	// What is detached from the set, the host is told of.
	w.owner.must(200, "PATCH", set, `{"identity":{"userAssignedIdentities":{"`+shared+`":null}}}`)
	if m := s.to(w.revision(tenantA)); !slices.Contains(m.Resources, strings.ToLower(instance)) {
		t.Errorf("of what was detached the host hears %+v", m)
	}
}
