package dev

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newFolder names a data folder that is not there yet.
func newFolder(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "data")
}

// closed makes an empty folder that only this user can enter.
func closed(t *testing.T) string {
	t.Helper()
	dir := newFolder(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// brief ends a start that was to be refused, and is then not: it returns nil.
func brief(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// tree is a folder's content: each path's mode and text.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out[path] = info.Mode().String()
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			out[path] += fmt.Sprintf(" %q", b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const someIDs = `{"tenantId":"11111111-1111-4111-8111-111111111111","subscriptionId":"22222222-2222-4222-8222-222222222222","domain":"innate.localhost"}`

// TestFolderOfSomethingElseIsLeftAlone: what is not known to be innate dev's is
// neither deleted, nor overwritten, nor closed.
func TestFolderOfSomethingElseIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"a project with an agent":     {"agent/main.go": "package main"},
		"a CA of one's own":           {"ca.pem": "my ca"},
		"ids.json of another program": {"ids.json": `{"ids":[1,2]}`, "root.key": "mine"},
	} {
		for _, reset := range []bool{false, true} {
			dir := closed(t)
			for f, text := range files {
				put(t, filepath.Join(dir, f), text)
			}
			before := tree(t, dir)
			err := Run(brief(t), Options{Data: dir, Domain: "innate.localhost", Reset: reset, Out: io.Discard})
			if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--data") {
				t.Errorf("%s, reset %v: %v, want an error that says to give another folder", name, reset, err)
			}
			if after := tree(t, dir); !maps.Equal(before, after) {
				t.Errorf("%s, reset %v: the folder is %v, was %v", name, reset, after, before)
			}
		}
	}
}

// TestEmptyFolderIsClosed: what mkdir makes is taken, and closed to others.
func TestEmptyFolderIsClosed(t *testing.T) {
	t.Parallel()
	dir := closed(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, stop := up(t, Options{Data: dir, NoSample: true})
	defer stop()
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v; want 0700", st.Mode(), err)
	}
}

// TestOpenFolderIsNotClosed: a folder with something in it that others can
// enter may be theirs as well, and one with the sticky bit (/tmp) is: its user
// closes it.
func TestOpenFolderIsNotClosed(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o755, 0o710, 0o701, 0o777 | fs.ModeSticky} {
		dir := closed(t)
		if mode&fs.ModeSticky == 0 {
			put(t, filepath.Join(dir, lockFile), "")
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		err := Run(brief(t), Options{Data: dir, Domain: "innate.localhost", Out: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
			t.Errorf("mode %v: %v, want an error that says chmod 700", mode, err)
		}
		if after := tree(t, dir); !maps.Equal(before, after) {
			t.Errorf("mode %v: the folder is %v, was %v", mode, after, before)
		}
	}
}

// TestFolderOfAnotherUserIsRefused: its owner can open it again at any time.
func TestFolderOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
			t.Skip("INNATE_SKIP says to go without root")
		}
		t.Fatal("giving a folder away takes root: run the tests as root, or set INNATE_SKIP=root")
	}
	dir := closed(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	err := Run(brief(t), Options{Data: dir, Domain: "innate.localhost", Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "user 65534") {
		t.Errorf("a folder of another user = %v, want an error that names them", err)
	}
	if len(tree(t, dir)) != 1 {
		t.Error("something was made in a folder of another user")
	}
}

// TestLinksAreNotFollowed: a link in the folder makes or writes no file elsewhere.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lock", "innate.log"} {
		dir := closed(t)
		victim := filepath.Join(t.TempDir(), "victim")
		put(t, filepath.Join(dir, "ids.json"), someIDs)
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		err := Run(brief(t), Options{Data: dir, Domain: "innate.localhost", Out: io.Discard})
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s is a link: %v, want an error that names it", name, err)
		}
		if _, err := os.Lstat(victim); err == nil {
			t.Errorf("%s: what the link names was made", name)
		}
	}
}

// TestFolderOfACutShortStartIsOurs: before its ids are written, a first start
// leaves only a lock and a piece of ids.json; a reset leaves the ids for last.
func TestFolderOfACutShortStartIsOurs(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"lock", ".ids.json123456"} {
		dir := closed(t)
		put(t, filepath.Join(dir, left), "")
		unlock, err := (&dev{dir: dir, opt: Options{Data: dir, Domain: "innate.localhost"}}).open()
		if err != nil {
			t.Errorf("a folder with only %s is refused: %v", left, err)
			continue
		}
		unlock()
	}
	if got := owned[len(owned)-1]; got != idsFile {
		t.Errorf("--reset ends with %s; cut short before, the folder would not be known as ours", got)
	}
}

// TestDamagedDataSaysWhatToDo: an error names the file, and nothing is written
// over what may still be mended.
func TestDamagedDataSaysWhatToDo(t *testing.T) {
	t.Parallel()
	whole := newFolder(t)
	_, stop := up(t, Options{Data: whole})
	stop()
	other := newFolder(t)
	_, stop = up(t, Options{Data: other, NoSample: true})
	stop()
	key, err := os.ReadFile(filepath.Join(other, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		damage     func(path string) error
	}{
		{"the root key of another", "root.key", func(p string) error { return os.WriteFile(p, key, 0o600) }},
		{"a garbage root key", "root.key", func(p string) error { return os.WriteFile(p, []byte("garbage"), 0o600) }},
		{"a garbage database", "innate.db", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("garbage ", 999)), 0o600) }},
		{"no ids beside a database", "ids.json", os.Remove},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := newFolder(t)
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil { // CopyFS makes it as the umask says
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(dir, "root.key"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(filepath.Join(dir, tt.file)); err != nil {
				t.Fatal(err)
			}
			before := kept(t, dir)
			err := Run(brief(t), Options{Data: dir, Domain: "innate.localhost", Out: io.Discard})
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, tt.file)) || !strings.Contains(err.Error(), "--reset") {
				t.Errorf("%v, want an error that names %s and says what to do", err, tt.file)
			}
			if after := kept(t, dir); !maps.Equal(before, after) {
				t.Error("the kept data was changed")
			}
			_, stop := up(t, Options{Data: dir, NoSample: true, Reset: true})
			stop()
		})
	}
}

// kept is the part of a folder that cannot be made again.
func kept(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := tree(t, dir)
	maps.DeleteFunc(out, func(path, _ string) bool {
		switch filepath.Base(path) {
		case "root.key", "innate.db", "ids.json", "ca.pem":
			return false
		}
		return true
	})
	return out
}
