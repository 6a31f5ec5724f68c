package tokens

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counts are the repeats of a segment's records, in memory that is a file's.
// What is stored there is with the kernel at once, without a call, and stays
// whatever becomes of the process. The file is a table of this machine's own
// words; row i is record i's:
//
//	repeats int64, when the last one was in Unix milliseconds int64
type counts struct {
	path string
	// file is nil until there is a record to count.
	file  *os.File
	pages []*page
}

type row struct{ repeats, lastMS atomic.Int64 }

const (
	countLen = int64(unsafe.Sizeof(row{}))
	pageLen  = 4096
	pageRows = pageLen / int(countLen)
)

type page [pageRows]row

// add counts one more of record n, for which there is room.
func (c *counts) add(n int, at time.Time) {
	r := &c.pages[n/pageRows][n%pageRows]
	r.lastMS.Store(at.UnixMilli())
	r.repeats.Add(1)
}

// room makes room for record n, the next one. The page is written first: memory
// over a hole in the file would end the process when the disk is full.
func (c *counts) room(n int) error {
	if n < len(c.pages)*pageRows {
		return nil
	}
	if c.file == nil {
		f, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("beginning a journal's counts: %w", err)
		}
		c.file = f
	}
	at := int64(len(c.pages)) * pageLen
	if _, err := c.file.WriteAt(make([]byte, pageLen), at); err != nil {
		return fmt.Errorf("making room for a journal's counts: %w", err)
	}
	mem, err := unix.Mmap(int(c.file.Fd()), at, pageLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("sharing a journal's counts: %w", err)
	}
	c.pages = append(c.pages, (*page)(unsafe.Pointer(&mem[0])))
	return nil
}

// close ends counting. The caller sees to it that nobody counts.
func (c *counts) close() error {
	if c.file == nil {
		return nil
	}
	var faults []error
	for _, p := range c.pages {
		faults = append(faults, unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(p)), pageLen)))
	}
	c.pages = nil
	return errors.Join(append(faults, c.file.Close())...)
}

// counted is one row as read.
type counted struct {
	n    int64
	last time.Time
}

// readCounts returns the rows of the first so many records, or fewer: a record
// whose agent was killed before it repeated has none.
func readCounts(path string, records int) ([]counted, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading a journal's counts: %w", err)
	}
	out := make([]counted, min(records, len(text)/int(countLen)))
	for i := range out {
		at := text[i*int(countLen):]
		out[i] = counted{int64(binary.NativeEndian.Uint64(at)), time.UnixMilli(int64(binary.NativeEndian.Uint64(at[8:]))).UTC()}
		if out[i].n < 0 {
			return nil, fmt.Errorf("counts %s, row %d: %d repeats (remove the file to go on without its counts)", path, i, out[i].n)
		}
	}
	return out, nil
}
