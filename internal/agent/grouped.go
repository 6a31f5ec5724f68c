package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
)

// Where capture is on, each start has a control group of its own, and who asks
// at the captured address from within is that start: no variable is needed. Its
// secret is good in the group alone.

// DefaultStartGroup is the control group of all starts' groups.
const DefaultStartGroup = "/innate"

// openGroups makes the starts' group, which is captured whatever else is.
func (a *Agent) openGroups() error {
	at := a.cfg.Capture.StartGroup
	if at == "" {
		at = strings.TrimSuffix(a.cfg.Capture.Root, "/") + DefaultStartGroup
	}
	var err error
	if a.groups, err = cgroup.Open(at); err != nil {
		return err
	}
	if len(a.cfg.Capture.Cgroups) > 0 {
		captured := *a.cfg.Capture
		captured.Cgroups = append(slices.Clone(captured.Cgroups), a.groups.Path())
		a.cfg.Capture = &captured
	}
	return nil
}

// group moves who asked for a start, over the connection of ctx, into a control
// group of the start's own. Who is in a container or in a service stays there:
// its control group is what confines it, and at the captured address it is known
// by it. Its start has a secret alone, which is good in that group.
func (a *Agent) group(ctx context.Context, st *start) error {
	if a.groups == nil {
		return nil
	}
	conn, _ := door.Conn(ctx)
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a start was asked for over a connection of type %T", conn)
	}
	pid, pidfd, err := caller.Peer(unixConn)
	if err != nil {
		return &problem.Error{Kind: problem.CallerRefused, Detail: "the process that asks for a start has ended, or is in another pid namespace than the agent", Err: err}
	}
	defer unix.Close(pidfd)
	stays, err := caller.Confined(pid)
	if err != nil {
		return err
	}
	if stays {
		st.within = strings.TrimSuffix(controlGroup(st.ev), "/")
		return nil
	}
	group, err := a.groups.New("run-" + strings.ToLower(rand.Text()[:16]))
	if err != nil {
		return err
	}
	if err := group.Take(pid, pidfd); err != nil {
		group.Remove()
		return err
	}
	st.group = group
	return nil
}

// inheritGroup finds the group of a start that the process before this one
// left. Without capture groups say nothing any more, and the secret is good
// anywhere, as without capture it always was.
func (a *Agent) inheritGroup(st *start, name string) error {
	if name == "" || a.groups == nil {
		return nil
	}
	var err error
	st.group, err = a.groups.Find(name)
	return err
}

// closeGroups removes the groups of starts that have just ended: whoever held
// one is about to end.
func (a *Agent) closeGroups() {
	if a.groups == nil {
		return
	}
	for range 10 {
		if a.groups.Close() {
			return
		}
		time.Sleep(minRemoval)
	}
}

// Whoever was in a start's group is about to end most of the time.
const (
	minRemoval = 20 * time.Millisecond
	maxRemoval = 5 * time.Second
)

// removeGroup removes the group of a start that is over, once nobody is in it;
// gone says that it did before the agent ended. What a start leaves running
// keeps the group, and is nobody.
func (a *Agent) removeGroup(g *cgroup.Group) (gone bool) {
	for wait := minRemoval; !g.Remove(); wait = min(2*wait, maxRemoval) {
		select {
		case <-a.running.Done():
			return false
		case <-time.After(wait):
		}
	}
	return true
}

// removeLeft removes the groups that no start of this agent has: those of an
// agent before it.
func (a *Agent) removeLeft() error {
	if a.groups == nil {
		return nil
	}
	all, err := a.groups.All()
	if err != nil {
		return err
	}
	a.starts.mu.Lock()
	defer a.starts.mu.Unlock()
	for _, g := range all {
		if a.starts.byGroup[g.Name()] == nil {
			go a.removeGroup(g)
		}
	}
	return nil
}

// groupOf is the name of the start's group that a caller is in, by the kernel's
// word; "" if in none.
func (a *Agent) groupOf(ev evidence.Evidence) string {
	if a.groups == nil || ev.Grade != evidence.GradeKernel {
		return ""
	}
	return a.groups.Of(controlGroup(ev))
}

// controlGroup is the path of the control group that a caller is in, "" if that
// is not known.
func controlGroup(ev evidence.Evidence) string {
	for _, s := range ev.Selectors {
		if path, ok := strings.CutPrefix(string(s), "cgroup:"); ok {
			return path
		}
	}
	return ""
}

// inGroup returns the start whose control group a caller at the captured address
// is in, and what is known of it then: the program's own evidence, as of the
// start. It returns nil for who is in no start's group; an error says that the
// start is over, and that who is left of it is nobody.
func (a *Agent) inGroup(ev evidence.Evidence) (*start, evidence.Evidence, error) {
	name := a.groupOf(ev)
	if name == "" || ev.Door != a.cfg.Capture.Door {
		return nil, ev, nil
	}
	a.starts.mu.Lock()
	st := a.starts.byGroup[name]
	a.starts.mu.Unlock()
	if st == nil {
		return nil, ev, problem.Errorf(problem.CallerRefused, "the start that this program is part of is over, and what it left is nobody: start it anew (innate run)")
	}
	ev.Door, ev.Start = RunDoor, st.ev.Start
	return st, ev, nil
}

// carried reports whether a start's secret was shown by somebody outside its
// group, or outside the group that whoever asked for it stayed in.
func (a *Agent) carried(st *start, ev evidence.Evidence) bool {
	switch {
	case st.group != nil:
		return a.groupOf(ev) != st.group.Name()
	case st.within != "" && a.groups != nil:
		return ev.Grade != evidence.GradeKernel || !strings.HasPrefix(controlGroup(ev)+"/", st.within+"/")
	}
	return false
}
