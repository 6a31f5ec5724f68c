package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"

	"github.com/innate-id/innate/internal/dev"
	"github.com/innate-id/innate/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"innate": main})
}

// The stories in testdata/script are the manual of the command line: each
// begins with "dev", if it needs a running instance, and then does what a user
// types.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("INNATE_DATA", filepath.Join(e.WorkDir, "data"))
			// By itself a program under the race detector waits for a second
			// when it ends.
			e.Setenv("GORACE", "atexit_sleep_ms=10")
			// What stories about callers need: this process, its user, two programs.
			e.Setenv("PID", strconv.Itoa(os.Getpid()))
			e.Setenv("ME", "unix:uid:"+strconv.Itoa(os.Getuid()))
			for k, name := range map[string]string{"TRUE": "true", "SH": "sh"} {
				path, err := exec.LookPath(name)
				if err != nil {
					return err
				}
				e.Setenv(k, path)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"dev":    startDev,
			"issuer": func(ts *testscript.TestScript, _ bool, args []string) { startIssuer(t, ts, args) },
			"mint":   mint,
			"fill":   fill,
			"await":  await,
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// await PATTERN COMMAND... runs a command until its output matches: what an agent
// refuses by itself is on the control plane's record half a second later.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await PATTERN COMMAND...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for until := time.Now().Add(startLimit); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(until) {
			ts.Fatalf("%v does not say %s: %v", args[1:], args[0], err)
		}
	}
}

// startLimit is how long "innate dev" may take until it is ready, on a busy
// machine and under the race detector.
const startLimit = time.Minute

// startDev runs "innate dev" beside the story, on any free port and with the
// story's data folder; its arguments are more flags. It returns when the
// instance is ready, and ends it with the story.
func startDev(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("! dev is not possible: use ! exec innate dev")
	}
	cmd := exec.Command(lookIn(ts.Getenv("PATH"), "innate"), append([]string{"dev", "--port", "0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"INNATE_DATA", "PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE", "SSL_CERT_FILE"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	out := &banner{ready: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			ts.Logf("innate dev ended with: %v\n%s", err, out)
		}
		ended <- nil
	})
	select {
	case <-out.ready:
	case err := <-ended:
		ended <- err
		ts.Fatalf("innate dev ended before it was ready: %v\n%s", err, out)
	case <-time.After(startLimit):
		ts.Fatalf("innate dev is not ready after %s\n%s", startLimit, out)
	}
}

// startIssuer runs an OpenID Connect issuer beside the story, whose name it puts
// into ISSUER. A program of the story that is started later trusts it.
func startIssuer(t *testing.T, ts *testscript.TestScript, args []string) {
	if len(args) != 0 {
		ts.Fatalf("usage: issuer")
	}
	i := testkit.NewIssuer(t)
	ts.Check(os.WriteFile(ts.MkAbs("issuer.pem"), i.PEM(), 0o600))
	ts.Setenv("SSL_CERT_FILE", ts.MkAbs("issuer.pem"))
	ts.Setenv("ISSUER", i.URL)
	issuers.Store(i.URL, i)
}

// issuers are those of all stories, by their names.
var issuers sync.Map

// mint writes a token of the story's issuer to a file: mint FILE SUBJECT
// [CLAIM=VALUE...].
func mint(ts *testscript.TestScript, _ bool, args []string) {
	v, ok := issuers.Load(ts.Getenv("ISSUER"))
	if !ok || len(args) < 2 {
		ts.Fatalf("usage: mint FILE SUBJECT [CLAIM=VALUE...], after issuer")
	}
	i := v.(*testkit.Issuer)
	others := map[string]any{}
	for _, a := range args[2:] {
		name, value, _ := strings.Cut(a, "=")
		others[name] = value
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(i.Token(i.Claims(time.Now(), args[1], others))), 0o600))
}

// fill makes many identities in a resource group: fill GROUP NUMBER, after dev.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: fill GROUP NUMBER")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	in, err := dev.ReadInstance(ts.Getenv("INNATE_DATA"))
	ts.Check(err)
	hc, err := instanceClient(in)
	ts.Check(err)
	ts.Check(ts.Exec("innate", "token", "--resource", managementAudience+"/"))
	token := strings.TrimSpace(ts.ReadFile("stdout"))
	var all errgroup.Group
	all.SetLimit(8)
	for i := range n {
		all.Go(func() error {
			url := fmt.Sprintf("%s/subscriptions/%s/resourceGroups/%s/providers/Microsoft.ManagedIdentity/userAssignedIdentities/many-%d?api-version=%s",
				in.Endpoints.Management, in.SubscriptionID, args[0], i, apiVersion)
			req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(`{"location":"local"}`))
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+token)
			req.Header.Set("Content-Type", "application/json")
			resp, err := hc.Do(req)
			if err != nil {
				return err
			}
			if resp.StatusCode != http.StatusCreated {
				return fmt.Errorf("PUT %s: %s", url, resp.Status)
			}
			return resp.Body.Close()
		})
	}
	ts.Check(all.Wait())
}

// lookIn finds a program in a list of folders.
func lookIn(path, name string) string {
	for _, dir := range filepath.SplitList(path) {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return name
}

// banner keeps what "innate dev" prints and says when a line begins with
// "ready".
type banner struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (b *banner) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	if strings.Contains("\n"+b.text.String(), "\nready") {
		b.once.Do(func() { close(b.ready) })
	}
	return len(p), nil
}

func (b *banner) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("innate dev printed:\n%s", b.text.String())
}
