package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/vault"
)

const officer = "Key Vault Secrets Officer at " + demoID

func TestSecretsLife(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)

	set := w.must(tok, "PUT", demoURL+"/secrets/Db", `{"value":"hunter2","contentType":"text","tags":{"a":"1"},"attributes":{"nbf":1000,"exp":2000}}`, 200)
	id := regexp.MustCompile("^" + demoURL + "/secrets/Db/[0-9a-f]{32}$")
	if !id.MatchString(set.ID) || *set.Bundle.Value != "hunter2" {
		t.Errorf("set answered %s", set.text)
	}
	want := vault.Attributes{Enabled: true, NotBefore: 1000, Expires: 2000, Created: start.Unix(), Updated: start.Unix(),
		RecoveryLevel: "Recoverable+Purgeable", RecoverableDays: 90}
	if d := cmp.Diff(want, set.Attributes); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	if strings.Contains(set.text, "managed") {
		t.Errorf("%s says managed", set.text)
	}

	// Names compare without case; both spellings of "the latest" work.
	for _, path := range []string{"/secrets/db", "/secrets/db/", "//secrets/DB/", "/SECRETS/db", strings.TrimPrefix(set.ID, demoURL)} {
		got := w.must(tok, "GET", demoURL+path, "", 200)
		if d := cmp.Diff(set.Bundle, got.Bundle); d != "" {
			t.Errorf("GET %s (-set +got):\n%s", path, d)
		}
	}

	// A second version is the latest; the first one stays.
	w.advance(time.Minute)
	second := w.must(tok, "PUT", demoURL+"/secrets/dB", `{"value":"hunter3","attributes":{}}`, 200)
	if !id.MatchString(second.ID) || second.ID == set.ID {
		t.Errorf("the second version is %s after %s", second.ID, set.ID)
	}
	if got := w.must(tok, "GET", demoURL+"/secrets/db", "", 200); *got.Bundle.Value != "hunter3" || got.ContentType != "" || got.Tags != nil {
		t.Errorf("the latest is %s", got.text)
	}
	if got := w.must(tok, "GET", set.ID, "", 200); *got.Bundle.Value != "hunter2" {
		t.Errorf("the first is %s", got.text)
	}
	w.refused(tok, "GET", demoURL+"/secrets/none", "", 404, "SecretNotFound", "")
	missing := w.refused(tok, "GET", demoURL+"/secrets/db/"+strings.Repeat("0", 32), "", 404, "SecretNotFound", "")
	if !strings.HasPrefix(missing.Error.Message, "A secret with (name/id) db/000") {
		t.Errorf("message %q", missing.Error.Message)
	}
}

