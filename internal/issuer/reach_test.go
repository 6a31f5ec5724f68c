package issuer

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/testkit"
	"github.com/innate-id/innate/internal/token"
)

func TestReachOf(t *testing.T) {
	t.Parallel()
	for want, all := range map[Reach][]string{
		Public:   {"140.82.112.3", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"},
		Private:  {"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"},
		Loopback: {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"},
		nowhere: {
			"169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1",
			"168.63.129.16", "100.100.100.200", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:1::1", "fec0::1", "192.0.0.192",
		},
	} {
		for _, s := range all {
			if got := reachOf(netip.MustParseAddr(s)); got != want {
				t.Errorf("reachOf(%s) = %s, want %s", s, got, want)
			}
		}
	}
}

// TestFarIssuerCannotSendUsInwards: what an issuer of the Internet names is of
// the Internet, whatever is allowed to others.
func TestFarIssuerCannotSendUsInwards(t *testing.T) {
	t.Parallel()
	i := testkit.NewIssuer(t)
	a, err := token.ParseAssertion(i.Token(i.Claims(time.Now(), "s", nil)))
	if err != nil {
		t.Fatal(err)
	}
	inwards := strings.Replace(strings.TrimSuffix(i.URL, "/realm"), "127.0.0.1", "127.0.0.2", 1) + "/keys"
	i.Serve = func(w http.ResponseWriter, _ *http.Request) bool {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": inwards})
		return true
	}
	cfg := Config{Roots: x509.NewCertPool(), Now: time.Now, at: func(a netip.Addr) Reach {
		if a == netip.MustParseAddr("127.0.0.1") {
			return Public
		}
		return Private
	}}
	cfg.Roots.AppendCertsFromPEM(i.PEM())
	_, err = New(cfg).Of(t.Context(), i.URL, a)
	if !problem.Is(err, problem.Unavailable) || !strings.Contains(err.Error(), "its address is private, and only addresses up to public may be asked for it") {
		t.Errorf("%v", err)
	}
	if n := i.Asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once, for the discovery document", n)
	}
}

func TestHostsAreNamed(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{"a.example": true, "A.Example": true, "b.a.example": false, "x.corp.example": true, "corp.example": false, "evilcorp.example": false, "": false} {
		if got := (Config{Hosts: []string{"a.example", "*.corp.example"}}).named(host); got != want {
			t.Errorf("named(%q) = %v, want %v", host, got, want)
		}
	}
}
