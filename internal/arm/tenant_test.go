package arm_test

import (
	"strings"
	"testing"
)

// TestTenantsSeeNothingOfEachOther: two tenants in one database, with
// subscriptions, groups and resources of the same IDs.
func TestTenantsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.owner, w.addTenant(tenantB)
	kv, site := g1+"/providers/Microsoft.KeyVault/vaults/", g1+"/providers/Microsoft.Web/sites/s1"
	host := g1 + "/providers/Innate.Fleet/hosts/h1"
	api := `{"properties":{"identifierUris":["api://one"]}}`
	b.must(201, "PUT", g1, local)
	ids := map[*caller]map[string]string{}
	for _, c := range []*caller{a, b} {
		ids[c] = map[string]string{}
		for _, p := range []struct{ path, body string }{
			{uais + "/a-1", local}, {vms + "/vm1", block("SystemAssigned, UserAssigned", on(uais+"/a-1"))}, {host, `{}`},
			{host + "/placements/p", `{"properties":{"door":"run","resourceId":"` + vms + `/vm1"}}`},
			{g1 + "/providers/Innate.Directory/applications/one", api}, // an audience is a tenant's own
		} {
			r := c.must(201, "PUT", p.path, p.body)
			ids[c][p.path] = r.str("identity", "principalId") + r.str("properties", "principalId")
		}
	}
	// What one changes the other has not.
	a.must(200, "PATCH", vms+"/vm1", `{"tags":{"of":"a"}}`)
	b.must(200, "DELETE", uais+"/a-1", "")
	if got := b.must(200, "GET", vms+"/vm1", ""); got.body["tags"] != nil || identities(got) != "SystemAssigned" || got.str("identity", "principalId") != ids[b][vms+"/vm1"] {
		t.Errorf("B reads %s", got.text)
	}
	if got := a.must(200, "GET", vms+"/vm1", ""); identities(got) != "SystemAssigned, UserAssigned[a-1]" || got.str("identity", "principalId") != ids[a][vms+"/vm1"] {
		t.Errorf("A reads %s", got.text)
	}
	b.must(200, "PUT", site, local)
	a.refused(404, "ResourceNotFound", "GET", site, "")
	a.refused(404, "ResourceNotFound", "PATCH", site, `{}`)
	a.must(204, "DELETE", site, "")
	b.must(200, "GET", site, "")

	// No right crosses: not by a principal of the other, not by a role that
	// the other assigned to a principal with the same right here.
	a.refused(400, "PrincipalNotFound", "PUT", assignmentID(sub, name1), assignmentBody(roleOwner, b.oid))
	b.refused(404, "ResourceNotFound", "GET", a.assign(roleReader, ids[a][vms+"/vm1"], g1), "")
	stranger := w.as(tenantB, "stranger")
	stranger.refused(403, "AuthorizationFailed", "GET", vms+"/vm1", "")

	// Lists, subscriptions and tenants.
	for _, path := range []string{g1 + "/resources", vms, sub + "/resourceGroups", sub + "/providers/Microsoft.Authorization/roleAssignments", "/subscriptions", "/tenants"} {
		ofA, ofB := a.must(200, "GET", path, "").text, b.must(200, "GET", path, "").text
		for oid := range map[string]bool{a.oid: true, ids[a][vms+"/vm1"]: true, tenantA: true} {
			if strings.Contains(ofB, oid) {
				t.Errorf("GET %s tells B of A's %s", path, oid)
			}
		}
		for oid := range map[string]bool{b.oid: true, ids[b][vms+"/vm1"]: true, tenantB: true} {
			if strings.Contains(ofA, oid) {
				t.Errorf("GET %s tells A of B's %s", path, oid)
			}
		}
	}

	// Vault names are the installation's: one has it, and of the other one
	// learns that it is taken and no more.
	a.must(201, "PUT", kv+"Kv-Shared", local)
	r := b.refused(409, "Conflict", "PUT", kv+"kv-shared", local)
	if strings.Contains(r.text, tenantA) || strings.Contains(r.text, "resourceGroups") {
		t.Errorf("the refusal tells of the other tenant: %s", r.text)
	}
	b.refused(404, "ResourceNotFound", "GET", kv+"kv-shared", "") // nothing is left of it
	b.assign(roleSecrets, b.oid, sub)
	data := *b
	data.token = b.tokenFor("https://vault.azure.net")
	if got := data.do("GET", w.srv.Names.Vault("kv-shared")+"/secrets/db?api-version=7.4", ""); got.status != 401 {
		t.Errorf("B's token at A's vault answers %d %s", got.status, got.text)
	}
	a.must(200, "DELETE", kv+"kv-shared", "")
	b.must(201, "PUT", kv+"kv-shared", local)

	// The record of one is not the other's.
	for _, of := range []struct{ c, not *caller }{{a, b}, {b, a}} {
		for _, ev := range of.c.lines(sub + "/providers/Innate.Audit/events") {
			if ev.Principal == of.not.oid {
				t.Errorf("the record of %s has an event of the other tenant's %s", of.c.tenant, ev.Name)
			}
		}
	}
}

// TestTokensThatAreNone.
func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.addTenant(tenantB)
	good := w.owner.token
	parts := strings.Split(good, ".")
	for what, token := range map[string]string{
		"another tenant's signature": strings.Join([]string{parts[0], parts[1], strings.Split(b.token, ".")[2]}, "."),
		"another tenant's claims":    strings.Join([]string{parts[0], strings.Split(b.token, ".")[1], parts[2]}, "."),
		"no signature":               parts[0] + "." + parts[1] + ".",
		"for the vault":              w.owner.tokenFor("https://vault.azure.net"),
		"for graph":                  w.owner.tokenFor("https://graph.microsoft.com"),
		"garbage":                    "x",
	} {
		c := *w.owner
		c.token = token
		r := c.do("GET", g1, "")
		if r.status != 401 || r.header.Get("WWW-Authenticate") == "" || !strings.HasPrefix(r.str("error", "code"), "InvalidAuthenticationToken") {
			t.Errorf("%s: %d %s", what, r.status, r.text)
		}
	}
	none := *w.owner
	none.token = ""
	none.refused(401, "AuthenticationFailed", "GET", g1, "")
	none.must(200, "GET", "/metadata/endpoints", "")
	for _, audience := range []string{"https://management.azure.com/", "https://management.core.windows.net//", w.srv.Names.Management() + "/"} {
		c := *w.owner
		c.token = w.owner.tokenFor(audience)
		c.must(200, "GET", g1, "")
	}
	w.advance(2 * 60 * 60 * 1e9)
	w.owner.refused(401, "ExpiredAuthenticationToken", "GET", g1, "")
}
