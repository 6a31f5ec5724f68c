package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// output is a banner under way; ready is closed at its last line.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.buf.Write(b)
	if strings.HasPrefix(string(b), "ready") {
		o.once.Do(func() { close(o.ready) })
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// up runs innate dev until stop is called.
func up(t *testing.T, opt Options) (out *output, stop func()) {
	t.Helper()
	out = &output{ready: make(chan struct{})}
	opt.Out = out
	if opt.Domain == "" {
		opt.Domain = "innate.localhost"
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, opt) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("innate dev ended with %v", err)
			}
		})
	}
	select {
	case <-out.ready:
		t.Cleanup(stop)
		return out, stop
	case err := <-done:
		cancel()
		t.Fatalf("innate dev ended before it was ready: %v", err)
		return nil, nil
	}
}

// TestWriteHostsWhileRunning: the block is there while innate dev runs and
// gone after it.
func TestWriteHostsWhileRunning(t *testing.T) {
	t.Parallel()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, stop := up(t, Options{Data: newFolder(t), WriteHosts: true, HostsFile: hosts})
	b, err := os.ReadFile(hosts)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"login.innate.localhost", "management.innate.localhost", "portal.innate.localhost", "demo.vault.innate.localhost"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the hosts file lacks %s:\n%s", want, b)
		}
	}
	stop()
	if b, err = os.ReadFile(hosts); err != nil || string(b) != "127.0.0.1 localhost\n" {
		t.Errorf("after the end the hosts file is %q, %v", b, err)
	}
}

// TestCutShortFirstStartIsCompleted: whatever of a first start is done already,
// the next one completes it and changes nothing that is there.
func TestCutShortFirstStartIsCompleted(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	_, stop := up(t, Options{Data: dir})
	stop()
	for _, lost := range []string{"sample.done", "bootstrap.done", "placed.done"} {
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
	}
	_, stop = up(t, Options{Data: dir})
	in, err := ReadInstance(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Resources) != 4 || in.Vaults["demo"] == "" {
		t.Errorf("after completing a start, the instance has resources %v and vaults %v", in.Resources, in.Vaults)
	}
	stop()
}

// TestKeptDataIsNotMixedUp: what would make the kept data useless is refused
// before anything is touched.
func TestKeptDataIsNotMixedUp(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	_, stop := up(t, Options{Data: dir})
	stop()
	err := Run(t.Context(), Options{Data: dir, Domain: "other.test", Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "--domain innate.localhost") {
		t.Errorf("another domain on kept data = %v, want an error that says which one to use", err)
	}
	key := filepath.Join(dir, "root.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Options{Data: dir, Domain: "innate.localhost", Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "root.key") {
		t.Errorf("kept data without its root key = %v, want an error that names it", err)
	}
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new root key was made beside a database that it cannot open")
	}
}

// TestStaleInstanceIsRecognized: the dev.json of a killed run is not taken for
// a running one.
func TestStaleInstanceIsRecognized(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := json.Marshal(Instance{ControlSocket: filepath.Join(dir, "agent.sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, instanceFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadInstance(dir); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("ReadInstance of a stale dev.json = %v, want an error that says that innate dev is not running", err)
	}
}

// TestLongDataFolder: a folder whose name is too long for a socket's address
// works all the same.
func TestLongDataFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(newFolder(t), strings.Repeat("long", 25))
	_, stop := up(t, Options{Data: dir, NoSample: true})
	in, err := ReadInstance(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := in.Resources["ops"]; !ok || len(in.Resources) != 1 || len(in.Vaults) != 0 {
		t.Errorf("without the sample the instance has %v and vaults %v, want ops alone", in.Resources, in.Vaults)
	}
	stop()
}

// TestDeletedHostIsMadeAgain: a host that was deleted is no reason not to
// start: it is this machine, and there is no other way to have it back.
func TestDeletedHostIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	_, stop := up(t, Options{Data: dir})
	in, err := ReadInstance(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	deleteHost(t, dir, in)
	_, stop = up(t, Options{Data: dir})
	if in, err = ReadInstance(dir); err != nil {
		t.Fatal(err)
	}
	if len(in.Resources) != 4 {
		t.Errorf("with its host made again, the instance has %v, want the four of the sample", in.Resources)
	}
	stop()
}

// deleteHost deletes the host from the data of a stopped innate dev.
func deleteHost(t *testing.T, dir string, in Instance) {
	t.Helper()
	d := &dev{dir: dir, log: slog.New(slog.DiscardHandler), opt: Options{Domain: "innate.localhost"}}
	if err := d.openServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.srv.Close()
	if _, err := d.srv.ARM.Delete(t.Context(), access.SystemCaller(in.TenantID, "test"), resource.MustParse(in.Host), arm.Condition{}); err != nil {
		t.Fatal(err)
	}
}

// TestEachWorkloadHasItsDoor: a port of its own in the shape of IMDS, beside the
// endpoint with a secret.
func TestEachWorkloadHasItsDoor(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	up(t, Options{Data: dir})
	in, err := ReadInstance(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for name, w := range in.Resources {
		door := w.Env["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
		if door == "" || seen[door] != "" || w.Env["ARM_MSI_ENDPOINT"] != door+"/metadata/identity/oauth2/token" || w.Env["IDENTITY_HEADER"] == "" {
			t.Errorf("%s has the door %q (%s has it too), and %v", name, door, seen[door], w.Env)
		}
		seen[door] = name
	}
}

// TestBannerOmitsWhatIsNotThere: what it says to try works.
func TestBannerOmitsWhatIsNotThere(t *testing.T) {
	t.Parallel()
	out, _ := up(t, Options{Data: newFolder(t), NoSample: true})
	for _, no := range []string{"demo/greeting", "vm1", "vm2", "app1"} {
		if strings.Contains(out.String(), no) {
			t.Errorf("without the sample the banner has %s:\n%s", no, out)
		}
	}
	var buf bytes.Buffer
	d := &dev{dir: "/x", opt: Options{Out: &buf}, in: Instance{}}
	d.banner()
	if strings.Contains(buf.String(), "audit tail") || strings.Contains(buf.String(), "Try") {
		t.Errorf("without ops the banner says:\n%s", buf.String())
	}
}
