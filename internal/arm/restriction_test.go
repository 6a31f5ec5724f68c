package arm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// restricted is an identity's document with restrictions.
func restricted(providers ...string) string {
	return `{"location":"west","properties":{"assignmentRestrictions":{"providers":["` + strings.Join(providers, `","`) + `"]}}}`
}

// at is a block in another location.
func at(location, body string) string {
	return strings.Replace(body, `"location":"local"`, `"location":"`+location+`"`, 1)
}

func TestAssignmentRestrictions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	site, slot := g1+"/providers/Microsoft.Web/sites/s1", g1+"/providers/Microsoft.Web/sites/s1/slots/x"
	vm, set := vms+"/vm1", sets+"/set1"
	w.owner.must(201, "PUT", ua, local)
	for _, id := range []string{site, slot, vm, set} {
		w.owner.must(madeStatus(id), "PUT", id, local)
	}
	for _, tt := range []struct {
		providers []string
		may       []string
	}{
		{[]string{"Microsoft.Compute"}, []string{vm, set}},
		{[]string{"microsoft.COMPUTE/virtualmachines"}, []string{vm}},
		{[]string{"Microsoft.Web/sites"}, []string{site}}, // and not its slots, which are another type
		{[]string{"Microsoft.Web/sites/slots", "Microsoft.Compute/virtualMachineScaleSets"}, []string{slot, set}},
		{[]string{"Microsoft.Comput"}, nil}, // a prefix of text is not a provider
		{[]string{"Contoso.Robots"}, nil},
	} {
		w.owner.must(200, "PATCH", ua, `{"properties":{"assignmentRestrictions":`+member(t, restricted(tt.providers...), "properties", "assignmentRestrictions")+`}}`)
		for _, id := range []string{site, slot, vm, set} {
			may := strings.Contains(" "+strings.Join(tt.may, " ")+" ", " "+id+" ")
			for _, m := range []string{"PATCH", "PUT"} {
				if !may {
					w.owner.refused(400, "FailedIdentityOperation", m, id, block("UserAssigned", on(ua)))
					continue
				}
				w.owner.must(200, m, id, block("UserAssigned", on(ua)))
				w.owner.must(200, "PATCH", id, block("None"))
			}
			if got := identities(w.owner.must(200, "GET", id, "")); got != "" {
				t.Errorf("with %v %s has %s", tt.providers, id, got)
			}
		}
	}
	// What a restriction forbids is not made new, either.
	w.owner.refused(400, "FailedIdentityOperation", "PUT", vms+"/vm2", block("UserAssigned", on(ua)))
	w.owner.refused(404, "ResourceNotFound", "GET", vms+"/vm2", "")
}

// TestRestrictionsHoldOfWhatIsAttached: one that is broken already is refused,
// with the list, and changes nothing.
func TestRestrictionsHoldOfWhatIsAttached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, at("west", local))
	for i := range 12 {
		w.owner.must(201, "PUT", fmt.Sprintf("%s/vm%d", vms, i), at("east", block("UserAssigned", on(ua))))
	}
	site := g1 + "/providers/Microsoft.Web/sites/s1"
	w.owner.must(200, "PUT", site, at("west", block("UserAssigned", on(ua))))
	before := w.owner.must(200, "GET", ua, "").text
	r := w.owner.refused(409, "Conflict", "PATCH", ua, restricted("Microsoft.Web"))
	if m := r.str("error", "message"); !strings.Contains(m, "/vm0, ") || !strings.Contains(m, " and 2 more") || strings.Contains(m, "sites/s1") {
		t.Errorf("the refusal says %q", m)
	}
	if m := w.owner.refused(409, "Conflict", "PUT", ua, restricted("Microsoft.Compute")).str("error", "message"); !strings.Contains(m, "sites/s1.") {
		t.Errorf("the refusal says %q", m)
	}
	w.owner.refused(409, "Conflict", "PATCH", ua, `{"properties":{"isolationScope":"Regional"}}`)
	if after := w.owner.must(200, "GET", ua, "").text; after != before {
		t.Errorf("a refused restriction left %s, before it was %s", after, before)
	}
	w.owner.must(200, "PATCH", ua, restricted("Microsoft.Web", "Microsoft.Compute"))
	w.owner.must(200, "PATCH", ua, `{"tags":{"a":"b"}}`)
	w.owner.must(200, "DELETE", site, "")
	w.owner.must(200, "PATCH", ua, restricted("Microsoft.Compute"))
}

// TestRestrictionsStay: a client that knows nothing of them does not lift them,
// one that does can.
func TestRestrictionsStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua, vm := uais+"/a-1", vms+"/vm1"
	w.owner.must(201, "PUT", vm, local)
	w.owner.must(201, "PUT", ua, strings.Replace(restricted("Microsoft.Web"), `"properties":{`, `"properties":{"isolationScope":"Regional",`, 1))
	for _, body := range []string{at("west", local), `{"location":"west","properties":{}}`, `{"location":"west","properties":null}`, `{"tags":{}}`} {
		r := w.owner.must(200, "PUT", ua, body)
		if r.str("properties", "isolationScope") != "Regional" || !strings.Contains(r.text, `"providers":["Microsoft.Web"]`) {
			t.Errorf("after PUT %s the identity is %s", body, r.text)
		}
		w.owner.refused(400, "FailedIdentityOperation", "PATCH", vm, block("UserAssigned", on(ua)))
	}
	w.owner.must(200, "PATCH", ua, `{"properties":{"assignmentRestrictions":null,"isolationScope":"None"}}`)
	w.owner.must(200, "PATCH", vm, block("UserAssigned", on(ua)))
	w.owner.must(200, "PATCH", vm, block("None"))
	w.owner.must(200, "PATCH", ua, restricted("Microsoft.Web"))
	w.owner.must(200, "PUT", ua, `{"location":"west","properties":{"assignmentRestrictions":null}}`)
	w.owner.must(200, "PATCH", vm, block("UserAssigned", on(ua)))
}

func TestIsolationScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, `{"location":"West Europe","properties":{"isolationScope":"regional"}}`)
	w.owner.must(201, "PUT", vms+"/near", at("westeurope", block("UserAssigned", on(ua)))) // one place, in another spelling
	w.owner.refused(400, "FailedIdentityOperation", "PUT", vms+"/far", at("westeurope2", block("UserAssigned", on(ua))))
	w.owner.must(200, "PATCH", ua, `{"properties":{"isolationScope":"None"}}`)
	w.owner.must(201, "PUT", vms+"/far", at("westeurope2", block("UserAssigned", on(ua))))
	m := w.owner.refused(409, "Conflict", "PATCH", ua, `{"properties":{"isolationScope":"Regional"}}`).str("error", "message")
	if !strings.Contains(m, "/far.") || strings.Contains(m, "/near") {
		t.Errorf("the refusal says %q", m)
	}
}

func TestRestrictionsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ua := uais + "/a-1"
	many := strings.Repeat(`"A.B",`, 64) + `"A.B"`
	for _, props := range []string{
		`"isolationScope":"Everywhere"`, `"isolationScope":1`, `"isolationScope":""`, `"isolationScope":{}`,
		`"assignmentRestrictions":[]`, `"assignmentRestrictions":"Microsoft.Compute"`,
		`"assignmentRestrictions":{"provider":["Microsoft.Compute"]}`, // misspelt, it would forbid nothing
		`"assignmentRestrictions":{"providers":"Microsoft.Compute"}`, `"assignmentRestrictions":{"providers":[1]}`,
		`"assignmentRestrictions":{"providers":["compute"]}`, `"assignmentRestrictions":{"providers":["Microsoft.Compute/*"]}`,
		`"assignmentRestrictions":{"providers":[""]}`, `"assignmentRestrictions":{"providers":["Microsoft.Compute/"]}`,
		`"assignmentRestrictions":{"providers":[` + many + `]}`,
	} {
		w.owner.refused(400, "InvalidRequestContent", "PUT", ua, `{"location":"local","properties":{`+props+`}}`)
		w.owner.refused(404, "ResourceNotFound", "GET", ua, "")
	}
}

// TestRestrictionsAreNoOracle: who may not assign the identity is not told how
// it is restricted, nor that it is there.
func TestRestrictionsAreNoOracle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g2 := sub + "/resourceGroups/g2"
	ua := g2 + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	w.owner.must(201, "PUT", g2, local)
	w.owner.must(201, "PUT", ua+"a-1", restricted("Microsoft.Web"))
	mallory := w.as(tenantA, "mallory", roleOwner+" "+g1)
	there := mallory.refused(403, "LinkedAuthorizationFailed", "PUT", vms+"/vm1", block("UserAssigned", on(ua+"a-1"))).str("error", "message")
	not := mallory.refused(403, "LinkedAuthorizationFailed", "PUT", vms+"/vm1", block("UserAssigned", on(ua+"b-1"))).str("error", "message")
	if strings.ReplaceAll(there, "/a-1", "/b-1") != not {
		t.Errorf("she is told %q and %q", there, not)
	}
	// With the right to assign and none to write the identity, she cannot lift it.
	operator := w.as(tenantA, "operator", roleOperator+" "+g2, roleContributor+" "+g1)
	operator.refused(400, "FailedIdentityOperation", "PUT", vms+"/vm1", block("UserAssigned", on(ua+"a-1")))
	operator.refused(403, "AuthorizationFailed", "PATCH", ua+"a-1", `{"properties":{"assignmentRestrictions":null}}`)
}

// TestRestrictionsAndAttachmentsRace: whichever comes first, no identity is in
// the end attached where it may not be.
func TestRestrictionsAndAttachmentsRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for round := range 6 {
		ua := fmt.Sprintf("%s/race-%d", uais, round)
		w.owner.must(201, "PUT", ua, at("west", local))
		machines := []string{fmt.Sprintf("%s/r%da", vms, round), fmt.Sprintf("%s/r%db", vms, round), fmt.Sprintf("%s/r%dc", vms, round)}
		var all sync.WaitGroup
		send := func(method, id, body string) {
			all.Go(func() {
				r, err := w.owner.send(method, id, body)
				if err != nil || r.status >= 500 {
					t.Errorf("%s %s = %d %s, %v", method, id, r.status, r.text, err)
				}
			})
		}
		for i, id := range machines {
			send("PUT", id, at([]string{"west", "east", "west"}[i], block("UserAssigned", on(ua))))
		}
		send("PATCH", ua, restricted("Microsoft.Web"))
		send("PATCH", ua, `{"properties":{"isolationScope":"Regional"}}`)
		all.Wait()
		doc := w.owner.must(200, "GET", ua, "").text
		list := w.owner.must(200, "POST", ua+"/listAssociatedResources", "").values()
		if strings.Contains(doc, "Microsoft.Web") && len(list) > 0 {
			t.Errorf("restricted to apps, and attached to %v", list)
		}
		for _, l := range list {
			if strings.Contains(doc, "Regional") && strings.HasSuffix(l["id"].(string), "b") {
				t.Errorf("for the west alone, and attached to %v", l)
			}
		}
	}
}
