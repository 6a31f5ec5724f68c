package caller

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// Bounds of a search for who holds a socket.
const (
	maxDescriptors = 1 << 20
	maxSearch      = 2 * time.Second
	// maxHolders is how many processes are compared.
	maxHolders = 16
)

// holder is a process that has a socket as its descriptor.
type holder struct {
	pid int
	fd  string
}

// holders finds which processes have a socket open, by looking at all
// descriptors of all. One search serves all who were waiting when it began, and
// the next begins not before as much time has passed as the last one took: so
// searching takes half a processor at most.
type holders struct {
	mu   sync.Mutex // guards next
	next *search

	turn sync.Mutex // held by the search under way; guards what follows
	free time.Time
}

// search is one pass over all descriptors.
type search struct {
	wanted map[uint64][]holder // by the socket's inode; whole once done is closed
	err    error
	done   chan struct{}
}

// of returns who holds the socket; an error if not all descriptors could be
// looked at.
func (h *holders) of(proc string, inode uint64) ([]holder, error) {
	h.mu.Lock()
	s := h.next
	if s == nil {
		s = &search{wanted: map[uint64][]holder{}, done: make(chan struct{})}
		h.next = s
		go h.run(proc, s)
	}
	s.wanted[inode] = nil
	h.mu.Unlock()
	<-s.done
	return s.wanted[inode], s.err
}

func (h *holders) run(proc string, s *search) {
	defer close(s.done)
	h.turn.Lock()
	defer h.turn.Unlock()
	time.Sleep(time.Until(h.free))
	h.mu.Lock()
	h.next = nil // from here on nobody joins
	h.mu.Unlock()
	began := time.Now()
	s.err = s.all(proc, began.Add(maxSearch))
	h.free = time.Now().Add(time.Since(began))
}

func (s *search) all(proc string, deadline time.Time) error {
	pids, err := list(unix.AT_FDCWD, proc)
	if err != nil {
		return fmt.Errorf("listing the processes: %w", err)
	}
	left := maxDescriptors
	for _, name := range pids {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := s.process(proc, pid)
		if err != nil {
			return fmt.Errorf("looking at the descriptors of process %d: %w", pid, err)
		}
		if left -= n; left < 0 || time.Now().After(deadline) {
			return errors.New("there are too many descriptors to look at")
		}
	}
	return nil
}

// process looks at one process's descriptors; one that ended has none.
func (s *search) process(proc string, pid int) (n int, err error) {
	dir, err := unix.Open(proc+"/"+strconv.Itoa(pid)+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	fds, err := listOpen(dir)
	if err != nil && !gone(err) {
		return 0, err
	}
	var buf [64]byte
	for _, fd := range fds {
		n, err := unix.Readlinkat(dir, fd, buf[:])
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := socketInode(string(buf[:n])); ok {
			if have, wanted := s.wanted[inode]; wanted {
				s.wanted[inode] = append(have, holder{pid, fd})
			}
		}
	}
	return len(fds), nil
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// socketInode reads "socket:[12345]".
func socketInode(link string) (uint64, bool) {
	digits, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, "]")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

func list(at int, name string) ([]string, error) {
	dir, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	return listOpen(dir)
}

func listOpen(dir int) ([]string, error) {
	var out []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return out, err
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
}

// held says what those who hold a socket have in common. It is read after the
// fact: a process that executed another program after connecting is taken for that program.
func (i *Identifier) held(o owner) (facts, error) {
	all, err := i.holders.of(i.proc(), o.inode)
	if err != nil {
		return facts{}, err
	}
	seen := map[int]bool{}
	var f facts
	for _, h := range all {
		if seen[h.pid] {
			continue
		}
		seen[h.pid] = true
		if len(seen) > maxHolders {
			return facts{}, errors.New("too many processes hold the socket")
		}
		one, err := i.holding(h, o)
		if err != nil {
			return facts{}, fmt.Errorf("process %d: %w", h.pid, err)
		}
		if len(seen) == 1 {
			f = one
			continue
		}
		f.selectors = slices.DeleteFunc(f.selectors, func(s evidence.Selector) bool { return !slices.Contains(one.selectors, s) })
		f.interpreter = f.interpreter || one.interpreter
		f.process = evidence.Process{} // which of them is not known
	}
	return f, nil
}

// holding reads one process that holds the socket before and after. One of
// another user than made the socket was handed it.
func (i *Identifier) holding(h holder, o owner) (facts, error) {
	p, err := openProcess(i.proc(), h.pid)
	if err != nil {
		return facts{}, err
	}
	defer p.close()
	start, err := p.started()
	if err != nil {
		return facts{}, err
	}
	exe, err := p.executable()
	if err != nil {
		return facts{}, err
	}
	defer exe.close()
	cred, err := p.status()
	if err != nil {
		return facts{}, err
	}
	if !slices.Contains(cred.uids[:], o.uid) {
		return facts{}, fmt.Errorf("it is not of user %d, who made the socket", o.uid)
	}
	now, err := p.cgroup()
	if err != nil {
		return facts{}, err
	}
	f := facts{process: evidence.Process{PID: p.pid, Executable: exe.path}}
	i.group(&f, cred.gids[1])
	i.supplementary(&f, cred.groups)
	i.program(&f, p, exe, o.uid)
	i.place(&f, now.path())
	again, err := p.executable()
	if err != nil {
		return facts{}, err
	}
	defer again.close()
	if end, err := p.started(); err != nil || end != start {
		return facts{}, errChanged
	}
	link, err := readlink(p.dir, "fd/"+h.fd)
	if inode, ok := socketInode(link); err != nil || !ok || inode != o.inode {
		return facts{}, fmt.Errorf("%w: it gave the socket away", errChanged)
	}
	return f, p.still(exe, again)
}
