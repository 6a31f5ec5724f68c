package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// builder is one way to run "innate exec": as which user, and with which
// powers.
type builder struct {
	name string
	// wrap is what the command line begins with.
	wrap []string
	uid  int
	// private says that files are in a mount namespace of the command's own.
	private bool
}

// builders are root, who has a mount namespace for each command; root without
// the power to make one, as in most containers; and another user.
func builders(t *testing.T) []builder {
	t.Helper()
	if os.Getuid() != 0 {
		if !skipped("root") {
			t.Fatal("mount namespaces and other users take root: run the tests as root, or set INNATE_SKIP=root")
		}
		return []builder{{name: "user", uid: os.Getuid()}}
	}
	need(t, "setpriv")
	return []builder{
		{name: "root", private: true},
		{name: "root without CAP_SYS_ADMIN", wrap: []string{"setpriv", "--bounding-set", "-sys_admin"}},
		{name: "nobody", wrap: []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, uid: 65534},
	}
}

// step is "innate exec" under way.
type step struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	pipe  io.Closer
	out   *bufio.Reader // of pipe
	work  string        // its folder
}

// canary sets a secret that is nowhere else, and returns it.
func (in *instance) canary(t *testing.T, name string) string {
	t.Helper()
	value := "canary-" + uuid.NewString()
	if r := in.exec(t, value, "innate", "secret", "set", "demo/"+name); r.code != 0 {
		t.Fatal(r)
	}
	return value
}

