package arm_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// ours are the members of any document that the server says, and write-only
// ones: secrets go in and never come out.
var ours = map[string]bool{
	"id": true, "name": true, "type": true, "etag": true, "systemdata": true, "resources": true, "identity": true, "instanceid": true,
	".properties.provisioningstate": true, ".properties.vmid": true, ".properties.instanceview": true, ".properties.timecreated": true,
	".properties.osprofile.adminpassword": true, ".properties.osprofile.customdata": true,
	".properties.osprofile.windowsconfiguration.additionalunattendcontent": true,
}

// lacks says what of sent is not in got; "" if all is. Names of members compare
// without case, as the service does. A member beside properties that is null is
// as if it were not there.
func lacks(sent, got any, path string) string {
	switch s := sent.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range s {
			at := path + "." + strings.ToLower(k)
			if ours[at] || ours[strings.TrimPrefix(at, ".")] || v == nil && path == "" {
				continue
			}
			found := false
			for gk, gv := range g {
				if strings.EqualFold(k, gk) {
					found = true
					if why := lacks(v, gv, at); why != "" {
						return why
					}
				}
			}
			if !found {
				return "it lacks " + at
			}
		}
		if g == nil && len(s) > 0 {
			return path + " is no object"
		}
		return ""
	case []any:
		g, _ := got.([]any)
		if len(g) != len(s) {
			return fmt.Sprintf("%s has %d elements of %d", path, len(g), len(s))
		}
		for i := range s {
			if why := lacks(s[i], g[i], fmt.Sprintf("%s[%d]", path, i)); why != "" {
				return why
			}
		}
		return ""
	}
	if fmt.Sprintf("%T %v", sent, sent) != fmt.Sprintf("%T %v", got, got) {
		return fmt.Sprintf("%s is %v, and was %v", path, got, sent)
	}
	return ""
}

// templates are documents as people have them, with what Innate knows nothing of.
var templates = []struct{ id, body string }{
	{vms + "/t", `{"location":"West Europe","zones":["1"],"plan":{"name":"n","publisher":"p","product":"q"},"extendedLocation":{"name":"e","type":"EdgeZone"},
		"managedBy":"/subscriptions/x","tags":{"größe":"groß","a.b":"<&>"},
		"properties":{"hardwareProfile":{"vmSize":"Standard_D2s_v5"},"storageProfile":{"osDisk":{"diskSizeGB":12345678901234567890,"x":1.10,"y":1e999,"z":-0}},
		"osProfile":{"computerName":"c","adminUsername":"u","adminPassword":"hunter2","customData":"aGk=","secrets":[]},
		"networkProfile":{"networkInterfaces":[{"id":"/subscriptions/s","properties":{"primary":true,"deleteOption":null}}]},"userData":"aGk=","licenseType":null,"priority":"Spot"}}`},
	{sets + "/t", `{"location":"local","sku":{"name":"s","tier":"t","capacity":3},"zones":["1","2"],"properties":{"upgradePolicy":{"mode":"Manual"},"virtualMachineProfile":{"osProfile":{"computerNamePrefix":"p"}},"overprovision":false}}`},
	{g1 + "/providers/Microsoft.Web/sites/t", `{"location":"local","kind":"functionapp,linux","properties":{"serverFarmId":"/subscriptions/s","httpsOnly":true,"siteConfig":{"linuxFxVersion":"GO|1.26","appSettings":[{"name":"A"}],"minTlsVersion":"1.2"},"clientAffinityEnabled":null}}`},
	{g1 + "/providers/Microsoft.Web/sites/t/slots/s", `{"location":"local","kind":"app","properties":{"httpsOnly":true}}`},
	{g1 + "/providers/Microsoft.DataFactory/factories/ttt", `{"location":"local","properties":{"globalParameters":{"p":{"type":"Int","value":9007199254740993}},"repoConfiguration":{"type":"FactoryGitHubConfiguration","accountName":"a"}},"unknown":{"deep":[1,[2,[3]]]}}`},
	{g1 + "/providers/Microsoft.ContainerInstance/containerGroups/t", `{"location":"local","zones":["3"],"properties":{"sku":"Standard","containers":[{"name":"c","properties":{"image":"i","resources":{"requests":{"cpu":0.1,"memoryInGB":1.50}}}}],"osType":"Linux"}}`},
	{g1 + "/providers/Microsoft.App/containerApps/t", `{"location":"local","managedBy":"m","properties":{"managedEnvironmentId":"/x","configuration":{"ingress":{"external":true,"targetPort":80},"registries":[{"server":"s","identity":"system"}]},"template":{"scale":{"minReplicas":0}}}}`},
	{g1 + "/providers/Microsoft.App/jobs/t", `{"location":"local","properties":{"configuration":{"triggerType":"Manual","replicaTimeout":10}}}`},
	{g1 + "/providers/Microsoft.HybridCompute/machines/t", `{"location":"local","kind":"AWS","properties":{"clientPublicKey":"k","osName":"linux","locationData":{"name":"r","city":"c"}}}`},
	{g1 + "/providers/Microsoft.Storage/storageAccounts/ttt", `{"location":"local","kind":"StorageV2","sku":{"name":"Standard_LRS"},"extendedLocation":{"name":"e"},"properties":{"accessTier":"Hot","networkAcls":{"defaultAction":"Deny","ipRules":[]},"allowSharedKeyAccess":false}}`},
	{g1 + "/providers/Microsoft.KeyVault/vaults/t-vault", `{"location":"local","tags":{"a":"b"},"properties":{"sku":{"family":"A","name":"premium"},"networkAcls":{"bypass":"AzureServices"},"enabledForDeployment":true}}`},
	{g1 + "/providers/Innate.Build/agentPools/t", `{"location":"local","properties":{"x":{"y":null}}}`},
	{uais + "/ttt", `{"location":"local","tags":{"a":"b"},"properties":{"isolationScope":"Regional","assignmentRestrictions":{"providers":["Microsoft.Compute"]}}}`},
}

