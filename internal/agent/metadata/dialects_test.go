package metadata_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// now lies between two seconds: what is left is rounded down.
var now = time.Unix(1795385600, 500_000_000)

const secret = "start-secret"

// agent gives every caller one token; fail, if set, is what it says instead.
func agent(asked *metadata.Query, fail error) metadata.Agent {
	return metadata.Agent{
		Place: func(context.Context) (*metadata.Caller, error) { return &metadata.Caller{Workload: "/w"}, nil },
		Started: func(_ context.Context, got string) (*metadata.Caller, error) {
			if got != secret {
				return nil, problem.Errorf(problem.Unauthenticated, "no such start")
			}
			return &metadata.Caller{Workload: "/w"}, nil
		},
		Token: func(_ context.Context, _ *metadata.Caller, q *metadata.Query) (*fleetapi.TokenResponse, tokens.Source, error) {
			*asked = *q
			return &fleetapi.TokenResponse{
				AccessToken: "a.b.c", ClientID: "6f1e6a3c-0000-4000-8000-000000000002", Resource: q.Resource,
				Principal: "6f1e6a3c-0000-4000-8000-000000000001", Identity: "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u",
				NotBefore: time.Unix(1795385300, 0), Expires: time.Unix(1795471999, 0),
			}, tokens.Hit, fail
		},
		Now: func() time.Time { return now },
		Log: slog.New(slog.DiscardHandler),
	}
}

