package tokens_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/tokens"
)

// BenchmarkGet is a token from memory, on record.
func BenchmarkGet(b *testing.B) {
	j, err := tokens.OpenJournal(b.TempDir(), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	p := &plane{life: 24 * time.Hour}
	c := tokens.New(tokens.Config{Fetch: p.fetch, Fresh: func() bool { return true }, Record: j.Served, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	defer c.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		again := req
		for pb.Next() {
			if _, _, err := c.Get(b.Context(), &again); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
