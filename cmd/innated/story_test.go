package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/testkit"
)

const domain = "innate.test"

// TestTwoPrograms is the story of a production host: innated and innate-agent
// as processes of their own, over each database, and vm1 reads greeting.
func TestTwoPrograms(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/...")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	t.Run("sqlite", func(t *testing.T) {
		p := newPlant(t, bin)
		p.tamper = func() { change(t, "sqlite", filepath.Join(p.dir, "innate.db")) }
		p.story("  sqlite: " + filepath.Join(p.dir, "innate.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		p := newPlant(t, bin)
		file := filepath.Join(p.dir, "postgres.url")
		url := testkit.Postgres(t)
		p.write("postgres.url", url)
		p.tamper = func() { change(t, "pgx", url) }
		p.story("  postgres_file: " + file)
	})
}

// plant is one installation with one host.
type plant struct {
	t    *testing.T
	bin  string
	dir  string
	boot bootstrapped
	addr string // of innated
	http *http.Client
	// tamper changes a batch of the record behind everybody's back.
	tamper func()
	// proxy plays the DNS of the installation's network.
	proxy *httptest.Server
	// env are more variables of the commands that it runs.
	env []string
}

// change changes the third batch of the management chain.
func change(t *testing.T, driver, where string) {
	t.Helper()
	db, err := sql.Open(driver, where)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var body []byte
	if err := db.QueryRow("SELECT body FROM audit_batch WHERE chain = 'management' AND seq = 3 AND tenant <> ''").Scan(&body); err != nil {
		t.Fatal(err)
	}
	body = bytes.Replace(body, []byte("allowed"), []byte("Allowed"), 1)
	if _, err := db.Exec("UPDATE audit_batch SET body = $1 WHERE chain = 'management' AND seq = 3 AND tenant <> ''", body); err != nil {
		t.Fatal(err)
	}
}

func newPlant(t *testing.T, bin string) *plant {
	p := &plant{t: t, bin: bin, dir: t.TempDir()}
	p.proxy = httptest.NewServer(http.HandlerFunc(p.connect))
	t.Cleanup(p.proxy.Close)
	return p
}

func (p *plant) connect(w http.ResponseWriter, r *http.Request) {
	up, err := net.Dial("tcp", p.addr)
	if err != nil || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	down, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	defer up.Close()
	fmt.Fprint(down, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(up, buf) }()
	_, _ = io.Copy(down, up)
}

func (p *plant) write(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// start starts a program and waits for its line that begins with "ready".
func (p *plant) start(name string, args ...string) (ready string, stop func()) {
	p.t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				p.t.Errorf("%s ended with %v\n%s", name, err, log.String())
			}
		})
	}
	p.t.Cleanup(stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return lines.Text(), stop
		}
	}
	stop()
	p.t.Fatalf("%s ended before it was ready:\n%s", name, log.String())
	return "", nil
}

// run runs a program to its end.
func (p *plant) run(stdin, name string, args ...string) (stdout string, err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+p.proxy.URL, "NO_PROXY=127.0.0.1", "SSL_CERT_FILE="+filepath.Join(p.dir, "ca.pem"),
		"INNATE_DATA="+filepath.Join(p.dir, "no-dev-here"), "PATH="+p.bin+":"+os.Getenv("PATH"))
	cmd.Env = append(cmd.Env, p.env...)
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

// as runs "innate ARGS" as a workload of the host.
func (p *plant) as(resource, stdin string, args ...string) (string, error) {
	all := append([]string{"run", "--agent-socket", filepath.Join(p.dir, "agent.sock"), resource, "--", "innate"}, args...)
	return p.run(stdin, "innate", all...)
}