// outside is the environment of a runner's service as vm1, for any user.
func (in *instance) outside(t *testing.T, work string) []string {
	t.Helper()
	env := cleanEnv()
	for k, v := range in.Resources["vm1"].Env {
		if k != "INNATE_DATA" {
			env = append(env, k+"="+v)
		}
	}
	bundle, err := os.ReadFile(in.Resources["vm1"].Env["SSL_CERT_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(work, "ca.pem")
	if err := os.WriteFile(ca, bundle, 0o644); err != nil {
		t.Fatal(err)
	}
	// No home: a service has none, nor an "innate dev" of its own.
	return append(env, "SSL_CERT_FILE="+ca, "HOME=", "XDG_STATE_HOME=", "XDG_RUNTIME_DIR=", "TMPDIR="+work)
}

// step runs a shell script under "innate exec" with flags, in a new folder.
func (b builder) step(t *testing.T, in *instance, flags []string, script string) *step {
	t.Helper()
	return b.stepIn(t, in, b.folder(t), flags, script)
}

// folder is a new one that the builder can write.
func (b builder) folder(t *testing.T) string {
	t.Helper()
	work, err := os.MkdirTemp("", "innate-exec-test-") // not below the test's own: others can enter this one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	if err := errors.Join(os.Chmod(work, 0o755), os.Chown(work, b.uid, -1)); err != nil {
		t.Fatal(err)
	}
	return work
}

func (b builder) stepIn(t *testing.T, in *instance, work string, flags []string, script string) *step {
	t.Helper()
	args := append(append([]string{}, b.wrap...), filepath.Join(bin, "innate"), "exec", "--vault-domain", strings.TrimPrefix(in.Endpoints.Login, "https://login."))
	args = append(append(args, flags...), "--", "sh", "-c", script)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stderr = in.outside(t, work), work, t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(commandLimit, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { watchdog.Stop() })
	return &step{cmd: cmd, stdin: stdin, pipe: stdout, out: bufio.NewReader(stdout), work: work}
}

// line reads a line of its output.
func (s *step) line(t *testing.T) string {
	t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("reading a line: %v, after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

// end lets the script go on, and returns the rest of its output and its exit code.
func (s *step) end(t *testing.T) (string, int) {
	t.Helper()
	_ = s.stdin.Close() // it may have ended already
	return s.wait(t)
}

// wait is end for a script that is ended by something else.
func (s *step) wait(t *testing.T) (string, int) {
	t.Helper()
	rest, err := io.ReadAll(s.out)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // its exit code is what the test is about
	code := s.cmd.ProcessState.ExitCode()
	if ws := s.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return string(rest), code
}

// holding looks for a value in all files below a folder.
func holding(t *testing.T, root, value string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(b, []byte(value)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// tmpfs and ramfs, as statfs(2) has them.
const tmpfsMagic, ramfsMagic = 0x01021994, 0x858458f6

// While the command runs, its secrets are in its environment and its file, and
// nowhere else; afterwards, nowhere.
func TestExecKeepsSecretsToTheCommand(t *testing.T) {
	t.Parallel()
	in := start(t)
	value := in.canary(t, "canary")
	for _, b := range builders(t) {
		t.Run(b.name, func(t *testing.T) {
			s := b.step(t, in, []string{"--secret", "P=demo/canary", "--file", "key=demo/canary"},
				`test "$P" = "$(cat key)" && printf %s "$P" | sha256sum; readlink key; echo $$; read go; echo "$P"`)
			if got, want := s.line(t), fmt.Sprintf("%x  -", sha256.Sum256([]byte(value))); got != want {
				t.Errorf("the command has %s, want %s", got, want)
			}
			target, pid := s.line(t), s.line(t)
			b.looksAround(t, s, target, value)
			for _, proc := range []string{strconv.Itoa(s.cmd.Process.Pid), pid} {
				for _, name := range []string{"cmdline", "environ"} {
					if proc == pid && name == "environ" {
						continue // that is where it is
					}
					if text, err := os.ReadFile(filepath.Join("/proc", proc, name)); err != nil || strings.Contains(string(text), value) {
						t.Errorf("/proc/%s/%s has the value: %v", proc, name, err)
					}
				}
			}
			if found := append(holding(t, s.work, value), holding(t, in.dir, value)...); len(found) > 0 {
				t.Errorf("the value is on a disk, in %q", found)
			}
			if rest, code := s.end(t); rest != "***\n" || code != 0 {
				t.Errorf("it printed %q and ended with %d", rest, code)
			}
			nothingLeft(t, s, target)
		})
	}
}

// looksAround looks at what a process beside the command can see.
func (b builder) looksAround(t *testing.T, s *step, target, value string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.work, "key"))
	if b.private && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("outside of the command's namespace the file is %q, %v", text, err)
	}
	if !b.private {
		var sys syscall.Statfs_t
		if err := syscall.Statfs(target, &sys); err != nil || sys.Type != tmpfsMagic && sys.Type != ramfsMagic {
			t.Errorf("the file is on a file system of type %x, %v", sys.Type, err)
		}
		file, err := os.Stat(target)
		dir, derr := os.Stat(filepath.Dir(target))
		if err := errors.Join(err, derr); err != nil || file.Mode() != 0o400 || dir.Mode() != 0o700|fs.ModeDir || string(text) != value {
			t.Errorf("the file is %v in %v, with %q: %v", file, dir, text, err)
		}
	}
	pid := strconv.Itoa(s.cmd.Process.Pid)
	limits, err := os.ReadFile("/proc/" + pid + "/limits")
	if err != nil || strings.Join(strings.Fields(line(string(limits), "Max core file size")), " ") != "Max core file size 0 0 bytes" {
		t.Errorf("the limits are %s, %v; want no core", limits, err)
	}
	// The kernel gives what belongs to a process that is not dumpable to root.
	if fi, err := os.Stat("/proc/" + pid + "/mem"); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("its memory is open to user %d: %v", b.uid, err)
	}
}

// line is the line of a text that begins with prefix.
func line(text, prefix string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, prefix) {
			return l
		}
	}
	return ""
}

