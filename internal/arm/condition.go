package arm

import (
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Condition is what If-Match and If-None-Match ask of the resource as it is
// (RFC 9110, 13.1).
type Condition struct {
	// Match is a list of ETags, or "*" alone; empty asks nothing.
	Match []string
	// NoneMatch is a list of ETags that the resource must not have, or "*"
	// alone: there must be no such resource.
	NoneMatch []string
}

// condition reads the two headers.
func condition(r *http.Request) (c Condition, err error) {
	if c.Match, err = etags(r, "If-Match"); err == nil {
		c.NoneMatch, err = etags(r, "If-None-Match")
	}
	return c, err
}

// etags reads a header: "*", or entity tags with commas between. A tag without
// quotes, as some clients send it, is taken as it is.
func etags(r *http.Request, header string) ([]string, error) {
	var out []string
	for _, line := range r.Header.Values(header) {
		for _, t := range strings.Split(line, ",") { // no ETag of ours has a comma
			t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
			bare := strings.TrimSuffix(strings.TrimPrefix(t, `"`), `"`)
			if bare == "" || strings.ContainsAny(bare, `" `) || strings.HasPrefix(t, `"`) != strings.HasSuffix(t, `"`) {
				return nil, problem.Errorf(problem.Invalid, "The header '%s' has '%s'; * or ETags in quotes were expected, with commas between.", header, problem.Clip(t)).At(header)
			}
			if bare == "*" && t != "*" {
				bare = `"*"` // a tag in quotes, which no resource has
			}
			out = append(out, bare)
		}
	}
	if len(out) > 1 {
		for _, t := range out {
			if t == "*" {
				return nil, problem.Errorf(problem.Invalid, "The header '%s' has * among others; it stands alone.", header).At(header)
			}
		}
	}
	return out, nil
}

// has reports whether a list of tags is of the resource.
func has(tags []string, old *Resource) bool {
	if old == nil {
		return false
	}
	for _, t := range tags {
		if t == "*" || t == etag(*old) {
			return true
		}
	}
	return false
}

func (c Condition) check(old *Resource) error {
	failed := func(header, format string, args ...any) error {
		return problem.Errorf(problem.PreconditionFailed, format, args...).At(header)
	}
	switch {
	case len(c.NoneMatch) > 0 && has(c.NoneMatch, old):
		return failed("If-None-Match", "The resource exists, and the request has If-None-Match: %s. Its ETag is \"%s\".", strings.Join(c.NoneMatch, ", "), etag(*old))
	case len(c.Match) > 0 && old == nil:
		return failed("If-Match", "The resource does not exist, and the request has If-Match.")
	case len(c.Match) > 0 && !has(c.Match, old):
		return failed("If-Match", "The resource has changed: its ETag is now \"%s\". Read it again and retry.", etag(*old))
	}
	return nil
}
