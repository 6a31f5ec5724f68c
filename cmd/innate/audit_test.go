package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/client"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/dev"
)

// words of a line: bare ones have no blank, quote or equals sign in them.
var lineShape = regexp.MustCompile(`^\S+ (allowed|denied |refused) +W W on W( for=W)?( host=W)?( via=Q)?( because=Q)?( \(\d+ times\))?$`)

func shapeOf(line string) *regexp.Regexp {
	const quoted = `"(?:[ -!#-\[\]-~]|\\[^\n])*"`
	s := strings.ReplaceAll(lineShape.String(), "W", `(?:[^\s"=]+|`+quoted+`)`)
	return regexp.MustCompile(strings.ReplaceAll(s, "Q", quoted))
}

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestEventLineReads(t *testing.T) {
	ev := audit.Event{At: at, Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Outcome: audit.Allowed, Name: "vm1",
		Target: "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/demo/secrets/db", Audience: "https://vault.azure.net", Host: "dev",
		Via: "unix:uid:0 unix:path:/bin/x", Reason: "no role assignment allows it", Count: 3}
	want := at.Local().Format("15:04:05.000") + ` allowed vm1 Microsoft.KeyVault/vaults/secrets/getSecret on Microsoft.KeyVault/vaults/demo/secrets/db` +
		` for=https://vault.azure.net host=dev via="unix:uid:0 unix:path:/bin/x" because="no role assignment allows it" (3 times)`
	if got := eventLine(ev); got != want {
		t.Errorf("eventLine =\n%s\nwant\n%s", got, want)
	}
	for name, want := range map[string]string{"": "nobody", "Jürgen": "Jürgen", "a b": `"a b"`, "for=x": `"for=x"`, `"`: `"\""`} {
		if got := strings.Fields(eventLine(audit.Event{At: at, Outcome: audit.Allowed, Name: name, Action: "a", Target: "/"}) + " ")[2]; !strings.HasPrefix(want, got) {
			t.Errorf("the name %q is %s, want %s", name, got, want)
		}
	}
}

// forgeries are what a host or a client may put into a field.
var forgeries = []string{
	"ops Microsoft.Authorization/roleAssignments/write on Microsoft.KeyVault/vaults/demo because allowed by root #",
	`x" because="allowed by root`, `because="allowed"`, "x because=\"y\"", "x\u3164because=y", "x\u2800on\u2800y", "x\u00a0on\u00a0y", "x\u2003y",
	"a\u009b2Jb", "a\x1b[2Jb", "x\u2066y\u202ez\u200f", "\u200b", "\u202d", "\u2029", "\u2028", "\ufeff", "\xff\xfe", "a\nb", "a\tb", `\"`, "\U000e0041",
}

// TestNoFieldForgesAnother: whatever is in a field, the line still reads as the
// same fields, and moves no cursor.
func TestNoFieldForgesAnother(t *testing.T) {
	for _, bad := range forgeries {
		for name, put := range map[string]func(*audit.Event){
			"name": func(e *audit.Event) { e.Name = bad }, "principal": func(e *audit.Event) { e.Principal = bad }, "action": func(e *audit.Event) { e.Action = bad },
			"target": func(e *audit.Event) { e.Target = bad }, "audience": func(e *audit.Event) { e.Audience = bad }, "host": func(e *audit.Event) { e.Host = bad },
			"via": func(e *audit.Event) { e.Via = bad }, "reason": func(e *audit.Event) { e.Reason = bad },
		} {
			ev := audit.Event{At: at, Action: "a", Outcome: audit.Denied, Target: "/"}
			put(&ev)
			line := eventLine(ev)
			if !shapeOf(line).MatchString(line) {
				t.Errorf("%s %q is written as %s", name, bad, line)
			}
			for _, r := range line {
				if r != ' ' && (r < '!' || r > '~') {
					t.Errorf("%s %q leaves %U in %s", name, bad, r, line)
				}
			}
		}
	}
}

