package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	checkTimeout = 20 * time.Second
	// maxReason bounds what is logged of a failed check, in bytes.
	maxReason = 4 << 10
)

// upgrade replaces this process by the program and the configuration that are
// on disk now. It returns nil if they are no good, and then nothing has
// happened; an error, if this process can neither go on nor be replaced.
func (p *process) upgrade(ctx context.Context) error {
	p.tell(reloading())
	path, err := p.replacement(ctx)
	if err != nil {
		p.log.Error("not upgraded: this agent goes on as it was", "err", err)
		p.tell(daemon.SdNotifyReady)
		return nil
	}
	p.log.Info("upgrading", "program", path)
	note, err := p.agent.HandOver(ctx)
	if err != nil {
		return err
	}
	// From here on a request to stop is one to end at once: everything is
	// closed and on record.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT)
	if ctx.Err() != nil {
		return nil
	}
	err = p.handover.Exec(path, os.Args, os.Environ(), note)
	p.log.Error("the new program cannot be executed; going on with this one", "err", err)
	// The running program itself, also where its file is gone.
	return errors.Join(err, p.handover.Exec("/proc/self/exe", os.Args, os.Environ(), note))
}

// reloading is the service manager's word for it, with the time that it asks for.
func reloading() string {
	var now unix.Timespec
	// A monotonic clock is there on every Linux.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// replacement is the program to become. It and its configuration must be good,
// and the control plane there: what this agent remembers goes with it, and the
// next one starts by asking.
func (p *process) replacement(ctx context.Context) (string, error) {
	path := p.program
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	check := exec.CommandContext(ctx, path, "--config", p.file, "--check")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "NOTIFY_SOCKET=") { // it is not the service
			check.Env = append(check.Env, kv)
		}
	}
	out, err := check.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s --config %s --check: %w: %s", path, p.file, err, reason(out))
	}
	if !p.agent.Status().Connected {
		return "", errors.New("the control plane cannot be reached: what this agent remembers would be lost and could not be asked for; try again when it can")
	}
	return path, nil
}

// self is the path that this program was started by. It is looked for once, at
// the start: a link there may lead to another program later, which is what
// upgrades do, and a program that was moved away is not to be followed.
func self() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return os.Executable()
	}
	return filepath.Abs(path)
}

func reason(out []byte) string {
	out = bytes.TrimSpace(out)
	if len(out) > maxReason {
		out = out[:maxReason]
	}
	return string(out)
}
