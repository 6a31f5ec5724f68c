package fleet_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/keyring"
	"github.com/innate-id/innate/internal/problem"
)

// whole is a machine with everything that its author could put in, the secrets
// all called hunter2.
const whole = `{"location":"local","tags":{"env":"test","Owner":"a"},"plan":{"name":"n","product":"p","publisher":"u","promotionCode":"hunter2"},
"properties":{"hardwareProfile":{"vmSize":"small","secret":"hunter2"},"LicenseType":"none",
"storageProfile":{"imageReference":{"offer":"debian","sku":"13","sharedKey":"hunter2"},"dataDisks":[{"lun":0,"name":"d0","encryptionSettings":{"key":"hunter2"}},"hunter2"],"osDisk":{"name":{"hidden":"hunter2"}}},
"osProfile":{"computerName":"vm1","adminUsername":"root","adminPassword":"hunter2","customData":"hunter2","secrets":[{"x":"hunter2"}],"ADMINPASSWORD2":"hunter2","linuxConfiguration":{"disablePasswordAuthentication":true,"ssh":{"publicKeys":["hunter2"]}}},
"OSPROFILE2":{"adminPassword":"hunter2"},"customData":"hunter2","userData":"Y2xvdWQ=","connectionStrings":["hunter2"],"siteConfig":{"appSettings":[{"name":"k","value":"hunter2"}]},
"priority":{"x":"hunter2"},"evictionPolicy":["hunter2"],"diagnosticsProfile":{"storageUri":"hunter2"}}}`

