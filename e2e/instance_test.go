package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// startLimit is how long "innate dev" may take until it is ready, on a busy
	// machine and under the race detector.
	startLimit = time.Minute
	// commandLimit ends a command that hangs.
	commandLimit = time.Minute

	greeting = "Hello from Innate. This secret was read without a credential."
)

// devFile is dev.json as other programs read it.
type devFile struct {
	TenantID, SubscriptionID, ResourceGroup, CAFile string
	PID                                             int
	Endpoints                                       struct{ Login, Management, Portal, Metadata, Proxy string }
	Vaults                                          map[string]string
	Resources                                       map[string]struct {
		ID  string
		Env map[string]string
	}
	Host, Listen string
}

// instance is a running "innate dev".
type instance struct {
	devFile
	dir string
	cmd *exec.Cmd
	log *output
	// ended is closed when the process has ended and been waited for; waitErr
	// is set before.
	ended   chan struct{}
	waitErr error
}

// start runs "innate dev" on a new data folder.
func start(t *testing.T, flags ...string) *instance {
	t.Helper()
	return startOn(t, newFolder(t), flags...)
}

// newFolder is a data folder as mkdir makes it: empty, and open to others.
func newFolder(t *testing.T) string {
	t.Helper()
	return t.TempDir()
}

// startOn runs "innate dev" on a data folder, on any free port unless flags
// has another --port, and waits until it is ready. It is ended with the test.
func startOn(t *testing.T, dir string, flags ...string) *instance {
	t.Helper()
	return startWith(t, dir, nil, flags...)
}

// startWith starts it with more variables.
func startWith(t *testing.T, dir string, env []string, flags ...string) *instance {
	t.Helper()
	in := &instance{dir: dir, log: newOutput(), ended: make(chan struct{})}
	in.cmd = exec.Command(filepath.Join(bin, "innate"), append([]string{"dev", "--data", dir, "--port", "0"}, flags...)...)
	in.cmd.Env = append(cleanEnv(), env...)
	in.cmd.Stdout, in.cmd.Stderr = in.log, in.log
	if err := in.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		in.waitErr = in.cmd.Wait()
		close(in.ended)
	}()
	t.Cleanup(func() { in.end(t) })
	select {
	case <-in.log.ready:
	case <-in.ended:
		t.Fatalf("innate dev ended before it was ready: %v", in.waitErr)
	case <-time.After(startLimit):
		t.Fatalf("innate dev is not ready after %s", startLimit)
	}
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &in.devFile); err != nil {
		t.Fatalf("dev.json: %v", err)
	}
	return in
}

// stop ends the instance as a service manager does, and expects a clean end.
func (in *instance) stop(t *testing.T) {
	t.Helper()
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-in.ended:
	case <-time.After(startLimit):
		t.Fatal("innate dev goes on after SIGTERM")
	}
	if in.waitErr != nil {
		t.Errorf("innate dev ended with: %v", in.waitErr)
	}
}

// kill ends the instance as a power cut does.
func (in *instance) kill(t *testing.T) {
	t.Helper()
	if err := in.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-in.ended
}

// end is the cleanup: nothing is left running, and a failure has its log.
func (in *instance) end(t *testing.T) {
	_ = in.cmd.Process.Kill() // it may have ended already
	<-in.ended
	text := in.log.String()
	if strings.Contains(text, "DATA RACE") {
		t.Error("innate dev has a data race")
	}
	if !t.Failed() {
		return
	}
	t.Logf("innate dev printed:\n%s", text)
	if b, err := os.ReadFile(filepath.Join(in.dir, "innate.log")); err == nil {
		t.Logf("innate.log:\n%s", b)
	}
}

// output keeps what a process prints and says when a line begins with "ready".
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
}

func newOutput() *output { return &output{ready: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := isReady(o.text.Bytes())
	o.text.Write(b)
	if !was && isReady(o.text.Bytes()) {
		close(o.ready)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// isReady reports whether a whole line begins with "ready".
func isReady(text []byte) bool {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte("ready")) && bytes.HasSuffix(line, []byte("\n")) {
			return true
		}
	}
	return false
}

// cleanEnv is this process's environment without what would lead a program to
// other identities than ours.
func cleanEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		foreign := false
		for _, p := range []string{"AZURE_", "ARM_", "IDENTITY_", "MSI_", "IMDS_", "INNATE_"} {
			foreign = foreign || strings.HasPrefix(kv, p)
		}
		if !foreign {
			out = append(out, kv)
		}
	}
	// By itself a program under the race detector waits for a second when it ends.
	return append(out, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=10")
}

