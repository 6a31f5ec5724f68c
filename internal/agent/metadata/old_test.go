package metadata_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
)

func TestVMExtensionOnTheWire(t *testing.T) {
	t.Parallel()
	const guid = "6f1e6a3c-0000-4000-8000-000000000002"
	get := func(target string, lines ...string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: localhost:50342\r\n" + strings.Join(lines, "") + "\r\n"
	}
	post := func(target, body string, lines ...string) string {
		return "POST " + target + " HTTP/1.1\r\nHost: localhost:50342\r\n" + strings.Join(lines, "") + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body
	}
	const yes, form = "Metadata: true\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"
	const path, query = "/oauth2/token", "?resource=https://vault.azure.net"
	for _, tt := range []struct {
		name, request string
		status        int
		body          string
	}{
		{"GET", get(path+query, yes), 200, imdsBody},
		{"GET with an api-version of any kind", get(path+query+"&api-version=1", yes), 200, imdsBody},
		{"trailing slash", get(path+"/"+query, yes), 200, imdsBody},
		{"POST", post(path, "resource=https%3A%2F%2Fvault.azure.net", yes, form), 200, imdsBody},
		{"POST with a charset", post(path, "resource=https://vault.azure.net&client_id="+guid, yes, "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"), 200, imdsBody},
		{"POST without a body", post(path+query, "", yes), 200, imdsBody},

		{"no header", get(path + query), 400, missingHeader},
		{"POST without header", post(path, "resource=x", form), 400, missingHeader},
		{"no resource", post(path, "client_id="+guid, yes, form), 400, "...'resource' is missing"},
		{"resource in query and form", post(path+query, "resource=y", yes, form), 400, "...'resource' is given more than once"},
		{"selector in query and form", post(path+query+"&client_id="+guid, "object_id="+guid, yes, form), 400, "...More than one identity"},
		{"another content type", post(path, "resource=x", yes, "Content-Type: text/plain\r\n"), 400, "...x-www-form-urlencoded"},
		{"no content type", post(path, "resource=x", yes), 400, "...x-www-form-urlencoded"},
		{"a form that a browser can send anywhere", post(path, "resource=x", form), 400, missingHeader},
		{"bad form", post(path, "resource=%zz", yes, form), 400, "...does not parse"},
		{"large form", post(path, "resource="+strings.Repeat("x", 9<<10), yes, form), 413, "...at most 8192 bytes"},
		{"chunked form", "POST " + path + " HTTP/1.1\r\nHost: localhost\r\n" + yes + form + "Transfer-Encoding: chunked\r\n\r\na\r\nresource=x\r\n0\r\n\r\n", 400, "...Content-Length"},
		{"GET with a body", get(path+query, yes, "Content-Length: 1\r\n") + "x", 400, "...must not have a body"},
		{"PUT", strings.Replace(get(path+query, yes), "GET", "PUT", 1), 405, "...Only GET and POST"},
		{"the metadata service is not here", get(tokenPath+goodQuery, yes), 404, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked metadata.Query
			resp, body := raw(t, open(t, metadata.VMExtension(agent(&asked, nil))), tt.request)
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d %s, want %d", resp.StatusCode, body, tt.status)
			}
			compare(t, body, tt.body)
			if got := resp.Header.Get("Deprecation"); got != "@1548892800" || resp.Header.Get("Sunset") != "" {
				t.Errorf("Deprecation = %q, Sunset = %q; want the end of January 2019 and none", got, resp.Header.Get("Sunset"))
			}
		})
	}
}

