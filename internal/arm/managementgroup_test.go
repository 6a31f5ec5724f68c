package arm_test

import (
	"fmt"
	"strings"
	"testing"
)

const mgs = "/providers/Microsoft.Management/managementGroups"

func below(parent string) string {
	return `{"properties":{"displayName":"Name","details":{"parent":{"id":"` + parent + `"}}}}`
}

func TestManagementGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	r := top.must(200, "PUT", mgs+"/near", `{"properties":{"displayName":"Near"}}`)
	if r.str("properties", "displayName") != "Near" || r.str("properties", "details", "parent", "name") != tenantA || r.str("properties", "tenantId") != tenantA {
		t.Errorf("a new group: %s", r.text)
	}
	top.must(200, "PUT", mgs+"/deep", below(mgs+"/NEAR"))
	if r := top.must(200, "PATCH", mgs+"/deep", `{"displayName":"Deep"}`); r.str("properties", "displayName") != "Deep" || r.str("properties", "details", "parent", "id") != mgs+"/near" {
		t.Errorf("a renamed group: %s", r.text)
	}
	top.must(200, "PUT", mgs+"/deep"+sub, "")
	r = top.must(200, "GET", mgs+"/deep?api-version=2020-05-01&$expand=children", "")
	if !strings.Contains(r.text, `"type":"/subscriptions"`) || !strings.Contains(r.text, sub) {
		t.Errorf("children: %s", r.text)
	}
	if r := top.must(200, "GET", mgs+"/"+tenantA, ""); r.str("name") != tenantA {
		t.Errorf("the root group: %s", r.text)
	}
	if n := len(top.must(200, "GET", mgs, "").values()); n != 3 {
		t.Errorf("%d groups are listed, want 3", n)
	}

	for _, bad := range []struct {
		status                   int
		code, method, path, body string
	}{
		{409, "Conflict", "DELETE", mgs + "/deep", ""},                                            // it has a subscription
		{409, "Conflict", "DELETE", mgs + "/near", ""},                                            // it has a group
		{409, "Conflict", "DELETE", mgs + "/" + tenantA, ""},                                      // the root
		{400, "InvalidRequestContent", "PUT", mgs + "/near", below(mgs + "/deep")},                // a circle
		{400, "InvalidRequestContent", "PUT", mgs + "/near", below(mgs + "/near")},                // below itself
		{400, "InvalidRequestContent", "PUT", mgs + "/near", below(sub)},                          // no group
		{400, "InvalidRequestContent", "PUT", mgs + "/" + tenantA, below(mgs + "/near")},          // the root below another
		{404, "ResourceNotFound", "PUT", mgs + "/near", below(mgs + "/none")},                     //
		{404, "ResourceNotFound", "GET", mgs + "/none", ""},                                       //
		{404, "ResourceNotFound", "PATCH", mgs + "/none", `{"displayName":"x"}`},                  //
		{404, "ResourceNotFound", "PUT", mgs + "/none" + sub, ""},                                 //
		{404, "SubscriptionNotFound", "PUT", mgs + "/near/subscriptions/none", ""},                //
		{404, "ResourceNotFound", "DELETE", mgs + "/near" + sub, ""},                              // it is elsewhere
		{400, "InvalidResourceName", "PUT", mgs + "/a b", `{}`},                                   //
		{400, "InvalidResourceId", "PUT", sub + mgs + "/x", `{}`},                                 // below a subscription
		{400, "InvalidRequestContent", "PUT", mgs + "/near", `{"properties":{"displayName":""}}`}, //
	} {
		top.refused(bad.status, bad.code, bad.method, bad.path, bad.body)
	}
	for i := range 4 {
		parent := mgs + "/deep"
		if i > 0 {
			parent = fmt.Sprint(mgs, "/l", i-1)
		}
		top.must(200, "PUT", fmt.Sprint(mgs, "/l", i), below(parent))
	}
	top.refused(400, "InvalidRequestContent", "PUT", mgs+"/l4", below(mgs+"/l3")) // the seventh level
	top.must(204, "DELETE", mgs+"/deep"+sub, "")
	top.must(200, "DELETE", mgs+"/l3", "")
	top.must(204, "DELETE", mgs+"/l3", "")
}

// TestRightsComeWithTheManagementGroup: at once, and go with the next move.
func TestRightsComeWithTheManagementGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	for _, g := range []string{"/a", "/b"} {
		top.must(200, "PUT", mgs+g, `{}`)
	}
	top.must(200, "PUT", mgs+"/a1", below(mgs+"/a"))
	reader := w.as(tenantA, "reader", roleReader+" "+mgs+"/a")
	seen := func(want bool) {
		t.Helper()
		if n := len(reader.must(200, "GET", "/subscriptions", "").values()); (n > 0) != want {
			t.Errorf("the reader sees %d subscriptions, want any: %v", n, want)
		}
		if want {
			reader.must(200, "GET", g1, "")
		} else {
			reader.refused(403, "AuthorizationFailed", "GET", g1, "")
		}
	}
	seen(false)
	top.must(200, "PUT", mgs+"/a1"+sub, "")
	seen(true)
	top.must(200, "PUT", mgs+"/b"+sub, "")
	seen(false)
	top.must(200, "PUT", mgs+"/b", below(mgs+"/a")) // the group above it moves
	seen(true)
}

