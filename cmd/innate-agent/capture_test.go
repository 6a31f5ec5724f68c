package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/agent/capture"
)

func TestCaptureOff(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
			t.Skip("INNATE_SKIP says to go without root")
		}
		t.Fatal("capture takes root: run the tests as root, or set INNATE_SKIP=root")
	}
	own, err := agenttest.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	chosen, _ := agenttest.Cgroup(t, t.Name())
	bpffs := agenttest.BPFFS(t)
	c, err := capture.Open(capture.Config{BPFFS: bpffs, Root: own, Cgroups: []string{chosen}})
	if err != nil {
		t.Fatal(err)
	}
	off := func() (code int, stdout, stderr string) {
		var o, e output
		code = run(t.Context(), []string{"capture", "off", "--bpffs", bpffs}, &o, &e)
		return code, o.String(), e.String()
	}
	if code, _, stderr := off(); code != 1 || !strings.Contains(stderr, "another agent") {
		t.Errorf("capture off under a running agent = %d %s, want 1 and another agent", code, stderr)
	}
	c.Close()
	if code, stdout, stderr := off(); code != 0 || !strings.Contains(stdout, "169.254.169.254:80 is not captured any more") {
		t.Errorf("capture off = %d %s %s", code, stdout, stderr)
	}
	if entries, err := filepath.Glob(filepath.Join(bpffs, "innate*")); err != nil || entries != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestCaptureSettings(t *testing.T) {
	t.Parallel()
	const rest = "control_plane: https://fleet.example\nstate_dir: /x\n"
	for _, tt := range []struct{ yaml, want string }{
		{"capture: {enabled: true}", ""},
		{"capture: {enabled: true, door: vm, cgroups: [/system.slice], listen: \"127.0.0.1:253\", bpffs: /run/bpf}", ""},
		{"capture: {enabled: false}", ""},
		{"capture: {door: vm}", "enabled: true"},
		{"capture: {cgroups: []}", "enabled: true"},
		{"capture: {enabled: true, listen: nowhere}", "127.254.169.254:254"},
		{"capture: {enabled: true, listen: \"0.0.0.0:80\"}", "loopback"},
		{"capture: {enabled: true, cgroups: [shop]}", "/proc/PID/cgroup"},
		{"capture: {enabled: true, door: run}", `"run"`},
		{"capture: {enabled: true, cgroup: [/a]}", "cgroup"},
	} {
		var stdout, stderr output
		code := run(t.Context(), []string{"--check", "--config", file(t, "agent.yaml", rest+tt.yaml, 0o600)}, &stdout, &stderr)
		if tt.want == "" && code != 0 || tt.want != "" && (code != 2 || !strings.Contains(stderr.String(), tt.want)) {
			t.Errorf("%s: exit code %d, %s, want %q in it", tt.yaml, code, stderr.String(), tt.want)
		}
	}
	for _, args := range [][]string{{"capture", "on"}, {"capture", "off", "now"}} {
		var stdout, stderr output
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 {
			t.Errorf("%s = %d %s, want 2", fmt.Sprint(args), code, stderr.String())
		}
	}
}
