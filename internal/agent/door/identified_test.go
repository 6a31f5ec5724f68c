package door

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/evidence"
)

// Each connection that was admitted leaves once, however it ends: also one that
// is gone before it is known whose it was.
func TestWhoWasAdmittedLeavesOnce(t *testing.T) {
	t.Parallel()
	var admitted, left atomic.Int64
	slow := make(chan struct{})
	d, err := Listen(t.Context(), Config{
		Name: "d", Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, err := Of(r.Context())
			if err != nil || p.Text != p.Evidence.String() || p.Text != "door:d grade:kernel" || p.Kept != "admitted" {
				t.Errorf("Of = %+v, %v", p, err)
			}
		}),
		Identify: func(net.Conn) (evidence.Evidence, error) {
			<-slow
			return evidence.Evidence{Door: "d", Grade: evidence.GradeKernel}, nil
		},
		Admit: func(p *Peer) (func(), bool) {
			p.Kept = "admitted"
			if admitted.Add(1) > 20 {
				return nil, false
			}
			return func() { left.Add(1) }, true
		},
	}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	for range 10 { // gone at once
		c, err := net.Dial("tcp", d.Addr())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	close(slow)
	for range 10 {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + d.Addr())
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	c, err := net.Dial("tcp", d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a connection that is not admitted = %v, want it closed", err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for left.Load() < 20 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if admitted.Load() != 21 || left.Load() != 20 {
		t.Errorf("%d were asked for and %d left, want 21 and 20", admitted.Load(), left.Load())
	}
}

func TestWithoutEvidenceNobodyIsCalled(t *testing.T) {
	t.Parallel()
	boom := errors.New("no evidence")
	texts := make(chan string, 1)
	d, err := Listen(t.Context(), Config{
		Name: "d", Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := Caller(r.Context()); !errors.Is(err, boom) {
				t.Errorf("Caller = %v, want %v", err, boom)
			}
		}),
		Identify: func(net.Conn) (evidence.Evidence, error) { return evidence.Evidence{}, boom },
		Admit:    func(p *Peer) (func(), bool) { texts <- p.Text; return func() {}, true },
	}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	defer d.Close(t.Context())
	resp, err := http.Get("http://" + d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if text := <-texts; text != "" {
		t.Errorf("who is not known is called %q", text)
	}
}
