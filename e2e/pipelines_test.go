package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
)

// pipeline is an example for one kind of runner, and what the runner does with
// it as far as a step can see.
type pipeline struct {
	// example is the file below examples/pipelines, file where a repository has it.
	example, file string
	// steps returns what a step's shell is given, in order.
	steps func(file []byte) ([]string, error)
	// shell runs a step's script, whose file is put at the end.
	shell []string
	// env are the variables that the runner documents, of those that matter; WORK
	// and TMP are the folders of the checkout and for what a job leaves behind.
	env map[string]string
}

var pipelines = []pipeline{
	{
		example: "github-actions/publish.yml", file: ".github/workflows/publish.yml", steps: githubSteps, shell: []string{"bash", "-e"},
		env: map[string]string{"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "WORK", "RUNNER_TEMP": "TMP", "RUNNER_OS": "Linux"},
	},
	{
		// The shell executor joins the lines of a script into one.
		example: "gitlab-ci/.gitlab-ci.yml", file: ".gitlab-ci.yml", steps: gitlabSteps, shell: []string{"bash", "-eo", "pipefail"},
		env: map[string]string{"CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "1", "CI_PROJECT_DIR": "WORK", "CI_COMMIT_TAG": "v1"},
	},
	{
		example: "azure-pipelines/azure-pipelines.yml", file: "azure-pipelines.yml", steps: azureSteps, shell: []string{"bash", "--noprofile", "--norc"},
		env: map[string]string{"TF_BUILD": "True", "BUILD_SOURCESDIRECTORY": "WORK", "AGENT_TEMPDIRECTORY": "TMP"},
	},
	{
		// Jenkins prints every command before it runs it.
		example: "jenkins/Jenkinsfile", file: "Jenkinsfile", steps: jenkinsSteps, shell: []string{"sh", "-xe"},
		env: map[string]string{"CI": "true", "JENKINS_URL": "https://jenkins.example/", "WORKSPACE": "WORK", "WORKSPACE_TMP": "TMP"},
	},
}

func githubSteps(file []byte) (out []string, err error) {
	var doc struct {
		Jobs map[string]struct {
			Steps []struct{ Uses, Run string }
		}
	}
	err = yaml.Unmarshal(file, &doc)
	for _, s := range doc.Jobs["publish"].Steps {
		if s.Run != "" {
			out = append(out, s.Run)
		}
	}
	return out, err
}

func gitlabSteps(file []byte) ([]string, error) {
	var doc struct{ Publish struct{ Script []string } }
	err := yaml.Unmarshal(file, &doc)
	return []string{strings.Join(doc.Publish.Script, "\n")}, err
}

func azureSteps(file []byte) (out []string, err error) {
	var doc struct{ Steps []struct{ Script string } }
	err = yaml.Unmarshal(file, &doc)
	for _, s := range doc.Steps {
		if s.Script != "" {
			out = append(out, s.Script)
		}
	}
	return out, err
}

var jenkinsSh = regexp.MustCompile(`(?m)^\s*sh '([^'\\]*)'$`)

func jenkinsSteps(file []byte) (out []string, err error) {
	for _, m := range jenkinsSh.FindAllSubmatch(file, -1) {
		out = append(out, string(m[1]))
	}
	return out, nil
}

// registry takes what is published with the right token, and says in its
// answer, as careless services do, with which.
type registry struct {
	*httptest.Server
	token string

	mu    sync.Mutex
	files map[string][]byte
}

func newRegistry(t *testing.T, token string) *registry {
	t.Helper()
	r := &registry{token: token, files: map[string][]byte{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if q.Header.Get("Authorization") != "Bearer "+token || err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.mu.Lock()
		r.files[q.URL.Path] = body
		r.mu.Unlock()
		_, _ = io.WriteString(w, "stored, for "+q.Header.Get("Authorization")+"\n") // the log is what is looked at
	}))
	t.Cleanup(r.Close)
	return r
}

// A step of a build on a machine with an identity publishes with a token and a
// key; the log has neither, nor has the machine afterwards, nor the step after.
func TestPipelines(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "openssl"} {
		need(t, program)
	}
	in := start(t)
	token := in.canary(t, "registry-token")
	key, text := signingKey(t)
	if r := in.exec(t, text, "innate", "secret", "set", "demo/signing-key"); r.code != 0 {
		t.Fatal(r)
	}
	pool := in.agentPool(t, "builders")
	for _, p := range pipelines {
		t.Run(p.example, func(t *testing.T) {
			reg := newRegistry(t, token)
			work, tmp := p.checkout(t), t.TempDir()
			log := p.run(t, in, pool, work, tmp, reg.URL)
			archive, err := os.ReadFile(filepath.Join(work, "ci/app.tar.gz"))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(archive)
			if !slices.Equal(reg.files["/app.tar.gz"], archive) || !ecdsa.VerifyASN1(&key.PublicKey, sum[:], reg.files["/app.tar.gz.sig"]) {
				t.Errorf("what was published is not what was built, signed: %d files", len(reg.files))
			}
			if n := strings.Count(log, "stored, for Bearer ***\n"); n != 2 {
				t.Errorf("the log has %d masked answers of the registry, want 2:\n%s", n, log)
			}
			for _, secret := range append(strings.Split(strings.TrimSpace(text), "\n"), token) {
				found := slices.Concat(holding(t, work, secret), holding(t, tmp, secret))
				if strings.Contains(log, secret) || len(found) > 0 {
					t.Errorf("a secret is in the log or in %q:\n%s", found, log)
				}
			}
			for _, dir := range []string{work, tmp} {
				if _, err := os.Lstat(filepath.Join(dir, "signing-key.pem")); err == nil {
					t.Errorf("the key's link is still in %s", dir)
				}
			}
		})
	}
}

