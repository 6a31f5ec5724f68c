package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/innate-id/innate/internal/evidence"
)

const (
	// dismissFor is how long clients of kept-alive connections have to send
	// one more request and hear that they should come back. Longer idle ones
	// are closed as after any idle time.
	dismissFor = 250 * time.Millisecond
	// leaveTimeout bounds the wait for requests under way: one that waits for
	// the control plane takes no longer.
	leaveTimeout = 10 * time.Second
)

// Note is what an agent leaves to the one that takes its place, besides
// sockets: the starts that live. Their secrets are in it as digests only.
type Note struct {
	Starts []StartNote `json:"starts"`
}

// StartNote is one start whose connection is handed over.
type StartNote struct {
	Conn      string            `json:"conn"` // the connection's name in the handover
	Digest    []byte            `json:"digest"`
	Workload  string            `json:"workload"`
	Placement string            `json:"placement"`
	UID       string            `json:"uid,omitempty"`
	Evidence  evidence.Evidence `json:"evidence"`
	// Group is the name of the start's control group; empty for none.
	Group string `json:"group,omitempty"`
	// Within is the path of the control group that its secret is good in where
	// it has none of its own; empty for anywhere.
	Within string `json:"within,omitempty"`
}

// HandOver ends this agent for a process that takes its place and inherits its
// sockets: clients are asked to come back, what is under way is answered, the
// journal is closed, and what arrives meanwhile waits. After it the agent is
// closed, whether it returns an error or not. Tokens in memory are not handed
// over; who hands over while the control plane is away leaves an agent that
// cannot start: see [Agent.Status].
func (a *Agent) HandOver(ctx context.Context) (Note, error) {
	a.mu.Lock()
	if !a.serving || a.closed || a.cfg.Handover == nil {
		a.mu.Unlock()
		return Note{}, errors.New("handing over: the agent is not running, or was started without a handover")
	}
	a.closed = true
	all := a.all()
	a.mu.Unlock()
	if err := a.cfg.Handover.Keep(); err != nil {
		a.abandon()
		return Note{}, fmt.Errorf("handing over: %w", err)
	}
	for _, d := range all {
		d.Dismiss()
	}
	_ = pause(ctx, dismissFor) // told to hurry is told to go on
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	var leave sync.WaitGroup
	for _, d := range all {
		leave.Go(func() {
			if err := d.Leave(ctx); err != nil {
				a.log.Warn("door not left in good order", "door", d.Name(), "err", err)
			}
		})
	}
	leave.Wait()
	a.holding.Wait()
	note, err := a.leaveStarts()
	a.abandon()
	if err != nil {
		return Note{}, fmt.Errorf("handing over: %w", err)
	}
	return note, nil
}

// abandon ends what runs and closes the journal, whose records the next
// process ships.
func (a *Agent) abandon() {
	a.stop()
	a.work.Wait()
	a.tokens.Close()
	if err := a.journal.Close(); err != nil {
		a.log.Error("journal not closed", "err", err)
	}
	a.client.http.CloseIdleConnections()
}

func (a *Agent) leaveStarts() (Note, error) {
	var note Note
	for i, h := range a.starts.leave() {
		c, ok := h.conn.(syscall.Conn)
		if !ok {
			return note, fmt.Errorf("connection of type %T has no descriptor to hand over", h.conn)
		}
		name, group := "start "+strconv.Itoa(i), ""
		if h.start.group != nil {
			group = h.start.group.Name()
		}
		if err := a.cfg.Handover.KeepConn(name, c); err != nil {
			return note, err
		}
		note.Starts = append(note.Starts, StartNote{Conn: name, Digest: h.start.digest[:],
			Workload: h.start.workload, Placement: h.start.placement, UID: h.start.uid, Evidence: h.start.ev, Group: group, Within: h.start.within})
		h.conn.Close()
	}
	return note, nil
}

// inheritStarts goes on with the starts that the process before this one left,
// and closes what it left and this one has no use for. Whether a start's
// placement is still there is looked at with each request, as always.
func (a *Agent) inheritStarts() error {
	var note Note
	if ok, err := a.cfg.Handover.Note(&note); err != nil || !ok {
		return err
	}
	for _, n := range note.Starts {
		st := &start{workload: n.Workload, placement: n.Placement, uid: n.UID, ev: n.Evidence, within: n.Within}
		if copy(st.digest[:], n.Digest) != len(st.digest) {
			return fmt.Errorf("taking over %s: its digest has %d bytes", n.Conn, len(n.Digest))
		}
		if err := a.inheritGroup(st, n.Group); errors.Is(err, fs.ErrNotExist) {
			// Its secret would be good for anybody. Its connection is closed below.
			a.log.Warn("a start is over: its control group is not below where this configuration has them", "workload", st.workload, "group", n.Group)
			continue
		} else if err != nil {
			return fmt.Errorf("taking over %s: %w", n.Conn, err)
		}
		conn, err := a.cfg.Handover.Conn(n.Conn)
		if err != nil {
			return err
		}
		a.starts.mu.Lock()
		release := a.starts.put(st)
		a.starts.mu.Unlock()
		a.starts.watch(&held{start: st, conn: conn, release: release, done: make(chan struct{})})
	}
	a.log.Info("took over from the process before this one", "starts", len(note.Starts))
	a.cfg.Handover.Settle()
	return nil
}

// takeLock takes the state directory for this agent, from the process before
// this one if it left the lock of that same directory.
func (a *Agent) takeLock() (*os.File, error) {
	dir, err := filepath.Abs(a.cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("finding the state directory: %w", err)
	}
	f, err := a.cfg.Handover.File("lock "+dir, func() (*os.File, error) { return lock(dir) })
	if err != nil {
		return nil, err
	}
	if err := stillThere(f, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// stillThere finds out a lock on a directory that was moved away or made anew
// since it was taken: another agent could be in the one that is there now.
func stillThere(f *os.File, dir string) error {
	have, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at the state directory's lock: %w", err)
	}
	there, err := os.Stat(filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("looking at the state directory's lock: %w", err)
	}
	if !os.SameFile(have, there) {
		return fmt.Errorf("state directory %s is not the one that the process before this one used: stop the agent before moving it, and start it after", dir)
	}
	return nil
}
