package door

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A deadline of a patient connection holds as exactly as one of its own,
// however it was put off, brought forward or taken back before.
func TestPatientDeadlines(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, tt := range map[string]struct {
		set  []time.Duration // each a second after the one before; 0 takes it back
		want time.Duration   // after the first; 0: never
	}{
		"one":                         {[]time.Duration{5 * s}, 5 * s},
		"put off":                     {[]time.Duration{5 * s, 5 * s, 60 * s}, 62 * s},
		"brought forward":             {[]time.Duration{60 * s, 5 * s}, 6 * s},
		"taken back":                  {[]time.Duration{5 * s, 0}, 0},
		"taken back, and given again": {[]time.Duration{5 * s, 0, 60 * s}, 62 * s},
		"due before the next":         {[]time.Duration{s / 2, 60 * s}, s / 2},
		"passed already":              {[]time.Duration{60 * s, -s}, s},
	} {
		for direction, set := range map[string]func(net.Conn, time.Time) error{
			"read": net.Conn.SetReadDeadline, "write": net.Conn.SetWriteDeadline, "both": net.Conn.SetDeadline,
		} {
			t.Run(name+"/"+direction, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					client, server := net.Pipe()
					defer client.Close()
					c := newPatient(server)
					defer c.Close()
					began, ended := time.Now(), make(chan time.Duration, 1)
					go func() {
						move := c.Read
						if direction == "write" {
							move = c.Write
						}
						if _, err := move(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
							ended <- time.Since(began)
						}
					}()
					for i, d := range tt.set {
						if i > 0 {
							time.Sleep(s)
						}
						var at time.Time
						if d != 0 {
							at = time.Now().Add(d)
						}
						if err := set(c, at); err != nil {
							t.Fatal(err)
						}
					}
					var got time.Duration
					select {
					case got = <-ended:
					case <-time.After(10 * time.Minute):
					}
					if got != tt.want {
						t.Errorf("deadlines %v, a second apart, end it after %v, want %v", tt.set, got, tt.want)
					}
				})
			})
		}
	}
}

// net/http ends its watch for a client that goes away by a deadline long ago,
// waits for it, and takes the deadline back.
func TestPatientDeadlineAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := newPatient(server)
		defer c.Close()
		for range 3 {
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() {
				_, err := c.Read(make([]byte, 1))
				ended <- err
			}()
			began := time.Now()
			if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 0 {
				t.Fatalf("read ended with %v after %v, want a deadline at once", err, time.Since(began))
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			go client.Write([]byte("x"))
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("read after the deadline was taken back = %d, %v", n, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour) // a timer left over would find the connection closed
	})
}
