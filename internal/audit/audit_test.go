package audit

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func chain(t *testing.T, n int) []Batch {
	t.Helper()
	var out []Batch
	seq, hash := int64(0), ""
	for i := range n {
		b, err := Chained("t1", "c1", seq, hash, []Event{{Tenant: "t1", At: time.Unix(int64(i), 0), Action: "a", Target: "/", Outcome: Allowed}})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
		seq, hash = b.Seq, b.Hash
	}
	return out
}

func TestVerifyTakesAnUnbrokenChain(t *testing.T) {
	all := chain(t, 5)
	if err := Verify(0, "", all); err != nil {
		t.Errorf("Verify(whole) = %v", err)
	}
	if err := Verify(all[1].Seq, all[1].Hash, all[2:]); err != nil {
		t.Errorf("Verify(from the third) = %v", err)
	}
	if err := Verify(0, "", nil); err != nil {
		t.Errorf("Verify(nothing) = %v", err)
	}
}

func TestVerifyFinds(t *testing.T) {
	other, err := Chained("t1", "c2", 0, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		harm func(b []Batch) []Batch
		says string
	}{
		{"a changed body", func(b []Batch) []Batch {
			b[2].Body = []byte(strings.Replace(string(b[2].Body), "allowed", "denied!", 1))
			return b
		}, "batch 3 was changed"},
		{"a changed tenant", func(b []Batch) []Batch { b[0].Tenant = "t2"; return b }, "batch 1 was changed"},
		{"a body changed with its hash", func(b []Batch) []Batch { b[2].Body = []byte("[]"); b[2].Hash = b[2].sum(); return b }, "batch 4 does not follow"},
		{"a dropped batch", func(b []Batch) []Batch { return append(b[:1], b[2:]...) }, "batch 3 follows 1"},
		{"a dropped first batch", func(b []Batch) []Batch { return b[1:] }, "batch 2 follows 0"},
		{"a dropped and renumbered batch", func(b []Batch) []Batch { b[2].Seq = 2; return append(b[:1], b[2:]...) }, "does not follow the batch before"},
		{"swapped bodies", func(b []Batch) []Batch { b[1].Body, b[2].Body = b[2].Body, b[1].Body; return b }, "batch 2 was changed"},
		{"two batches in the other order", func(b []Batch) []Batch { b[1], b[2] = b[2], b[1]; return b }, "batch 3 follows 1"},
		{"a batch twice", func(b []Batch) []Batch { return append(b[:2], b[1:]...) }, "batch 2 follows 2"},
		{"a batch of another chain", func(b []Batch) []Batch { b[1] = other; return b }, "another chain"},
		{"a batch under another tenant", func(b []Batch) []Batch { b[3].Tenant = "t2"; return b }, "another chain"},
	} {
		err := Verify(0, "", tt.harm(chain(t, 4)))
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: Verify = %v, want %q", tt.name, err, tt.says)
		}
	}
}

func TestFieldsDoNotRunTogether(t *testing.T) {
	a, err := Chained("t", "1c", 0, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Chained("t1", "c", 0, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash == b.Hash {
		t.Error("two batches whose tenant and chain join to the same text have the same hash")
	}
}

func TestEventsComeBack(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 1_999_999, time.FixedZone("x", 3600))
	in := []Event{{Tenant: "t1", At: at, Action: "a", Target: "/<x>", Outcome: Denied, Reason: "no role"}}
	b, err := Chained("t1", "c", 0, "", in)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Events()
	if err != nil {
		t.Fatal(err)
	}
	want := in[0]
	want.At = at.UTC().Truncate(time.Millisecond)
	if d := cmp.Diff([]Event{want}, got); d != "" {
		t.Errorf("Events (-want +got):\n%s", d)
	}
	if !in[0].At.Equal(at) {
		t.Error("Chained changed its caller's events")
	}
}

func TestEventJSON(t *testing.T) {
	full := Event{Tenant: "not shown: the row has it", At: time.UnixMilli(1_770_000_000_123).UTC(), Action: "Innate.Token/issue/action",
		Target: "/subscriptions/s", Outcome: Refused, Principal: "p", Name: "vm1", Host: "h", Via: "door:imds grade:kernel",
		Reason: "r", Audience: "https://vault", Token: "uti", Count: 3, Request: "id"}
	got, err := json.MarshalIndent([]Event{full, {At: full.At, Action: "a", Target: "/", Outcome: Allowed}}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "event.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
		t.Errorf("an event's JSON changed; old records must stay readable (-want +got):\n%s", d)
	}
}
