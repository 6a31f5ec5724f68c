package sts_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/sts"
)

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scope, resource string
		want            string
		kind            problem.Kind
	}{
		{scope: "https://x/.default", want: "https://x"},
		{scope: "https://x//.default", want: "https://x/"}, // exactly one "/.default" goes
		{scope: "https://x/.default/.default", want: "https://x/.default"},
		{scope: "api://orders/.default", want: "api://orders"},
		{scope: "797f4846-ba00-4fd7-ba43-dac1f8f63013/.default", want: "797f4846-ba00-4fd7-ba43-dac1f8f63013"},
		{scope: "https://x/.default openid profile offline_access", want: "https://x"},
		{scope: "openid email https://x/.default", want: "https://x"},
		{scope: "  https://x/.default  ", want: "https://x"},
		{resource: "https://x/", want: "https://x/"},
		{resource: "https://x/.default", want: "https://x/.default"},
		{resource: "https://r", scope: "https://s/.default", want: "https://r"},
		{kind: problem.MissingParameter},
		{scope: "openid", kind: problem.BadScope},
		{scope: " ", kind: problem.BadScope},
		{scope: "https://x/.default https://y/.default", kind: problem.BadScope},
		{scope: "https://x/.default https://x/.default", kind: problem.BadScope},
		{scope: "https://x", kind: problem.BadScope},
		{scope: "https://x/User.Read", kind: problem.BadScope},
		{scope: "/.default", kind: problem.BadScope},
		{scope: ".default", kind: problem.BadScope},
		{scope: "https://x/.DEFAULT", kind: problem.BadScope},
		{scope: "OpenID https://x/.default", kind: problem.BadScope}, // scopes have a case (RFC 6749 section 3.3)
		{scope: strings.Repeat("x", 60_000), kind: problem.BadScope},
	} {
		got, err := sts.Form{Scope: tt.scope, Resource: tt.resource}.Audience(false)
		if got != tt.want || tt.kind == "" && err != nil || tt.kind != "" && !problem.Is(err, tt.kind) {
			t.Errorf("audience of scope %.80q, resource %q = %q, %v; want %q, kind %q", tt.scope, tt.resource, got, err, tt.want, tt.kind)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("the error repeats %d bytes", len(err.Error()))
		}
	}
}

func TestParseForm(t *testing.T) {
	t.Parallel()
	if _, err := sts.ParseForm("scope=s&scop%65="); err == nil {
		t.Error("scope twice, once escaped, is taken")
	}
	got, err := sts.ParseForm("grant_type=g&client_id=i&client_secret=a%2Bb+c%3D&client_assertion=A&client_assertion_type=T&scope=s&resource=r&unknown=1&unknown=2")
	want := sts.Form{GrantType: "g", ClientID: "i", ClientSecret: "a+b c=", Assertion: "A", AssertionType: "T", Scope: "s", Resource: "r"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("form (-want +got), %v:\n%s", err, diff)
	}
}

// TestFormKeepsItsCredentials: whichever way it gets into a text.
func TestFormKeepsItsCredentials(t *testing.T) {
	t.Parallel()
	f := sts.Form{ClientID: "c", ClientSecret: "s3cr3t", Assertion: "ass3rtion"}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(h).Info("x", "form", f, "at", &f, "request", sts.Request{Form: &f}.Form)
	}
	for _, text := range []string{fmt.Sprint(f), fmt.Sprintf("%v %+v %s", f, &f, f), fmt.Errorf("x: %v", f).Error(), log.String()} {
		if strings.Contains(text, "s3cr3t") || strings.Contains(text, "ass3rtion") || !strings.Contains(text, "[redacted]") {
			t.Errorf("a form prints as %s", text)
		}
	}
}

func FuzzParseForm(f *testing.F) {
	for _, s := range []string{"", "grant_type=client_credentials&scope=x/.default", "a=%zz", "scope=a&scope=b", "client_secret=%00", "a;b", "=&=&"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		form, err := sts.ParseForm(body)
		if err != nil {
			if problem.Of(err).Kind == problem.Internal {
				t.Errorf("form %q: %v", body, err)
			}
			return
		}
		v, err := url.ParseQuery(body)
		if err != nil || form.Scope != v.Get("scope") || form.ClientSecret != v.Get("client_secret") {
			t.Errorf("form %q = %q, %v", body, form.Scope, err)
		}
		aud, err := form.Audience(false)
		if err == nil && (aud == "" || form.Resource == "" && !strings.Contains(form.Scope, aud+"/.default")) {
			t.Errorf("form %q is for %q", body, aud)
		}
	})
}
