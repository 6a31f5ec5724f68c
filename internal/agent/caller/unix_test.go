package caller_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/evidence"
)

// unixDoor returns a socket that all may connect to.
func unixDoor(t *testing.T) (net.Listener, string) {
	t.Helper()
	at := filepath.Join(folder(t), "s")
	l, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(at, 0o777); err != nil {
		t.Fatal(err)
	}
	return l, at
}

func overUnix(t *testing.T, l net.Listener) evidence.Evidence {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ev, err := new(caller.Identifier).Identify(conn, caller.From{Door: "run"})
	if err != nil || ev.Grade != evidence.GradeKernel {
		t.Fatalf("Identify = %+v, %v", ev, err)
	}
	return ev
}

func TestUnixPeersGroupsAndUnit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l, at := unixDoor(t)
	p := start(t, install(t, folder(t), "shop"), as{uid: 4321, gid: 5432, groups: []uint32{6543}, cgroup: cgroup(t, "/system.slice/innate-test-unix.service")})
	p.do("connect", "unix", at)
	ev := overUnix(t, l)
	wants(t, ev, "unix:uid:4321", "unix:gid:5432", "unix:supplementary_gid:6543", "systemd:id:innate-test-unix.service")
	if ev.Process.PID != p.pid() || ev.Process.Executable != p.cmd.Path {
		t.Errorf("process %+v", ev.Process)
	}
}

// Which program connected is not on the kernel's record here, so no program is
// claimed: the one that is there now may be another.
func TestUnixPeersProgramIsNotClaimed(t *testing.T) {
	t.Parallel()
	l, at := unixDoor(t)
	dir := folder(t)
	shop := install(t, dir, "shop")
	p := start(t, copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil")), as{})
	p.do("connect", "unix", at)
	p.do("exec", shop)
	lacks(t, overUnix(t, l), "unix:path:", "unix:sha256:")
}

func TestUnixPeerThatBecameAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l, at := unixDoor(t)
	p := start(t, install(t, folder(t), "shop"), as{})
	p.do("connect", "unix", at)
	p.do("become", "4321", "5432")
	ev := overUnix(t, l)
	wants(t, ev, "unix:uid:0", "unix:gid:0")
	lacks(t, ev, "unix:uid:4321", "unix:gid:5432")
}

// Of a thread that plays another user, the user is that one.
func TestUnixPeerThatPlaysAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l, at := unixDoor(t)
	p := start(t, install(t, folder(t), "shop"), as{})
	p.do("connect-as", "4321", "5432", "unix", at)
	ev := overUnix(t, l)
	wants(t, ev, "unix:uid:4321", "unix:gid:5432")
	lacks(t, ev, "unix:uid:0", "unix:gid:0")
}

func TestUnixPeerThatEnded(t *testing.T) {
	t.Parallel()
	needRoot(t)
	l, at := unixDoor(t)
	p := start(t, install(t, folder(t), "shop"), as{uid: 4321, gid: 5432, cgroup: cgroup(t, "/system.slice/innate-test-ended.service")})
	p.do("connect", "unix", at)
	p.end()
	ev := overUnix(t, l)
	wants(t, ev, "unix:uid:4321", "unix:gid:5432")
	lacks(t, ev, "systemd:", "cgroup:")
	if ev.Process != (evidence.Process{}) {
		t.Errorf("process %+v", ev.Process)
	}
}

// Who has a cgroup of his own makes others below it, with the names of units
// and containers that exist: he stays what he is.
func TestNamesBelowADelegatedCgroup(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	shop := install(t, folder(t), "shop")
	for _, below := range []string{"shop.service", "system.slice/shop.service", "docker/" + id, "system.slice/docker-" + id + ".scope"} {
		own := cgroup(t, "/system.slice/innate-test-delegated.service")
		at := cgroup(t, "/system.slice/innate-test-delegated.service/"+below)
		for _, dir := range []string{own, at} {
			if err := os.Chown(dir, 4321, 5432); err != nil {
				t.Fatal(err)
			}
		}
		p := start(t, shop, as{uid: 4321, gid: 5432, cgroup: at})
		ev := identify(t, &caller.Identifier{}, recordOf(t, p.pid()))
		wants(t, ev, "systemd:id:innate-test-delegated.service")
		lacks(t, ev, "systemd:id:shop", "systemd:id:docker", "container:")
		p.end()
	}
}

// A pid that is really given anew, in a pid namespace where the test may say
// which pid comes next.
func TestPidGivenAnew(t *testing.T) {
	if os.Getenv("INNATE_TEST_NAMESPACE") != "" {
		pidGivenAnew(t)
		return
	}
	t.Parallel()
	needRoot(t)
	inNamespaces(t, "TestPidGivenAnew", unix.CLONE_NEWPID|unix.CLONE_NEWNS)
}

func pidGivenAnew(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	shop := install(t, folder(t), "shop")
	var same evidence.Evidence
	for range 50 { // threads take pids too
		old := start(t, shop, as{})
		rec := recordOf(t, old.pid())
		wants(t, identify(t, &caller.Identifier{}, rec), sha(t, shop))
		old.end()
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(text(old.pid()-1)), 0); err != nil {
			t.Fatal(err)
		}
		// The very same program, a moment later: only the start tells.
		if anew := start(t, shop, as{}); anew.pid() == old.pid() {
			same = identify(t, &caller.Identifier{}, rec)
			recordAlone(t, same, rec)
			return
		}
	}
	t.Fatal("no pid was given anew")
}

// overlayfs has other numbers for stat(2) than the kernel's record has.
func TestExecutableOnOverlay(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, option := range []string{"", ",xino=on", ",xino=off"} {
		dir := folder(t)
		shop := overlay(t, dir, option)
		p := start(t, shop, as{})
		rec := recordOf(t, p.pid())
		id := &caller.Identifier{}
		wants(t, identify(t, id, rec), sha(t, shop), path(shop))
		for _, other := range []caller.Record{{Device: rec.Device + 1, Inode: rec.Inode}, {Device: rec.Device, Inode: rec.Inode + 1}} {
			changed := rec
			changed.Device, changed.Inode = other.Device, other.Inode
			recordAlone(t, identify(t, id, changed), rec)
		}
		p.end()
	}
}

// overlay mounts one with layers on two filesystems and the program in the
// lower one.
func overlay(t *testing.T, dir, options string) string {
	t.Helper()
	mount := func(source, target, fstype, data string) {
		t.Helper()
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, target, fstype, 0, data); err != nil {
			t.Fatal(fstype, data, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // an error shows as a folder that is left
	}
	lower, other, merged := filepath.Join(dir, "lower"), filepath.Join(dir, "other"), filepath.Join(dir, "merged")
	mount("tmpfs", lower, "tmpfs", "")
	mount("tmpfs", other, "tmpfs", "")
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(other, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install(t, lower, "shop")
	mount("overlay", merged, "overlay", "lowerdir="+lower+",upperdir="+other+"/upper,workdir="+other+"/work"+options)
	return filepath.Join(merged, "shop")
}
