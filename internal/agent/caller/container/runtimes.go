package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// Limits of what is asked of runtimes.
const (
	// Fresh is how long an answer counts: a container can be renamed.
	Fresh = time.Second
	// patience is how long a runtime may take, and rest how long one that took
	// longer, or is not there, is left alone.
	patience = 2 * time.Second
	rest     = 5 * time.Second
	// maxFacts bounds how many answers are kept; maxAsking how many questions a
	// runtime is asked at a time.
	maxFacts  = 4096
	maxAsking = 8
)

// ErrUnavailable: the runtime cannot be asked now.
var ErrUnavailable = errors.New("the container's runtime does not answer")

// Runtime is one container runtime of this host.
type Runtime struct {
	// Kind is [Docker], [Podman] or [Containerd].
	Kind string
	// Socket is the path of its API's unix socket.
	Socket string
}

// Known are the runtimes where distributions put them. One that is not there
// costs nothing: it is asked only about containers with its kind's cgroups.
var Known = []Runtime{
	{Docker, "/run/docker.sock"},
	{Podman, "/run/podman/podman.sock"},
	{Containerd, "/run/containerd/containerd.sock"},
}

// Facts are a runtime's word about a container.
type Facts struct {
	// Name is the container's, without a slash; "" if it has none.
	Name string
	// Image is the image's name as the container was made with it, ImageID its digest,
	// "sha256:<hex>": Docker and Podman name the image's configuration by it,
	// containerd its manifest.
	Image, ImageID string
	// Labels are the container's and, as runtimes do it, its image's: who writes
	// an image writes labels.
	Labels map[string]string

	pid int // of the container's first process; 0 if it does not run
}

// Runtimes ask container runtimes. Make them with [New].
type Runtimes struct {
	runtimes []*runtime
	flights  singleflight.Group
	now      func() time.Time

	mu    sync.Mutex // guards facts
	facts map[Container]known
}

type known struct {
	facts Facts
	at    time.Time
}

// runtime is one with what is known of its health.
type runtime struct {
	Runtime
	inspect func(ctx context.Context, c Container) (Facts, error)
	asking  chan struct{} // holds one for each question under way

	mu    sync.Mutex // guards until
	until time.Time  // left alone until then
}

// New returns what asks these runtimes. It opens nothing yet.
func New(runtimes []Runtime) (*Runtimes, error) {
	out := &Runtimes{now: time.Now, facts: map[Container]known{}}
	for _, r := range runtimes {
		rt := &runtime{Runtime: r, asking: make(chan struct{}, maxAsking)}
		switch r.Kind {
		case Docker, Podman:
			rt.inspect = newEngine(r.Socket).inspect
		case Containerd:
			c, err := newContainerd(r.Socket)
			if err != nil {
				return nil, fmt.Errorf("container runtime at %s: %w", r.Socket, err)
			}
			rt.inspect = c.inspect
		default:
			return nil, fmt.Errorf("container runtime %q at %s: one of %s, %s, %s was expected", r.Kind, r.Socket, Docker, Podman, Containerd)
		}
		out.runtimes = append(out.runtimes, rt)
	}
	return out, nil
}

// Facts returns what c's runtime says of c. cgroup tells which cgroup a process
// is in: the word counts only if the process that the runtime says is c's is
// in c's cgroup. Without a runtime for c there are no facts and no error.
func (r *Runtimes) Facts(c Container, cgroup func(pid int) (string, error)) (Facts, error) {
	r.mu.Lock()
	k, ok := r.facts[c]
	r.mu.Unlock()
	if ok && r.now().Sub(k.at) < Fresh {
		return k.facts, nil
	}
	v, err, _ := r.flights.Do(c.Kind+" "+c.Namespace+" "+c.ID+" "+c.Cgroup, func() (any, error) { return r.ask(c, cgroup) })
	if err != nil {
		return Facts{}, err
	}
	return v.(Facts), nil
}

// ask asks each runtime of c's kind until one has c.
func (r *Runtimes) ask(c Container, cgroup func(pid int) (string, error)) (Facts, error) {
	asked := r.now()
	var errs []error
	for _, rt := range r.runtimes {
		if rt.Kind != c.Kind {
			continue
		}
		f, err := rt.ask(c)
		if err == nil {
			err = verify(c, f, cgroup)
		}
		if err == nil {
			r.keep(c, known{f, asked})
			return f, nil
		}
		errs = append(errs, fmt.Errorf("asking %s at %s about container %s: %w", rt.Kind, rt.Socket, c.ID, err))
	}
	return Facts{}, errors.Join(errs...)
}

// verify compares the runtime's process with the cgroup that the caller is in.
func verify(c Container, f Facts, cgroup func(pid int) (string, error)) error {
	if f.pid <= 0 {
		return errors.New("it says that the container does not run")
	}
	path, err := cgroup(f.pid)
	if err != nil {
		return fmt.Errorf("looking at the container's own process: %w", err)
	}
	if own, ok := Of(path); !ok || own != c {
		return fmt.Errorf("the container's own process is in another cgroup, %s", path)
	}
	return nil
}

// keep makes room by dropping what is old, or else everything.
func (r *Runtimes) keep(c Container, k known) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.facts) >= maxFacts {
		for c, old := range r.facts {
			if k.at.Sub(old.at) >= Fresh {
				delete(r.facts, c)
			}
		}
		if len(r.facts) >= maxFacts {
			clear(r.facts)
		}
	}
	r.facts[c] = k
}

// ask asks one runtime, unless it failed a moment ago.
func (rt *runtime) ask(c Container) (Facts, error) {
	rt.mu.Lock()
	resting := time.Now().Before(rt.until)
	rt.mu.Unlock()
	if resting {
		return Facts{}, ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case rt.asking <- struct{}{}:
		defer func() { <-rt.asking }()
	case <-ctx.Done():
		return Facts{}, ErrUnavailable
	}
	f, err := rt.inspect(ctx, c)
	if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		rt.mu.Lock()
		rt.until = time.Now().Add(rest)
		rt.mu.Unlock()
	}
	return f, err
}

// dial connects to a runtime's socket. Who answers there names containers, so
// it must be root or the agent's own user.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := checkPeer(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	return conn, nil
}

func checkPeer(conn net.Conn) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) { cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if optErr != nil {
		return fmt.Errorf("asking the kernel who listens: %w", optErr)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d listens there; a runtime that root or the agent's user runs was expected", cred.Uid)
	}
	return nil
}
