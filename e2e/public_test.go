package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// public runs a command as a workload that the public cloud's names lead here.
func (in *instance) public(t *testing.T, workload string, command ...string) result {
	t.Helper()
	return in.exec(t, "", "innate", append([]string{"run", "--public-names", workload, "--"}, command...)...)
}

// A program that has the public cloud's names in it, and is told of no other,
// runs unchanged: sign-in, secrets, the management API, Graph.
func TestProgramOfThePublicCloudRunsHere(t *testing.T) {
	t.Parallel()
	in := start(t, "--public-names")
	vm := in.manage(t, "vm", "get", "vm1")
	each(t, func(t *testing.T, l language) {
		program := l.command(t, "publiccloud")
		for _, tt := range []struct {
			as   string
			args []string
			want string
		}{
			{"vm1", []string{"secret", "demo", "greeting"}, greeting + "\nhttps://demo.vault.azure.net/secrets/greeting/"},
			{"ops", []string{"identities", "demo"}, "shared\n"},
			{"ops", []string{"name", vm.Identity.PrincipalID}, "vm1\n"},
			{"vm1", []string{"name", vm.Identity.PrincipalID}, "vm1\n"},
		} {
			if r := in.public(t, tt.as, append(program, tt.args...)...); r.code != 0 || !strings.HasPrefix(r.out, tt.want) {
				t.Errorf("as %s, %q: %s", tt.as, tt.args, r)
			}
		}
		if l != "go" {
			return
		}
		// Rights are real here too.
		for _, tt := range []struct{ args, says string }{
			{"secret demo greeting", "ForbiddenByRbac"}, {"name " + vm.Identity.PrincipalID, "Authorization_RequestDenied"}, {"identities demo", "AuthorizationFailed"},
		} {
			if r := in.public(t, "app1", append(program, strings.Fields(tt.args)...)...); r.code != 1 || !r.says(tt.says) {
				t.Errorf("as app1, %s: %s", tt.args, r)
			}
		}
	})
}

// What does not ask for them is not affected: the public cloud's names lead
// where they would have led, here to the user's own proxy, and its CA bundle
// trusts nobody of ours with them.
func TestProgramThatDoesNotAskIsNotAffected(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	asked := make(chan string, 100)
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(own.Close)
	in := startIn(t, newFolder(t), []string{"HTTPS_PROXY=" + own.URL}, "--public-names")
	program := language("go").command(t, "publiccloud")
	if r := in.as(t, "vm1", append(program, "secret", "demo", "greeting")...); r.code == 0 || strings.Contains(r.out, greeting) {
		t.Errorf("without --public-names: %s", r)
	}
	if got := <-asked; got != "demo.vault.azure.net:443" {
		t.Errorf("the user's own proxy was asked for %s, want demo.vault.azure.net:443", got)
	}
	for len(asked) > 0 { // the SDK's retries
		<-asked
	}
	// With it, nothing of the public cloud is asked of anybody else.
	if r := in.public(t, "vm1", append(program, "secret", "demo", "greeting")...); r.code != 0 || len(asked) != 0 {
		t.Errorf("with --public-names, %d requests left: %s", len(asked), r)
	}
	// Straight at the listener, with the name of the cloud: it is not trusted.
	direct := []string{"curl", "-sS", "--noproxy", "*", "--connect-to", "::" + in.Listen, "https://management.azure.com/metadata/endpoints?api-version=2022-09-01"}
	if r := in.as(t, "vm1", direct...); r.code != 60 {
		t.Errorf("the bundle of a program that did not ask vouches for management.azure.com: %s", r)
	}
	if r := in.public(t, "vm1", direct...); r.code != 0 || !strings.Contains(r.out, `"https://login.microsoftonline.com"`) {
		t.Errorf("and of one that did: %s", r)
	}
}

// No name of the public cloud leads there: a program that takes this for the
// cloud must not send its tokens to the real one.
func TestUnservedPublicNameLeadsNowhere(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	in := start(t, "--public-names")
	for _, url := range []string{"https://demo.blob.core.windows.net/", "https://portal.azure.com/", "https://management.azure.com:8443/"} {
		r := in.public(t, "vm1", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_connect}", url)
		if r.out != "502" {
			t.Errorf("%s: %s, want the proxy's 502", url, r)
		}
	}
	if r := in.public(t, "vm1", "curl", "-sS", "-w", "%{http_code}", "https://nosuch.vault.azure.net/secrets?api-version=7.4"); !strings.HasSuffix(r.out, "404") {
		t.Errorf("a vault that is not there: %s", r)
	}
}

// Without the flag of innate dev there is nothing to ask for.
func TestPublicNamesAreAskedForTwice(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, args := range [][]string{{"run", "--public-names", "vm1", "--", "true"}, {"env", "--public-names", "vm1"}} {
		if r := in.exec(t, "", "innate", args...); r.code != 1 || r.out != "" || !r.says("does not answer for the public cloud's names; start it with --public-names") {
			t.Errorf("innate %q: %s", args, r)
		}
	}
	if exists(filepath.Join(in.dir, "public-ca.pem")) {
		t.Error("there is a CA for the public cloud's names")
	}
	if r := in.call(t, http.MethodGet, in.Endpoints.Management+"/metadata/endpoints?api-version=2022-09-01", "", ""); !strings.Contains(r.body, in.Endpoints.Graph+"/") {
		t.Errorf("the endpoints are %s, want Graph at %s", r.body, in.Endpoints.Graph)
	}
}

// The authority of the names goes with the process: its key is in no file.
func TestPublicCAIsOfOneRun(t *testing.T) {
	t.Parallel()
	in := start(t, "--public-names")
	first, err := os.ReadFile(filepath.Join(in.dir, "public-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	in.stop(t)
	in = startOn(t, in.dir, "--public-names")
	second, err := os.ReadFile(filepath.Join(in.dir, "public-ca.pem"))
	if err != nil || string(first) == string(second) {
		t.Errorf("after a restart the authority is the same, %v", err)
	}
	in.stop(t)
	in = startOn(t, in.dir)
	if exists(filepath.Join(in.dir, "public-ca.pem")) || exists(filepath.Join(in.dir, "public-ca-bundle.pem")) {
		t.Error("an instance without public names leaves the last one's authority to be trusted")
	}
}

// innate env prints what a shell needs, and takes away what would lead it
// elsewhere.
func TestPublicNamesInAShell(t *testing.T) {
	t.Parallel()
	in := start(t, "--public-names")
	script := `export AZURE_AUTHORITY_HOST=https://login.chinacloudapi.cn; eval "$(innate env --public-names vm1)"; exec ` + filepath.Join(bin, "publiccloud") + ` secret demo greeting`
	if r := in.exec(t, "", "sh", "-ec", script); r.code != 0 || !strings.HasPrefix(r.out, greeting) {
		t.Errorf("in a shell: %s", r)
	}
	for _, format := range []string{"dotenv", "json"} {
		if out := in.must(t, "env", "--public-names", "vm1", "--format", format); strings.Contains(out, "AZURE_AUTHORITY_HOST") || !strings.Contains(out, "public-ca-bundle.pem") {
			t.Errorf("--format %s: %s", format, out)
		}
	}
}
