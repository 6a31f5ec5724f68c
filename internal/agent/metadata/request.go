package metadata

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// MaxResource is the longest audience that may be asked for, in bytes.
const MaxResource = 1024

// Query is a token request, whichever dialect it came in.
type Query struct {
	// APIVersion is a date that the dialect takes.
	APIVersion string
	// Resource is the audience, exactly as written.
	Resource string
	// At most one of these says which identity: a GUID in lower case, one
	// more, a resource ID.
	ClientID, ObjectID, ResourceID string
	// BypassCache asks for a token that was not given before.
	BypassCache bool
	// RefreshSHA256 is the hex digest of a token that the client wants no
	// more; empty for none.
	RefreshSHA256 string
}

// The identity of a request may be named in any of these words, in any
// dialect: SDKs of different ages mix them.
var (
	clientIDKeys   = []string{"client_id", "clientid"}
	objectIDKeys   = []string{"object_id", "principal_id"}
	resourceIDKeys = []string{"msi_res_id", "mi_res_id"}

	// readKeys are all that is read.
	readKeys = slices.Concat([]string{"api-version", "resource", "bypass_cache", "token_sha256_to_refresh", "format", "nonce"}, clientIDKeys, objectIDKeys, resourceIDKeys)
)

// ParseQuery reads the query of a token request. version says whether the
// dialect takes an api-version. With an error, APIVersion is what was written,
// if that could be read at all.
func ParseQuery(raw string, version func(string) error) (Query, error) {
	values, err := values(raw)
	if err != nil {
		return Query{}, err
	}
	q := Query{APIVersion: values.Get("api-version")}
	if err := once(values); err != nil {
		return q, err
	}
	if q.APIVersion == "" {
		return q, problem.Errorf(problem.MissingAPIVersion, "Required query variable 'api-version' is missing")
	}
	if err := version(q.APIVersion); err != nil {
		return q, err
	}
	return q, q.read(values)
}

// values reads a query or a form.
func values(raw string) (url.Values, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &problem.Error{Kind: problem.Invalid, Detail: "the query string does not parse", Err: err}
	}
	return v, nil
}

// read fills in what is asked for.
func (q *Query) read(values url.Values) error {
	if q.Resource = values.Get("resource"); q.Resource == "" {
		return problem.Errorf(problem.MissingParameter, "Required query variable 'resource' is missing")
	}
	if len(q.Resource) > MaxResource || !printable(q.Resource) {
		return problem.Errorf(problem.Invalid, "Query variable 'resource' must be at most %d printable ASCII characters", MaxResource)
	}
	q.BypassCache = strings.EqualFold(values.Get("bypass_cache"), "true")
	if q.RefreshSHA256 = strings.ToLower(values.Get("token_sha256_to_refresh")); q.RefreshSHA256 != "" && !hexDigest(q.RefreshSHA256) {
		return problem.Errorf(problem.Invalid, "Query variable 'token_sha256_to_refresh' must be a SHA-256 digest in hex")
	}
	return selector(q, values)
}

// once refuses a key that we read and that is there twice: two readers could
// take two different ones.
func once(values url.Values) error {
	for _, k := range readKeys {
		if len(values[k]) > 1 {
			return problem.Errorf(problem.Invalid, "Query variable '%s' is given more than once", k)
		}
	}
	return nil
}

// selector fills in which identity is asked for. The same one in two
// spellings is one.
func selector(q *Query, values url.Values) error {
	var kinds int
	for _, group := range []struct {
		keys []string
		to   *string
		read func(string) (string, error)
	}{
		{clientIDKeys, &q.ClientID, guid},
		{objectIDKeys, &q.ObjectID, guid},
		{resourceIDKeys, &q.ResourceID, resourceID},
	} {
		for _, k := range group.keys {
			v := values.Get(k)
			if v == "" {
				continue
			}
			id, err := group.read(v)
			if err != nil {
				return &problem.Error{Kind: problem.Invalid, Detail: "Query variable '" + k + "': " + problem.Of(err).Detail, Err: err}
			}
			if *group.to == "" {
				kinds++
			} else if !strings.EqualFold(*group.to, id) {
				kinds++ // one kind, two values
			}
			*group.to = id
		}
	}
	if kinds > 1 {
		return problem.Errorf(problem.Invalid, "More than one identity is named; give one of client_id, object_id and msi_res_id")
	}
	return nil
}

