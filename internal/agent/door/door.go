// Package door is where the agent listens: at a loopback address ([Listen]), a
// unix socket ([ListenUnix]), a virtual machine's interface ([ListenInterface])
// or in a container's network namespace ([ListenNamespace]). A [Door] is a
// name, a listener and what is served there; every request that comes through
// it carries the evidence about its connection ([Caller]).
//
// What a newcomer would get wrong: evidence belongs to the connection, not to
// the request. It is taken once, when the connection is accepted, and all
// requests of a kept-alive connection share it. And a door is never open to
// the network, for tokens would leave in the clear: a loopback door refuses
// any other address, and the doors at 169.254.169.254 are bound to one
// interface, so that the address alone leads nobody there. Taking evidence can
// be slow (an executable is read whole once), so it runs beside the reading of
// the first request, and never in the way of other connections.
//
// Interfaces and namespaces come and go while the agent runs. Such a door
// opens when its place is there and is shut when it is gone, connections and
// all: what has the same name later is another place.
package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/innate-id/innate/internal/evidence"
)

// Limits of every door.
const (
	// MaxHeader is the longest request head, in bytes.
	MaxHeader = 16 << 10
	// MaxBody is the longest request body, in bytes.
	MaxBody = 16 << 10

	headerTimeout = 5 * time.Second
	bodyTimeout   = 5 * time.Second
	idleTimeout   = time.Minute
	// AnswerTimeout is above the longest wait for the control plane.
	AnswerTimeout = 30 * time.Second
)

// Config is what a door is, but for its listener.
type Config struct {
	// Name is what placements call it.
	Name string
	// Kind is the sort of door, for people.
	Kind    string
	Handler http.Handler
	// Identify takes the evidence about a connection's peer.
	Identify func(net.Conn) (evidence.Evidence, error)
	// Admit is asked once for each connection, when the evidence was taken or
	// could not be; left is called when the connection has ended. One that is
	// not admitted is closed. May be nil.
	Admit func(*Peer) (left func(), ok bool)
	// AnswerTimeout bounds an answer; 0 lets it take as long as it likes.
	AnswerTimeout time.Duration
	// Open finds the listener of that name that the process before this one
	// left, or else opens one; nil only opens. Every door is opened through it.
	Open func(name string, open func() (net.Listener, error)) (net.Listener, error)
	Log  *slog.Logger
}

// open opens a listener. where says all that it is opened for: one that was
// left by the process before is taken only if that is the same.
func (c *Config) open(where string, open func() (net.Listener, error)) (net.Listener, error) {
	if c.Open == nil {
		return open()
	}
	return c.Open("door "+c.Name+" "+where, open)
}

// Door listens and, once [Door.Serve] is called, answers.
type Door struct {
	cfg  Config
	addr string
	// unwatch ends the watch over a place that comes and goes and waits for
	// its end; nil where the place stays.
	unwatch func()
	leaving leaving

	mu      sync.Mutex // guards what follows
	open    *opening   // nil while the door is shut
	why     error      // why it is shut
	serving bool
	closed  bool
}

// opening is one listener of a door, with all that came in through it.
type opening struct {
	listener net.Listener
	identify func(net.Conn) (evidence.Evidence, error)
	server   *http.Server
	done     chan struct{} // closed when serving has ended; nil before that began
	after    func()        // undoes what was done to open; may be nil
}

// Listen opens a door on a loopback TCP address, "127.0.0.1:0" or "[::1]:50342".
// Connections queue until [Door.Serve].
func Listen(ctx context.Context, cfg Config, addr string) (*Door, error) {
	if err := CheckLoopback(addr); err != nil {
		return nil, fmt.Errorf("door %s: %w", cfg.Name, err)
	}
	l, err := cfg.open("tcp "+addr, func() (net.Listener, error) { return listenConfig().Listen(ctx, "tcp", addr) })
	if err != nil {
		return nil, fmt.Errorf("door %s: listening: %w", cfg.Name, err)
	}
	return New(cfg, l), nil
}

// ListenUnix opens a door on a unix socket with the given mode.
func ListenUnix(ctx context.Context, cfg Config, path string, mode os.FileMode) (*Door, error) {
	name := cfg.Name
	// sockaddr_un has 108 bytes; the kernel's own word for more is "invalid argument".
	if len(path) > 107 {
		return nil, fmt.Errorf("door %s: socket path is %d bytes long; at most 107 are allowed", name, len(path))
	}
	l, err := cfg.open("unix "+path, func() (net.Listener, error) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		return new(net.ListenConfig).Listen(ctx, "unix", path)
	})
	if err != nil {
		return nil, fmt.Errorf("door %s: listening: %w", name, err)
	}
	// Between the two calls the umask holds. Nothing depends on it: who may do
	// what is decided by the peer's credentials.
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("door %s: setting the socket's mode: %w", name, err)
	}
	return New(cfg, l), nil
}

