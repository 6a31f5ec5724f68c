package caller

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// Limits of taking digests.
const (
	// DefaultMaxDigest is the longest executable whose digest is taken.
	DefaultMaxDigest = 1 << 30
	// digestPatience is how long one may wait for its turn.
	digestPatience = 5 * time.Second
	// settled is how long ago a file must have changed last for its digest to be
	// kept: a second change within one tick of the file system's clock leaves no
	// trace.
	settled    = 2 * time.Second
	maxDigests = 4096
)

var (
	errTooLong = errors.New("the executable is longer than the limit of digests")
	errBusy    = errors.New("too many digests are being taken")
)

// fileKey says which content a file has: whoever changes that changes the ctime,
// which nobody can set.
type fileKey struct {
	fileNumber
	size         uint64
	mtime, ctime unix.StatxTimestamp
}

func (e *executable) key() fileKey {
	s := &e.stat
	return fileKey{fileNumber{unix.Mkdev(s.Dev_major, s.Dev_minor), s.Ino}, s.Size, s.Mtime, s.Ctime}
}

// digests takes SHA-256 digests of executables. A file is read once, by
// whoever needs it first; each user has one file read at a time, and all
// together as many as there are processors.
type digests struct {
	max     int64
	flights singleflight.Group

	once  sync.Once
	slots chan struct{}

	mu    sync.Mutex // guards what follows
	known map[fileKey]string
	turns map[uint32]*turn // by the uid of who is waited for
}

// turn is one user's; the mutex is a channel, so that waiting can end.
type turn struct {
	free chan struct{}
	uses int
}

// of returns e's digest in hex. uid is the user on whose account it is taken.
func (d *digests) of(e *executable, uid uint32) (string, error) {
	if e.servedByUser() {
		return "", errors.New("the executable's filesystem is served by a program")
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", errors.New("the executable is no regular file")
	}
	limit := d.max
	if limit == 0 {
		limit = DefaultMaxDigest
	}
	if limit < 0 || e.stat.Size > uint64(limit) {
		return "", errTooLong
	}
	key := e.key()
	d.mu.Lock()
	sum, ok := d.known[key]
	d.mu.Unlock()
	if ok {
		return sum, nil
	}
	v, err, _ := d.flights.Do(fmt.Sprint(key, uid), func() (any, error) { return d.take(e, key, uid) })
	if err != nil {
		return "", err
	}
	return v.(string), nil
}

func (d *digests) take(e *executable, key fileKey, uid uint32) (string, error) {
	d.once.Do(func() { d.slots = make(chan struct{}, max(2, runtime.GOMAXPROCS(0))) })
	patience := time.NewTimer(digestPatience)
	defer patience.Stop()
	leave, err := d.await(uid, patience.C)
	if err != nil {
		return "", err
	}
	defer leave()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-patience.C:
		return "", errBusy
	}
	began := time.Now()
	sum, err := hash(e, key)
	if err != nil {
		return "", fmt.Errorf("taking the executable's digest: %w", err)
	}
	if began.Sub(time.Unix(key.ctime.Sec, int64(key.ctime.Nsec))) > settled {
		d.keep(key, sum)
	}
	return sum, nil
}

// await waits for uid's turn.
func (d *digests) await(uid uint32, give <-chan time.Time) (leave func(), err error) {
	d.mu.Lock()
	if d.turns == nil {
		d.turns = map[uint32]*turn{}
	}
	t := d.turns[uid]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		d.turns[uid] = t
	}
	t.uses++
	d.mu.Unlock()
	forget := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if t.uses--; t.uses == 0 {
			delete(d.turns, uid)
		}
	}
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free; forget() }, nil
	case <-give:
		forget()
		return nil, errBusy
	}
}

func (d *digests) keep(key fileKey, sum string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxDigests {
		d.known = map[fileKey]string{}
	}
	d.known[key] = sum
}

// hash reads the file behind e's descriptor. Opened through it, not by path:
// what was put in the file's place since, or mounted over it, is not read.
func hash(e *executable, key fileKey) (string, error) {
	f, err := os.OpenFile(e.self("fd"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.CopyBuffer(h, io.LimitReader(f, int64(key.size)+1), make([]byte, 256<<10)); err != nil || uint64(n) != key.size {
		return "", errors.Join(errors.New("its length changed while it was read"), err)
	}
	now := executable{fd: e.fd}
	if err := unix.Statx(e.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &now.stat); err != nil || now.key() != key {
		return "", errors.Join(errors.New("it changed while it was read"), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
