package agent

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
)

// The kinds of doors.
const (
	KindLoopback    = "loopback"
	KindInterface   = "interface"
	KindNamespace   = "namespace"
	KindUnix        = "unix"
	KindVMExtension = "vm_extension"
	KindArc         = "arc"
)

var kinds = []string{KindLoopback, KindInterface, KindNamespace, KindUnix, KindVMExtension, KindArc}

// Where old programs ask.
const (
	vmExtensionListen = "127.0.0.1:50342"
	arcListen         = "127.0.0.1:40342"
)

// DoorConfig is one door. Which fields count is the kind's matter; the others
// are empty.
type DoorConfig struct {
	// Name is what placements call it.
	Name string
	// Kind is [KindLoopback] if empty.
	Kind string
	// Listen is a loopback address with a port, 0 for any. [KindVMExtension]
	// and [KindArc] have the ports of old as their defaults.
	Listen string
	// Interface is the name of the network interface that a virtual machine is
	// behind, and VM what that machine is called; VM may be empty.
	Interface, VM string
	// Namespace is the path of a network namespace: of a container, or of the
	// interface if it is not in the agent's own.
	Namespace string
	// Container is what the container in the namespace is called.
	Container string
	// Path and Mode are the unix socket's; the mode is 0600 if zero.
	Path string
	Mode fs.FileMode
	// KeyDir is where Arc's keys go, [metadata.ArcKeyDir] if empty.
	KeyDir string
	// Interfaces are what the host knows of the network of whoever comes in
	// here, for /metadata/instance/network.
	Interfaces []metadata.Interface
}

// checkDoors reports all that is wrong with doors.
func checkDoors(doors []DoorConfig) (faults []error) {
	names, taken := map[string]bool{}, map[string]string{}
	for _, d := range doors {
		if err := checkDoorName(d.Name); err != nil {
			faults = append(faults, err)
		} else if names[d.Name] {
			faults = append(faults, fmt.Errorf("two doors are named %q", d.Name))
		}
		names[d.Name] = true
		for _, err := range d.check() {
			faults = append(faults, fmt.Errorf("door %q: %w", d.Name, err))
		}
		if at := d.place(); at != "" {
			if other, ok := taken[at]; ok {
				faults = append(faults, fmt.Errorf("doors %q and %q are both at %s: a caller could be either; leave one out", other, d.Name, at))
			}
			taken[at] = d.Name
		}
	}
	return faults
}

// place is what no two doors may share; "" if nothing is.
func (d *DoorConfig) place() string {
	switch d.Kind {
	case KindInterface:
		return "interface " + d.Interface + " " + d.Namespace
	case KindNamespace:
		return "namespace " + d.Namespace
	case KindUnix:
		return "socket " + d.Path
	}
	return ""
}

// uses says which fields a kind has, by their names in the configuration file.
var uses = map[string][]string{
	KindLoopback:    {"listen"},
	KindInterface:   {"interface", "vm", "namespace", "interfaces"},
	KindNamespace:   {"namespace", "container", "interfaces"},
	KindUnix:        {"path", "mode"},
	KindVMExtension: {"listen"},
	KindArc:         {"listen", "key_dir"},
}

func (d *DoorConfig) check() (faults []error) {
	kind := d.kind()
	if uses[kind] == nil {
		return []error{fmt.Errorf("kind %q: one of %s was expected", d.Kind, strings.Join(kinds, ", "))}
	}
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"listen", d.Listen != ""}, {"interface", d.Interface != ""}, {"vm", d.VM != ""}, {"namespace", d.Namespace != ""}, {"container", d.Container != ""},
		{"path", d.Path != ""}, {"mode", d.Mode != 0}, {"key_dir", d.KeyDir != ""}, {"interfaces", len(d.Interfaces) > 0},
	} {
		if f.set && !strings.Contains(" "+strings.Join(uses[kind], " ")+" ", " "+f.name+" ") {
			fault(fmt.Errorf("%s means nothing to a door of kind %s, which has %s: take it out, or choose another kind", f.name, kind, strings.Join(uses[kind], ", ")))
		}
	}
	switch kind {
	case KindLoopback, KindVMExtension, KindArc:
		fault(door.CheckLoopback(d.listen()))
	case KindInterface:
		fault(door.CheckInterface(d.Interface))
		if d.Namespace != "" {
			fault(door.CheckNamespace(d.Namespace))
		}
		if d.VM != "" {
			fault(checkSelector("vm:name:", d.VM))
		}
	case KindNamespace:
		fault(door.CheckNamespace(d.Namespace))
		fault(checkSelector("container:name:", d.Container))
	case KindUnix:
		if !filepath.IsAbs(d.Path) {
			fault(fmt.Errorf("path %q: the absolute path of a socket was expected, /run/innate/imds.sock", d.Path))
		}
		if d.Mode&^fs.ModePerm != 0 {
			fault(fmt.Errorf("mode %v: permissions alone were expected", d.Mode))
		}
	}
	if kind == KindArc {
		fault(metadata.CheckKeyDir(d.keyDir()))
	}
	return faults
}

