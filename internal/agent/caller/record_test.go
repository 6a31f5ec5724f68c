package caller_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/evidence"
)

// pair is a TCP connection of the test's own; who is behind it is what the
// record says.
func pair(t testing.TB) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// identify says who a captured connection is of, by the kernel's record.
func identify(t *testing.T, id *caller.Identifier, rec caller.Record) evidence.Evidence {
	t.Helper()
	id.Record = func(*net.TCPConn) (caller.Record, error) { return rec, nil }
	ev, err := id.Identify(pair(t), caller.From{Door: "host", Captured: true})
	if err != nil {
		t.Fatal(err)
	}
	if ev.Grade != evidence.GradeKernel || ev.Door != "host" || !slices.IsSorted(ev.Selectors) {
		t.Errorf("evidence %+v", ev)
	}
	for _, s := range ev.Selectors {
		if _, err := evidence.Parse(string(s)); err != nil {
			t.Errorf("selector %q: %v", s, err)
		}
	}
	return ev
}

func has(ev evidence.Evidence, prefix string) bool {
	return slices.ContainsFunc(ev.Selectors, func(s evidence.Selector) bool { return strings.HasPrefix(string(s), prefix) })
}

func sha(t *testing.T, path string) evidence.Selector {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Selector(fmt.Sprintf("unix:sha256:%x", sha256.Sum256(b)))
}

func path(p string) evidence.Selector { return evidence.Selector("unix:path:" + p) }

func wants(t *testing.T, ev evidence.Evidence, all ...evidence.Selector) {
	t.Helper()
	for _, s := range all {
		if !slices.Contains(ev.Selectors, s) {
			t.Errorf("the caller lacks %s: %s", s, ev)
		}
	}
}

func lacks(t *testing.T, ev evidence.Evidence, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if has(ev, p) {
			t.Errorf("the caller has %s...: %s", p, ev)
		}
	}
}

// recordAlone checks that nothing but the record counts.
func recordAlone(t *testing.T, ev evidence.Evidence, rec caller.Record) {
	t.Helper()
	wants(t, ev, evidence.Selector(fmt.Sprint("unix:uid:", rec.UID)), evidence.Selector(fmt.Sprint("unix:gid:", rec.GID)))
	lacks(t, ev, "unix:path:", "unix:sha256:", "systemd:", "container:", "unix:supplementary")
	if ev.Process != (evidence.Process{}) {
		t.Errorf("the caller is taken for the process %+v", ev.Process)
	}
}

// TestRecordedProcessIsDescribed: another user in a unit of its own.
func TestRecordedProcessIsDescribed(t *testing.T) {
	t.Parallel()
	needRoot(t)
	shop := install(t, folder(t), "shop")
	p := start(t, shop, as{uid: 4321, gid: 5432, groups: []uint32{6543, 7}, cgroup: cgroup(t, "/system.slice/innate-test-shop.service")})
	ev := identify(t, &caller.Identifier{}, recordOf(t, p.pid()))
	wants(t, ev, "unix:uid:4321", "unix:gid:5432", "unix:supplementary_gid:6543", "unix:supplementary_gid:7", "unix:supplementary_group:lp",
		path(shop), sha(t, shop), "cgroup:/system.slice/innate-test-shop.service", "systemd:id:innate-test-shop.service")
	lacks(t, ev, "unix:user:", "unix:group:", "unix:uid:0", "container:")
	if ev.Process.PID != p.pid() || ev.Process.Executable != shop || ev.Interpreter {
		t.Errorf("process %+v, interpreter %v", ev.Process, ev.Interpreter)
	}
}

