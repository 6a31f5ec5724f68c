package agent_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
)

// scrape reads the metrics over c; the host of the URL is only a header there.
func scrape(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMetricsCountRequests(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain, ours())
	cfg := config(t, cp)
	cfg.MetricsListen = "127.0.0.1:0"
	a := begin(t, cfg)
	_, s, _, _ := start(t, cfg.ControlSocket, shop)
	imds(t, a, "")
	imds(t, a, "")
	app(t, s.Endpoint, s.Header)
	app(t, s.Endpoint, "wrong")
	imds(t, a, "&client_id=no-guid")
	cp.Down(true)
	agenttest.Eventually(t, "the agent is cut off", func() bool { return !a.Status().Connected })
	imds(t, a, "")
	imds(t, a, "&bypass_cache=true")

	status, text := scrape(t, http.DefaultClient, "http://"+a.MetricsAddr()+"/metrics")
	if status != 200 {
		t.Fatalf("GET /metrics = %d %s", status, text)
	}
	for _, want := range []string{
		`innate_agent_requests_total{cache="miss",dialect="imds",outcome="ok"} 1`,
		`innate_agent_requests_total{cache="hit",dialect="imds",outcome="ok"} 1`,
		`innate_agent_requests_total{cache="stale",dialect="imds",outcome="ok"} 1`,
		`innate_agent_requests_total{cache="miss",dialect="imds",outcome="error"} 1`,
		`innate_agent_requests_total{cache="none",dialect="imds",outcome="refused"} 1`,
		`innate_agent_requests_total{cache="miss",dialect="appservice",outcome="ok"} 1`,
		`innate_agent_requests_total{cache="none",dialect="appservice",outcome="refused"} 1`,
		`innate_agent_evidence_total{grade="secret"} 1`,
		`innate_agent_request_seconds_count{cache="hit"} 1`,
		`innate_agent_feed_connected 0`,
		`innate_agent_feed_age_seconds -1`,
		`innate_agent_tokens 2`,
		`innate_agent_starts 1`,
		`innate_agent_build_info{`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	for _, name := range []string{"innate_agent_journal_bytes", "innate_agent_certificate_expires_seconds"} {
		if !regexp.MustCompile(`(?m)^` + name + ` [1-9]`).MatchString(text) {
			t.Errorf("%s is not above 0", name)
		}
	}
	for _, never := range []string{s.Header, "token-", "uti-", shop, web1, vault, "p-shop", "unix:uid", agenttest.HostID} {
		if strings.Contains(text, never) {
			t.Errorf("the metrics tell of %q", never)
		}
	}
	if t.Failed() {
		t.Log(regexp.MustCompile(`(?m)^innate_agent_(req|evi|feed|tok|start).*[^0]$`).FindAllString(text, -1))
	}
}

// A web page that a name leads to this host must not read them, and nobody
// finds anything else there.
func TestMetricsAreForLocalReaders(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cfg := config(t, cp)
	cfg.MetricsListen = filepath.Join(filepath.Dir(cfg.ControlSocket), "m.sock")
	begin(t, cfg)
	if info, err := os.Stat(cfg.MetricsListen); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket = %v, %v; want mode 0600", info, err)
	}
	for url, want := range map[string]int{
		"http://localhost/metrics":         200,
		"http://127.0.0.1:9464/metrics":    200,
		"http://[::1]:9464/metrics":        200,
		"http://rebound.example/metrics":   403,
		"http://169.254.169.254/metrics":   403,
		"http://localhost.example/metrics": 403,
		"http://localhost/":                404,
		"http://localhost/starts":          404,
		"http://localhost/debug/pprof":     404,
	} {
		if got, _ := scrape(t, control(cfg.MetricsListen), url); got != want {
			t.Errorf("GET %s = %d, want %d", url, got, want)
		}
	}
}

func TestMetricsListenerIsLocal(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	for _, addr := range []string{"0.0.0.0:9464", ":9464", "metrics.sock", "host:1"} {
		cfg := config(t, cp)
		cfg.MetricsListen = addr
		if _, err := agent.New(cfg); err == nil || !strings.Contains(err.Error(), "metrics: address") {
			t.Errorf("New with metrics at %q = %v, want that it is no loopback address", addr, err)
		}
	}
}
