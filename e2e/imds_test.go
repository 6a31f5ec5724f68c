package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Programs that build the path by hand build it in many ways. Each is one
// request on a socket, answered without a redirect: most clients of a metadata
// endpoint follow none.
func TestMetadataPathsOnTheWire(t *testing.T) {
	t.Parallel()
	in := start(t)
	const (
		path  = "/metadata/identity/oauth2/token"
		query = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"
		yes   = "Metadata: true\r\n"
	)
	for _, tt := range []struct {
		name, target, headers string
		status                int
		says                  string
	}{
		{"as documented", path + query, yes, 200, `"access_token":"ey`},
		{"trailing slash", path + "/" + query, yes, 200, `"access_token":"ey`},
		{"doubled leading slash", "/" + path + query, yes, 200, `"access_token":"ey`},
		{"both", "/" + path + "/" + query, yes, 200, `"access_token":"ey`},
		{"encoded key", path + "?api%2Dversion=2018-02-01&resource=https://vault.azure.net", yes, 200, `"access_token":"ey`},
		{"header in other letters", path + query, "METADATA: True\r\n", 200, `"access_token":"ey`},

		{"probe", path, "", 400, "Required metadata header not specified"},
		{"no header", path + query, "", 400, "Required metadata header not specified"},
		{"through a proxy", path + query, yes + "X-Forwarded-For: 10.0.0.1\r\n", 400, "X-Forwarded-For"},
		{"no resource", path + "?api-version=2018-02-01", yes, 400, "invalid_request"},
		{"no version", path + "?resource=https://vault.azure.net", yes, 400, "api-version"},
		{"unknown audience", path + "?api-version=2018-02-01&resource=api://nobody", yes, 400, "AADSTS500011"},
		{"not its identity", path + query + "&client_id=00000000-0000-0000-0000-000000000001", yes, 400, "Identity not found"},
		{"another path", "/metadata/nothing", yes, 404, "not_found"},
	} {
		status, header, body := in.raw(t, "vm1", "GET "+tt.target+" HTTP/1.1\r\nHost: 169.254.169.254\r\n"+tt.headers+"\r\n")
		if status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s: %d %s, want %d with %q", tt.name, status, body, tt.status, tt.says)
		}
		if !strings.Contains(header.Get("Server"), "IMDS") {
			t.Errorf("%s: Server = %q, want IMDS in it", tt.name, header.Get("Server"))
		}
	}
}

// Every member is there, and every number is a string: each has a client that
// takes nothing else.
func TestMetadataAnswerOnTheWire(t *testing.T) {
	t.Parallel()
	in := start(t)
	status, _, body := in.raw(t, "vm1", "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n")
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	doc := map[string]any{}
	for k, v := range got {
		doc[k] = v
	}
	members(t, doc, "", "access_token", "client_id", "expires_in", "expires_on", "ext_expires_in", "not_before", "resource", "token_type")
	// A door is its resource's alone.
	if status, _, body := in.raw(t, "vm2", "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"); status != http.StatusBadRequest || !strings.Contains(body, "Identity not found") {
		t.Errorf("at vm2's door: %d %s", status, body)
	}
}

// raw sends bytes to a workload's metadata endpoint as they are.
func (in *instance) raw(t *testing.T, workload, text string) (int, http.Header, string) {
	t.Helper()
	door := strings.TrimPrefix(in.Resources[workload].Env["AZURE_POD_IDENTITY_AUTHORITY_HOST"], "http://")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", door)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(commandLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the answer to %q: %v", text, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}
