package caller

import (
	"net"
	"testing"
)

// BenchmarkSocketOwner is one question to sock_diag.
func BenchmarkSocketOwner(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var s Sockets
	defer s.Close()
	for b.Loop() {
		if _, ok, err := s.owner(conn.(*net.TCPConn)); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
