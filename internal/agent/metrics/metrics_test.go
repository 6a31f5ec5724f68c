package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/metrics"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
)

func facts() metrics.Facts {
	return metrics.Facts{
		Feed:    func() (bool, int64, time.Duration) { return true, 7, 1500 * time.Millisecond },
		Journal: func() (int64, int64) { return 3, 10 },
		Tokens:  func() int { return 4 },
		Starts:  func() int { return 5 },
		Expires: func() time.Time { return time.Unix(1767225600, 0) },
	}
}

func page(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://localhost/metrics", nil)
	m.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("GET /metrics = %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// What is in no list is counted, and makes no new label.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := metrics.New(facts())
	before := strings.Count(page(t, m), "\ninnate_agent_")
	for _, dialect := range []string{"a", "b", strings.Repeat("c", 1000)} {
		m.Observe(&metadata.Event{Dialect: dialect, Outcome: metadata.OK, Caller: &metadata.Caller{Evidence: evidence.Evidence{Grade: 99}}})
	}
	after := page(t, m)
	if got := strings.Count(after, "\ninnate_agent_"); got != before {
		t.Errorf("%d series after requests of unknown dialects, %d before", got, before)
	}
	for _, want := range []string{
		`innate_agent_requests_total{cache="none",dialect="other",outcome="ok"} 3`,
		"innate_agent_feed_connected 1", "innate_agent_feed_revision 7", "innate_agent_feed_age_seconds 1.5", "innate_agent_journal_bytes 3",
		"innate_agent_journal_limit_bytes 10", "innate_agent_tokens 4", "innate_agent_starts 5", "innate_agent_certificate_expires_seconds 1.7672256e+09",
	} {
		if !strings.Contains(after, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	m := metrics.New(facts())
	ev := &metadata.Event{Dialect: "imds", Outcome: metadata.OK, Cache: tokens.Hit, Took: 20 * time.Microsecond, Caller: &metadata.Caller{Evidence: evidence.Evidence{Grade: evidence.GradeKernel}}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Observe(ev)
		}
	})
}
