package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/dev"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

func runCommand(f *flags) *cobra.Command {
	var socket string
	var public bool
	c := &cobra.Command{
		Use:   "run [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a program as a workload of a resource",
		Long: `Run a program as a workload of a resource: NAME is a sample's short name or a resource ID.

The program gets the variables by which SDKs find managed identities, trust in the local CA (Go, Node, Python,
curl) and, with innate dev, names that resolve without touching the hosts file. Its secret for the local
endpoint is its own and ends with it. Where the agent captures 169.254.169.254 (innate dev --capture), that answers
the program and all that it starts, without a variable or a secret. Exit code, signals and standard streams are
the program's.

With --public-names, which innate dev must have been started with too, the public cloud's own names lead to
innate dev (management.azure.com, login.microsoftonline.com, graph.microsoft.com, *.vault.azure.net), so that a
program that has them written in it needs no change; no other name of the public cloud leads anywhere. It works
by the proxy and the CA in the program's environment: one that heeds neither is not redirected.`,
		Example:               "  innate run vm1 -- curl -s https://demo.vault.innate.localhost:8443/\n  innate run ops -- terraform plan",
		DisableFlagsInUseLine: true, // what follows NAME is the command's
		Args: func(_ *cobra.Command, args []string) error {
			if len(command(args)) == 0 {
				return errors.New("a name and a command were expected: innate run NAME -- COMMAND [ARG...]")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if public && socket != "" {
				return errors.New("--public-names is for innate dev: beside --agent-socket it means nothing")
			}
			w, err := startWorkload(c.Context(), f, socket, args[0], false)
			if err != nil {
				return err
			}
			defer w.release()
			if public {
				if w.env, err = publicEnv(f, w.env); err != nil {
					return err
				}
			}
			return runChild(command(args), w.env)
		},
		ValidArgsFunction: completeNames(f),
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVar(&public, "public-names", false, publicNamesUsage)
	c.Flags().StringVar(&socket, "agent-socket", "", "control socket of innate-agent: run on a host that it serves, instead of innate dev")
	return c
}

const publicNamesUsage = "have the public cloud's own names lead to innate dev, which must have been started with --public-names"

// publicEnv leads a program here by the public cloud's names.
func publicEnv(f *flags, env map[string]string) (map[string]string, error) {
	in, dir, err := f.instance()
	if err != nil {
		return nil, err
	}
	return in.Public(dir, env, dev.UserNoProxy())
}

// command is what follows NAME, with or without "--" between.
func command(args []string) []string {
	switch {
	case len(args) < 2:
		return nil
	case args[1] == "--":
		return args[2:]
	}
	return args[1:]
}

// completeNames completes the sample's short names.
func completeNames(f *flags) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		in, _, err := f.instance()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return slices.Sorted(maps.Keys(in.Resources)), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes them for a flag, whatever arguments there are.
func completeFlag(f *flags) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, s string) ([]string, cobra.ShellCompDirective) {
		return completeNames(f)(c, nil, s)
	}
}

// workload is a start: what the agent gave for it and the variables of its
// programs. Where the agent captures 169.254.169.254, this process is of the
// start from here on, and there is no variable that gives an identity.
type workload struct {
	start   dev.Start
	env     map[string]string
	release func() // ends the start
}

// workloadVariable names the resource that a program runs as. It gives
// nothing; by it our own commands know that they are within.
const workloadVariable = "INNATE_WORKLOAD"

// startWorkload asks an agent for a start. stay says that it is for this process
// alone, which is left where it is: what it runs later is no part of the start.
func startWorkload(ctx context.Context, f *flags, socket, name string, stay bool) (*workload, error) {
	if socket != "" {
		s, release, err := requestStart(ctx, socket, name, stay)
		if err != nil {
			return nil, err
		}
		env := s.Identity()
		env[workloadVariable] = name
		return &workload{s, env, release}, nil
	}
	in, dir, err := f.instance()
	if err != nil {
		return nil, err
	}
	id, err := in.Resolve(name)
	if err != nil {
		return nil, err
	}
	s, release, err := requestStart(ctx, in.ControlSocket, id, stay)
	if r, ok := errors.AsType[*refusal](err); ok && r.said.Kind == string(problem.CallerRefused) {
		// It is not placed on this machine (yet, or it was made again): its
		// owner is who runs this, and so it is placed, on record.
		if err := placeHere(ctx, in, id); err != nil {
			return nil, err
		}
		s, release, err = requestStart(ctx, in.ControlSocket, id, stay)
	}
	if err != nil {
		return nil, err
	}
	env := in.Env(dir, s, dev.UserNoProxy())
	env[workloadVariable] = id
	return &workload{s, env, release}, nil
}

