package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

// one runs one check of the table.
func one(t *testing.T, name string, h Host) []Finding {
	t.Helper()
	if h.Root == "" {
		h.Root = t.TempDir()
	}
	if h.Now == nil {
		h.Now = time.Now
	}
	h.Start = "start it"
	for _, c := range checks {
		if c.Name == name {
			return c.Run(t.Context(), &h)
		}
	}
	t.Fatalf("there is no check %q", name)
	return nil
}

// root is a system with these files.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func env(vars ...string) func(string) string {
	return func(name string) string {
		for _, kv := range vars {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// healthy is an agent with nothing wrong.
func healthy() agent.Status {
	return agent.Status{Host: "/h", Connected: true, Evidence: "kernel", Offline: agent.OfflineServe, JournalLimit: 1000,
		CertificateExpires: now.Add(10 * time.Hour), RenewAt: now.Add(4 * time.Hour)}
}

func with(change func(*agent.Status)) Host {
	s := healthy()
	change(&s)
	return Host{status: &s, Now: func() time.Time { return now }}
}

func stateDir(t *testing.T, dirMode, keyMode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "host.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "host.key"), keyMode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, dirMode); err != nil {
		t.Fatal(err)
	}
	return dir
}

const listenerOnMetadata = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: FEA9FEA9:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0\n"

// Every check that looks at what it is given: what is provoked is found, with
// a remedy, and what is well is not complained of.
func TestFindings(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	full, none := "Name:\tx\nCapEff:\t000001ffffffffff\n", "Name:\tx\nCapEff:\t0000000000000400\n"
	for i, tt := range []struct {
		check string
		host  Host
		level Level
		found string
	}{
		{"leftovers", Host{Socket: plain}, Fail, "is no socket"},
		{"state", Host{StateDir: "/no/such"}, Fail, "there is no"},
		{"state", Host{StateDir: plain}, Fail, "no directory"},
		{"state", Host{StateDir: t.TempDir()}, Fail, "no key yet"},
		{"state", Host{StateDir: stateDir(t, 0o777, 0o600)}, Fail, "written by others (mode 0777)"},
		{"state", Host{StateDir: stateDir(t, 0o700, 0o640)}, Fail, "counts as stolen"},
		{"state", Host{StateDir: stateDir(t, 0o700, 0o600)}, OK, "alone"},
		{"feed", with(func(s *agent.Status) { s.Connected = false }), Fail, "not connected"},
		{"feed", with(func(s *agent.Status) { s.AgeMS = 60_000 }), Warn, "spoke 1m0s ago"},
		{"feed", with(func(*agent.Status) {}), OK, "revision"},
		{"offline", with(func(s *agent.Status) { s.Connected = false }), Warn, "cut off and gives out remembered tokens"},
		{"offline", with(func(s *agent.Status) { s.Offline = agent.OfflineRefuse }), OK, "gives out nothing"},
		{"certificate", with(func(s *agent.Status) { s.CertificateExpires = now }), Fail, "ends at 2026-01-02T03:04:05Z"},
		{"certificate", with(func(s *agent.Status) { s.RenewAt = now.Add(-time.Hour) }), Warn, "overdue"},
		{"certificate", with(func(*agent.Status) {}), OK, "ends at"},
		{"journal", with(func(s *agent.Status) { s.JournalBytes = 990 }), Fail, "no new caller is answered"},
		{"journal", with(func(s *agent.Status) { s.JournalBytes = 500 }), Warn, "50%"},
		{"journal", with(func(s *agent.Status) { s.JournalBytes = 5 }), OK, "0%"},
		{"doors", Host{Doors: []agent.DoorConfig{{Name: "a", Listen: taken.Addr().String()}}}, Fail, "door a could not be opened"},
		{"doors", with(func(s *agent.Status) { s.App = closed.Addr().String() }), Fail, "door run is not open"},
		{"doors", with(func(s *agent.Status) { s.App = taken.Addr().String() }), OK, "open: run at"},
		{"address", Host{Root: root(t, map[string]string{"proc/net/tcp": listenerOnMetadata})}, Warn, "user 1000 listens on 169.254.169.254:80"},
		{"address", Host{Root: root(t, map[string]string{"proc/net/tcp": strings.Replace(listenerOnMetadata, " 0A ", " 01 ", 1)})}, OK, "nothing else"},
		{"evidence", with(func(s *agent.Status) { s.Evidence = "after-the-fact" }), Warn, "capture is off"},
		{"evidence", with(func(*agent.Status) {}), OK, "by the kernel"},
		{"capabilities", Host{status: new(healthy()), agentPID: 7, Root: root(t, map[string]string{"proc/7/status": none})}, Warn, "CAP_SYS_PTRACE"},
		{"capabilities", Host{status: new(healthy()), agentPID: 7, Root: root(t, map[string]string{"proc/7/status": full})}, OK, "has what it can use"},
		{"capabilities", Host{status: new(healthy()), agentPID: 7}, Warn, "cannot be looked at"},
		{"cgroup", Host{Root: root(t, map[string]string{"proc/self/mounts": "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"})}, Warn, "not mounted"},
		{"cgroup", Host{Root: root(t, map[string]string{"proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"})}, OK, "/sys/fs/cgroup"},
		{"btf", Host{}, Warn, "does not describe"},
		{"btf", Host{Root: root(t, map[string]string{"sys/kernel/btf/vmlinux": ""})}, OK, "describes"},
		{"bpffs", Host{}, Warn, "no bpf filesystem"},
		{"bpffs", Host{Root: root(t, map[string]string{"proc/self/mounts": "bpf /sys/fs/bpf bpf rw 0 0\n"})}, OK, "/sys/fs/bpf"},
		{"ports", Host{Root: root(t, map[string]string{"proc/sys/net/ipv4/ip_unprivileged_port_start": "80\n"})}, Warn, "any user can listen on port 80"},
		{"ports", Host{Root: root(t, map[string]string{"proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"})}, OK, "1024"},
		{"proxy", Host{Getenv: env("http_proxy=http://p:1")}, Warn, "would ask the proxy"},
		{"proxy", Host{Getenv: env("HTTP_PROXY=http://p:1", "NO_PROXY=localhost")}, Warn, "would ask the proxy"},
		{"proxy", Host{Getenv: env("HTTP_PROXY=http://p:1", "NO_PROXY=localhost,169.254.169.254")}, OK, "leaves the metadata address out"},
		{"proxy", Host{Getenv: env()}, OK, "no proxy"},
		{"name", Host{ControlPlane: "https://no-such-host.invalid:1"}, Fail, "does not resolve"},
		{"name", Host{ControlPlane: "https://127.0.0.1:1"}, OK, "127.0.0.1"},
		{"control plane", Host{ControlPlane: "https://" + closed.Addr().String()}, Fail, "cannot be reached"},
	} {
		got := one(t, tt.check, tt.host)
		if len(got) != 1 || got[0].Level != tt.level || !strings.Contains(got[0].Found, tt.found) {
			t.Errorf("%d: %s = %+v, want one finding, %s with %q", i, tt.check, got, tt.level, tt.found)
			continue
		}
		if (got[0].Remedy == "") != (tt.level == OK) {
			t.Errorf("%d: %s = %+v: a remedy belongs to what is not well, and only there", i, tt.check, got)
		}
	}
}

// What was not told is not looked at, and a check never blames what it does
// not know.
func TestNothingKnownIsNothingFound(t *testing.T) {
	t.Parallel()
	for _, check := range []string{"agent", "leftovers", "state", "name", "control plane", "feed", "offline", "certificate", "journal", "doors", "evidence", "capabilities", "proxy"} {
		if got := one(t, check, Host{}); got != nil {
			t.Errorf("%s of nothing = %+v, want nothing", check, got)
		}
	}
}

func TestControlPlaneIsTrustedAndItsClockCompared(t *testing.T) {
	t.Parallel()
	var date string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	if got := one(t, "control plane", Host{ControlPlane: server.URL}); len(got) != 1 || got[0].Level != Fail || !strings.Contains(got[0].Found, "not trusted") {
		t.Errorf("with other roots: %+v, want that it is not trusted", got)
	}
	for off, want := range map[time.Duration]Level{0: OK, 20 * time.Second: Warn, -20 * time.Second: Warn, 10 * time.Minute: Fail, -10 * time.Minute: Fail} {
		date = time.Now().Add(off).UTC().Format(http.TimeFormat)
		got := one(t, "control plane", Host{ControlPlane: server.URL, CA: pool})
		if len(got) != 2 || got[0].Level != OK || got[1].Level != want {
			t.Errorf("with a clock %v off: %+v, want %s", off, got, want)
		}
	}
}

// A whole visit to a real agent, and to what it leaves behind when it is gone.
func TestVisit(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	dir, err := os.MkdirTemp("", "doctor") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cp.Place(fleetapi.Placement{Name: "p", Door: "main", Resource: "/subscriptions/s"})
	a, err := agent.New(agent.Config{ControlPlane: cp.URL, CA: cp.CA, StateDir: dir + "/state", EnrolToken: agenttest.EnrolToken,
		Doors: []agent.DoorConfig{{Name: "main", Listen: "127.0.0.1:0"}}, ControlSocket: dir + "/a.sock"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	h := Host{Socket: dir + "/a.sock", StateDir: dir + "/state", ControlPlane: cp.URL, CA: cp.CA, Start: "start it", Getenv: env()}
	more := Check{Name: "more", Run: func(context.Context, *Host) []Finding { return ok("of the caller") }}
	findings := Run(t.Context(), h, more)
	if Failed(findings) {
		t.Errorf("a healthy host fails: %+v", findings)
	}
	var said []string
	for _, f := range findings {
		said = append(said, fmt.Sprint(f.Check, ": ", f.Found))
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"agent: runs for " + agenttest.HostID, "feed: revision", "doors: open: run at", "control plane: answers", "capabilities: the agent", "more: of the caller"} {
		if !strings.Contains(text, want) {
			t.Errorf("findings have no %q:\n%s", want, text)
		}
	}

	a.Close()
	cp.Down(true)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/a.sock"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as one that was killed
	l.Close()
	found := map[string]Finding{}
	for _, f := range Run(t.Context(), h) {
		found[f.Check] = f
	}
	if f := found["agent"]; f.Level != Fail || f.Remedy != "start it" {
		t.Errorf("agent = %+v, want that it does not run", f)
	}
	if f := found["leftovers"]; f.Level != Warn || !strings.Contains(f.Found, "was killed") {
		t.Errorf("leftovers = %+v, want the socket", f)
	}
	if f := found["control plane"]; f.Level != Fail {
		t.Errorf("control plane = %+v, want that it cannot be reached", f)
	}
	if _, there := found["feed"]; there {
		t.Error("the feed of an agent that does not run was found")
	}
}

// Somebody else at the control socket is not taken for the agent.
func TestStrangerAtTheSocket(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]http.HandlerFunc{
		"no JSON":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"a refusal": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", http.StatusForbidden) },
	} {
		dir, err := os.MkdirTemp("", "doctor")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		l, err := net.Listen("unix", dir+"/a.sock")
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: serve}}
		server.Start()
		t.Cleanup(server.Close)
		if got := one(t, "agent", Host{Socket: dir + "/a.sock"}); len(got) != 1 || got[0].Level != Fail || !strings.Contains(got[0].Found, "does not answer as an agent does") {
			t.Errorf("%s: %+v, want that it is no agent", name, got)
		}
	}
}
