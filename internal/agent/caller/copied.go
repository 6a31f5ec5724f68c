package caller

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/innate-id/innate/internal/evidence"
)

// interpreterDirs are where a host has its interpreters.
var interpreterDirs = []string{"/usr/bin", "/usr/local/bin", "/bin"}

// copies says of digests whether they are those of this host's interpreters:
// a copy under another name is one too. A container's own are known by their
// names alone.
type copies struct {
	mu    sync.Mutex // guards known
	known map[string]bool
}

// of reports whether an executable with this size and digest is a copy of an
// interpreter.
func (c *copies) of(size uint64, sum string) bool {
	c.mu.Lock()
	is, ok := c.known[sum]
	c.mu.Unlock()
	if ok {
		return is
	}
	is = isCopy(size, sum)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxDigests {
		c.known = map[string]bool{}
	}
	c.known[sum] = is
	return is
}

// isCopy reads the interpreters that have this size, which hardly any does.
func isCopy(size uint64, sum string) bool {
	for _, dir := range interpreterDirs {
		there, err := os.ReadDir(dir)
		if err != nil {
			continue // no host has them all
		}
		for _, e := range there {
			if evidence.IsInterpreter(e.Name()) && digestOf(filepath.Join(dir, e.Name()), size) == sum {
				return true
			}
		}
	}
	return false
}

// digestOf is the digest of the file with a name, "" if it has another size or
// cannot be read.
func digestOf(name string, size uint64) string {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() || uint64(info.Size()) != size {
		return ""
	}
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, info.Size()+1)); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
