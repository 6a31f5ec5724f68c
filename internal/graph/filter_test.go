package graph

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// TestFilterIndex: what of a filter must hold is looked up, the rest is not lost.
func TestFilterIndex(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Query
	}{
		{"", Query{}},
		{"displayName eq 'x'", Query{Name: "x"}},
		{"displayName eq 'x' or displayName eq 'y'", Query{}},
		{"not (displayName eq 'x')", Query{}},
		{"displayName ne 'x'", Query{}},
		{"startswith(displayName, 'x') and displayName ne 'xy'", Query{Prefix: "x"}},
		{"startswith(appId, 'x')", Query{}},
		{"servicePrincipalType eq 'managedidentity'", Query{Kind: directory.ManagedIdentity}},
		{"servicePrincipalType eq 'Legacy'", Query{}},
	} {
		f, err := odata.Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkFilter(typeServicePrincipal, f); err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if got := query(typeServicePrincipal, f); got != tt.want {
			t.Errorf("%s is looked up by %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("displayName eq 'x' and startswith(appId,'y') or not (id in ('a','b''c')) and accountEnabled eq true")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := odata.Parse(s)
		if err != nil || checkFilter(typeServicePrincipal, parsed) != nil {
			return
		}
		p := directory.Principal{ID: "a", Client: "y", Name: "x", Kind: directory.ManagedIdentity, Enabled: true}
		if !parsed.Match(func(term odata.Term) bool { return holds(term, p) }) {
			return
		}
		// What the index is asked for must be true of whatever matches.
		q := query(typeServicePrincipal, parsed)
		if q.Name != "" && fold(q.Name) != p.Name || !strings.HasPrefix(p.Name, fold(q.Prefix)) || q.Kind != "" && q.Kind != p.Kind {
			t.Errorf("%q matches %+v, and is looked up by %+v", s, p, q)
		}
		if all, ok := pinned(parsed); ok && !slices.ContainsFunc(all, func(q Query) bool { return fold(q.Client) == p.Client || fold(q.After.ID) == p.ID }) {
			t.Errorf("%q matches %+v, and is looked up by %+v", s, p, all)
		}
	})
}

func FuzzOptions(f *testing.F) {
	f.Add("$filter=id eq 'x'&$top=5&$skiptoken=eyJOYW1lIjoieCJ9&$select=id,%20appId")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := readOptions(s)
		if err != nil && !problem.Is(err, problem.Invalid) && !problem.Is(err, problem.NotSupported) && !problem.Is(err, problem.BadFilter) {
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
