package arm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

// TestConditionsOfSecretReads: a role at a vault that counts for what its
// condition says, by each source of attributes.
func TestConditionsOfSecretReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := g1 + "/providers/Microsoft.KeyVault/vaults/kv1"
	w.owner.must(201, "PUT", id, `{"location":"local","tags":{"stage":"prod"}}`)
	writer := w.as(tenantA, "writer", roleSecrets+" "+id).forVaults()
	secrets := w.srv.Names.Vault("kv1") + "/secrets/"
	for _, name := range []string{"shop-db", "other"} {
		writer.must(200, "PUT", secrets+name+"?api-version=7.4", `{"value":"hunter2"}`)
	}
	machine := vms + "/vm1"
	tagged := func(team string) string {
		return fmt.Sprintf(`{"location":"local","identity":{"type":"SystemAssigned"},"tags":{"team":%q}}`, team)
	}
	w.owner.must(201, "PUT", machine, tagged("shop"))
	app := w.caller(tenantA, resource.MustParse(machine)).forVaults()
	for _, tt := range []struct {
		condition string
		db, other int
	}{
		{"@Resource[Microsoft.KeyVault/vaults/secrets:name] StringLike 'shop-*'", 200, 403},
		{"@Resource[Microsoft.KeyVault/vaults:name] StringEquals 'kv1'", 200, 200},
		{"@Resource[Microsoft.Resources/tags:stage] StringEquals 'test'", 403, 403},
		{"@Principal[Innate.Directory/principals/tags:team] StringEquals 'shop'", 200, 200},
		{"@Principal[Microsoft.Directory/CustomSecurityAttributes/Id:team] StringEquals 'db'", 403, 403},
		{"@Principal[Innate.Directory/principals:resourceType] StringEqualsIgnoreCase 'Microsoft.Compute/virtualMachines'", 200, 200},
		{"@Principal[Innate.Directory/principals/tags:none] StringNotEquals 'x'", 403, 403}, // a tag that is not there
		{"@Environment[UtcNow] DateTimeLessThan '" + start.Add(time.Hour).Format(time.RFC3339) + "'", 200, 200},
		{"@Caller[Innate.Fleet/callers:selectors] ForAnyOfAnyValues:StringEquals {'systemd:id:shop.service'}", 403, 403}, // nobody says who
	} {
		body := withCondition(assignmentBody(roleSecrets, app.oid), tt.condition)
		if r := w.owner.do("PUT", assignmentID(id, name1), body); r.status != 200 && r.status != 201 {
			t.Fatalf("assigning with %s: %s", tt.condition, r.text)
		}
		for name, want := range map[string]int{"shop-db": tt.db, "other": tt.other} {
			if r := app.do("GET", secrets+name+"?api-version=7.4", ""); r.status != want {
				t.Errorf("with %s reading %s answers %d, want %d", tt.condition, name, r.status, want)
			}
		}
	}
	// What a condition asks is read anew each time.
	w.owner.must(200, "PUT", assignmentID(id, name1), withCondition(assignmentBody(roleSecrets, app.oid), "@Principal[Innate.Directory/principals/tags:team] StringEquals 'shop'"))
	w.owner.must(200, "PUT", machine, tagged("db"))
	if r := app.do("GET", secrets+"shop-db?api-version=7.4", ""); r.status != 403 {
		t.Errorf("with the tag changed, reading answers %d", r.status)
	}
}

// TestConditionsOnTheProgram are about the evidence in the token, as a host took it.
func TestConditionsOnTheProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, secret := w.vault("kv1")
	app := w.as(tenantA, "app")
	w.owner.must(201, "PUT", assignmentID(id, name1), withCondition(assignmentBody(roleSecrets, app.oid),
		"@Caller[Innate.Fleet/callers:selectors] ForAnyOfAnyValues:StringEquals {'systemd:id:shop.service'} AND @Caller[Innate.Fleet/callers:grade] StringEquals 'kernel'"))
	for unit, want := range map[string]int{"shop.service": 200, "other.service": 403, "x systemd:id:shop.service": 403} {
		ev := evidence.Evidence{Door: "loop", Grade: evidence.GradeKernel, Selectors: []evidence.Selector{"unix:uid:0", evidence.Selector("systemd:id:" + unit)}}
		got, err := w.srv.STS.ForWorkload(t.Context(), access.Caller{Tenant: tenantA, Principal: "host:test"},
			sts.Request{Audience: "https://vault.azure.net", Workload: app.id, Evidence: ev.String()})
		if err != nil {
			t.Fatal(err)
		}
		program := *app
		program.token = got.Token
		if r := program.do("GET", secret, ""); r.status != want {
			t.Errorf("the program of %q: %d %s, want %d", unit, r.status, strings.TrimSpace(r.text), want)
		}
	}
}
