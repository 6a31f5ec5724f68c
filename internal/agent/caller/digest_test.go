package caller

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// opened is a file as a process's executable.
func opened(t *testing.T, path string) *executable {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	e := &executable{proc: "/proc", fd: fd}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &e.stat); err != nil {
		t.Fatal(err)
	}
	e.fstype = "tmpfs"
	return e
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const sumOfA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"

func TestDigestLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := opened(t, write(t, filepath.Join(dir, "a"), "a"))
	for _, tt := range []struct {
		max  int64
		want string
	}{{0, sumOfA}, {1, sumOfA}, {-1, ""}} {
		if got, err := (&digests{max: tt.max}).of(e, 0); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("limit %d: %q, %v", tt.max, got, err)
		}
	}
	if got, err := (&digests{max: 1}).of(opened(t, write(t, filepath.Join(dir, "ab"), "ab")), 0); err == nil {
		t.Errorf("a file over the limit: %q", got)
	}
	if got, err := new(digests).of(opened(t, dir), 0); err == nil {
		t.Errorf("a folder: %q", got)
	}
	e.fstype, e.stat.Dev_major = "fuse", 0
	if got, err := new(digests).of(e, 0); err == nil {
		t.Errorf("a file that a program serves: %q", got)
	}
}

// Within a tick of the filesystem's clock a change leaves no trace, so what
// changed just now is not remembered.
func TestDigestOfAFileThatChangedJustNowIsNotKept(t *testing.T) {
	t.Parallel()
	e := opened(t, write(t, filepath.Join(t.TempDir(), "a"), "a"))
	d := &digests{}
	if got, err := d.of(e, 0); got != sumOfA || err != nil || len(d.known) != 0 {
		t.Errorf("digest %q, %v, and %d are kept", got, err, len(d.known))
	}
	time.Sleep(settled + 100*time.Millisecond)
	for range 2 {
		if got, err := d.of(e, 0); got != sumOfA || err != nil || len(d.known) != 1 {
			t.Errorf("digest %q, %v, and %d are kept", got, err, len(d.known))
		}
	}
}

// What was looked at before the file changed is no digest of either content.
func TestFileThatChangesWhileItIsRead(t *testing.T) {
	t.Parallel()
	path := write(t, filepath.Join(t.TempDir(), "a"), "a")
	for _, text := range []string{"b", "longer", ""} {
		write(t, path, "a")
		e := opened(t, path)
		write(t, path, text)
		// The times go back; the ctime does not.
		old := time.Unix(e.stat.Mtime.Sec, int64(e.stat.Mtime.Nsec))
		time.Sleep(20 * time.Millisecond)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		if got, err := new(digests).of(e, 0); err == nil {
			t.Errorf("a file that became %q: %q", text, got)
		}
	}
}

// One user's files wait for each other, not for another user's.
func TestDigestsOfOneUserWaitForEachOther(t *testing.T) {
	t.Parallel()
	d := &digests{}
	never := make(chan time.Time)
	leave, err := d.await(1, never)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := d.await(2, never); err != nil {
		t.Error(err)
	} else {
		other()
	}
	now := make(chan time.Time)
	close(now)
	if _, err := d.await(1, now); err != errBusy {
		t.Errorf("a second turn of one user: %v", err)
	}
	leave()
	again, err := d.await(1, never)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if len(d.turns) != 0 {
		t.Errorf("%d turns are left", len(d.turns))
	}
}

// A file by another name, put in the place of the one that is open, is not read.
func TestDigestIsOfTheOpenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "a"), "a")
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Rename(write(t, filepath.Join(dir, "b"), "b"), path); err != nil {
		t.Fatal(err)
	}
	e := &executable{proc: "/proc", fd: fd, fstype: "tmpfs"}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &e.stat); err != nil {
		t.Fatal(err)
	}
	if got, err := new(digests).of(e, 0); got != sumOfA || err != nil {
		t.Errorf("digest %q, %v", got, err)
	}
}

func TestNamesAreRemembered(t *testing.T) {
	t.Parallel()
	var n names
	if n.user(0) != "root" || n.group(0) != "root" || n.user(4321) != "" {
		t.Errorf("names of 0: %q, %q; of 4321: %q", n.user(0), n.group(0), n.user(4321))
	}
	n.users[0] = knownName{"kept", time.Now()}
	n.groups[0] = knownName{"old", time.Now().Add(-nameFresh)}
	if n.user(0) != "kept" || n.group(0) != "root" {
		t.Errorf("a fresh name is %q, an old one %q", n.user(0), n.group(0))
	}
	for id := range uint32(3 * maxNames) {
		n.user(id + 100000)
	}
	if len(n.users) > maxNames {
		t.Errorf("%d names are kept", len(n.users))
	}
}
