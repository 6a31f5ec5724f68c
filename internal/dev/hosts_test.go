package dev

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWithHosts(t *testing.T) {
	names := []string{"login.innate.localhost", "demo.vault.innate.localhost"}
	block := "# innate dev: begin\n127.0.0.1 login.innate.localhost demo.vault.innate.localhost\n# innate dev: end\n"
	for _, tt := range []struct {
		name, in string
		names    []string
		want     string
	}{
		{"added at the end", "127.0.0.1 localhost\n", names, "127.0.0.1 localhost\n" + block},
		{"a file without a last line end", "127.0.0.1 localhost", names, "127.0.0.1 localhost\n" + block},
		{"an empty file", "", names, block},
		{"replaced", "a\n# innate dev: begin\nold\n# innate dev: end\nb\n", names, "a\nb\n" + block},
		{"removed", "a\n" + block + "b\n", nil, "a\nb\n"},
		{"nothing to remove", "a\n", nil, "a\n"},
	} {
		if got, err := WithHosts(tt.in, tt.names); err != nil || got != tt.want {
			t.Errorf("%s: %v %s", tt.name, err, cmp.Diff(tt.want, got))
		}
	}
}

// TestWriteHostsKeepsTheFile: the file is written in place, its mode stays, and
// what others wrote stays.
func TestWriteHostsKeepsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("127.0.0.1 localhost\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(path, []string{"x.innate.localhost"}); err != nil {
		t.Fatal(err)
	}
	if err := writeHosts(path, nil); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "127.0.0.1 localhost\n" || !os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("after adding and removing, the hosts file is %q with mode %v, want it as it was", b, after.Mode())
	}
}

// TestHostsMarksThatAreNoPairTouchNothing: what follows a mark without its
// other may be anyone's.
func TestHostsMarksThatAreNoPairTouchNothing(t *testing.T) {
	for _, text := range []string{
		"a\n# innate dev: begin\n127.0.0.1 x\n10.0.0.1 important\n",
		"a\n# innate dev: begin\n# innate dev: begin\n127.0.0.1 x\n# innate dev: end\nb\n",
		"a\n# innate dev: end\nb\n",
	} {
		for _, names := range [][]string{nil, {"login.innate.localhost"}} {
			path := filepath.Join(t.TempDir(), "hosts")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := writeHosts(path, names); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("writeHosts over %q = %v, want an error that names the file", text, err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != text {
				t.Errorf("%q became %q, %v", text, b, err)
			}
		}
	}
}

// TestHostsAreNeverCut: a reader that looks all the time sees the lines of
// others at every moment.
func TestHostsAreNeverCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	text := "127.0.0.1 localhost\n" + strings.Repeat("10.0.0.1 important\n", 50)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for range 300 {
			for _, names := range [][]string{{"login.innate.localhost"}, nil} {
				if err := writeHosts(path, names); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
			if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), text) {
				t.Fatalf("at one moment the file is %d bytes long (%v), and lacks lines of others", len(b), err)
			}
		}
	}
}
