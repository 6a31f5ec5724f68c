package metadata

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
)

// ArcKeyDir is where clients look for keys; they take no other place.
const ArcKeyDir = "/var/opt/azcmagent/tokens"

const (
	// keyLife is how long a key is there. A client reads it at once.
	keyLife = 10 * time.Second
	// maxKeys bounds the keys that wait, of one caller and of all.
	maxKeysEach, maxKeys = 16, 1024

	keyPrefix, keySuffix = "innate-", ".key"
)

// Keys are the challenges of an Arc endpoint: files with a secret, each of
// which one caller's user alone can read, once, for a few seconds.
type Keys struct {
	dir  string
	root *os.Root

	mu     sync.Mutex // guards what follows
	byHash map[[sha256.Size]byte]*arcKey
	each   map[string]int // by caller
	closed bool
}

type arcKey struct {
	caller string
	file   string
	expiry *time.Timer
}

// OpenKeys takes a directory into use, and removes what an agent that died
// left there.
func OpenKeys(dir string) (*Keys, error) {
	if err := prepareKeys(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the directory of Arc's keys: %w", err)
	}
	k := &Keys{dir: dir, root: root, byHash: map[[sha256.Size]byte]*arcKey{}, each: map[string]int{}}
	if err := k.sweep(); err != nil {
		root.Close()
		return nil, err
	}
	return k, nil
}

// prepareKeys makes the directory, or refuses one in which others could put
// their own files in place of ours, or callers could not reach theirs.
func prepareKeys(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the directory of Arc's keys: %w", err)
		}
		// Callers go through it to a name that they were told; nobody lists it.
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("making the directory of Arc's keys: %w", err)
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory of Arc's keys: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s, where Arc's keys go, is no directory: remove it", dir)
	case !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s, where Arc's keys go, can be written to by others (%v): run chown %d %s and chmod 711 %s", dir, info.Mode(), os.Geteuid(), dir, dir)
	case info.Mode().Perm()&0o001 == 0:
		return fmt.Errorf("%s, where Arc's keys go, cannot be entered by the programs that shall read theirs (%v): run chmod 711 %s", dir, info.Mode(), dir)
	}
	return nil
}

func (k *Keys) sweep() error {
	names, err := filepath.Glob(filepath.Join(k.dir, keyPrefix+"*"+keySuffix))
	if err != nil {
		return fmt.Errorf("listing old keys of Arc's: %w", err)
	}
	for _, name := range names {
		if err := k.root.Remove(filepath.Base(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing an old key of Arc's: %w", err)
		}
	}
	return nil
}

// challenge writes a key that only uid can read, to be shown by the caller
// with this evidence.
func (k *Keys) challenge(caller string, uid int) (path string, err error) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	secret := base64.RawURLEncoding.EncodeToString(raw)
	hash := sha256.Sum256([]byte(secret))
	key := &arcKey{caller: caller, file: keyPrefix + uuid.NewString() + keySuffix}

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return "", problem.Errorf(problem.Unavailable, "the agent is stopping")
	}
	if k.each[caller] >= maxKeysEach || len(k.byHash) >= maxKeys {
		return "", problem.Errorf(problem.Throttled, "too many challenges wait for their answer; each ends after %v", keyLife)
	}
	if err := k.write(key.file, secret, uid); err != nil {
		return "", err
	}
	k.byHash[hash] = key
	k.each[caller]++
	key.expiry = time.AfterFunc(keyLife, func() { k.take(hash) })
	return filepath.Join(k.dir, key.file), nil
}

// write makes the file whole before its reader can open it.
func (k *Keys) write(name, secret string, uid int) error {
	f, err := k.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return fmt.Errorf("making a key of Arc's: %w", err)
	}
	_, err = f.WriteString(secret) // no line break: clients send what they read
	if err == nil {
		err = f.Chown(uid, -1)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing a key of Arc's: %w", err), k.root.Remove(name))
	}
	return nil
}

// redeem ends the key with this secret, whoever shows it; it is good for the
// caller whom it was made for.
func (k *Keys) redeem(secret, caller string) error {
	// Looked up by its hash, so that the time it takes says nothing of any.
	key := k.take(sha256.Sum256([]byte(secret)))
	switch {
	case key == nil:
		return problem.Errorf(problem.Unauthenticated, "The key is unknown, spent or older than %v: ask without the header 'Authorization' for a new one", keyLife)
	case key.caller != caller:
		return problem.Errorf(problem.Unauthenticated, "The key was made for another caller: ask without the header 'Authorization' for one of your own")
	}
	return nil
}

// take removes a key and its file; nil if it is gone already.
func (k *Keys) take(hash [sha256.Size]byte) *arcKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.byHash[hash]
	if key == nil {
		return nil
	}
	delete(k.byHash, hash)
	if k.each[key.caller]--; k.each[key.caller] == 0 {
		delete(k.each, key.caller)
	}
	key.expiry.Stop()
	// Where this fails there is nothing in the file that is good for anything.
	_ = k.root.Remove(key.file)
	return key
}

// Close ends every key.
func (k *Keys) Close() {
	k.mu.Lock()
	k.closed = true
	hashes := make([][sha256.Size]byte, 0, len(k.byHash))
	for hash := range k.byHash {
		hashes = append(hashes, hash)
	}
	k.mu.Unlock()
	for _, hash := range hashes {
		k.take(hash)
	}
	_ = k.root.Close() // nothing was written by it
}

// CheckKeyDir refuses what cannot be a directory for keys: its path goes into
// a header that clients cut at "=".
func CheckKeyDir(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.ContainsFunc(dir, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`=",`, r) }) {
		return fmt.Errorf("key directory %q: an absolute path without blanks, = and quotes was expected, such as %s", dir, ArcKeyDir)
	}
	return nil
}
