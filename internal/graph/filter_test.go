package graph

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

func TestParseFilter(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []condition // nil means refused
		says string
	}{
		{"appId eq 'x'", []condition{{member: "appid", values: []string{"x"}}}, ""},
		{"appId eq'x'", []condition{{member: "appid", values: []string{"x"}}}, ""},
		{"displayName EQ 'it''s ''x'''", []condition{{member: "displayname", values: []string{"it's 'x'"}}}, ""},
		{"accountEnabled eq true and id in ('a' ,'b')", []condition{{member: "accountenabled", values: []string{"true"}}, {member: "id", values: []string{"a", "b"}}}, ""},
		{"startswith( displayName , 'a and b' )", []condition{{member: "displayname", begins: true, values: []string{"a and b"}}}, ""},
		{"displayName", nil, "'eq' was expected where there is its end"},
		{"displayName eq 5", nil, "a text in single quotes was expected where there is '5'"},
		{"displayName eq 'a", nil, "a text has no end"},
		{"displayName eq 'a' or id eq 'b'", nil, "'and' was expected where there is 'or'"},
		{"'displayName' eq 'a'", nil, "a property was expected where there is 'displayName'"},
		{"startswith(displayName 'a')", nil, "',' was expected where there is 'a'"},
		{"id in ()", nil, "a text in single quotes was expected where there is ')'"},
		{"id in ('a'", nil, "',' was expected where there is its end"},
		{"id eq 'a' and", nil, "a property was expected where there is its end"},
		{strings.Repeat("x", maxFilter+1), nil, "16 KiB"},
	} {
		got, err := parseFilter(tt.in)
		if tt.want == nil {
			if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("parseFilter(%.50s) = %v, want one that says %q", tt.in, err, tt.says)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(condition{})); diff != "" || err != nil {
			t.Errorf("parseFilter(%s) = %v (-want +got):\n%s", tt.in, err, diff)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("displayName eq 'x' and startswith(appId,'y') and id in ('a','b''c')")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilter(s)
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Errorf("parseFilter(%q) = %v", s, err)
		}
		for _, c := range got {
			if c.member == "" || len(c.values) == 0 {
				t.Errorf("parseFilter(%q) has the condition %+v", s, c)
			}
			if filterable[c.member] != nil {
				c.holds(directory.Principal{Name: "x"})
			}
		}
	})
}

func FuzzOptions(f *testing.F) {
	f.Add("$filter=id eq 'x'&$top=5&$skiptoken=eyJOYW1lIjoieCJ9&$select=id,%20appId")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := readOptions(s)
		if err != nil && !problem.Is(err, problem.Invalid) && !problem.Is(err, problem.NotSupported) {
			t.Errorf("readOptions(%q) = %v", s, err)
		}
		if err == nil && (o.top < 1 || o.top > maxPage) {
			t.Errorf("readOptions(%q) has pages of %d", s, o.top)
		}
	})
}

func TestEveryKindHasItsWords(t *testing.T) {
	g := &Graph{Names: web.Names{Domain: "innate.test", Port: 443}, Now: func() time.Time { return time.Unix(0, 0) }}
	for _, k := range problem.Kinds() {
		wd, ok := words[k]
		if !ok || wd.status < 400 || wd.status > 599 || wd.code == "" {
			t.Errorf("kind %s is said as %+v", k, wd)
		}
		if wd.status >= 500 && k != problem.Internal && k != problem.Unavailable {
			t.Errorf("kind %s is %d, which says that the fault is ours", k, wd.status)
		}
		rec := httptest.NewRecorder()
		g.writeProblem(rec, httptest.NewRequest("GET", "/v1.0/x", nil), problem.Errorf(k, "a detail of %s", "somebody"))
		if rec.Code != wd.status || (wd.status == 401) != (rec.Header().Get("WWW-Authenticate") != "") || !strings.Contains(rec.Body.String(), `"code":"`+wd.code+`"`) {
			t.Errorf("kind %s is answered %d %v %s", k, rec.Code, rec.Header(), rec.Body)
		}
		if wd.status == 403 && strings.Contains(rec.Body.String(), "somebody") {
			t.Errorf("a refusal says why: %s", rec.Body)
		}
	}
	if len(words) != len(problem.Kinds()) {
		t.Errorf("%d kinds have words, of %d", len(words), len(problem.Kinds()))
	}
}
