package metadata

import (
	"fmt"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
)

// What is remembered of queries is what reading them says, whatever else was
// asked before, and a query that does not read is never remembered as one.
func TestQueriesReadAsAlways(t *testing.T) {
	var m queries
	all := []string{"", "resource=r", "api-version=2018-02-01&resource=r&resource=r", "api-version=2018-02-01&resource=" + strings.Repeat("x", MaxResource)}
	for i := range 300 { // more than are remembered
		all = append(all, fmt.Sprintf("api-version=2018-02-01&resource=r%d", i), fmt.Sprintf("api-version=2018-02-01&resource=r&client_id=no-guid-%d", i))
	}
	for range 3 {
		for _, raw := range all {
			want, wantErr := ParseQuery(raw, imdsVersion)
			got, err := m.parse(raw, imdsVersion)
			if *got != want || problem.Of(err).Detail != problem.Of(wantErr).Detail {
				t.Fatalf("parse(%q) = %+v, %v, want %+v, %v", raw, got, err, want, wantErr)
			}
		}
	}
	for i := range m {
		if p := m[i].Load(); p != nil && len(p.raw) > maxRemembered {
			t.Errorf("a query of %d bytes is remembered", len(p.raw))
		}
	}
}
