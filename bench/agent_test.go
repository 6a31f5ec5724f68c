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
// that says what the real one says, in as many bytes.
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
	cp.Place(fleetapi.Placement{Name: "quiet", Door: "quiet", Resource: web1}, fleetapi.Placement{Name: "loud", Door: "loud", Resource: web1})
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
	cmd := role("empty")
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
	rate, p99, cost []float64 // answers a second; seconds; seconds of processor for an answer
}

func (s *side) round(b *testing.B, l load) {
	o := l.run(b)
	if o.Refused > 0 {
		b.Fatalf("%d of %d requests were refused", o.Refused, o.Answers)
	}
	s.rate = append(s.rate, o.rate())
	s.p99 = append(s.p99, o.P99.Seconds())
	s.cost = append(s.cost, o.CPU.Seconds()/float64(o.Answers))
}

// BenchmarkCachedToken is a token from the agent's memory: through the door, on
// the connection's evidence, by placement and rules, put on record. Agent and
// empty handler are measured in turns, so that what else the machine does is in
// both; each figure is the median of all turns.
func BenchmarkCachedToken(b *testing.B) {
	for _, connections := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint("connections=", connections), func(b *testing.B) {
			inn, emp := side{process: startAgent(b, unlimited)}, side{process: startEmpty(b)}
			for b.Loop() {
				for _, s := range []*side{&inn, &emp} {
					s.round(b, s.at("quiet", connections, 500*time.Millisecond))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(inn.rate), "answers/s")
			b.ReportMetric(median(inn.rate)/median(emp.rate), "rate-ratio")
			b.ReportMetric(median(inn.p99)*1e6, "p99-µs")
			b.ReportMetric(median(inn.p99)/median(emp.p99), "p99-ratio")
			b.ReportMetric(median(inn.cost)*1e6, "cpu-µs")
			b.ReportMetric(median(emp.cost)/median(inn.cost), "cpu-ratio")
		})
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
