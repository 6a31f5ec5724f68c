package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
		Cmds:          map[string]func(ts *testscript.TestScript, neg bool, args []string){"dev": startDev},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
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
	for _, k := range []string{"INNATE_DATA", "PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GORACE"} {
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
