package agent_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

const tokenQuery = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + vault

// text sends a request and returns status and body, whatever its form.
func text(t *testing.T, client *http.Client, req *http.Request) (int, string) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestInstanceDataIsFreshAndSurvivesTheControlPlane(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	in := fleetapi.Instance{ID: web1, UID: "5f1e6a3c-0000-4000-8000-000000000001", Name: "web1", Type: "Microsoft.Compute/virtualMachines", Tenant: "t1", Location: "north"}
	cp.Describe(in)
	a := begin(t, config(t, cp))
	location := func() (int, string) {
		return text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/instance/compute/location?api-version=2021-02-01&format=text", "Metadata", "true"))
	}
	want := func(what string) {
		t.Helper()
		if status, body := location(); status != 200 || body != what {
			t.Fatalf("location = %d %q, want %q", status, body, what)
		}
	}
	want("north")
	want("north")
	if n := cp.Calls(fleetapi.PathInstance); n != 1 {
		t.Errorf("the control plane was asked %d times, want once", n)
	}
	in.Location = "south"
	synced(t, a, cp.Describe(in))
	want("south")

	cp.Down(true)
	agenttest.Eventually(t, "the stream is gone", func() bool { return !a.Status().Connected })
	want("south")
	if status, body := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/identity/info?api-version=2021-02-01", "Metadata", "true")); status != 200 || body != `{"tenantId":"t1"}` {
		t.Errorf("info = %d %s", status, body)
	}
	if status, _ := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/attested/document?api-version=2021-02-01", "Metadata", "true")); status != 503 {
		t.Errorf("attested document without control plane = %d, want 503: nobody signs it", status)
	}
	cp.Down(false)
	agenttest.Eventually(t, "the stream is back", func() bool { return a.Status().Connected })
	status, body := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/attested/document?api-version=2021-02-01&nonce=abc", "Metadata", "true"))
	if status != 200 || !strings.Contains(body, "c2lnbmVkOjVmMWU2YTNjLTAwMDAtNDAwMC04MDAwLTAwMDAwMDAwMDAwMTphYmM=") {
		t.Errorf("attested document = %d %s", status, body)
	}
}

func TestOfflineRefuseIsForInstanceDataToo(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	cp.Describe(fleetapi.Instance{ID: web1, UID: "5f1e6a3c-0000-4000-8000-000000000001", Name: "web1", Type: "Microsoft.Compute/virtualMachines"})
	cfg := config(t, cp)
	cfg.Offline = agent.OfflineRefuse
	a := begin(t, cfg)
	ask := func() int {
		status, _ := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/instance?api-version=2021-02-01", "Metadata", "true"))
		return status
	}
	if got := ask(); got != 200 {
		t.Fatalf("instance = %d", got)
	}
	cp.Down(true)
	agenttest.Eventually(t, "the stream is gone", func() bool { return !a.Status().Connected })
	if got := ask(); got != 503 {
		t.Errorf("instance from memory = %d, want 503", got)
	}
}

func TestInstanceDataFollowsItsPlacement(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	for _, id := range []string{web1, shop} {
		cp.Describe(fleetapi.Instance{ID: id, UID: "5f1e6a3c-0000-4000-8000-000000000001", Name: id[strings.LastIndexByte(id, '/')+1:], Type: "x/y"})
	}
	a := begin(t, config(t, cp))
	name := func() string {
		_, body := text(t, http.DefaultClient, request(t, "http://"+a.DoorAddr("main")+"/metadata/instance/compute/name?api-version=2021-02-01&format=text", "Metadata", "true"))
		return body
	}
	if got := name(); got != "web1" {
		t.Fatalf("name = %s", got)
	}
	moved := onMain
	moved.Resource = shop
	synced(t, a, cp.Place(moved))
	if got := name(); got != "shop" {
		t.Errorf("name after it was placed anew = %s, want shop", got)
	}
	cp.Place()
	agenttest.Eventually(t, "nothing is told any more", func() bool { return strings.Contains(name(), "no placement") })
}