func TestDeleteRecoverPurge(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	set := w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v1","tags":{"a":"b"}}`, 200)
	w.refused(tok, "GET", demoURL+"/deletedsecrets/db", "", 404, "SecretNotFound", "")

	w.advance(time.Hour)
	del := w.must(tok, "DELETE", demoURL+"/secrets/DB", "", 200)
	at := start.Add(time.Hour)
	if del.RecoveryID != demoURL+"/deletedsecrets/db" || del.DeletedDate != at.Unix() || del.ScheduledPurgeDate != at.Add(90*24*time.Hour).Unix() || del.Bundle.Value != nil {
		t.Errorf("delete answered %s", del.text)
	}
	for _, r := range [][2]string{{"GET", "/secrets/db"}, {"DELETE", "/secrets/db"}, {"PATCH", "/secrets/db/"}, {"GET", "/secrets/db/versions"}, {"GET", strings.TrimPrefix(set.ID, demoURL)}} {
		w.refused(tok, r[0], demoURL+r[1], `{"tags":{}}`, 404, "SecretNotFound", "")
	}
	w.refused(tok, "PUT", demoURL+"/secrets/dB", `{"value":"v2"}`, 409, "Conflict", "ObjectIsDeletedButRecoverable")

	if got := w.must(tok, "GET", demoURL+"/deletedsecrets/db", "", 200); cmp.Diff(del.Bundle, got.Bundle) != "" {
		t.Errorf("the deleted secret is %s, want %s", got.text, del.text)
	}
	if got := w.must(tok, "GET", demoURL+"/deletedsecrets", "", 200); len(got.ListResult.Value) != 1 || got.ListResult.Value[0].ID != demoURL+"/secrets/db" || got.ListResult.Value[0].RecoveryID == "" {
		t.Errorf("the deleted secrets are %s", got.text)
	}
	if got := w.must(tok, "GET", demoURL+"/secrets", "", 200); len(got.ListResult.Value) != 0 || !strings.Contains(got.text, `"value":[],"nextLink":null`) {
		t.Errorf("the live secrets are %s", got.text)
	}

	// Recovery keeps id, value, tags and times.
	if got := w.must(tok, "POST", demoURL+"/deletedsecrets/db/recover", "", 200); got.ID != set.ID || got.RecoveryID != "" {
		t.Errorf("recover answered %s", got.text)
	}
	if got := w.must(tok, "GET", demoURL+"/secrets/db", "", 200); cmp.Diff(set.Bundle, got.Bundle) != "" {
		t.Errorf("the recovered secret is %s, want %s", got.text, set.text)
	}
	w.refused(tok, "POST", demoURL+"/deletedsecrets/db/recover", "", 404, "SecretNotFound", "")
	w.refused(tok, "DELETE", demoURL+"/deletedsecrets/db", "", 404, "SecretNotFound", "") // a live one is not purged

	w.must(tok, "DELETE", demoURL+"/secrets/db", "", 200)
	if got := w.must(tok, "DELETE", demoURL+"/deletedsecrets/db", "", 204); got.text != "" {
		t.Errorf("purge answered %q", got.text)
	}
	w.refused(tok, "DELETE", demoURL+"/deletedsecrets/db", "", 404, "SecretNotFound", "")
	w.must(tok, "PUT", demoURL+"/secrets/DB", `{"value":"again"}`, 200)
	if got := w.must(tok, "GET", demoURL+"/secrets/db/versions", "", 200); len(got.ListResult.Value) != 1 {
		t.Errorf("a purged secret left its versions: %s", got.text)
	}
}