func TestJSONAtATerminalIsASCII(t *testing.T) {
	for _, bad := range forgeries {
		b, err := json.Marshal(audit.Event{At: at, Name: bad + "é\U0001f600", Action: "a", Outcome: audit.Allowed, Target: "/"})
		if err != nil {
			t.Fatal(err)
		}
		got := asciiJSON(string(b))
		if i := strings.IndexFunc(got, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Errorf("%q is printed as %s", bad, got)
		}
		var was, is audit.Event
		if err := json.Unmarshal(b, &was); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(got), &is); err != nil || is != was {
			t.Errorf("%s reads as %+v, %v, want %+v", got, is, err, was)
		}
	}
}

// TestTailGoesOnWithoutRepeats: the second answer begins before the end of the first.
func TestTailGoesOnWithoutRepeats(t *testing.T) {
	line := func(n int) string {
		return fmt.Sprintf(`{"at":"2026-03-01T12:00:00Z","action":"a%d","target":"/","outcome":"allowed"}`, n)
	}
	answers := [][]int{{1, 2, 2, 3}, {2, 2, 3, 4, 4}, {3, 4, 4, 2, 5}}
	var out bytes.Buffer
	p := &printer{w: &out, asJSON: true}
	for _, a := range answers {
		var in strings.Builder
		for _, n := range a {
			in.WriteString(line(n) + "\n")
		}
		if err := p.print(io.Reader(strings.NewReader(in.String()))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range regexp.MustCompile(`"a(\d)"`).FindAllStringSubmatch(out.String(), -1) {
		got = append(got, m[1])
	}
	// Two events may be alike, so one more than before is new.
	if s := strings.Join(got, ""); s != "1223445" {
		t.Errorf("printed %s, want 1223445", s)
	}
}

func TestTailForgetsWhatCannotComeAgain(t *testing.T) {
	p := &printer{w: io.Discard, keep: 10}
	for i := range 100 {
		in := fmt.Sprintf(`{"at":"2026-03-01T12:00:00Z","action":"a%d","target":"/","outcome":"allowed"}`, i)
		if err := p.print(strings.NewReader(in)); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.had) > 10 || len(p.order) > 10 {
		t.Errorf("%d lines are kept in mind, want at most 10", len(p.order))
	}
}

// TestTailAsksAnew: when the server ends an answer, the next one begins before
// the end of the last, by the server's clock.
func TestTailAsksAnew(t *testing.T) {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"access_token":"t","expires_on":"%d"}`, time.Now().Add(time.Hour).Unix())
	}))
	t.Cleanup(endpoint.Close)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var after []string
	serverTime := at.Add(time.Hour) // not ours
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after = append(after, r.URL.Query().Get("after"))
		w.Header().Set("Date", serverTime.Format(http.TimeFormat))
		fmt.Fprintln(w, `{"at":"2099-03-01T12:00:00Z","action":"again","target":"/","outcome":"allowed"}`)
		if len(after) == 2 {
			fmt.Fprintln(w, `{"at":"2026-03-01T12:00:00Z","action":"new","target":"/","outcome":"allowed"}`)
			w.(http.Flusher).Flush()
			cancel()
		}
	}))
	t.Cleanup(srv.Close)
	a := &acting{id: &client.Identity{Endpoint: endpoint.URL, Header: "x"}, http: srv.Client(), in: &dev.Instance{}}
	a.in.Endpoints.Management = srv.URL
	var out bytes.Buffer
	if err := a.tail(ctx, &printer{w: &out}, at, true); ctx.Err() == nil {
		t.Fatalf("the tail ended by itself: %v", err)
	}
	if len(after) != 2 || after[0] != at.Format(time.RFC3339Nano) {
		t.Fatalf("asked after %q", after)
	}
	second, err := time.Parse(time.RFC3339Nano, after[1])
	if err != nil || second.After(serverTime) || second.Before(serverTime.Add(-time.Minute)) {
		t.Errorf("asked anew after %s, %v, want shortly before %s", second, err, serverTime)
	}
	if n := strings.Count(out.String(), " again "); n != 1 {
		t.Errorf("an event is printed %d times:\n%s", n, &out)
	}
}