// TestWhoMayMoveASubscription: who could otherwise take it where they have
// rights, or away from who has.
func TestWhoMayMoveASubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	top.must(200, "PUT", mgs+"/a", `{}`)
	top.must(200, "PUT", mgs+"/b", `{}`)
	top.must(200, "PUT", mgs+"/a"+sub, "")

	// An owner of the target alone, who would become owner of the subscription.
	w.as(tenantA, "target", roleOwner+" "+mgs+"/b").refused(403, "AuthorizationFailed", "PUT", mgs+"/b"+sub, "")
	// A contributor everywhere, who may not say who has rights.
	w.as(tenantA, "contributor", roleContributor+" /").refused(403, "AuthorizationFailed", "PUT", mgs+"/b"+sub, "")
	// The subscription's owner, who may not take it out of its group, nor into one.
	w.owner.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/b"+sub, "")
	w.owner.refused(403, "LinkedAuthorizationFailed", "DELETE", mgs+"/a"+sub, "")
	// Both ends and the subscription.
	both := w.as(tenantA, "both", roleOwner+" "+mgs+"/a", roleOwner+" "+mgs+"/b")
	both.must(200, "PUT", mgs+"/b"+sub, "")
	both.must(204, "DELETE", mgs+"/b"+sub, "")
	// Out of the root group it is the owner's, into a group that is the owner's too.
	both.refused(403, "AuthorizationFailed", "PUT", mgs+"/a"+sub, "")

	// Groups: a new one needs its parent, one that moves both ends.
	ownsA := w.as(tenantA, "owns-a", roleOwner+" "+mgs+"/a")
	ownsA.refused(403, "AuthorizationFailed", "PUT", mgs+"/new", `{}`)
	ownsA.must(200, "PUT", mgs+"/new", below(mgs+"/a"))
	ownsA.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/new", below(mgs+"/b"))
	ownsA.refused(403, "LinkedAuthorizationFailed", "PUT", mgs+"/a", below(mgs+"/b"))
	nobody := w.as(tenantA, "nobody")
	nobody.refused(403, "AuthorizationFailed", "GET", mgs+"/a", "")
	nobody.refused(403, "AuthorizationFailed", "GET", mgs+"/none", "")
	nobody.refused(403, "AuthorizationFailed", "DELETE", mgs+"/a", "")
	if n := len(nobody.must(200, "GET", mgs, "").values()); n != 0 {
		t.Errorf("who has no role sees %d groups", n)
	}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	top := w.root()
	top.must(200, "PUT", mgs+"/a", `{}`)
	const aliases, other = "/providers/Microsoft.Subscription/aliases", "/subscriptions/61616161-0000-4000-8000-000000000006"
	body := `{"properties":{"displayName":"Second","subscriptionId":"` + strings.TrimPrefix(other, "/subscriptions/") + `","additionalProperties":{"managementGroupId":"` + mgs + `/a"}}}`
	w.owner.refused(403, "AuthorizationFailed", "PUT", aliases+"/second", body)
	for _, bad := range []string{`{}`, `{"properties":{"displayName":"x","subscriptionId":"1"}}`, `{"properties":{"displayName":"x","additionalProperties":{"managementGroupId":"/x"}}}`} {
		top.refused(400, "InvalidRequestContent", "PUT", aliases+"/bad", bad)
	}
	inA := w.as(tenantA, "in-a", roleOwner+" "+mgs+"/a")
	r := inA.must(201, "PUT", aliases+"/second", body)
	if r.str("properties", "subscriptionId") != strings.TrimPrefix(other, "/subscriptions/") {
		t.Errorf("a new subscription: %s", r.text)
	}
	inA.must(200, "PUT", aliases+"/second", body)
	inA.must(200, "GET", aliases+"/second", "")
	w.owner.refused(404, "ResourceNotFound", "GET", aliases+"/second", "")
	top.refused(409, "Conflict", "PUT", aliases+"/third", body)
	inA.must(201, "PUT", other+"/resourceGroups/g", local)
	inA.must(200, "POST", other+"/providers/Microsoft.Subscription/rename", `{"subscriptionName":"Renamed"}`)
	if r := inA.must(200, "GET", other, ""); r.str("displayName") != "Renamed" {
		t.Errorf("a renamed subscription: %s", r.text)
	}
	w.owner.refused(403, "AuthorizationFailed", "POST", other+"/providers/Microsoft.Subscription/rename", `{"subscriptionName":"Mine"}`)
	inA.refused(409, "Conflict", "POST", other+"/providers/Microsoft.Subscription/cancel", "")
	inA.must(200, "DELETE", other+"/resourceGroups/g", "")
	inA.must(200, "POST", other+"/providers/Microsoft.Subscription/cancel", "")
	top.refused(404, "SubscriptionNotFound", "GET", other, "")
	top.refused(404, "ResourceNotFound", "GET", aliases+"/second", "")
	if l := w.owner.must(200, "GET", sub+"/locations", "").values(); len(l) != 1 || l[0]["name"] != "local" {
		t.Errorf("locations: %v", l)
	}
}