func TestDeletedIsGoneAfterRetention(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v1"}`, 200)
	w.must(tok, "DELETE", demoURL+"/secrets/db", "", 200)
	w.advance(vault.Retention)
	// Nothing swept the rows; they count as gone all the same.
	w.refused(tok, "GET", demoURL+"/deletedsecrets/db", "", 404, "SecretNotFound", "")
	w.refused(tok, "POST", demoURL+"/deletedsecrets/db/recover", "", 404, "SecretNotFound", "")
	if got := w.must(tok, "GET", demoURL+"/deletedsecrets", "", 200); len(got.ListResult.Value) != 0 {
		t.Errorf("the deleted secrets are %s", got.text)
	}
	w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v2"}`, 200)
	if got := w.must(tok, "GET", demoURL+"/secrets/db/versions", "", 200); len(got.ListResult.Value) != 1 {
		t.Errorf("the name's second life has the versions of its first: %s", got.text)
	}
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	set := w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v","contentType":"c","tags":{"a":"1"},"attributes":{"nbf":1000,"exp":2000}}`, 200)
	w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"latest"}`, 200)
	w.advance(time.Minute)

	// What is absent or null stays.
	got := w.must(tok, "PATCH", set.ID, `{"tags":null,"attributes":{"exp":3000,"nbf":null}}`, 200)
	if got.Bundle.Value != nil || got.ContentType != "c" || got.Tags["a"] != "1" || got.Attributes.NotBefore != 1000 || got.Attributes.Expires != 3000 ||
		got.Attributes.Created != start.Unix() || got.Attributes.Updated != start.Add(time.Minute).Unix() {
		t.Errorf("update answered %s", got.text)
	}
	got = w.must(tok, "PATCH", set.ID, `{"contentType":"d","tags":{},"attributes":{"enabled":false}}`, 200)
	if got.ContentType != "d" || got.Tags != nil || got.Attributes.Enabled {
		t.Errorf("update answered %s", got.text)
	}
	// The times are checked together with those that stay.
	w.refused(tok, "PATCH", set.ID, `{"attributes":{"nbf":3001}}`, 400, "BadParameter", "")
	// No version means the latest.
	if got := w.must(tok, "PATCH", demoURL+"/secrets/db/", `{"contentType":"l"}`, 200); got.ID == set.ID || got.ContentType != "l" {
		t.Errorf("update of the latest answered %s", got.text)
	}
	w.refused(tok, "PATCH", demoURL+"/secrets/db/"+strings.Repeat("a", 32), `{}`, 404, "SecretNotFound", "")
	w.refused(tok, "PATCH", demoURL+"/secrets/none", `{}`, 404, "SecretNotFound", "")
}

func TestOnlyEnabledGatesAread(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	far := start.Add(5 * 365 * 24 * time.Hour).Unix()
	for _, times := range []string{fmt.Sprintf(`{"nbf":%d}`, far), `{"exp":1}`} {
		w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v","attributes":`+times+`}`, 200)
		w.must(tok, "GET", demoURL+"/secrets/db", "", 200)
	}
	set := w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v","attributes":{"enabled":false}}`, 200)
	w.refused(tok, "GET", demoURL+"/secrets/db", "", 403, "Forbidden", "SecretDisabled")
	w.refused(tok, "GET", set.ID, "", 403, "Forbidden", "SecretDisabled")
	w.must(tok, "PATCH", set.ID, `{"attributes":{"enabled":true}}`, 200)
	w.must(tok, "GET", demoURL+"/secrets/db", "", 200)
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("S%02d", i)
		w.must(tok, "PUT", demoURL+"/secrets/"+name, `{"value":"v","tags":{"n":"1"}}`, 200)
		want = append(want, demoURL+"/secrets/"+name)
	}
	for _, tt := range []struct {
		query string
		pages int
	}{{"?api-version=7.4", 2}, {"?api%2Dversion=2025-07-01&maxresults=7", 5}, {"?API-Version=7.4&MaxResults=15", 2}} {
		var got []string
		pages := 0
		for url := demoURL + "/secrets" + tt.query; url != ""; pages++ {
			page := w.must(tok, "GET", url, "", 200)
			url = ""
			for _, s := range page.ListResult.Value {
				if s.Value != nil || s.Tags["n"] != "1" {
					t.Fatalf("a list has %+v", s)
				}
				got = append(got, s.ID)
			}
			if page.ListResult.NextLink != nil {
				url = *page.ListResult.NextLink
				if !strings.HasPrefix(url, demoURL+"/secrets?api-version=") || !strings.Contains(url, "&$skiptoken=") {
					t.Fatalf("nextLink %s", url)
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" || pages != tt.pages {
			t.Errorf("%s: %d pages, want %d (-want +got):\n%s", tt.query, pages, tt.pages, d)
		}
	}
	for _, q := range []string{"maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=!", "$skiptoken=Li4v"} {
		w.refused(tok, "GET", demoURL+"/secrets?api-version=7.4&"+q, "", 400, "BadParameter", "")
	}
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	var want []string
	for range 5 { // all in the same second
		want = append(want, w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 200).ID)
	}
	slices.Reverse(want)
	var got []string
	for url := demoURL + "/secrets/db/versions?api-version=7.4&maxresults=2"; url != ""; {
		page := w.must(tok, "GET", url, "", 200)
		for _, s := range page.ListResult.Value {
			got = append(got, s.ID)
		}
		url = ""
		if page.ListResult.NextLink != nil {
			url = *page.ListResult.NextLink
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("versions, newest first (-want +got):\n%s", d)
	}
	w.refused(tok, "GET", demoURL+"/secrets/none/versions", "", 404, "SecretNotFound", "")
}

func TestBadInput(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	tags := func(n int) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprintf(`"t%d":"v"`, i))
		}
		return `{"value":"v","tags":{` + strings.Join(s, ",") + `}}`
	}
	long := strings.Repeat("x", 256)
	w.must(tok, "PUT", demoURL+"/secrets/ok", `{"value":"`+strings.Repeat("x", vault.MaxValue)+`"}`, 200)
	w.must(tok, "PUT", demoURL+"/secrets/ok", `{"value":""}`, 200)
	w.must(tok, "PUT", demoURL+"/secrets/ok", tags(15), 200)
	w.must(tok, "PUT", demoURL+"/secrets/ok", `{"value":"v","tags":{"`+long+`":"`+long+`"}}`, 200)
	w.must(tok, "PUT", demoURL+"/secrets/"+strings.Repeat("a", 127), `{"value":"v"}`, 200)
	for _, body := range []string{
		``, `{`, `[]`, `{}`, `{"value":null}`, `{"value":1}`, "{\"value\":\"\xff\"}", `{"value":"\ud800"}`,
		`{"value":"` + strings.Repeat("x", vault.MaxValue+1) + `"}`,
		tags(16), `{"value":"v","tags":{"` + long + `x":""}}`, `{"value":"v","tags":{"a":"` + long + `x"}}`, `{"value":"v","tags":{"":""}}`,
		`{"value":"v","contentType":"` + long + `"}`, `{"value":"v","contentType":"a\u0000"}`,
		`{"value":"v","attributes":{"nbf":2000,"exp":1000}}`, `{"value":"v","attributes":{"exp":"2030-01-01"}}`,
		`{"value":"v","attributes":{"exp":1.5}}`, `{"value":"v","attributes":{"exp":-1}}`, `{"value":"v","attributes":{"exp":999999999999999}}`,
		`{"value":"v","attributes":{"enabled":"no"}}`,
	} {
		a := w.refused(tok, "PUT", demoURL+"/secrets/bad", body, 400, "BadParameter", "")
		if strings.Contains(a.text, "hunter") {
			t.Errorf("%.40s: %s", body, a.text)
		}
	}
	w.refused(tok, "PUT", demoURL+"/secrets/bad", `{"value":"`+strings.Repeat("x", 2<<20)+`"}`, 413, "RequestBodyTooLarge", "")
	for _, name := range []string{"a_b", "a.b", "a%20b", "caf%C3%A9", "%E2%84%AA", strings.Repeat("a", 128), "a%2Fb", "%2e%2e", "..%2fkeys"} {
		w.refused(tok, "PUT", demoURL+"/secrets/"+name, `{"value":"v"}`, 400, "BadParameter", "")
	}
	for _, version := range []string{"1", strings.Repeat("g", 32), strings.Repeat("a", 33)} {
		w.refused(tok, "GET", demoURL+"/secrets/ok/"+version, "", 400, "BadParameter", "")
	}
	w.refused(tok, "GET", demoURL+"/secrets/bad", "", 404, "SecretNotFound", "")
}

