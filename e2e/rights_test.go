package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const roleSecretsUser = "4633458b-17de-408a-b874-0445c86b69e6"

// site reads a web app through the management API, by hand.
func (in *instance) site(t *testing.T, name string) managed {
	t.Helper()
	url := in.Endpoints.Management + in.id("Microsoft.Web/sites", name) + "?api-version=2024-04-01"
	r := in.call(t, http.MethodGet, url, in.token(t, "ops", in.Endpoints.Management), "")
	var m managed
	if err := json.Unmarshal([]byte(r.body), &m); err != nil || r.status != http.StatusOK {
		t.Fatalf("GET %s = %d %s", url, r.status, r.body)
	}
	return m
}

// holder is a workload that goes on running, with one client and one token.
type holder struct {
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
}

type answer struct {
	Value  string
	Status int
	Error  string
	Tokens int
}

// hold starts a holder, with more variables in front of its command if env is
// not empty.
func (in *instance) hold(t *testing.T, workload string, l language, env ...string) *holder {
	t.Helper()
	args := append([]string{"run", workload, "--", "env"}, env...)
	cmd := exec.Command(filepath.Join(bin, "innate"), append(args, l.command(t, "holder")...)...)
	cmd.Env = in.env()
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(commandLimit, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close() // that ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("holder as %s: %v", workload, err)
		}
		watchdog.Stop()
	})
	return &holder{t: t, in: stdin, lines: bufio.NewScanner(stdout)}
}

// read asks the holder to read a secret now.
func (h *holder) read(name string) answer {
	h.t.Helper()
	if _, err := io.WriteString(h.in, name+"\n"); err != nil {
		h.t.Fatal(err)
	}
	if !h.lines.Scan() {
		h.t.Fatalf("the holder ended: %v", h.lines.Err())
	}
	var a answer
	if err := json.Unmarshal(h.lines.Bytes(), &a); err != nil {
		h.t.Fatalf("the holder printed %q: %v", h.lines.Text(), err)
	}
	return a
}

// A right that is given works on the next call, and one that is taken away is
// gone on the next call, for a program whose token was issued before either.
func TestRightsComeAndGoUnderOneToken(t *testing.T) {
	t.Parallel()
	in := start(t)
	app := in.site(t, "app1")
	each(t, func(t *testing.T, l language) {
		h := in.hold(t, "app1", l)
		first := h.read("greeting")
		if first.Status != http.StatusForbidden || first.Tokens == 0 {
			t.Fatalf("without the role: %+v, want 403", first)
		}
		for range 3 {
			given := in.manage(t, "role", "assign", in.id("Microsoft.KeyVault/vaults", "demo"), roleSecretsUser, app.Identity.PrincipalID)
			if a := h.read("greeting"); a.Value != greeting || a.Tokens != first.Tokens {
				t.Errorf("with the role: %+v, want the greeting under the same token (%d)", a, first.Tokens)
			}
			in.manage(t, "role", "remove", given.ID)
			if a := h.read("greeting"); a.Status != http.StatusForbidden || a.Tokens != first.Tokens {
				t.Errorf("after the role was removed: %+v, want 403 under the same token (%d)", a, first.Tokens)
			}
		}
	})
}

// A machine that is deleted is nobody at once: its token, good for most of an
// hour by what it says, is refused, and it gets no other.
func TestDeletedMachineIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	in := start(t)
	each(t, func(t *testing.T, l language) {
		name := "gone-" + string(l)
		vm := in.manage(t, "vm", "create", name, "SystemAssigned")
		in.manage(t, "role", "assign", in.id("Microsoft.KeyVault/vaults", "demo"), roleSecretsUser, vm.Identity.PrincipalID)
		in.refusedWhen(t, vm.ID, l, func() { in.manage(t, "vm", "delete", name) })
		if r := in.as(t, "ops", "manage", "vm", "get", name); r.code != 1 || !r.says("404 Not Found", "ResourceNotFound") {
			t.Errorf("the deleted machine: %s", r)
		}
	})
	t.Run("of the sample", func(t *testing.T) {
		in.refusedWhen(t, "vm1", "go", func() { in.manage(t, "vm", "delete", "vm1") })
	})
}

