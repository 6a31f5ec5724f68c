package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// dev.json is what editors and other programs read: its members stay, and what
// is in it is a secret.
func TestDevJSON(t *testing.T) {
	t.Parallel()
	in := start(t)
	path := filepath.Join(in.dir, "dev.json")
	for name, want := range map[string]fs.FileMode{path: 0o600, in.dir: 0o700 | fs.ModeDir} {
		if fi, err := os.Stat(name); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", name, fi.Mode(), err, want)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	// controlSocket, host and listen are for innate's own commands.
	members(t, doc, "", "tenantId", "subscriptionId", "resourceGroup", "caFile", "pid", "endpoints", "vaults", "resources", "controlSocket", "host", "listen")
	members(t, doc, "endpoints", "login", "management", "graph", "portal", "metadata", "proxy")
	members(t, doc, "vaults", "demo")
	members(t, doc, "resources", "vm1", "vm2", "app1", "ops")
	for name, r := range doc["resources"].(map[string]any) {
		members(t, map[string]any{name: r}, name, "id", "env")
	}
	if in.PID != in.cmd.Process.Pid {
		t.Errorf("pid = %d, want %d", in.PID, in.cmd.Process.Pid)
	}
	if want := in.id("Microsoft.Compute/virtualMachines", "vm1"); in.Resources["vm1"].ID != want || in.ResourceGroup != "demo" {
		t.Errorf("vm1 is %s, want %s", in.Resources["vm1"].ID, want)
	}
	in.stop(t)
	if exists(path) {
		t.Error("dev.json is there after the end")
	}
}

// members checks the names of an object's members.
func members(t *testing.T, doc map[string]any, name string, want ...string) {
	t.Helper()
	if name != "" {
		doc, _ = doc[name].(map[string]any) // nil has no members, and fails below
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(doc)); !slices.Equal(got, want) {
		t.Errorf("the members of %q are %q, want %q", name, got, want)
	}
}

// Data that is kept is what it was: ids, secrets, identities, and tokens that
// are out, where the port is the same.
func TestKeptDataIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	first := start(t)
	vm1 := first.manage(t, "vm", "get", "vm1")
	token := first.token(t, "vm1", "https://vault.azure.net")
	first.newVault(t, "second")
	if r := first.exec(t, "one more\n", "innate", "secret", "set", "demo/more"); r.code != 0 {
		t.Fatal(r)
	}
	first.stop(t)

	u, err := url.Parse(first.Endpoints.Login)
	if err != nil {
		t.Fatal(err)
	}
	again := startOn(t, first.dir, "--port", u.Port())
	if again.TenantID != first.TenantID || again.SubscriptionID != first.SubscriptionID || again.Endpoints.Login != first.Endpoints.Login {
		t.Errorf("after the restart: %+v\nwant the ids and addresses of %+v", again.devFile, first.devFile)
	}
	if want := strings.Replace(first.Vaults["demo"], "demo", "second", 1); again.Vaults["second"] != want || again.Vaults["demo"] != first.Vaults["demo"] {
		t.Errorf("vaults = %v, want demo and second", again.Vaults)
	}
	if got := again.manage(t, "vm", "get", "vm1").Identity.PrincipalID; got != vm1.Identity.PrincipalID {
		t.Errorf("vm1 is principal %s, want %s", got, vm1.Identity.PrincipalID)
	}
	if r := again.as(t, "vm1", "innate", "secret", "get", "demo/more"); r.out != "one more\n" {
		t.Errorf("the secret: %s", r)
	}
	if r := again.call(t, http.MethodGet, again.secretURL("greeting"), token, ""); r.status != http.StatusOK {
		t.Errorf("a token from before: %d %s", r.status, r.body)
	}
	// A variable from before the restart is good no more: its secret ended.
	if r := again.ask(t, first.Resources["vm1"].Env["IDENTITY_HEADER"]); r.status != http.StatusUnauthorized {
		t.Errorf("a start's secret from before: %d, want 401", r.status)
	}
}

