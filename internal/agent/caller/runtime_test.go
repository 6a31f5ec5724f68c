package caller_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/caller/container"
	"github.com/innate-id/innate/internal/evidence"
)

// podman is a Podman with storage of the test's own.
type podman struct {
	t    *testing.T
	args []string
}

func newPodman(t *testing.T, dir string) *podman {
	t.Helper()
	needRoot(t)
	p := &podman{t, []string{
		"--root", filepath.Join(dir, "storage"), "--runroot", filepath.Join(dir, "run"),
		"--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver", "vfs",
	}}
	return p
}

func (p *podman) run(args ...string) string {
	p.t.Helper()
	return run(p.t, nil, "podman", append(p.args, args...)...)
}

// image makes one of a static busybox and nothing else.
func (p *podman) image(name string, labels ...string) {
	p.t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		p.t.Fatal("a static busybox is needed (Debian: apt-get install busybox-static): ", err)
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := w.Write(program); err != nil {
		p.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"import", "-q"}
	for _, l := range labels {
		args = append(args, "--change", "LABEL "+l)
	}
	run(p.t, files.Bytes(), "podman", append(append(p.args, args...), "-", name)...)
}

// start runs a container that sleeps and returns its id and pid.
func (p *podman) start(image, name string) (id string, pid int) {
	p.t.Helper()
	id = p.run("run", "-d", "--name", name, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none", "--stop-signal", "KILL",
		image, "/bin/busybox", "sleep", "600")
	p.t.Cleanup(func() { p.run("rm", "-f", "-t", "0", name) })
	pid, err := strconv.Atoi(p.run("inspect", "-f", "{{.State.Pid}}", name))
	if err != nil {
		p.t.Fatal(err)
	}
	return id, pid
}