func (p *plant) must(out string, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// story is the story; database is the configuration's line under database:.
func (p *plant) story(database string) {
	t := p.t
	config := p.write("innated.yaml", "domain: "+domain+"\nlisten: 127.0.0.1:0\nreplica: one\nroot_key_file: "+
		filepath.Join(p.dir, "root.key")+"\ntls:\n  local_ca: true\ndatabase:\n"+database+"\n")
	if _, err := p.run("", "innated", "--config", config); err == nil || !strings.Contains(err.Error(), "innated bootstrap") {
		t.Errorf("innated before bootstrap = %v, want an error that names bootstrap", err)
	}
	tokenFile := filepath.Join(p.dir, "enrol.token")
	caFile := filepath.Join(p.dir, "ca.pem")
	out := p.must(p.run("", "innated", "--config", config, "bootstrap", "--host", "h1", "--token-file", tokenFile, "--ca-file", caFile,
		"--selector", fmt.Sprintf("unix:uid:%d", os.Getuid())))
	if err := json.Unmarshal([]byte(out), &p.boot); err != nil {
		t.Fatalf("bootstrap printed %s: %v", out, err)
	}
	if p.boot.EnrolmentToken != "" {
		t.Error("bootstrap printed the token although it was given a file for it")
	}
	if ca, err := os.ReadFile(caFile); err != nil || string(ca) != p.boot.CA || p.boot.CA == "" {
		t.Errorf("--ca-file wrote %q, %v; bootstrap printed %q", ca, err, p.boot.CA)
	}
	p.checked(config)
	_, stopServer := p.serve(config)
	p.second(config, strings.Contains(database, "sqlite"))
	stopAgent := p.agent(tokenFile)

	vault, vm1, vm2 := p.furnish()
	p.managed(vm1, vm2)
	if got := p.must(p.as(vm1, "", "secret", "get", vault+"/greeting")); got != "hello" {
		t.Errorf("vm1 read %q, want hello", got)
	}
	if _, err := p.as(vm2, "", "secret", "get", vault+"/greeting"); err == nil || !strings.Contains(err.Error(), "Managed Identity") {
		t.Errorf("vm2, without an identity, got %v", err)
	}
	stopServer = p.cutOff(config, vm1, stopServer)
	p.replay(tokenFile)
	stopAgent()
	stopServer()
	p.verified(config)
}

// managed: the commands of a laptop work on a host too, which says by the
// variables that SDKs read where its installation is.
func (p *plant) managed(vm1, vm2 string) {
	p.t.Helper()
	if _, err := p.as(p.boot.Owner, "", "host", "list"); err == nil || !strings.Contains(err.Error(), "AZURE_AUTHORITY_HOST") {
		p.t.Errorf("host list without an address = %v, want what to set", err)
	}
	p.env = []string{"AZURE_AUTHORITY_HOST=https://login." + domain + ":" + p.port(), "AZURE_SUBSCRIPTION_ID=" + p.boot.SubscriptionID}
	defer func() { p.env = nil }()
	ops := func(args ...string) string {
		p.t.Helper()
		return p.must(p.as(p.boot.Owner, "", args...))
	}
	ops("host", "create", "web7")
	token := filepath.Join(p.dir, "web7.token")
	ops("host", "enrol-token", "web7", "--file", token)
	if text, err := os.ReadFile(token); err != nil || len(text) < 20 {
		p.t.Errorf("enrolment token of web7: %d bytes, %v", len(text), err)
	}
	ops("placement", "create", "shop", "--host", "web7", "--door", "host", "--resource", vm2, "--selector", "systemd:id:shop.service")
	ops("rule", "create", vm2, "shop", "--selector", "systemd:id:shop.service", "--mode", "audit")
	ops("group", "create", "readers")
	ops("group", "add", "readers", vm1)
	ops("role", "assign", "Reader", "readers")
	ops("management-group", "create", "retail")
	ops("role", "assign", "Reader", vm1, "--scope", "/providers/Microsoft.Management/managementGroups/retail")
	ops("identity", "create", "app-id")
	ops("federation", "add", "app-id", "main", "--issuer", "https://issuer.example.com", "--subject", "main")
	ops("lock", "add", vm2)
	ops("identity", "delete", "app-id")
	ops("identity", "recover", "app-id")
	if out := ops("access", "check", vm1, "Microsoft.Compute/virtualMachines/read", vm2); !strings.Contains(out, "allowed") || !strings.Contains(out, "readers") {
		p.t.Errorf("access check says %q", out)
	}
	if out := ops("host", "list"); !strings.Contains(out, "web7") {
		p.t.Errorf("host list says %q", out)
	}
}

// verified: the record is whole, and with one letter of it changed it is not.
func (p *plant) verified(config string) {
	if out := p.must(p.run("", "innated", "--config", config, "check")); out != "every row refers to what is there" {
		p.t.Errorf("check says %q", out)
	}
	out := p.must(p.run("", "innated", "--config", config, "audit", "verify"))
	for _, want := range []string{"chain management: ", "chain one: ", "installation chain "} {
		if !strings.Contains(out, want) {
			p.t.Errorf("audit verify lacks %q:\n%s", want, out)
		}
	}
	p.tamper()
	_, err := p.run("", "innated", "--config", config, "audit", "verify")
	if err == nil || !strings.Contains(err.Error(), "chain management: batch 3 was changed") {
		p.t.Errorf("audit verify of a changed record = %v, want an error that names the batch", err)
	}
}

// checked: --check finds what a start would refuse.
func (p *plant) checked(config string) {
	p.t.Helper()
	p.must(p.run("", "innated", "--config", config, "--check"))
	key := filepath.Join(p.dir, "root.key")
	if err := os.Chmod(key, 0o644); err != nil {
		p.t.Fatal(err)
	}
	if out, err := p.run("", "innated", "--config", config, "--check"); err == nil || !strings.Contains(err.Error(), "chmod 600 "+key) {
		p.t.Errorf("--check with an open root key = %q, %v; want an error that says chmod 600", out, err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// second: beside innated, SQLite has room for no other program.
func (p *plant) second(config string, sqlite bool) {
	p.t.Helper()
	if !sqlite {
		return
	}
	for _, args := range [][]string{{"--config", config}, {"--config", config, "bootstrap", "--host", "h1"}} {
		if _, err := p.run("", "innated", args...); err == nil || !strings.Contains(err.Error(), "stop the other one first") {
			p.t.Errorf("innated %q beside innated = %v, want an error that says to stop the other", args, err)
		}
	}
}

func (p *plant) serve(config string) (string, func()) {
	p.t.Helper()
	line, stop := p.start("innated", "--config", config)
	p.addr = line[strings.LastIndex(line, " ")+1:]
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(p.boot.CA))
	p.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", p.addr) },
	}}
	return line, stop
}

func (p *plant) port() string { _, port, _ := net.SplitHostPort(p.addr); return port }

func (p *plant) agentConfig(name, state, tokenFile, socket string) string {
	return p.write(name, "control_plane: https://fleet."+domain+":"+p.port()+"\ncontrol_plane_ca: "+filepath.Join(p.dir, "ca.pem")+
		"\nconnect_to: "+p.addr+"\nstate_dir: "+filepath.Join(p.dir, state)+"\nenrolment_token_file: "+tokenFile+
		"\ncontrol_socket: "+filepath.Join(p.dir, socket)+"\n")
}

func (p *plant) agent(tokenFile string) (stop func()) {
	p.t.Helper()
	_, stop = p.start("innate-agent", "--config", p.agentConfig("agent.yaml", "agent", tokenFile, "agent.sock"))
	return stop
}

// arm calls the management API as ops.
func (p *plant) arm(method, path string, body any) {
	p.t.Helper()
	token := p.must(p.as(p.boot.Owner, "", "token", "--resource", "https://management.azure.com/"))
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, "https://management."+domain+":"+p.port()+path+"?api-version=2026-01-01", bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		p.t.Fatalf("%s %s = %s: %s", method, path, resp.Status, answer)
	}
}

