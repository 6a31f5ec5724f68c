package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const (
	idsFile      = "ids.json"
	databaseFile = "innate.db"
	keyFile      = "root.key"
	logFile      = "innate.log"
)

// ids are the installation's, in ids.json, written before anything is made
// with them: a first start that is cut short is completed by the next.
type ids struct {
	Tenant       string `json:"tenantId"`
	Subscription string `json:"subscriptionId"`
	Domain       string `json:"domain"`
}

// owned are the things in the data folder that are innate dev's, and go with
// --reset. What tells that the folder is ours goes last: a reset that was cut
// short can be done again.
var owned = []string{
	instanceFile, "innate.db-wal", "innate.db-shm", keyFile, caFile, bundleFile, publicCAFile, publicBundleFile,
	"agent", "agent.sock", logFile, "sample.done", "bootstrap.done", "placed.done", databaseFile, "innate.db.lock", idsFile,
}

// open makes the data folder this process's own.
func (d *dev) open() (unlock func(), err error) {
	if err := d.claim(); err != nil {
		return nil, err
	}
	f, err := openOwn(filepath.Join(d.dir, lockFile), os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, d.busy()
		}
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	unlock = func() { _ = f.Close() } // the lock goes with the descriptor
	if err := d.prepare(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// openOwn opens a file of the data folder that may be new. A link there is
// none of ours, and would have another file made or written.
func openOwn(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link, which innate dev did not make; remove it", path)
	}
	return f, err
}

// claim makes the data folder, or finds that the one that is there is ours to
// use. It changes nothing in one that is there, but closes an empty one.
func (d *dev) claim() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	st, err := os.Stat(d.dir)
	if err != nil {
		return fmt.Errorf("looking at the data folder: %w", err)
	}
	if sys := st.Sys().(*syscall.Stat_t); int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("the data folder %s belongs to user %d, who could change all that is in it; give one of your own with --data DIR", d.dir, sys.Uid)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("looking into the data folder: %w", err)
	}
	if !d.ours(entries) {
		return fmt.Errorf("the folder %s has files that are not innate dev's; give a new or empty one with --data DIR", d.dir)
	}
	if st.Mode().Perm()&0o077 != 0 && len(entries) == 0 && st.Mode()&fs.ModeSticky == 0 {
		return d.closeEmpty()
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the data folder %s is open to other users (mode %04o); if it is for innate dev alone, run: chmod 700 %s", d.dir, st.Mode().Perm(), quote(d.dir))
	}
	return nil
}

// closeEmpty closes a folder of the user's own that has nothing in it. What
// others put there until then is seen after it.
func (d *dev) closeEmpty() error {
	if err := os.Chmod(d.dir, 0o700); err != nil {
		return fmt.Errorf("closing the data folder to other users: %w", err)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("looking into the data folder: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("somebody put files into the folder %s just now; look at them, and give another one with --data DIR", d.dir)
	}
	return nil
}

// ours reports whether a folder with entries is innate dev's: an empty one,
// one whose first start was cut short, one with our ids, or, when these are
// lost, with our database.
func (d *dev) ours(entries []fs.DirEntry) bool {
	empty := true
	for _, e := range entries {
		switch name := e.Name(); {
		case name == idsFile:
			if b, err := os.ReadFile(filepath.Join(d.dir, name)); err == nil && parseIDs(b, &ids{}) == nil {
				return true
			}
			empty = false
		case name == databaseFile:
			return true
		case name != lockFile && !strings.HasPrefix(name, "."+idsFile): // renameio's temporary file
			empty = false
		}
	}
	return empty
}

func parseIDs(b []byte, into *ids) error {
	if err := json.Unmarshal(b, into); err != nil {
		return err
	}
	if uuid.Validate(into.Tenant) != nil || uuid.Validate(into.Subscription) != nil || into.Domain == "" {
		return errors.New("it does not hold the ids of an installation")
	}
	return nil
}

func (d *dev) busy() error {
	pid := ""
	if b, err := os.ReadFile(filepath.Join(d.dir, instanceFile)); err == nil {
		var in Instance
		if json.Unmarshal(b, &in) == nil {
			pid = " (process " + strconv.Itoa(in.PID) + ")"
		}
	}
	return fmt.Errorf("innate dev is already running on %s%s; stop it first, or start another on its own folder and port: innate dev --data DIR --port 0", d.dir, pid)
}

// prepare resets the folder if asked, and reads or makes its ids.
func (d *dev) prepare() error {
	if d.opt.Reset {
		if err := d.reset(); err != nil {
			return fmt.Errorf("resetting: %w", err)
		}
	}
	if err := os.Remove(filepath.Join(d.dir, instanceFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the last run's %s: %w", instanceFile, err)
	}
	for _, name := range []string{publicCAFile, publicBundleFile} { // whose key went with the last run
		if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the last run's %s: %w", name, err)
		}
	}
	path := filepath.Join(d.dir, idsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.newIDs(path)
	}
	if err != nil {
		return fmt.Errorf("reading the ids: %w", err)
	}
	if err := parseIDs(b, &d.ids); err != nil {
		return fmt.Errorf("reading %s: %w; put the right one back, or start over, without the data, with --reset", path, err)
	}
	if d.ids.Domain != d.opt.Domain {
		return fmt.Errorf("the data in %s is of the domain %s, and its CA vouches for no other; use --domain %s, another --data, or start over with --reset", d.dir, d.ids.Domain, d.ids.Domain)
	}
	return nil
}

func (d *dev) reset() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".root-key-") { // left by a kill while the root key was made
			if err := os.Remove(filepath.Join(d.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for _, name := range owned {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// newIDs makes the ids of a new installation. Beside a database they are not
// new but lost, and others would make it useless.
func (d *dev) newIDs(path string) error {
	if _, err := os.Lstat(filepath.Join(d.dir, databaseFile)); err == nil {
		return fmt.Errorf("%s is missing, and without it the database beside it is of no use; put it back, or start over, without the data, with --reset", path)
	}
	d.ids = ids{Tenant: uuid.NewString(), Subscription: uuid.NewString(), Domain: d.opt.Domain}
	b, err := json.Marshal(d.ids)
	if err != nil {
		return fmt.Errorf("encoding the ids: %w", err)
	}
	if err := renameio.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("keeping the ids: %w", err)
	}
	return nil
}