// The sample is the user's: a machine of it that was deleted and made again is
// another machine, which does not keep the instance from starting.
func TestSampleMachineMadeAgain(t *testing.T) {
	t.Parallel()
	in := start(t)
	old := in.manage(t, "vm", "get", "vm1")
	in.manage(t, "vm", "delete", "vm1")
	vm := in.manage(t, "vm", "create", "vm1", "SystemAssigned")
	if vm.Identity.PrincipalID == old.Identity.PrincipalID {
		t.Errorf("the new vm1 is the old principal %s", old.Identity.PrincipalID)
	}
	// It is placed here when it is run, on record, and has none of the old one's rights.
	if r := in.as(t, "vm1", "readsecret"); r.code != 1 || !r.says("ForbiddenByRbac", "oid="+vm.Identity.PrincipalID) {
		t.Errorf("readsecret as the new vm1: %s", r)
	}
	in.manage(t, "vm", "delete", "vm1")
	vm = in.manage(t, "vm", "create", "vm1", "SystemAssigned")
	in.stop(t)

	// Made again and not run since, it is no reason not to start.
	in = startOn(t, in.dir)
	if r := in.as(t, "vm1", "true"); r.code != 1 || !r.says(`there is no sample resource "vm1"`, "or give a resource ID") {
		t.Errorf("run vm1: %s", r)
	}
	if r := in.as(t, vm.ID, "readsecret"); r.code != 1 || !r.says("ForbiddenByRbac", "oid="+vm.Identity.PrincipalID) {
		t.Errorf("readsecret as the new vm1: %s", r)
	}
	if r := in.as(t, "app1", "true"); r.code != 0 {
		t.Errorf("run app1: %s", r)
	}
}

// newVault makes a vault as ops.
func (in *instance) newVault(t *testing.T, name string) {
	t.Helper()
	url := in.Endpoints.Management + in.id("Microsoft.KeyVault/vaults", name) + "?api-version=2024-11-01"
	r := in.call(t, http.MethodPut, url, in.token(t, "ops", in.Endpoints.Management), `{"location":"local"}`)
	if r.status != http.StatusCreated {
		t.Fatalf("PUT %s = %d %s", url, r.status, r.body)
	}
}

// ask asks App Service's endpoint for a token with a start's secret.
func (in *instance) ask(t *testing.T, secret string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.Endpoints.Metadata+"/msi/token?api-version=2019-08-01&resource=https://vault.azure.net", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-IDENTITY-HEADER", secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return response{status: resp.StatusCode}
}

func TestSecondInstanceOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.exec(t, "", "innate", "dev", "--data", in.dir, "--port", "0")
	if r.code != 1 || r.out != "" || !r.says("already running on "+in.dir, fmt.Sprintf("(process %d)", in.PID), "--data DIR --port 0") {
		t.Errorf("a second innate dev: %s", r)
	}
	// Not even with --reset, and the first is unharmed.
	if r := in.exec(t, "", "innate", "dev", "--data", in.dir, "--port", "0", "--reset"); r.code != 1 || !r.says("already running") {
		t.Errorf("a second innate dev --reset: %s", r)
	}
	if r := in.as(t, "vm1", "innate", "secret", "get", "demo/greeting"); r.out != greeting+"\n" {
		t.Errorf("the first: %s", r)
	}
	u, err := url.Parse(in.Endpoints.Login)
	if err != nil {
		t.Fatal(err)
	}
	if r := in.exec(t, "", "innate", "dev", "--data", newFolder(t), "--port", u.Port()); r.code != 1 || !r.says("port "+u.Port()+" is in use", "--port 0") {
		t.Errorf("another on the same port: %s", r)
	}
}

func TestResetStartsOver(t *testing.T) {
	t.Parallel()
	first := start(t)
	if r := first.exec(t, "old", "innate", "secret", "set", "demo/old"); r.code != 0 {
		t.Fatal(r)
	}
	first.stop(t)
	mine := filepath.Join(first.dir, "notes.txt")
	if err := os.WriteFile(mine, []byte("not Innate's"), 0o600); err != nil {
		t.Fatal(err)
	}

	again := startOn(t, first.dir, "--reset")
	if again.TenantID == first.TenantID || again.SubscriptionID == first.SubscriptionID {
		t.Errorf("after --reset the ids are the same: %s, %s", again.TenantID, again.SubscriptionID)
	}
	if r := again.exec(t, "", "innate", "secret", "get", "demo/old"); r.code != 1 || !r.says("SecretNotFound") {
		t.Errorf("the old secret: %s", r)
	}
	if r := again.as(t, "vm1", "innate", "secret", "get", "demo/greeting"); r.out != greeting+"\n" {
		t.Errorf("the new sample: %s", r)
	}
	if !exists(mine) {
		t.Error("--reset deleted a file that is not Innate's")
	}
}

