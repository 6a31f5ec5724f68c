package metadata_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/problem"
)

// lines keeps a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.text.String()), "\n")
}

func logged(level slog.Level, fail error) (metadata.Agent, *lines) {
	out := new(lines)
	a := agent(new(metadata.Query), fail)
	a.Log = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level}))
	return a, out
}

const good = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=r HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"

// Every request is one line and one event, which say the same.
func TestRequestIsOneEvent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fail    error
		level   string
		outcome metadata.Outcome
		kind    problem.Kind
	}{
		{nil, "DEBUG", metadata.OK, ""},
		{problem.Errorf(problem.Denied, "no"), "INFO", metadata.Refused, problem.Denied},
		{problem.Errorf(problem.Throttled, "slower"), "INFO", metadata.Throttled, problem.Throttled},
		{problem.Errorf(problem.Unavailable, "away"), "INFO", metadata.Failed, problem.Unavailable},
		{problem.Errorf(problem.Internal, "bug"), "ERROR", metadata.Failed, problem.Internal},
	} {
		a, out := logged(slog.LevelDebug, tt.fail)
		seen := make(chan metadata.Event, 10)
		a.Observe = func(ev *metadata.Event) { seen <- *ev }
		d := open(t, metadata.IMDS(a))
		raw(t, d, good)
		ev := <-seen
		if ev.Dialect != "imds" || ev.Outcome != tt.outcome || ev.Kind != tt.kind || ev.Took <= 0 || len(seen) > 0 {
			t.Errorf("with %v: event %+v and %d more, want outcome %s", tt.fail, ev, len(seen), tt.outcome)
		}
		if err := d.Close(t.Context()); err != nil { // the line is written after the answer
			t.Fatal(err)
		}
		var line struct{ Level, Msg, Outcome, Kind string }
		got := out.all()
		if err := json.Unmarshal([]byte(got[0]), &line); err != nil || len(got) != 1 {
			t.Fatalf("with %v: log %q, %v", tt.fail, got, err)
		}
		if line.Level != tt.level || line.Msg != "request" || line.Outcome != string(tt.outcome) || line.Kind != string(tt.kind) {
			t.Errorf("with %v: line %+v, want level %s", tt.fail, line, tt.level)
		}
	}
}

// Anybody on the host can be refused as fast as they like; the disk is not
// filled with it. Faults of our own are all written.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	const many = 600
	for fail, flood := range map[*problem.Error]bool{problem.Errorf(problem.Denied, "no"): false, problem.Errorf(problem.Internal, "bug"): true} {
		a, out := logged(slog.LevelInfo, fail)
		d := open(t, metadata.IMDS(a))
		c, err := net.Dial("tcp", d.Addr())
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(c, strings.Repeat(strings.Replace(good, "Connection: close\r\n", "", 1), many-1)+good)
		answers, err := io.ReadAll(c) // to the end that the last one asks for
		c.Close()
		if n := strings.Count(string(answers), "HTTP/1.1 "); err != nil || n != many {
			t.Fatalf("%d answers, %v; want %d", n, err, many)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(out.all()); (n == many) != flood || n < 100 {
			t.Errorf("%d refusals of kind %s are %d lines", many, fail.Kind, n)
		}
	}
}
