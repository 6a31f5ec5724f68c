package server_test

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/resource"
)

const (
	loopClients    = 16
	secretsUser    = "4633458b-17de-408a-b874-0445c86b69e6"
	roleDefinition = "/providers/Microsoft.Authorization/roleDefinitions/"
)

// loops is how often the four steps are done in all: INNATE_LOOPS says it, for
// the long run.
func loops(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("INNATE_LOOPS")
	if text == "" {
		return 320
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("INNATE_LOOPS is %q; a number was expected", text)
	}
	return n
}

// TestFourStepsWithoutASleep is what a user's script does: make an identity,
// give it a role, attach it, get a token for it as the workload and use that.
// 16 clients do so again and again, with no sleep and no retry, and nothing is
// refused.
func TestFourStepsWithoutASleep(t *testing.T) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, database(t))
			doors := map[string]resource.ID{}
			for i := range loopClients {
				vm := p.in("Microsoft.Compute/virtualMachines", fmt.Sprint("vm", i))
				if err := p.Put(t.Context(), vm, map[string]any{"location": "local"}); err != nil {
					t.Fatal(err)
				}
				doors[fmt.Sprint("vm", i)] = vm
			}
			kv := p.in("Microsoft.KeyVault/vaults", "loops")
			if err := p.Put(t.Context(), kv, map[string]any{"location": "local"}); err != nil {
				t.Fatal(err)
			}
			p.serve(doors)
			owner := p.owner()
			secret := p.Server.Names.Vault("loops") + "/secrets/s?api-version=7.4"
			p.setSecret(owner, kv, secret)

			var next atomic.Int64
			n := loops(t)
			begin := time.Now()
			var all sync.WaitGroup
			for i := range loopClients {
				l := &loop{program: p.program(fmt.Sprint("vm", i)), owner: owner, vm: doors[fmt.Sprint("vm", i)], kv: kv, secret: secret}
				all.Go(func() {
					for k := next.Add(1); k <= n && !t.Failed(); k = next.Add(1) {
						if err := l.once(k); err != nil {
							t.Errorf("round %d: %v", k, err)
						}
					}
				})
			}
			all.Wait()
			took := time.Since(begin)
			t.Logf("%d rounds from %d clients in %v: %.0f a second", n, loopClients, took.Round(time.Millisecond), float64(n)/took.Seconds())
			p.check()
		})
	}
}

// setSecret has the owner's own identity set the secret that all read.
func (p *plane) setSecret(owner *program, kv resource.ID, url string) {
	p.t.Helper()
	if err := p.Assign(p.t.Context(), p.ops, "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", kv); err != nil {
		p.t.Fatal(err)
	}
	tok, err := owner.token("https://vault.azure.net", "")
	if err != nil {
		p.t.Fatal(err)
	}
	if status, text, err := owner.call(tok, http.MethodPut, url, `{"value":"hello"}`, nil); err != nil || status != http.StatusOK {
		p.t.Fatalf("setting the secret: %d %s %v", status, text, err)
	}
}

// check fails if anything dangles.
func (p *plane) check() {
	p.t.Helper()
	faults, err := p.Server.DB.Check(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range faults {
		p.t.Error(f)
	}
}

// loop is one client: a script that manages, and a workload on its machine.
type loop struct {
	*program
	owner  *program
	vm, kv resource.ID
	secret string
}

func (l *loop) once(k int64) error {
	uai := l.p.in("Microsoft.ManagedIdentity/userAssignedIdentities", fmt.Sprint("id-", k)).String()
	var made struct {
		Properties struct{ PrincipalID, ClientID string }
	}
	if err := l.owner.must(http.MethodPut, uai, `{"location":"local"}`, &made, 201); err != nil {
		return err
	}
	role := l.kv.String() + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString()
	body := fmt.Sprintf(`{"properties":{"roleDefinitionId":"%s%s","principalId":"%s"}}`, l.kv.SubscriptionID().String()+roleDefinition, secretsUser, made.Properties.PrincipalID)
	if err := l.owner.must(http.MethodPut, role, body, nil, 201); err != nil {
		return err
	}
	if err := l.owner.must(http.MethodPatch, l.vm.String(), `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"`+uai+`":{}}}}`, nil, 200); err != nil {
		return err
	}
	tok, err := l.token("https://vault.azure.net", made.Properties.ClientID)
	if err != nil {
		return err
	}
	var got struct{ Value string }
	if status, text, err := l.call(tok, http.MethodGet, l.secret, "", &got); err != nil || status != http.StatusOK || got.Value != "hello" {
		return fmt.Errorf("reading the secret = %d %s, %v", status, text, err)
	}
	return l.owner.must(http.MethodDelete, uai, "", nil, 200)
}
