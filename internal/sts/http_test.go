package sts_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/sts"
)

// oauthError is the error body as clients read it; a member more or less fails.
type oauthError struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

// problem checks that the answer is an error in the form that clients parse.
func (a answer) problem(t testing.TB, status, code int, word string) oauthError {
	t.Helper()
	var e oauthError
	a.json(t, &e)
	if a.status != status || e.Error != word || len(e.Codes) != 1 || e.Codes[0] != code {
		t.Fatalf("answer %d %s, want %d %s AADSTS%d", a.status, a.text, status, word, code)
	}
	want := fmt.Sprintf("\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s", e.TraceID, e.CorrelationID, e.Timestamp)
	if !strings.HasPrefix(e.Description, fmt.Sprintf("AADSTS%d: ", code)) || !strings.HasSuffix(e.Description, want) {
		t.Errorf("error_description = %q, want AADSTS%d and %q", e.Description, code, want)
	}
	if e.Timestamp != "2026-09-21 14:13:20Z" || e.URI != fmt.Sprintf("%s/error?code=%d", login, code) {
		t.Errorf("timestamp %q, error_uri %q", e.Timestamp, e.URI)
	}
	if _, err := uuid.Parse(e.TraceID); err != nil || e.TraceID != a.header.Get("X-Ms-Request-Id") {
		t.Errorf("trace_id %q, x-ms-request-id %q", e.TraceID, a.header.Get("X-Ms-Request-Id"))
	}
	for name, want := range map[string]string{"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	return e
}

const (
	tokenV2 = "/" + tenantA + "/oauth2/v2.0/token"
	tokenV1 = "/" + tenantA + "/oauth2/token"
	grant   = "grant_type=client_credentials"
	scope   = "&scope=https%3A%2F%2Fvault.azure.net%2F.default"
)

func TestTokenEndpointRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	basic := func(s string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s))
	}
	for _, tt := range []struct {
		name, path, body string
		headers          []string
		status, code     int
		word             string
	}{
		{"a secret", tokenV2, grant + "&client_id=c&client_secret=s3cr3t" + scope, nil, 401, 7000215, "invalid_client"},
		{"a secret, v1", tokenV1, grant + "&client_id=c&client_secret=s3cr3t&resource=https://vault.azure.net", nil, 401, 7000215, "invalid_client"},
		{"a secret in the header", tokenV2, grant + scope, []string{basic("c:s3cr3t")}, 401, 7000215, "invalid_client"},
		{"a secret twice", tokenV2, grant + "&client_secret=s3cr3t" + scope, []string{basic("c:s3cr3t")}, 400, 90013, "invalid_request"},
		{"a header that is not Basic", tokenV2, grant + scope, []string{"Authorization: Bearer s3cr3t"}, 401, 7000215, "invalid_client"},
		{"a header without a colon", tokenV2, grant + scope, []string{basic("s3cr3t")}, 401, 7000215, "invalid_client"},
		{"a header with a bad escape", tokenV2, grant + scope, []string{basic("%zz:s3cr3t")}, 401, 7000215, "invalid_client"},
		{"an assertion", tokenV2, grant + "&client_id=c&client_assertion=s3cr3t&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer" + scope, nil, 401, 50027, "invalid_client"},
		{"an assertion of no type", tokenV2, grant + "&client_id=c&client_assertion=s3cr3t" + scope, nil, 400, 900144, "invalid_request"},
		{"no credential", tokenV2, grant + "&client_id=c" + scope, nil, 401, 7000218, "invalid_client"},
		{"no client", tokenV2, grant + scope, nil, 400, 900144, "invalid_request"},
		{"no grant", tokenV2, "client_id=c" + scope, nil, 400, 900144, "invalid_request"},
		{"no body", tokenV2, "", nil, 400, 900144, "invalid_request"},
		{"unknown grant", tokenV2, "grant_type=password&username=u&password=s3cr3t" + scope, nil, 400, 70003, "unsupported_grant_type"},
		{"no scope", tokenV2, grant + "&client_id=c", nil, 400, 900144, "invalid_request"},
		{"no resource, v1", tokenV1, grant + "&client_id=c", nil, 400, 900144, "invalid_request"},
		{"two scopes", tokenV2, grant + "&client_id=c&scope=a/.default+b/.default", nil, 400, 70011, "invalid_scope"},
		{"only OpenID scopes", tokenV2, grant + "&client_id=c&scope=openid+profile", nil, 400, 70011, "invalid_scope"},
		{"no .default", tokenV2, grant + "&client_id=c&scope=https://vault.azure.net/read", nil, 400, 1002012, "invalid_scope"},
		{"a parameter twice", tokenV2, grant + "&client_id=c&client_id=d" + scope, nil, 400, 90013, "invalid_request"},
		{"no form", tokenV2, "%zz", nil, 400, 90013, "invalid_request"},
		{"JSON", tokenV2, `{"grant_type":"client_credentials"}`, []string{"Content-Type: application/json"}, 400, 900144, "invalid_request"},
		{"too long", tokenV2, grant + "&x=" + strings.Repeat("x", 64<<10), nil, 413, 90013, "invalid_request"},
		{"unknown tenant", "/" + nowhere + "/oauth2/v2.0/token", grant, nil, 400, 90002, "invalid_request"},
		{"a tenant by name", "/contoso.test/oauth2/v2.0/token", grant, nil, 400, 90002, "invalid_request"},
		{"a tenant without dashes", "/" + strings.ReplaceAll(tenantA, "-", "") + "/oauth2/v2.0/token", grant, nil, 400, 90002, "invalid_request"},
		{"a tenant in braces", "/%7B" + tenantA + "%7D/oauth2/v2.0/token", grant, nil, 400, 90002, "invalid_request"},
		{"a tenant with NUL", "/a%00b/oauth2/v2.0/token", grant, nil, 404, 900439, "invalid_request"},
		{"common", "/common/oauth2/v2.0/token", grant, nil, 400, 50059, "invalid_request"},
		{"organizations", "/Organizations/oauth2/token", grant, nil, 400, 50059, "invalid_request"},
		{"consumers", "/consumers/oauth2/v2.0/token", grant, nil, 400, 50059, "invalid_request"},
		{"another path", "/" + tenantA + "/oauth2/v2.0/authorize", grant, nil, 404, 900439, "invalid_request"},
		{"the root", "/", grant, nil, 404, 900439, "invalid_request"},
		{"dots", "/" + tenantA + "/x/%2e%2e/oauth2/v2.0/token", grant, nil, 404, 900439, "invalid_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := w.do(t, http.MethodPost, tt.path, tt.body, tt.headers...)
			e := a.problem(t, tt.status, tt.code, tt.word)
			if strings.Contains(a.text, "s3cr3t") {
				t.Errorf("the answer repeats the credential: %s", a.text)
			}
			if e.CorrelationID != e.TraceID {
				t.Errorf("correlation_id %q, want the trace id where the client sent none", e.CorrelationID)
			}
		})
	}
	t.Cleanup(func() { // after the parallel rows
		if strings.Contains(w.log.String(), "s3cr3t") {
			t.Errorf("the log holds a credential: %s", w.log)
		}
	})
}

