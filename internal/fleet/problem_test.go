package fleet

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

func TestEveryKindHasItsStatus(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Kinds() {
		status := statuses[k]
		if status < 400 || status > 599 || status >= 500 && k != problem.Internal && k != problem.Unavailable {
			t.Errorf("kind %s has the status %d", k, status)
			continue
		}
		rec := httptest.NewRecorder()
		writeProblem(rec, nil, problem.Errorf(k, "detail"))
		var e fleetapi.Error
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || rec.Code != status || e != (fleetapi.Error{Kind: string(k), Detail: "detail"}) {
			t.Errorf("kind %s is answered %d %s", k, rec.Code, rec.Body)
		}
	}
	if len(statuses) != len(problem.Kinds()) {
		t.Errorf("the table has %d kinds, and there are %d", len(statuses), len(problem.Kinds()))
	}
}