func TestNotSupported(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	for _, r := range [][2]string{{"GET", "/keys"}, {"POST", "/keys/k/create"}, {"GET", "/certificates/c"}, {"GET", "/deletedkeys"},
		{"POST", "/secrets/db/backup"}, {"POST", "/secrets/restore"}, {"POST", "/rng"}} {
		a := w.refused(tok, r[0], demoURL+r[1], "", 400, "BadParameter", "NotSupported")
		if !strings.Contains(a.Error.Message, "has secrets only") {
			t.Errorf("%s %s says %q", r[0], r[1], a.Error.Message)
		}
	}
	// A secret may be called restore.
	w.must(tok, "PUT", demoURL+"/secrets/restore", `{"value":"v"}`, 200)
	w.must(tok, "GET", demoURL+"/secrets/restore", "", 200)

	for _, tt := range []struct{ method, path, allow string }{
		{"POST", "/secrets", "GET"}, {"POST", "/secrets/db", "DELETE, GET, PATCH, PUT"}, {"HEAD", "/secrets/db", "DELETE, GET, PATCH, PUT"},
		{"DELETE", "/secrets/db/" + strings.Repeat("a", 32), "GET, PATCH"}, {"PUT", "/deletedsecrets/db", "DELETE, GET"}, {"GET", "/deletedsecrets/db/recover", "POST"},
	} {
		if a := w.must(tok, tt.method, demoURL+tt.path, "", 405); a.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s allows %q, want %q", tt.method, tt.path, a.header.Get("Allow"), tt.allow)
		}
	}
	for _, path := range []string{"/", "/nothing", "/secrets/a/b/c", "/secrets/../secrets"} {
		w.refused(tok, "GET", demoURL+path, "", 400, "BadParameter", "")
	}
}

func TestAPIVersions(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	for _, q := range []string{"api-version=7.0", "api-version=7.6", "api-version=7.6-preview.2", "api-version=2015-06-01", "api-version=2016-10-01",
		"api-version=2026-04-01", "api%2Dversion=2025-07-01", "api-version=2025-06-01-preview"} {
		w.must(tok, "GET", demoURL+"/secrets?"+q, "", 200)
	}
	for _, q := range []string{"x=1", "api-version=", "api-version=8.0", "api-version=7", "api-version=2015-05-31", "api-version=2025-13-01", "api-version=7.4&api-version=7.4",
		"api-version=7.4&api%2dversion=7.5", "api-version=7.4;x", "api-version=%zz"} {
		w.refused(tok, "GET", demoURL+"/secrets?"+q, "", 400, "BadParameter", "")
	}
}

