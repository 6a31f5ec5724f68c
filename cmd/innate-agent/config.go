package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/agent/handover"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/agent/metadata"
)

// config is the agent's configuration file. An unknown key is an error.
type config struct {
	// control_plane is the address of the fleet's API, as its certificate
	// names it: https://fleet.example.org or https://fleet.example.org:8443.
	// Required.
	ControlPlane string `yaml:"control_plane"`
	// control_plane_ca is a PEM file with the certificates of who signs the
	// control plane's. Without it the system's roots are used.
	ControlPlaneCA string `yaml:"control_plane_ca"`
	// connect_to, a host and port, is where to connect instead of resolving
	// the control plane's name. Its certificate must carry the name still.
	ConnectTo string `yaml:"connect_to"`
	// state_dir keeps the host's key, its certificate and the record that
	// waits to be shipped. It is this agent's alone and made with mode 0700.
	// Required.
	StateDir string `yaml:"state_dir"`
	// enrolment_token_file holds the one-time token that turns this machine
	// into a host. Only its owner may read it. It is read when the host has no
	// good certificate, and may be gone after that. Where it is not given, the
	// systemd credential "enrolment-token" is read, if the service has it.
	EnrolmentTokenFile string `yaml:"enrolment_token_file"`
	// enrolment_certificate_file and enrolment_key_file are a client
	// certificate that this machine has already, with what vouches for it, and
	// its key, in PEM. The host must be known by it at the control plane
	// (properties.certificates). It is shown to enrol, without a token or when
	// the token is no good, and read again each time.
	EnrolmentCertificateFile string `yaml:"enrolment_certificate_file"`
	EnrolmentKeyFile         string `yaml:"enrolment_key_file"`
	// doors are where programs, containers and virtual machines ask. Placements
	// name them. The name "run" is taken: it means programs started through the
	// control socket.
	Doors []doorConfig `yaml:"doors"`
	// capture takes the connections of this host's programs to 169.254.169.254
	// to the agent, which then knows who made them.
	Capture captureConfig `yaml:"capture"`
	// app_listen is where the App Service dialect is spoken to started
	// programs, a loopback address and a port. Default 127.0.0.1:0, any port.
	AppListen string `yaml:"app_listen"`
	// control_socket is where "innate run" asks for starts. Default
	// /run/innate/agent.sock.
	ControlSocket string `yaml:"control_socket"`
	// control_socket_mode is the socket's mode, in quotes. Default "0600", for
	// the agent's own user and root; "0666" lets every user ask, and a
	// placement for that user is still needed to be given anything.
	ControlSocketMode string `yaml:"control_socket_mode"`
	// offline is what to do when the control plane cannot be reached: "serve"
	// (default) gives out remembered tokens until they end, "refuse" gives out
	// nothing.
	Offline string `yaml:"offline"`
	// metrics_listen is where Prometheus finds the metrics, at /metrics: a
	// loopback address and a port, which every user of the host can read, or
	// the path of a unix socket, which only the agent's own user and root can.
	// They name no identity and no program. Without it there are none.
	MetricsListen string `yaml:"metrics_listen"`
	// log_level is debug, info (default), warn or error. At debug each request
	// that was answered is a line, at info only those that were not.
	LogLevel string `yaml:"log_level"`
	// limits are what one caller may take, so that a program in a loop takes
	// nothing from the others. Who is over them waits its turn, or is refused
	// with 429.
	Limits limits `yaml:"limits"`
}

// captureConfig is agent.CaptureConfig in the file's words. It takes a kernel of
// 5.15 or later with BTF, cgroup v2, and the capabilities CAP_BPF, CAP_PERFMON
// and CAP_NET_ADMIN; where it cannot be had the agent says why and does not
// start. Capture outlives the agent: while none runs, connections are refused,
// until "innate-agent capture off".
type captureConfig struct {
	// enabled turns capture on. Default false.
	Enabled bool `yaml:"enabled"`
	// door is what placements call the captured address. Default "host".
	Door string `yaml:"door"`
	// cgroups are those whose programs are captured, with all below them, as
	// /proc/PID/cgroup has them after "0::": /system.slice. They must exist
	// when the agent starts. Default: all programs. On a machine that itself
	// lives in a cloud, programs elsewhere keep that cloud's own service.
	Cgroups []string `yaml:"cgroups"`
	// start_group is the control group below which each program that "innate
	// run" starts has one of its own, by which it is known at the captured
	// address. Default /innate.
	StartGroup string `yaml:"start_group"`
	// listen is where captured connections are sent, an IPv4 loopback address
	// and a port, best one below 1024. Default 127.254.169.254:254.
	Listen string `yaml:"listen"`
	// root is the cgroup below which connections are looked at at all. Default
	// "/"; anything else is for trying things out.
	Root string `yaml:"root"`
	// bpffs is where the bpf filesystem is mounted, or will be. Default
	// /sys/fs/bpf.
	BPFFS string `yaml:"bpffs"`
}

