package agent_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

func TestOffline(t *testing.T) {
	t.Parallel()
	for _, offline := range []string{agent.OfflineServe, agent.OfflineRefuse} {
		t.Run(offline, func(t *testing.T) {
			t.Parallel()
			cp := agenttest.New(t)
			cp.Place(onMain)
			cfg := config(t, cp)
			cfg.Offline = offline
			a := begin(t, cfg)
			wantToken(t, imds(t, a, ""), "token-1")
			cp.Down(true)
			agenttest.Eventually(t, "the agent is cut off", func() bool { return !a.Status().Connected })
			if offline == agent.OfflineServe {
				wantToken(t, imds(t, a, ""), "token-1")
				if r := imds(t, a, "&client_id=6f1e6a3c-0000-4000-8000-000000000009"); r.Status != 503 {
					t.Errorf("unknown identity while cut off = %d %s, want 503", r.Status, r.Body)
				}
			} else if r := imds(t, a, ""); r.Status != 503 || r.Header.Get("Retry-After") != "1" {
				t.Errorf("answer while cut off = %d %v, want 503 with Retry-After 1", r.Status, r.Header)
			}
			cp.Down(false)
			rev := cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(web1)}})
			synced(t, a, rev)
			wantToken(t, imds(t, a, ""), "token-2")
			if offline == agent.OfflineServe {
				agenttest.Eventually(t, "the stale answer was shipped as stale", func() bool {
					_, stale, _ := cp.Recorded("")
					return stale == 1
				})
			}
		})
	}
}

func TestSilentStreamIsNotTrusted(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	cp.Mute(true)
	cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(web1)}}) // nobody hears
	agenttest.Eventually(t, "the last word is older than the bound", func() bool {
		return a.Status().AgeMS > fleetapi.Bound.Milliseconds()
	})
	wantToken(t, imds(t, a, ""), "token-2")
	wantToken(t, imds(t, a, ""), "token-3") // asked each time
}

func TestReconnectTrustsNothingBeforeFirstLine(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	streams := cp.Calls(fleetapi.PathChanges)
	cp.Mute(true)
	cp.EndStreams()
	agenttest.Eventually(t, "the agent connected again", func() bool { return cp.Calls(fleetapi.PathChanges) > streams && !a.Status().Connected })
	wantToken(t, imds(t, a, ""), "token-2")
	cp.Mute(false)
	agenttest.Eventually(t, "the stream spoke", func() bool { return a.Status().Connected })
	wantToken(t, imds(t, a, ""), "token-2")
}

// After a long silence there are many changes to hear of; the first is not all.
func TestReconnectTrustsNothingBeforeItCaughtUp(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	wantToken(t, imds(t, a, ""), "token-1")
	cp.Mute(true)
	cp.EndStreams()
	agenttest.Eventually(t, "the agent is cut off", func() bool { return !a.Status().Connected })
	rev := cp.Push(fleetapi.Change{Principals: []string{"somebody"}})
	cp.Behind(true)
	cp.Mute(false)
	agenttest.Eventually(t, "the agent heard of the first change", func() bool { return a.Status().Revision == rev })
	if a.Status().Connected {
		t.Error("the agent counts as connected before it caught up")
	}
	wantToken(t, imds(t, a, ""), "token-2")
	cp.Behind(false)
	synced(t, a, rev)
	wantToken(t, imds(t, a, ""), "token-2")
}

func TestEvictedHostForgetsEverything(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cfg := config(t, cp)
	a := begin(t, cfg)
	wantToken(t, imds(t, a, ""), "token-1")
	streams := cp.Calls(fleetapi.PathChanges)
	cp.Evict()
	agenttest.Eventually(t, "the agent was turned away twice", func() bool { return cp.Calls(fleetapi.PathChanges) >= streams+2 })
	if r := imds(t, a, ""); r.Status != 401 {
		t.Errorf("answer of an evicted host = %d %s, want 401", r.Status, r.Body)
	}
	cp.Down(true)
	agenttest.Eventually(t, "the agent is cut off", func() bool { return !a.Status().Connected })
	if r := imds(t, a, ""); r.Status != 503 {
		t.Errorf("answer of an evicted host that is cut off = %d %s, want 503", r.Status, r.Body)
	}
	a.Close()
	cp.Down(false)
	begin(t, cfg) // enrols anew with a new token
}