// A folder that is somebody's work, or open to others, is refused as it is.
func TestFolderOfSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	work := filepath.Join(t.TempDir(), "work")
	if err := os.MkdirAll(filepath.Join(work, "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(work, "agent", "main.go")
	if err := os.WriteFile(main, []byte("package main"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := in.exec(t, "", "innate", "dev", "--data", work, "--port", "0", "--reset"); r.code != 1 || !r.says(work, "--data DIR") || !exists(main) {
		t.Errorf("innate dev --reset on a project: %s", r)
	}
	// One that others can enter, with something in it, is theirs as well.
	open := t.TempDir()
	if err := os.WriteFile(filepath.Join(open, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := in.exec(t, "", "innate", "dev", "--data", open, "--port", "0"); r.code != 1 || !r.says("run: chmod 700 "+open) {
		t.Errorf("innate dev on an open folder: %s", r)
	}
	if fi, err := os.Stat(open); err != nil || fi.Mode().Perm()&0o077 == 0 {
		t.Errorf("the open folder is closed: %v, %v", fi.Mode(), err)
	}
}

// A door answers the programs of the user who runs innate dev, and nobody
// else's on the machine: one of them answers as the owner of everything.
func TestDoorsAnswerTheirUserAlone(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 && !skipped("root") {
		t.Fatal("playing another user takes root: run the tests as root, or set INNATE_SKIP=root")
	}
	in := start(t)
	for name, w := range in.Resources {
		ask := []string{"curl", "-s", "-H", "Metadata: true", w.Env["ARM_MSI_ENDPOINT"] + "?api-version=2018-02-01&resource=https://management.azure.com/"}
		mine, err := exec.Command(ask[0], ask[1:]...).Output()
		if got := strings.Contains(string(mine), `"access_token":`); err != nil || got != (name != "vm2") {
			t.Errorf("%s, to its own user: %s, %v", name, mine, err)
		}
		if os.Getuid() != 0 {
			continue
		}
		other := exec.Command(ask[0], ask[1:]...)
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		theirs, err := other.Output()
		if err != nil || strings.Contains(string(theirs), "access_token") || !strings.Contains(string(theirs), `"error":`) {
			t.Errorf("%s, to another user: %s, %v; want a refusal", name, theirs, err)
		}
	}
}

// A host that was deleted does not keep the data from its owner.
func TestDeletedHostIsThereAfterARestart(t *testing.T) {
	t.Parallel()
	in := start(t)
	if r := in.call(t, http.MethodDelete, in.Endpoints.Management+in.Host+"?api-version=2026-01-01", in.token(t, "ops", in.Endpoints.Management), ""); r.status != http.StatusOK {
		t.Fatalf("DELETE host = %d %s", r.status, r.body)
	}
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-in.ended // its agent has nobody to report to; how it ends is not the point
	in = startOn(t, in.dir)
	if r := in.as(t, "vm1", "readsecret"); r.out != greeting+"\n" {
		t.Errorf("readsecret: %s", r)
	}
	in.manage(t, "vm", "get", "vm1")
}

func TestNoSample(t *testing.T) {
	t.Parallel()
	in := start(t, "--no-sample")
	if got := slices.Sorted(maps.Keys(in.Resources)); !slices.Equal(got, []string{"ops"}) || len(in.Vaults) != 0 {
		t.Errorf("resources %q and vaults %v, want ops and none", got, in.Vaults)
	}
	if r := in.as(t, "vm1", "true"); r.code != 1 || !r.says(`there is no sample resource "vm1"; there are: ops`) {
		t.Errorf("run vm1: %s", r)
	}
	// Everything can be made from here: ops owns the subscription.
	vm := in.manage(t, "vm", "create", "mine", "SystemAssigned")
	in.newVault(t, "mine")
	in.manage(t, "role", "assign", in.id("Microsoft.KeyVault/vaults", "mine"), roleSecretsOfficer, vm.Identity.PrincipalID)
	if r := in.exec(t, "v", "innate", "secret", "set", "mine/s", "--as", vm.ID); r.code != 0 {
		t.Errorf("set as a new machine: %s", r)
	}
	if r := in.exec(t, "", "innate", "secret", "get", "mine/s", "--as", vm.ID); r.out != "v\n" {
		t.Errorf("get as a new machine: %s", r)
	}
}

const roleSecretsOfficer = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"

// Two installations on one machine are strangers.
func TestTwoInstancesSideBySide(t *testing.T) {
	t.Parallel()
	one, two := start(t), start(t)
	if one.TenantID == two.TenantID || one.Endpoints.Login == two.Endpoints.Login {
		t.Errorf("both are %s at %s", one.TenantID, one.Endpoints.Login)
	}
	for _, in := range []*instance{one, two} {
		if r := in.as(t, "vm1", "readsecret"); r.out != greeting+"\n" {
			t.Errorf("readsecret: %s", r)
		}
	}
	token := one.token(t, "vm1", "https://vault.azure.net")
	if r := two.call(t, http.MethodGet, two.secretURL("greeting"), token, ""); r.status != http.StatusUnauthorized {
		t.Errorf("a token of the one at the other's vault: %d %s, want 401", r.status, r.body)
	}
	if r := two.ask(t, one.Resources["vm1"].Env["IDENTITY_HEADER"]); r.status != http.StatusUnauthorized {
		t.Errorf("a start's secret of the one at the other's endpoint: %d, want 401", r.status)
	}
}
