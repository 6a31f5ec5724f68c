package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseGrants(t *testing.T) {
	t.Parallel()
	at := func(parts ...string) place { return place{parts[0], parts[1], strings.Join(parts[2:], "")} }
	for _, tt := range []struct {
		secrets, files []string
		want           []grant
		err            string
	}{
		{secrets: []string{"A=demo/x"}, want: []grant{{env: "A", place: at("demo", "x")}}},
		{secrets: []string{"_a1=demo/x/0a"}, want: []grant{{env: "_a1", place: at("demo", "x", "0a")}}},
		{secrets: []string{"A=https://demo.vault.example.com:8443/secrets/x"}, want: []grant{{env: "A", place: at("https://demo.vault.example.com:8443", "x")}}},
		{secrets: []string{"A=https://v.example/secrets/x/1"}, want: []grant{{env: "A", place: at("https://v.example", "x", "1")}}},
		{files: []string{"/k=1/a=demo/x"}, want: []grant{{path: "/k=1/a", place: at("demo", "x")}}}, // the last = counts
		{files: []string{"/a/../b=demo/x"}, want: []grant{{path: "/b", place: at("demo", "x")}}},
		{secrets: []string{"A=demo/x", "B=demo/x"}, want: []grant{{env: "A", place: at("demo", "x")}, {env: "B", place: at("demo", "x")}}},

		{secrets: []string{"A"}, err: "is not ENV=VAULT/NAME"},
		{secrets: []string{"=demo/x"}, err: "is not ENV=VAULT/NAME"},
		{secrets: []string{"1A=demo/x"}, err: "is not ENV=VAULT/NAME"},
		{secrets: []string{"A-B=demo/x"}, err: "is not ENV=VAULT/NAME"},
		{secrets: []string{"A=demo/x", "A=demo/y"}, err: "--secret A is given twice"},
		{secrets: []string{"A=x"}, err: `"x" is not VAULT/NAME`},
		{secrets: []string{"A="}, err: `"" is not VAULT/NAME`},
		{secrets: []string{"A=demo/x/1/2"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=demo//x"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=demo/../y"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=de.mo/x"}, err: "is not VAULT/NAME"}, // a token goes to names of the installation alone
		{secrets: []string{"A=demo/x?y"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=http://v.example/secrets/x"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=https://v.example/keys/x"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=https://me@v.example/secrets/x"}, err: "is not VAULT/NAME"},
		{secrets: []string{"A=https:///secrets/x"}, err: "is not VAULT/NAME"},
		{files: []string{"demo/x"}, err: "is not PATH=VAULT/NAME"},
		{files: []string{"=demo/x"}, err: "is not PATH=VAULT/NAME"},
		{files: []string{"/a/=demo/x"}, err: "--file /a/ is a folder"},
		{files: []string{"/a=demo/x", "//a=demo/y"}, err: "--file //a is given twice"},
	} {
		got, err := parseGrants(tt.secrets, tt.files)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("parseGrants(%q, %q) = %v, want an error with %q", tt.secrets, tt.files, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(grant{}, place{})); err != nil || diff != "" {
			t.Errorf("parseGrants(%q, %q): %v\n%s", tt.secrets, tt.files, err, diff)
		}
	}
}

func FuzzParsePlace(f *testing.F) {
	f.Add("demo/x/1")
	f.Add("https://demo.vault.example.com:8443/secrets/x/1")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlace(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("parsePlace(%q) prints %q", s, p)
		}
	})
}

// A folder on a disk, or one in which others could put theirs, is no place for
// a secret.
func TestInMemory(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("/dev/shm", "innate-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{base: "", "/dev/shm": "", open: "is open to others", "/proc": "is not in memory", base + "/none": "no such file"} {
		if err := inMemory(dir); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("inMemory(%s) = %v, want %q", dir, err, want)
		}
	}
}
