package fleet_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/resource"
)

func TestPlacementsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.must(201, "PUT", vms+"/vm2", machine)
	w.owner.must(201, "PUT", hosts+"/h1", `{}`)
	id := hosts + "/h1/placements/p1"
	props := func(s string) string { return `{"properties":{` + s + `}}` }
	good := `"door":"run","resourceId":"` + vms + `/vm1"`
	for _, tt := range []struct{ body, says string }{
		{`{}`, "properties.door"},
		{`{"properties":null}`, "properties.door"},
		{props(`"door":7`), "'door' and 'resourceId'"},
		{props(`"resourceId":"` + vms + `/vm1"`), "properties.door"},
		{props(`"door":"a/b","resourceId":"` + vms + `/vm1"`), "properties.door"},
		{props(`"door":"` + strings.Repeat("x", 100) + `","resourceId":"` + vms + `/vm1"`), "properties.door"},
		{props(`"door":"run"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"vm1"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"/"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"` + sub + `"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"` + ops + `"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"` + hosts + `/h1"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"` + id + `"`), "properties.resourceId"},
		{props(`"door":"run","resourceId":"` + vms + `/none"`), "does not exist"},
		{props(`"door":"run","resourceId":"` + vms + `/../vm1"`), "properties.resourceId"},
		{props(good + `,"selectors":"unix:uid:0"`), "'selectors'"},
		{props(good + `,"selectors":["uid:0"]`), "begins with none of"},
		{props(good + `,"selectors":[""]`), "begins with none of"},
		{props(good + `,"selectors":["unix:uid:"]`), "a user id"},
		{props(good + `,"selectors":["unix:path:` + strings.Repeat("x", 600) + `"]`), "512 bytes"},
		{props(good + `,"selectors":["unix:path:\u0000"]`), "control character"},
		{props(good + `,"selectors":[` + strings.Repeat(`"unix:uid:0",`, 1000) + `"unix:uid:0"]`), "at most"},
		{props(good + `,"ResourceID":"` + vms + `/vm2"`), "one member"},
	} {
		e, _ := w.owner.must(400, "PUT", id, tt.body)["error"].(map[string]any)
		if s, _ := e["message"].(string); e["code"] != "InvalidRequestContent" || !strings.Contains(s, tt.says) {
			t.Errorf("PUT %.200s: %v, want a message with %q", tt.body, e, tt.says)
		}
	}
	w.owner.refused(404, "ResourceNotFound", "GET", id, "")
	for name, code := range map[string]string{"p.": "InvalidResourceId", "-p": "InvalidResourceName", strings.Repeat("p", 65): "InvalidResourceName"} {
		w.owner.refused(400, code, "PUT", hosts+"/h1/placements/"+name, props(good))
	}
	w.owner.must(201, "PUT", id, props(good))
	for _, m := range []string{"PUT", "PATCH"} {
		w.owner.refused(400, "PropertyChangeNotAllowed", m, id, props(`"door":"run","resourceId":"`+vms+`/vm2"`))
	}
}

// TestPlacingNeedsTheRightToTheResource: who may write a host gives its
// programs only what she may write herself.
func TestPlacingNeedsTheRightToTheResource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/hers", machine)
	w.owner.must(201, "PUT", vms+"/strong", machine)
	h := w.owner.enrol("h1")
	w.owner.must(201, "PUT", hosts+"/h1/placements/strong", `{"properties":{"door":"run","selectors":["unix:uid:0"],"resourceId":"`+vms+`/strong"}}`)
	mallory := w.as(tenantA, "mallory", roleContributor+" "+hosts+"/h1", roleOwner+" "+vms+"/hers")
	id := hosts + "/h1/placements/"
	place := func(what string) string { return `{"properties":{"door":"run","resourceId":"` + what + `"}}` }
	mallory.must(201, "PUT", id+"hers", place(vms+"/hers"))
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", id+"more", place(vms+"/strong"))
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", id+"more", place(vms+"/none")) // in the same words
	// To widen a placement is to give the identity to more programs: also by a
	// PATCH that says nothing of the resource, or names another in its place.
	for _, body := range []string{
		`{"properties":{"selectors":null}}`,
		`{"properties":{"selectors":["unix:uid:1000"]}}`,
		`{"properties":{"door":"other"}}`,
		`{"properties":{"resourceId":"` + vms + `/strong","selectors":null}}`,
		`{}`,
	} {
		mallory.refused(403, "LinkedAuthorizationFailed", "PATCH", id+"strong", body)
	}
	for member, code := range map[string]string{
		"ResourceId": "PropertyChangeNotAllowed", "resourceid": "PropertyChangeNotAllowed", "reſourceId": "InvalidRequestContent",
	} {
		mallory.refused(400, code, "PATCH", id+"strong", `{"properties":{"door":"run","`+member+`":"`+vms+`/hers","selectors":null}}`)
	}
	mallory.refused(403, "LinkedAuthorizationFailed", "PUT", id+"strong", place(vms+"/strong"))
	mallory.refused(400, "PropertyChangeNotAllowed", "PUT", id+"strong", place(vms+"/hers"))
	var ps fleetapi.Placements
	h.must(200, "GET", fleetapi.PathPlacements, nil, &ps)
	for _, p := range ps.Placements {
		if p.Name == "strong" && (len(p.Selectors) != 1 || p.Door != "run" || p.Resource != vms+"/strong") {
			t.Errorf("the placement is now %+v", p)
		}
	}
	mallory.must(200, "PATCH", id+"hers", `{"properties":{"selectors":["unix:uid:1000"]}}`)
	mallory.must(200, "DELETE", id+"strong", "") // which gives nobody anything
}

// TestAHostHoldsSoMany: nobody who may place things on a shared host can make
// its list too long to be read.
func TestAHostHoldsSoMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/vm1", machine)
	w.owner.must(201, "PUT", hosts+"/full", `{}`)
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		for i := range 999 {
			id := resource.MustParse(fmt.Sprintf("%s/full/placements/p%d", hosts, i))
			body := map[string]json.RawMessage{"properties": json.RawMessage(`{"door":"run","resourceId":"` + vms + `/vm1"}`)}
			if err := tx.PutResource(arm.Resource{Tenant: tenantA, ID: id, Type: fleet.TypePlacement, UID: uuid.NewString(), Body: body}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.owner.place("full", "last", vms+"/vm1")
	w.owner.refused(409, "Conflict", "PUT", hosts+"/full/placements/onemore", `{"properties":{"door":"run","resourceId":"`+vms+`/vm1"}}`)
	w.owner.must(200, "PUT", hosts+"/full/placements/last", `{"properties":{"door":"other","resourceId":"`+vms+`/vm1"}}`)
}
