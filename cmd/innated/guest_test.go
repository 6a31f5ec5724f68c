package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// skipped reports whether INNATE_SKIP, a list with commas, has the word.
func skipped(word string) bool {
	return slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), word)
}

// need fails the test if what it runs is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, word := range append([]string{"root"}, programs...) {
		if skipped(word) {
			t.Skipf("%s is in INNATE_SKIP", word)
		}
	}
	if os.Getuid() != 0 {
		t.Fatal("network namespaces take root: run the tests as root, or set INNATE_SKIP=root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run make deps, or leave out what needs it with INNATE_SKIP=%s", p, p)
		}
	}
}

// busybox is linked statically and has wget: it is all that guests and
// containers here are made of.
const busybox = "/bin/busybox"

// kernelDir is where make deps puts a kernel for guests.
const kernelDir = "../../.deps/guest"

// modules are what a guest's network card needs, in the order to load them.
var modules = []string{"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover", "virtio_net"}

// guestInit is all that a guest is: it runs what comes in on its console, one
// line a command, and says how each ended.
const guestInit = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /bin /sbin /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
for m in MODULES; do insmod /modules/$m.ko; done
exec <>/dev/ttyS0 >&0 2>&0
stty -echo
echo "@@up 0"
while read -r line; do
	eval "$line"
	echo "@@end $?"
done
poweroff -f
`

// initrd packs the guests' one file system and returns its path.
func initrd(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(kernelDir, "vmlinuz")); err != nil {
		t.Fatalf("a kernel for virtual machines is missing (%v): run make deps, or set INNATE_SKIP=qemu-system-x86_64", err)
	}
	root := t.TempDir()
	files := map[string]string{"init": "", "bin/busybox": busybox}
	for _, m := range modules {
		files["modules/"+m+".ko"] = filepath.Join(kernelDir, m+".ko")
	}
	for to, from := range files {
		text := []byte(strings.Replace(guestInit, "MODULES", strings.Join(modules, " "), 1))
		if from != "" {
			var err error
			if text, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(root, to)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "initrd")
	cmd := exec.Command("sh", "-c", `find . | cpio -o -H newc --quiet > "$0"`, out)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packing the initrd: %v: %s", err, text)
	}
	return out
}

// machine is a virtual machine.
type machine struct {
	t     *testing.T
	name  string
	in    io.WriteCloser
	lines chan string // of its console; closed when it ended
}

// boot starts a machine in a network namespace, with these network cards; it
// is ended with the test. (no_timer_check: an emulated timer may miss its first
// ticks on a busy host.)
func boot(t *testing.T, name, ns, initrd string, cards ...string) *machine {
	t.Helper()
	args := []string{"netns", "exec", ns, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "192", "-nodefaults", "-no-reboot",
		"-display", "none", "-serial", "stdio", "-kernel", filepath.Join(kernelDir, "vmlinuz"), "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 no_timer_check"}
	for i, card := range cards {
		netdev, mac, _ := strings.Cut(card, " mac=")
		args = append(args, "-netdev", fmt.Sprintf("%s,id=n%d", netdev, i), "-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=%s,romfile=", i, mac))
	}
	cmd := exec.Command("ip", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, name: name, in: in, lines: make(chan string, 1024)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(m.lines)
		console := bufio.NewScanner(out)
		console.Buffer(nil, 1<<20)
		for console.Scan() {
			m.lines <- strings.Trim(console.Text(), "\r")
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		go func() {
			for range m.lines { // nobody reads any more
			}
		}()
		<-done
		_ = cmd.Wait()
		if t.Failed() && errs.Len() > 0 {
			t.Logf("qemu of %s says: %s", name, errs.String())
		}
	})
	return m
}

// up waits until the machine takes commands.
func (m *machine) up() {
	m.t.Helper()
	if out, code := m.until("@@up "); code != "0" {
		m.t.Fatalf("machine %s does not come up: %s", m.name, out)
	}
}

// until reads the console to a mark.
func (m *machine) until(mark string) (out, code string) {
	m.t.Helper()
	var lines []string
	limit := time.After(3 * time.Minute) // an emulated machine on a busy one
	for {
		select {
		case line, ok := <-m.lines:
			if !ok {
				m.t.Fatalf("machine %s ended:\n%s", m.name, strings.Join(lines, "\n"))
			}
			line, code, found := strings.Cut(line, mark)
			if line != "" {
				lines = append(lines, line) // also what has no line break at its end
			}
			if found {
				return strings.Join(lines, "\n"), code
			}
		case <-limit:
			m.t.Fatalf("machine %s says nothing more after:\n%s", m.name, strings.Join(lines, "\n"))
		}
	}
}

// sh runs a command line in the machine.
func (m *machine) sh(command string) (out string, ok bool) {
	m.t.Helper()
	if _, err := io.WriteString(m.in, command+"\n"); err != nil {
		m.t.Fatalf("machine %s takes no commands: %v", m.name, err)
	}
	out, code := m.until("@@end ")
	return out, code == "0"
}

func (m *machine) must(commands ...string) {
	m.t.Helper()
	for _, c := range commands {
		if out, ok := m.sh(c); !ok {
			m.t.Fatalf("in machine %s, %s: %s", m.name, c, out)
		}
	}
}

const tokenURL = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"

// wget asks as any program would. (Its own -T crashes in Debian 12's build.)
func wget(url string, seconds int) string {
	return fmt.Sprintf("%[1]s timeout %[2]d %[1]s wget -q -O - --header 'Metadata: true' '%[3]s'", busybox, seconds, url)
}
