package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/fleetapi"
)

// checkAgent asks the agent what it is; the checks after it use the answer.
func checkAgent(ctx context.Context, h *Host) []Finding {
	if h.Socket == "" {
		return nil
	}
	err := h.ask(ctx)
	switch {
	case err == nil:
		return ok(fmt.Sprintf("runs for %s, with %d tokens and %d starts", h.status.Host, h.status.Tokens, h.status.Starts))
	case errors.Is(err, fs.ErrPermission):
		return fail("its control socket may not be used by this user: "+err.Error(), "run this as root or as the agent's user, or set control_socket_mode")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fail("nothing answers at "+h.Socket, h.Start)
	}
	return fail("it does not answer as an agent does: "+err.Error(), "look at its log; if it hangs, stop it and start it again: "+h.Start)
}

// ask reads the agent's status, and its pid from the kernel.
func (h *Host) ask(ctx context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", h.Socket)
		if u, ok := c.(*net.UnixConn); ok {
			h.agentPID = peerPID(u)
		}
		return c, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /status = %s", resp.Status)
	}
	var s agent.Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return fmt.Errorf("reading its status: %w", err)
	}
	h.status = &s
	return nil
}

// peerPID is who listens at the other end of c, 0 if the kernel does not say.
func peerPID(c *net.UnixConn) (pid int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // 0 is an answer too
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// checkLeftovers finds what an agent that was killed did not take away.
func checkLeftovers(_ context.Context, h *Host) []Finding {
	if h.status != nil || h.Socket == "" {
		return nil
	}
	if info, err := os.Lstat(h.Socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fail(h.Socket+" is no socket", "remove it, or set another control_socket: the agent does not start over it")
	} else if err == nil {
		return warn("the socket of an agent that was killed: "+h.Socket, "nothing: the next start removes it")
	}
	return nil
}

// checkState looks at who can read and change what is the host's alone.
func checkState(_ context.Context, h *Host) []Finding {
	if h.StateDir == "" {
		return nil
	}
	info, err := os.Stat(h.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fail("there is no "+h.StateDir, "the first start makes it: "+h.Start)
	}
	if err != nil {
		return warn("it cannot be looked at: "+err.Error(), "run this as root or as the agent's user")
	}
	if !info.IsDir() {
		return fail(h.StateDir+" is no directory", "set another state_dir")
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fail(fmt.Sprintf("%s can be written by others (mode %04o)", h.StateDir, perm), "chmod 700 "+h.StateDir)
	}
	key := filepath.Join(h.StateDir, "host.key")
	file, err := os.Stat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("the host has no key yet", "the first start makes it: "+h.Start)
	case err != nil:
		return warn("it cannot be looked into: "+err.Error(), "run this as root or as the agent's user")
	case file.Mode().Perm()&0o077 != 0:
		return fail(fmt.Sprintf("%s can be read by others (mode %04o) and counts as stolen", key, file.Mode().Perm()), "evict the host, remove the file, and enrol the host anew")
	case owner(info) != owner(file):
		return fail(fmt.Sprintf("%s is user %d's, its directory user %d's", key, owner(file), owner(info)), "give both to the agent's user: chown -R")
	}
	return ok(fmt.Sprintf("%s and the host's key are user %d's alone", h.StateDir, owner(info)))
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

func checkFeed(_ context.Context, h *Host) []Finding {
	if h.status == nil {
		return nil
	}
	age := time.Duration(h.status.AgeMS) * time.Millisecond
	switch {
	case !h.status.Connected:
		return fail("the change stream is not connected", "look at the findings about the control plane, and at the agent's log")
	case age > 3*fleetapi.Bound:
		return warn(fmt.Sprintf("the change stream last spoke %v ago; %v is the bound", age, fleetapi.Bound), "look for a slow network or an overloaded control plane: until it speaks, each token is asked for")
	}
	return ok(fmt.Sprintf("revision %d, heard %v ago", h.status.Revision, age))
}

func checkOffline(_ context.Context, h *Host) []Finding {
	if h.status == nil {
		return nil
	}
	said := map[string]string{agent.OfflineServe: "gives out remembered tokens until they end", agent.OfflineRefuse: "gives out nothing"}[h.status.Offline]
	if said != "" && !h.status.Connected {
		return warn("the agent is cut off and "+said, "see feed")
	}
	return ok("when it is cut off, the agent " + said + " (offline: " + h.status.Offline + ")")
}

func checkCertificate(_ context.Context, h *Host) []Finding {
	if h.status == nil {
		return nil
	}
	end, now := h.status.CertificateExpires, h.Now()
	found := "the host's certificate ends at " + end.UTC().Format(time.RFC3339)
	switch {
	case !now.Before(end):
		return fail(found, "get a new enrolment token for this host, give it to the agent, and start it again")
	case now.After(h.status.RenewAt.Add(10 * time.Minute)):
		return warn(found+" and its renewal is overdue", "look for \"not renewed\" in the agent's log; the agent tries on until the end")
	}
	return ok(found)
}

func checkJournal(_ context.Context, h *Host) []Finding {
	if h.status == nil || h.status.JournalLimit == 0 {
		return nil
	}
	part := 100 * h.status.JournalBytes / h.status.JournalLimit
	found := fmt.Sprintf("%d bytes of the record wait to be shipped, %d%% of what may", h.status.JournalBytes, part)
	const remedy = "it empties by itself when the control plane takes it: see control plane, and \"not shipped\" in the agent's log"
	switch {
	case part >= 95:
		return fail(found+": no new caller is answered", remedy)
	case part >= 50:
		return warn(found, remedy)
	}
	return ok(found)
}

// checkDoors connects to every door of a running agent, and looks whether the
// doors of one that does not run are free.
func checkDoors(ctx context.Context, h *Host) (out []Finding) {
	if h.status == nil {
		return h.freeDoors(ctx)
	}
	var open []string
	for _, d := range append([]agent.DoorStatus{{Name: agent.RunDoor, Addr: h.status.App}}, h.status.Doors...) {
		network := "tcp"
		if strings.HasPrefix(d.Addr, "/") {
			network = "unix"
		}
		c, err := new(net.Dialer).DialContext(ctx, network, d.Addr)
		if err != nil {
			out = append(out, fail("door "+d.Name+" is not open: "+err.Error(), "look at the agent's log; reload it")...)
			continue
		}
		c.Close()
		open = append(open, d.Name+" at "+d.Addr)
	}
	if len(out) > 0 {
		return out
	}
	return ok("open: " + strings.Join(open, ", "))
}

func (h *Host) freeDoors(ctx context.Context) (out []Finding) {
	for _, d := range h.Doors {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", d.Listen)
		if err != nil {
			out = append(out, fail("door "+d.Name+" could not be opened: "+err.Error(), "ss -tlnp shows who has the address; stop that, or set another one")...)
			continue
		}
		l.Close()
	}
	return out
}