func guid(s string) (string, error) {
	// uuid.Parse also takes braces, URNs and bare hex, which no identity is written in.
	id, err := uuid.Parse(s)
	if err != nil || len(s) != 36 {
		return "", problem.Errorf(problem.Invalid, "a GUID was expected")
	}
	return id.String(), nil
}

func resourceID(s string) (string, error) {
	id, err := resource.Parse(s)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func hexDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// date reads an api-version of the form 2018-02-01.
func date(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, problem.Errorf(problem.BadAPIVersion, "Query variable 'api-version' must be a date, YYYY-MM-DD")
	}
	return t, nil
}

// path returns the request's path in the one form that is compared: doubled
// slashes made one and one trailing slash taken off, which SDKs produce by
// joining texts. Nothing else is tolerated and nothing is redirected: a client
// that follows a redirect could be sent elsewhere, and two readings of one
// path are how guards are walked around.
func path(r *http.Request) (string, error) {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if r.Method == http.MethodConnect || !strings.HasPrefix(raw, "/") {
		return "", problem.Errorf(problem.Invalid, "The request must name a path on this server; proxy requests are not served")
	}
	if strings.Contains(raw, "%") {
		return "", problem.Errorf(problem.Invalid, "The path must not be percent-encoded")
	}
	for strings.Contains(raw, "//") {
		raw = strings.ReplaceAll(raw, "//", "/")
	}
	for segment := range strings.SplitSeq(raw, "/") {
		if segment == "." || segment == ".." {
			return "", problem.Errorf(problem.Invalid, "The path must not have dot segments")
		}
	}
	if len(raw) > 1 {
		raw = strings.TrimSuffix(raw, "/")
	}
	return raw, nil
}

// guard refuses what no program on this host sends by itself: requests that a
// proxy or a tricked browser forwards.
func guard(r *http.Request) error {
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via"} {
		if _, ok := r.Header[name]; ok { // also when empty
			return problem.Errorf(problem.Invalid, "Header '%s' is not allowed: requests must not come through a proxy", name)
		}
	}
	if !literalHost(r.Host) {
		return problem.Errorf(problem.Invalid, "Header 'Host' must be an IP address or localhost")
	}
	return nil
}

// bodyless refuses a body where none has a meaning: what is left of it could
// be read as another request.
func bodyless(r *http.Request) error {
	if r.ContentLength != 0 {
		return problem.Errorf(problem.Invalid, "The request must not have a body")
	}
	return nil
}

// literalHost reports whether a Host header is an IP address or "localhost",
// with or without a port. A name is how DNS rebinding looks from here.
func literalHost(host string) bool {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		if _, err := strconv.ParseUint(host[i+1:], 10, 16); err != nil {
			return false
		}
		name = host[:i]
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	inner, bracketed := strings.CutPrefix(name, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(inner)
	return err == nil && addr.Zone() == "" && addr.Is6() == bracketed
}

// get refuses every method but GET: HEAD would make a token to throw away.
func get(r *http.Request) error {
	if r.Method != http.MethodGet {
		return problem.Errorf(problem.MethodNotAllowed, "Only GET is allowed")
	}
	return nil
}

// one returns a header that must be there exactly once.
func one(r *http.Request, name string) (string, bool) {
	v := r.Header.Values(name)
	if len(v) != 1 {
		return "", false
	}
	return strings.TrimSpace(v[0]), true
}
