package server_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/resource"
)

// TestPatchesWithIfMatchLoseNothing: two clients add to one number, each by what
// it read, and the sum is right.
func TestPatchesWithIfMatchLoseNothing(t *testing.T) {
	t.Parallel()
	const clients, rounds = 2, 25
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, database(t))
			p.serve(map[string]resource.ID{})
			owner := p.owner()
			vm := p.in("Microsoft.Compute/virtualMachines", "counted").String()
			if err := owner.must(http.MethodPut, vm, `{"location":"local","properties":{"n":0}}`, nil, 201); err != nil {
				t.Fatal(err)
			}
			type state struct {
				ETag       string
				Properties struct{ N int }
			}
			var refused sync.Map
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					for done := 0; done < rounds && !t.Failed(); {
						var is state
						if err := owner.must(http.MethodGet, vm, "", &is, 200); err != nil {
							t.Error(err)
							return
						}
						body := fmt.Sprintf(`{"properties":{"n":%d}}`, is.Properties.N+1)
						status, text, err := owner.arm(http.MethodPatch, vm, body, nil, "If-Match", `"`+is.ETag+`"`)
						switch {
						case err != nil:
							t.Error(err)
						case status == http.StatusOK:
							done++
						case status == http.StatusPreconditionFailed:
							refused.Store(c, true)
						default:
							t.Errorf("PATCH = %d %s", status, text)
						}
					}
				})
			}
			all.Wait()
			var is state
			if err := owner.must(http.MethodGet, vm, "", &is, 200); err != nil {
				t.Fatal(err)
			}
			if is.Properties.N != clients*rounds {
				t.Errorf("the number is %d, want %d", is.Properties.N, clients*rounds)
			}
		})
	}
}

const (
	churners   = 32
	churnOps   = 12
	churnNames = 6
)

// TestChurnLeavesNothingDangling: 32 clients attach, detach, enable, disable,
// create, delete, recover, move and assign roles, all on the same few things.
// Whatever comes of each, at no moment is there a principal without its
// resource, or a role assignment without its principal or its scope.
func TestChurnLeavesNothingDangling(t *testing.T) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, database(t))
			p.serve(map[string]resource.ID{})
			owner := p.owner()
			other := p.group.SubscriptionID().String() + "/resourceGroups/other"
			if err := owner.must(http.MethodPut, other, `{"location":"local"}`, nil, 201); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			var did sync.Map
			for i := range churners {
				c := &churner{owner, rand.New(rand.NewPCG(uint64(i), 17)), []string{p.group.String(), other}, &did}
				all.Go(func() {
					for range churnOps {
						if err := c.once(); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			done := make(chan struct{})
			go func() { all.Wait(); close(done) }()
			for over := false; !over; {
				select {
				case <-done:
					over = true
				default:
				}
				p.check()
			}
			// What was meant to happen did.
			for _, op := range []string{"attach", "enable", "disable", "create", "delete", "assign", "move", "recover"} {
				if _, ok := did.Load(op); !ok {
					t.Errorf("of all that was done, no %s came to anything", op)
				}
			}
		})
	}
}

// churner is one client with a mind of its own.
type churner struct {
	*program
	rand   *rand.Rand
	groups []string
	did    *sync.Map
}

func (c *churner) pick(typ string) string {
	return fmt.Sprint(c.groups[c.rand.IntN(len(c.groups))], "/providers/", typ, "/thing", c.rand.IntN(churnNames))
}

func (c *churner) vm() string  { return c.pick("Microsoft.Compute/virtualMachines") }
func (c *churner) uai() string { return c.pick("Microsoft.ManagedIdentity/userAssignedIdentities") }

