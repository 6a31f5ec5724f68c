package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/handover"
	"github.com/innate-id/innate/internal/agent/limit"
)

// What an agent does when it is cut off from the control plane.
const (
	OfflineServe  = "serve"  // give out remembered tokens until they end
	OfflineRefuse = "refuse" // give out nothing that cannot be confirmed
)

// Config says what an agent is. [New] checks it.
type Config struct {
	// ControlPlane is the fleet's URL, https://fleet.D:port.
	ControlPlane string
	// CA is who signs the control plane's certificate; nil means the system's roots.
	CA *x509.CertPool
	// Dial connects to the control plane instead of resolving its name. May be nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// StateDir holds the host's key, certificate and journal. It is one agent's.
	StateDir string
	// EnrolToken is used once, when StateDir has no certificate that is valid.
	EnrolToken string
	// EnrolCertificateFile and EnrolKeyFile are a certificate that the machine
	// has already and its key, in PEM: what it enrols by without a token, or when
	// the token is no good. Empty for none.
	EnrolCertificateFile, EnrolKeyFile string
	// Doors are where IMDS is spoken.
	Doors []DoorConfig
	// Capture takes connections to 169.254.169.254 in; nil leaves them alone.
	Capture *CaptureConfig
	// AppListen is where the App Service dialect is spoken, "127.0.0.1:0" if empty.
	AppListen string
	// ControlSocket is the path of the control socket; empty for none.
	ControlSocket string
	// ControlMode is the control socket's mode, 0600 if zero. Who may start
	// what is decided by placement, not by this.
	ControlMode os.FileMode
	// Offline is [OfflineServe] (also if empty) or [OfflineRefuse].
	Offline string
	// Limits are what one caller may take; nil for [limit.Default].
	Limits *limit.Config
	// JournalSize bounds the journal in bytes; 0 means its default.
	JournalSize int64
	// MetricsListen is where Prometheus finds the metrics, GET /metrics: a
	// loopback address with a port, or the path of a unix socket (mode 0600).
	// Empty for nowhere.
	MetricsListen string
	// Handover is what the process before this one left, and what this one
	// leaves to the next ([Agent.HandOver]). May be nil: neither.
	Handover *handover.Set
	Log      *slog.Logger
	// Now is the clock that lifetimes are measured by; time.Now if nil.
	Now func() time.Time
}

func (c *Config) fill() {
	c.ControlPlane = strings.TrimSuffix(c.ControlPlane, "/")
	if c.AppListen == "" {
		c.AppListen = "127.0.0.1:0"
	}
	if c.ControlMode == 0 {
		c.ControlMode = 0o600
	}
	if c.Offline == "" {
		c.Offline = OfflineServe
	}
	if c.Capture != nil && c.Capture.Door == "" {
		named := *c.Capture
		named.Door = CapturedDoor
		c.Capture = &named
	}
	if c.Limits == nil {
		limits := limit.Default()
		c.Limits = &limits
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.ControlPlane); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		fault("control plane %q: an address of the form https://fleet.example.org:8443 was expected", c.ControlPlane)
	}
	if c.StateDir == "" {
		fault("no state directory is given")
	}
	if (c.EnrolCertificateFile == "") != (c.EnrolKeyFile == "") {
		fault("of the certificate to enrol by and its key one is given; both or none were expected")
	}
	if c.Offline != OfflineServe && c.Offline != OfflineRefuse {
		fault("offline is %q; %q or %q was expected", c.Offline, OfflineServe, OfflineRefuse)
	}
	if err := c.Limits.Check(); err != nil {
		faults = append(faults, err)
	}
	if err := door.CheckLoopback(c.AppListen); err != nil {
		fault("app listener: %w", err)
	}
	if c.MetricsListen != "" && !filepath.IsAbs(c.MetricsListen) {
		if err := door.CheckLoopback(c.MetricsListen); err != nil {
			fault("metrics: %w (or the path of a socket, from / on)", err)
		}
	}
	if err := c.checkCapture(); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, checkDoors(c.Doors)...)
	return errors.Join(faults...)
}

// checkDoorName keeps names to what reads as one word in a record.
func checkDoorName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if name == "" || len(name) > 64 || strings.Trim(strings.ToLower(name), letters) != "" {
		return fmt.Errorf("door name %q: up to 64 letters, digits and - _ . were expected", name)
	}
	if strings.EqualFold(name, RunDoor) {
		return fmt.Errorf("door name %q is taken: it means programs started through the control socket", name)
	}
	return nil
}