func checkSelector(prefix, value string) error {
	_, err := evidence.Parse(prefix + value)
	return err
}

func (d *DoorConfig) kind() string {
	if d.Kind == "" {
		return KindLoopback
	}
	return d.Kind
}

func (d *DoorConfig) listen() string {
	switch {
	case d.Listen != "":
		return d.Listen
	case d.Kind == KindVMExtension:
		return vmExtensionListen
	case d.Kind == KindArc:
		return arcListen
	}
	return ""
}

func (d *DoorConfig) keyDir() string {
	if d.KeyDir == "" {
		return metadata.ArcKeyDir
	}
	return d.KeyDir
}

// proves are the selectors that hold of whoever comes in by the door.
func (d *DoorConfig) proves() []evidence.Selector {
	var out []evidence.Selector
	add := func(prefix, value string) {
		if value != "" {
			out = append(out, evidence.Selector(prefix+value))
		}
	}
	add("vm:interface:", d.Interface)
	add("vm:name:", d.VM)
	add("container:name:", d.Container)
	return out
}

// openDoor opens a door as it is configured. The caller holds a.mu.
func (a *Agent) openDoor(ctx context.Context, d DoorConfig) (*door.Door, error) {
	dialects := a.dialects()
	dialects.Interfaces = d.Interfaces
	cfg := a.door(d.Name, metadata.IMDS(dialects))
	from := caller.From{Door: d.Name, Selectors: d.proves()}
	cfg.Kind = d.kind()
	switch cfg.Kind {
	case KindInterface:
		cfg.Identify = func(c net.Conn) (evidence.Evidence, error) { return a.callers.Identify(c, from) }
		return door.ListenInterface(cfg, d.Interface, d.Namespace)
	case KindNamespace:
		return door.ListenNamespace(cfg, d.Namespace, a.enter(from))
	case KindUnix:
		mode := d.Mode
		if mode == 0 {
			mode = 0o600
		}
		return door.ListenUnix(ctx, cfg, d.Path, mode)
	case KindVMExtension:
		old := a.door(d.Name, metadata.VMExtension(dialects))
		old.Kind = cfg.Kind
		return a.listen(ctx, old, d.listen())
	case KindArc:
		keys, err := metadata.OpenKeys(d.keyDir())
		if err != nil {
			return nil, fmt.Errorf("door %s: %w", d.Name, err)
		}
		a.keys = append(a.keys, keys)
		old := a.door(d.Name, metadata.Arc(dialects, keys))
		old.Kind = cfg.Kind
		return a.listen(ctx, old, d.listen())
	}
	return a.listen(ctx, cfg, d.listen())
}

// enter takes evidence in a container's network namespace: what the kernel
// notes when somebody there connects, or else whose socket it says it is
// afterwards.
func (a *Agent) enter(from caller.From) door.Enter {
	return func(ns int, l *net.TCPListener) (func(net.Conn) (evidence.Evidence, error), func(), error) {
		if a.capture != nil {
			return a.enterCaptured(from, l)
		}
		sockets, err := caller.OpenSockets(ns)
		if err != nil {
			return nil, nil, err
		}
		from := from
		from.Sockets = sockets
		return func(c net.Conn) (evidence.Evidence, error) { return a.callers.Identify(c, from) }, sockets.Close, nil
	}
}
