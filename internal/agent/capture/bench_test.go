package capture_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkConnect is what a connection costs with capture and without, from
// the caller's socket to the accepted one and its record, in one thread.
// "beside" is a connection to somebody else while capture is on: what everybody
// pays.
func BenchmarkConnect(b *testing.B) {
	for _, kind := range []string{"without", "beside", "captured"} {
		b.Run(kind, func(b *testing.B) {
			w := newWorld(b)
			w.cfg.Cgroups = nil
			var l *net.TCPListener
			w.ns.In(b, func() (err error) {
				l, err = listenAt("127.0.0.1:0")
				return err
			})
			to := l.Addr().(*net.TCPAddr)
			record := func(*net.TCPConn) error { return nil }
			if kind != "without" {
				c := w.open(b)
				own := w.listen(b, c)
				if kind == "captured" {
					l, to = own, &net.TCPAddr{IP: meta[:], Port: 80}
					record = func(conn *net.TCPConn) error {
						_, err := c.Record(conn)
						return err
					}
				}
			}
			b.ResetTimer()
			w.ns.In(b, func() error {
				for b.Loop() {
					if err := once(l, to, record); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

func once(l *net.TCPListener, to *net.TCPAddr, record func(*net.TCPConn) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A reset leaves no port behind.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(to.IP.To4()), Port: to.Port}); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	return errors.Join(record(conn), conn.Close())
}
