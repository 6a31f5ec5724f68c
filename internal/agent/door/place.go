package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Metadata is where the instance metadata service is.
var Metadata = netip.MustParseAddrPort("169.254.169.254:80")

// lookEvery is how often a place is looked at, whatever else says that it
// changed. It is also how late a door opens in a namespace: files have no
// event for "a namespace was mounted here".
const lookEvery = 200 * time.Millisecond

// place is where a door's listener is while that exists. It is used by one
// goroutine; what is open outlives it.
type place interface {
	// look says what is there now, as a key that is another one when the place
	// was made anew; or why nothing is.
	look() (key string, err error)
	// listen opens what look saw last.
	listen(ctx context.Context) (*opening, error)
	// leave gives up what was held to look.
	leave()
}

// at makes a door at a place and keeps it open while the place is there. The
// first look has been taken when it returns. poke may be nil; each value in it
// asks for a look now.
func at(cfg Config, p place, addr string, poke <-chan struct{}) *Door {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	d := &Door{cfg: cfg, addr: addr, unwatch: func() {
		cancel()
		<-done
	}}
	w := &watch{door: d, place: p}
	w.look(ctx)
	go func() {
		defer close(done)
		defer p.leave()
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-poke:
			case <-tick.C:
			}
			w.look(ctx)
		}
	}()
	return d
}

// watch is one goroutine's: the one that [at] starts.
type watch struct {
	door  *Door
	place place
	key   string // of what is open; "" for nothing
	said  string // why it is shut, as logged last
}

func (w *watch) look(ctx context.Context) {
	key, err := w.place.look()
	if err == nil && key == w.key {
		return
	}
	log := w.door.cfg.Log.With("door", w.door.Name())
	if w.key != "" {
		// Also when there is another of that name: what came in by the old one
		// must not go on by the new one.
		w.door.shut(errors.New("its place is gone"))
		log.Info("door shut: its place is gone", "place", w.key)
		w.key = ""
	}
	if err == nil {
		err = w.open(ctx)
	}
	if err != nil {
		w.door.shut(err)
		if err.Error() != w.said {
			log.Warn("door is shut", "err", err)
		}
		w.said = err.Error()
		return
	}
	w.key, w.said = key, ""
	log.Info("door open", "at", w.door.Addr(), "place", key)
}

func (w *watch) open(ctx context.Context) error {
	o, err := w.place.listen(ctx)
	if err != nil {
		return err
	}
	w.door.set(o)
	return nil
}

// metadataListener listens at [Metadata] in s on this interface alone, and so
// that no router passes an answer on. undo takes back what was done to the
// interface.
func metadataListener(ctx context.Context, cfg Config, s *space, link netlink.Link) (l *net.TCPListener, undo func(), err error) {
	if undo, err = lend(s, link); err != nil {
		return nil, nil, err
	}
	lc := listenConfig()
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = bind(int(fd), link.Attrs().Index) }); err != nil {
			return err
		}
		return failed
	}
	// The name has the namespace's and the interface's own numbers: what was
	// opened for another of the same path or name is not taken.
	opened, err := cfg.open(fmt.Sprintf("metadata %s#%d", s.key, link.Attrs().Index), func() (l net.Listener, err error) {
		within := s.do(func() { l, err = lc.Listen(ctx, "tcp4", Metadata.String()) })
		if err := errors.Join(within, err); err != nil {
			if l != nil {
				l.Close()
			}
			return nil, err
		}
		return l, nil
	})
	if err != nil {
		undo()
		return nil, nil, fmt.Errorf("listening at %s on %s: %w", Metadata, link.Attrs().Name, err)
	}
	return opened.(*net.TCPListener), undo, nil
}

// bind ties a socket to one interface, by its number: the name can be another
// one's a moment later. Accepted connections inherit all of it.
func bind(fd, index int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index); err != nil {
		return os.NewSyscallError("setsockopt SO_BINDTOIFINDEX", err)
	}
	return os.NewSyscallError("setsockopt IP_TTL", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1))
}

// lentLabel marks addresses that an agent put on an interface, so that the
// process that takes its place, by an upgrade or after its sudden end, knows
// them from those that were there.
const lentLabel = "innate-agent"

// lend puts the metadata service's address on an interface. undo takes it away
// again, if no one but an agent put it there.
func lend(s *space, link netlink.Link) (undo func(), err error) {
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: Metadata.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)},
		Scope: unix.RT_SCOPE_LINK, // no source for anything that leaves the link
		Label: lentLabel,
	}
	ours := true
	err = s.ask(func(h *netlink.Handle) error {
		err := h.AddrAdd(link, addr)
		if errors.Is(err, os.ErrExist) {
			ours, err = lent(h, link)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("putting %s on %s: %w", Metadata.Addr(), link.Attrs().Name, err)
	}
	if !ours {
		return func() {}, nil
	}
	addr.Label = "" // the kernel writes another one when the interface is renamed
	return func() {
		// Where it fails, the address went with the interface.
		_ = s.ask(func(h *netlink.Handle) error { return h.AddrDel(link, addr) })
	}, nil
}

// lent reports whether the address that is on the interface is an agent's.
func lent(h *netlink.Handle, link netlink.Link) (bool, error) {
	have, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return false, err
	}
	for _, a := range have {
		if a.IP.Equal(Metadata.Addr().AsSlice()) && a.Label == lentLabel {
			return true, nil
		}
	}
	return false, nil
}
