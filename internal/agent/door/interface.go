package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/evidence"
)

// ListenInterface opens a door at 169.254.169.254:80 for what is behind a
// network interface of this host: a virtual machine behind its tap. It is
// bound to the interface, so that whatever addresses a machine writes, it gets
// its own answers and no other's, and they leave by the interface that the
// request came in by. They are sent with a time to live of 1: a machine behind
// that machine gets none.
//
// The interface may come later, go, and be made anew: the door follows. It
// puts the address on the interface and takes it away again if it put it
// there. namespace is the path of the network namespace that the interface is
// in, "" for the agent's own.
func ListenInterface(cfg Config, name, namespace string) (*Door, error) {
	if err := CheckInterface(name); err != nil {
		return nil, fmt.Errorf("door %s: %w", cfg.Name, err)
	}
	if namespace == "" {
		namespace = ownSpace
	}
	p := &interfacePlace{name: name, path: namespace, cfg: cfg, poke: make(chan struct{}, 1)}
	return at(cfg, p, Metadata.String()+"%"+name, p.poke), nil
}

// CheckInterface refuses what cannot be the name of an interface.
func CheckInterface(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%'
	}) {
		return fmt.Errorf("interface %q: a name as ip link shows it was expected, up to %d characters", name, unix.IFNAMSIZ-1)
	}
	return nil
}

// interfacePlace is an interface of that name, whichever it is at the moment.
type interfacePlace struct {
	name, path string
	cfg        Config
	poke       chan struct{} // says that interfaces changed

	space *space       // to look in; nil until it is entered
	link  netlink.Link // as look saw it last
	stop  chan struct{}
}

func (p *interfacePlace) look() (string, error) {
	key, err := spaceKey(p.path)
	if err != nil {
		return "", err
	}
	if p.space == nil || p.space.key != key {
		p.leave()
		if err := p.enter(); err != nil {
			return "", err
		}
	}
	if err := p.space.ask(p.find); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s#%d", p.space.key, p.name, p.link.Attrs().Index), nil
}

func (p *interfacePlace) find(h *netlink.Handle) error {
	link, err := h.LinkByName(p.name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return fmt.Errorf("there is no interface %s (yet)", p.name)
	}
	if err != nil {
		return fmt.Errorf("looking for interface %s: %w", p.name, err)
	}
	p.link = link
	return routed(h, link)
}

// routed refuses an interface whose packets never come to this host's own IP.
func routed(h *netlink.Handle, link netlink.Link) error {
	attrs := link.Attrs()
	switch link.Type() {
	case "macvtap", "ipvtap":
		return fmt.Errorf("interface %s is a %s, which this host has no part in: give the machine a tap that the host routes, "+
			"or a second interface for its metadata", attrs.Name, link.Type())
	}
	if attrs.MasterIndex == 0 {
		return nil
	}
	master, err := h.LinkByIndex(attrs.MasterIndex)
	if err != nil {
		return fmt.Errorf("looking at what interface %s belongs to: %w", attrs.Name, err)
	}
	// A VRF too: whether a peer is of this host would be its own tables' matter.
	return fmt.Errorf("interface %[1]s is a port of %[2]s (a %[3]s), which takes its packets before this host sees them as its own: "+
		"take it out (ip link set %[1]s nomaster) and route to the machine by it instead, or give the machine a second interface for its metadata",
		attrs.Name, master.Attrs().Name, master.Type())
}

// enter takes hold of the namespace and asks to be told of changes there.
func (p *interfacePlace) enter() error {
	s, err := enter(p.path)
	if err != nil {
		return err
	}
	updates, stop := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	if err := netlink.LinkSubscribeWithOptions(updates, stop, netlink.LinkSubscribeOptions{Namespace: &s.ns}); err != nil {
		s.leave()
		return fmt.Errorf("subscribing to changes of interfaces: %w", err)
	}
	go func() {
		// Ends with the subscription, also with one that broke: looking now and
		// then goes on without it.
		for range updates {
			select {
			case p.poke <- struct{}{}:
			default: // a look is due already
			}
		}
	}()
	p.space, p.stop = s, stop
	return nil
}

// leave gives up the namespace to look in.
func (p *interfacePlace) leave() {
	if p.space == nil {
		return
	}
	close(p.stop)
	p.space.leave()
	p.space, p.stop = nil, nil
}

func (p *interfacePlace) listen(ctx context.Context) (*opening, error) {
	s, err := enter(p.path)
	if err != nil {
		return nil, err
	}
	if s.key != p.space.key {
		s.leave()
		return nil, fmt.Errorf("%s was made anew", p.path)
	}
	l, undo, err := metadataListener(ctx, p.cfg, s, p.link)
	if err != nil {
		s.leave()
		return nil, err
	}
	return &opening{
		listener: l,
		identify: func(c net.Conn) (evidence.Evidence, error) {
			if err := s.beyond(c.RemoteAddr()); err != nil {
				return evidence.Evidence{}, fmt.Errorf("door at interface %s: %w", p.name, err)
			}
			return p.cfg.Identify(c)
		},
		after: func() {
			undo()
			s.leave()
		},
	}, nil
}

// beyond refuses peers on this host. To the kernel, a program here that
// connects to the address on the interface comes in by that interface; but it
// can only do so from an address of this host, which nobody beyond the
// interface can have: packets from there with such a source are dropped as
// martians.
func (s *space) beyond(peer net.Addr) error {
	addr, ok := peer.(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("peer %v did not come by an interface", peer)
	}
	return s.ask(func(h *netlink.Handle) error {
		routes, err := h.RouteGet(addr.IP)
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			return nil // nowhere but where the packet came from
		}
		if err != nil {
			return fmt.Errorf("asking the kernel whether %s is of this host: %w", addr.IP, err)
		}
		for _, r := range routes {
			if r.Type == unix.RTN_LOCAL {
				return fmt.Errorf("peer %s is on this host and not beyond the interface", addr.IP)
			}
		}
		return nil
	})
}
