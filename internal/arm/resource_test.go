package arm_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// kinds are a resource of each type, in an order in which they can be made.
var kinds = []struct{ name, id, put, patch string }{
	{"resourceGroups", sub + "/resourceGroups/g2", local, `{"tags":{"team":"red"}}`},
	{"virtualMachines", vms + "/vm1", `{"location":"local","identity":{"type":"SystemAssigned"}}`, `{"tags":{"team":"red"}}`},
	{"sites", g1 + "/providers/Microsoft.Web/sites/app1", `{"location":"local","kind":"functionapp","properties":{"httpsOnly":true}}`, `{"properties":{"httpsOnly":null,"enabled":true}}`},
	{"slots", g1 + "/providers/Microsoft.Web/sites/app1/slots/staging", `{"location":"local","kind":"app","identity":{"type":"SystemAssigned"}}`, `{"tags":{"team":"red"}}`},
	{"serverfarms", g1 + "/providers/Microsoft.Web/serverfarms/plan1", `{"location":"local","sku":{"name":"B1"}}`, `{"tags":{"team":"red"}}`},
	{"userAssignedIdentities", uais + "/shared", local, `{"tags":{"team":"red"}}`},
	{"vmExtensions", vms + "/vm1/extensions/agent", `{"location":"local","properties":{"publisher":"p","type":"t","settings":{"a":1},"protectedSettings":{"key":"secret"}}}`, `{"properties":{"settings":{"a":2}}}`},
	{"virtualMachineScaleSets", sets + "/set1", `{"location":"local","sku":{"name":"s","capacity":2},"identity":{"type":"SystemAssigned"},"properties":{"orchestrationMode":"Uniform"}}`, `{"sku":{"capacity":3}}`},
	{"instances", sets + "/set1/virtualMachines/0", local, `{"tags":{"team":"red"}}`},
	{"setExtensions", sets + "/set1/extensions/agent", `{"properties":{"type":"t"}}`, `{"properties":{"type":"u"}}`},
	{"factories", g1 + "/providers/Microsoft.DataFactory/factories/df1", `{"location":"local","properties":{"publicNetworkAccess":"Enabled"}}`, `{"tags":{"team":"red"}}`},
	{"containerGroups", g1 + "/providers/Microsoft.ContainerInstance/containerGroups/cg1", `{"location":"local","properties":{"osType":"Linux","containers":[{"name":"c","properties":{"image":"i","environmentVariables":[{"name":"A","value":"v"},{"name":"B","secureValue":"s"}]}}]}}`, `{"tags":{"team":"red"}}`},
	{"containerApps", g1 + "/providers/Microsoft.App/containerApps/ca1", `{"location":"local","properties":{"configuration":{"secrets":[{"name":"k","value":"v"}]}}}`, `{"tags":{"team":"red"}}`},
	{"jobs", g1 + "/providers/Microsoft.App/jobs/job1", local, `{"tags":{"team":"red"}}`},
	{"machines", g1 + "/providers/Microsoft.HybridCompute/machines/m1", `{"location":"local","identity":{"type":"SystemAssigned"},"properties":{"vmId":"v"}}`, `{"tags":{"team":"red"}}`},
	{"machineExtensions", g1 + "/providers/Microsoft.HybridCompute/machines/m1/extensions/e1", local, `{"tags":{"team":"red"}}`},
	{"storageAccounts", g1 + "/providers/Microsoft.Storage/storageAccounts/acc1", `{"location":"local","kind":"StorageV2","sku":{"name":"Standard_LRS"}}`, `{"properties":{"minimumTlsVersion":"TLS1_2"}}`},
	{"vaults", g1 + "/providers/Microsoft.KeyVault/vaults/kv1", `{"location":"local","properties":{"sku":{"family":"A","name":"premium"}}}`, `{"properties":{"publicNetworkAccess":"Disabled"}}`},
	{"agentPools", g1 + "/providers/Innate.Build/agentPools/pool1", local, `{"tags":{"team":"red"}}`},
	{"applications", g1 + "/providers/Innate.Directory/applications/api1", `{"properties":{"identifierUris":["api://one"]}}`, `{"properties":{"accessTokenVersion":2}}`},
	{"hosts", g1 + "/providers/Innate.Fleet/hosts/host1", `{}`, `{"tags":{"rack":"7"}}`},
	{"placements", g1 + "/providers/Innate.Fleet/hosts/host1/placements/p1", `{"properties":{"door":"run","resourceId":"` + vms + `/vm1"}}`, `{"properties":{"selectors":["unix:uid:0"]}}`},
}