func TestVMExtensionIsWarnedOfOnceACaller(t *testing.T) {
	t.Parallel()
	var asked metadata.Query
	var mu sync.Mutex
	var said bytes.Buffer
	a := agent(&asked, nil)
	a.Log = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return said.Write(p)
	}), nil))
	who := "1"
	a.Place = func(context.Context) (*metadata.Caller, error) {
		return &metadata.Caller{Workload: "/w", Evidence: evidence.Evidence{Door: "old", Selectors: []evidence.Selector{evidence.Selector("unix:uid:" + who)}}}, nil
	}
	d := open(t, metadata.VMExtension(a))
	for _, who = range []string{"1", "1", "2", "1", "2"} {
		raw(t, d, "GET /oauth2/token?resource=x HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n")
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(said.String(), "deprecated"); n != 2 {
		t.Errorf("the log says it %d times, want once for each of 2 callers:\n%s", n, said.String())
	}
	if strings.Contains(said.String(), "a.b.c") {
		t.Error("a token is in the log")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// arcDoor opens an Arc door whose callers are who says, and returns its keys' directory.
func arcDoor(t *testing.T, who func() *metadata.Caller) (*door.Door, *metadata.Keys, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tokens")
	keys, err := metadata.OpenKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	a := documented(nil)
	a.Place = func(context.Context) (*metadata.Caller, error) { return who(), nil }
	return open(t, metadata.Arc(a, keys)), keys, dir
}

func user(uid int) *metadata.Caller {
	return &metadata.Caller{Workload: "/w", Evidence: evidence.Evidence{Door: "arc", Selectors: []evidence.Selector{evidence.Selector(fmt.Sprint("unix:uid:", uid))}}}
}

const arcQuery = "?api-version=2020-06-01&resource=https://vault.azure.net"

func arcGet(query string, lines ...string) string {
	return "GET " + tokenPath + query + " HTTP/1.1\r\nHost: 127.0.0.1:40342\r\nMetadata: true\r\n" + strings.Join(lines, "") + "\r\n"
}

// challenged asks without a key and returns the file that the answer names.
func challenged(t *testing.T, d *door.Door, dir string) string {
	t.Helper()
	resp, body := raw(t, d, arcGet(arcQuery))
	path, ok := strings.CutPrefix(resp.Header.Get("WWW-Authenticate"), "Basic realm=")
	if resp.StatusCode != 401 || !ok || filepath.Dir(path) != dir || filepath.Ext(path) != ".key" || strings.Contains(body, "a.b.c") {
		t.Fatalf("challenge = %d %q %s, want 401 and a .key file in %s", resp.StatusCode, resp.Header.Get("WWW-Authenticate"), body, dir)
	}
	return path
}

func authorization(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) == 0 || len(text) > 4096 || bytes.ContainsAny(text, " \r\n") {
		t.Fatalf("the key file has %q", text)
	}
	return "Authorization: Basic " + string(text) + "\r\n"
}

func TestArcGivesATokenToWhoReadsTheFile(t *testing.T) {
	t.Parallel()
	me := user(os.Getuid())
	d, _, dir := arcDoor(t, func() *metadata.Caller { return me })
	path := challenged(t, d, dir)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o400 {
		t.Errorf("key file = %v, %v; want mode 0400", info.Mode(), err)
	}
	key := authorization(t, path)
	if resp, body := raw(t, d, arcGet(arcQuery, key)); resp.StatusCode != 200 || body != imdsBody {
		t.Errorf("with the key = %d %s, want the token", resp.StatusCode, body)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the key file after its use: %v, want it gone", err)
	}
	if resp, body := raw(t, d, arcGet(arcQuery, key)); resp.StatusCode != 401 || strings.Contains(body, "a.b.c") {
		t.Errorf("the key's second use = %d %s, want 401", resp.StatusCode, body)
	}
}

func TestArcEchoesTheIdentityAskedFor(t *testing.T) {
	t.Parallel()
	const id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u"
	me := user(os.Getuid())
	d, _, dir := arcDoor(t, func() *metadata.Caller { return me })
	for selector, want := range map[string]string{
		"client_id=6f1e6a3c-0000-4000-8000-000000000002": `"client_id":"6f1e6a3c-0000-4000-8000-000000000002"`,
		"object_id=6f1e6a3c-0000-4000-8000-000000000001": `"object_id":"6f1e6a3c-0000-4000-8000-000000000001"`,
		"msi_res_id=" + id: `"msi_res_id":"` + id + `"`,
		"mi_res_id=" + id:  `"mi_res_id":"` + id + `"`,
	} {
		key := authorization(t, challenged(t, d, dir))
		if resp, body := raw(t, d, arcGet(arcQuery+"&"+selector, key)); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s = %d %s, want %s in it", selector, resp.StatusCode, body, want)
		}
	}
}

// TestArcKeyIsOneCallers: a key that another caller shows is refused and spent.
func TestArcKeyIsOneCallers(t *testing.T) {
	t.Parallel()
	caller := user(os.Getuid())
	d, _, dir := arcDoor(t, func() *metadata.Caller { return caller })
	key := authorization(t, challenged(t, d, dir))
	caller = user(os.Getuid() + 1)
	if resp, body := raw(t, d, arcGet(arcQuery, key)); resp.StatusCode != 401 || strings.Contains(body, "a.b.c") {
		t.Errorf("another caller with the key = %d %s, want 401", resp.StatusCode, body)
	}
	caller = user(os.Getuid())
	if resp, _ := raw(t, d, arcGet(arcQuery, key)); resp.StatusCode != 401 {
		t.Errorf("the key after that = %d, want 401", resp.StatusCode)
	}
}

