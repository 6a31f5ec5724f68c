package agent_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const shared = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared"

// rule is an enforced rule on web1 about this test's own user.
func rule(change ...func(*fleetapi.CallerRule)) fleetapi.CallerRule {
	r := fleetapi.CallerRule{Resource: web1, Name: "ours", Selectors: []string{"unix:uid:" + strconv.Itoa(os.Getuid())}, Mode: fleetapi.ModeEnforce}
	for _, f := range change {
		f(&r)
	}
	return r
}

func named(name string) func(*fleetapi.CallerRule) {
	return func(r *fleetapi.CallerRule) { r.Name = name }
}
func gives(id string) func(*fleetapi.CallerRule) {
	return func(r *fleetapi.CallerRule) { r.Identity = id }
}
func audience(a string) func(*fleetapi.CallerRule) {
	return func(r *fleetapi.CallerRule) { r.Audiences = []string{a} }
}
func audited(r *fleetapi.CallerRule) { r.Mode = fleetapi.ModeAudit }
func anothers(r *fleetapi.CallerRule) {
	r.Name, r.Selectors = "anothers", []string{"unix:path:/usr/bin/another"}
}
func graded(grade string) func(*fleetapi.CallerRule) {
	return func(r *fleetapi.CallerRule) { r.Grade = grade }
}

func wantRefused(t *testing.T, r reply, says string) {
	t.Helper()
	if r.Status != http.StatusForbidden || !strings.Contains(r.Body, says) {
		t.Fatalf("answer = %d %s, want 403 with %q", r.Status, r.Body, says)
	}
}

// With one rule on a resource, everything that no rule allows is refused:
// also what is in memory, and over a connection that was there before.
func TestOneRuleClosesTheResource(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	synced(t, a, cp.Rule(rule(anothers)))
	wantRefused(t, imds(t, a, ""), "no caller rule of the resource allows it")
	agenttest.Eventually(t, "the refusal was shipped", func() bool {
		_, _, refused := cp.Recorded("no caller rule")
		return refused == 1
	})
	if r := imds(t, a, ""); strings.Contains(r.Body, "/usr/bin/another") {
		t.Errorf("the refusal says what another's rule asks for: %s", r.Body)
	}
	if n := cp.Calls(fleetapi.PathToken); n != 1 {
		t.Errorf("the control plane was asked for %d tokens, want 1", n)
	}
	// Of another resource nothing changed, and of this one when the rule goes.
	synced(t, a, cp.Rule(fleetapi.CallerRule{Resource: shop, Name: "x", Selectors: []string{"unix:uid:1"}, Mode: fleetapi.ModeEnforce}))
	wantToken(t, imds(t, a, ""), "token-1")
}

func TestRuleMadeJustNowCountsAtOnce(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(anothers))
	a := begin(t, config(t, cp))
	wantRefused(t, imds(t, a, ""), "no caller rule")
	cp.RuleUnsaid(rule(anothers), rule()) // the stream has not said it
	wantToken(t, imds(t, a, ""), "token-1")
}

// A right taken away counts when the stream has said so, also for what is in
// memory; and if the stream is silent, within the bound, by the control plane.
func TestRuleTakenAwayCounts(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(), rule(anothers))
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	synced(t, a, cp.Rule(rule(anothers)))
	wantRefused(t, imds(t, a, ""), "no caller rule")

	synced(t, a, cp.Rule(rule(), rule(anothers)))
	wantToken(t, imds(t, a, ""), "token-1")
	cp.Mute(true)
	cp.Rule(rule(anothers))
	cp.Decide(func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		return fleetapi.TokenResponse{}, problem.Errorf(problem.CallerRefused, "the caller rules refuse it")
	})
	agenttest.Eventually(t, "the last word is older than the bound", func() bool {
		return a.Status().AgeMS > fleetapi.Bound.Milliseconds()
	})
	wantRefused(t, imds(t, a, ""), "no caller rule") // read anew, for the control plane said no
}

func TestAudienceOfARule(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(audience(vault + "/")))
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	synced(t, a, cp.Rule(rule(audience("api://shop"))))
	wantRefused(t, imds(t, a, ""), "no caller rule")
}

