package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// Every path, at debug level, right and wrong, with the control plane there,
// refusing, lying and gone, over an upgrade: no line has a token, a start's
// secret, the enrolment token, the host's key, or a digest of one of them.
func TestNoSecretIsInTheLog(t *testing.T) {
	t.Parallel()
	cp := placed(t)
	// Longer than a hit by chance, and not what audit events carry.
	const mark = "eyJhbGciOiJSUzI1NiJ9.secret-of-the-test"
	minted := 0
	mint := func(req fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		minted++
		tok := cp.Mint(req)
		tok.AccessToken = mark + strings.Repeat("x", minted)
		return tok, nil
	}
	cp.Decide(mint)
	config := settings(t, cp)
	edit(t, config, "offline: refuse", "offline: serve\nlog_level: debug\nmetrics_listen: 127.0.0.1:0")
	r := launch(t, program(t, t.TempDir()), config)
	at := r.readyTimes(t, 1)
	socket := socketOf(t, config)
	_, secret, _ := beginStart(t, socket)
	wrong := strings.Repeat("w", 43)
	digest := sha256.Sum256([]byte(mark + "x"))

	tokens := func(more string) string {
		return get(tokenPath+more, "Metadata: true\r\nConnection: close\r\n")
	}
	ask := func() {
		for _, request := range []string{
			tokens(""), tokens("&bypass_cache=true"), tokens("&token_sha256_to_refresh=" + hex.EncodeToString(digest[:])),
			get(tokenPath, "Connection: close\r\n"),                                                     // no Metadata
			get(tokenPath, "Metadata: true\r\nX-IDENTITY-HEADER: "+secret+"\r\nConnection: close\r\n"),  // the wrong door
			get(tokenPath, "Metadata: true\r\nAuthorization: Bearer "+mark+"\r\nConnection: close\r\n"), // not asked for
			get("/nothing", "Secret: "+secret+"\r\nConnection: close\r\n"),
			"GET / HTTP/1.1\r\nHost: x\r\nSecret " + secret + "\r\n\r\n", // no header
		} {
			// Not all of them are answered well; what is written of them counts.
			_ = fresh(to("tcp", at["main"]), request, "")()
		}
		for _, request := range []string{
			appRequest(secret), appRequest(wrong),
			get("/msi/token?api-version=2017-09-01&resource=r", "secret: "+secret+"\r\n"),
			get("/msi/token?api-version=2019-08-01&resource=r", "secret: "+secret+"\r\n"),
			get("/msi/token?api-version=2019-08-01&resource=r", "X-IDENTITY-HEADER: "+secret+"\r\nX-IDENTITY-HEADER: "+wrong+"\r\n"),
			get("/msi/token?api-version=2019-08-01", "X-IDENTITY-HEADER: "+secret+"\r\n"),
			"POST /msi/token HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\n\r\n" + secret,
		} {
			_ = fresh(to("tcp", at["app"]), request, "")()
		}
		for _, request := range []string{
			"POST /starts HTTP/1.1\r\nHost: x\r\nContent-Length: 43\r\n\r\n" + secret,
			get("/status", "X-IDENTITY-HEADER: "+secret+"\r\n"), get("/other", "X-IDENTITY-HEADER: "+secret+"\r\n"),
		} {
			_ = fresh(to("unix", socket), request, "")()
		}
	}
	ask()
	for _, decide := range []func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error){
		func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
			return fleetapi.TokenResponse{}, problem.Errorf(problem.IdentityNotFound, "none")
		},
		func(fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
			return fleetapi.TokenResponse{AccessToken: mark}, nil // no expiry: not a token
		},
	} {
		cp.Decide(decide)
		ask()
	}
	cp.Decide(mint)
	ask()
	r.hangup(t)
	r.readyTimes(t, 2)
	ask()
	cp.Down(true)
	ask()
	r.logs(t, 1, `"cache":"stale"`)
	if c, err := net.Dial("unix", socket); err == nil { // one that says nothing
		c.Close()
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = r.wait()

	log := r.stdout.String() + r.stderr.String()
	for _, line := range strings.Split(strings.TrimSpace(r.stderr.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
	for _, path := range []string{`"level":"DEBUG"`, `"outcome":"ok"`, `"outcome":"refused"`, `"outcome":"error"`, `"cache":"hit"`, `"cache":"miss"`, `"dialect":"appservice"`, "upgrading"} {
		if !strings.Contains(log, path) {
			t.Errorf("the test did not reach %s", path)
		}
	}
	for what, never := range secrets(t, config, mark, secret, wrong) {
		if strings.Contains(log, never) {
			t.Errorf("%s is in the log", what)
		}
	}
}

// secrets are what must be in no log, and their digests.
func secrets(t *testing.T, config, mark, secret, wrong string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("state_dir: "))
	dir, _, _ := strings.Cut(string(rest), "\n")
	key, err := os.ReadFile(filepath.Join(dir, "host.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	if block == nil {
		t.Fatal("the host's key is no PEM")
	}
	out := map[string]string{
		"a token": mark, "a start's secret": secret, "a wrong secret": wrong, "the enrolment token": agenttest.EnrolToken,
		"the host's key": strings.Split(string(key), "\n")[1], "the host's key in hex": hex.EncodeToString(block.Bytes[30:60]),
	}
	for _, s := range []string{mark + "x", secret, wrong, agenttest.EnrolToken} {
		sum := sha256.Sum256([]byte(s))
		out["the digest of "+s] = hex.EncodeToString(sum[:])
	}
	return out
}