func TestUnixDoor(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	mine := fmt.Sprint("unix:uid:", os.Getuid())
	cp.Place(fleetapi.Placement{Name: "p", Door: "sock", Resource: web1, Selectors: []string{mine}})
	cfg := config(t, cp)
	path := filepath.Join(filepath.Dir(cfg.StateDir), "imds.sock")
	cfg.Doors = append(cfg.Doors, agent.DoorConfig{Name: "sock", Kind: agent.KindUnix, Path: path, Mode: 0o666})
	begin(t, cfg)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("socket = %v, %v; want mode 0666", info, err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	if status, body := text(t, client, request(t, "http://localhost"+tokenQuery, "Metadata", "true")); status != 200 || !strings.Contains(body, `"token-1"`) {
		t.Errorf("answer over the socket = %d %s", status, body)
	}
}

func TestOldEndpoints(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	mine := fmt.Sprint("unix:uid:", os.Getuid())
	cp.Place(fleetapi.Placement{Name: "a", Door: "old", Resource: web1, Selectors: []string{mine}}, fleetapi.Placement{Name: "b", Door: "arc", Resource: web1, Selectors: []string{mine}})
	cfg := config(t, cp)
	keys := filepath.Join(filepath.Dir(cfg.StateDir), "tokens")
	cfg.Doors = []agent.DoorConfig{
		{Name: "old", Kind: agent.KindVMExtension, Listen: "127.0.0.1:0"},
		{Name: "arc", Kind: agent.KindArc, Listen: "127.0.0.1:0", KeyDir: keys},
	}
	a := begin(t, cfg)

	form, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.DoorAddr("old")+"/oauth2/token", strings.NewReader("resource="+vault))
	if err != nil {
		t.Fatal(err)
	}
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	form.Header.Set("Metadata", "true")
	if r := send(t, form); r.Status != 200 || r.Token.AccessToken != "token-1" || r.Header.Get("Deprecation") == "" {
		t.Errorf("VM extension = %d %s, Deprecation %q", r.Status, r.Body, r.Header.Get("Deprecation"))
	}

	arc := "http://" + a.DoorAddr("arc") + tokenQuery
	r := send(t, request(t, arc, "Metadata", "true"))
	path, ok := strings.CutPrefix(r.Header.Get("WWW-Authenticate"), "Basic realm=")
	if r.Status != 401 || !ok {
		t.Fatalf("Arc's challenge = %d %s", r.Status, r.Body)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Another connection: the key is the caller's, not the connection's.
	http.DefaultClient.CloseIdleConnections()
	wantToken(t, send(t, request(t, arc, "Metadata", "true", "Authorization", "Basic "+string(key))), "token-2")
	for _, d := range a.Status().Doors {
		if d.Kind != map[string]string{"old": agent.KindVMExtension, "arc": agent.KindArc}[d.Name] || d.Shut != "" {
			t.Errorf("status of a door = %+v", d)
		}
	}
	if r := send(t, request(t, arc, "Metadata", "true")); r.Status != 401 {
		t.Fatalf("a second challenge = %d", r.Status)
	}
	a.Close()
	if files, err := os.ReadDir(keys); err != nil || len(files) != 0 {
		t.Errorf("keys after the agent's end: %v, %v", files, err)
	}
}

// TestArcKeyOfAnotherUser: root could read every key file; what is in another
// user's is of no use to it either.
func TestArcKeyOfAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cp := agenttest.New(t)
	cp.Place(fleetapi.Placement{Name: "b", Door: "arc", Resource: web1})
	cfg := config(t, cp)
	keys := filepath.Join(filepath.Dir(cfg.StateDir), "tokens")
	if err := os.Chmod(filepath.Dir(cfg.StateDir), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg.Doors = []agent.DoorConfig{{Name: "arc", Kind: agent.KindArc, Listen: "127.0.0.1:0", KeyDir: keys}}
	a := begin(t, cfg)
	arc := "http://" + a.DoorAddr("arc") + tokenQuery
	as := func(uid int, script string) string {
		cmd := exec.Command("setpriv", fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", uid), "--clear-groups", "sh", "-c", script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	const curl = "curl -s --noproxy '*' -H 'Metadata: true' "
	challenge := curl + "-D - -o /dev/null '" + arc + "' | sed -n 's/.*realm=//p' | tr -d '\\r'"
	if got := as(12345, "f=$("+challenge+"); cat $f | { read -r k; "+curl+`-H "Authorization: Basic $k" '`+arc+"'; }"); !strings.Contains(got, "token-1") {
		t.Fatalf("the user itself gets %s", got)
	}
	path := strings.TrimSpace(as(12345, challenge))
	if got := as(12346, "cat "+path); !strings.Contains(got, "Permission denied") {
		t.Errorf("another user reads the key file: %s", got)
	}
	key, err := os.ReadFile(path) // as root
	if err != nil {
		t.Fatal(err)
	}
	if r := send(t, request(t, arc, "Metadata", "true", "Authorization", "Basic "+string(key))); r.Status != 401 || strings.Contains(r.Body, "token-") {
		t.Errorf("another user's key from root = %d %s, want 401", r.Status, r.Body)
	}
}

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("playing another user takes root: run the tests as root, or set INNATE_SKIP=root")
}
