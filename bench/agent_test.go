package bench

import (
	"bufio"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

const (
	web1 = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1"
	ask  = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
)

// unlimited is for when the agent is measured and not what it lets one caller have.
const unlimited = "limits: {per_second: 0, connections: 0}"

var buildAgent = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "innate-bench-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "innate-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, "../cmd/innate-agent")
	cmd.Stderr = os.Stderr
	return out, cmd.Run()
})

// process is a server that is measured.
type process struct {
	pid   int
	doors map[string]string // name -> address
}

// at is a load of one door.
func (p process) at(door string, connections int, d time.Duration) load {
	return load{Addr: p.doors[door], Path: ask + "https://vault.azure.net", Header: "Metadata: true", Connections: connections, For: d, PID: p.pid}
}

// startAgent starts the real program, at a control plane in this process
// that says what the real one says, in as many bytes. Every request is judged
// by a placement with a selector and ten caller rules.
func startAgent(b *testing.B, extra string) process {
	b.Helper()
	bin, err := buildAgent()
	if err != nil {
		b.Fatal(err)
	}
	cp := agenttest.New(b)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken = "ey" + strings.Repeat("J0eXAiOiJK", 140) + tok.AccessToken
		return tok, nil
	})
	user := fmt.Sprint("unix:uid:", os.Getuid())
	rules := []fleetapi.CallerRule{{Resource: web1, Name: "us", Selectors: []string{user}, Mode: fleetapi.ModeEnforce}}
	for i := range 9 { // somebody else's
		rules = append(rules, fleetapi.CallerRule{Resource: web1, Name: fmt.Sprint("other-", i), Selectors: []string{fmt.Sprint("unix:uid:", 40_000+i)}, Mode: fleetapi.ModeEnforce})
	}
	cp.Set([]fleetapi.Placement{
		{Name: "quiet", Door: "quiet", Selectors: []string{user}, Resource: web1}, {Name: "loud", Door: "loud", Selectors: []string{user}, Resource: web1},
	}, rules)
	cmd := exec.Command(bin, "--config", settings(b, cp, extra))
	cmd.Stderr = logFile(b)
	line := begin(b, cmd)
	p := process{pid: cmd.Process.Pid, doors: map[string]string{}}
	for _, word := range strings.Fields(line) {
		name, addr, _ := strings.Cut(word, "=")
		p.doors[name] = addr
	}
	return p
}

// startEmpty starts what the agent is held against.
func startEmpty(b *testing.B) process {
	b.Helper()
	return startHandler(b, "empty")
}

func startHandler(b *testing.B, name string) process {
	b.Helper()
	cmd := role(name)
	if _, err := cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	addr := strings.TrimSpace(begin(b, cmd))
	return process{pid: cmd.Process.Pid, doors: map[string]string{"quiet": addr, "loud": addr}}
}

// begin starts a server and returns the line that it says when it is ready.
func begin(b *testing.B, cmd *exec.Cmd) string {
	b.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("%s ended before it was ready: %v", cmd.Path, err)
	}
	return line
}

func settings(b *testing.B, cp *agenttest.ControlPlane, extra string) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	u, err := url.Parse(cp.URL)
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"ca.pem": string(cp.CAPEM),
		"token":  agenttest.EnrolToken,
		"agent.yaml": fmt.Sprintf(`
control_plane: https://example.com:%[1]s
control_plane_ca: %[2]s/ca.pem
connect_to: %[3]s
state_dir: %[2]s/state
enrolment_token_file: %[2]s/token
doors: [{name: quiet, listen: "127.0.0.1:0"}, {name: loud, listen: "127.0.0.1:0"}]
control_socket: %[2]s/a.sock
%[4]s
`, u.Port(), dir, u.Host, extra),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return filepath.Join(dir, "agent.yaml")
}

func logFile(b *testing.B) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

// side is one of two that are measured in turns.
type side struct {
	process
	rate, p50, p99, cost []float64 // answers a second; seconds; seconds of processor for an answer
}

func (s *side) round(b *testing.B, l load) {
	o := l.run(b)
	if o.Refused > 0 {
		b.Fatalf("%d of %d requests were refused", o.Refused, o.Answers)
	}
	s.rate = append(s.rate, o.rate())
	s.p50 = append(s.p50, o.P50.Seconds())
	s.p99 = append(s.p99, o.P99.Seconds())
	s.cost = append(s.cost, o.CPU.Seconds()/float64(o.Answers))
}

