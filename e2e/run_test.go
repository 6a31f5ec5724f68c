package e2e

import (
	"bufio"
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// curlAsWorkload reads the greeting with what "innate env" gave.
const curlAsWorkload = `
token=$(curl -sS --fail -H "X-IDENTITY-HEADER: $IDENTITY_HEADER" "$IDENTITY_ENDPOINT?api-version=2019-08-01&resource=https://vault.azure.net" |
  sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -sS --fail -H "Authorization: Bearer $token" "$VAULT_URL/secrets/greeting?api-version=7.4"`

func TestEnvInAShell(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	in := start(t)
	// A space in a path is where quoting shows.
	file := filepath.Join(t.TempDir(), "with a space.env")
	for format, load := range map[string]string{
		"sh":     `eval "$(innate env vm1)"`,
		"dotenv": `innate env vm1 --format dotenv > "$1"; set -a; . "$1"; set +a`,
	} {
		r := in.exec(t, "", "sh", "-ec", load+curlAsWorkload, "sh", file)
		if r.code != 0 || !strings.Contains(r.out, `"value":"`+greeting+`"`) {
			t.Errorf("--format %s: %s", format, r)
		}
	}
	var env map[string]string
	if err := json.Unmarshal([]byte(in.must(t, "env", "vm1", "--format", "json")), &env); err != nil {
		t.Fatal(err)
	}
	if want := in.Resources["vm1"].Env; !maps.Equal(env, want) {
		t.Errorf("--format json: %v, want %v", env, want)
	}
}

// NO_PROXY matches by suffix: with "localhost" in it, no name under
// innate.localhost would be asked of the proxy that knows them.
func TestEnvironmentOfAWorkload(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.exec(t, "", "env", "NO_PROXY=localhost,.corp.example", "no_proxy=localhost", "AZURE_CLIENT_SECRET=x", "AZURE_TENANT_ID=y", "ARM_CLIENT_SECRET=z", "KEEP=me",
		"innate", "run", "vm1", "--", "env")
	env := map[string]string{}
	for line := range strings.Lines(r.out) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := env[k]; twice {
			t.Errorf("%s is there twice", k)
		}
		env[k] = v
	}
	for _, k := range []string{"NO_PROXY", "no_proxy"} {
		if v, ok := env[k]; !ok || strings.Contains(v, "localhost") || !strings.HasSuffix(v, ",.corp.example") {
			t.Errorf("%s = %q, want one without localhost and with what else was there", k, v)
		}
	}
	for _, k := range []string{"AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "ARM_CLIENT_SECRET"} {
		if v, ok := env[k]; ok {
			t.Errorf("the user's own %s = %q is there", k, v)
		}
	}
	if env["KEEP"] != "me" || env["HTTPS_PROXY"] != in.Endpoints.Proxy || env["IDENTITY_HEADER"] == in.Resources["vm1"].Env["IDENTITY_HEADER"] {
		t.Errorf("the environment is %v", env)
	}
	// The secret was that one program's.
	if got := in.ask(t, env["IDENTITY_HEADER"]); got.status != 401 {
		t.Errorf("its secret after it has ended: %d, want 401", got.status)
	}
}

// pythonReads reads the greeting with what Python's own library takes from the
// environment.
const pythonReads = `
import json, os, urllib.request
def get(url, **headers):
    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return json.load(urllib.request.urlopen(request))
token = get(os.environ["IDENTITY_ENDPOINT"] + "?api-version=2019-08-01&resource=https://vault.azure.net", X_IDENTITY_HEADER=os.environ["IDENTITY_HEADER"])
print(get(os.environ["VAULT_URL"] + "/secrets/greeting?api-version=7.4", Authorization="Bearer " + token["access_token"])["value"])`

// The proxy that knows our names serves the programs that were given its
// password, in whatever language, and nobody else who finds its port.
func TestProxyServesProgramsOfTheRunAlone(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	need(t, "python3")
	in := start(t)
	if r := in.as(t, "vm1", "sh", "-ec", curlAsWorkload); r.code != 0 || !strings.Contains(r.out, greeting) {
		t.Errorf("curl: %s", r)
	}
	if r := in.as(t, "vm1", "python3", "-c", pythonReads); r.code != 0 || r.out != greeting+"\n" {
		t.Errorf("python: %s", r)
	}
	u, err := url.Parse(in.Endpoints.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{in.Endpoints.Login, "https://example.com/"} {
		r := in.exec(t, "", "curl", "-sS", "--noproxy", "", "--proxy", "http://"+u.Host, "-o", "/dev/null", "-w", "%{http_connect}", to)
		if r.out != "407" {
			t.Errorf("without the password, CONNECT to %s: %s, want 407", to, r)
		}
	}
}

func TestRunPassesStreamsAndExitCodes(t *testing.T) {
	t.Parallel()
	in := start(t)
	for code, script := range map[int]string{0: "exit 0", 7: "exit 7", 255: "exit 255", 128 + int(syscall.SIGKILL): "kill -9 $$"} {
		if r := in.as(t, "vm1", "sh", "-c", script); r.code != code || r.out+r.err != "" {
			t.Errorf("sh -c %q: %s, want exit code %d", script, r, code)
		}
	}
	big := strings.Repeat("bytes go through as they are\x00\xff\n", 5000)
	r := in.exec(t, big, "innate", "run", "vm1", "--", "sh", "-c", "cat; echo to stderr >&2")
	if r.code != 0 || r.out != big || r.err != "to stderr\n" {
		t.Errorf("cat: exit code %d, %d bytes of %d, stderr %q", r.code, len(r.out), len(big), r.err)
	}
	if r := in.as(t, "vm1", "printf", "%s|", "--data", "a b", "", "--", "$HOME"); r.out != "--data|a b||--|$HOME|" {
		t.Errorf("arguments: %s", r)
	}
}

// What a service manager sends to "innate run" is for the program.
func TestRunPassesSignals(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, tt := range []struct {
		sig    syscall.Signal
		script string
		code   int
	}{
		{syscall.SIGTERM, `trap 'echo got it; exit 42' TERM; echo up; while :; do read line || :; done`, 42},
		{syscall.SIGHUP, `trap 'echo got it; exit 43' HUP; echo up; while :; do read line || :; done`, 43},
		{syscall.SIGTERM, `trap 'echo got it' EXIT; echo up; read line`, 128 + int(syscall.SIGTERM)},
	} {
		out, code := in.signalled(t, tt.sig, tt.script)
		if code != tt.code || tt.code < 128 && out != "got it\n" {
			t.Errorf("%v to %q: exit code %d, printed %q; want %d", tt.sig, tt.script, code, out, tt.code)
		}
	}
}

// signalled runs a shell script under "innate run", sends a signal to innate
// when the script has printed a line, and returns the rest of its output.
func (in *instance) signalled(t *testing.T, sig syscall.Signal, script string) (string, int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "innate"), "run", "vm1", "--", "sh", "-c", script)
	cmd.Env, cmd.Stderr = in.env(), t.Output()
	r, w, err := os.Pipe() // open for as long as the script reads
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd.Stdin = r
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(commandLimit, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	lines := bufio.NewReader(stdout)
	if up, err := lines.ReadString('\n'); up != "up\n" {
		t.Fatalf("the script printed %q: %v", up, err)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	var rest strings.Builder
	if _, err := lines.WriteTo(&rest); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its exit code is what the test is about
	return rest.String(), cmd.ProcessState.ExitCode()
}
