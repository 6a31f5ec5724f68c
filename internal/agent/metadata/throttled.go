package metadata

import (
	"net/http"

	"github.com/innate-id/innate/internal/problem"
)

// throttled is the answer to a caller that asks too often, in words that are
// IMDS's and App Service's at once: it is given before the request is looked
// at. Clients go by the status.
type throttled struct {
	CorrelationID string `json:"correlationId"`
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Message       string `json:"message"`
	StatusCode    int    `json:"statusCode"`
}

// Throttled answers a request that nobody looks at, with 429 and Retry-After.
func Throttled(w http.ResponseWriter, err error) {
	id := begin(w)
	detail := problem.Of(err).Detail
	w.Header().Set("Retry-After", "1")
	write(w, http.StatusTooManyRequests, throttled{id, "too_many_requests", detail, detail, http.StatusTooManyRequests})
}
