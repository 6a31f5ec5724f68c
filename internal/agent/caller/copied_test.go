package caller_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/innate-id/innate/internal/agent/caller"
)

// A copy of an interpreter under another name runs scripts too: a rule with its
// digest alone must not take it for a program.
func TestCopyOfAnInterpreterIsOne(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		content []byte
		want    bool
	}{
		"shop":    {content, true},
		"another": {append(content[:len(content):len(content)], 0), false}, // of another digest, which no rule has
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, tt.content, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "-c", "read go")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ev, err := new(caller.Identifier).OfProcess(cmd.Process.Pid, caller.From{Door: "main"})
		if err != nil {
			t.Fatal(err)
		}
		if ev.Interpreter != tt.want {
			t.Errorf("%s is an interpreter: %v, want %v (%s)", name, ev.Interpreter, tt.want, ev)
		}
		_, _ = io.WriteString(in, "go\n") // it ends anyway
		in.Close()
		_ = cmd.Wait()
	}
}