// A rule that names an identity ends "several identities exist": a program
// that names none is given the rule's.
func TestRuleNamesTheDefaultIdentity(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(gives(shared)))
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		if req.ResourceID == "" && req.ClientID == "" {
			return fleetapi.TokenResponse{}, problem.Errorf(problem.IdentityNotFound, "web1 has several user-assigned identities; name one")
		}
		tok := cp.Mint(req)
		if req.ClientID != "" {
			tok.Identity = shared[:len(shared)-len("shared")] + "other"
		}
		return tok, nil
	})
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	wantToken(t, imds(t, a, "&msi_res_id="+strings.ToUpper(shared)[:14]+shared[14:]), "token-1")
	if got := cp.Asked()[0].ResourceID; got != shared {
		t.Errorf("the control plane was asked for %q, want the rule's %s", got, shared)
	}
	// Another one by name: known by its resource ID, refused before it is asked for;
	wantRefused(t, imds(t, a, "&msi_res_id="+web1), "no caller rule")
	if n := len(cp.Asked()); n != 1 {
		t.Errorf("the control plane was asked %d times, want 1", n)
	}
	// by its client id, when it is known whose it is, from memory too.
	for range 2 {
		wantRefused(t, imds(t, a, "&client_id=6f1e6a3c-0000-4000-8000-000000000009"), "no caller rule")
	}
	agenttest.Eventually(t, "the refusals were shipped", func() bool {
		_, _, refused := cp.Recorded("no caller rule")
		return refused == 3
	})
	if served, _, _ := cp.Recorded(""); served != 1 {
		t.Errorf("%d answers from memory are on record, want 1: what was refused was not served", served)
	}
}

// The resource's own identity has no resource ID to be asked by.
func TestRuleNamesTheSystemAssignedIdentity(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(gives(strings.ToUpper(web1))))
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	if got := cp.Asked()[0]; got.ResourceID != "" {
		t.Errorf("the control plane was asked for the identity %q, want the default one", got.ResourceID)
	}
	// It has none any more, and the default became another.
	cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(req)
		tok.Identity = shared
		return tok, nil
	})
	wantRefused(t, imds(t, a, "&bypass_cache=true"), "no caller rule")
	wantRefused(t, imds(t, a, ""), "no caller rule") // nor from memory
}

func TestTwoRulesWithTwoIdentities(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(gives(shared)), rule(named("own"), gives(web1)))
	a := begin(t, config(t, cp))
	wantRefused(t, imds(t, a, ""), "name one in the request")
	wantToken(t, imds(t, a, "&msi_res_id="+shared), "token-1")
}

func TestGradeDemanded(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	onShop := func(r *fleetapi.CallerRule) { r.Resource = shop }
	cp.Rule(rule(graded("kernel")), rule(graded("kernel"), onShop))
	cfg := config(t, cp)
	a := begin(t, cfg)
	// What comes over loopback is known after the fact at best.
	wantRefused(t, imds(t, a, ""), "no caller rule")
	synced(t, a, cp.Rule(rule(graded("after-the-fact"))))
	wantToken(t, imds(t, a, ""), "token-1")
	// A start shows a secret: less than that.
	_, s, _, _ := start(t, cfg.ControlSocket, shop)
	synced(t, a, cp.Rule(rule(graded("after-the-fact"), onShop)))
	wantRefused(t, app(t, s.Endpoint, s.Header), "no caller rule")
	synced(t, a, cp.Rule(rule(graded("secret"), onShop)))
	wantToken(t, app(t, s.Endpoint, s.Header), "token-2")
}

// An interpreter's own file names no program: a rule by it alone lets in none.
func TestInterpreterIsNotNamedByItsFile(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "all", Door: "run", Resource: shop})
	python := rule(func(r *fleetapi.CallerRule) { r.Resource, r.Selectors = shop, []string{"unix:sha256:aa"} })
	cp.Rule(python)
	a := begin(t, config(t, cp))
	ev := evidence.Evidence{Selectors: []evidence.Selector{"systemd:id:shop.service", "unix:sha256:aa"}}
	ask := func(interpreter bool) reply {
		ev.Interpreter = interpreter
		header, release, err := a.NewStart(shop, ev, "")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		return app(t, "http://"+a.AppAddr()+"/msi/token", header)
	}
	wantRefused(t, ask(true), "no caller rule")
	wantToken(t, ask(false), "token-1")
	// The same in words, and judged each by its own: the token in memory does
	// not let the interpreter in.
	wantRefused(t, ask(true), "no caller rule")
	python.Selectors = append(python.Selectors, "systemd:id:shop.service")
	synced(t, a, cp.Rule(python))
	wantToken(t, ask(true), "token-1")
	want := fleetapi.Evidence{Door: "run", Selectors: []string{"systemd:id:shop.service", "unix:sha256:aa"}, Grade: "secret"}
	if diff := cmp.Diff(want, cp.Asked()[0].Evidence); diff != "" {
		t.Errorf("evidence for the control plane (-want +got):\n%s", diff)
	}
}

