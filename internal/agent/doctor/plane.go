package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// The clock may differ from the control plane's by so much: what is signed
// there is good from a few minutes before it was made.
const (
	clockWarn = 5 * time.Second
	clockFail = time.Minute
)

// checkName resolves the control plane's name, unless it is not connected to
// by name.
func checkName(ctx context.Context, h *Host) []Finding {
	u, err := url.Parse(h.ControlPlane)
	if h.ControlPlane == "" || h.Dial != nil {
		return nil
	}
	if err != nil {
		return fail(err.Error(), "set control_plane to https://NAME:PORT")
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
	if err != nil {
		return fail(u.Hostname()+" does not resolve: "+err.Error(), "make the name resolve (DNS, hosts file), or set connect_to")
	}
	return ok(fmt.Sprintf("%s is %v", u.Hostname(), addrs))
}

// checkControlPlane connects, looks at the certificate, and compares clocks.
func checkControlPlane(ctx context.Context, h *Host) []Finding {
	if h.ControlPlane == "" {
		return nil
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: h.Dial, TLSClientConfig: &tls.Config{RootCAs: h.CA, MinVersion: tls.VersionTLS13}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, h.ControlPlane+"/", nil)
	if err != nil {
		return fail(err.Error(), "set control_plane to https://NAME:PORT")
	}
	began := h.Now()
	resp, err := client.Do(req)
	if err != nil {
		return h.unreached(err)
	}
	resp.Body.Close()
	// Any answer will do: who has no certificate is refused.
	out := ok("answers at " + h.ControlPlane + ", and its certificate is trusted")
	return append(out, clock(resp.Header.Get("Date"), began, h.Now())...)
}

func (h *Host) unreached(err error) []Finding {
	if cert, bad := errors.AsType[x509.CertificateInvalidError](err); bad && cert.Reason == x509.Expired {
		return fail("by this host's clock its certificate is not valid: "+err.Error(), "set the clock (timedatectl), or renew the control plane's certificate")
	}
	if _, bad := errors.AsType[*tls.CertificateVerificationError](err); bad {
		return fail("its certificate is not trusted: "+err.Error(), "set control_plane_ca to the file that bootstrap wrote with --ca-file, and control_plane to the name in the certificate")
	}
	return fail("it cannot be reached: "+err.Error(), "look whether innated runs, and for a firewall between; the agent uses no proxy")
}

// clock compares the control plane's clock with this host's, as it was before
// and after the answer. The header has whole seconds.
func clock(date string, before, after time.Time) []Finding {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return nil // a proxy that leaves it out
	}
	off := time.Duration(0)
	switch {
	case theirs.After(after):
		off = theirs.Sub(after)
	case theirs.Add(time.Second).Before(before):
		off = before.Sub(theirs.Add(time.Second))
	}
	found := fmt.Sprintf("this host's clock and the control plane's differ by %v", off.Round(time.Millisecond))
	const remedy = "set the clock: timedatectl set-ntp true, or whatever keeps time here"
	switch {
	case off >= clockFail:
		return fail(found, remedy)
	case off >= clockWarn:
		return warn(found, remedy)
	}
	return ok(found)
}
