package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
)

// BenchmarkAnswer is a token from memory through all of a door but the kernel:
// net/http, evidence, placement, ten caller rules, record. A round is one
// request of each connection, one after the other, so that of a thousand each
// has gone cold when its turn comes. Rounds of the agent are beside rounds of
// "equal", a handler under the same net/http that does nothing but write as
// much; ours is the difference.
func BenchmarkAnswer(b *testing.B) {
	cfg := answering(b)
	for _, connections := range []int{1, 1000} {
		b.Run(fmt.Sprint("connections=", connections), func(b *testing.B) {
			agents, equals := newRing(b, cfg, connections), newRing(b, equal(), connections)
			var took, equal, ours []float64
			for b.Loop() {
				a, e := agents.round(1000/connections), equals.round(1000/connections)
				took, equal, ours = append(took, a), append(equal, e), append(ours, a-e)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(took), "answer-ns")
			b.ReportMetric(median(equal), "equal-ns")
			b.ReportMetric(median(ours), "ours-ns")
			if agents.refused+equals.refused > 0 {
				b.Fatalf("%d requests were refused", agents.refused)
			}
		})
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// answering is the door of an agent that is asked for one token again and again.
func answering(b *testing.B) door.Config {
	b.Helper()
	cp := agenttest.New(b)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken = strings.Repeat("eyJ0eXAiOi", 140)
		return tok, nil
	})
	rules := []fleetapi.CallerRule{{Resource: web1, Name: "us", Selectors: []string{"unix:uid:1000"}, Mode: fleetapi.ModeEnforce}}
	for i := range 9 { // somebody else's
		rules = append(rules, fleetapi.CallerRule{Resource: web1, Name: fmt.Sprint("other-", i), Selectors: []string{fmt.Sprint("unix:uid:", 40_000+i)}, Mode: fleetapi.ModeEnforce})
	}
	cp.Set([]fleetapi.Placement{{Name: "p", Door: "main", Selectors: []string{"unix:uid:1000"}, Resource: web1}}, rules)
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	a, err := agent.New(agent.Config{
		ControlPlane: cp.URL, CA: cp.CA, StateDir: filepath.Join(dir, "state"), EnrolToken: agenttest.EnrolToken,
		Limits: &limit.Config{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(a.Close)
	cfg := agent.IMDSDoor(a, "main")
	cfg.Identify = func(net.Conn) (evidence.Evidence, error) {
		return evidence.Evidence{Door: "main", Grade: evidence.GradeAfter, Selectors: []evidence.Selector{
			"cgroup:/system.slice/shop.service", "systemd:id:shop.service", "unix:gid:1000", "unix:group:shop", "unix:path:/usr/bin/shop",
			"unix:sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "unix:uid:1000", "unix:user:shop",
		}}, nil
	}
	return cfg
}

// equal is the door of a handler that does nothing but write an answer of the
// same length with the same headers.
func equal() door.Config {
	text := bytes.Repeat([]byte("x"), 1650)
	return door.Config{
		Name: "main", AnswerTimeout: door.AnswerTimeout, Log: slog.New(slog.DiscardHandler),
		Identify: func(net.Conn) (evidence.Evidence, error) { return evidence.Evidence{}, nil },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h["Server"], h["X-Ms-Request-Id"] = []string{"IMDS/150.870.65.1854"}, []string{"6f1e6a3c-0000-4000-8000-000000000002"}
			h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = []string{"application/json; charset=utf-8"}, []string{"no-store"}, []string{"nosniff"}
			h["Content-Length"] = []string{fmt.Sprint(len(text))}
			_, _ = w.Write(text)
		}),
	}
}

const asked = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + vault + " HTTP/1.1\r\nHost: 127.0.0.1:80\r\nMetadata: true\r\n\r\n"

// ring is a listener whose connections are in memory and have their turns one
// after the other.
type ring struct {
	conns    []*turning
	at       int
	accepts  chan net.Conn
	answered chan bool
	refused  int
	closed   sync.Once
}

// newRing has so many connections at a door, each of which was answered.
func newRing(b *testing.B, cfg door.Config, connections int) *ring {
	r := &ring{accepts: make(chan net.Conn, connections), answered: make(chan bool, 1)}
	for range connections {
		c := &turning{ring: r, turn: make(chan bool, 1), past: make(chan bool, 1)}
		r.conns = append(r.conns, c)
		r.accepts <- c
	}
	d := door.New(cfg, r)
	d.Serve()
	b.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	r.round(2) // the first brings evidence and the token, the second what is kept of them
	return r
}

// round has every connection ask, so many times, and returns what each request
// took, in nanoseconds.
func (r *ring) round(times int) float64 {
	begin := time.Now()
	for range times * len(r.conns) {
		r.next()
	}
	return float64(time.Since(begin)) / float64(times*len(r.conns))
}

// next has the next connection ask, and returns when it is answered.
func (r *ring) next() {
	r.conns[r.at].turn <- true
	r.at = (r.at + 1) % len(r.conns)
	if !<-r.answered {
		r.refused++
	}
}

func (r *ring) Accept() (net.Conn, error) {
	c, ok := <-r.accepts
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (r *ring) Close() error {
	r.closed.Do(func() { close(r.accepts) })
	return nil
}

func (r *ring) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// turning is one end of a connection. It says one request when it is its turn.
type turning struct {
	ring    *ring
	turn    chan bool
	past    chan bool // its reading is to end
	wrote   bool
	good    bool
	closing sync.Once
}

func (c *turning) Read(p []byte) (int, error) {
	if len(p) == 1 { // net/http looks whether the client goes away
		<-c.past
		return 0, os.ErrDeadlineExceeded
	}
	if !<-c.turn {
		return 0, io.EOF
	}
	return copy(p, asked), nil
}

func (c *turning) Write(p []byte) (int, error) {
	c.wrote, c.good = true, bytes.HasPrefix(p, []byte("HTTP/1.1 200"))
	return len(p), nil
}

func (c *turning) SetReadDeadline(at time.Time) error {
	switch {
	case !at.IsZero() && time.Until(at) < 0:
		c.past <- true
	case at.IsZero() && c.wrote: // net/http is done with the answer
		c.wrote = false
		c.ring.answered <- c.good
	}
	return nil
}

func (c *turning) Close() error {
	c.closing.Do(func() { close(c.turn) })
	return nil
}

func (c *turning) SetDeadline(time.Time) error      { return nil }
func (c *turning) SetWriteDeadline(time.Time) error { return nil }
func (c *turning) LocalAddr() net.Addr              { return c.ring.Addr() }
func (c *turning) RemoteAddr() net.Addr             { return c.ring.Addr() }
