// Package systemd_test tests the units as far as that goes without systemd as
// the first process: systemd's own checker reads them, and the agent runs with
// exactly the capabilities of its unit.
package systemd_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

// stranger is a user that is neither root nor anybody.
const stranger = 12345

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP names root")
	}
	t.Fatal("this test plays a service of systemd's and needs root; INNATE_SKIP=root leaves it out")
}

// build builds a program of this module into dir.
func build(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/"+name).CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, out)
	}
	return path
}

// setting returns the values of a key of a unit.
func setting(t *testing.T, unit, key string) []string {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		out = append(out, strings.Fields(m[1])...)
	}
	return out
}

func TestUnitsAreUnderstoodBySystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for unit, exposure := range map[string]float64{"innate-agent": 4.5, "innated": 2} {
		program := build(t, dir, unit)
		text, err := os.ReadFile(unit + ".service")
		if err != nil {
			t.Fatal(err)
		}
		here := filepath.Join(dir, unit+".service")
		if err := os.WriteFile(here, []byte(strings.ReplaceAll(string(text), "/usr/bin/"+unit, program)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", here).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s.service: %v\n%s", unit, err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", here).CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(string(out))
		if m == nil {
			t.Fatalf("systemd-analyze security says no level:\n%s", out)
		}
		if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > exposure {
			t.Errorf("%s.service is exposed to a level of %s, want at most %v:\n%s", unit, m[1], exposure, out)
		}
	}
}

// bounded makes a command with the capabilities of the unit but for one, as
// systemd sets them.
func bounded(ctx context.Context, t *testing.T, without string, command ...string) *exec.Cmd {
	t.Helper()
	set := "-all"
	for _, c := range setting(t, "innate-agent.service", "CapabilityBoundingSet") {
		if c != without {
			set += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
		}
	}
	return exec.CommandContext(ctx, "setpriv", append([]string{"--no-new-privs", "--inh-caps=-all", "--bounding-set=" + set}, command...)...)
}

// Each capability has its reason: with all of them it works, without that one
// it does not. What the agent does in Go is played by the programs that do the
// same.
func TestCapabilitiesAreNeeded(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	// A program that only its user may read, in a network namespace of its own.
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, text, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(program, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	other := exec.Command(program, "60")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger, NoSetGroups: true}, Cloneflags: syscall.CLONE_NEWNET}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait() // it was killed
	})
	proc := fmt.Sprintf("/proc/%d/", other.Process.Pid)
	for capability, command := range map[string][]string{
		"CAP_SYS_PTRACE":      {"readlink", proc + "exe"},
		"CAP_DAC_READ_SEARCH": {"sha256sum", proc + "exe"},
		"CAP_SYS_ADMIN":       {"nsenter", "--net=" + proc + "ns/net", "true"},
		"CAP_NET_ADMIN":       {"nsenter", "--net=" + proc + "ns/net", "ip", "link", "set", "dev", "lo", "up"},
	} {
		if out, err := bounded(t.Context(), t, "", command...).CombinedOutput(); err != nil {
			t.Errorf("%v with the unit's capabilities: %v\n%s", command, err, out)
		}
		if out, err := bounded(t.Context(), t, capability, command...).CombinedOutput(); err == nil {
			t.Errorf("%v works without %s, so that it is not needed for this:\n%s", command, capability, out)
		}
	}
}

// manager is what a service manager hears from a service.
type manager struct {
	conn *net.UnixConn
	said chan string
}

func listenAsManager(t *testing.T, path string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{conn: conn, said: make(chan string, 100)}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				close(m.said)
				return
			}
			m.said <- string(b[:n])
		}
	}()
	return m
}

// hears waits for a word, and lets the watchdog's pass.
func (m *manager) hears(t *testing.T, want string) {
	t.Helper()
	for {
		select {
		case got := <-m.said:
			if got == "WATCHDOG=1" && want != got {
				continue
			}
			if !strings.HasPrefix(got, want) {
				t.Fatalf("the service manager heard %q, want %q", got, want)
			}
			return
		case <-time.After(20 * time.Second):
			t.Fatalf("the service manager did not hear %q", want)
		}
	}
}

// The real agent, with the capabilities of its unit, its token as a
// credential, a door on a low port, and a program of another user that asks.
// It tells the service manager when it is ready, over a reload as well.
func TestAgentRunsAsItsUnitSays(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "p", Door: "low", Resource: "/subscriptions/s", Selectors: []string{fmt.Sprintf("unix:uid:%d", stranger)}})
	dir, err := os.MkdirTemp("", "unit") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u, err := url.Parse(cp.URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"enrolment-token": agenttest.EnrolToken + "\n", "ca.pem": string(cp.CAPEM),
		"agent.yaml": fmt.Sprintf("control_plane: https://example.com:%s\ncontrol_plane_ca: %s/ca.pem\nconnect_to: %s\nstate_dir: %s/state\n"+
			"control_socket: %s/a.sock\ndoors: [{name: low, listen: \"127.0.0.1:1009\"}]\n", u.Port(), dir, u.Host, dir, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	program := build(t, dir, "innate-agent")
	command := []string{program, "--config", filepath.Join(dir, "agent.yaml")}

	poor := bounded(t.Context(), t, "CAP_NET_BIND_SERVICE", command...)
	if out, err := poor.CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("a low port without CAP_NET_BIND_SERVICE: %v\n%s", err, out)
	}

	systemd := listenAsManager(t, filepath.Join(dir, "notify"))
	cmd := bounded(t.Context(), t, "", command...)
	cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+dir, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=300000")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		done <- <-done
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ask := func() {
		t.Helper()
		curl := exec.Command("setpriv", fmt.Sprint("--reuid=", stranger), fmt.Sprint("--regid=", stranger), "--clear-groups", "curl", "-sS", "-H", "Metadata: true",
			"http://127.0.0.1:1009/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r")
		if out, err := curl.CombinedOutput(); err != nil || !strings.Contains(string(out), "access_token") {
			t.Errorf("a program of user %d asks: %v\n%s", stranger, err, out)
		}
	}
	systemd.hears(t, "READY=1")
	ask()
	systemd.hears(t, "WATCHDOG=1")
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		systemd.hears(t, "RELOADING=1\nMONOTONIC_USEC=")
		systemd.hears(t, "READY=1")
		ask()
	}
	systemd.hears(t, "WATCHDOG=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	systemd.hears(t, "STOPPING=1")
	err = <-done
	if done <- err; err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}