// config returns nil where capture is off; settings without it are a mistake.
func (c captureConfig) config() (*agent.CaptureConfig, error) {
	if !c.Enabled {
		if c.Door != "" || c.Cgroups != nil || c.Listen != "" || c.Root != "" || c.BPFFS != "" || c.StartGroup != "" {
			return nil, errors.New("capture has settings and is not on: add enabled: true, or take them out")
		}
		return nil, nil
	}
	out := &agent.CaptureConfig{Door: c.Door, StartGroup: c.StartGroup, Config: capture.Config{BPFFS: c.BPFFS, Root: c.Root, Cgroups: c.Cgroups}}
	if c.Listen != "" {
		at, err := netip.ParseAddrPort(c.Listen)
		if err != nil {
			return nil, fmt.Errorf("capture.listen %q: an IP address and a port were expected, 127.254.169.254:254", c.Listen)
		}
		out.Listen = at
	}
	return out, nil
}

// limits are [limit.Config] in the file's words. What is absent has its default.
type limits struct {
	// per_second is how many requests a second one caller is answered on
	// average. Default 200; 0 means no limit.
	PerSecond *float64 `yaml:"per_second"`
	// burst is how many requests may come at once. Default 400.
	Burst *int `yaml:"burst"`
	// wait is how long a request above that waits for its turn at most, as
	// "500ms" or "2s". Default 1s.
	Wait *time.Duration `yaml:"wait"`
	// waiting is how many requests of one caller wait at once. Default 200.
	Waiting *int `yaml:"waiting"`
	// connections is how many connections one caller may have open; all
	// programs of one user together may have four times as many. Default 1024;
	// 0 means no limit.
	Connections *int `yaml:"connections"`
}

func (l limits) config() *limit.Config {
	c := limit.Default()
	set(&c.PerSecond, l.PerSecond)
	set(&c.Burst, l.Burst)
	set(&c.Wait, l.Wait)
	set(&c.Waiters, l.Waiting)
	set(&c.Connections, l.Connections)
	return &c
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// doorConfig is one door. A field that means nothing to its kind is an error.
type doorConfig struct {
	// name: letters, digits and - _ .
	Name string `yaml:"name"`
	// kind is one of
	//
	//	loopback      (default) the metadata service at a loopback address
	//	interface     at 169.254.169.254 for the virtual machine behind an interface
	//	namespace     at 169.254.169.254 inside a container's network namespace
	//	unix          at a unix socket
	//	vm_extension  the old VM extension's endpoint; deprecated, and says so
	//	arc           Azure Arc's endpoint, with a file to be read as its challenge
	Kind string `yaml:"kind"`
	// listen is a loopback address and a port: 127.0.0.1:8080, [::1]:0.
	// Required for loopback. vm_extension has 127.0.0.1:50342 as its default,
	// arc 127.0.0.1:40342.
	Listen string `yaml:"listen"`
	// interface is the virtual machine's, a tap of this host that is no port of
	// a bridge. It may come later, go and come again. The selector is
	// vm:interface:NAME. The agent puts 169.254.169.254 on it while it runs.
	Interface string `yaml:"interface"`
	// vm is what the machine is called: the selector vm:name:NAME.
	VM string `yaml:"vm"`
	// namespace is the path of a container's network namespace, /run/netns/NAME
	// or /proc/PID/ns/net (good while that process lives; the number can be
	// another's when the agent starts next); of an interface, where it is if
	// not in the agent's. Containers that share a namespace share the door: tell
	// them apart by further selectors.
	Namespace string `yaml:"namespace"`
	// container is what the container in the namespace is called: the selector
	// container:name:NAME. Required for a namespace.
	Container string `yaml:"container"`
	// path is the unix socket's. mode is its mode, in quotes; default "0600".
	Path string `yaml:"path"`
	Mode string `yaml:"mode"`
	// key_dir is where Arc's key files go. Clients take only the default,
	// /var/opt/azcmagent/tokens.
	KeyDir string `yaml:"key_dir"`
	// interfaces are what is told of the machine's or container's network under
	// /metadata/instance/network. The agent does not look for itself.
	Interfaces []struct {
		// mac is the hardware address, 52:54:00:ab:cd:ef.
		MAC string `yaml:"mac"`
		// addresses are IP addresses with the length of their network's
		// prefix, 10.0.0.5/24.
		Addresses []string `yaml:"addresses"`
	} `yaml:"interfaces"`
}

// agent reads what is text here and not there. agent.New checks the rest.
func (d *doorConfig) agent() (agent.DoorConfig, error) {
	var faults []error
	out := agent.DoorConfig{
		Name: d.Name, Kind: d.Kind, Listen: d.Listen, Interface: d.Interface, VM: d.VM,
		Namespace: d.Namespace, Container: d.Container, Path: d.Path, KeyDir: d.KeyDir,
	}
	var err error
	if out.Mode, err = readMode("mode", d.Mode); err != nil {
		faults = append(faults, err)
	}
	for _, i := range d.Interfaces {
		var known metadata.Interface
		if known.MAC, err = net.ParseMAC(i.MAC); err != nil || len(known.MAC) != 6 {
			faults = append(faults, fmt.Errorf("mac %q: a hardware address was expected, 52:54:00:ab:cd:ef", i.MAC))
		}
		for _, text := range i.Addresses {
			addr, err := netip.ParsePrefix(text)
			if err != nil {
				faults = append(faults, fmt.Errorf("address %q: an IP address with the length of its network's prefix was expected, 10.0.0.5/24", text))
				continue
			}
			known.Addresses = append(known.Addresses, addr)
		}
		out.Interfaces = append(out.Interfaces, known)
	}
	if len(faults) > 0 {
		return out, fmt.Errorf("door %q: %w", d.Name, errors.Join(faults...))
	}
	return out, nil
}

// enrolmentCredential is what a unit calls the token (LoadCredential=).
const enrolmentCredential = "enrolment-token"

// load reads the configuration and makes its agent, which logs to stderr. The
// error has all faults at once.
func (p *process) load(stderr io.Writer) error {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var c config
	if len(bytes.TrimSpace(text)) > 0 {
		if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
			return fmt.Errorf("reading the configuration %s: %w", p.file, err)
		}
	}
	level, badLevel := readLevel(c.LogLevel)
	p.log = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	if p.handover, err = handover.Inherit(); err != nil {
		return err
	}
	cfg, fault := c.agent()
	cfg.Log, cfg.Handover = p.log, p.handover
	p.agent, err = agent.New(cfg)
	if err := errors.Join(badLevel, fault, err); err != nil {
		return fmt.Errorf("configuration %s:\n%w", p.file, err)
	}
	return nil
}

