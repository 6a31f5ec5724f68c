package door_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/innate-id/innate/internal/agent/door"
)

func serve(t *testing.T, h http.HandlerFunc) *door.Door {
	t.Helper()
	d, err := door.Listen(t.Context(), cfg("main", h), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func dial(t *testing.T, d *door.Door) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func request(t *testing.T, c net.Conn, r *bufio.Reader) (*http.Response, error) {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return nil, err
	}
	return http.ReadResponse(r, nil)
}

// What was accepted is answered, also a request that comes after the door began
// to leave; idle connections end, and clients hear that they should come back.
func TestLeavingAnswersWhatWasAccepted(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	d := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if r.URL.Path == "/slow" {
			<-leave
		}
	})
	idle, slow := dial(t, d), dial(t, d)
	idleReader := bufio.NewReader(idle)
	if resp, err := request(t, idle, idleReader); err != nil || resp.Close {
		t.Fatalf("an answer before leaving = %v, %v; want one that keeps the connection", resp, err)
	}
	if _, err := io.WriteString(slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	<-entered
	d.Dismiss()
	if resp, err := request(t, idle, idleReader); err != nil || !resp.Close {
		t.Errorf("an answer after Dismiss = %v, %v; want one that closes the connection", resp, err)
	}
	fresh, freshIdle := dial(t, d), dial(t, d)
	// The last one is accepted in order, and so the others are.
	if resp, err := request(t, freshIdle, bufio.NewReader(freshIdle)); err != nil || !resp.Close {
		t.Errorf("an answer over a new connection = %v, %v", resp, err)
	}
	left := make(chan error, 1)
	go func() { left <- d.Leave(context.Background()) }()
	for {
		c, err := net.Dial("tcp", d.Addr())
		if err != nil {
			break // it no longer listens
		}
		c.Close()
	}
	if resp, err := request(t, fresh, bufio.NewReader(fresh)); err != nil || resp.StatusCode != 200 {
		t.Errorf("a request over a connection that was accepted before = %v, %v", resp, err)
	}
	select {
	case err := <-left:
		t.Errorf("Leave = %v before the last request was answered", err)
	default:
	}
	close(leave)
	if resp, err := http.ReadResponse(bufio.NewReader(slow), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the slow request = %v, %v", resp, err)
	}
	if err := <-left; err != nil {
		t.Errorf("Leave = %v", err)
	}
}

// Nobody keeps the agent from being upgraded by saying nothing.
func TestSilentConnectionDoesNotHoldUpLeaving(t *testing.T) {
	t.Parallel()
	d := serve(t, func(http.ResponseWriter, *http.Request) {})
	silent, last := dial(t, d), dial(t, d)
	if _, err := io.WriteString(silent, "GET / HT"); err != nil {
		t.Fatal(err)
	}
	if _, err := request(t, last, bufio.NewReader(last)); err != nil {
		t.Fatal(err)
	}
	if err := d.Leave(context.Background()); err != nil {
		t.Errorf("Leave = %v", err)
	}
	if n, err := silent.Read(make([]byte, 1)); err == nil {
		t.Errorf("the silent connection was answered %d bytes", n)
	}
}