func TestArcKeyFileIsTheCallersUsers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d, _, dir := arcDoor(t, func() *metadata.Caller { return user(12345) })
	info, err := os.Stat(challenged(t, d, dir))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 12345 || info.Mode() != 0o400 {
		t.Errorf("key file is %v of user %d, want 0400 of 12345", info.Mode(), st.Uid)
	}
}

func TestArcRefusals(t *testing.T) {
	t.Parallel()
	caller := user(os.Getuid())
	d, keys, dir := arcDoor(t, func() *metadata.Caller { return caller })
	key := strings.TrimSuffix(strings.TrimPrefix(authorization(t, challenged(t, d, dir)), "Authorization: Basic "), "\r\n")
	for name, lines := range map[string][]string{
		"unknown key":   {"Authorization: Basic x\r\n"},
		"no key":        {"Authorization: Basic \r\n"},
		"empty":         {"Authorization:\r\n"},
		"other scheme":  {"Authorization: Bearer " + key + "\r\n"},
		"two headers":   {"Authorization: Basic " + key + "\r\n", "Authorization: Basic " + key + "\r\n"},
		"in two parts":  {"Authorization: Basic " + key[:10] + " " + key[10:] + "\r\n"},
		"the file name": {"Authorization: Basic " + dir + "\r\n"},
	} {
		resp, body := raw(t, d, arcGet(arcQuery, lines...))
		if resp.StatusCode != 401 || strings.Contains(body, "a.b.c") || resp.Header.Get("WWW-Authenticate") != "" || strings.Contains(body, key) {
			t.Errorf("%s = %d %s, want 401 and no new challenge", name, resp.StatusCode, body)
		}
	}
	for name, request := range map[string]string{
		"no header": strings.Replace(arcGet(arcQuery), "Metadata: true\r\n", "", 1),
		"proxy":     arcGet(arcQuery, "X-Forwarded-For: 1.2.3.4\r\n"),
		"no query":  arcGet(""),
	} {
		if resp, body := raw(t, d, request); resp.StatusCode != 400 || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s = %d %s, want 400 and no challenge", name, resp.StatusCode, body)
		}
	}
	if resp, body := raw(t, d, "GET /metadata/instance/compute/name?api-version=2020-06-01&format=text"+head+"\r\n"); resp.StatusCode != 200 || body != "web1" {
		t.Errorf("instance = %d %s, want it without a challenge", resp.StatusCode, body)
	}
	caller = &metadata.Caller{Workload: "/w"}
	if resp, body := raw(t, d, arcGet(arcQuery)); resp.StatusCode != 403 || !strings.Contains(body, "user is not known") {
		t.Errorf("a caller without user = %d %s, want 403", resp.StatusCode, body)
	}
	keys.Close()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("files after Close = %v, %v; want none", files, err)
	}
}

// TestArcKeysAreBounded: one caller in a loop fills no disk, and locks out
// nobody else.
func TestArcKeysAreBounded(t *testing.T) {
	t.Parallel()
	caller := user(os.Getuid())
	d, _, dir := arcDoor(t, func() *metadata.Caller { return caller })
	refused := 0
	for range 20 {
		if resp, _ := raw(t, d, arcGet(arcQuery)); resp.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 16 || refused != 4 {
		t.Errorf("%d files, %d refusals, %v; want 16 and 4", len(files), refused, err)
	}
	caller.Evidence.Door = "other"
	challenged(t, d, dir)
}

func TestArcKeyDirectoryIsChecked(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := func(name string, mode os.FileMode) string {
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := dir("good", 0o755)
	link := filepath.Join(base, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir("writable", 0o777): "written to by others",
		dir("group", 0o775):    "written to by others",
		dir("closed", 0o700):   "cannot be entered",
		link:                   "no directory",
	} {
		if k, err := metadata.OpenKeys(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenKeys(%s) = %v, %v; want %q", path, k, err, want)
		}
	}
	old := filepath.Join(good, "innate-left.key")
	other := filepath.Join(good, "other.key")
	for _, f := range []string{old, other} {
		if err := os.WriteFile(f, []byte("x"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	k, err := metadata.OpenKeys(good)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("a dead agent's key: %v, want it gone", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("somebody else's file: %v, want it left alone", err)
	}
	for _, path := range []string{"", "rel", "/a/../b", "/a=b", `/a"b`, "/a b"} {
		if err := metadata.CheckKeyDir(path); err == nil {
			t.Errorf("CheckKeyDir(%q) = nil", path)
		}
	}
}