// furnish makes the resources of the story, as ops.
func (p *plant) furnish() (vault, vm1, vm2 string) {
	type m = map[string]any
	providers := "/subscriptions/" + p.boot.SubscriptionID + "/resourceGroups/innate/providers/"
	vm1, vm2 = providers+"Microsoft.Compute/virtualMachines/vm1", providers+"Microsoft.Compute/virtualMachines/vm2"
	kv := providers + "Microsoft.KeyVault/vaults/demo"
	p.arm("PUT", vm1, m{"location": "local", "identity": m{"type": "SystemAssigned"}})
	p.arm("PUT", vm2, m{"location": "local"})
	p.arm("PUT", kv, m{"location": "local"})
	for i, of := range []struct{ resource, role string }{
		{p.boot.Owner, "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"}, // Key Vault Secrets Officer
		{vm1, "4633458b-17de-408a-b874-0445c86b69e6"},          // Key Vault Secrets User
	} {
		p.arm("PUT", fmt.Sprintf("%s/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-00000000000%d", kv, i), m{"properties": m{
			"principalId": p.principal(of.resource), "roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + of.role,
		}})
	}
	for name, id := range map[string]string{"vm1": vm1, "vm2": vm2} {
		p.arm("PUT", p.boot.Host+"/placements/"+name, m{"properties": m{
			"door": "run", "resourceId": id, "selectors": []string{fmt.Sprintf("unix:uid:%d", os.Getuid())},
		}})
	}
	vault = "https://demo.vault." + domain + ":" + p.port()
	p.must(p.as(p.boot.Owner, "hello\n", "secret", "set", vault+"/greeting"))
	return vault, vm1, vm2
}

