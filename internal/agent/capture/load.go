package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What is done with a target; see capture.bpf.c.
const (
	send uint32 = 1
	note uint32 = 2
)

// load brings the programs into the kernel. Maps that an earlier agent of the
// same make pinned are used on, so that connections under way keep their
// records; those of another make are left to its programs, for as long as these
// are still attached.
func (c *Capture) load() error {
	opts := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: c.dir}}
	err := loadKernelObjects(&c.kernel, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		if err := c.unpinMaps(); err != nil {
			return err
		}
		err = loadKernelObjects(&c.kernel, opts)
	}
	if err != nil {
		return fmt.Errorf("loading the programs into the kernel (5.15 or later with BTF is needed; %s): %w", remedy, err)
	}
	return nil
}

func (c *Capture) unpinMaps() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("looking for what is pinned: %w", err)
	}
	for _, e := range entries {
		if isLink(e.Name()) {
			continue
		}
		if err := os.Remove(c.pin(e.Name())); err != nil {
			return fmt.Errorf("unpinning another version's map: %w", err)
		}
	}
	return nil
}

// configure writes what the programs go by. Maps may be in use already: what
// is new is put in before what is old is taken out.
func (c *Capture) configure() error {
	start, err := startTicks()
	if err != nil {
		return err
	}
	netns, err := netnsCookie()
	if err != nil {
		return err
	}
	hashes, err := c.chosen()
	if err != nil {
		return err
	}
	keep := map[uint64]bool{}
	for _, h := range hashes {
		keep[h] = true
		if err := c.kernel.Chosen.Put(h, uint8(1)); err != nil {
			return fmt.Errorf("choosing cgroups (at most 256): %w", err)
		}
	}
	if err := c.kernel.Targets.Put(toEndpoint(Address), send); err != nil {
		return fmt.Errorf("naming the captured address: %w", err)
	}
	if err := c.kernel.Doors.Put(netns, toEndpoint(c.cfg.Listen)); err != nil {
		return fmt.Errorf("naming the agent's address: %w", err)
	}
	s := kernelSettings{Pid: uint32(os.Getpid()), Start: start}
	if len(c.cfg.Cgroups) == 0 || slices.Contains(c.cfg.Cgroups, "/") {
		s.Everyone = 1
	}
	if err := c.kernel.Setting.Put(uint32(0), s); err != nil {
		return fmt.Errorf("naming the agent: %w", err)
	}
	c.spaces[netns], c.targets[toEndpoint(Address)] = true, true
	return sweep(c.kernel.Chosen, func(h uint64) bool { return keep[h] })
}

// Settle forgets the namespaces and the watched addresses that an earlier agent
// left and this one did not name again. It is called when all doors are open:
// up to then connections to doors that were handed over are on record.
func (c *Capture) Settle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(
		sweep(c.kernel.Doors, func(n uint64) bool { return c.spaces[n] }),
		sweep(c.kernel.Targets, func(e kernelEndpoint) bool { return c.targets[e] }),
	)
}

// sweep deletes the keys that are not to be kept.
func sweep[K comparable](m *ebpf.Map, keep func(K) bool) error {
	var old []K
	var key K
	var value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		if !keep(key) {
			old = append(old, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading what an earlier agent left: %w", err)
	}
	for _, key := range old {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("deleting what an earlier agent left: %w", err)
		}
	}
	return nil
}

// chosen are the hashes of the chosen cgroups' paths.
func (c *Capture) chosen() ([]uint64, error) {
	var out []uint64
	for _, path := range c.cfg.Cgroups {
		if _, err := cgroupDir(path); err != nil {
			return nil, err
		}
		out = append(out, hashPath(path))
	}
	return out, nil
}

// hashPath hashes a cgroup's path as below_chosen in capture.bpf.c does.
func hashPath(path string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		var padded [maxName + 1]byte
		copy(padded[:], name)
		for i := 0; i < len(padded); i += 8 {
			h = (h ^ binary.NativeEndian.Uint64(padded[i:])) * 0x100000001b3
		}
	}
	return h
}

// toEndpoint writes an address as the kernel has it, in network order whatever
// the machine's.
func toEndpoint(ap netip.AddrPort) kernelEndpoint {
	a, p := ap.Addr().As4(), binary.BigEndian.AppendUint16(nil, ap.Port())
	return kernelEndpoint{Addr: binary.NativeEndian.Uint32(a[:]), Port: binary.NativeEndian.Uint16(p)}
}

// startTicks is when this process began, in clock ticks since boot, the 22nd
// field of /proc/self/stat. The second, in brackets, may hold anything.
func startTicks() (uint64, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, fmt.Errorf("reading when the agent began: %w", err)
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("reading when the agent began: /proc/self/stat is too short")
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// netnsCookie names the network namespace of this thread.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("asking for the network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("asking for the network namespace: %w", err)
	}
	return cookie, nil
}
