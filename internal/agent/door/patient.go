package door

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// patient is a connection whose deadlines cost little to set. net/http sets five
// for each request and all but ever takes them back unused, and each that
// reaches the kernel's poller moves a timer: a twentieth of what an answer from
// memory costs. Here a deadline is a note, and one timer for both directions
// looks at the notes when the first that was written could be due. A deadline
// holds as exactly as the connection's own.
type patient struct {
	net.Conn

	mu    sync.Mutex // guards what follows
	read  deadline
	write deadline
	timer *time.Timer // nil until there was a deadline
	due   time.Time   // when the timer goes off; zero: it is not set
	over  bool        // closed
}

// deadline is that of one direction.
type deadline struct {
	at     time.Time // zero: none
	passed bool      // the connection itself has one that has passed
	set    func(time.Time) error
}

func newPatient(c net.Conn) *patient {
	return &patient{Conn: c, read: deadline{set: c.SetReadDeadline}, write: deadline{set: c.SetWriteDeadline}}
}

// atOnce tells what net/http means by a deadline long ago, which is to hold
// before the call returns, from one that will be due.
var atOnce = time.Unix(1_000_000_000, 0)

func (c *patient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.note(&c.read, t)
}

func (c *patient) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.note(&c.write, t)
}

func (c *patient) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.note(&c.read, t); err != nil {
		return err
	}
	return c.note(&c.write, t)
}

func (c *patient) note(d *deadline, t time.Time) error {
	if !t.IsZero() && t.Before(atOnce) {
		d.at, d.passed = time.Time{}, true
		return d.set(t)
	}
	d.at = t
	if !t.IsZero() && (c.due.IsZero() || t.Before(c.due)) {
		c.wake(t)
	}
	if d.passed {
		d.passed = false
		return d.set(time.Time{})
	}
	return nil
}

// wake has the timer go off at t.
func (c *patient) wake(t time.Time) {
	if c.over {
		return
	}
	c.due = t
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(t), c.look)
		return
	}
	c.timer.Reset(time.Until(t))
}

// look ends what is due, and waits for what is not.
func (c *patient) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = time.Time{}
	now := time.Now()
	for _, d := range []*deadline{&c.read, &c.write} {
		switch {
		case d.at.IsZero():
		case d.at.After(now):
			if c.due.IsZero() || d.at.Before(c.due) {
				c.wake(d.at)
			}
		default:
			_ = d.set(d.at) // one that takes none has ended
			d.at, d.passed = time.Time{}, true
		}
	}
}

func (c *patient) Close() error {
	c.mu.Lock()
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite is the connection's own. net/http asks for it when it refuses what
// was not read to its end: the client reads the refusal whole, and then its end,
// where a close alone would have the kernel throw away both.
func (c *patient) CloseWrite() error {
	if own, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return own.CloseWrite()
	}
	return nil // its end is told by Close
}

// SyscallConn is the connection's own, for who takes it over from net/http.
func (c *patient) SyscallConn() (syscall.RawConn, error) {
	own, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of type %T has no descriptor", c.Conn)
	}
	return own.SyscallConn()
}

// patience is a listener whose connections are patient.
type patience struct{ net.Listener }

func (l patience) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newPatient(c), nil
}

// bare is the connection as the kernel knows it.
func bare(c net.Conn) net.Conn {
	if p, ok := c.(*patient); ok {
		return p.Conn
	}
	return c
}
