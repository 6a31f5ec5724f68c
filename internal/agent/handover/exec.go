package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable tells a process what it inherits: its own pid and the descriptor of
// a sealed memory file with a [manifest], "4711:9". The pid keeps a child that
// got the same environment from taking descriptors that it does not have.
const variable = "INNATE_HANDOVER"

// maxManifest bounds the memory file, in bytes.
const maxManifest = 64 << 20

// sealed is what the memory file cannot lose any more.
const sealed = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// manifest is what the memory file holds:
//
//	{"files":{"door main tcp 127.0.0.1:0":7,"lock /var/lib/innate-agent":8},"note":{...}}
type manifest struct {
	Files map[string]int  `json:"files"`
	Note  json.RawMessage `json:"note"`
}

// Exec replaces this process by the program at path, which inherits all that
// was kept, and note. It returns only if that does not work; what was kept is
// kept still.
//
// A SIGHUP that comes before the new program listens to it waits until then:
// its default would be the end.
func (s *Set) Exec(path string, args, env []string, note any) error {
	text, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("encoding the note for the next process: %w", err)
	}
	s.mu.Lock()
	files := maps.Clone(s.kept)
	s.mu.Unlock()
	text, err = json.Marshal(manifest{Files: files, Note: text})
	if err != nil {
		return fmt.Errorf("encoding what the next process inherits: %w", err)
	}
	memory, err := seal(text)
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	env = append(without(env, variable), fmt.Sprintf("%s=%d:%d", variable, os.Getpid(), memory))

	runtime.LockOSThread() // the signal mask is the thread's, and the new program's
	defer runtime.UnlockOSThread()
	old, err := blockHangup()
	if err != nil {
		return err
	}
	// No child may be started meanwhile: it would get the descriptors as well.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	err = inheritable(files, memory, 0)
	if err == nil {
		err = syscall.Exec(path, args, env)
	}
	err = fmt.Errorf("executing %s: %w", path, err)
	return errors.Join(err, inheritable(files, memory, unix.FD_CLOEXEC), unix.PthreadSigmask(unix.SIG_SETMASK, old, nil))
}

// inheritable sets the descriptors' flag, FD_CLOEXEC or none.
func inheritable(files map[string]int, memory, flag int) error {
	for name, fd := range files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return fmt.Errorf("handing over %s: %w", name, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(memory), unix.F_SETFD, flag); err != nil {
		return fmt.Errorf("handing over the note: %w", err)
	}
	return nil
}

func blockHangup() (*unix.Sigset_t, error) {
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGHUP - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		return nil, fmt.Errorf("holding back signals: %w", err)
	}
	return &old, nil
}

// seal puts text in a memory file that nobody can change any more.
func seal(text []byte) (int, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("innate-handover", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("innate-handover", flags)
	}
	if err != nil {
		return -1, fmt.Errorf("making a memory file: %w", err)
	}
	for off := 0; off < len(text); {
		n, err := unix.Pwrite(fd, text[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("writing a memory file: %w", err)
		}
		off += n
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealed); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("sealing a memory file: %w", err)
	}
	return fd, nil
}

// Inherit takes what the process before this one left, once: the variable that
// says so is taken out of the environment.
func Inherit() (*Set, error) {
	s := New()
	text, ok := os.LookupEnv(variable)
	if !ok {
		return s, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, fmt.Errorf("clearing %s: %w", variable, err)
	}
	pid, number, _ := strings.Cut(text, ":")
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q: a pid and a descriptor were expected; unset it, only the agent itself sets it", variable, text)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return s, nil // our parent's
	}
	m, err := unseal(fd)
	if err != nil {
		return nil, fmt.Errorf("taking over from the process before this one: %w", err)
	}
	s.note = m.Note
	for name, fd := range m.Files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("taking over %s: %w", name, err)
		}
		s.inherited[name] = os.NewFile(uintptr(fd), name)
	}
	return s, nil
}

// unseal reads and closes the memory file. One that somebody could still
// change is none of ours.
func unseal(fd int) (m manifest, err error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return m, fmt.Errorf("descriptor %d is no memory file: %w", fd, err)
	}
	if seals&sealed != sealed {
		return m, fmt.Errorf("the memory file in descriptor %d is not sealed", fd)
	}
	f := os.NewFile(uintptr(fd), "innate-handover")
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxManifest))
	if err != nil {
		return m, fmt.Errorf("reading the memory file: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("decoding the memory file: %w", err)
	}
	return m, nil
}

// without returns env without a variable.
func without(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if k, _, _ := strings.Cut(kv, "="); k != name {
			out = append(out, kv)
		}
	}
	return out
}
