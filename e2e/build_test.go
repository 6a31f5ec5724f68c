package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// bin is the folder of the built programs.
var bin string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	bin, err = os.MkdirTemp("", "innate-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	if err := os.Chmod(bin, 0o755); err != nil { // some tests play other users
		return 0, err
	}
	// The programs under test are watched by the race detector if the tests are;
	// the SDKs' programs need no watching.
	args := []string{"build", "-C", "..", "-o", bin + "/"}
	if raceEnabled {
		args = append(args, "-race")
	}
	if err := run("go", append(args, "./cmd/innate")...); err != nil {
		return 0, err
	}
	if err := run("go", "build", "-o", bin+"/", "./programs/..."); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// skipped reports whether INNATE_SKIP, a list with commas, has the program.
func skipped(program string) bool {
	return slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), program)
}

// need fails the test if a program that it runs is missing: a test that skips
// by itself is a test that nobody misses.
func need(t *testing.T, program string) {
	t.Helper()
	if skipped(program) {
		t.Skipf("%s is in INNATE_SKIP", program)
	}
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is missing; install it, or leave out what needs it with INNATE_SKIP=%s", program, program)
	}
}

// language is which SDK a workload is written with.
type language string

var languages = []language{"go", "javascript"}

// command is the command line of a workload.
func (l language) command(t *testing.T, program string) []string {
	t.Helper()
	if l == "go" {
		return []string{filepath.Join(bin, program)}
	}
	if skipped("node") {
		t.Skip("node is in INNATE_SKIP")
	}
	node, err := javascript()
	if err != nil {
		t.Fatalf("%v; or leave out what needs it with INNATE_SKIP=node", err)
	}
	script, err := filepath.Abs(filepath.Join("js", program+".mjs"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{node, script}
}

// nodeMajor is the oldest Node.js that the SDKs run on.
const nodeMajor = 20

// javascript returns the path of a Node.js that is new enough, the one that
// "make deps" puts beside the programs or the system's, with their packages
// installed.
var javascript = sync.OnceValues(func() (string, error) {
	node, err := filepath.Abs("js/.node/bin/node")
	if err != nil {
		return "", err
	}
	if !exists(node) {
		if node, err = exec.LookPath("node"); err != nil {
			return "", fmt.Errorf("node is missing; install Node.js %d or newer, or run make deps", nodeMajor)
		}
	}
	out, err := exec.Command(node, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", node, err)
	}
	var major int
	if _, err := fmt.Sscanf(string(out), "v%d.", &major); err != nil || major < nodeMajor {
		return "", fmt.Errorf("node is %s; install Node.js %d or newer, or run make deps", strings.TrimSpace(string(out)), nodeMajor)
	}
	return node, nodeModules()
})

// nodeModules installs what js/package-lock.json names, unless it is there.
func nodeModules() error {
	fresh, err := installed("js/package-lock.json", "js/node_modules/.package-lock.json")
	if err != nil || fresh {
		return err
	}
	return run("npm", "--prefix", "js", "ci")
}

// installed reports whether npm's record of what is in node_modules has all
// that the lock names. Packages for other platforms may be missing.
func installed(lock, record string) (bool, error) {
	type packages map[string]struct {
		Version, Integrity string
		Optional           bool
	}
	read := func(path string) (packages, error) {
		var f struct{ Packages packages }
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return f.Packages, json.Unmarshal(b, &f)
	}
	want, err := read(lock)
	if err != nil {
		return false, fmt.Errorf("reading the lock: %w", err)
	}
	have, err := read(record)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading what is installed: %w", err)
	}
	for name, p := range want {
		if name != "" && !p.Optional && have[name] != p {
			return false, nil
		}
	}
	return true, nil
}