// refusal is the agent's no.
type refusal struct{ said fleetapi.Error }

func (r *refusal) Error() string { return "the agent refused: " + r.said.Detail }

// requestStart asks the agent at socket for the secret of one start. The start
// lives until release is called or this process ends.
func requestStart(ctx context.Context, socket, id string, stay bool) (dev.Start, func(), error) {
	var s dev.Start
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}}
	body, err := json.Marshal(agent.StartRequest{Resource: id, Stay: stay})
	if err != nil {
		return s, nil, fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, "http://agent/starts", bytes.NewReader(body))
	if err != nil {
		return s, nil, fmt.Errorf("asking the agent: %w", err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return s, nil, fmt.Errorf("asking the agent at %s: %w", socket, err)
	}
	release := func() { _ = resp.Body.Close(); tr.CloseIdleConnections() }
	if resp.StatusCode != http.StatusOK {
		defer release()
		var e fleetapi.Error
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		if err != nil || json.Unmarshal(b, &e) != nil || e.Detail == "" {
			return s, nil, fmt.Errorf("the agent answered %s", resp.Status)
		}
		return s, nil, &refusal{e}
	}
	var a struct {
		Endpoint, Header, IMDS string
		Captured               bool
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		release()
		return s, nil, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return dev.Start(a), release, nil
}

// childEnv is this process's environment without what would lead the child
// away from its identity, and with env.
func childEnv(env map[string]string) []string {
	var out []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		if _, ours := env[k]; !ours && !slices.Contains(dev.Foreign, k) && k != "PATH" {
			out = append(out, kv)
		}
	}
	out = append(out, "PATH="+childPath(os.Getenv("PATH")))
	for k, v := range env {
		if v != "" { // an empty one takes the user's own away
			out = append(out, k+"="+v)
		}
	}
	return out
}

// childPath adds this program's folder to PATH, so that "innate" is found
// within, however this one was. An empty PATH gets no empty element: that would
// be the current folder.
func childPath(path string) string {
	exe, err := os.Executable()
	if err != nil {
		return path
	}
	if path == "" {
		return filepath.Dir(exe)
	}
	return path + string(os.PathListSeparator) + filepath.Dir(exe)
}

// runChild runs a command to its end as a workload, and returns its exit code
// as an error.
func runChild(args []string, env map[string]string) error {
	return child{args: args, env: childEnv(env), stdout: os.Stdout, stderr: os.Stderr}.run()
}

// child is a command that takes this program's place: signals are handed on to
// it, and its exit code is ours.
type child struct {
	args []string
	// env is all of its environment.
	env            []string
	stdout, stderr *os.File
	// prepare runs before it starts, on the thread that starts it: of what it
	// changes there (mounts), the command is the heir. Nil does nothing.
	prepare func() error
	// started runs when it has, or could not be. Nil does nothing.
	started func()
	// bound kills the command when this program is killed.
	bound bool
}

func (c child) run() error {
	path, err := lookPath(c.args[0], c.env)
	if err != nil {
		fmt.Fprintln(os.Stderr, "innate:", err)
		return exitCode(127) // as shells say it
	}
	cmd := &exec.Cmd{Path: path, Args: c.args, Env: c.env, Stdin: os.Stdin, Stdout: c.stdout, Stderr: c.stderr}
	if c.bound {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(sigs)
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// The thread is the command's parent to the kernel, and has what prepare
		// did to it: it is not given back, and ends with the command.
		runtime.LockOSThread()
		err := c.start(cmd)
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	for {
		select {
		case s := <-sigs:
			// A terminal sends these to the child as well: once is enough.
			if (s == os.Interrupt || s == syscall.SIGQUIT) && term.IsTerminal(int(os.Stdin.Fd())) {
				continue
			}
			_ = cmd.Process.Signal(s) // it may have ended just now
		case err := <-done:
			return childError(err)
		}
	}
}

func (c child) start(cmd *exec.Cmd) error {
	if c.started != nil {
		defer c.started()
	}
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "innate:", err)
		return exitCode(126)
	}
	return nil
}

// lookPath finds a command as the child's own PATH has it.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range env {
		p, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(p) {
			// The current folder is what nobody means; and "." would make a
			// bare name, which is looked for in our own PATH.
			if filepath.Clean(dir) == "." {
				continue
			}
			if full, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return full, nil
			}
		}
	}
	return "", fmt.Errorf("%s: command not found", name)
}

func childError(err error) error {
	ee, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitCode(128 + int(ws.Signal()))
	}
	return exitCode(ee.ExitCode())
}