func TestChallengeComesFirst(t *testing.T) {
	w := newWorld(t)
	want := `Bearer authorization="https://login.innate.test:8443/` + tenantA + `", resource="https://vault.innate.test:8443"`
	// Neither body, name, method nor api-version is looked at before the token.
	for _, r := range [][2]string{{"PUT", "/secrets/db?api-version=7.4"}, {"PUT", "/secrets/a_b?x"}, {"PATCH", "/nothing?x"}, {"GET", "/secrets/db/?api-version=7.4"}} {
		a := w.refused("", r[0], demoURL+r[1], "", 401, "Unauthorized", "")
		if d := cmp.Diff([]string{want}, a.header.Values("WWW-Authenticate")); d != "" {
			t.Errorf("%s %s: WWW-Authenticate (-want +got):\n%s", r[0], r[1], d)
		}
		if a.Error.Message != "AKV10000: Request is missing a Bearer or PoP token." {
			t.Errorf("message %q", a.Error.Message)
		}
	}
	for token, says := range map[string]string{
		"garbage":             "AKV10046: The token was not accepted: its signature does not verify",
		"kind:token_expired":  "AKV10046: The token was not accepted: it is token_expired",
		"kind:wrong_audience": "AKV10022: Invalid audience. it is wrong_audience",
		"kind:revoked":        "AKV10046: The token was not accepted: it is revoked",
	} {
		a := w.refused(token, "GET", demoURL+"/secrets/db", "", 401, "Unauthorized", "")
		if a.Error.Message != says || a.header.Get("WWW-Authenticate") != want {
			t.Errorf("%s: %q, %q", token, a.Error.Message, a.header.Get("WWW-Authenticate"))
		}
	}
	a := w.must("kind:unavailable", "GET", demoURL+"/secrets/db", "", 503)
	if a.header.Get("WWW-Authenticate") != "" || a.header.Get("Retry-After") == "" {
		t.Errorf("headers of a 503: %v", a.header)
	}
}

func TestHeadersAndUnknownVault(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	for _, path := range []string{"/secrets", "/secrets/none"} {
		h := w.do(t, tok, "GET", demoURL+path, "").header
		for name, want := range map[string]string{"X-Ms-Keyvault-Region": "local", "X-Ms-Keyvault-Service-Version": "innate-1", "Cache-Control": "no-cache"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if h.Get("X-Ms-Request-Id") == "" {
			t.Error("no request id")
		}
	}
	w.refused("", "GET", "https://none.vault.innate.test:8443/secrets", "", 404, "VaultNotFound", "")
}

func TestDeniedLearnsNothing(t *testing.T) {
	w := newWorld(t)
	alice := w.as(t, tenantA, "alice", officer)
	w.must(alice, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 200)
	w.must(alice, "PUT", demoURL+"/secrets/old", `{"value":"v"}`, 200)
	w.must(alice, "DELETE", demoURL+"/secrets/old", "", 200)
	// Owner manages vaults and reads no data; mallory has nothing.
	for _, tok := range []string{w.as(t, tenantA, "owner", "Owner at /"), w.as(t, tenantA, "mallory")} {
		for _, r := range [][2]string{
			{"GET", "/secrets/%s"}, {"PUT", "/secrets/%s"}, {"PATCH", "/secrets/%s"}, {"DELETE", "/secrets/%s"}, {"GET", "/secrets/%s/versions"},
			{"GET", "/deletedsecrets/%s"}, {"POST", "/deletedsecrets/%s/recover"}, {"DELETE", "/deletedsecrets/%s"},
		} {
			var answers []string
			for _, name := range []string{"db", "old", "none"} {
				// The body is bad, which only who has the right is told.
				a := w.refused(tok, r[0], demoURL+fmt.Sprintf(r[1], name), `{`, 403, "Forbidden", "ForbiddenByRbac")
				answers = append(answers, strings.ReplaceAll(a.text, "/secrets/"+name+"'", "/secrets/x'"))
			}
			if answers[0] != answers[1] || answers[0] != answers[2] {
				t.Errorf("%s %s tells which secrets there are: %q", r[0], r[1], answers)
			}
		}
		w.refused(tok, "GET", demoURL+"/secrets", "", 403, "Forbidden", "ForbiddenByRbac")
		w.refused(tok, "GET", demoURL+"/deletedsecrets", "", 403, "Forbidden", "ForbiddenByRbac")
	}
	if got := w.must(alice, "GET", demoURL+"/secrets/db", "", 200); *got.Bundle.Value != "v" {
		t.Errorf("the refused changed %s", got.text)
	}
}

func TestDenialInKeyVaultsWords(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "mallory")
	c := w.callers[tok]
	got := w.refused(tok, "GET", demoURL+"/secrets/db", "", 403, "Forbidden", "ForbiddenByRbac").Error.Message
	want := "Caller is not authorized to perform action on resource.\r\n" +
		"Caller: appid=" + c.Client + ";oid=" + c.Principal + ";iss=" + c.Issuer + "\r\n" +
		"Action: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\n" +
		"Resource: '" + demoID + "/secrets/db'\r\n" +
		"Assignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: demo;location=local\r\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("message (-want +got):\n%s", d)
	}
}