func TestAuditAnswersAndSaysSo(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(anothers, audited))
	cfg := config(t, cp)
	var log output
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := begin(t, cfg)
	for range 4 {
		wantToken(t, imds(t, a, ""), "token-1")
	}
	agenttest.Eventually(t, "what would have been refused was shipped", func() bool { return cp.Would("no caller rule") == 3 })
	if n := strings.Count(log.String(), "audit mode would refuse"); n != 1 {
		t.Errorf("the log says it %d times, want once:\n%s", n, log.String())
	}
	// Beside one that is enforced it opens nothing, and takes nothing.
	synced(t, a, cp.Rule(rule(anothers), rule(audited)))
	wantRefused(t, imds(t, a, ""), "no caller rule")
	synced(t, a, cp.Rule(rule(), rule(named("strict"), graded("kernel"), audited)))
	wantToken(t, imds(t, a, ""), "token-1")
	if got := cp.Would(""); got != 3 {
		t.Errorf("%d answers would have been refused, want the 3 from before: a rule allows it", got)
	}
}

// Which identity a client id names is known with the token; audit says then
// what it would have done.
func TestAuditOfANamedIdentity(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Rule(rule(gives(shared), audited))
	a := begin(t, config(t, cp))
	const byClient = "&client_id=6f1e6a3c-0000-4000-8000-000000000002"
	for range 3 {
		wantToken(t, imds(t, a, byClient), "token-1") // of web1 itself
	}
	for range 3 {
		wantToken(t, imds(t, a, ""), "token-2") // enforced, the rule would give another, and refuse nothing
	}
	agenttest.Eventually(t, "all answers from memory were shipped", func() bool {
		served, _, _ := cp.Recorded("")
		return served == 4
	})
	if got := cp.Would("no caller rule"); got != 2 {
		t.Errorf("%d answers would have been refused, want 2", got)
	}
}

// A rule that cannot be read closes its resource and no other; the log says so.
func TestRuleThatCannotBeReadCloses(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	cp.Rule(rule(), rule(named("bad"), func(r *fleetapi.CallerRule) { r.Selectors = []string{"k8s:ns:x"} }))
	cfg := config(t, cp)
	var log output
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := begin(t, cfg)
	wantRefused(t, imds(t, a, ""), "cannot be read")
	if !strings.Contains(log.String(), `k8s:ns:x`) {
		t.Errorf("the log does not say which rule:\n%s", log.String())
	}
	_, s, _, _ := start(t, cfg.ControlSocket, shop)
	wantToken(t, app(t, s.Endpoint, s.Header), "token-1")
}

// Rules are exchanged whole: each list gives exactly one of two identities, and
// half of both would give both, or none.
func TestRulesReloadedUnderLoad(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	lists := [2][]fleetapi.CallerRule{}
	for i, id := range []string{web1, shared} {
		for k := range 50 {
			lists[i] = append(lists[i], rule(anothers, named(fmt.Sprint("other-", k)), func(r *fleetapi.CallerRule) { r.Selectors[0] += strconv.Itoa(k) }))
		}
		lists[i] = append(lists[i], rule(gives(id)))
	}
	cp.Set([]fleetapi.Placement{onMain}, lists[0])
	cfg := config(t, cp)
	cfg.Limits = &limit.Config{} // this test is a program in a loop
	a := begin(t, cfg)
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			synced(t, a, cp.Rule(lists[i%2]...))
		}
	})
	var answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				switch r := imds(t, a, ""); r.Status {
				case http.StatusOK:
					answered.Add(1)
				case http.StatusForbidden: // given by the rule of before, refused by the one of now
				default:
					t.Errorf("answer = %d %s", r.Status, r.Body)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	changes.Wait()
	for _, q := range cp.Asked() {
		if q.ResourceID != "" && q.ResourceID != shared {
			t.Errorf("the control plane was asked for %q", q.ResourceID)
		}
	}
	if answered.Load() < 400 {
		t.Errorf("%d of 800 requests were answered, want most", answered.Load())
	}
}

