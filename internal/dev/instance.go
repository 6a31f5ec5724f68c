// Package dev is "innate dev": the control plane and an agent in one process
// on loopback, with a sample to try. It is only a wiring of internal/server and
// internal/agent, and they are the same as in production: real signatures, real
// role checks, a host enrolled with a one-time token that speaks mutual TLS.
//
// Everything is under one data folder, mode 0700. Who can read the folder is
// the owner of the installation: the agent's control socket and dev.json let
// them act as any of the sample's resources. Each resource has a loopback port
// too, which answers programs of the same user alone, by what the kernel says
// of who connected.
package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Instance is dev.json: where a running "innate dev" is. Other programs may
// read it; its members stay.
type Instance struct {
	TenantID       string    `json:"tenantId"`
	SubscriptionID string    `json:"subscriptionId"`
	ResourceGroup  string    `json:"resourceGroup"`
	CAFile         string    `json:"caFile"`
	PID            int       `json:"pid"`
	Endpoints      Endpoints `json:"endpoints"`
	// Vaults maps a vault's name to its URL.
	Vaults map[string]string `json:"vaults"`
	// Resources maps a sample resource's short name to what it is.
	Resources map[string]Workload `json:"resources"`
	// ControlSocket is the agent's control socket.
	ControlSocket string `json:"controlSocket"`
	// Host is the resource ID of this machine.
	Host string `json:"host"`
	// Listen is where the names of the installation are served.
	Listen string `json:"listen"`
	// PublicNames says that the public cloud's names lead here too, for the
	// programs that ask for it.
	PublicNames bool `json:"publicNames,omitempty"`
}

// Endpoints are the addresses.
type Endpoints struct {
	Login      string `json:"login"`
	Management string `json:"management"`
	Graph      string `json:"graph"`
	Portal     string `json:"portal"`
	Metadata   string `json:"metadata"`
	Proxy      string `json:"proxy"`
}

// Workload is a resource that programs can run as.
type Workload struct {
	ID string `json:"id"`
	// Env are the variables that make a program run as it. IDENTITY_HEADER
	// among them is good until "innate dev" ends.
	Env map[string]string `json:"env"`
}

const (
	instanceFile = "dev.json"
	lockFile     = "lock"
)

// DataDir is the data folder: flag, else INNATE_DATA, else innate under the
// user's XDG state directory.
func DataDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv("INNATE_DATA")
	}
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if !filepath.IsAbs(state) { // the specification says to ignore a relative one
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("finding the data folder: %w; give one with --data", err)
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "innate")
	}
	return filepath.Abs(dir)
}

// ReadInstance reads the dev.json of a running "innate dev". The error says
// how to start one.
func ReadInstance(dir string) (Instance, error) {
	var in Instance
	b, err := os.ReadFile(filepath.Join(dir, instanceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return in, notRunning(dir)
	}
	if err != nil {
		return in, fmt.Errorf("reading the running instance: %w", err)
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return in, fmt.Errorf("reading %s: %w; start innate dev again, which writes it anew", filepath.Join(dir, instanceFile), err)
	}
	c, err := net.DialTimeout("unix", in.ControlSocket, time.Second)
	if err != nil {
		return in, notRunning(dir) // what is left of one that was killed
	}
	_ = c.Close()
	return in, nil
}

// ErrNotRunning is what [ReadInstance] returns where there is no instance.
var ErrNotRunning = errors.New("innate dev is not running")

func notRunning(dir string) error {
	return fmt.Errorf("%w on %s; start it with \"innate dev\" (for another folder: --data DIR or INNATE_DATA)", ErrNotRunning, dir)
}

// write keeps the instance where other commands find it.
func (in Instance) write(dir string) error {
	b, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", instanceFile, err)
	}
	err = renameio.WriteFile(filepath.Join(dir, instanceFile), append(b, '\n'), 0o600, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return fmt.Errorf("writing %s: %w", instanceFile, err)
	}
	return nil
}

// Resolve finds a workload's resource ID by its short name; a resource ID
// stands for itself.
func (in Instance) Resolve(name string) (id string, err error) {
	if w, ok := in.Resources[name]; ok {
		return w.ID, nil
	}
	for _, w := range in.Resources {
		if strings.EqualFold(w.ID, strings.TrimSuffix(name, "/")) {
			return w.ID, nil
		}
	}
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	var have []string
	for n := range in.Resources {
		have = append(have, n)
	}
	if len(have) == 0 {
		return "", fmt.Errorf("%q is no resource ID: it must begin with /subscriptions/", name)
	}
	sort.Strings(have)
	return "", fmt.Errorf("there is no sample resource %q; there are: %s (or give a resource ID, /subscriptions/...)", name, strings.Join(have, ", "))
}
