package issuer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// Reach is how far inwards an address is. Each includes those before it.
type Reach int

// The reaches.
const (
	// Public are the addresses of the Internet.
	Public Reach = iota + 1
	// Private are those of one's own networks too (RFC 1918, RFC 4193, RFC 6598).
	Private
	// Loopback is this machine too.
	Loopback
	// nowhere are addresses that no issuer has: link-local ones above all, where
	// machines have their metadata services.
	nowhere
)

// ParseReach reads the name of a reach.
func ParseReach(s string) (Reach, bool) {
	r, ok := map[string]Reach{"public": Public, "private": Private, "loopback": Loopback}[s]
	return r, ok
}

func (r Reach) String() string {
	return map[Reach]string{Public: "public", Private: "private", Loopback: "loopback", nowhere: "link-local or special"}[r]
}

func (c Config) reach() Reach {
	if c.Reach == 0 {
		return Private
	}
	return c.Reach
}

// named reports whether issuers may have the host name.
func (c Config) named(host string) bool {
	host = strings.ToLower(host)
	return len(c.Hosts) == 0 || slices.ContainsFunc(c.Hosts, func(h string) bool {
		h = strings.ToLower(h)
		if below, ok := strings.CutPrefix(h, "*"); ok {
			return strings.HasSuffix(host, below) && len(host) > len(below)
		}
		return host == h
	})
}

// shared is the space of carriers' networks (RFC 6598), of which the standard
// library says nothing; the others lead through translators into the networks
// of the addresses that they hold.
var (
	shared      = netip.MustParsePrefix("100.64.0.0/10")
	translating = []netip.Prefix{
		netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
	}
	reserved = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fec0::/10"),
		// The metadata services that are not link-local.
		netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("fd00:ec2::254/128"), netip.MustParsePrefix("100.100.100.200/32"),
	}
)

// reachOf says how far inwards an address is.
func reachOf(a netip.Addr) Reach {
	a = a.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case a.IsLoopback():
		return Loopback
	case !a.IsGlobalUnicast(), slices.ContainsFunc(reserved, in), slices.ContainsFunc(translating, in):
		return nowhere // link-local, multicast and unspecified ones are not global unicast
	case a.IsPrivate(), shared.Contains(a):
		return Private
	}
	return Public
}

// journey follows one fetch.
type journey struct {
	// limit is how far it may go, reached how far inwards it went last.
	limit, reached Reach
}

type journeyKey struct{}

// tooFar is an address that may not be asked.
type tooFar struct{ is, may Reach }

func (e *tooFar) Error() string {
	return fmt.Sprintf("its address is %s, and only addresses up to %s may be asked for it (setting federation.reach)", e.is, e.may)
}

// dial connects, and looks at the address that is connected to: a name can
// stand for another one the next time it is looked up.
func (c Config) dial(ctx context.Context, network, to string) (net.Conn, error) {
	path, ok := ctx.Value(journeyKey{}).(*journey)
	if !ok {
		return nil, fmt.Errorf("connecting to %s: not on behalf of an issuer", to)
	}
	d := net.Dialer{Timeout: Timeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("reading the address %s: %w", address, err)
		}
		if r := c.at(at.Addr()); r > path.limit {
			return &tooFar{r, path.limit}
		}
		return nil
	}}
	conn, err := d.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	if at, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		path.reached = c.at(at.AddrPort().Addr())
	}
	return conn, nil
}