func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(t, http.MethodGet, tokenV2, "").problem(t, 405, 900561, "invalid_request")
	w.do(t, http.MethodPut, tokenV1, grant).problem(t, 405, 900561, "invalid_request")
	for _, path := range []string{"/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys", "/discovery/instance"} {
		w.do(t, http.MethodPost, "/"+tenantA+path, "").problem(t, 405, 900561, "invalid_request")
	}
	if a := w.do(t, http.MethodHead, "/"+tenantA+"/discovery/keys", ""); a.status != 200 || a.text != "" {
		t.Errorf("HEAD of the keys = %d %s", a.status, a.text)
	}
}

// TestMissingParameterIsNamed: the v1 endpoint has resource where v2 has scope.
func TestMissingParameterIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, want := range map[string]string{tokenV2: "'scope'", tokenV1: "'resource'"} {
		e := w.do(t, http.MethodPost, path, grant+"&client_id=c").problem(t, 400, 900144, "invalid_request")
		if !strings.Contains(e.Description, want) {
			t.Errorf("%s: %q, want it to name %s", path, e.Description, want)
		}
	}
}

// TestOddClients are requests as the field's libraries send them: all get as far
// as the credential.
func TestOddClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const guid = "12345678-1234-1234-1234-123456789abc"
	body := grant + "&client_id=c&client_secret=s" + scope
	js := body + "&client-request-id=" + guid + "&x-client-SKU=msal.js.node&x-client-VER=7.2.1&x-client-OS=linux&x-client-CPU=x64" +
		"&x-ms-lib-capability=retry-after%2C%20h429&x-client-current-telemetry=5%7C771%2C0%2C%2C%2C%7C%2C&x-client-last-telemetry=5%7C0%7C%7C%7C0%2C0&claims=%7B%7D"
	golang := strings.Replace(body, scope, "&scope=https%3A%2F%2Fvault.azure.net%2F%2F.default+openid+offline_access+profile&client_info=1", 1)
	for _, tt := range []struct {
		name, path, body string
		headers          []string
		correlation      string
	}{
		{"JavaScript", tokenV2 + "?client-request-id=" + guid, js, []string{"Content-Type: application/x-www-form-urlencoded;charset=utf-8"}, guid},
		{"Go", tokenV2, golang, []string{"Client-Request-Id: " + guid, "Return-Client-Request-Id: false", "Content-Type: application/x-www-form-urlencoded; charset=utf-8"}, guid},
		{"a bare question mark", tokenV2 + "?", body, nil, ""},
		{"a slash after it", tokenV2 + "/", body, nil, ""},
		{"doubled slashes", "/" + strings.ReplaceAll(tokenV2, "/oauth2", "//oauth2"), body, nil, ""},
		{"upper case", strings.ToUpper(tokenV2), body, []string{"Content-Type: Application/X-WWW-Form-URLEncoded"}, ""},
		{"a request id that is no GUID", tokenV2, body, []string{"Client-Request-Id: <script>"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := w.do(t, http.MethodPost, tt.path, tt.body, tt.headers...)
			e := a.problem(t, 401, 7000215, "invalid_client")
			if tt.correlation == "" && e.CorrelationID != e.TraceID || tt.correlation != "" && e.CorrelationID != tt.correlation {
				t.Errorf("correlation_id = %q, want %q", e.CorrelationID, tt.correlation)
			}
			if got := a.header.Get("Client-Request-Id"); strings.Contains(got, "<") {
				t.Errorf("client-request-id echoes %q", got)
			}
		})
	}
}

