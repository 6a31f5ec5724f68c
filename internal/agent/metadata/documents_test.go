package metadata_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// machine is what the control plane says of the caller's workload.
var machine = fleetapi.Instance{
	ID: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1", UID: "5f1e6a3c-0000-4000-8000-000000000001",
	Name: "web1", Type: "Microsoft.Compute/virtualMachines", Tenant: "t1", Location: "westeurope",
	Tags: map[string]string{"team": "shop", "env": "test", "note": "a:b;c"},
	Properties: json.RawMessage(`{"hardwareProfile":{"vmSize":"Standard_D2s_v5"},"storageProfile":{"osDisk":{"osType":"Linux"},"imageReference":{"publisher":"debian","offer":"debian-12","sku":"12","version":"latest"}},
		"osProfile":{"adminUsername":"ops","adminPassword":"hunter2","computerName":"web1","linuxConfiguration":{"disablePasswordAuthentication":true}},
		"securityProfile":{"securityType":"TrustedLaunch","uefiSettings":{"secureBootEnabled":true}},"priority":"Spot","evictionPolicy":"Deallocate",
		"virtualMachineScaleSet":{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/set1"},"userData":"aGk="}`),
}

func documented(fail error) metadata.Agent {
	var asked metadata.Query
	a := agent(&asked, fail)
	a.Instance = func(context.Context, *metadata.Caller) (fleetapi.Instance, error) { return machine, fail }
	a.Attest = func(_ context.Context, _ *metadata.Caller, nonce string) ([]byte, error) {
		return []byte("signed " + nonce), fail
	}
	a.Tenant = func() string { return "7f1e6a3c-0000-4000-8000-000000000009" }
	a.Interfaces = []metadata.Interface{{
		MAC:       net.HardwareAddr{0x52, 0x54, 0, 0xab, 0xcd, 0x01},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00::5/64")},
	}}
	return a
}

const instanceBody = `{"compute":{"azEnvironment":"Innate","customData":"","evictionPolicy":"Deallocate","isHostCompatibilityLayerVm":"false","licenseType":"",` +
	`"location":"westeurope","name":"web1","offer":"debian-12","osProfile":{"adminUsername":"ops","computerName":"web1","disablePasswordAuthentication":"true"},` +
	`"osType":"Linux","placementGroupId":"","platformFaultDomain":"","platformUpdateDomain":"","priority":"Spot","provider":"Microsoft.Compute","publisher":"debian",` +
	`"resourceGroupName":"g","resourceId":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1",` +
	`"securityProfile":{"encryptionAtHost":"false","secureBootEnabled":"true","securityType":"TrustedLaunch","virtualTpmEnabled":"false"},"sku":"12","subscriptionId":"s",` +
	`"tags":"env:test;note:a:b;c;team:shop","tagsList":[{"name":"env","value":"test"},{"name":"note","value":"a:b;c"},{"name":"team","value":"shop"}],` +
	`"userData":"aGk=","version":"latest","vmId":"5f1e6a3c-0000-4000-8000-000000000001","vmScaleSetName":"set1","vmSize":"Standard_D2s_v5","zone":""},` +
	`"network":` + networkBody + `}`

const networkBody = `{"interface":[{"ipv4":{"ipAddress":[{"privateIpAddress":"10.0.0.5","publicIpAddress":""}],"subnet":[{"address":"10.0.0.0","prefix":"24"}]},` +
	`"ipv6":{"ipAddress":[{"privateIpAddress":"fd00::5","publicIpAddress":""}]},"macAddress":"525400ABCD01"}]}`

const versionBody = `{"error":"Bad request. api-version is invalid or was not specified in the request. A date was expected, YYYY-MM-DD, from 2017-03-01 on.",` +
	`"newest-versions":["2023-11-15","2023-07-01","2021-12-13"]}`