// env is a user's shell beside the instance.
func (in *instance) env() []string {
	return append(cleanEnv(), "INNATE_DATA="+in.dir, "VAULT_URL="+in.Vaults["demo"])
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// String is for failures.
func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
}

// says reports whether all the texts are in what the command printed.
func (r result) says(texts ...string) bool {
	for _, s := range texts {
		if !strings.Contains(r.out+r.err, s) {
			return false
		}
	}
	return true
}

// exec runs a command in the shell of a user of the instance.
func (in *instance) exec(t *testing.T, stdin, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	if !strings.Contains(name, "/") { // exec.Command looks in our own PATH
		if p := filepath.Join(bin, name); exists(p) {
			name = p
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = in.env()
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %q: not done after %s\n%s%s", name, args, commandLimit, out.String(), stderr.String())
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{out: out.String(), err: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// as runs a program as a workload.
func (in *instance) as(t *testing.T, workload string, command ...string) result {
	t.Helper()
	return in.exec(t, "", "innate", append([]string{"run", workload, "--"}, command...)...)
}

// must runs an innate command that is expected to work and returns its
// standard output, without the last line end.
func (in *instance) must(t *testing.T, args ...string) string {
	t.Helper()
	r := in.exec(t, "", "innate", args...)
	if r.code != 0 {
		t.Fatalf("innate %q: %s", args, r)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// manage runs the management program as ops and decodes what it prints.
func (in *instance) manage(t *testing.T, args ...string) managed {
	t.Helper()
	r := in.as(t, "ops", append([]string{"manage"}, args...)...)
	if r.code != 0 {
		t.Fatalf("manage %q: %s", args, r)
	}
	var m managed
	if err := json.Unmarshal([]byte(r.out), &m); err != nil {
		t.Fatalf("manage %q printed %q: %v", args, r.out, err)
	}
	return m
}

// managed is what the tests read of the objects that the SDKs return.
type managed struct {
	ID       string
	Identity struct {
		Type                   string
		PrincipalID            string
		UserAssignedIdentities map[string]struct{ ClientID string }
	}
	Properties struct{ ClientID, PrincipalID string }
}

// token asks the local endpoint for a workload's token.
func (in *instance) token(t *testing.T, workload, resource string) string {
	t.Helper()
	return in.must(t, "token", "--as", workload, "--resource", resource)
}

// id is the resource ID of something in the sample's group.
func (in *instance) id(typ, name string) string {
	return "/subscriptions/" + in.SubscriptionID + "/resourceGroups/" + in.ResourceGroup + "/providers/" + typ + "/" + name
}

// client finds the installation's names and trusts its CA, for requests that
// are written by hand.
func (in *instance) client(t *testing.T) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(in.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificate", in.CAFile)
	}
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, in.Listen)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: commandLimit}
}

// response is an answer, read whole.
type response struct {
	status int
	header http.Header
	body   string
}

// call makes one request. An error is one of the connection.
func call(ctx context.Context, c *http.Client, method, url, token, body string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(b)}, err
}

// call makes one request of the instance.
func (in *instance) call(t *testing.T, method, url, token, body string) response {
	t.Helper()
	r, err := call(t.Context(), in.client(t), method, url, token, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// secretURL is where a secret's latest version is.
func (in *instance) secretURL(name string) string {
	return in.Vaults["demo"] + "/secrets/" + name + "?api-version=7.4"
}

// event is what the tests read of the record.
type event struct{ Action, Target, Outcome, Reason, Request, Name string }

// record reads the audit record.
func (in *instance) record(t *testing.T) []event {
	t.Helper()
	var out []event
	lines := bufio.NewScanner(strings.NewReader(in.must(t, "audit", "tail", "--no-follow", "--json", "--since", "1h")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var ev event
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatalf("the record has %q: %v", lines.Text(), err)
		}
		out = append(out, ev)
	}
	return out
}
