package agent_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

// What is not what was asked for is nobody's token, and is not remembered.
func TestAnswerToAnotherQuestionIsNotGiven(t *testing.T) {
	t.Parallel()
	const id = "6f1e6a3c-0000-4000-8000-00000000000a"
	for name, tt := range map[string]struct {
		query string
		lie   func(*fleetapi.TokenResponse)
	}{
		"another audience":             {"", func(r *fleetapi.TokenResponse) { r.Resource = "https://management.azure.com" }},
		"the audience with a slash":    {"", func(r *fleetapi.TokenResponse) { r.Resource += "/" }},
		"another client id":            {"&client_id=" + id, func(r *fleetapi.TokenResponse) { r.ClientID = id[:35] + "b" }},
		"another object id":            {"&object_id=" + id, func(r *fleetapi.TokenResponse) { r.Principal = id[:35] + "b" }},
		"another identity":             {"&msi_res_id=" + shop, func(r *fleetapi.TokenResponse) { r.Identity = web1 }},
		"an identity that is a prefix": {"&msi_res_id=" + shop, func(r *fleetapi.TokenResponse) { r.Identity += "2" }},
		"expired":                      {"", func(r *fleetapi.TokenResponse) { r.Expires = time.Now().Add(-time.Hour) }},
		"expires at once":              {"", func(r *fleetapi.TokenResponse) { r.Expires = time.Now().Add(5 * time.Second) }},
		"without an end":               {"", func(r *fleetapi.TokenResponse) { r.Expires = time.Time{} }},
		"without a token":              {"", func(r *fleetapi.TokenResponse) { r.AccessToken = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := agenttest.New(t)
			cp.Place(onMain)
			a := begin(t, config(t, cp))
			cp.Decide(func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
				resp := cp.Mint(req)
				tt.lie(&resp)
				return resp, nil
			})
			for range 2 {
				if r := imds(t, a, tt.query); r.Status != 503 || r.Token.AccessToken != "" {
					t.Fatalf("answer = %d %s, want 503 and no token", r.Status, r.Body)
				}
			}
			cp.Decide(nil) // it comes to its senses
			if r := imds(t, a, tt.query); r.Status != 200 {
				t.Errorf("answer to the truth = %d %s, want 200", r.Status, r.Body)
			}
		})
	}
}

// A stream that goes back in time tells of a restored backup: nothing from
// before counts.
func TestRevisionThatGoesBackDropsEverything(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	rev := cp.Push(fleetapi.Change{Principals: []string{"somebody"}})
	synced(t, a, rev)
	wantToken(t, imds(t, a, ""), "token-1")
	cp.Rewind(rev - 1)
	agenttest.Eventually(t, "the agent heard of it", func() bool {
		s := a.Status()
		return s.Connected && s.Revision == rev-1
	})
	wantToken(t, imds(t, a, ""), "token-2")
	synced(t, a, cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(web1)}}))
	wantToken(t, imds(t, a, ""), "token-3")
}

// cut is a network that loses what goes one way or both, without a word: the
// connections stay.
type cut struct{ out, in atomic.Bool }

func (c *cut) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.out.Load() || c.in.Load() {
		<-ctx.Done() // a handshake takes both ways
		return nil, ctx.Err()
	}
	conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &lossy{conn, c}, nil
}

type lossy struct {
	net.Conn
	*cut
}

func (l *lossy) Write(b []byte) (int, error) {
	if l.out.Load() {
		return len(b), nil
	}
	return l.Conn.Write(b)
}

// Read loses what came while the way in was cut; TCP would send it again, but
// what matters here is that the connection is of no more use.
func (l *lossy) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		if err != nil || !l.in.Load() {
			return n, err
		}
	}
}

// While questions get lost, or answers, memory serves as the owner chose; and
// when the network is whole again, what changed meanwhile counts before what is
// remembered does.
func TestPartition(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*cut, bool){
		"questions are lost": func(c *cut, b bool) { c.out.Store(b) },
		"answers are lost":   func(c *cut, b bool) { c.in.Store(b) },
		"both are lost":      func(c *cut, b bool) { c.out.Store(b); c.in.Store(b) },
	} {
		for _, offline := range []string{agent.OfflineServe, agent.OfflineRefuse} {
			t.Run(name+"/"+offline, func(t *testing.T) {
				t.Parallel()
				cp := agenttest.New(t)
				cp.Place(onMain)
				cfg := config(t, cp)
				c := new(cut)
				cfg.Dial, cfg.Offline = c.dial, offline
				a := begin(t, cfg)
				wantToken(t, imds(t, a, ""), "token-1")
				set(c, true)
				if name != "questions are lost" { // else the stream goes on, and what it says is true
					agenttest.Eventually(t, "the last word is too old", func() bool {
						s := a.Status()
						return !s.Connected || s.AgeMS > fleetapi.Bound.Milliseconds()
					})
					r := imds(t, a, "")
					if offline == agent.OfflineServe {
						wantToken(t, r, "token-1")
					} else if r.Status != 503 {
						t.Errorf("answer while cut off = %d %s, want 503", r.Status, r.Body)
					}
				} else {
					wantToken(t, imds(t, a, ""), "token-1")
				}
				rev := cp.Push(fleetapi.Change{Resources: []string{strings.ToLower(web1)}})
				if name != "questions are lost" {
					if offline == agent.OfflineServe { // nobody can tell the agent
						wantToken(t, imds(t, a, ""), "token-1")
					}
				}
				set(c, false)
				synced(t, a, rev)
				// Connections from before may still be tried, and given up.
				agenttest.Eventually(t, "the agent serves again", func() bool {
					r := imds(t, a, "")
					if r.Token.AccessToken == "token-1" {
						t.Fatal("a token was given that was taken away, and the agent had heard of it")
					}
					return r.Status == 200
				})
			})
		}
	}
}

// A clock that jumps ahead ends what is in memory and says what is wrong with
// what comes new; one that jumps back extends nothing, for a token ends when it
// says. Whichever it was, the agent goes on when the clock is right again.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cfg := config(t, cp)
	var ahead atomic.Int64
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	a := begin(t, cfg)
	wantToken(t, imds(t, a, ""), "token-1")

	ahead.Store(int64(48 * time.Hour)) // tokens live for a day
	if r := imds(t, a, ""); r.Status != http.StatusServiceUnavailable || !strings.Contains(r.Body, "clocks") {
		t.Errorf("two days ahead: %d %s, want 503 that speaks of clocks", r.Status, r.Body)
	}
	ahead.Store(0)
	r := imds(t, a, "")
	if r.Status != http.StatusOK {
		t.Fatalf("the clock is right again: %d %s", r.Status, r.Body)
	}
	ahead.Store(-int64(48 * time.Hour))
	wantToken(t, imds(t, a, ""), r.Token.AccessToken)
	if s := a.Status(); !s.Connected {
		t.Errorf("the stream is not heard of: %+v", s)
	}
}
