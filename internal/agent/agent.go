// Package agent is what runs on a host: it enrols the host, follows the
// control plane's decisions about it, and answers local programs at its doors.
// The daemon (cmd/innate-agent) and "innate dev" both start the same [Agent].
//
// What a newcomer would get wrong: the agent decides nothing that the control
// plane would not. Which workload a caller is, it finds in the placements that
// it was given; what that workload may have, it asks, or remembers while it is
// sure that nothing changed. It links no part of the control plane and speaks
// to it only in the words of fleetapi.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/hostkey"
	"github.com/innate-id/innate/internal/agent/limit"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/metrics"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
)

// RunDoor is the door of programs that were started through the control
// socket. Placements name it; no listener of the configuration may.
const RunDoor = "run"

const (
	startTimeout = 15 * time.Second
	closeTimeout = 5 * time.Second
)

// Agent serves one host. Make it with [New].
type Agent struct {
	cfg Config
	now func() time.Time
	log *slog.Logger

	// Set by Start, in this order.
	lock    *os.File
	key     *hostkey.Key
	journal *tokens.Journal
	client  *client
	tokens  *tokens.Cache
	feed    *feed
	starts  *starts
	callers *caller.Identifier
	capture *capture.Capture // nil where nothing is captured
	groups  *cgroup.Groups   // likewise
	limits  *limit.Limiter
	audited *seen
	metrics *metrics.Metrics // nil without MetricsListen

	instances *instances

	running context.Context // ends with Close
	stop    context.CancelFunc
	work    sync.WaitGroup
	holding sync.WaitGroup // requests for starts that are between door and starts

	mu      sync.Mutex // guards what follows
	doors   []*door.Door
	app     *door.Door
	control *door.Door
	keys    []*metadata.Keys // of Arc doors
	scrape  *door.Door       // the metrics
	serving bool
	closed  bool
}

// New checks the configuration and reports all that is wrong with it.
func New(cfg Config) (*Agent, error) {
	cfg.fill()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, now: cfg.Now, log: cfg.Log}, nil
}

// Start binds the doors, enrols the host if need be, reads its placements and
// waits for the change stream; then it answers. It returns when all that is
// done, or with the reason why not, and then nothing is left running. ctx ends
// the start, not the agent: see [Agent.Close].
func (a *Agent) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	a.running, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := a.start(ctx); err != nil {
		a.Close()
		return fmt.Errorf("starting the agent: %w", err)
	}
	return nil
}

func (a *Agent) start(ctx context.Context) error {
	if err := a.open(); err != nil {
		return err
	}
	// Bound before enrolling: a door that is taken must not cost the token.
	if err := a.bind(ctx); err != nil {
		return err
	}
	if err := a.enrol(ctx); err != nil {
		return err
	}
	a.feed.revision = a.feed.now().revision
	a.goes(func() { a.feed.run(a.running) })
	a.goes(func() { a.renewals(a.running) })
	a.goes(func() { a.journal.Run(a.running, a.client.events) })
	select {
	case <-a.feed.ready:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the change stream: %w", errors.Join(a.feed.why(), ctx.Err()))
	}
	if err := a.inheritStarts(); err != nil {
		return err
	}
	if err := a.removeLeft(); err != nil {
		return err
	}
	a.serve()
	return nil
}

// open takes the state directory into use and puts the parts together.
func (a *Agent) open() error {
	var err error
	if a.lock, err = a.takeLock(); err != nil {
		return err
	}
	if a.key, err = hostkey.LoadOrCreate(a.cfg.StateDir); err != nil {
		return err
	}
	if a.journal, err = tokens.OpenJournal(a.cfg.StateDir, a.cfg.JournalSize, a.log); err != nil {
		return err
	}
	a.client = newClient(a.cfg, a.key)
	a.feed = newFeed(a.client, a.log)
	a.tokens = tokens.New(tokens.Config{
		Fetch: a.client.token, Fresh: a.feed.fresh, Record: a.journal.Served,
		ServeStale: a.cfg.Offline == OfflineServe, Now: a.now, Log: a.log,
	})
	a.feed.tokens = a.tokens
	a.instances = newInstances(a.client.instance, a.feed.fresh, a.cfg.Offline == OfflineServe)
	a.feed.instances = a.instances
	a.starts = newStarts(a.removeGroup)
	a.callers = &caller.Identifier{Log: a.log}
	a.limits = limit.New(*a.cfg.Limits)
	a.audited = newSeen()
	if a.cfg.MetricsListen != "" {
		a.metrics = metrics.New(a.facts())
	}
	return nil
}

func (a *Agent) goes(f func()) {
	a.work.Add(1)
	go func() {
		defer a.work.Done()
		f()
	}()
}

// lockName is the file whose lock says that a state directory is in use.
const lockName = "lock"

// lock keeps a second agent from the same state: two would spoil each other's
// journal. The lock goes with the process.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the state directory's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another agent uses this state directory (stop it first): %w", err)
	}
	return f, nil
}

