package caller_test

import (
	"net"
	"os"
	"testing"

	"github.com/innate-id/innate/internal/agent/caller"
)

// BenchmarkIdentify is the cost of evidence for a new connection, when the
// executable's digest is known: from the kernel's record, of a unix
// socket, and by asking afterwards (sock_diag alone, and with the search for
// who holds the socket).
func BenchmarkIdentify(b *testing.B) {
	tcp := pair(b)
	local, remote := unixPair(b)
	defer local.Close()
	defer remote.Close()
	rec := recordOf(b, os.Getpid())
	record := func(*net.TCPConn) (caller.Record, error) { return rec, nil }
	for _, bb := range []struct {
		name string
		conn net.Conn
		from caller.From
	}{
		{"record", tcp, caller.From{Door: "host", Captured: true}},
		{"unix", local, caller.From{Door: "run"}},
		{"after", tcp, caller.From{Door: "main"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			id := &caller.Identifier{Record: record}
			for b.Loop() {
				if _, err := id.Identify(bb.conn, bb.from); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func unixPair(b *testing.B) (local, remote net.Conn) {
	b.Helper()
	l, err := net.Listen("unix", b.TempDir()+"/s")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if remote, err = net.Dial("unix", l.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if local, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	return local, remote
}
