package capture_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestObjectIsWhatTheSourceMakes: what is loaded into kernels is a binary that
// nobody reads. It must be what "make generate" makes of the source, to the
// byte, in whatever folder.
func TestObjectIsWhatTheSourceMakes(t *testing.T) {
	t.Parallel()
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "clang") {
		t.Skip("INNATE_SKIP says to go without clang")
	}
	const version = "14."
	out, err := exec.CommandContext(t.Context(), "clang", "-dumpversion").Output()
	if err != nil || !strings.HasPrefix(string(out), version) {
		t.Fatalf("clang is %q (%v), and the object was made by %sx (Debian 12's): install that, or set INNATE_SKIP=clang", out, err, version)
	}
	generate, err := os.ReadFile("gen.go")
	if err != nil {
		t.Fatal(err)
	}
	_, command, ok := strings.Cut(string(generate), "//go:generate ")
	if !ok {
		t.Fatal("gen.go has no go:generate")
	}
	// The tool is built here and run elsewhere, where there is no module.
	tool, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "bpf2go").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"capture.bpf.c", "kernel.h"} {
		if err := os.MkdirAll(filepath.Join(dir, "bpf"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(filepath.Join("bpf", name), filepath.Join(dir, "bpf", name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(strings.TrimSpace(command), "go tool bpf2go", strings.TrimSpace(string(tool)), 1))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"kernel_bpfel.o", "kernel_bpfel.go"} {
		checkedIn, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		made, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made, checkedIn) {
			t.Errorf("%s is not what the source makes: run make generate", name)
		}
		if bytes.Contains(checkedIn, []byte(os.TempDir()+"/")) || bytes.Contains(checkedIn, []byte("/home/")) || bytes.Contains(checkedIn, []byte("/root/")) {
			t.Errorf("%s has a path of some machine in it", name)
		}
	}
}