func TestDocumentsOnTheWire(t *testing.T) {
	t.Parallel()
	const v = "?api-version=2021-02-01"
	for _, tt := range []struct {
		target string
		status int
		kind   string // of the content; "" is JSON
		body   string
	}{
		{"/metadata/instance" + v, 200, "", instanceBody},
		{"/metadata/instance/" + v, 200, "", instanceBody},
		{"/metadata/instance" + v + "&format=json", 200, "", instanceBody},
		{"/metadata/instance/network" + v, 200, "", networkBody},
		{"/metadata/instance/network/interface/0/ipv4/subnet/0" + v, 200, "", `{"address":"10.0.0.0","prefix":"24"}`},
		{"/metadata/instance/compute/location" + v + "&format=text", 200, "text", "westeurope"},
		{"/metadata/instance/compute/customData" + v + "&format=text", 200, "text", ""},
		{"/metadata/instance/network/interface/0/macAddress" + v + "&format=text", 200, "text", "525400ABCD01"},
		{"/metadata/instance" + v + "&format=text", 200, "text", "compute/\nnetwork/"},
		{"/metadata/instance/network/interface" + v + "&format=text", 200, "text", "0/"},
		{"/metadata/instance/compute/securityProfile?api-version=2017-03-01&format=text", 200, "text", "encryptionAtHost\nsecureBootEnabled\nsecurityType\nvirtualTpmEnabled"},
		{"/metadata/instance/compute/name" + v, 400, "", `{"error":"Bad request. A single value has no JSON form here: add format=text"}`},
		{"/metadata/instance" + v + "&format=xml", 400, "", `{"error":"Bad request. Query variable 'format' must be json or text"}`},
		{"/metadata/instance" + v + "&format=text&format=json", 400, "", `{"error":"Bad request. Query variable 'format' is given more than once"}`},
		{"/metadata/instance/compute/none" + v, 404, "", `{"error":"Not found"}`},
		{"/metadata/instance/compute/name/more" + v + "&format=text", 404, "", `{"error":"Not found"}`},
		{"/metadata/instance/network/interface/1" + v, 404, "", `{"error":"Not found"}`},
		{"/metadata/instance/network/interface/00" + v, 404, "", `{"error":"Not found"}`},
		{"/metadata/instance/network/interface/-1" + v, 404, "", `{"error":"Not found"}`},
		{"/metadata/instancex" + v, 404, "", `{"error":"not_found","error_description":"Not found"}`},
		{"/metadata/instance/compute/%6eame" + v, 400, "", "...percent-encoded"},
		{"/metadata/instance/../identity/oauth2/token" + v, 400, "", "...dot segments"},
		{"/metadata/instance", 400, "", versionBody},
		{"/metadata/instance?api-version=latest", 400, "", versionBody},
		{"/metadata/instance?api-version=2016-12-31", 400, "", versionBody},
		{"/metadata/instance" + v + "&api-version=2021-02-01", 400, "", "...given more than once"},

		{"/metadata/identity/info" + v, 200, "", `{"tenantId":"7f1e6a3c-0000-4000-8000-000000000009"}`},
		{"/metadata/identity/info", 400, "", `{"error":"invalid_request","error_description":"api-version is missing"}`},

		{"/metadata/attested/document" + v, 200, "", `{"encoding":"pkcs7","signature":"c2lnbmVkIA=="}`},
		{"/metadata/attested/document" + v + "&nonce=abcDEF123", 200, "", `{"encoding":"pkcs7","signature":"c2lnbmVkIGFiY0RFRjEyMw=="}`},
		{"/metadata/attested/document" + v + "&nonce=" + strings.Repeat("1", 33), 400, "", `{"error":"Bad request. Query variable 'nonce' must be up to 32 letters and digits"}`},
		{"/metadata/attested/document" + v + "&nonce=a-b", 400, "", "...letters and digits"},
		{"/metadata/attested/document" + v + "&nonce=%D1%84", 400, "", "...letters and digits"},
		{"/metadata/attested/document" + v + "&nonce=1&nonce=2", 400, "", "...more than once"},
		{"/metadata/attested/document", 400, "", versionBody},
		{"/metadata/attested" + v, 404, "", ""},

		{"/metadata/scheduledevents?api-version=2020-07-01", 200, "", `{"DocumentIncarnation":1,"Events":[]}`},
		{"/metadata/loadbalancer?api-version=2020-10-01", 404, "", `{"error":"not_found","error_description":"Not found"}`},
		{"/metadata/identity/getplatformmetadata?cred-api-version=2.0", 404, "", ""},
		{"/metadata/identity/issuecredential?cred-api-version=2.0", 404, "", ""},
	} {
		t.Run(tt.target, func(t *testing.T) {
			t.Parallel()
			resp, body := raw(t, open(t, metadata.IMDS(documented(nil))), "GET "+tt.target+head+"\r\n")
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d %s, want %d", resp.StatusCode, body, tt.status)
			}
			compare(t, body, tt.body)
			want := "application/json; charset=utf-8"
			if tt.kind == "text" {
				want = "text/plain; charset=utf-8"
			}
			if got := resp.Header.Get("Content-Type"); got != want || resp.Header.Get("Server") != metadata.ServerIMDS {
				t.Errorf("Content-Type %q, Server %q; want %q and IMDS", got, resp.Header.Get("Server"), want)
			}
			if strings.Contains(body, "hunter2") {
				t.Error("a password of the resource's document is shown")
			}
		})
	}
}

