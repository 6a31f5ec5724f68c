package metadata

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/fleetapi"
)

// nobody takes an answer.
type nobody struct{ h http.Header }

func (n nobody) Header() http.Header         { return n.h }
func (n nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n nobody) WriteHeader(int)             {}

// BenchmarkAnswer is what the dialect itself costs: nothing is asked of the
// agent around it.
func BenchmarkAnswer(b *testing.B) {
	tok := fleetapi.TokenResponse{AccessToken: strings.Repeat("eyJ0eXAiOi", 140), ClientID: "6f1e6a3c-0000-4000-8000-000000000002", Expires: time.Now().Add(time.Hour)}
	h := IMDS(Agent{
		Place: func(context.Context) (*Caller, error) { return new(Caller), nil },
		Token: func(context.Context, *Caller, *Query) (*fleetapi.TokenResponse, tokens.Source, error) {
			return &tok, tokens.Hit, nil
		},
		Now: time.Now,
		Log: slog.New(slog.DiscardHandler),
	})
	r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI = r.URL.RequestURI()
	r.Header.Set("Metadata", "true")
	w := nobody{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}
