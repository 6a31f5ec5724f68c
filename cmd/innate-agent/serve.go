package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/handover"
)

// process is one run of the program.
type process struct {
	program string // the path that it was started by
	file    string // the configuration
	hangup  <-chan os.Signal
	stdout  io.Writer

	// Set by load.
	log      *slog.Logger
	handover *handover.Set
	agent    *agent.Agent
}

// serve runs the agent until ctx ends or another process takes its place.
func (p *process) serve(ctx context.Context) error {
	if err := p.agent.Start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it was ready
		}
		return err
	}
	defer p.agent.Close()
	tuneMemory(ctx)
	p.ready()
	go p.watchdog(ctx)
	for {
		select {
		case <-ctx.Done():
			p.tell(daemon.SdNotifyStopping)
			return nil
		case <-p.hangup:
			if err := p.upgrade(ctx); err != nil {
				return err
			}
		}
	}
}

func (p *process) ready() {
	fmt.Fprintf(p.stdout, "ready host=%s app=%s", p.agent.Host(), p.agent.AppAddr())
	for _, d := range p.agent.Status().Doors {
		fmt.Fprintf(p.stdout, " %s=%s", d.Name, d.Addr)
	}
	fmt.Fprintln(p.stdout)
	p.tell(daemon.SdNotifyReady)
}

// tell tells the service manager, where there is one. It is kept for the
// process that takes this one's place: the pid is the same.
func (p *process) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		p.log.Warn("the service manager was not told", "state", state, "err", err)
	}
}

// watchdog says that the agent is alive while it can say what it is: a
// deadlock would keep it from that, and has it started anew.
func (p *process) watchdog(ctx context.Context) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		p.log.Warn("the service manager's watchdog is not understood", "err", err)
	}
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.agent.Status()
			p.tell(daemon.SdNotifyWatchdog)
		}
	}
}
