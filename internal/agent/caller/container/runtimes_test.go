package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// docker plays Docker's Engine API, of which there is no engine here: GET
// /containers/{id}/json with the members of its documentation that count.
// Podman's own, and containerd's, are asked in package caller's tests.
func docker(t *testing.T, h http.HandlerFunc) Runtime {
	t.Helper()
	dir, err := os.MkdirTemp("", "docker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/{id}/json", h)
	s := &http.Server{Handler: mux}
	go func() { _ = s.Serve(l) }() // always http.ErrServerClosed
	t.Cleanup(func() { s.Close() })
	return Runtime{Docker, socket}
}

// says answers as Docker does about a container that runs as pid.
func says(id string, pid int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(id, r.PathValue("id")) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such container: %s"}`, r.PathValue("id"))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"Id": id, "Name": "/web", "Image": "sha256:" + b, "Created": "2026-01-02T03:04:05.678Z", "Path": "nginx", "RestartCount": 0,
			"State":  map[string]any{"Status": "running", "Running": pid != 0, "Paused": false, "Pid": pid, "ExitCode": 0},
			"Config": map[string]any{"Hostname": "x", "Image": "nginx:1.27", "Labels": map[string]string{"role": "web"}},
		})
	}
}

func asking(t *testing.T, runtimes ...Runtime) *Runtimes {
	t.Helper()
	r, err := New(runtimes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inCgroup says that every process is in one cgroup.
func inCgroup(path string) func(int) (string, error) {
	return func(int) (string, error) { return path, nil }
}

func ofA(t *testing.T) Container {
	t.Helper()
	c, ok := Of("/docker/" + a)
	if !ok {
		t.Fatal("no container")
	}
	return c
}

func TestDockersWord(t *testing.T) {
	t.Parallel()
	c := ofA(t)
	f, err := asking(t, docker(t, says(a, 42))).Facts(c, func(pid int) (string, error) {
		if pid != 42 {
			t.Errorf("pid %d", pid)
		}
		return c.Cgroup + "/below", nil
	})
	if err != nil || f.Name != "web" || f.Image != "nginx:1.27" || f.ImageID != "sha256:"+b || f.Labels["role"] != "web" {
		t.Errorf("Facts = %+v, %v", f, err)
	}
}

// The word about an id counts only for who is in the container's own cgroup.
func TestRuntimesWordIsCheckedAgainstTheCgroup(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		cgroup func(int) (string, error)
		says   string
	}{
		"another cgroup with the id":  {says(a, 42), inCgroup("/system.slice/docker-" + a + ".scope"), "in another cgroup"},
		"another container":           {says(a, 42), inCgroup("/docker/" + b), "in another cgroup"},
		"no container":                {says(a, 42), inCgroup("/"), "in another cgroup"},
		"its process is gone":         {says(a, 42), func(int) (string, error) { return "", os.ErrNotExist }, "own process"},
		"it does not run":             {says(a, 0), inCgroup("/docker/" + a), "does not run"},
		"not known":                   {says(b, 42), inCgroup("/docker/" + a), "404"},
		"an answer about another one": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"Id":%q}`, b) }, inCgroup("/docker/" + a), "another container"},
		"no JSON":                     {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `hello`) }, inCgroup("/docker/" + a), "reading its answer"},
		"a redirect":                  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, inCgroup("/docker/" + a), "302"},
	} {
		f, err := asking(t, docker(t, tt.answer)).Facts(ofA(t), tt.cgroup)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %+v, %v, want an error with %q", name, f, err, tt.says)
		}
	}
}

func TestAnswersAreKeptForASecond(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	r := asking(t, docker(t, func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		says(a, 42)(w, req)
	}))
	now := time.Now()
	r.now = func() time.Time { return now }
	get := func() {
		t.Helper()
		if _, err := r.Facts(ofA(t), inCgroup("/docker/"+a)); err != nil {
			t.Fatal(err)
		}
	}
	get()
	get()
	now = now.Add(Fresh - 1)
	get()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times within a second, want once", n)
	}
	now = now.Add(1)
	get()
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
	for n := range 2 * maxFacts {
		r.keep(Container{ID: fmt.Sprint(n)}, known{at: now})
	}
	if len(r.facts) > maxFacts {
		t.Errorf("%d answers are kept", len(r.facts))
	}
}

// A runtime that hangs holds up one question, and is then left alone; others
// are asked as ever.
func TestRuntimeThatHangs(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	release := make(chan struct{})
	hung := docker(t, func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-release
	})
	t.Cleanup(func() { close(release) })
	r := asking(t, hung, Runtime{Podman, docker(t, says(b, 42)).Socket})
	for range 3 {
		if f, err := r.Facts(ofA(t), inCgroup("/docker/"+a)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Facts = %+v, %v", f, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	pod, ok := Of("/libpod_parent/libpod-" + b)
	if f, err := r.Facts(pod, inCgroup(pod.Cgroup)); !ok || err != nil || f.Name != "web" {
		t.Errorf("the other runtime says %+v, %v", f, err)
	}
}

func TestRuntimeThatIsNotThere(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "s")
	for _, kind := range []string{Docker, Podman, Containerd} {
		c := Container{ID: a, Kind: kind, Namespace: "default", Cgroup: "/docker/" + a}
		if f, err := asking(t, Runtime{kind, nowhere}).Facts(c, inCgroup(c.Cgroup)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: Facts = %+v, %v", kind, f, err)
		}
	}
	if f, err := asking(t).Facts(ofA(t), inCgroup("/docker/"+a)); err != nil || f.Name != "" {
		t.Errorf("without any runtime: %+v, %v", f, err)
	}
	if _, err := New([]Runtime{{"rkt", nowhere}}); err == nil || !strings.Contains(err.Error(), "was expected") {
		t.Errorf("New with a runtime that nobody knows: %v", err)
	}
}
