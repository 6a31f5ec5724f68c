package vault_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/vault"
	"github.com/innate-id/innate/internal/web"
)

const vaults = group + "/providers/Microsoft.KeyVault/vaults/"

// manage returns what puts vaults into the world as Innate itself does.
func (w *world) manage() func(t *testing.T, id, body string, patch bool) (arm.View, error) {
	names := web.Names{Domain: "innate.test", Port: 8443}
	api := &arm.API{Store: w.db, Directory: &directory.Directory{Store: w.db, Now: w.clock}, Names: names, Now: w.clock}
	api.Register(vault.Type(nil))
	return func(t *testing.T, id, body string, patch bool) (arm.View, error) {
		t.Helper()
		var doc arm.Document
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		rid, err := resource.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := api.Put(t.Context(), access.SystemCaller(tenantA, "test"), rid, doc, patch, arm.Condition{})
		return v, err
	}
}

func TestVaultNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put := w.manage()
	for _, tt := range []struct {
		name string
		want problem.Kind // "" means allowed
	}{
		{"abc", ""},
		{"A-b-C-9", ""},
		{strings.Repeat("a", 24), ""},
		{"a-b-c-d-e-f-g-h-i-j-k-l2", ""},
		{"ab", problem.BadName},
		{strings.Repeat("a", 25), problem.BadName},
		{"a-b-c-d-e-f-g-h-i-j-k-l-m", problem.BadName}, // 25 with its hyphens
		{"a" + strings.Repeat("-b", 23), problem.BadName},
		{"1abc", problem.BadName},
		{"-abc", problem.BadName},
		{"abc-", problem.BadName},
		{"a--b", problem.BadName},
		{"a.bc", problem.BadName}, // would be two labels of a host name
		{"a_bc", problem.BadName},
		{"a bc", problem.BadName},
		{"DEMO", ""},              // is there: the same vault
		{"other", problem.Exists}, // is the other tenant's
		{"OTHER", problem.Exists},
	} {
		_, err := put(t, vaults+tt.name, `{"location":"local"}`, false)
		if tt.want == "" && err != nil || tt.want != "" && !problem.Is(err, tt.want) {
			t.Errorf("a vault named %q: %v, want %q", tt.name, err, tt.want)
		}
	}
	// A name is one vault's in its tenant, too.
	w.write(t, tenantA, func(tx arm.Tx) error {
		return tx.PutResource(arm.Resource{Tenant: tenantA, ID: resource.MustParse("/subscriptions/s1/resourceGroups/g2"), Type: "Microsoft.Resources/resourceGroups", UID: "g2"})
	})
	if _, err := put(t, strings.Replace(vaults, "g1", "g2", 1)+"demo", `{"location":"local"}`, false); !problem.Is(err, problem.Exists) {
		t.Errorf("a second vault named demo: %v", err)
	}
}

// TestVaultsRefuseWhatTheyWouldNotHonour: also in another case, and by a PATCH.
func TestVaultsRefuseWhatTheyWouldNotHonour(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put := w.manage()
	for _, tt := range []struct {
		properties string
		want       problem.Kind
	}{
		{`{}`, ""},
		{`{"enableRbacAuthorization":true,"accessPolicies":[],"enablePurgeProtection":false}`, ""},
		{`{"enablePurgeProtection":null,"accessPolicies":null}`, ""},
		{`{"enableRbacAuthorization":false}`, problem.NotSupported},
		{`{"EnableRBACAuthorization":false}`, problem.NotSupported},
		{`{"enablePurgeProtection":true}`, problem.NotSupported},
		{`{"accessPolicies":[{"tenantId":"x"}]}`, problem.NotSupported},
		{`{"AccessPolicies":[null]}`, problem.NotSupported},
		{`{"enableRbacAuthorization":"yes"}`, problem.Invalid},
		{`{"accessPolicies":{}}`, problem.Invalid},
		{`{"enablePurgeProtection":1}`, problem.Invalid},
		{`[]`, problem.Invalid},
	} {
		for _, patch := range []bool{false, true} {
			_, err := put(t, demoID, `{"location":"local","properties":`+tt.properties+`}`, patch)
			if tt.want == "" && err != nil || tt.want != "" && !problem.Is(err, tt.want) {
				t.Errorf("properties %s (PATCH %v): %v, want %q", tt.properties, patch, err, tt.want)
			}
		}
	}
}

func TestVaultView(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	put := w.manage()
	v, err := put(t, vaults+"KV-1", `{"location":"local","properties":{"vaultUri":"https://evil","TenantId":"x","Sku":{"name":"premium"},"publicnetworkaccess":"Disabled"}}`, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v["properties"])
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"vaultUri": "https://kv-1.vault.innate.test:8443/", "tenantId": tenantA, "Sku": map[string]any{"name": "premium"}, "publicnetworkaccess": "Disabled",
		"accessPolicies": []any{}, "enableRbacAuthorization": true, "enableSoftDelete": true, "softDeleteRetentionInDays": 90.0, "provisioningState": "Succeeded",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
}