func TestRolesReachAsFarAsTheirScope(t *testing.T) {
	w := newWorld(t)
	alice := w.as(t, tenantA, "alice", officer)
	w.must(alice, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 200)
	w.must(alice, "PUT", demoURL+"/secrets/db2", `{"value":"v"}`, 200)

	one := w.as(t, tenantA, "one", "Key Vault Secrets User at "+demoID+"/secrets/DB")
	w.must(one, "GET", demoURL+"/secrets/db", "", 200)
	w.must(one, "GET", demoURL+"/secrets/db/versions", "", 200)
	w.refused(one, "GET", demoURL+"/secrets/db2", "", 403, "Forbidden", "ForbiddenByRbac")
	w.refused(one, "GET", demoURL+"/secrets", "", 403, "Forbidden", "ForbiddenByRbac") // a list is the vault's
	w.refused(one, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 403, "Forbidden", "ForbiddenByRbac")

	reader := w.as(t, tenantA, "reader", "Key Vault Reader at "+group)
	w.must(reader, "GET", demoURL+"/secrets", "", 200)
	w.must(reader, "GET", demoURL+"/deletedsecrets", "", 200)
	w.refused(reader, "GET", demoURL+"/secrets/db", "", 403, "Forbidden", "ForbiddenByRbac")
}