// refusedWhen checks that a workload reads the greeting until gone has
// returned, and not once after.
func (in *instance) refusedWhen(t *testing.T, workload string, l language, gone func()) {
	t.Helper()
	token := in.token(t, workload, "https://vault.azure.net")
	h := in.hold(t, workload, l)
	if a := h.read("greeting"); a.Value != greeting {
		t.Fatalf("before: %+v", a)
	}
	if r := in.call(t, http.MethodGet, in.secretURL("greeting"), token, ""); r.status != http.StatusOK {
		t.Fatalf("before: %d %s", r.status, r.body)
	}
	gone()
	r := in.call(t, http.MethodGet, in.secretURL("greeting"), token, "")
	if r.status != http.StatusUnauthorized || !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer ") {
		t.Errorf("the token from before: %d %s, want 401 with a challenge", r.status, r.body)
	}
	if a := h.read("greeting"); a.Status != http.StatusUnauthorized {
		t.Errorf("the program from before: %+v, want 401", a)
	}
	in.refusedWithinBound(t, "token", "--as", workload, "--resource", "https://vault.azure.net")
}

// bound is the longest that an agent may answer from memory after something
// has changed: the freshness rule.
const bound = time.Second

// refusedWithinBound runs an innate command over and over until it is refused,
// and returns what that said. A success that was asked for after the bound
// fails the test.
func (in *instance) refusedWithinBound(t *testing.T, args ...string) result {
	t.Helper()
	changed := time.Now()
	for {
		late := time.Since(changed) > bound
		r := in.exec(t, "", "innate", args...)
		if r.code == 1 && r.out == "" {
			return r
		}
		if late || r.code != 0 {
			t.Fatalf("innate %q, %s after the change: %s\nwant it to be refused", args, bound, r)
		}
	}
}

// The same for an identity that many resources may have: it is taken off them.
func TestDeletedIdentityIsDetachedAndRefused(t *testing.T) {
	t.Parallel()
	in := start(t)
	client := in.manage(t, "identity", "get", "shared").Properties.ClientID
	ask := []string{"token", "--as", "app1", "--client-id", client, "--resource", "https://vault.azure.net"}
	token := in.must(t, ask...)
	if r := in.call(t, http.MethodGet, in.secretURL("greeting"), token, ""); r.status != http.StatusOK {
		t.Fatalf("before: %d %s", r.status, r.body)
	}
	if have := in.site(t, "app1").Identity; have.Type != "SystemAssigned, UserAssigned" || len(have.UserAssignedIdentities) != 1 {
		t.Fatalf("before: app1 has %+v", have)
	}

	in.manage(t, "identity", "delete", "shared")

	if have := in.site(t, "app1").Identity; have.Type != "SystemAssigned" || len(have.UserAssignedIdentities) != 0 {
		t.Errorf("after: app1 has %+v, want its own identity alone", have)
	}
	if r := in.call(t, http.MethodGet, in.secretURL("greeting"), token, ""); r.status != http.StatusUnauthorized {
		t.Errorf("its token: %d %s, want 401", r.status, r.body)
	}
	if r := in.refusedWithinBound(t, ask...); !r.says("No User Assigned or Delegated Managed Identity found") {
		t.Errorf("a new token: %s", r)
	}
}

// Create, attach, assign, use: one script, no sleep, no retry.
func TestNewMachineWithANewIdentityReadsAtOnce(t *testing.T) {
	t.Parallel()
	in := start(t)
	each(t, func(t *testing.T, l language) {
		identity := in.manage(t, "identity", "create", "id-"+string(l))
		vm := in.manage(t, "vm", "create", "vm-"+string(l))
		if vm.Identity.Type != "" {
			t.Errorf("a new machine has %+v, want no identity", vm.Identity)
		}
		in.manage(t, "vm", "attach", "vm-"+string(l), identity.ID)
		in.manage(t, "role", "assign", in.id("Microsoft.KeyVault/vaults", "demo")+"/secrets/greeting", roleSecretsUser, identity.Properties.PrincipalID)
		if r := in.as(t, vm.ID, l.command(t, "readsecret")...); r.code != 0 || r.out != greeting+"\n" {
			t.Errorf("readsecret as the new machine: %s", r)
		}
		if got := in.manage(t, "vm", "get", "vm-"+string(l)).Identity; got.UserAssignedIdentities[identity.ID].ClientID != identity.Properties.ClientID {
			t.Errorf("the machine has %+v, want %s", got, identity.ID)
		}
	})
}