// once does one thing. What the world is like just then decides what comes of
// it: anything but a fault of the server's, and but a success that is none.
func (c *churner) once() error {
	type op struct{ name, method, path, body string }
	vm, uai := c.vm(), c.uai()
	with := func(typ string) string {
		return `{"location":"local","identity":{"type":"` + typ + `","userAssignedIdentities":{"` + uai + `":{}}}}`
	}
	ops := []op{
		{"create", http.MethodPut, uai, `{"location":"local"}`},
		{"create", http.MethodPut, uai, `{"location":"local"}`},
		{"delete", http.MethodDelete, uai, ""},
		{"delete", http.MethodDelete, vm, ""},
		{"enable", http.MethodPut, vm, `{"location":"local","identity":{"type":"SystemAssigned"}}`},
		{"disable", http.MethodPut, vm, `{"location":"local","identity":{"type":"None"}}`},
		{"attach", http.MethodPut, vm, with("SystemAssigned, UserAssigned")},
		{"attach", http.MethodPatch, vm, with("UserAssigned")},
		{"detach", http.MethodPatch, vm, `{"identity":{"userAssignedIdentities":{"` + uai + `":null}}}`},
		{"assign", "ASSIGN", uai, vm},
		{"assign", "ASSIGN", vm, uai},
		{"assign", "ASSIGN", uai, c.uai()},
		{"move", "MOVE", uai, vm},
		{"move", "MOVE", vm, ""},
		{"recover", "RECOVER", "", ""},
		{"recover", "RECOVER", "", ""},
	}
	o := ops[c.rand.IntN(len(ops))]
	var status int
	var text string
	var err error
	switch o.method {
	case "ASSIGN":
		status, text, err = c.assign(o.path, o.body)
	case "MOVE":
		status, text, err = c.move(o.path, o.body)
	case "RECOVER":
		status, text, err = c.recover()
	default:
		status, text, err = c.arm(o.method, o.path, o.body, nil)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", o.name, o.path, err)
	case status >= 500 || status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("%s %s %s = %d %s", o.name, o.path, o.body, status, text)
	case status < 300:
		c.did.Store(o.name, true)
	}
	return nil
}

// assign gives the identity of one thing a role at another.
func (c *churner) assign(of, at string) (int, string, error) {
	var has struct {
		Properties, Identity struct{ PrincipalID string }
	}
	status, text, err := c.arm(http.MethodGet, of, "", &has)
	oid := has.Properties.PrincipalID + has.Identity.PrincipalID
	if err != nil || status != http.StatusOK || oid == "" {
		return status, text, err
	}
	body := fmt.Sprintf(`{"properties":{"roleDefinitionId":"%s%s","principalId":"%s"}}`, roleDefinition, secretsUser, oid)
	return c.arm(http.MethodPut, at+"/providers/Microsoft.Authorization/roleAssignments/"+uuid.NewString(), body, nil)
}

// move moves one thing, or two of the same group, to the other group.
func (c *churner) move(ids ...string) (int, string, error) {
	from := 0
	if strings.HasPrefix(ids[0], c.groups[1]+"/") {
		from = 1
	}
	what := []string{ids[0]}
	if strings.HasPrefix(ids[1], c.groups[from]+"/") {
		what = append(what, ids[1])
	}
	body, err := json.Marshal(map[string]any{"resources": what, "targetResourceGroup": c.groups[1-from]})
	if err != nil {
		return 0, "", err
	}
	return c.arm(http.MethodPost, c.groups[from]+"/moveResources", string(body), nil)
}

// recover brings back one of the identities that were deleted.
func (c *churner) recover() (int, string, error) {
	var deleted struct{ Value []struct{ ID string } }
	sub := c.p.group.SubscriptionID().String()
	status, text, err := c.arm(http.MethodGet, sub+"/providers/Microsoft.ManagedIdentity/deletedUserAssignedIdentities", "", &deleted)
	if err != nil || status != http.StatusOK || len(deleted.Value) == 0 {
		return http.StatusNotFound, text, err
	}
	id := deleted.Value[c.rand.IntN(len(deleted.Value))].ID
	return c.arm(http.MethodPost, id+"/recover", "", nil)
}