func TestDocumentsAreRefusedInTheirWords(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/metadata/instance", "/metadata/attested/document"} {
		for _, tt := range []struct {
			err    error
			status int
			body   string
		}{
			{problem.Errorf(problem.CallerRefused, "no placement"), 403, `{"error":"no placement"}`},
			{problem.Errorf(problem.NotFound, "gone"), 400, `{"error":"Bad request. gone"}`},
			{problem.Errorf(problem.Unavailable, "away"), 503, `{"error":"away"}`},
		} {
			resp, body := raw(t, open(t, metadata.IMDS(documented(tt.err))), "GET "+target+"?api-version=2021-02-01"+head+"\r\n")
			if resp.StatusCode != tt.status || body != tt.body {
				t.Errorf("%s with %v = %d %s, want %d %s", target, tt.err, resp.StatusCode, body, tt.status, tt.body)
			}
		}
	}
}

// TestUnplacedCallersLearnNothing: what a resource is, is told to it alone.
func TestUnplacedCallersLearnNothing(t *testing.T) {
	t.Parallel()
	a := documented(nil)
	a.Place = func(context.Context) (*metadata.Caller, error) {
		return nil, problem.Errorf(problem.CallerRefused, "no placement")
	}
	for _, path := range []string{"/metadata/instance", "/metadata/instance/compute", "/metadata/identity/info", "/metadata/attested/document", "/metadata/scheduledevents", tokenPath} {
		resp, body := raw(t, open(t, metadata.IMDS(a)), "GET "+path+"?api-version=2021-02-01&resource=x"+head+"\r\n")
		if resp.StatusCode != http.StatusForbidden || strings.Contains(body, "web1") || strings.Contains(body, "7f1e6a3c") {
			t.Errorf("%s = %d %s, want 403", path, resp.StatusCode, body)
		}
	}
}

func TestAuthorsOtherShapesAreNotShown(t *testing.T) {
	t.Parallel()
	a := documented(nil)
	for _, properties := range []string{"", "null", "[]", `"x"`, `{"hardwareProfile":7,"userData":{"a":1},"osProfile":[]}`} {
		a.Instance = func(context.Context, *metadata.Caller) (fleetapi.Instance, error) {
			in := machine
			in.Tags, in.Properties = nil, json.RawMessage(properties)
			return in, nil
		}
		resp, body := raw(t, open(t, metadata.IMDS(a)), "GET /metadata/instance/compute?api-version=2021-02-01"+head+"\r\n")
		var got struct {
			Name, VMSize, Tags string
			TagsList           []any
		}
		err := json.Unmarshal([]byte(body), &got)
		if diff := cmp.Diff("web1", got.Name); diff != "" || resp.StatusCode != 200 || err != nil || got.VMSize != "" || got.TagsList == nil {
			t.Errorf("with properties %s: %d %s, %v", properties, resp.StatusCode, body, err)
		}
	}
}