// The same user, with other executables: told apart.
func TestExecutablesOfOneUserAreToldApart(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	shop := install(t, dir, "shop")
	evil := copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil"))
	other := install(t, folder(t), "shop")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(shop, link); err != nil {
		t.Fatal(err)
	}
	id := &caller.Identifier{}
	for _, tt := range []struct {
		name, run, at string
		digest        evidence.Selector
	}{
		{"allowed", shop, shop, sha(t, shop)},
		{"another", evil, evil, sha(t, evil)},
		{"a copy elsewhere", other, other, sha(t, shop)}, // the same program, another path
		{"through a symlink", link, shop, sha(t, shop)},
	} {
		ev := identify(t, id, recordOf(t, start(t, tt.run, as{}).pid()))
		wants(t, ev, path(tt.at), tt.digest)
		if n := strings.Count(ev.String(), "unix:path:") + strings.Count(ev.String(), "unix:sha256:"); n != 2 {
			t.Errorf("%s: %s", tt.name, ev)
		}
	}
}

// A child that was forked of an allowed process is that program, by its own record.
func TestForkIsTheSameProgram(t *testing.T) {
	t.Parallel()
	shop := install(t, folder(t), "shop")
	p := start(t, shop, as{})
	p.do("connect", "tcp", listen(t).Addr().String())
	p.do("spawn", shop)
	child := childOf(t, p.pid())
	ev := identify(t, &caller.Identifier{}, recordOf(t, child))
	wants(t, ev, path(shop), sha(t, shop))
	if ev.Process.PID != child {
		t.Errorf("process %+v, want %d", ev.Process, child)
	}
}

func TestExecAfterConnectingLeavesTheRecord(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	shop := install(t, dir, "shop")
	evil := copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil"))
	p := start(t, evil, as{})
	rec := recordOf(t, p.pid())
	p.do("exec", shop) // the program that a rule allows
	recordAlone(t, identify(t, &caller.Identifier{}, rec), rec)
}

func TestExitBeforeTheAnswerLeavesTheRecord(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cg := cgroup(t, "/system.slice/innate-test-exit.service")
	p := start(t, install(t, folder(t), "shop"), as{cgroup: cg})
	rec := recordOf(t, p.pid())
	p.end()
	ev := identify(t, &caller.Identifier{}, rec)
	recordAlone(t, ev, rec)
	wants(t, ev, "cgroup:/system.slice/innate-test-exit.service") // by its id
	if err := os.Remove(cg); err != nil {
		t.Fatal(err)
	}
	if ev = identify(t, &caller.Identifier{}, rec); has(ev, "cgroup:") {
		t.Errorf("a cgroup that was removed is still named: %s", ev)
	}
}

// A zombie has a pid and a start time, and executes nothing.
func TestZombieLeavesTheRecord(t *testing.T) {
	t.Parallel()
	p := start(t, install(t, folder(t), "shop"), as{})
	rec := recordOf(t, p.pid())
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, p.pid(), &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	recordAlone(t, identify(t, &caller.Identifier{}, rec), rec)
}

// The start time tells a process from one that has its pid later, and from
// nothing that is a tick away.
func TestStartTimeIsCompared(t *testing.T) {
	t.Parallel()
	p := start(t, install(t, folder(t), "shop"), as{})
	rec := recordOf(t, p.pid())
	for _, off := range []int64{-1e7, 1e7, 1e9, -1e12} {
		other := rec
		other.StartNS += uint64(off)
		recordAlone(t, identify(t, &caller.Identifier{}, other), rec)
	}
	within := rec
	within.StartNS = rec.StartNS/1e7*1e7 + 9999999
	wants(t, identify(t, &caller.Identifier{}, within), sha(t, p.cmd.Path))
}

func TestSetuidAfterConnectingChangesNothing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	shop := install(t, folder(t), "shop")
	p := start(t, shop, as{uid: 0, gid: 0})
	rec := recordOf(t, p.pid())
	p.do("become", "4321", "5432")
	ev := identify(t, &caller.Identifier{}, rec)
	wants(t, ev, "unix:uid:0", "unix:gid:0", sha(t, shop))
	// Its groups now are another user's.
	lacks(t, ev, "unix:uid:4321", "unix:gid:5432", "unix:supplementary")
}

