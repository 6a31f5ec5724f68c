package door_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/evidence"
)

func cfg(name string, h http.Handler) door.Config {
	return door.Config{Name: name, Handler: h, Log: slog.New(slog.DiscardHandler), Identify: func(c net.Conn) (evidence.Evidence, error) {
		return new(caller.Identifier).Identify(c, caller.From{Door: name})
	}}
}

// who answers with the caller's evidence.
func who(w http.ResponseWriter, r *http.Request) {
	ev, err := door.Caller(r.Context())
	fmt.Fprint(w, ev, err)
}

func TestDoorsAreLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"0.0.0.0:0", ":0", "[::]:0", "192.168.1.1:0", "169.254.169.254:80", "localhost:0", "example.com:0", "127.0.0.1", "2130706433:0",
		"[::ffff:10.0.0.1]:0", "",
	} {
		d, err := door.Listen(t.Context(), cfg("main", http.NotFoundHandler()), addr)
		if err == nil {
			d.Close(t.Context())
			t.Errorf("Listen(%q) succeeded", addr)
		} else if !strings.Contains(err.Error(), "127.0.0.1:PORT") {
			t.Errorf("Listen(%q) = %v, want what to write instead", addr, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "127.9.9.9:0"} {
		d, err := door.Listen(t.Context(), cfg("main", http.NotFoundHandler()), addr)
		if err != nil {
			t.Errorf("Listen(%q) = %v", addr, err)
			continue
		}
		if err := d.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
}

func TestEvidenceComesWithTheConnection(t *testing.T) {
	t.Parallel()
	tcp, err := door.Listen(t.Context(), cfg("main", http.HandlerFunc(who)), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Serve()
	t.Cleanup(func() { tcp.Close(context.Background()) })
	if got := get(t, "tcp", tcp.Addr()); !strings.HasPrefix(got, "door:main ") || !strings.Contains(got, " unix:uid:"+strconv.Itoa(os.Getuid())+" ") || !strings.HasSuffix(got, "grade:after-the-fact <nil>") {
		t.Errorf("evidence over TCP = %s", got)
	}

	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	unix, err := door.ListenUnix(t.Context(), cfg("run", http.HandlerFunc(who)), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Serve()
	t.Cleanup(func() { unix.Close(context.Background()) })
	want := fmt.Sprintf("unix:uid:%d", os.Getuid())
	if got := get(t, "unix", path); !strings.HasPrefix(got, "door:run ") || !strings.Contains(got, want) || !strings.Contains(got, "grade:kernel") {
		t.Errorf("evidence over a unix socket = %s, want %s in it", got, want)
	}
	if _, err := door.ListenUnix(t.Context(), cfg("run", http.HandlerFunc(who)), path, 0o600); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second ListenUnix = %v, want another agent", err)
	}
}

func get(t *testing.T, network, addr string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}}
	resp, err := client.Get("http://127.0.0.1/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestWhatADeadAgentLeftIsCleanedUp(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	d, err := door.ListenUnix(t.Context(), cfg("run", http.HandlerFunc(who)), path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket = %v, %v; want mode 0660", info, err)
	}
	d.Close(t.Context())

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := door.ListenUnix(t.Context(), cfg("run", http.HandlerFunc(who)), file, 0o600); err == nil {
		t.Error("ListenUnix took a file's place")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if _, err := door.ListenUnix(t.Context(), cfg("run", http.HandlerFunc(who)), "/tmp/"+strings.Repeat("x", 120), 0o600); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("ListenUnix with a long path = %v, want the limit", err)
	}
}

func TestNoEvidenceOutsideADoor(t *testing.T) {
	t.Parallel()
	if _, err := door.Caller(t.Context()); err == nil {
		t.Error("Caller of a context without connection reported no error")
	}
}
