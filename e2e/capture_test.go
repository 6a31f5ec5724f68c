package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const metadataToken = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"

// beside is a control group of the test's own. Programs in it are captured, and
// the test's own are not: no other test at this machine is in the way.
func beside(t *testing.T) (path string, dir *os.File) {
	t.Helper()
	needRoot(t)
	at := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(at, "cgroup.procs")); err != nil {
		at = filepath.Join(at, "unified")
	}
	path = fmt.Sprintf("/innate-e2e-%d", os.Getpid())
	folder := filepath.Join(at, path)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(commandLimit); os.Remove(folder) != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not empty", folder)
			}
		}
	})
	dir, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return path, dir
}

// A laptop with evidence: what "innate run" starts finds 169.254.169.254
// answering for it with no variable set, and what runs beside it is refused.
func TestCapturedProgramsNeedNoVariable(t *testing.T) {
	t.Parallel()
	group, dir := beside(t)
	in := start(t, "--capture", "--capture-cgroup", group)

	if r := in.as(t, "vm1", "env"); r.code != 0 || r.says("IDENTITY_") || r.says("AZURE_POD_") || r.says("MSI_ENDPOINT") {
		t.Errorf("a captured program's variables: %s", r)
	}
	each(t, func(t *testing.T, l language) {
		if r := in.as(t, "vm1", l.command(t, "readsecret")...); r.code != 0 || r.out != greeting+"\n" {
			t.Errorf("readsecret as vm1: %s", r)
		}
		// With no variable at all; and the token knows which program has it.
		nothing := append([]string{"env", "-i"}, l.command(t, "whoami")...)
		if r := in.as(t, "vm1", nothing...); r.code != 0 || !r.says("/virtualMachines/vm1", "door:run ", "grade:kernel", "unix:sha256:", `"innate_host":"dev"`) {
			t.Errorf("whoami as vm1, without any variable: %s", r)
		}
		if r := in.as(t, "vm2", l.command(t, "readsecret")...); r.code != 1 || !r.says("Identity not found") {
			t.Errorf("readsecret as vm2: %s", r)
		}
	})
	// A child of a child is of the start too, and our own commands know it.
	if r := in.as(t, "vm1", "sh", "-c", "setsid sh -c 'innate token --resource https://vault.azure.net --decode'"); r.code != 0 || !r.says("virtualMachines/vm1", "door:run ", "grade:kernel", "unix:sha256:") {
		t.Errorf("a grandchild of vm1: %s", r)
	}

	// The same program, the same user, beside it.
	if got := in.besides(t, dir, "curl", "-sS", "-H", "Metadata: true", metadataToken); !strings.Contains(got, `"error":"access_denied"`) {
		t.Errorf("a program beside was answered %s", got)
	}
	// With the secret of a start that it was given.
	secret, end := in.carried(t)
	if got := in.besides(t, dir, "sh", "-c", `curl -sS -H "X-IDENTITY-HEADER: $1" "$2?api-version=2019-08-01&resource=https://vault.azure.net"`, "sh",
		secret, in.Endpoints.Metadata+"/msi/token"); strings.Contains(got, "access_token") || !strings.Contains(got, "no part of") {
		t.Errorf("a start's secret outside of it was answered %s", got)
	}
	end()
	// What a start leaves running is nobody.
	left := filepath.Join(t.TempDir(), "left")
	in.as(t, "vm1", "sh", "-c", `(sleep 0.5; curl -sS -H "Metadata: true" "$0" > "$1.new"; mv "$1.new" "$1") >/dev/null 2>&1 &`, metadataToken, left)
	if got := awaitFile(t, left); !strings.Contains(got, "access_denied") {
		t.Errorf("what a start left running was answered %s", got)
	}

	in.stop(t)
	if b, err := os.ReadDir("/sys/fs/bpf"); err == nil {
		for _, e := range b {
			if e.Name() == "innate" {
				t.Error("the capture is left behind")
			}
		}
	}
}

// besides runs a command in the control group beside the starts.
func (in *instance) besides(t *testing.T, dir *os.File, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = in.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// carried is the secret of a start of vm1, as a program in it could get at it:
// it asks the agent for a start of its own.
func (in *instance) carried(t *testing.T) (secret string, end func()) {
	t.Helper()
	socket := filepath.Join(in.dir, "agent.sock")
	script := `import http.client, json, socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
body = json.dumps({"resource": sys.argv[2]})
s.sendall(("POST /starts HTTP/1.1\r\nHost: agent\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
text = b""
while b"}" not in text: text += s.recv(4096)
print(json.loads(text[text.index(b"{"):text.index(b"}")+1])["header"], flush=True)
time.sleep(30)
`
	cmd := exec.CommandContext(t.Context(), "python3", "-c", script, socket, in.Resources["vm1"].ID)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n])), end
}

func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(path); err == nil {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come", path)
		}
	}
}

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if skipped("root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("capture takes root: run the tests as root, or set INNATE_SKIP=root")
}

func TestCaptureSaysWhatItTakes(t *testing.T) {
	t.Parallel()
	needRoot(t) // to become somebody else
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", filepath.Join(bin, "innate"), "dev", "--data", t.TempDir(), "--port", "0", "--capture")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "takes root") {
		t.Errorf("innate dev --capture without root: %v\n%s", err, out)
	}
}