func (p *plant) principal(resource string) string {
	p.t.Helper()
	token := p.must(p.as(p.boot.Owner, "", "token", "--resource", "https://management.azure.com/"))
	req, err := http.NewRequestWithContext(p.t.Context(), "GET", "https://management."+domain+":"+p.port()+resource+"?api-version=2026-01-01", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var v struct {
		Identity struct {
			PrincipalID string `json:"principalId"`
		} `json:"identity"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || v.Identity.PrincipalID == "" {
		p.t.Fatalf("GET %s = %s, %v: no identity", resource, resp.Status, err)
	}
	return v.Identity.PrincipalID
}

// cutOff stops the control plane: the agent goes on answering from memory, and
// only from memory.
func (p *plant) cutOff(config, vm1 string, stop func()) (stopAgain func()) {
	const vault = "https://vault.azure.net"
	before := p.must(p.as(vm1, "", "token", "--resource", vault))
	stop()
	if got := p.must(p.as(vm1, "", "token", "--resource", vault)); got != before {
		p.t.Error("with the control plane away, vm1 got another token than the one remembered")
	}
	if _, err := p.as(vm1, "", "token", "--resource", "https://storage.azure.com"); err == nil {
		p.t.Error("with the control plane away, vm1 got a token that nobody had asked for before")
	}
	port := p.port()
	text, err := os.ReadFile(config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("innated.yaml", strings.Replace(string(text), "127.0.0.1:0", "127.0.0.1:"+port, 1))
	_, stopAgain = p.serve(config)
	if _, err := p.as(vm1, "", "token", "--resource", "https://storage.azure.com"); err != nil {
		p.t.Errorf("with the control plane back, vm1 got %v", err)
	}
	return stopAgain
}

// replay: a token that has enrolled a host enrols no other.
func (p *plant) replay(tokenFile string) {
	_, err := p.run("", "innate-agent", "--config", p.agentConfig("thief.yaml", "thief", tokenFile, "thief.sock"))
	if err == nil || !strings.Contains(err.Error(), "spent") {
		p.t.Errorf("enrolling a second host with a spent token = %v, want an error that says so", err)
	}
}
