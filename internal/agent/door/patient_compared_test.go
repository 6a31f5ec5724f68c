package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/evidence"
)

// putOff is one deadline that is set some time after the one before.
type putOff struct {
	after, at time.Duration // at is from then on; 0 takes it back, -1 is long ago
	direction int           // 0 read, 1 write, 2 both
}

func (p putOff) on(c net.Conn) error {
	var at time.Time
	switch {
	case p.at == -1:
		at = time.Unix(1, 0)
	case p.at != 0:
		at = time.Now().Add(p.at)
	}
	return []func(time.Time) error{c.SetReadDeadline, c.SetWriteDeadline, c.SetDeadline}[p.direction](at)
}

// seen says when reads (0) and writes (1) were ended; each is tried again.
func seen(t *testing.T, c net.Conn, what []putOff) []string {
	t.Helper()
	defer c.Close()
	began := time.Now()
	var out [2][]string
	var moving sync.WaitGroup
	for i, move := range []func([]byte) (int, error){c.Read, c.Write} {
		moving.Go(func() {
			for {
				_, err := move(make([]byte, 1))
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				out[i] = append(out[i], fmt.Sprint(i, " ", time.Since(began)))
				time.Sleep(777 * time.Millisecond)
			}
		})
	}
	for _, p := range what {
		time.Sleep(p.after)
		if err := p.on(c); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Second)
	c.Close()
	moving.Wait()
	return append(out[0], out[1]...)
}

// TestPatientIsAsItsConnection: whatever deadlines are set one after the other,
// reads and writes end when those of the connection itself would.
func TestPatientIsAsItsConnection(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		var what []putOff
		for range 1 + r.IntN(8) {
			p := putOff{after: time.Duration(r.IntN(5000)) * time.Millisecond, direction: r.IntN(3)}
			switch r.IntN(6) {
			case 0:
			case 1:
				p.at = -1
			case 2:
				p.at = -time.Duration(1+r.IntN(5000)) * time.Millisecond
			default:
				p.at = time.Duration(1+r.IntN(9000)) * time.Millisecond
			}
			what = append(what, p)
		}
		var got [2][]string
		for i := range got {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				if i == 0 {
					got[0] = seen(t, server, what)
				} else {
					got[1] = seen(t, newPatient(server), what)
				}
			})
		}
		if fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
			t.Fatalf("seed %d: %+v\nends %v\nwant %v", seed, what, got[1], got[0])
		}
	}
}

// TestConnectionsLeaveNothing: neither a goroutine nor a timer stays of a
// connection that ended, whether it asked for anything or not.
func TestConnectionsLeaveNothing(t *testing.T) {
	addr := tcpDoor(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	left := func(connections int) (goroutines int, objects uint64) {
		for i := range connections {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if i%3 != 0 {
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				if _, err := c.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
		for range 100 { // the door hears of the last ones a little later
			if goroutines = runtime.NumGoroutine(); goroutines <= 6 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return goroutines, m.HeapObjects
	}
	wasRunning, was := left(200)
	running, is := left(2000)
	if running > wasRunning+5 || is > was+2000 {
		t.Errorf("2000 connections left %d goroutines more than %d, and %d objects more than %d", running-wasRunning, wasRunning, is-was, was)
	}
}

func tcpDoor(t *testing.T, h http.Handler) (addr string) {
	t.Helper()
	d, err := Listen(t.Context(), Config{Name: "main", Handler: h, AnswerTimeout: AnswerTimeout, Log: slog.New(slog.DiscardHandler),
		Identify: func(net.Conn) (evidence.Evidence, error) { return evidence.Evidence{Door: "main"}, nil },
	}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d.Addr()
}

// TestRefusalIsReadWhole: who sends too long a head reads the refusal and then
// its end, at once, though the door has not read all that was sent.
func TestRefusalIsReadWhole(t *testing.T) {
	addr := tcpDoor(t, http.NotFoundHandler())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s", strings.Repeat("x", MaxHeader+1))
	if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
		t.Fatalf("read %q, %v", b, err)
	}
	if after := time.Since(began); after > 400*time.Millisecond {
		t.Errorf("the end came after %v", after)
	}
}