func run(t *testing.T, in []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// daemon runs a program until the test ends, and waits for its socket.
func daemon(t *testing.T, socket, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	for range 600 {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-done:
			done <- err
			t.Fatalf("%s ended: %v\n%s", name, err, out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s opens no socket %s", name, socket)
}

func words(format string, args ...any) evidence.Selector {
	return evidence.Selector(fmt.Sprintf(format, args...))
}

// Two real containers of one image, told apart by the kernel's cgroup and
// Podman's word; and what a container's root may make inside changes nothing.
func TestPodmanContainersAreToldApart(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := newPodman(t, dir)
	p.image("innate-test:1", "role=web", "a:b=c")
	socket := filepath.Join(dir, "podman.sock")
	shopID, shop := p.start("innate-test:1", "shop")
	otherID, other := p.start("innate-test:1", "other")
	daemon(t, socket, "podman", append(p.args, "system", "service", "--time", "0", "unix://"+socket)...)

	id := &caller.Identifier{Runtimes: []container.Runtime{{Kind: container.Podman, Socket: socket}}}
	imageID := p.run("image", "inspect", "-f", "{{.Id}}", "innate-test:1")
	ev := identify(t, id, recordOf(t, shop))
	wants(t, ev, words("container:id:%s", shopID), "container:name:shop", "container:image:localhost/innate-test:1",
		words("container:image_id:sha256:%s", imageID), "container:label:role:web", sha(t, "/bin/busybox"),
		words("cgroup:/libpod_parent/libpod-%s", shopID))
	lacks(t, ev, "unix:path:", "systemd:", "container:label:a:b") // whose key and value cannot be told apart
	if !ev.Interpreter {
		t.Errorf("busybox is no interpreter: %+v", ev)
	}
	ev = identify(t, id, recordOf(t, other))
	wants(t, ev, words("container:id:%s", otherID), "container:name:other")
	lacks(t, ev, "container:name:shop")

	// The other container's root makes cgroups named after the shop's.
	own := fmt.Sprintf("/libpod_parent/libpod-%s", otherID)
	for _, below := range []string{"/libpod_parent/libpod-" + shopID, "/docker/" + shopID, "/system.slice/shop.service"} {
		at := cgroup(t, own+below)
		if err := os.WriteFile(filepath.Join(at, "cgroup.procs"), []byte(text(other)), 0); err != nil {
			t.Fatal(err)
		}
		ev = identify(t, id, recordOf(t, other))
		wants(t, ev, words("container:id:%s", otherID), "container:name:other")
		lacks(t, ev, "container:name:shop", "systemd:", "container:id:"+shopID)
		if err := os.WriteFile(filepath.Join(hierarchy(t), own, "cgroup.procs"), []byte(text(other)), 0); err != nil {
			t.Fatal(err)
		}
	}

	// And a process outside, in a cgroup named after the shop where root of the host could make
	// it, has the runtime's word against it.
	p.run("rm", "-f", "-t", "0", "--ignore", "shop")
	forged := start(t, install(t, dir, "forged"), as{cgroup: cgroup(t, "/libpod_parent/libpod-"+shopID)})
	ev = identify(t, &caller.Identifier{Runtimes: id.Runtimes}, recordOf(t, forged.pid()))
	lacks(t, ev, "container:name:", "container:image", "container:label:")
	forged.end()
}

// A real containerd, asked by its own API.
func TestContainerdsContainers(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := newPodman(t, dir)
	p.image("example.test/shop:1")
	archive := filepath.Join(dir, "image.tar")
	p.run("save", "-q", "-o", archive, "example.test/shop:1")

	socket := filepath.Join(dir, "containerd.sock")
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, socket, "containerd", "--config", config, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket, "--log-level", "error")
	ctr := func(args ...string) string {
		t.Helper()
		return run(t, nil, "ctr", append([]string{"--address", socket}, args...)...)
	}
	ctr("images", "import", "--snapshotter", "native", archive)
	name := fmt.Sprintf("innate-test-%d", os.Getpid())
	ctr("run", "-d", "--snapshotter", "native", "--label", "nerdctl/name=shop", "--label", "role=web", "example.test/shop:1", name, "/bin/busybox", "sleep", "600")
	t.Cleanup(func() {
		ctr("task", "rm", "-f", name)
		ctr("container", "rm", name)
	})
	_, row, _ := strings.Cut(ctr("task", "ls"), "\n") // TASK PID STATUS
	pid, err := strconv.Atoi(strings.Fields(row)[1])
	if err != nil {
		t.Fatal(err)
	}
	var digest string
	for line := range strings.Lines(ctr("images", "ls")) {
		if f := strings.Fields(line); f[0] == "example.test/shop:1" {
			digest = f[2]
		}
	}
	id := &caller.Identifier{Runtimes: []container.Runtime{{Kind: container.Containerd, Socket: socket}}}
	rec := recordOf(t, pid)
	ev := identify(t, id, rec)
	wants(t, ev, words("container:id:%s", name), "container:name:shop", "container:image:example.test/shop:1",
		words("container:image_id:%s", digest), "container:label:role:web", words("cgroup:/default/%s", name))

	// A name that another image was given since says nothing of what runs.
	ctr("images", "label", "example.test/shop:1", "changed=now")
	ev = identify(t, &caller.Identifier{Runtimes: id.Runtimes}, rec)
	wants(t, ev, "container:image:example.test/shop:1")
	lacks(t, ev, "container:image_id:")
}

// Without a runtime the cgroup says which container it is, and no more.
func TestContainerWithoutARuntime(t *testing.T) {
	t.Parallel()
	needRoot(t)
	id := strings.Repeat("0123456789abcdef", 4)
	p := start(t, install(t, folder(t), "shop"), as{cgroup: cgroup(t, "/docker/"+id)})
	for name, runtimes := range map[string][]container.Runtime{"none": {}, "gone": {{Kind: container.Docker, Socket: filepath.Join(t.TempDir(), "s")}}} {
		ev := identify(t, &caller.Identifier{Runtimes: runtimes}, recordOf(t, p.pid()))
		wants(t, ev, words("container:id:%s", id), sha(t, p.cmd.Path))
		if has(ev, "container:name:") || has(ev, "container:image") {
			t.Errorf("with the runtime %s: %s", name, ev)
		}
	}
}