// The same step on a machine without the right publishes nothing, and says why.
func TestPipelineOnAMachineWithoutTheRight(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.canary(t, "registry-token")
	in.canary(t, "signing-key")
	work := pipelines[0].checkout(t)
	r := in.as(t, "app1", "env", "REGISTRY_URL=http://127.0.0.1:1", filepath.Join(work, "ci/publish.sh"), work)
	if r.code != 125 || r.out != "" || !r.says("demo/registry-token", "Key Vault Secrets User", "nothing was run") {
		t.Errorf("publish.sh as app1: %s", r)
	}
}

// signingKey makes a key, and its text.
func signingKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// agentPool makes a pool of build agents whose identity may read the vault's
// secrets, as ops.
func (in *instance) agentPool(t *testing.T, name string) string {
	t.Helper()
	id := in.id("Innate.Build/agentPools", name)
	r := in.call(t, http.MethodPut, in.Endpoints.Management+id+"?api-version=2026-01-01", in.token(t, "ops", in.Endpoints.Management),
		`{"location":"local","identity":{"type":"SystemAssigned"}}`)
	var pool managed
	if err := json.Unmarshal([]byte(r.body), &pool); r.status != http.StatusCreated || err != nil {
		t.Fatalf("PUT %s = %d %s", id, r.status, r.body)
	}
	in.manage(t, "role", "assign", in.id("Microsoft.KeyVault/vaults", "demo"), roleSecretsUser, pool.Identity.PrincipalID)
	return id
}

// checkout is the repository as the runner has it.
func (p pipeline) checkout(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	for from, to := range map[string]string{p.example: p.file, "publish.sh": "ci/publish.sh", "upload.sh": "ci/upload.sh"} {
		b, err := os.ReadFile(filepath.Join("../examples/pipelines", from))
		if err != nil {
			t.Fatal(err)
		}
		to = filepath.Join(work, to)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(work, "README.md"), []byte("to be published\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return work
}

// afterwards is a step of somebody else's, who looks for what the others had.
const afterwards = `env; ls -lR . "$TMP"; cat ci/* "$TMP"/* 2>/dev/null || :`

// run plays the runner: its service is a workload of the pool, and each step is
// a file that its shell runs in the checkout. It returns the log.
func (p pipeline) run(t *testing.T, in *instance, pool, work, tmp, registry string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(work, p.file))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := p.steps(b)
	if err != nil || len(steps) == 0 || !strings.Contains(steps[len(steps)-1], "./ci/publish.sh ") {
		t.Fatalf("the steps of %s are %q, %v; want the last one to publish", p.example, steps, err)
	}
	var log strings.Builder
	for _, script := range append(steps, afterwards) {
		file := filepath.Join(t.TempDir(), "step.sh")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"run", pool, "--", "env", "-C", work, "REGISTRY_URL=" + registry, "TMP=" + tmp}
		for k, v := range p.env {
			args = append(args, k+"="+strings.NewReplacer("WORK", work, "TMP", tmp).Replace(v))
		}
		r := in.exec(t, "", "innate", append(append(args, p.shell...), file)...)
		log.WriteString(r.out + r.err)
		if r.code != 0 {
			t.Fatalf("the step %q: %s", script, r)
		}
	}
	return log.String()
}