func TestAnotherTenantsRolesDoNotCount(t *testing.T) {
	w := newWorld(t)
	alice := w.as(t, tenantA, "alice", officer)
	w.must(alice, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 200)
	// Tenant B's resource IDs read the same, and bob may do everything there.
	bob := w.as(t, tenantB, "bob", "Key Vault Administrator at /", "Key Vault Administrator at "+demoID)
	w.must(bob, "PUT", otherURL+"/secrets/db", `{"value":"b"}`, 200)
	w.refused(bob, "GET", demoURL+"/secrets/db", "", 403, "Forbidden", "ForbiddenByRbac")
	w.refused(bob, "GET", demoURL+"/secrets", "", 403, "Forbidden", "ForbiddenByRbac")
	evs := w.events(t, tenantA)
	if last := evs[len(evs)-1]; last.Outcome != audit.Denied || last.Reason != "the caller is of another tenant" {
		t.Errorf("on record in the vault's tenant: %+v", last)
	}
	at, err := w.vault.Find(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.vault.Get(t.Context(), access.SystemCaller(tenantB, "test"), at, "db", ""); !problem.Is(err, problem.Denied) {
		t.Errorf("the system of another tenant reads it: %v", err)
	}
	if _, v, err := w.vault.Get(t.Context(), access.SystemCaller(tenantA, "test"), at, "db", ""); err != nil || string(v) != "v" {
		t.Errorf("the system of its own tenant: %v", err)
	}
}

func TestEveryAnswerIsOnRecord(t *testing.T) {
	w := newWorld(t)
	alice, mallory := w.as(t, tenantA, "alice", officer), w.as(t, tenantA, "mallory")
	const base = "Microsoft.KeyVault/vaults/secrets/"
	var want []string
	for _, tt := range []struct {
		token, method, path, body string
		record                    string
	}{
		{alice, "PUT", "/secrets/db", `{"value":"v"}`, "allowed setSecret/action /secrets/db"},
		{alice, "PUT", "/secrets/db", `{`, "refused setSecret/action /secrets/db"},
		{alice, "GET", "/secrets/db", "", "allowed getSecret/action /secrets/db"},
		{alice, "GET", "/secrets/none", "", "refused getSecret/action /secrets/none"},
		{mallory, "GET", "/secrets/none", "", "denied getSecret/action /secrets/none"},
		{alice, "GET", "/secrets", "", "allowed readMetadata/action "},
		{mallory, "GET", "/secrets", "", "denied readMetadata/action "},
		{alice, "GET", "/secrets/db/versions", "", "allowed readMetadata/action /secrets/db"},
		{alice, "PATCH", "/secrets/db", `{"tags":{}}`, "allowed update/action /secrets/db"},
		{alice, "PATCH", "/secrets/db", `{"attributes":{"exp":0}}`, "refused update/action /secrets/db"},
		{alice, "DELETE", "/secrets/db", "", "allowed delete /secrets/db"},
		{alice, "DELETE", "/secrets/db", "", "refused delete /secrets/db"},
		{alice, "PUT", "/secrets/db", `{"value":"v"}`, "refused setSecret/action /secrets/db"},
		{alice, "GET", "/deletedsecrets/db", "", "allowed readMetadata/action /secrets/db"},
		{alice, "POST", "/deletedsecrets/db/recover", "", "allowed recover/action /secrets/db"},
		{alice, "DELETE", "/deletedsecrets/db", "", "refused purge/action /secrets/db"},
		{mallory, "DELETE", "/deletedsecrets/db", "", "denied purge/action /secrets/db"},
		// Refused before it was clear what was asked, whoever asks.
		{alice, "GET", "/nothing", "", "refused requests/read "},
		{mallory, "GET", "/secrets/../db", "", "refused requests/read "},
		{alice, "PUT", "/secrets/a_b", `{"value":"v"}`, "refused requests/write "},
		{alice, "PATCH", "/secrets/db/1", `{}`, "refused requests/write "},
		{alice, "DELETE", "/secrets/db?api-version=never", "", "refused requests/delete "},
		{alice, "GET", "/secrets/db?api-version=%zz", "", "refused requests/read "},
		{alice, "GET", "/secrets?api-version=7.4&maxresults=0", "", "refused requests/read "},
		{alice, "POST", "/secrets/db", "", "refused requests/action "},
		{alice, "POST", "/keys/k/create", "{}", "refused requests/action "},
	} {
		w.do(t, tt.token, tt.method, demoURL+tt.path, tt.body)
		want = append(want, tt.record)
		evs := w.events(t, tenantA)
		var got []string
		for _, e := range evs {
			got = append(got, e.Outcome+" "+strings.TrimPrefix(strings.TrimPrefix(e.Action, base), "Microsoft.KeyVault/vaults/")+" "+strings.TrimPrefix(e.Target, demoID))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("after %s %s (-want +got):\n%s", tt.method, tt.path, d)
		}
		c, last := w.callers[tt.token], evs[len(evs)-1]
		if last.Principal != c.Principal || last.Name != c.Name || last.Request == "" || last.Reason == "" || !last.At.Equal(w.clock()) {
			t.Errorf("event %+v", last)
		}
	}
}

// deaf is the real store, but it cannot record.
type deaf struct{ vault.Store }

func (deaf) Record(context.Context, ...audit.Event) error {
	return problem.Errorf(problem.Unavailable, "the disk is full")
}

func TestNothingLeavesUnrecorded(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"v"}`, 200)
	w.vault.Store = deaf{w.db}
	for _, path := range []string{"/secrets/db", "/secrets", "/secrets/none", "/secrets/db/versions"} {
		a := w.do(t, tok, "GET", demoURL+path, "")
		if a.status != 503 || a.Bundle.Value != nil {
			t.Errorf("GET %s, which cannot be recorded, = %d %s", path, a.status, a.text)
		}
	}
	if a := w.do(t, w.as(t, tenantA, "mallory"), "GET", demoURL+"/secrets/db", ""); a.status != 503 {
		t.Errorf("a denial that cannot be recorded = %d %s", a.status, a.text)
	}
}

func TestTheDatabaseFileShowsNoValue(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	const value = "correct-horse-battery-staple"
	w.must(tok, "PUT", demoURL+"/secrets/db", `{"value":"`+value+`","contentType":"shown-in-the-clear"}`, 200)
	w.must(tok, "GET", demoURL+"/secrets/db", "", 200)
	w.must(tok, "PUT", demoURL+"/secrets/b_d", `{"value":"`+value+`"}`, 400)
	w.must(tok, "PUT", demoURL+"/secrets/bd", `{"value":"`+value+`","tags":{"":""}}`, 400)
	files, err := filepath.Glob(w.path + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("database files: %v, %v", files, err)
	}
	all := ""
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	if strings.Contains(all, value) {
		t.Error("the database holds the value in the clear")
	}
	if !strings.Contains(all, "shown-in-the-clear") {
		t.Error("the database holds nothing of the secret: the test looks at the wrong files")
	}
}

func TestSealedValuesDoNotMove(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	w.must(tok, "PUT", demoURL+"/secrets/mine", `{"value":"mine"}`, 200)
	w.must(tok, "PUT", demoURL+"/secrets/theirs", `{"value":"theirs"}`, 200)
	at, err := w.vault.Find(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := w.db.Secret(t.Context(), tenantA, at.ID.Key(), "theirs", "")
	if err != nil {
		t.Fatal(err)
	}
	// Who can write the database puts their sealed value under my name.
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	theirs.Name = "mine"
	theirs.Version = strings.Repeat("0", 32)
	if err := w.db.WriteSecrets(t.Context(), &ev, func(tx vault.Tx) error { return tx.AddVersion(at, theirs) }); err != nil {
		t.Fatal(err)
	}
	if a := w.do(t, tok, "GET", demoURL+"/secrets/mine", ""); a.status != 500 || strings.Contains(a.text, "theirs") {
		t.Errorf("a moved value is read: %d %s", a.status, a.text)
	}
}

func TestConcurrentSetsAllCount(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if a := w.do(t, tok, http.MethodPut, demoURL+"/secrets/db", fmt.Sprintf(`{"value":"v%d"}`, i)); a.status != 200 {
				t.Errorf("set %d = %d %s", i, a.status, a.text)
			}
		})
	}
	wg.Wait()
	if got := w.must(tok, "GET", demoURL+"/secrets/db/versions", "", 200); len(got.ListResult.Value) != 12 {
		t.Errorf("%d versions, want 12", len(got.ListResult.Value))
	}
}

func FuzzSetBody(f *testing.F) {
	w := newWorld(f)
	tok := w.as(f, tenantA, "alice", officer)
	for _, s := range []string{`{"value":"v"}`, `{"value":"\ud800"}`, `{"value":"v","attributes":{"exp":1e3}}`, `{"value":"v","tags":{"a":null}}`, `{`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		count := func() int {
			page, err := w.db.Versions(t.Context(), tenantA, resource.MustParse(demoID).Key(), "fuzz", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			return len(page)
		}
		before := count()
		a := w.do(t, tok, "PUT", demoURL+"/secrets/fuzz", string(body))
		switch after := count(); {
		case a.status == 200 && after == before+1:
			if got := w.do(t, tok, "GET", a.ID, ""); *got.Bundle.Value != *a.Bundle.Value {
				t.Errorf("%q was set as %q and reads as %q", body, *a.Bundle.Value, *got.Bundle.Value)
			}
		case a.status >= 400 && a.status < 500 && after == before:
		default:
			t.Errorf("%q: %d %s, %d versions after %d", body, a.status, a.text, after, before)
		}
	})
}

func TestSetFromWithin(t *testing.T) {
	w := newWorld(t)
	at, err := w.vault.Find(t.Context(), "DEMO")
	if err != nil {
		t.Fatal(err)
	}
	c := access.SystemCaller(tenantA, "test")
	s, err := w.vault.Set(t.Context(), c, at, "db", func() (vault.New, error) { return vault.New{Value: "v"}, nil })
	if err != nil || !s.Enabled { // what a caller does not say is the usual
		t.Fatalf("Set = %+v, %v", s, err)
	}
	if _, v, err := w.vault.Get(t.Context(), c, at, "db", s.Version); err != nil || string(v) != "v" {
		t.Errorf("Get = %v", err)
	}
	evs := w.events(t, tenantA)
	if e := evs[0]; e.Principal != "system:test" || e.Reason != "Innate itself" {
		t.Errorf("on record: %+v", e)
	}
}