// nothingLeft expects neither link nor folder.
func nothingLeft(t *testing.T, s *step, target string) {
	t.Helper()
	for _, path := range []string{filepath.Join(s.work, "key"), filepath.Dir(target)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// However it ends, nothing is left.
func TestExecLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.canary(t, "canary")
	for _, b := range builders(t) {
		for _, tt := range []struct {
			name, script string
			kill         syscall.Signal
			code         int
		}{
			{"the command is killed", "readlink key; kill -9 $$", 0, 137},
			{"SIGTERM", "readlink key; read go", syscall.SIGTERM, 143},
			{"SIGINT", "readlink key; read go", syscall.SIGINT, 130},
			{"SIGHUP", "readlink key; read go", syscall.SIGHUP, 129},
			{"the command removes its file", "readlink key; rm -f key", 0, 0},
			{"nobody reads its output", "readlink key; exec yes", syscall.SIGPIPE, 141},
		} {
			t.Run(b.name+"/"+tt.name, func(t *testing.T) {
				s := b.step(t, in, []string{"--file", "key=demo/canary"}, tt.script)
				target := s.line(t)
				if tt.kill == syscall.SIGPIPE {
					if err := s.pipe.Close(); err != nil {
						t.Fatal(err)
					}
					s.out.Reset(strings.NewReader(""))
				} else if tt.kill != 0 {
					if err := s.cmd.Process.Signal(tt.kill); err != nil {
						t.Fatal(err)
					}
				}
				if _, code := s.wait(t); code != tt.code {
					t.Errorf("it ended with %d, want %d", code, tt.code)
				}
				nothingLeft(t, s, target)
			})
		}
	}
}

// Killed itself, it takes the command with it. As root nothing is left but an
// empty folder; else the file stays in memory, for this user alone. The next
// one removes both.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	in := start(t)
	value := in.canary(t, "canary")
	for _, b := range builders(t) {
		t.Run(b.name, func(t *testing.T) {
			s := b.step(t, in, []string{"--secret", "P=demo/canary", "--file", "key=demo/canary"}, `readlink key; echo $$; read go`)
			target, pid := s.line(t), s.line(t)
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, code := s.wait(t); code != 137 {
				t.Errorf("it ended with %d", code)
			}
			gone(t, filepath.Join("/proc", pid, "cwd"))
			inside, err := os.ReadDir(filepath.Dir(target))
			if b.private && (err != nil || len(inside) != 0) {
				t.Errorf("the folder has %v, %v; want it empty", inside, err)
			}
			if found := holding(t, s.work, value); len(found) > 0 {
				t.Errorf("the value is in %q", found)
			}
			next := b.stepIn(t, in, s.work, []string{"--file", "key=demo/canary"}, `readlink key; cat key | sha256sum`)
			if now := next.line(t); now == target || filepath.Dir(now) == filepath.Dir(target) {
				t.Errorf("the next one's file is the same, %s", now)
			}
			if rest, code := next.end(t); code != 0 || rest != fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(value))) {
				t.Errorf("the next one printed %q and ended with %d", rest, code)
			}
			nothingLeft(t, s, target)
		})
	}
}

// gone waits until a path is not there any more.
func gone(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(commandLimit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err != nil {
			return
		}
	}
	t.Fatalf("%s is still there", path)
}

// What the command leaves running neither keeps it from ending nor has the
// file any more.
func TestExecEndsWithItsCommand(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.canary(t, "canary")
	for _, b := range builders(t) {
		t.Run(b.name, func(t *testing.T) {
			s := b.step(t, in, []string{"--file", "key=demo/canary"}, `
				f=$(readlink key); echo "$f"
				(while test -e "$f"; do sleep 0.05; done; echo gone > found.tmp; mv found.tmp found; while :; do sleep 1; done) & echo $!
				echo last words`)
			target := s.line(t)
			left, err := strconv.Atoi(s.line(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(left, syscall.SIGKILL) })
			if rest, code := s.end(t); code != 0 || rest != "last words\n" {
				t.Errorf("it printed %q and ended with %d", rest, code)
			}
			nothingLeft(t, s, target)
			for end := time.Now().Add(commandLimit); !exists(filepath.Join(s.work, "found")); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("what was left running still finds the file")
				}
			}
		})
	}
}

// A prompt has no line end, and is not waited for.
func TestExecShowsPrompts(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.canary(t, "canary")
	s := builder{}.step(t, in, []string{"--secret", "P=demo/canary"}, `printf 'Continue? [y/N] '; read a; echo "$a, with $P"`)
	prompt := make([]byte, len("Continue? [y/N] "))
	if _, err := io.ReadFull(s.out, prompt); err != nil || string(prompt) != "Continue? [y/N] " {
		t.Fatalf("the prompt is %q, %v", prompt, err)
	}
	if _, err := io.WriteString(s.stdin, "y\n"); err != nil {
		t.Fatal(err)
	}
	if rest, code := s.end(t); code != 0 || rest != "y, with ***\n" {
		t.Errorf("it printed %q and ended with %d", rest, code)
	}
}