// TestTemplatesComeOutAsTheyWentIn, in a resource of each family; and what was
// read can be written again.
func TestTemplatesComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tpl := range templates {
		sent := decode([]byte(tpl.body))
		if sent == nil {
			t.Fatalf("%s: the template is no JSON", tpl.id)
		}
		w.owner.must(madeStatus(tpl.id), "PUT", tpl.id, tpl.body)
		got := w.owner.must(200, "GET", tpl.id, "")
		if why := lacks(sent, got.body, ""); why != "" {
			t.Errorf("%s: %s in %s", tpl.id, why, got.text)
		}
		again := w.owner.must(200, "PUT", tpl.id, got.text)
		if why := lacks(got.body, again.body, ""); why != "" {
			t.Errorf("%s, written as it was read: %s in %s", tpl.id, why, again.text)
		}
		patched := w.owner.must(200, "PATCH", tpl.id, `{"tags":{"x":"y"}}`)
		delete(sent, "tags")
		if why := lacks(sent, patched.body, ""); why != "" {
			t.Errorf("%s, patched: %s in %s", tpl.id, why, patched.text)
		}
	}
}

// TestSecretsAreNotReadAgain: who reads a resource is not who knows its
// passwords, and the database has none of them.
func TestSecretsAreNotReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const s = "hunter2"
	arc := g1 + "/providers/Microsoft.HybridCompute/machines/m1"
	for _, tt := range []struct{ id, props string }{
		{vms + "/vm1", `{"osProfile":{"adminPassword":"hunter2","AdminUsername":"kept","customData":"hunter2","windowsConfiguration":{"additionalUnattendContent":[{"content":"hunter2","settingName":"kept"}]}}}`},
		{vms + "/vm1", `{"OSPROFILE":{"ADMINPASSWORD":"hunter2","computerName":"kept"}}`},
		{vms + "/vm1/extensions/e", `{"settings":{"a":"kept"},"protectedSettings":{"a":"hunter2"},"ProtectedSettings2":"kept"}`},
		{sets + "/set1", `{"virtualMachineProfile":{"osProfile":{"adminPassword":"hunter2","customData":"hunter2","computerNamePrefix":"kept"},"extensionProfile":{"extensions":[{"name":"kept","properties":{"protectedSettings":{"k":"hunter2"}}}]}}}`},
		{sets + "/set1/virtualMachines/0", `{"osProfile":{"adminPassword":"hunter2","computerName":"kept"}}`},
		{g1 + "/providers/Microsoft.Web/sites/s1", `{"siteConfig":{"appSettings":[{"name":"kept","value":"hunter2"},7,null],"connectionStrings":[{"name":"kept","connectionString":"hunter2"}],"azureStorageAccounts":{"any":{"accessKey":"hunter2","shareName":"kept"}}}}`},
		{g1 + "/providers/Microsoft.ContainerInstance/containerGroups/c1", `{"containers":[{"name":"kept","properties":{"environmentVariables":[{"name":"A","secureValue":"hunter2"}]}}],"imageRegistryCredentials":[{"server":"kept","password":"hunter2"}],"volumes":[{"name":"v","secret":{"f":"hunter2"},"azureFile":{"storageAccountKey":"hunter2"}}]}`},
		{g1 + "/providers/Microsoft.App/containerApps/c1", `{"configuration":{"secrets":[{"name":"kept","value":"hunter2"}]}}`},
		{g1 + "/providers/Microsoft.App/jobs/j1", `{"configuration":{"secrets":[{"name":"kept","value":"hunter2"}]}}`},
		{arc, `{"osProfile":{"adminPassword":"hunter2","computerName":"kept"}}`},
		{arc + "/extensions/e", `{"type":"kept","protectedSettings":{"k":"hunter2"}}`},
	} {
		body := `{"location":"local","properties":` + tt.props + `}`
		for _, m := range []string{"PUT", "PATCH"} {
			w.owner.do(m, tt.id, body)
			for _, r := range []reply{w.owner.must(200, "GET", tt.id, ""), w.owner.must(200, "GET", tt.id[:strings.LastIndexByte(tt.id, '/')], "")} {
				if strings.Contains(r.text, s) || !strings.Contains(r.text, "kept") {
					t.Errorf("%s %s %s is read as %s", m, tt.id, tt.props, r.text)
				}
			}
		}
	}
	// An older version stored them; they are not told, either.
	vm := resource.MustParse(vms + "/vm1")
	old, err := w.srv.DB.Resource(t.Context(), tenantA, vm.Key())
	if err != nil {
		t.Fatal(err)
	}
	clean := old.Body["properties"]
	write := func(props string) {
		old.Body["properties"] = json.RawMessage(props)
		ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
		if err := w.srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error { return tx.PutResource(old) }); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"osProfile":{"adminPassword":"hunter2","computerName":"kept"}}`)
	if r := w.owner.must(200, "GET", vms+"/vm1", ""); strings.Contains(r.text, s) || !strings.Contains(r.text, "kept") {
		t.Errorf("a stored secret is read as %s", r.text)
	}
	write(string(clean))
	rs, err := w.srv.DB.Resources(t.Context(), tenantA, "", "", arm.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		for k, v := range r.Body {
			if strings.Contains(string(v), s) {
				t.Errorf("the database has %s.%s = %s", r.ID, k, v)
			}
		}
	}
}
