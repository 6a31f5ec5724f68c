// Package door is where the agent listens. A [Door] is a name, a listener and
// what is served there; every request that comes through it carries the
// evidence about its connection ([Caller]).
//
// What a newcomer would get wrong: evidence belongs to the connection, not to
// the request. It is taken once, when the connection is accepted, and all
// requests of a kept-alive connection share it. And a door is never open to
// the network: an address that is not loopback is refused, whatever the
// configuration says, for tokens would leave in the clear. Taking evidence can
// be slow (an executable is read whole once), so it runs beside the reading of
// the first request, and never in the way of other connections.
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
	Name    string
	Handler http.Handler
	// Identify takes the evidence about a connection's peer.
	Identify func(net.Conn) (evidence.Evidence, error)
	// Admit is asked once for each connection, with the evidence in words (""
	// where it could not be taken); left is called when the connection has
	// ended. One that is not admitted is closed. May be nil.
	Admit func(ev evidence.Evidence, text string) (left func(), ok bool)
	// AnswerTimeout bounds an answer; 0 lets it take as long as it likes.
	AnswerTimeout time.Duration
	Log           *slog.Logger
}

// Door listens and, once [Door.Serve] is called, answers.
type Door struct {
	name     string
	listener net.Listener
	server   *http.Server
	done     chan struct{} // closed when serving has ended; nil before Serve
}

// Listen opens a door on a loopback TCP address, "127.0.0.1:0" or "[::1]:50342".
// Connections queue until [Door.Serve].
func Listen(ctx context.Context, cfg Config, addr string) (*Door, error) {
	if err := CheckLoopback(addr); err != nil {
		return nil, fmt.Errorf("door %s: %w", cfg.Name, err)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // the kernel's record of a caller is on one TCP socket
	l, err := lc.Listen(ctx, "tcp", addr)
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
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("door %s: %w", name, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
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
	open := new(connections)
	return &Door{name: cfg.Name, listener: l, server: &http.Server{
		Handler:           limited(cfg.Handler),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      cfg.AnswerTimeout,
		IdleTimeout:       idleTimeout,
		// net/http adds 4096 bytes of slack of its own.
		MaxHeaderBytes: MaxHeader - 4096,
		// No ReadTimeout: its deadline would also end the watch for a client
		// that goes away, and with it a request that waits for the control plane.
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is refused like the rest
		ErrorLog:                     slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			id := &identified{done: make(chan struct{})}
			open.add(c, id)
			go func() {
				defer close(id.done)
				id.take(c, cfg)
			}()
			return context.WithValue(ctx, callerKey{}, id)
		},
		ConnState: open.state,
	}}
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
func (d *Door) Name() string { return d.name }

// Addr returns where the door listens.
func (d *Door) Addr() string { return d.listener.Addr().String() }

// Serve begins to answer and returns at once.
func (d *Door) Serve() {
	d.done = make(chan struct{})
	go func() {
		defer close(d.done)
		_ = d.server.Serve(d.listener) // always http.ErrServerClosed or the listener's end
	}()
}

// Close stops listening, lets the requests under way end until ctx does, and
// then cuts them off.
func (d *Door) Close(ctx context.Context) error {
	if d.done == nil {
		return d.listener.Close()
	}
	err := d.server.Shutdown(ctx)
	if err != nil {
		err = d.server.Close()
	}
	<-d.done
	return err
}