func TestEveryKindHasWords(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Kinds() {
		if !sts.HasWords(k) {
			t.Errorf("the token service has no words for %s", k)
		}
	}
	if sts.Kinds() != len(problem.Kinds()) {
		t.Errorf("the token service has words for %d kinds, and there are %d", sts.Kinds(), len(problem.Kinds()))
	}
}

// TestRetryAfter: JavaScript clients stay away for a minute after a 429 or any
// 5xx that does not say otherwise.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := 0
	for _, k := range problem.Kinds() {
		rec := httptest.NewRecorder()
		w.sts.WriteProblem(rec, httptest.NewRequest(http.MethodPost, tokenV2, nil), k, "detail")
		again := rec.Code == 429 || rec.Code >= 500
		if got := rec.Header().Get("Retry-After") != ""; got != again {
			t.Errorf("%s: %d has Retry-After %v, want %v", k, rec.Code, got, again)
		}
		if again {
			seen++
		}
		if !regexp.MustCompile(`"error_description":"AADSTS\d+: detail\\r\\n`).Match(rec.Body.Bytes()) {
			t.Errorf("%s: %s", k, rec.Body)
		}
	}
	if seen < 3 {
		t.Errorf("%d kinds are worth another try, want throttled, unavailable, internal", seen)
	}
}

// TestFaultsAreNotShown: the database is away, and the client hears no more.
func TestFaultsAreNotShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	a := w.do(t, http.MethodPost, tokenV2, grant+"&client_id=c&client_secret=s"+scope)
	e := a.problem(t, 500, 90020, "server_error")
	if strings.Contains(a.text, "sql") || !strings.HasPrefix(e.Description, "AADSTS90020: internal error\r\n") {
		t.Errorf("the client is told %s", a.text)
	}
	if !strings.Contains(w.log.String(), e.TraceID) || !strings.Contains(w.log.String(), `"level":"ERROR"`) {
		t.Errorf("the log has nothing of it: %s", w.log)
	}
}