// open serves h at a real door.
func open(t *testing.T, h http.Handler) *door.Door {
	t.Helper()
	d, err := door.Listen(t.Context(), door.Config{Name: "main", Handler: h, Log: slog.New(slog.DiscardHandler), Identify: func(c net.Conn) (evidence.Evidence, error) {
		return new(caller.Identifier).Identify(c, caller.From{Door: "main"})
	}}, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.Serve()
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

// raw sends bytes as they are, so that no client tidies them up.
func raw(t *testing.T, d *door.Door, text string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("answer to %q: %v", text, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// needRoot fails where a test needs root, unless INNATE_SKIP names it.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
		t.Skip("INNATE_SKIP says to go without root")
	}
	t.Fatal("giving a file to another user takes root: run the tests as root, or set INNATE_SKIP=root")
}

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

const (
	tokenPath = "/metadata/identity/oauth2/token"
	goodQuery = "?api-version=2018-02-01&resource=https://vault.azure.net"
	head      = " HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n"
)

const imdsBody = `{"access_token":"a.b.c","client_id":"6f1e6a3c-0000-4000-8000-000000000002","expires_in":"86398","expires_on":"1795471999",` +
	`"ext_expires_in":"86398","not_before":"1795385300","resource":"https://vault.azure.net","token_type":"Bearer"}`

const missingHeader = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`

func TestIMDSOnTheWire(t *testing.T) {
	t.Parallel()
	guid := "6F1E6A3C-0000-4000-8000-000000000002"
	get := func(target string, lines ...string) string {
		return "GET " + target + head + strings.Join(lines, "") + "\r\n"
	}
	bare := func(target string, lines ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Join(lines, "") + "\r\n"
	}
	for _, tt := range []struct {
		name, request string
		status        int
		body          string // exact, or a part if it begins with "..."
	}{
		{"token", get(tokenPath + goodQuery), 200, imdsBody},
		{"trailing slash", get(tokenPath + "/" + goodQuery), 200, imdsBody},
		{"doubled leading slash", get("/" + tokenPath + "/" + goodQuery), 200, imdsBody},
		{"doubled inner slash", get("/metadata//identity/oauth2/token" + goodQuery), 200, imdsBody},
		{"encoded key", get(tokenPath + "?api%2Dversion=2019-08-01&resource=https%3A%2F%2Fvault.azure.net"), 200, imdsBody},
		{"later version", get(tokenPath + "?api-version=2025-04-07&resource=https://vault.azure.net"), 200, imdsBody},
		{"empty selector is none", get(tokenPath + goodQuery + "&client_id=&object_id="), 200, imdsBody},
		{"one selector in two spellings", get(tokenPath + goodQuery + "&client_id=" + guid + "&clientid=" + strings.ToLower(guid)), 200, imdsBody},
		{"capabilities", get(tokenPath + goodQuery + "&xms_cc=cp1"), 200, imdsBody},
		{"header in another case", bare(tokenPath+goodQuery, "METADATA: True\r\n"), 200, imdsBody},
		{"content type on a GET", get(tokenPath+goodQuery, "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Length: 0\r\n"), 200, imdsBody},
		{"ipv6 host", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "[::1]:80", 1), 200, imdsBody},
		{"localhost", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "LocalHost:8080", 1), 200, imdsBody},
		{"versions", get("/metadata/versions"), 200, `..."apiVersions":["2017-03-01",`},
		{"versions without header", bare("/metadata/versions"), 400, `{"error":"Bad request. Required metadata header not specified"}`},

		{"probe without query and header", bare(tokenPath), 400, missingHeader},
		{"no header", bare(tokenPath + goodQuery), 400, missingHeader},
		{"header false", bare(tokenPath+goodQuery, "Metadata: false\r\n"), 400, missingHeader},
		{"header twice", get(tokenPath+goodQuery, "Metadata: true\r\n"), 400, missingHeader},
		{"header list", bare(tokenPath+goodQuery, "Metadata: true, true\r\n"), 400, missingHeader},

		{"X-Forwarded-For", get(tokenPath+goodQuery, "X-Forwarded-For: 10.0.0.1\r\n"), 400, `{"error":"invalid_request","error_description":"Header 'X-Forwarded-For' is not allowed: requests must not come through a proxy"}`},
		{"empty X-Forwarded-For", get(tokenPath+goodQuery, "x-forwarded-for:\r\n"), 400, "...X-Forwarded-For"},
		{"Forwarded", get(tokenPath+goodQuery, "Forwarded: for=1.2.3.4\r\n"), 400, "...Forwarded"},
		{"Via", get(tokenPath+goodQuery, "Via: 1.1 proxy\r\n"), 400, "...Via"},

		{"host is a name", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "evil.example", 1), 400, "...'Host'"},
		{"host begins like localhost", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "localhost.evil.example", 1), 400, "...'Host'"},
		{"host is localhost with a dot", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "localhost.", 1), 400, "...'Host'"},
		{"host is a decimal number", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "2852039166", 1), 400, "...'Host'"},
		{"host is hexadecimal", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "0xa9fea9fe", 1), 400, "...'Host'"},
		{"host is octal", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "0251.0376.0251.0376", 1), 400, "...'Host'"},
		{"host has a bad port", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "127.0.0.1:x", 1), 400, ""},
		{"host is bare IPv6", strings.Replace(get(tokenPath+goodQuery), "169.254.169.254", "::1", 1), 400, ""},
		{"host is empty", strings.Replace(get(tokenPath+goodQuery), " 169.254.169.254", "", 1), 400, "...'Host'"},
		{"no host", "GET " + tokenPath + goodQuery + " HTTP/1.0\r\nMetadata: true\r\n\r\n", 400, "...'Host'"},

		{"absolute form", get("http://169.254.169.254" + tokenPath + goodQuery), 400, "...proxy requests"},
		{"CONNECT", "CONNECT 169.254.169.254:80" + head + "\r\n", 400, "...proxy requests"},
		{"OPTIONS *", "OPTIONS *" + head + "\r\n", 400, "...proxy requests"},
		{"dot segment", get("/metadata/./identity/oauth2/token" + goodQuery), 400, "...dot segments"},
		{"dot dot segment", get("/metadata/x/../identity/oauth2/token" + goodQuery), 400, "...dot segments"},
		{"encoded slash", get("/metadata%2Fidentity/oauth2/token" + goodQuery), 400, "...percent-encoded"},
		{"encoded letter", get("/metadata/identity/oauth2/%74oken" + goodQuery), 400, "...percent-encoded"},
		{"double encoding", get("/metadata/identity%252Foauth2/token" + goodQuery), 400, "...percent-encoded"},
		{"encoded dots", get("/metadata/%2e%2e/metadata/identity/oauth2/token" + goodQuery), 400, "...percent-encoded"},
		{"path parameter", get("/metadata/identity;x=1/oauth2/token" + goodQuery), 404, `{"error":"not_found","error_description":"Not found"}`},
		{"look-alike letter", get("/metadata/identity/oauth2/tоken" + goodQuery), 404, ""},
		{"unknown path", get("/metadata/identity"), 404, `{"error":"not_found","error_description":"Not found"}`},
		{"IMDSv2 probe", bare("/metadata/identity/getplatformmetadata?cred-api-version=2.0"), 404, `{"error":"not_found","error_description":"Not found"}`},
		{"root", get("/"), 404, ""},

		{"HEAD", "HEAD " + tokenPath + goodQuery + head + "\r\n", 405, ""},
		{"POST", "POST " + tokenPath + goodQuery + head + "Content-Length: 0\r\n\r\n", 405, `{"error":"invalid_request","error_description":"Only GET is allowed"}`},
		{"body", get(tokenPath+goodQuery, "Content-Length: 5\r\n") + "hello", 400, "...must not have a body"},
		{"chunked body", get(tokenPath+goodQuery, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, "...must not have a body"},
		{"two lengths", get(tokenPath+goodQuery, "Content-Length: 5\r\nContent-Length: 6\r\n"), 400, ""},

		{"no api-version", get(tokenPath + "?resource=x"), 400, `{"error":"invalid_request","error_description":"Required query variable 'api-version' is missing"}`},
		{"bad api-version", get(tokenPath + "?api-version=latest&resource=x"), 400, `{"error":"invalid_request","error_description":"Query variable 'api-version' must be a date, YYYY-MM-DD"}`},
		{"no such day", get(tokenPath + "?api-version=2021-02-30&resource=x"), 400, "...must be a date"},
		{"old api-version", get(tokenPath + "?api-version=2017-12-01&resource=x"), 400, "...2018-02-01 or later"},
		{"no resource", get(tokenPath + "?api-version=2018-02-01"), 400, `{"error":"invalid_request","error_description":"Required query variable 'resource' is missing"}`},
		{"scope is no resource", get(tokenPath + "?api-version=2018-02-01&scope=x/.default"), 400, "...'resource' is missing"},
		{"long resource", get(tokenPath + "?api-version=2018-02-01&resource=" + strings.Repeat("x", 1025)), 400, "...1024"},
		{"resource with a line break", get(tokenPath + "?api-version=2018-02-01&resource=a%0Ab"), 400, "...printable"},
		{"resource twice", get(tokenPath + goodQuery + "&resource=y"), 400, "...'resource' is given more than once"},
		{"resource twice, once encoded", get(tokenPath + goodQuery + "&%72esource=y"), 400, "...'resource' is given more than once"},
		{"api-version twice", get(tokenPath + goodQuery + "&api-version=2018-02-01"), 400, "...more than once"},
		{"semicolon", get(tokenPath + goodQuery + ";client_id=x"), 400, "...does not parse"},
		{"bad escape", get(tokenPath + goodQuery + "&client_id=%zz"), 400, ""},
		{"two selectors", get(tokenPath + goodQuery + "&client_id=" + guid + "&object_id=" + guid), 400, "...More than one identity"},
		{"two values of one selector", get(tokenPath + goodQuery + "&client_id=" + guid + "&clientid=7f1e6a3c-0000-4000-8000-000000000002"), 400, "...More than one identity"},
		{"bad client id", get(tokenPath + goodQuery + "&client_id=me"), 400, "...'client_id': a GUID was expected"},
		{"bad resource id", get(tokenPath + goodQuery + "&mi_res_id=me"), 400, "...'mi_res_id'"},
		{"large header", get(tokenPath+goodQuery, "X: "+strings.Repeat("x", 17<<10)+"\r\n"), 431, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked metadata.Query
			resp, body := raw(t, open(t, metadata.IMDS(agent(&asked, nil))), tt.request)
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d %s, want %d", resp.StatusCode, body, tt.status)
			}
			compare(t, body, tt.body)
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
				if tt.body != "" {
					t.Errorf("an answer of net/http's own: %s", body)
				}
				return // a request that net/http could not read
			}
			want := http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Cache-Control": {"no-store"}, "Server": {"IMDS/150.870.65.1854"}}
			got := http.Header{"Content-Type": resp.Header["Content-Type"], "Cache-Control": resp.Header["Cache-Control"], "Server": resp.Header["Server"]}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			if id := resp.Header.Get("x-ms-request-id"); !guidForm.MatchString(id) {
				t.Errorf("x-ms-request-id = %q, want a GUID", id)
			}
			if resp.Header.Get("Location") != "" {
				t.Error("the answer redirects")
			}
		})
	}
}

func compare(t *testing.T, got, want string) {
	t.Helper()
	if part, ok := strings.CutPrefix(want, "..."); ok {
		if !strings.Contains(got, part) {
			t.Errorf("body = %s, want %s in it", got, part)
		}
	} else if want != "" && got != want {
		t.Errorf("body = %s\nwant   %s", got, want)
	}
}

func TestAppServiceOnTheWire(t *testing.T) {
	t.Parallel()
	const body = `{"access_token":"a.b.c","client_id":"6f1e6a3c-0000-4000-8000-000000000002","expires_in":"86398","expires_on":"1795471999",` +
		`"resource":"https://vault.azure.net","token_type":"Bearer"}`
	const path = "/msi/token?api-version=2019-08-01&resource=https://vault.azure.net"
	const old = "/msi/token?api-version=2017-09-01&resource=https://vault.azure.net"
	get := func(target string, lines ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1:41000\r\n" + strings.Join(lines, "") + "\r\n"
	}
	const good = "X-IDENTITY-HEADER: " + secret + "\r\n"
	const goodOld = "secret: " + secret + "\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
		body          string
	}{
		{"2019", get(path, good), 200, body},
		{"2019 with a later date", get(strings.Replace(path, "2019-08-01", "2025-03-30", 1), good), 200, body},
		{"2019 with Metadata", get(path, good, "Metadata: true\r\n"), 200, body},
		{"trailing slash", get(strings.Replace(path, "token?", "token/?", 1), good), 200, body},
		{"2017", get(old, goodOld), 200, body},
		{"2017 with clientid", get(old+"&clientid=6f1e6a3c-0000-4000-8000-000000000002", goodOld), 200, body},
		{"2017 with empty clientid", get(old+"&clientid=", goodOld), 200, body},

		{"no header", get(path), 401, `{"statusCode":401,"message":"Header 'X-IDENTITY-HEADER' is required once","correlationId":"ID"}`},
		{"wrong header", get(path, "X-IDENTITY-HEADER: x\r\n"), 401, `{"statusCode":401,"message":"no such start","correlationId":"ID"}`},
		{"header twice", get(path, good, good), 401, ""},
		{"2019 with the header of 2017", get(path, goodOld), 401, ""},
		{"2017 with the header of 2019", get(old, good), 401, ""},
		{"no header and a bad query", get("/msi/token"), 401, ""},
		{"no api-version", get("/msi/token?resource=x", good), 400, `{"statusCode":400,"message":"Required query variable 'api-version' is missing","correlationId":"ID"}`},
		{"api-version between", get(strings.Replace(path, "2019-08-01", "2018-02-01", 1), good), 400, "...must be 2019-08-01 or 2017-09-01"},
		{"no resource", get("/msi/token?api-version=2019-08-01", good), 400, `{"statusCode":400,"message":"Required query variable 'resource' is missing","correlationId":"ID"}`},
		{"two selectors", get(path+"&client_id=6f1e6a3c-0000-4000-8000-000000000002&mi_res_id=/subscriptions/s", good), 400, "...More than one identity"},
		{"X-Forwarded-For", get(path, good, "X-Forwarded-For: \r\n"), 400, "...X-Forwarded-For"},
		{"Forwarded", get(path, good, "Forwarded: \r\n"), 400, "...Forwarded"},
		{"Via", get(path, good, "Via: \r\n"), 400, "...Via"},
		{"host is a name", strings.Replace(get(path, good), "127.0.0.1", "evil.example", 1), 400, "...'Host'"},
		{"absolute form", get("http://127.0.0.1"+path, good), 400, "...proxy requests"},
		{"CONNECT", "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400, "...proxy requests"},
		{"encoded path", get(strings.Replace(path, "msi/", "msi%2f", 1), good), 400, "...percent-encoded"},
		{"dot segment", get("/x/.."+path, good), 400, "...dot segments"},
		{"unknown path", get("/msi", good), 404, `{"statusCode":404,"message":"Not found","correlationId":"ID"}`},
		{"IMDS is not here", get(tokenPath+goodQuery, good, "Metadata: true\r\n"), 404, ""},
		{"POST", strings.Replace(get(path, good, "Content-Length: 0\r\n"), "GET", "POST", 1), 405, `{"statusCode":405,"message":"Only GET is allowed","correlationId":"ID"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked metadata.Query
			resp, got := raw(t, open(t, metadata.AppService(agent(&asked, nil))), tt.request)
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d %s, want %d", resp.StatusCode, got, tt.status)
			}
			id := resp.Header.Get("x-ms-request-id")
			if !guidForm.MatchString(id) {
				t.Errorf("x-ms-request-id = %q, want a GUID", id)
			}
			compare(t, strings.Replace(got, id, "ID", 1), tt.body)
			if resp.Header.Get("Content-Type") != "application/json; charset=utf-8" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers = %v", resp.Header)
			}
		})
	}
}

