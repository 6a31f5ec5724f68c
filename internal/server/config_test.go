package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
)

func read(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "innated.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadConfig(path)
}

const good = `
domain: id.example.com
database:
  sqlite: /var/lib/innate/innate.db
root_key_file: /var/lib/innate/root.key
replica: one
tls:
  local_ca: true
`

func TestConfigDefaults(t *testing.T) {
	c, err := read(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":8443" || c.TokenLife != "1h0m0s" || c.Replica != "one" {
		t.Errorf("defaults are listen %q, token_life %q, replica %q", c.Listen, c.TokenLife, c.Replica)
	}
}

// TestConfigReportsAllFaults: one run says everything that is wrong.
func TestConfigReportsAllFaults(t *testing.T) {
	_, err := read(t, "domain: Foo\nlisten: nowhere\nport: 99999\ntoken_life: 5m\nidentity_retention: 1y\nreplica: management\nresource_types: [{type: Microsoft.Compute/virtualMachines}]\n")
	if err == nil {
		t.Fatal("a configuration full of faults was accepted")
	}
	for _, want := range []string{"domain:", "listen:", "port:", "database:", "root_key_file:", "tls:", "replica:", "token_life:", "identity_retention:", "resource_types:"} {
		if !strings.Contains(err.Error(), "\n"+want) {
			t.Errorf("the error says nothing of %s\n%v", want, err)
		}
	}
}

func TestConfigIsStrict(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a key that does not exist", good + "tokens_life: 1h\n", "tokens_life"},
		{"a key of another block", good + "sqlite: x\n", "sqlite"},
		{"not YAML", "domain: [", ""},
		{"a list", "- a\n", ""},
		{"a number where a text belongs", strings.Replace(good, "local_ca: true", "local_ca: 7", 1), "local_ca"},
		{"both databases", strings.Replace(good, "root_key_file", "  postgres_file: /x\nroot_key_file", 1), "exactly one"},
		{"a certificate without its key", strings.Replace(good, "local_ca: true", "certificate_file: /x", 1), "tls:"},
		{"files and a local CA", strings.Replace(good, "local_ca: true", "local_ca: true\n  certificate_file: /x\n  key_file: /y", 1), "tls:"},
		{"the word that clients rewrite", strings.Replace(good, "id.example.com", "tokens.example.com", 1), "token"},
		{"a reach that is none", good + "federation:\n  reach: everywhere\n", "federation.reach"},
		{"a URL for a host name", good + "federation:\n  hosts: [\"https://issuer.example\"]\n", "federation.hosts"},
		{"a host name in upper case", good + "federation:\n  hosts: [Issuer.example]\n", "federation.hosts"},
		{"a star within a host name", good + "federation:\n  hosts: [\"issuer.*.example\"]\n", "federation.hosts"},
		{"a limit below 0", good + "limits: {reads: {per_second: -1}}\n", "limits.reads: per_second"},
		{"a limit without end", good + "limits: {writes: {per_second: .inf}}\n", "limits.writes: per_second"},
		{"a limit that lets nothing through", good + "limits: {writes: {burst: 0}}\n", "limits.writes: burst"},
		{"a limit of its own for deletes", good + "limits: {deletes: {burst: 1}}\n", "deletes"},
		{"one label", strings.Replace(good, "id.example.com", "localhost", 1), "domain:"},
	} {
		if _, err := read(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that names %q", tt.name, err, tt.want)
		}
	}
	if _, err := read(t, good+"federation:\n  reach: public\n  hosts: [issuer.example, \"*.corp.example\"]\n  ca_file: /etc/innate/issuers.pem\n"); err != nil {
		t.Errorf("a good federation block: %v", err)
	}
	if _, err := ReadConfig(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was accepted")
	}
}

// TestPostgresFile: what is in the file is a secret, and in no error.
func TestPostgresFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(path, []byte("host=db password=hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Database{PostgresFile: path}.postgres()
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "postgres://") {
		t.Errorf("a file without a URL = %v, want an error that says what was expected and not what was found", err)
	}
}

var fenced = regexp.MustCompile("(?s)```yaml\n# /etc/innate/innated.yaml\n(.*?)```")

// TestManualsExample: the configuration in the manual is a good one.
func TestManualsExample(t *testing.T) {
	b, err := os.ReadFile("../../docs/operate/README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := fenced.FindSubmatch(b)
	if m == nil {
		t.Fatal("docs/operate/README.md has no example of innated.yaml")
	}
	if _, err := read(t, string(m[1])); err != nil {
		t.Errorf("the manual's example: %v", err)
	}
}

var fencedPart = regexp.MustCompile("(?s)```yaml\n  # in /etc/innate/innated.yaml\n(.*?)  ```")

// TestManualsLimits: the block in the manual is one, and shows the defaults.
func TestManualsLimits(t *testing.T) {
	b, err := os.ReadFile("../../docs/operate/README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := fencedPart.FindSubmatch(b)
	if m == nil {
		t.Fatal("docs/operate/README.md has no example of limits")
	}
	c, err := read(t, good+strings.ReplaceAll(strings.TrimPrefix(string(m[1]), "  "), "\n  ", "\n"))
	if err != nil {
		t.Fatalf("the manual's example: %v", err)
	}
	if c.Limits.Reads.PerSecond == nil || c.Limits.Writes.Burst == nil || c.Limits.Reads.of() != arm.DefaultRate || c.Limits.Writes.of() != arm.DefaultRate {
		t.Errorf("the manual's defaults are %+v and %+v, and they are %+v", c.Limits.Reads.of(), c.Limits.Writes.of(), arm.DefaultRate)
	}
	none := 0.0
	if got := (Rate{PerSecond: &none}).of(); got.PerSecond != 0 || got.Burst != arm.DefaultRate.Burst {
		t.Errorf("a rate of 0 is %+v", got)
	}
}

// TestCheckFilesFindsWhatAStartWould: a check that says "valid" of what a start
// refuses is worse than none.
func TestCheckFilesFindsWhatAStartWould(t *testing.T) {
	cfg := config(t)
	if err := cfg.CheckFiles(); err != nil {
		t.Errorf("good files: %v", err)
	}
	if err := os.Chmod(cfg.RootKeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.TLS = TLS{CertificateFile: "/nonexistent/cert.pem", KeyFile: "/nonexistent/key.pem"}
	err := cfg.CheckFiles()
	if err == nil || !strings.Contains(err.Error(), "chmod 600") || !strings.Contains(err.Error(), "/nonexistent/cert.pem") {
		t.Errorf("an open root key and no certificate = %v, want both", err)
	}
	for name, text := range map[string]string{"missing.pem": "", "empty.pem": "nothing"} {
		bad := config(t)
		bad.Federation.CAFile = filepath.Join(t.TempDir(), name)
		if text != "" {
			if err := os.WriteFile(bad.Federation.CAFile, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := bad.CheckFiles(); err == nil || !strings.Contains(err.Error(), bad.Federation.CAFile) {
			t.Errorf("issuers' CAs in %s = %v, want an error that names it", name, err)
		}
	}
	if err := os.WriteFile(cfg.RootKeyFile, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.TLS = TLS{LocalCA: true}
	if err := os.Chmod(cfg.RootKeyFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cfg.CheckFiles(); err == nil || !strings.Contains(err.Error(), cfg.RootKeyFile) {
		t.Errorf("a garbage root key = %v, want an error that names it", err)
	}
	if err := os.Remove(cfg.RootKeyFile); err != nil {
		t.Fatal(err)
	}
	if err := cfg.CheckFiles(); err != nil {
		t.Errorf("before bootstrap: %v", err)
	}
}
