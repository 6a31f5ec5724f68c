package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/fleetapi"
)

// output is a buffer that a running program writes to while a test reads.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
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

func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMisuseIsSaidAndExitsWith2(t *testing.T) {
	t.Parallel()
	open := file(t, "token", "one-time", 0o644)
	for name, tt := range map[string]struct {
		args []string
		yaml string
		want []string
	}{
		"no config":     {nil, "", []string{"--config FILE"}},
		"unknown flag":  {[]string{"--what"}, "", []string{"--what"}},
		"argument":      {[]string{"start"}, "", []string{`"start"`}},
		"missing file":  {[]string{"--config", "/no/such/file"}, "", []string{"/no/such/file"}},
		"unknown key":   {nil, "state_dir: /x\nstate_dri: /y\n", []string{"state_dri"}},
		"key twice":     {nil, "state_dir: /x\nstate_dir: /y\n", []string{"state_dir"}},
		"empty":         {nil, "\n", []string{"state directory", "https://"}},
		"limit below 0": {nil, "limits: {connections: -1}\n", []string{"0 means no limit"}},
		"limit's unit":  {nil, "limits: {wait: 3 parsecs}\n", []string{"parsecs"}},
		"all faults at once": {nil, fmt.Sprintf(`
control_plane: http://fleet.example
control_plane_ca: /no/such/ca.pem
connect_to: nowhere
enrolment_token_file: %s
doors:
  - {name: run, listen: "127.0.0.1:0"}
  - {name: vm, listen: "0.0.0.0:80"}
  - {name: tap, kind: interface, interface: "tap/0", path: /x, interfaces: [{mac: nothing, addresses: [10.0.0.5]}]}
  - {name: con, kind: namespace, namespace: /proc/self/ns/net}
  - {name: sock, kind: unix, path: imds.sock, mode: "rwx"}
  - {name: old, kind: vm_extension, listen: "10.0.0.1:50342"}
  - {name: arc, kind: arc, key_dir: "tokens"}
  - {name: what, kind: socket}
  - {name: one, kind: unix, path: /run/s}
  - {name: two, kind: unix, path: /run/s}
app_listen: "*:80"
control_socket_mode: "rw"
offline: maybe
limits: {per_second: 5, burst: 0}
`, open), []string{"burst is 0", `"tap/0"`, "path means nothing to a door of kind interface", `mac "nothing"`, `address "10.0.0.5"`, "agent's own", "a container's name was expected",
			`"imds.sock"`, `mode "rwx"`, "10.0.0.1:50342", `"tokens"`, `"socket"`, "both at socket /run/s", "https://", "ca.pem", "connect_to", "chmod 600", `"run"`, "0.0.0.0:80", "*:80", `"rw"`, "maybe", "state directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := tt.args
			if tt.yaml != "" {
				args = []string{"--check", "--config", file(t, "agent.yaml", tt.yaml, 0o600)}
			}
			var stdout, stderr output
			if code := run(t.Context(), args, &stdout, &stderr); code != 2 {
				t.Errorf("run(%q) = %d, want 2", args, code)
			}
			for _, want := range tt.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr = %s\nwant %s in it", stderr.String(), want)
				}
			}
		})
	}
}

// settings is a whole configuration for cp's host.
func settings(t *testing.T, cp *agenttest.ControlPlane) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := url.Parse(cp.URL)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "agent.yaml", fmt.Sprintf(`# The server's certificate names example.com; connect_to is where it is.
control_plane: https://example.com:%s
control_plane_ca: %s
connect_to: %s
state_dir: %s/state
enrolment_token_file: %s
doors:
  - name: main
    listen: 127.0.0.1:0
app_listen: 127.0.0.1:0
control_socket: %s/a.sock
control_socket_mode: "0660"
offline: refuse
limits:
  per_second: 500
  burst: 1000
  wait: 500ms
  waiting: 50
  connections: 0
`, u.Port(), file(t, "ca.pem", string(cp.CAPEM), 0o644), u.Host, dir, file(t, "token", agenttest.EnrolToken+"\n", 0o600), dir), 0o600)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	zero, wait := 0, 2*time.Second
	want := limit.Default()
	if got := (limits{}).config(); *got != want {
		t.Errorf("limits that are absent = %+v, want the defaults %+v", *got, want)
	}
	want.Connections, want.Wait = 0, wait
	if got := (limits{Connections: &zero, Wait: &wait}).config(); *got != want {
		t.Errorf("limits = %+v, want %+v", *got, want)
	}
}

func TestCheckStartsNothing(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	var stdout, stderr output
	if code := run(t.Context(), []string{"--check", "--config", settings(t, cp)}, &stdout, &stderr); code != 0 {
		t.Fatalf("run = %d: %s", code, stderr.String())
	}
	if n := cp.Calls(fleetapi.PathEnrol); n != 0 {
		t.Errorf("--check enrolled the host")
	}
}

func TestReadyServesAndStops(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p", Door: "main", Resource: "/subscriptions/s"})
	var stdout, stderr output
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"--config", settings(t, cp)}, &stdout, &stderr) }()
	agenttest.Eventually(t, "the agent is ready", func() bool { return strings.Contains(stdout.String(), "\n") || len(code) > 0 })
	line := regexp.MustCompile(`^ready host=(\S+) app=\S+ main=(\S+)\n$`).FindStringSubmatch(stdout.String())
	if line == nil || line[1] != agenttest.HostID {
		t.Fatalf("stdout = %q, stderr = %s", stdout.String(), stderr.String())
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+line[2]+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "token-1") {
		t.Errorf("answer = %d %s, %v", resp.StatusCode, body, err)
	}
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code after being stopped = %d, want 0", got)
	}
	sum := sha256.Sum256([]byte("token-1"))
	for _, secret := range []string{agenttest.EnrolToken, "token-1", hex.EncodeToString(sum[:])} {
		if strings.Contains(stderr.String(), secret) {
			t.Errorf("the log has %q in it:\n%s", secret, stderr.String())
		}
	}
}

func TestUnreachableControlPlaneExitsWith1(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Down(true)
	var stdout, stderr output
	if code := run(t.Context(), []string{"--config", settings(t, cp)}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "cannot be reached") {
		t.Errorf("run = %d: %s", code, stderr.String())
	}
}