func TestBindMountOverTheExecutable(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := folder(t)
	shop := install(t, dir, "shop")
	evil := copyTo(t, shop, filepath.Join(dir, "evil"), []byte("evil"))
	was, other := sha(t, shop), sha(t, evil)
	before := start(t, shop, as{})
	if err := unix.Mount(evil, shop, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(shop, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	after := start(t, shop, as{})
	id := &caller.Identifier{}
	// What runs is measured, not what the path shows.
	wants(t, identify(t, id, recordOf(t, before.pid())), was)
	ev := identify(t, id, recordOf(t, after.pid()))
	wants(t, ev, other, path(shop)) // a path is a string
	before.end()
	after.end()
}

func TestExecutableReplacedOrDeletedAfterStart(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	shop := install(t, dir, "shop")
	was := sha(t, shop)
	p := start(t, shop, as{})
	rec := recordOf(t, p.pid())
	if err := os.Rename(copyTo(t, shop, filepath.Join(dir, "new"), []byte("new")), shop); err != nil {
		t.Fatal(err)
	}
	id := &caller.Identifier{}
	ev := identify(t, id, rec)
	wants(t, ev, was)
	lacks(t, ev, "unix:path:")
	if err := os.Remove(shop); err != nil {
		t.Fatal(err)
	}
	ev = identify(t, id, rec)
	wants(t, ev, was)
	lacks(t, ev, "unix:path:")
	// Nor is a file of that name a deleted one's path.
	named := install(t, dir, "shop (deleted)")
	lacks(t, identify(t, id, recordOf(t, start(t, named, as{}).pid())), "unix:path:")
}

func TestNamespacesOfTheCaller(t *testing.T) {
	t.Parallel()
	needRoot(t)
	shop := install(t, folder(t), "shop")
	for name, a := range map[string]as{
		"mount": {uid: 4321, gid: 5432, flags: unix.CLONE_NEWNS},
		"pid":   {uid: 4321, gid: 5432, flags: unix.CLONE_NEWPID | unix.CLONE_NEWNS},
		"user":  {uid: 4321, gid: 5432, userNS: true, flags: unix.CLONE_NEWNS}, // where it is root
	} {
		ev := identify(t, &caller.Identifier{}, recordOf(t, start(t, shop, a).pid()))
		wants(t, ev, "unix:uid:4321", "unix:gid:5432", sha(t, shop))
		lacks(t, ev, "unix:path:", "unix:uid:0", "unix:user:root") // its files are not the host's
		if t.Failed() {
			t.Fatalf("in another %s namespace", name)
		}
	}
}

// Without a record nobody comes in through a captured door.
func TestCapturedDoorTakesRecordedConnectionsOnly(t *testing.T) {
	t.Parallel()
	from := caller.From{Door: "host", Captured: true}
	if ev, err := new(caller.Identifier).Identify(pair(t), from); err == nil {
		t.Errorf("with nothing that captures: %+v", ev)
	}
	id := &caller.Identifier{Record: func(*net.TCPConn) (caller.Record, error) { return caller.Record{}, os.ErrNotExist }}
	if ev, err := id.Identify(pair(t), from); err == nil {
		t.Errorf("without a record: %+v", ev)
	}
}

// What the door proves counts alone for a guest, and with the rest otherwise.
func TestDoorsOwnSelectors(t *testing.T) {
	t.Parallel()
	ev, err := new(caller.Identifier).Identify(pair(t), caller.From{Door: "tap", Selectors: []evidence.Selector{"vm:name:web1", "vm:interface:tap3"}})
	if err != nil || !slices.Equal(ev.Selectors, []evidence.Selector{"vm:interface:tap3", "vm:name:web1"}) || ev.Grade != evidence.GradeKernel {
		t.Errorf("Identify = %+v, %v", ev, err)
	}
}
