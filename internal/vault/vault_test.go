package vault

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestEveryKindHasWords(t *testing.T) {
	for _, k := range problem.Kinds() {
		s, ok := wordsOf[k]
		if !ok || s.status < 400 || s.code == "" {
			t.Errorf("%s has no words: %+v", k, s)
		}
		w := httptest.NewRecorder()
		writeProblem(w, nil, problem.Errorf(k, "detail"))
		var got ErrorResult
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != s.status || got.Error.Code != s.code || got.Error.Message != "detail" {
			t.Errorf("%s is written as %d %s, %v", k, w.Code, w.Body, err)
		}
	}
	if len(wordsOf) != len(problem.Kinds()) {
		t.Errorf("%d kinds have words, of %d", len(wordsOf), len(problem.Kinds()))
	}
	w := httptest.NewRecorder()
	writeProblem(w, nil, problem.Errorf("new", "detail"))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("a kind without words is written as %d", w.Code)
	}
}

func TestWireIsGolden(t *testing.T) {
	value, next, yes, at := "hunter2", "https://demo.vault.test/secrets?api-version=7.4&$skiptoken=ZGI", true, int64(1790000000)
	attrs := Attributes{Enabled: true, NotBefore: 1, Expires: 2, Created: at, Updated: at, RecoveryLevel: "Recoverable+Purgeable", RecoverableDays: 90}
	id := "https://demo.vault.test/secrets/db"
	for name, v := range map[string]any{
		"set_request":    SetRequest{Value: &value, ContentType: "text", Tags: map[string]string{"a": "1"}, Attributes: &RequestAttributes{Enabled: &yes, NotBefore: &at, Expires: &at}},
		"update_request": UpdateRequest{ContentType: &value, Tags: map[string]string{"a": "1"}, Attributes: &RequestAttributes{Enabled: &yes}},
		"bundle":         Bundle{Value: &value, ID: id + "/v", Attributes: attrs, ContentType: "text", Tags: map[string]string{"a": "1"}},
		"deleted_bundle": Bundle{ID: id + "/v", Attributes: attrs, RecoveryID: "https://demo.vault.test/deletedsecrets/db", DeletedDate: at, ScheduledPurgeDate: at},
		"list":           ListResult{Value: []Bundle{{ID: id, Attributes: Attributes{Created: at, Updated: at}}}, NextLink: &next},
		"list_empty":     ListResult{Value: []Bundle{}},
		"error":          ErrorResult{Error: ErrorBody{Code: "Forbidden", Message: "m", InnerError: &InnerError{Code: "ForbiddenByRbac"}}},
		"error_plain":    ErrorResult{Error: ErrorBody{Code: "SecretNotFound", Message: "m"}},
	} {
		got, err := json.MarshalIndent(v, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "golden", name+".json")
		if *update {
			if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)+"\n"); d != "" {
			t.Errorf("%s: the wire changed (-want +got):\n%s", name, d)
		}
	}
}

func TestValuesDoNotPrint(t *testing.T) {
	v := Value("hunter2")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v, "n", New{Value: v})
	text := fmt.Sprintf("%v %s %q %+v %#v %v", v, v, v, New{Value: v}, New{Value: v}, []Value{v}) + log.String()
	if strings.Contains(text, "hunter2") {
		t.Errorf("a value prints: %s", text)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"db", "", "a_b", "..", "a/b", "\u212a", strings.Repeat("a", 128), "A-1"} {
		f.Add(s)
	}
	at := Place{Tenant: "t", ID: resource.MustParse("/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v")}
	name := regexp.MustCompile(`\A[0-9a-zA-Z-]{1,127}\z`)
	version := regexp.MustCompile(`\A[0-9a-fA-F]{32}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := CheckName(s) == nil, name.MatchString(s); got != want {
			t.Errorf("CheckName(%q) takes it = %v, want %v", s, got, want)
		}
		if got, want := CheckVersion(s) == nil, version.MatchString(s); got != want {
			t.Errorf("CheckVersion(%q) takes it = %v, want %v", s, got, want)
		}
		if CheckName(s) != nil {
			return
		}
		// A name that is taken is one node of the tree, right below its vault.
		id, err := at.ID.Child("secrets", s)
		if err != nil || !id.Parent().Equal(at.ID) || sealing(at, s, "v") != sealing(at, strings.ToUpper(s), "v") {
			t.Errorf("the secret %q is %q, %v", s, id, err)
		}
	})
}