func TestInstanceTellsNoSecrets(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/whole"
	made := w.owner.must(201, "PUT", vm, whole)
	w.owner.place("h1", "whole", vm)
	status, b := h.do("POST", fleetapi.PathInstance, fleetapi.InstanceRequest{Workload: vm, Placement: "whole"})
	if status != 200 || bytes.Contains(b, []byte("hunter2")) {
		t.Fatalf("the instance is %d %s", status, b)
	}
	var got fleetapi.Instance
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	props := got.Properties
	got.Properties = nil
	vmID, _ := made["properties"].(map[string]any)["vmId"].(string)
	want := fleetapi.Instance{
		ID: vm, UID: vmID, Name: "whole", Type: "Microsoft.Compute/virtualMachines", Tenant: tenantA, Location: "local",
		Tags: map[string]string{"env": "test", "Owner": "a"}, Revision: w.revision(tenantA),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the instance (-want +got)\n%s", diff)
	}
	var is, should any
	if err := json.Unmarshal(props, &is); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"hardwareProfile":{"vmSize":"small"},"LicenseType":"none","storageProfile":{"imageReference":{"offer":"debian","sku":"13"},"dataDisks":[{"lun":0,"name":"d0"}]},
		"osProfile":{"computerName":"vm1","adminUsername":"root","linuxConfiguration":{"disablePasswordAuthentication":true}},"userData":"Y2xvdWQ="}`), &should); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(should, is); diff != "" {
		t.Errorf("its properties (-want +got)\n%s", diff)
	}
	if ev := w.last(tenantA, 1)[0]; ev.Action != "Innate.Fleet/instances/read" || ev.Outcome != audit.Allowed || ev.Target != vm || ev.Host != "h1" {
		t.Errorf("on record as %+v", ev)
	}
}

// TestAHostLearnsOnlyWhatIsPlacedThere: what is placed elsewhere, and what is
// placed for another caller, is neither told nor attested.
func TestAHostLearnsOnlyWhatIsPlacedThere(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	w.owner.enrol("h2")
	w.owner.must(201, "PUT", vms+"/vm2", machine)
	w.owner.place("h2", "p2", vms+"/vm2")
	w.owner.must(200, "PATCH", hosts+"/h1/placements/p1", `{"properties":{"selectors":["unix:uid:1000"]}}`)
	b := w.addTenant(tenantB)
	b.must(201, "PUT", vms+"/vm3", machine)
	b.must(201, "PUT", hosts+"/h1", `{}`)
	b.place("h1", "p3", vms+"/vm3")
	stranger := fleetapi.Evidence{Door: "run", Selectors: []string{"unix:uid:1"}, Grade: "kernel"}
	for what, r := range map[string]fleetapi.AttestRequest{
		"another host's":       {Workload: vms + "/vm2", Placement: "p2"},
		"by another placement": {Workload: vms + "/vm2", Placement: "p1"},
		"another tenant's":     {Workload: vms + "/vm3", Placement: "p3"},
		"the host":             {Workload: hosts + "/h1", Placement: "p1"},
		"for another caller":   {Workload: vms + "/vm1", Placement: "p1", Evidence: stranger},
		"through another door": {Workload: vms + "/vm1", Placement: "p1", Evidence: fleetapi.Evidence{Door: "imds", Selectors: []string{"unix:uid:1000"}, Grade: "kernel"}},
		"without a placement":  {Workload: vms + "/vm1", Placement: "p9"},
		"what does not exist":  {Workload: vms + "/none", Placement: "p1"},
		"below what is placed": {Workload: vms + "/vm1" + rules + "r", Placement: "p1"},
		"above what is placed": {Workload: ops, Placement: "p1"},
	} {
		before := len(w.last(tenantA, 1<<30))
		h.refused(problem.CallerRefused, "POST", fleetapi.PathInstance, fleetapi.InstanceRequest{Workload: r.Workload, Placement: r.Placement, Evidence: r.Evidence})
		h.refused(problem.CallerRefused, "POST", fleetapi.PathAttest, r)
		if evs := w.last(tenantA, 1<<30)[before:]; len(evs) != 2 || evs[0].Outcome != audit.Denied || evs[1].Outcome != audit.Denied || evs[1].Host != "h1" {
			t.Errorf("%s: on record as %+v", what, evs)
		}
	}
	w.owner.must(200, "POST", hosts+"/h1/evict", "")
	for _, path := range []string{fleetapi.PathInstance, fleetapi.PathAttest} {
		h.refused(problem.Unauthenticated, "POST", path, fleetapi.AttestRequest{Workload: vms + "/vm1", Placement: "p1", Evidence: shop})
	}
}

// TestAttestedDocumentsAreUnderCallerRules: with one, a program proves that it
// is the resource.
func TestAttestedDocumentsAreUnderCallerRules(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	vm := vms + "/vm1"
	req := fleetapi.AttestRequest{Workload: vm, Placement: "p1", Evidence: shop}
	h.must(200, "POST", fleetapi.PathAttest, req, nil)
	w.owner.rule(vm, "root", `{"selectors":["unix:uid:0"]}`)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathAttest, req)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathAttest, fleetapi.AttestRequest{Workload: vm, Placement: "p1"})
	w.owner.rule(vm, "vault", `{"selectors":["unix:uid:1000"],"audiences":["https://vault.azure.net"]}`)
	h.refused(problem.CallerRefused, "POST", fleetapi.PathAttest, req)
	w.owner.rule(vm, "attest", `{"selectors":["unix:uid:1000"],"audiences":["`+fleetapi.AudienceAttest+`"]}`)
	h.must(200, "POST", fleetapi.PathAttest, req, nil)
	if ev := w.last(tenantA, 1)[0]; ev.Reason != "allowed by caller rule attest" || ev.Action != "Innate.Fleet/instances/attest/action" || ev.Target != vm {
		t.Errorf("on record as %+v", ev)
	}
	// No token comes of such a rule.
	h.refused(problem.UnknownAudience, "POST", fleetapi.PathToken, func() fleetapi.TokenRequest {
		r := askAs(shop, "p1", vm)
		r.Audience = fleetapi.AudienceAttest
		return r
	}())
}

// TestAttestedDocumentVerifies with another program than ours, against the
// authority that the tenant publishes, and against no other.
func TestAttestedDocumentVerifies(t *testing.T) {
	t.Parallel()
	w, h := ruled(t)
	b := w.addTenant(tenantB)
	other := b.enrol("h1")
	b.must(201, "PUT", vms+"/vm1", machine)
	b.place("h1", "p1", vms+"/vm1")
	w.owner.must(201, "PUT", vms+"/whole", whole)
	w.owner.place("h1", "whole", vms+"/whole")
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		t.Helper()
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	published := func(tenant string) string {
		t.Helper()
		res, err := w.client("", nil).Get(w.srv.Names.Login() + "/" + tenant + "/discovery/metadata-ca.pem")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		pem, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("the authority of %s: %d %s, %v", tenant, res.StatusCode, pem, err)
		}
		return file(tenant+".pem", pem)
	}
	attest := func(a *agent, placement, name, nonce string) string {
		t.Helper()
		var out fleetapi.AttestResponse
		a.must(200, "POST", fleetapi.PathAttest, fleetapi.AttestRequest{Workload: vms + "/" + name, Placement: placement, Nonce: nonce, Evidence: shop}, &out)
		return file(unique("doc"), out.Signature)
	}
	verify := func(doc, ca string, at time.Time) (content []byte, ok bool) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", "cms", "-verify", "-inform", "DER", "-in", doc, "-CAfile", ca, "-no-CApath", "-no-CAstore",
			"-attime", strconv.FormatInt(at.Unix(), 10), "-signer", doc+".signer")
		var out, diag bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &diag
		err := cmd.Run()
		if err != nil {
			t.Logf("openssl: %s", diag.String())
		}
		return out.Bytes(), err == nil
	}
	caA, caB := published(tenantA), published(tenantB)
	doc := attest(h, "whole", "whole", "abc123")
	text, ok := verify(doc, caA, start)
	if !ok {
		t.Fatal("openssl does not verify the document")
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	vmID, _ := w.owner.must(200, "GET", vms+"/whole", "")["properties"].(map[string]any)["vmId"].(string)
	want := map[string]any{
		"licenseType": "none", "nonce": "abc123", "plan": map[string]any{"name": "n", "product": "p", "publisher": "u"}, "sku": "13",
		"subscriptionId": strings.TrimPrefix(sub, "/subscriptions/"), "vmId": vmID,
		"timeStamp": map[string]any{"createdOn": "09/21/26 14:13:20 -0000", "expiresOn": "09/21/26 20:13:20 -0000"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the document (-want +got)\n%s", diff)
	}
	subject, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", doc+".signer", "-noout", "-subject", "-ext", "subjectAltName").Output()
	if err != nil || !strings.Contains(string(subject), "CN = metadata.innate.test") || !strings.Contains(string(subject), "O = "+tenantA) || !strings.Contains(string(subject), "DNS:metadata.innate.test") {
		t.Errorf("the signer is %s, %v", subject, err)
	}
	if text, ok := verify(attest(h, "p1", "vm1", ""), caA, start); !ok || !strings.Contains(string(text), `"nonce":"20260921141320"`) {
		t.Errorf("a document without a nonce: %s", text)
	}

	fleetCA, err := w.srv.Ring.Authority(t.Context(), tenantA, keyring.KindFleetCA, "")
	if err != nil {
		t.Fatal(err)
	}
	for what, ca := range map[string]string{
		"tenant B's authority": caB,
		"the fleet's":          file("fleet.pem", fleetCA.PEM()),
		"the server's":         file("server.pem", w.srv.CA.PEM()),
	} {
		if _, ok := verify(doc, ca, start); ok {
			t.Errorf("a document of tenant A verifies with %s", what)
		}
	}
	if _, ok := verify(attest(other, "p1", "vm1", ""), caA, start); ok {
		t.Error("tenant B's document is one of tenant A")
	}
	if _, ok := verify(doc, caA, start.Add(31*24*time.Hour)); ok {
		t.Error("a document verifies after its signer's certificate has ended")
	}
	forged, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(forged, []byte(vmID)) {
		t.Fatal("the document is not in the signature")
	}
	if _, ok := verify(file("forged", bytes.Replace(forged, []byte(vmID), []byte("00000000-0000-4000-8000-000000000000"), 1)), caA, start); ok {
		t.Error("a changed document verifies")
	}
	for _, n := range []string{strings.Repeat("a", 33), "a b", "é", "\"", "a\n"} {
		h.refused(problem.Invalid, "POST", fleetapi.PathAttest, fleetapi.AttestRequest{Workload: vms + "/vm1", Placement: "p1", Nonce: n})
	}
}

// TestAHostsCertificateSignsNoDocuments: a host can be called as the signer is,
// and its certificate still vouches for nothing.
func TestAHostsCertificateSignsNoDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := w.owner.enrol("metadata.innate.test")
	ca, err := w.srv.Ring.Authority(t.Context(), tenantA, keyring.KindMetadataCA, "innate.test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca.pem": ca.PEM(), "host.pem": pemCertificate(h.cert.Certificate[0])} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := strconv.FormatInt(start.Unix(), 10)
	out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-CAfile", filepath.Join(dir, "ca.pem"), "-no-CApath", "-attime", at, filepath.Join(dir, "host.pem")).CombinedOutput()
	if err == nil {
		t.Errorf("a host named as the signer verifies as one: %s", out)
	}
}