func readLevel(s string) (level slog.Level, err error) {
	if s == "" {
		return slog.LevelInfo, nil
	}
	if err := level.UnmarshalText([]byte(s)); err != nil || s != strings.ToLower(level.String()) {
		return slog.LevelInfo, fmt.Errorf("log_level %q: debug, info, warn or error was expected", s)
	}
	return level, nil
}

// agent reads the files that the configuration names and reports all that is
// wrong with them; [agent.New] checks the rest.
func (c *config) agent() (agent.Config, error) {
	var faults []error
	cfg := agent.Config{
		ControlPlane: c.ControlPlane, StateDir: c.StateDir, AppListen: c.AppListen,
		ControlSocket: c.ControlSocket, Offline: c.Offline, Limits: c.Limits.config(), MetricsListen: c.MetricsListen,
		EnrolCertificateFile: c.EnrolmentCertificateFile, EnrolKeyFile: c.EnrolmentKeyFile,
	}
	if cfg.ControlSocket == "" {
		cfg.ControlSocket = "/run/innate/agent.sock"
	}
	for _, d := range c.Doors {
		read, err := d.agent()
		if err != nil {
			faults = append(faults, err)
		}
		cfg.Doors = append(cfg.Doors, read)
	}
	var err error
	if cfg.Capture, err = c.Capture.config(); err != nil {
		faults = append(faults, err)
	}
	if cfg.CA, err = readCA(c.ControlPlaneCA); err != nil {
		faults = append(faults, err)
	}
	if cfg.EnrolToken, err = readToken(c.tokenFile()); err != nil {
		faults = append(faults, err)
	}
	if cfg.ControlMode, err = readMode("control_socket_mode", c.ControlSocketMode); err != nil {
		faults = append(faults, err)
	}
	if c.ConnectTo != "" {
		if _, _, err := net.SplitHostPort(c.ConnectTo); err != nil {
			faults = append(faults, fmt.Errorf("connect_to %q: a host and a port were expected", c.ConnectTo))
		}
		cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, network, c.ConnectTo)
		}
	}
	return cfg, errors.Join(faults...)
}

// tokenFile is where the one-time token is. systemd keeps credentials in memory
// and lets only the service read them.
func (c *config) tokenFile() string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); c.EnrolmentTokenFile == "" && dir != "" {
		return filepath.Join(dir, enrolmentCredential)
	}
	return c.EnrolmentTokenFile
}

func readCA(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("control_plane_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("control_plane_ca: %s has no PEM certificate", file)
	}
	return pool, nil
}

// readToken reads the one-time token; a file that is gone means that it was
// spent.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("enrolment_token_file: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return "", fmt.Errorf("enrolment_token_file: %s can be read by others (mode %04o): run chmod 600 %s, or ask for another token if you fear that it was read", file, perm, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("enrolment_token_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func readMode(key, s string) (os.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode == 0 || mode&^0o777 != 0 {
		return 0, fmt.Errorf("%s %q: an octal mode like \"0660\" was expected", key, s)
	}
	return os.FileMode(mode), nil
}