func TestRefusalsInEachDialect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err          error
		status       int
		imds, app    string
		retry, plain string
	}{
		{
			err: problem.Errorf(problem.IdentityNotFound, "Enable the system-assigned identity of web1."), status: 400,
			imds: `{"error":"invalid_request","error_description":"Identity not found"}`,
			app:  `{"statusCode":400,"message":"No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId. Enable the system-assigned identity of web1.","correlationId":"ID"}`,
		},
		{
			err: problem.Errorf(problem.NotFound, "web1 does not exist"), status: 400, // never 404: SDKs retry that
			imds: `{"error":"invalid_request","error_description":"Identity not found"}`,
			app:  `{"statusCode":400,"message":"No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId. web1 does not exist","correlationId":"ID"}`,
		},
		{
			err: problem.Errorf(problem.UnknownAudience, "AADSTS500011: The resource principal named x was not found"), status: 400,
			imds: `{"error":"invalid_resource","error_description":"AADSTS500011: The resource principal named x was not found"}`,
			app:  `{"statusCode":400,"message":"AADSTS500011: The resource principal named x was not found","correlationId":"ID"}`,
		},
		{
			err: problem.Errorf(problem.CallerRefused, "no placement"), status: 403,
			imds: `{"error":"access_denied","error_description":"no placement"}`,
			app:  `{"statusCode":403,"message":"no placement","correlationId":"ID"}`,
		},
		{
			err: problem.Errorf(problem.Unavailable, "away"), status: 503, retry: "1",
			imds: `{"error":"temporarily_unavailable","error_description":"away"}`,
			app:  `{"statusCode":503,"message":"away","correlationId":"ID"}`,
		},
		{
			err: problem.Errorf(problem.Throttled, "slow down"), status: 429, retry: "1",
			imds: `{"error":"too_many_requests","error_description":"slow down"}`,
			app:  `{"statusCode":429,"message":"slow down","correlationId":"ID"}`,
		},
		{
			err: fmt.Errorf("a cause that nobody shall see"), status: 500,
			imds: `{"error":"unknown","error_description":"internal error"}`,
			app:  `{"statusCode":500,"message":"internal error","correlationId":"ID"}`,
		},
	} {
		t.Run(string(problem.Of(tt.err).Kind), func(t *testing.T) {
			t.Parallel()
			var asked metadata.Query
			resp, body := raw(t, open(t, metadata.IMDS(agent(&asked, tt.err))), "GET "+tokenPath+goodQuery+head+"\r\n")
			if resp.StatusCode != tt.status || body != tt.imds || resp.Header.Get("Retry-After") != tt.retry {
				t.Errorf("imds = %d %s (Retry-After %q)\nwant   %d %s (%q)", resp.StatusCode, body, resp.Header.Get("Retry-After"), tt.status, tt.imds, tt.retry)
			}
			resp, body = raw(t, open(t, metadata.AppService(agent(&asked, tt.err))),
				"GET /msi/token?api-version=2019-08-01&resource=x HTTP/1.1\r\nHost: localhost\r\nX-IDENTITY-HEADER: "+secret+"\r\n\r\n")
			body = strings.Replace(body, resp.Header.Get("x-ms-request-id"), "ID", 1)
			if resp.StatusCode != tt.status || body != tt.app || resp.Header.Get("Retry-After") != tt.retry {
				t.Errorf("app service = %d %s (Retry-After %q)\nwant          %d %s (%q)", resp.StatusCode, body, resp.Header.Get("Retry-After"), tt.status, tt.app, tt.retry)
			}
		})
	}
}

// A request with a body is answered at once and cut off: nobody waits for the
// rest of it.
func TestSlowBodyHoldsNothingUp(t *testing.T) {
	t.Parallel()
	var asked metadata.Query
	resp, _ := raw(t, open(t, metadata.IMDS(agent(&asked, nil))), "GET "+tokenPath+goodQuery+head+"Content-Length: 4000\r\n\r\n")
	if resp.StatusCode != 400 || !resp.Close {
		t.Errorf("answer = %d, closes %v; want 400 and the connection closed", resp.StatusCode, resp.Close)
	}
}
