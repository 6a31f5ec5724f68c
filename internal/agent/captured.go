package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
)

// CapturedDoor is what placements call the captured address if nothing else is
// said.
const CapturedDoor = "host"

// KindCaptured is the captured address's door. No DoorConfig is of this kind.
const KindCaptured = "captured"

// CaptureConfig turns capture on.
type CaptureConfig struct {
	capture.Config
	// Door is what placements call the captured address, [CapturedDoor] if empty.
	Door string
	// StartGroup is the control group below which each start has one of its
	// own, [DefaultStartGroup] below Root if empty.
	StartGroup string
}

// openCapture turns capture on and makes its door. It comes before the other
// doors: from here on connections to those are on record as well.
func (a *Agent) openCapture(ctx context.Context) error {
	if a.cfg.Capture == nil {
		return nil
	}
	if err := a.openGroups(); err != nil {
		return err
	}
	var err error
	if a.capture, err = capture.Open(a.cfg.Capture.Config); err != nil {
		return err
	}
	a.callers.Record = a.capture.Record
	cfg := a.door(a.cfg.Capture.Door, metadata.IMDS(a.dialects()))
	l, err := a.capture.Listen(ctx, cfg.Open)
	if err != nil {
		return err
	}
	cfg.Kind = KindCaptured
	a.doors = append(a.doors, door.New(a.recorded(cfg), l))
	return nil
}

// settleCapture lets go of what an earlier agent had captured for doors that
// this one does not have.
func (a *Agent) settleCapture() error {
	if a.capture == nil {
		return nil
	}
	return a.capture.Settle()
}

// recorded makes a door one where only who is on the kernel's record may come in.
func (a *Agent) recorded(cfg door.Config) door.Config {
	name := cfg.Name
	cfg.Identify = func(c net.Conn) (evidence.Evidence, error) {
		return a.callers.Identify(c, caller.From{Door: name, Captured: true})
	}
	return cfg
}

// listen opens a door at a loopback address. Where capture is on, the kernel
// notes who connects there, and only who it noted may come in; of IPv6 it
// notes nothing.
func (a *Agent) listen(ctx context.Context, cfg door.Config, addr string) (*door.Door, error) {
	at, err := netip.ParseAddrPort(addr)
	if a.capture == nil || err != nil || !at.Addr().Unmap().Is4() {
		return door.Listen(ctx, cfg, addr)
	}
	d, err := door.Listen(ctx, a.recorded(cfg), addr)
	if err != nil {
		return nil, err
	}
	if at, err = netip.ParseAddrPort(d.Addr()); err == nil {
		err = a.capture.Watch(at)
	}
	if err != nil {
		return nil, fmt.Errorf("door %s: %w", cfg.Name, errors.Join(err, d.Close(ctx)))
	}
	return d, nil
}

// enterCaptured has connections in l's network namespace sent to l, each with
// its record. From a namespace without a door they are refused.
func (a *Agent) enterCaptured(from caller.From, l *net.TCPListener) (func(net.Conn) (evidence.Evidence, error), func(), error) {
	remove, err := a.capture.AddListener(l)
	if err != nil {
		return nil, nil, err
	}
	from.Captured = true
	return func(c net.Conn) (evidence.Evidence, error) { return a.callers.Identify(c, from) }, func() {
		if err := remove(); err != nil {
			a.log.Warn("a network namespace is not forgotten", "door", from.Door, "err", err)
		}
	}, nil
}

// capturedAt is what of this host's addresses a door answers for; "" if it is
// not the captured one's.
func (a *Agent) capturedAt(d *door.Door) string {
	if a.capture == nil || d.Name() != a.cfg.Capture.Door {
		return ""
	}
	return capture.Address.String()
}

func (a *Agent) closeCapture() {
	if a.capture == nil {
		return
	}
	if err := a.capture.Close(); err != nil {
		a.log.Error("capture not let go of in good order", "err", err)
	}
}

// checkCapture reports all that is wrong with the configuration of capture.
func (c *Config) checkCapture() error {
	if c.Capture == nil {
		return nil
	}
	faults := []error{c.Capture.Check(), checkDoorName(c.Capture.Door)}
	if at, err := netip.ParseAddrPort(c.AppListen); err == nil && !at.Addr().Unmap().Is4() {
		// Nobody would be known to be in the group that a start's secret is good in.
		faults = append(faults, fmt.Errorf("the app listener is at %s, and of IPv6 the kernel notes nothing: write 127.0.0.1:PORT", c.AppListen))
	}
	if c.Capture.StartGroup != "" {
		faults = append(faults, cgroup.Check(c.Capture.StartGroup))
	}
	for _, d := range c.Doors {
		if d.Name == c.Capture.Door {
			faults = append(faults, fmt.Errorf("door %q has the name of the captured address: choose another", d.Name))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}
