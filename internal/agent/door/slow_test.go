package door_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/evidence"
)

// pipes is a listener without a network, whose clock can be the test's.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accepted <- server
	return client
}

// TestNobodyIsWaitedForLong: who sends or reads slowly is cut off, by the
// clock of the bubble.
func TestNobodyIsWaitedForLong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		within time.Duration
		client func(c net.Conn)
	}{
		"silence": {6 * time.Second, func(net.Conn) {}},
		"a head, byte by byte": {7 * time.Second, func(c net.Conn) {
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + strings.Repeat("x", 100)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		"a body that does not come": {6 * time.Second, func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nabc")
		}},
		"a body, byte by byte": {8 * time.Second, func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n")
			for range 100 {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		"an answer that is not read": {door.AnswerTimeout + time.Second, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		}},
		"a connection that is kept": {time.Minute + 2*time.Second, func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
				gone := make(chan struct{}) // closed when the door has given up the connection
				cfg := door.Config{
					Name: "main", AnswerTimeout: door.AnswerTimeout, Log: slog.New(slog.DiscardHandler),
					Identify: func(net.Conn) (evidence.Evidence, error) { return evidence.Evidence{Door: "main"}, nil },
					Admit:    func(*door.Peer) (func(), bool) { return func() { close(gone) }, true },
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/large" {
							_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
							return
						}
						_, _ = io.Copy(io.Discard, r.Body)
					}),
				}
				d := door.New(cfg, l)
				d.Serve()
				began := time.Now()
				c := l.dial()
				var clients sync.WaitGroup
				clients.Go(func() { tt.client(c) })
				if name != "an answer that is not read" {
					clients.Go(func() { _, _ = io.Copy(io.Discard, c) })
				}
				<-gone
				if after := time.Since(began); after > tt.within {
					t.Errorf("cut off after %v, want %v at most", after, tt.within)
				}
				c.Close()
				if err := d.Close(t.Context()); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				clients.Wait()
			})
		})
	}
}
