package agent_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/fleetapi"
)

// Whatever a caller asks counts, refused and malformed requests too.
func TestCallerThatAsksTooOften(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	cfg := config(t, cp)
	cfg.Limits = &limit.Config{PerSecond: 0.001, Burst: 4} // nobody waits a quarter of an hour
	var log output
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := begin(t, cfg)
	wantToken(t, imds(t, a, ""), "token-1")
	for _, query := range []string{"&resource=twice", "&client_id=no-guid", "&msi_res_id=x"} {
		if r := imds(t, a, query); r.Status != http.StatusBadRequest {
			t.Errorf("%s = %d %s, want 400", query, r.Status, r.Body)
		}
	}
	for range 3 {
		r := imds(t, a, "")
		if r.Status != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "1" || !strings.Contains(r.Body, `"error":"too_many_requests"`) ||
			!strings.Contains(r.Body, "keep the token") {
			t.Errorf("answer = %d %v %s, want 429 with Retry-After and what to do", r.Status, r.Header, r.Body)
		}
	}
	if n := strings.Count(log.String(), "asks too often"); n != 1 {
		t.Errorf("the log says it %d times, want once:\n%s", n, log.String())
	}
	// Another caller, here by another door, has its own turn.
	status, s, fail, end := start(t, cfg.ControlSocket, shop)
	if status != http.StatusOK {
		t.Fatalf("POST /starts = %d %+v", status, fail)
	}
	wantToken(t, app(t, s.Endpoint, s.Header), "token-2")
	end()
	// The control socket speaks its own words.
	for range 3 {
		_, _, _, end := start(t, cfg.ControlSocket, shop)
		end()
	}
	if status, _, fail, _ := start(t, cfg.ControlSocket, shop); status != http.StatusTooManyRequests || fail.Kind != "throttled" {
		t.Errorf("POST /starts = %d %+v, want 429", status, fail)
	}
}

func TestRequestOverItsRateWaitsItsTurn(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cfg := config(t, cp)
	cfg.Limits = &limit.Config{PerSecond: 20, Burst: 1, Wait: 5 * time.Second, Waiters: 10}
	a := begin(t, cfg)
	for range 6 {
		wantToken(t, imds(t, a, ""), "token-1")
	}
}

// One program cannot take every descriptor: above its share, connections are
// closed, and those that it has go on.
func TestConnectionsOfOneCaller(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	cfg := config(t, cp)
	cfg.Limits = &limit.Config{Connections: 3}
	a := begin(t, cfg)
	ask := func(c net.Conn) (status string, err error) {
		fmt.Fprintf(c, "GET /metadata/versions HTTP/1.1\r\nHost: 127.0.0.1\r\nMetadata: true\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		return bufio.NewReader(c).ReadString('\n')
	}
	open := func() net.Conn {
		c, err := net.Dial("tcp", a.DoorAddr("main"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var mine []net.Conn
	for range 3 {
		c := open()
		if line, err := ask(c); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("a connection within the share = %q, %v", line, err)
		}
		mine = append(mine, c)
	}
	for range 20 {
		if line, err := ask(open()); err == nil {
			t.Fatalf("a connection above the share = %q, want none", line)
		}
	}
	if line, err := ask(mine[0]); err != nil || !strings.Contains(line, "200") {
		t.Errorf("a connection that was there = %q, %v", line, err)
	}
	// Another caller has its own.
	if status, _, fail, _ := start(t, cfg.ControlSocket, shop); status != http.StatusOK {
		t.Errorf("POST /starts = %d %+v", status, fail)
	}
	mine[1].Close()
	agenttest.Eventually(t, "a closed connection was given back", func() bool {
		line, err := ask(open())
		return err == nil && strings.Contains(line, "200")
	})
	if n := cp.Calls(fleetapi.PathToken); n != 0 {
		t.Errorf("the control plane was asked for %d tokens", n)
	}
}