// madeStatus is what a PUT answers that makes a resource: clients of some
// families take 200 and no 201.
func madeStatus(id string) int {
	for _, typ := range []string{"/Microsoft.Web/", "/Microsoft.DataFactory/", "/Microsoft.Storage/", "/Microsoft.HybridCompute/", "/set1/virtualMachines/"} {
		if strings.Contains(id, typ) && !strings.Contains(id, "userAssigned") {
			return 200
		}
	}
	return 201
}

// TestResourceLife tells the same story of every type: made, replaced,
// patched, read, listed, deleted, gone.
func TestResourceLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	golden := map[string]any{}
	for _, k := range kinds {
		made := w.owner.must(madeStatus(k.id), "PUT", k.id, k.put)
		w.owner.must(200, "PUT", k.id, k.put)
		patched := w.owner.must(200, "PATCH", k.id, k.patch)
		got := w.owner.must(200, "GET", k.id, "")
		if diff := cmp.Diff(patched.body, got.body); diff != "" {
			t.Errorf("%s: PATCH answered something else than GET (-patch +get):\n%s", k.name, diff)
		}
		if e := got.header.Get("ETag"); e == "" || e != `"`+got.str("etag")+got.str("eTag")+`"` || e == made.header.Get("ETag") {
			t.Errorf("%s: ETag header is %s after %s, member %q", k.name, e, made.header.Get("ETag"), got.str("etag")+got.str("eTag"))
		}
		head := w.owner.must(204, "HEAD", k.id, "")
		if head.text != "" {
			t.Errorf("%s: HEAD has a body", k.name)
		}
		l := w.owner.must(200, "GET", k.id[:strings.LastIndexByte(k.id, '/')], "").values()
		found := false
		for _, v := range l {
			found = found || cmp.Equal(v, got.body)
		}
		if !found {
			t.Errorf("%s: the list does not have it as GET has it: %v", k.name, l)
		}
		golden[k.name] = got.body
	}
	compareGolden(t, "types.json", normalize(indent(t, golden)))
	for i := len(kinds) - 1; i >= 0; i-- {
		id := kinds[i].id
		w.owner.must(200, "DELETE", id, "")
		w.owner.must(204, "DELETE", id, "")
		code := "ResourceNotFound"
		if kinds[i].name == "resourceGroups" {
			code = "ResourceGroupNotFound"
		}
		w.owner.refused(404, code, "GET", id, "")
		w.owner.refused(404, code, "PATCH", id, `{}`)
		if r := w.owner.refused(404, code, "HEAD", id, ""); r.text != "" {
			t.Errorf("HEAD %s has a body: %s", id, r.text)
		}
	}
}

var (
	guid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	port = regexp.MustCompile(`innate\.test:\d+`)
)

// normalize puts names for GUIDs, in the order of their appearance.
func normalize(s string) string {
	known := map[string]string{tenantA: "{tenant}", strings.TrimPrefix(sub, "/subscriptions/"): "{sub}"}
	s = guid.ReplaceAllStringFunc(s, func(g string) string {
		if known[g] == "" {
			known[g] = fmt.Sprintf("{guid%d}", len(known)-1)
		}
		return known[g]
	})
	return port.ReplaceAllString(s, "innate.test")
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("not as in %s; if it is meant, run the test with -update (-want +got):\n%s", path, diff)
	}
}

func TestIDsCompareWithoutCaseAndKeepTheirCreatorsCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := vms + "/Vm-One"
	w.owner.must(201, "PUT", id, local)
	for _, path := range []string{
		strings.ToLower(id), strings.ToUpper(id), id + "/", "/" + id, id + "//",
		strings.Replace(id, "resourceGroups", "resourcegroups", 1), strings.ReplaceAll(id, "/", "//"),
		strings.Replace(id, "Vm-One", "Vm%2DOne", 1),
	} {
		if got := w.owner.must(200, "PUT", path, local).str("id"); got != id {
			t.Errorf("PUT %s answers id %s, want %s", path, got, id)
		}
		if got := w.owner.must(200, "GET", path, ""); got.str("id") != id || got.str("type") != "Microsoft.Compute/virtualMachines" {
			t.Errorf("GET %s answers %s", path, got.text)
		}
	}
	for _, path := range []string{strings.ToLower(vms), strings.ToUpper(vms), vms + "/", strings.ToUpper(g1) + "/resources", sub + "/resourcegroups/G1//resources/"} {
		if got := w.owner.must(200, "GET", path, "").values(); len(got) != 1 || got[0]["id"] != id {
			t.Errorf("GET %s lists %v", path, got)
		}
	}
}

func TestAPIVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		query string
		code  string // "" means accepted
	}{
		{"api-version=2024-11-30", ""},
		{"api-version=2018-01-01-preview", ""},
		{"API-Version=2024-11-30", ""},
		{"x=y", "MissingApiVersionParameter"},
		{"api-version=", "MissingApiVersionParameter"},
		{"api-version=latest", "InvalidApiVersionParameter"},
		{"api-version=2024-11-30%20", "InvalidApiVersionParameter"},
		{"api-version=" + strings.Repeat("9", 5000), "InvalidApiVersionParameter"},
		{"api-version=2024-11-30&api-version=2024-11-30", "InvalidRequestContent"},
		{"api-version=2024-11-30&Api-Version=2025-11-30", "InvalidRequestContent"},
		{"api-version=2024-11-30;x=y", "InvalidRequestContent"},
		{"api-version=%zz", "InvalidRequestContent"},
	} {
		if tt.code == "" {
			w.owner.must(200, "GET", g1+"?"+tt.query, "")
			continue
		}
		w.owner.refused(400, tt.code, "GET", g1+"?"+tt.query, "")
	}
}

func TestPathsThatAreNoResource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", vms+"/there", local)
	for _, tt := range []struct {
		status       int
		code         string
		method, path string
	}{
		{400, "InvalidResourceId", "GET", "/"},
		{400, "InvalidResourceId", "GET", "/x"},
		{400, "InvalidResourceId", "GET", g1 + "/../g1"},
		{400, "InvalidResourceId", "GET", g1 + "/%2e%2e/g1"},
		{400, "InvalidResourceId", "GET", sub + "%2FresourceGroups%2Fg1"},
		{400, "InvalidResourceId", "PUT", vms + "/a%3Fb"},
		{400, "InvalidResourceId", "PUT", vms + "/a%00b"},
		{400, "InvalidResourceId", "PUT", vms + "/%E2%84%AA"}, // Kelvin sign
		{404, "InvalidResourceType", "GET", sub + "/providers/providers"},
		{400, "InvalidResourceName", "PUT", vms + "/" + strings.Repeat("a", 129)},
		{400, "InvalidResourceId", "PUT", vms + "/" + strings.Repeat("a", 3000)},
		{404, "InvalidResourceType", "GET", g1 + "/providers/Microsoft.Compute/disks/d"},
		{404, "InvalidResourceType", "GET", g1 + "/providers/Microsoft.Compute/disks"},
		{404, "InvalidResourceType", "PUT", g1 + "/providers/Nobody.Knows/it/d"},
		{404, "SubscriptionNotFound", "GET", "/subscriptions/none"},
		{400, "NotSupported", "PUT", sub},
		{404, "ResourceGroupNotFound", "GET", sub + "/resourceGroups/none"},
		{404, "ResourceGroupNotFound", "PUT", sub + "/resourceGroups/none/providers/Microsoft.Compute/virtualMachines/vm"},
		{404, "ResourceGroupNotFound", "GET", sub + "/resourceGroups/none/providers/Microsoft.Compute/virtualMachines"},
		{404, "ParentResourceNotFound", "PUT", g1 + "/providers/Innate.Fleet/hosts/none/placements/p"},
		{404, "ResourceNotFound", "GET", g1 + "/providers/Innate.Fleet/hosts/none/placements"},
		{404, "ResourceNotFound", "POST", g1 + "/providers/Innate.Fleet/hosts/none/evict"},
		{404, "ResourceNotFound", "POST", vms + "/none/start"},
		{405, "MethodNotAllowed", "POST", vms + "/vm1"},
		{405, "MethodNotAllowed", "PUT", vms},
		{405, "MethodNotAllowed", "TRACE", g1},
		{405, "MethodNotAllowed", "DELETE", "/subscriptions"},
		{405, "MethodNotAllowed", "POST", "/metadata/endpoints"},
		{409, "Conflict", "DELETE", sub}, // it is not empty
		// A type that stands in a group is nowhere else: not in a
		// subscription, not below another resource.
		{400, "InvalidResourceId", "PUT", sub + "/providers/Microsoft.Compute/virtualMachines/vm"},
		{400, "InvalidResourceId", "PUT", "/providers/Microsoft.Compute/virtualMachines/vm"},
		{400, "InvalidResourceId", "PUT", vms + "/there/providers/Microsoft.Compute/virtualMachines/vm"},
		{400, "InvalidResourceId", "PUT", vms + "/there/providers/Microsoft.ManagedIdentity/userAssignedIdentities/uai"},
	} {
		body := ""
		if tt.method == "PUT" {
			body = `{"location":"local","properties":{"door":"run","resourceId":"` + vms + `/there"}}`
		}
		// The root may do everything: no refusal here is for lack of a right.
		w.root().refused(tt.status, tt.code, tt.method, tt.path, body)
	}
}