// A kept connection is judged at each request: what it is, is what the
// placements say now.
func TestPlacementMovesUnderAKeptConnection(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	moved := onMain
	moved.Name, moved.Resource = "p-moved", shop
	synced(t, a, cp.Set([]fleetapi.Placement{moved}, []fleetapi.CallerRule{rule(func(r *fleetapi.CallerRule) { r.Resource = shop })}))
	wantToken(t, imds(t, a, ""), "token-2")
	if got := cp.Asked()[1]; got.Workload != shop || got.Placement != "p-moved" {
		t.Errorf("the control plane was asked for %s by %s, want shop by p-moved", got.Workload, got.Placement)
	}
	synced(t, a, cp.Set(nil, nil))
	wantRefused(t, imds(t, a, ""), "no placement")
}

// A placement that went takes its resource's rules along. A request that was
// placed before must not find a resource without rules.
func TestPlacementAndRulesGoTogether(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	closed := []fleetapi.CallerRule{rule(anothers)}
	cp.Set([]fleetapi.Placement{onMain}, closed)
	cfg := config(t, cp)
	cfg.Limits = &limit.Config{}
	a := begin(t, cfg)
	stop := make(chan struct{})
	var changes sync.WaitGroup
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%2 == 0 {
				synced(t, a, cp.Set(nil, nil))
			} else {
				synced(t, a, cp.Set([]fleetapi.Placement{onMain}, closed))
			}
		}
	})
	for range 400 {
		if r := imds(t, a, ""); r.Status != http.StatusForbidden {
			t.Errorf("answer = %d %s, want 403 always", r.Status, r.Body)
		}
	}
	close(stop)
	changes.Wait()
}

// A signed statement of what a machine is, is as good as an identity. What it
// is, is no secret.
func TestAttestedDocumentTakesARule(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Set([]fleetapi.Placement{onMain}, []fleetapi.CallerRule{rule(anothers)})
	cp.Describe(fleetapi.Instance{ID: web1, UID: "5f1e6a3c-0000-4000-8000-000000000001", Name: "web1", Type: "Microsoft.Compute/virtualMachines"})
	a := begin(t, config(t, cp))
	attested := func() (int, string) {
		return text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/attested/document?api-version=2021-02-01", "Metadata", "true"))
	}
	if status, body := attested(); status != http.StatusForbidden || !strings.Contains(body, "no caller rule") {
		t.Errorf("attested document = %d %s, want 403", status, body)
	}
	agenttest.Eventually(t, "the refusal was shipped", func() bool {
		_, _, refused := cp.Recorded("no caller rule")
		return refused == 1
	})
	if n := cp.Calls(fleetapi.PathAttest); n != 0 {
		t.Errorf("the control plane was asked to sign %d times", n)
	}
	synced(t, a, cp.Rule(rule(anothers), rule(audience(vault))))
	if status, body := attested(); status != http.StatusForbidden {
		t.Errorf("attested document by a rule for one audience = %d %s, want 403", status, body)
	}
	synced(t, a, cp.Rule(rule(anothers), rule(gives(shared), audience(fleetapi.AudienceAttest))))
	if status, body := attested(); status != http.StatusOK {
		t.Errorf("attested document by a rule for it = %d %s, want 200", status, body)
	}
	wantRefused(t, imds(t, a, ""), "no caller rule")
	synced(t, a, cp.Rule(rule(anothers), rule(gives(shared))))
	if status, body := attested(); status != http.StatusOK {
		t.Errorf("attested document by a rule = %d %s, want 200", status, body)
	}
	if status, body := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/instance?api-version=2021-02-01", "Metadata", "true")); status != http.StatusOK {
		t.Errorf("instance = %d %s, want 200", status, body)
	}
}

// output is a log that a running agent writes while a test reads.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