// bind opens every listener; connections wait there until serve.
func (a *Agent) bind(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.openCapture(ctx); err != nil {
		return err
	}
	for _, d := range a.cfg.Doors {
		opened, err := a.openDoor(ctx, d)
		if err != nil {
			return err
		}
		a.doors = append(a.doors, opened)
	}
	var err error
	if a.app, err = a.listen(ctx, a.door(RunDoor, metadata.AppService(a.dialects())), a.cfg.AppListen); err != nil {
		return err
	}
	if a.scrape, err = a.listenMetrics(ctx); err != nil {
		return err
	}
	if err := a.settleCapture(); err != nil {
		return err
	}
	if a.cfg.ControlSocket == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(a.cfg.ControlSocket), 0o755); err != nil {
		return fmt.Errorf("making the control socket's directory: %w", err)
	}
	control := a.door(RunDoor, a.controlHandler())
	control.Handler = a.inTurn(RunDoor, a.controlProblem, a.controlHandler())
	control.AnswerTimeout = 0 // the answer to a start lasts as long as the start
	a.control, err = door.ListenUnix(ctx, control, a.cfg.ControlSocket, a.cfg.ControlMode)
	return err
}

// door is the configuration of one door.
func (a *Agent) door(name string, h http.Handler) door.Config {
	return door.Config{
		Name: name, Handler: a.inTurn(name, a.tooMany, h), AnswerTimeout: door.AnswerTimeout, Open: a.cfg.Handover.Listen, Log: a.log, Admit: a.admit(name),
		Identify: func(c net.Conn) (evidence.Evidence, error) {
			return a.callers.Identify(c, caller.From{Door: name})
		},
	}
}

func (a *Agent) serve() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.all() {
		d.Serve()
	}
	a.serving = true
}

func (a *Agent) all() []*door.Door {
	all := append([]*door.Door(nil), a.doors...)
	for _, d := range []*door.Door{a.app, a.control, a.scrape} {
		if d != nil {
			all = append(all, d)
		}
	}
	return all
}

// dialects is what the dialects need of this agent.
func (a *Agent) dialects() metadata.Agent {
	m := metadata.Agent{
		Place: a.place, Started: a.started, Token: a.token,
		Instance: a.instance, Attest: a.attest, Tenant: a.key.Tenant,
		Now: a.now, Log: a.log,
	}
	if a.metrics != nil {
		m.Observe = a.metrics.Observe
	}
	return m
}

// Close stops the agent: no new requests, the ones under way end, the journal
// is shipped if the control plane takes it, and every start is over.
func (a *Agent) Close() {
	a.mu.Lock()
	if a.closed || a.stop == nil {
		a.mu.Unlock()
		return
	}
	a.closed = true
	all, keys := a.all(), a.keys
	a.mu.Unlock()

	a.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, d := range all {
		if err := d.Close(ctx); err != nil {
			a.log.Warn("door not closed in good order", "door", d.Name(), "err", err)
		}
	}
	a.closeCapture()
	for _, k := range keys {
		k.Close()
	}
	a.endStarts()
	a.closeGroups()
	a.work.Wait()
	if a.tokens != nil {
		a.tokens.Close()
	}
	a.closeJournal(ctx)
	if a.client != nil {
		a.client.http.CloseIdleConnections()
	}
	if a.lock != nil {
		// Said, not only closed: a child that is about to be executed has the
		// descriptor for a moment, and the lock with it. Where it fails, closing
		// does it.
		_ = unix.Flock(int(a.lock.Fd()), unix.LOCK_UN)
		a.lock.Close()
	}
}

func (a *Agent) closeJournal(ctx context.Context) {
	if a.journal == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if a.client != nil && a.key.Certificate() != nil {
		if err := a.journal.Ship(ctx, a.client.events); err != nil {
			a.log.Warn("journal not shipped; the next start does it", "err", err)
		}
	}
	if err := a.journal.Close(); err != nil {
		a.log.Error("journal not closed", "err", err)
	}
}

// AddDoor opens one more IMDS door and returns its address.
func (a *Agent) AddDoor(ctx context.Context, name, listen string) (string, error) {
	if err := checkDoorName(name); err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.serving || a.closed {
		return "", errors.New("adding a door: the agent is not running")
	}
	for _, d := range a.doors {
		if d.Name() == name {
			return "", fmt.Errorf("adding a door: there is one named %q", name)
		}
	}
	d, err := a.openDoor(ctx, DoorConfig{Name: name, Listen: listen})
	if err != nil {
		return "", err
	}
	d.Serve()
	a.doors = append(a.doors, d)
	return d.Addr(), nil
}

// DoorAddr returns where the named door listens, "" if there is none.
func (a *Agent) DoorAddr(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		if d.Name() == name {
			return d.Addr()
		}
	}
	return ""
}

// AppAddr returns where the App Service dialect is spoken.
func (a *Agent) AppAddr() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.app == nil {
		return ""
	}
	return a.app.Addr()
}

// Host returns the host's resource ID.
func (a *Agent) Host() string { return a.key.Host() }
