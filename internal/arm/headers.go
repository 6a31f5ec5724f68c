package arm

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/web"
)

var correlation = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// sayHeaders sets what every answer of the management API has. A client's own
// correlation id comes back, unless it is more than an id.
func sayHeaders(w http.ResponseWriter, r *http.Request, now time.Time) {
	h := w.Header()
	id := web.RequestID(r.Context())
	own := r.Header.Get("X-Ms-Correlation-Request-Id")
	if !correlation.MatchString(own) {
		own = id
	}
	h.Set("X-Ms-Correlation-Request-Id", own)
	h.Set("X-Ms-Routing-Request-Id", strings.ToUpper(localRegion)+":"+now.UTC().Format("20060102T150405Z")+":"+id)
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("Cache-Control", "no-cache, no-store")
}

// localRegion is the one place that there is.
const localRegion = "local"