// listenConfig is for TCP. Not multipath TCP, which Go would take: a second
// path of a connection could come from anywhere, and evidence is about one.
func listenConfig() *net.ListenConfig {
	lc := new(net.ListenConfig)
	lc.SetMultipathTCP(false)
	return lc
}

// removeStale takes away the socket of an agent that died; one that answers
// belongs to an agent that lives.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s exists and is no socket: remove it or choose another path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("another agent listens on %s: stop it first", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing a dead agent's socket: %w", err)
	}
	return nil
}

// New makes a door of a listener that is open already and becomes the door's.
func New(cfg Config, l net.Listener) *Door {
	d := &Door{cfg: cfg, addr: l.Addr().String()}
	d.set(&opening{listener: l, identify: cfg.Identify})
	return d
}

func (d *Door) server(identify func(net.Conn) (evidence.Evidence, error)) *http.Server {
	open := new(connections)
	return &http.Server{
		Handler:           d.leaving.told(limited(d.cfg.Handler)),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      d.cfg.AnswerTimeout,
		IdleTimeout:       idleTimeout,
		// net/http adds 4096 bytes of slack of its own.
		MaxHeaderBytes: MaxHeader - 4096,
		// No ReadTimeout: its deadline would also end the watch for a client
		// that goes away, and with it a request that waits for the control plane.
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is refused like the rest
		ErrorLog:                     slog.NewLogLogger(d.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			id := &identified{Context: ctx, conn: bare(c), done: make(chan struct{})}
			open.add(c, id)
			go func() {
				id.take(c, identify, d.cfg.Admit)
				id.taken.Store(true)
				close(id.done)
			}()
			return id
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			d.leaving.count(c, s)
			open.state(c, s)
		},
	}
}

// limited bounds a body in length and in time, also one that nobody reads:
// net/http drains what is left of it before the next request.
func limited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// A connection that takes no deadline is gone already.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
			r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		}
		h.ServeHTTP(w, r)
	})
}

// CheckLoopback refuses an address that is not a loopback IP and a port.
func CheckLoopback(addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("address %q is no IP address with a port: write 127.0.0.1:PORT or [::1]:PORT", addr)
	}
	if !ap.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("address %q is not a loopback address: tokens would be open to the network; write 127.0.0.1:PORT or [::1]:PORT", addr)
	}
	return nil
}

// Name returns the door's name.
func (d *Door) Name() string { return d.cfg.Name }

// Kind returns what sort of door it is.
func (d *Door) Kind() string { return d.cfg.Kind }

// Addr returns where the door listens, or would.
func (d *Door) Addr() string { return d.addr }

// Shut says why the door is shut; nil while it is open.
func (d *Door) Shut() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

// Serve begins to answer and returns at once.
func (d *Door) Serve() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serving = true
	if d.open != nil {
		d.open.serve()
	}
}

// set makes o what the door is open at; a door that was closed meanwhile
// stays so.
func (d *Door) set(o *opening) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		o.cut()
		return
	}
	o.server = d.server(o.identify)
	d.open, d.why = o, nil
	if d.serving {
		o.serve()
	}
}

// shut cuts off all that came in: the place it came from is gone.
func (d *Door) shut(why error) {
	d.mu.Lock()
	o := d.open
	d.open, d.why = nil, why
	d.mu.Unlock()
	if o != nil {
		o.cut()
	}
}

func (o *opening) serve() {
	o.done = make(chan struct{})
	go func() {
		defer close(o.done)
		_ = o.server.Serve(patience{o.listener}) // always http.ErrServerClosed or the listener's end
	}()
}

// cut ends an opening at once.
func (o *opening) cut() {
	if o.done != nil {
		_ = o.server.Close() // closes the listener and every connection; nothing is left to be done about an error
		<-o.done
	}
	_ = o.listener.Close() // closed already, where it was served
	if o.after != nil {
		o.after()
	}
}

// Close stops listening, lets the requests under way end until ctx does, and
// then cuts them off.
func (d *Door) Close(ctx context.Context) error {
	o := d.take("the agent has closed it")
	if o == nil {
		return nil
	}
	var err error
	if o.done != nil {
		err = o.server.Shutdown(ctx)
		if err != nil {
			err = o.server.Close()
		}
	}
	o.cut()
	return err
}

// take ends the watch over a door's place and returns what it is open at, nil
// if it is shut.
func (d *Door) take(why string) *opening {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	if d.unwatch != nil {
		d.unwatch()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.open
	d.open, d.why = nil, errors.New(why)
	return o
}