// BenchmarkCachedToken is a token from the agent's memory: through the door, on
// the connection's evidence, by placement and rules, put on record. Agent and
// empty handler are measured in turns, so that what else the machine does is in
// both; each figure is the median of all turns.
func BenchmarkCachedToken(b *testing.B) {
	for _, connections := range []int{1, 64, 1000} {
		turn := 500 * time.Millisecond
		if connections > 100 {
			turn = 3 * time.Second // a connection is answered some fifty times in it: what its first answer costs is not what is asked
		}
		b.Run(fmt.Sprint("connections=", connections), func(b *testing.B) {
			inn, emp, equ := side{process: startAgent(b, unlimited)}, side{process: startEmpty(b)}, side{process: startHandler(b, "equal")}
			for b.Loop() {
				for _, s := range []*side{&inn, &emp, &equ} {
					s.round(b, s.at("quiet", connections, turn))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(inn.rate), "answers/s")
			b.ReportMetric(median(inn.rate)/median(emp.rate), "rate-ratio")
			b.ReportMetric(median(inn.p99)*1e6, "p99-µs")
			b.ReportMetric(median(inn.p99)/median(emp.p99), "p99-ratio")
			b.ReportMetric(median(inn.cost)*1e6, "cpu-µs")
			b.ReportMetric(median(emp.cost)/median(inn.cost), "cpu-ratio")
			b.ReportMetric(median(inn.rate)/median(equ.rate), "equal-rate-ratio")
			b.ReportMetric(median(equ.cost)/median(inn.cost), "equal-cpu-ratio")
		})
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// memory is what a process holds of the machine's, in MiB.
func (p process) memory(b *testing.B) (resident, anonymous float64) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			resident = kib / 1024
		}
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kib); n == 1 {
			anonymous = kib / 1024
		}
	}
	return resident, anonymous
}

// BenchmarkMemory is what the real agent holds with so many tokens in memory,
// each of 1,400 bytes, when they have been asked for and it is at rest.
func BenchmarkMemory(b *testing.B) {
	for _, tokens := range []int{0, 10, 1000, 10_000} {
		b.Run(fmt.Sprint("tokens=", tokens), func(b *testing.B) {
			p := startAgent(b, unlimited)
			c := &client{addr: p.doors["quiet"]}
			for i := range tokens {
				c.request = fmt.Appendf(nil, "GET %shttps://api-%d.example HTTP/1.1\r\nHost: %s\r\nMetadata: true\r\n\r\n", ask, i, c.addr)
				if status, err := c.ask(); err != nil || status != "200" {
					b.Fatalf("token %d: status %s, %v", i, status, err)
				}
			}
			time.Sleep(3 * time.Second)
			for b.Loop() { // measured once
			}
			resident, anonymous := p.memory(b)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(resident, "resident-MiB")
			b.ReportMetric(anonymous, "anonymous-MiB")
		})
	}
}

// BenchmarkNewConnection is a token for a program that connects anew for each,
// evidence and all, against one that keeps its connection, and against an empty
// handler that is connected to anew.
func BenchmarkNewConnection(b *testing.B) {
	anew, kept, emp := side{process: startAgent(b, unlimited)}, side{}, side{process: startEmpty(b)}
	kept.process = anew.process
	for b.Loop() {
		for s, new := range map[*side]bool{&anew: true, &kept: false, &emp: true} {
			l := s.at("quiet", 4, 500*time.Millisecond)
			l.Anew = new
			s.round(b, l)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(anew.p50)*1e6, "anew-p50-µs")
	b.ReportMetric(median(kept.p50)*1e6, "kept-p50-µs")
	b.ReportMetric(median(emp.p50)*1e6, "empty-anew-p50-µs")
	b.ReportMetric((median(anew.cost)-median(kept.cost))*1e6, "connection-cpu-µs")
}

// BenchmarkNeighbour is what a caller in a tight loop on 64 connections does to
// another, who asks 100 times a second over one, with the limits that a host has
// if nobody says otherwise. The empty handler, under the load that it can bear,
// shows what of it is the machine's.
func BenchmarkNeighbour(b *testing.B) {
	for name, start := range map[string]func(*testing.B) process{
		"innate": func(b *testing.B) process { return startAgent(b, "") },
		"empty":  startEmpty,
	} {
		b.Run(name, func(b *testing.B) {
			p := start(b)
			var quiet, beside []float64
			for b.Loop() {
				l := p.at("quiet", 1, time.Second)
				l.Every = 10 * time.Millisecond
				quiet = append(quiet, l.run(b).P99.Seconds())
				loud := p.at("loud", 64, 2*time.Second).start(b)
				time.Sleep(500 * time.Millisecond)
				o := l.run(b)
				if o.Refused > 0 {
					b.Errorf("%d of %d requests of the quiet caller were refused", o.Refused, o.Answers)
				}
				beside = append(beside, o.P99.Seconds())
				loud()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(quiet)*1e6, "quiet-p99-µs")
			b.ReportMetric(median(beside)*1e6, "beside-p99-µs")
			b.ReportMetric(median(beside)/median(quiet), "p99-ratio")
		})
	}
}
