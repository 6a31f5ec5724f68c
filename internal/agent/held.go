package agent

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// held is a start that lives as long as the connection of whoever asked for
// it. Nothing is expected on the connection but its end.
type held struct {
	start   *start
	conn    net.Conn
	release func()
	done    chan struct{} // closed when nobody reads the connection any more
	// stays says that reading stopped for a handover, not because the
	// connection ended; set before done is closed.
	stays bool
}

// hold keeps the start with this secret until its connection ends.
func (s *starts) hold(conn net.Conn, secret string, release func()) {
	st, ok := s.find(secret)
	if !ok {
		conn.Close()
		return
	}
	s.watch(&held{start: st, conn: conn, release: release, done: make(chan struct{})})
}

func (s *starts) watch(h *held) {
	s.mu.Lock()
	s.held[h] = true
	s.mu.Unlock()
	go func() {
		defer close(h.done)
		_, err := io.Copy(io.Discard, h.conn)
		if h.stays = errors.Is(err, os.ErrDeadlineExceeded); h.stays {
			return
		}
		h.release()
		h.conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, h)
	}()
}

// all are the held starts of this moment.
func (s *starts) all() []*held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*held
	for h := range s.held {
		out = append(out, h)
	}
	return out
}

// end ends every held start.
func (s *starts) end() {
	for _, h := range s.all() {
		h.conn.Close()
		<-h.done
	}
}

// leave stops reading the connections and returns those that have not ended.
func (s *starts) leave() (out []*held) {
	for _, h := range s.all() {
		// One that takes no deadline has ended.
		_ = h.conn.SetReadDeadline(time.Unix(1, 0))
		if <-h.done; h.stays {
			out = append(out, h)
		}
	}
	return out
}

// endStarts ends the starts that programs hold; the doors are closed.
func (a *Agent) endStarts() {
	a.holding.Wait()
	if a.starts != nil {
		a.starts.end()
	}
}