// Programs take secrets as they always did.
func TestExecProgramsReadSecrets(t *testing.T) {
	t.Parallel()
	in := start(t)
	password, key := in.canary(t, "password"), in.canary(t, "key")
	want := fmt.Sprintf("%x\ndebug: {password:***}\n", sha256.Sum256([]byte(password+key)))
	for _, lang := range languages {
		t.Run(string(lang), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key.pem")
			// As a machine whose metadata service is all that it has: no header.
			args := []string{"run", "vm1", "--", "env", "-u", "IDENTITY_ENDPOINT", "-u", "IDENTITY_HEADER", "KEY_FILE=" + file,
				"innate", "exec", "--secret", "PASSWORD=demo/password", "--file", file + "=demo/key", "--"}
			r := in.exec(t, "", "innate", append(args, lang.command(t, "usesecret")...)...)
			if r.code != 0 || r.out != want || r.err != "" {
				t.Errorf("usesecret: %s\nwant %s", r, want)
			}
		})
	}
}

// On a host with an agent, a step can be a resource that is placed there for
// its user: no variable, no running "innate dev" of its own.
func TestExecAsAResourceOfAnAgent(t *testing.T) {
	t.Parallel()
	in := start(t)
	value := in.canary(t, "canary")
	work := builder{uid: os.Getuid()}.folder(t)
	for id, want := range map[string]int{in.Resources["vm1"].ID: 0, in.Resources["vm2"].ID: 125, in.id("Microsoft.Compute/virtualMachines", "none"): 125} {
		cmd := exec.Command(filepath.Join(bin, "innate"), "exec", "--agent-socket", filepath.Join(in.dir, "agent.sock"), "--as", id,
			"--secret", "P="+in.Vaults["demo"]+"/secrets/canary", "--", "sh", "-c", `printf %s "$P" | sha256sum`)
		for _, kv := range in.outside(t, work) {
			if !strings.HasPrefix(kv, "IDENTITY_") && !strings.HasPrefix(kv, "AZURE_") {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want {
			t.Errorf("as %s: %s, %v; want exit code %d", id, out, err, want)
		}
		if got := strings.Contains(string(out), fmt.Sprintf("%x", sha256.Sum256([]byte(value)))); got != (want == 0) {
			t.Errorf("as %s it printed %s", id, out)
		}
	}
}

// atTheAddress makes a network of its own in which vm1's door answers at
// 169.254.169.254, as on a host whose agent has it, and runs a step there that
// has no variable to go by.
const atTheAddress = `
ip link set lo up
ip addr add 169.254.169.254/32 dev lo
innate dev --data "$1" --port 0 > "$1.log" 2>&1 & dev=$!
trap 'kill $dev; wait $dev; kill ${forward:-$dev} 2>/dev/null || :' EXIT
until grep -q ^ready "$1.log"; do kill -0 $dev; sleep 0.1; done
port=$(python3 -c '
import json, sys, urllib.parse
print(urllib.parse.urlsplit(json.load(open(sys.argv[1]))["resources"]["vm1"]["env"]["ARM_MSI_ENDPOINT"]).port)' "$1/dev.json")
python3 -c '
import socket, sys, threading
def copy(a, b):
    while data := a.recv(65536): b.sendall(data)
    b.shutdown(socket.SHUT_WR)
s = socket.create_server(("169.254.169.254", 80))
print("up", flush=True)
while True:
    a = s.accept()[0]
    b = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for x, y in ((a, b), (b, a)): threading.Thread(target=copy, args=(x, y), daemon=True).start()' $port > "$1.up" & forward=$!
until grep -q up "$1.up"; do kill -0 $forward; sleep 0.1; done
env -i "PATH=$PATH" "INNATE_DATA=$1" innate exec --secret P=demo/greeting -- sh -c 'env | grep -c -e ^IDENTITY_ -e ^AZURE_; printf %s "$P" | sha256sum'`

func TestExecAtTheMetadataAddress(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		if !skipped("root") {
			t.Fatal("making a network namespace takes root: run the tests as root, or set INNATE_SKIP=root")
		}
		t.Skip("root is in INNATE_SKIP")
	}
	need(t, "python3")
	need(t, "ip")
	data := filepath.Join(t.TempDir(), "data")
	cmd := exec.Command("unshare", "--net", "sh", "-ec", atTheAddress, "sh", data)
	cmd.Env = cleanEnv()
	watchdog := time.AfterFunc(commandLimit, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer watchdog.Stop()
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("0\n%x  -\n", sha256.Sum256([]byte(greeting))); err != nil || string(out) != want {
		log, _ := os.ReadFile(data + ".log") // it helps to see why
		t.Errorf("the step printed %q, %v; want %q\n%s", out, err, want, log)
	}
}
