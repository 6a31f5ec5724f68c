package arm_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
)

// orphans reads the whole report, as "kind name".
func (c *caller) orphans(scope, query string) (out []string, pages int) {
	c.w.t.Helper()
	for next := c.w.url(strings.TrimSuffix(scope, "/")+"/providers/Innate.Directory/orphans") + query; next != ""; pages++ {
		r := c.must(200, "GET", next, "")
		for _, v := range r.values() {
			id, _ := v["id"].(string)
			out = append(out, fmt.Sprint(v["kind"], " ", id[strings.LastIndexByte(id, '/')+1:]))
		}
		next = r.str("nextLink")
	}
	slices.Sort(out)
	return out, pages
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	used := w.owner.must(201, "PUT", uais+"/used", local)
	w.owner.assign(roleReader, used.str("properties", "principalId"), g1)
	off := w.owner.must(201, "PUT", uais+"/disabled", local)
	w.owner.assign(roleReader, off.str("properties", "principalId"), g1)
	w.owner.must(201, "PUT", uais+"/idle", local)
	w.owner.must(201, "PUT", vms+"/vm", block("SystemAssigned, UserAssigned", on(uais+"/used"), on(uais+"/disabled")))
	rule := vms + "/vm/providers/Innate.Fleet/callerRules/"
	w.owner.must(201, "PUT", rule+"good", `{"properties":{"selectors":["unix:uid:0"],"identity":"`+uais+`/used"}}`)
	w.owner.must(200, "PUT", vms+"/vm", block("SystemAssigned, UserAssigned", on(uais+"/used"), on(uais+"/disabled"), on(uais+"/idle")))
	w.owner.must(201, "PUT", rule+"useless", `{"properties":{"selectors":["unix:uid:0"],"identity":"`+uais+`/idle"}}`)
	w.owner.must(200, "PATCH", vms+"/vm", block("", null(uais+"/idle")))
	p, err := w.srv.DB.Principal(t.Context(), tenantA, off.str("properties", "principalId"))
	if err != nil {
		t.Fatal(err)
	}
	ev := audit.Event{Tenant: tenantA, At: w.clock(), Action: "test", Target: "/", Outcome: audit.Allowed, Principal: "test"}
	p.Enabled = false
	if err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error { return tx.PutPrincipal(p) }); err != nil {
		t.Fatal(err)
	}
	got, _ := w.owner.orphans(g1, "")
	want := []string{"disabledPrincipalWithRole disabled", "identityWithoutRole idle", "identityWithoutRole vm", "unattachedIdentity idle", "unusableRow useless"}
	if !slices.Equal(got, want) {
		t.Errorf("orphans: %q, want %q", got, want)
	}
	if got, _ := w.owner.orphans(g1, "&$filter="+url.QueryEscape("kind eq 'unattachedIdentity'")); !slices.Equal(got, want[3:4]) {
		t.Errorf("orphans of a kind: %q", got)
	}
	w.owner.must(201, "PUT", g2, local)
	if got, _ := w.owner.orphans(g2, ""); len(got) > 0 {
		t.Errorf("orphans of another group: %q", got)
	}
	// Programs elsewhere may be an identity that no resource has.
	w.owner.must(201, "PUT", g2+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/elsewhere", local)
	if got, _ := w.owner.orphans(g2, ""); !slices.Equal(got, []string{"identityWithoutRole elsewhere", "unattachedIdentity elsewhere"}) {
		t.Errorf("orphans before a federated credential: %q", got)
	}
	credential := g2 + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/elsewhere" + fics + "/pipeline"
	w.owner.must(201, "PUT", credential, fic("https://i.example", "s"))
	if got, _ := w.owner.orphans(g2, ""); !slices.Equal(got, []string{"identityWithoutRole elsewhere"}) {
		t.Errorf("orphans with a federated credential: %q", got)
	}
	w.owner.must(200, "DELETE", credential, "")
	if got, _ := w.owner.orphans(g2, ""); len(got) != 2 {
		t.Errorf("orphans after it was taken away: %q", got)
	}
	w.as(tenantA, "nobody").refused(403, "AuthorizationFailed", "GET", g1+"/providers/Innate.Directory/orphans", "")
	w.as(tenantA, "reader", roleReader+" "+g1).orphans(g1, "")
	w.owner.refused(400, "InvalidFilterInQueryString", "GET", w.url(g1+"/providers/Innate.Directory/orphans")+"&$filter=x", "")
	w.owner.refused(400, "InvalidFilterInQueryString", "GET", w.url(g1+"/providers/Innate.Directory/orphans")+"&$filter=kind%20eq%20%27x%27", "")
	w.owner.refused(400, "InvalidRequestContent", "GET", w.url(g1+"/providers/Innate.Directory/orphans")+"&$skiptoken=bm9uZSB4", "")
	w.owner.refused(405, "MethodNotAllowed", "POST", g1+"/providers/Innate.Directory/orphans", "{}")
}
