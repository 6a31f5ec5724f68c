package arm_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
)

// The server of TestDeleteKilledAtAnyMoment is this binary, started again with
// its folder in the environment.
const deleteVar = "INNATE_TEST_DELETE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(deleteVar); dir != "" {
		os.Exit(deleteOnce(dir))
	}
	os.Exit(m.Run())
}

var killed = resource.MustParse(sub + "/resourceGroups/killed")

func openIn(ctx context.Context, dir string) (*server.Server, error) {
	return server.Open(ctx, server.Config{
		Domain: "innate.test", Listen: "127.0.0.1:0", RootKeyFile: filepath.Join(dir, "root.key"), Replica: "test", TokenLife: "1h",
		Database: server.Database{SQLite: filepath.Join(dir, "innate.db")}, TLS: server.TLS{LocalCA: true},
	}, slog.New(slog.DiscardHandler), func() time.Time { return start })
}

// deleteOnce deletes the group, and says when it begins.
func deleteOnce(dir string) int {
	srv, err := openIn(context.Background(), dir)
	if err == nil {
		fmt.Println("begins")
		_, err = srv.ARM.Delete(context.Background(), access.SystemCaller(tenantA, "test"), killed, arm.Condition{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv.Close()
	return 0
}

// TestDeleteKilledAtAnyMoment: of a delete that was killed nothing or all is
// done, nothing dangles, and asked again it is done.
func TestDeleteKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const machines = 300
	dir := t.TempDir()
	fillIn(t, dir, machines)
	midst := 0
	for round := range 10 {
		if n := leftIn(t, dir); n != machines {
			if n != 0 {
				t.Errorf("round %d: %d of %d machines are left", round, n, machines)
			}
			break // it was faster than we
		}
		if deleteAndKill(t, dir, rand.N(200*time.Millisecond)) {
			midst++
		}
	}
	if midst == 0 {
		t.Log("no delete was killed: this machine is fast")
	}
	if deleteAndKill(t, dir, time.Minute) {
		t.Error("asked again, the delete did not end")
	}
	if n := leftIn(t, dir); n != 0 {
		t.Errorf("asked again, %d machines are left", n)
	}
}

// fillIn makes a tenant with the group in a new database.
func fillIn(t *testing.T, dir string, machines int) {
	t.Helper()
	if _, err := seal.CreateFile(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	srv, err := openIn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	if _, err := srv.Bootstrap(t.Context(), server.Bootstrap{
		Tenant: tenantA, Subscription: killed.Subscription(), TenantName: "Test", Group: "ops", Location: "local", Host: "boot", Owner: "root",
	}); err != nil {
		t.Fatal(err)
	}
	b := &server.Builder{Server: srv, Caller: access.SystemCaller(tenantA, "test")}
	if err := b.Put(t.Context(), killed, map[string]any{"location": "local"}); err != nil {
		t.Fatal(err)
	}
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	err = srv.DB.Write(t.Context(), &ev, func(tx arm.Tx) error {
		for i := range machines {
			if err := putMachine(tx, killed, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// leftIn counts what is in the group, which is whole.
func leftIn(t *testing.T, dir string) int {
	t.Helper()
	srv, err := openIn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	faults, err := srv.DB.Check(t.Context())
	if err != nil || len(faults) > 0 {
		t.Fatalf("Check() = %v, %v", faults, err)
	}
	rs, err := srv.DB.Resources(t.Context(), tenantA, killed.Key(), "", arm.Page{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = srv.DB.Resource(t.Context(), tenantA, killed.Key())
	if gone := problem.Is(err, problem.NotFound); gone != (len(rs) == 0) {
		t.Errorf("%d resources are left, and the group: %v", len(rs), err)
	}
	return len(rs)
}

// deleteAndKill has another process delete the group and kills it after a while,
// unless it ended.
func deleteAndKill(t *testing.T, dir string, after time.Duration) (inTheMidst bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), deleteVar+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Errorf("the delete did not begin: %v", err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer timer.Stop()
	err = cmd.Wait()
	if err != nil && cmd.ProcessState.Exited() {
		t.Errorf("the delete failed: %v", err)
	}
	return err != nil
}
