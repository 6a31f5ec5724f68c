package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/doctor"
	"github.com/innate-id/innate/internal/dev"
)

func doctorCommand(f *flags) *cobra.Command {
	var config, socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what keeps Innate from working here",
		Long: `Look at innate dev, or at the agent of a host, and at the system around it. Each finding says what there is and, where
it is not as it should be, what to do. Nothing is changed. The exit code is 1 if something does not work ("fail"); what works and
could be better ("warn") does not count.

On a host run it as root: some things only root can see.`,
		Example: "  innate doctor\n  innate doctor --agent-config /etc/innate/agent.yaml --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h, more, err := patient(f, config, socket)
			if err != nil {
				return err
			}
			h.Getenv = os.Getenv
			findings := doctor.Run(c.Context(), h, more...)
			if err := printFindings(c.OutOrStdout(), findings, asJSON); err != nil {
				return err
			}
			if doctor.Failed(findings) {
				return exitCode(1)
			}
			return nil
		},
	}
	c.Flags().StringVar(&config, "agent-config", "", "configuration of innate-agent: look at this host instead of innate dev")
	c.Flags().StringVar(&socket, "agent-socket", "", "control socket of innate-agent: look at this host, as far as the agent tells")
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	c.MarkFlagsMutuallyExclusive("agent-config", "agent-socket")
	return c
}

func printFindings(w io.Writer, findings []doctor.Finding, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(findings)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-5s %-14s %s\n", f.Level, f.Check, f.Found); err != nil {
			return err
		}
		if f.Remedy == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%20s -> %s\n", "", f.Remedy); err != nil {
			return err
		}
	}
	return nil
}

// patient is what the doctor looks at.
func patient(f *flags, config, socket string) (doctor.Host, []doctor.Check, error) {
	if socket != "" {
		return doctor.Host{Socket: socket, Start: startUnit}, nil, nil
	}
	if config != "" {
		h, err := hostOf(config)
		return h, nil, err
	}
	dir, err := f.dir()
	if err != nil {
		return doctor.Host{}, nil, err
	}
	return devHost(dir), []doctor.Check{{Name: "hosts file", Run: hostsFile(dir)}, {Name: "credentials", Run: foreign}}, nil
}

const startUnit = "start it: systemctl start innate-agent"

// devHost is innate dev on its folder, whether it runs or not.
func devHost(dir string) doctor.Host {
	h := doctor.Host{Socket: filepath.Join(dir, "agent.sock"), StateDir: filepath.Join(dir, "agent"), Start: "start it: innate dev"}
	in, err := dev.ReadInstance(dir)
	if err != nil {
		return h
	}
	h.Socket = in.ControlSocket
	h.ControlPlane = strings.Replace(in.Endpoints.Management, "//management.", "//fleet.", 1)
	h.Dial = to(in.Listen)
	h.CA, _ = readPool(in.CAFile) // without it the certificate is not trusted, and that is said
	return h
}

// hostOf reads what the doctor needs of an agent's configuration. The agent
// itself refuses what it does not know; the doctor also looks at hosts whose
// agent is newer, and leaves the rest to innate-agent --check.
func hostOf(file string) (doctor.Host, error) {
	var c struct {
		ControlPlane   string `yaml:"control_plane"`
		ControlPlaneCA string `yaml:"control_plane_ca"`
		ConnectTo      string `yaml:"connect_to"`
		StateDir       string `yaml:"state_dir"`
		Doors          []struct {
			Name   string `yaml:"name"`
			Listen string `yaml:"listen"`
		} `yaml:"doors"`
		ControlSocket string `yaml:"control_socket"`
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return doctor.Host{}, fmt.Errorf("reading the agent's configuration: %w", err)
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		return doctor.Host{}, fmt.Errorf("reading the agent's configuration %s: %w", file, err)
	}
	h := doctor.Host{ControlPlane: strings.TrimSuffix(c.ControlPlane, "/"), StateDir: c.StateDir, Socket: c.ControlSocket, Start: startUnit}
	if u, err := url.Parse(h.ControlPlane); err != nil || u.Scheme != "https" || u.Host == "" {
		return h, fmt.Errorf("%s: control_plane %q: an address of the form https://fleet.example.org:8443 was expected", file, c.ControlPlane)
	}
	if h.Socket == "" {
		h.Socket = "/run/innate/agent.sock"
	}
	for _, d := range c.Doors {
		if d.Listen != "" {
			h.Doors = append(h.Doors, agent.DoorConfig{Name: d.Name, Listen: d.Listen})
		}
	}
	if c.ConnectTo != "" {
		h.Dial = to(c.ConnectTo)
	}
	if c.ControlPlaneCA != "" {
		h.CA, err = readPool(c.ControlPlaneCA)
	}
	return h, err
}

func readPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading who signs the control plane's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no PEM certificate", file)
	}
	return pool, nil
}

// to connects to one address, whatever the name.
func to(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

// systemHosts is the hosts file that innate dev --write-hosts keeps a block in.
const systemHosts = "/etc/hosts"

// hostsFile finds a block that innate dev left in the hosts file.
func hostsFile(dir string) func(context.Context, *doctor.Host) []doctor.Finding {
	return func(context.Context, *doctor.Host) []doctor.Finding {
		_, err := dev.ReadInstance(dir)
		text, unread := os.ReadFile(systemHosts)
		if unread != nil {
			return []doctor.Finding{{Level: doctor.Warn, Found: unread.Error(), Remedy: "names resolve without it where DNS knows them"}}
		}
		return []doctor.Finding{hostsFinding(string(text), errors.Is(err, dev.ErrNotRunning))}
	}
}

func hostsFinding(text string, stopped bool) doctor.Finding {
	without, err := dev.WithHosts(text, nil)
	switch {
	case err != nil:
		return doctor.Finding{Level: doctor.Fail, Found: "in " + systemHosts + " " + err.Error(), Remedy: "remove these lines, and the names between them, by hand"}
	case without != text && stopped:
		return doctor.Finding{Level: doctor.Warn, Found: systemHosts + " has names of an innate dev that was killed", Remedy: "innate dev --write-hosts takes them away when it ends, or remove the block by hand"}
	case without != text:
		return doctor.Finding{Level: doctor.OK, Found: systemHosts + " has the names of innate dev"}
	}
	return doctor.Finding{Level: doctor.OK, Found: systemHosts + " has no names of innate dev; programs under innate run do not need them"}
}

// foreign finds credentials in the environment which programs outside of
// "innate run" would take instead of their identity.
func foreign(_ context.Context, h *doctor.Host) []doctor.Finding {
	var set []string
	for _, name := range dev.Foreign {
		if h.Getenv(name) != "" {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return []doctor.Finding{{Level: doctor.OK, Found: "no other credentials are in the environment"}}
	}
	return []doctor.Finding{{Level: doctor.Warn, Found: "the environment has " + strings.Join(set, ", "),
		Remedy: "use innate run, which takes them away, or unset them: SDKs prefer them to a managed identity"}}
}
