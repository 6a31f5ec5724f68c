package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/graph"
	"github.com/innate-id/innate/internal/problem"
)

func listing() []test {
	return []test{
		{"PrincipalsByWhatIsKnownOfThem", principalsBy},
		{"PrincipalsPageByPage", principalsPaged},
	}
}

// called puts principals by their names; their ids and client ids are in the
// order in which they are given.
func (f *fixture) called(kind directory.PrincipalKind, all ...string) {
	f.t.Helper()
	f.write(func(tx arm.Tx) error {
		for i, name := range all {
			p := directory.Principal{
				Tenant: tenant, ID: fmt.Sprintf("%s-%02d", fold(string(kind)), i), Kind: kind, Name: name, Enabled: true, Created: noon,
			}
			if kind != directory.Group {
				p.Client = "client-of-" + p.ID
			}
			if err := tx.PutPrincipal(p); err != nil {
				return err
			}
		}
		return nil
	})
}

func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func (f *fixture) listed(q graph.Query) []string {
	f.t.Helper()
	all, err := f.db.Principals(f.t.Context(), tenant, q)
	if err != nil {
		f.t.Fatalf("Principals(%+v): %v", q, err)
	}
	out := []string{}
	for _, p := range all {
		out = append(out, p.Name)
	}
	return out
}

func principalsBy(t *testing.T, f *fixture) {
	f.called(directory.ManagedIdentity, "Web", "web", "webs", "we", "Ä-name", "ä-name", "zz", "it's_100%")
	f.called(directory.Group, "web", "team")
	f.createTenant(other)
	for _, tt := range []struct {
		what string
		q    graph.Query
		want []string
	}{
		{"all", graph.Query{}, []string{"web", "team", "Web", "web", "webs", "we", "Ä-name", "ä-name", "zz", "it's_100%"}},
		{"groups", graph.Query{Kind: directory.Group}, []string{"web", "team"}},
		{"a kind that nobody is of", graph.Query{Kind: "Other"}, []string{}},
		{"a client id", graph.Query{Client: "CLIENT-OF-MANAGEDIDENTITY-01"}, []string{"web"}},
		{"no client id", graph.Query{Client: "x"}, []string{}},
		{"a name, without case", graph.Query{Name: "WEB"}, []string{"web", "Web", "web"}},
		{"the beginning of a name", graph.Query{Prefix: "WeB"}, []string{"web", "Web", "web", "webs"}},
		{"a sign that patterns have", graph.Query{Prefix: "it's_100%"}, []string{"it's_100%"}},
		{"a pattern is none", graph.Query{Prefix: "%"}, []string{}},
		// Letters outside ASCII have no case, on either database.
		{"a letter outside ASCII", graph.Query{Name: "Ä-NAME"}, []string{"Ä-name"}},
		{"the beginning outside ASCII", graph.Query{Prefix: "ä"}, []string{"ä-name"}},
		{"the first", graph.Query{Limit: 1}, []string{"web"}},
	} {
		if got := f.listed(tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
	if all, err := f.db.Principals(t.Context(), other, graph.Query{}); err != nil || len(all) != 0 {
		t.Errorf("another tenant has %v, %v", all, err)
	}
	_, err := f.db.Principals(t.Context(), tenant, graph.Query{Name: "a\x00b"})
	refused(t, "a name with a NUL byte", err, problem.Invalid)
	f.write(func(tx arm.Tx) error { return tx.DeletePrincipal("managedidentity-01") })
	if got := f.listed(graph.Query{Client: "client-of-managedidentity-01"}); len(got) != 0 {
		t.Errorf("a deleted one is found by its client id: %q", got)
	}
}

func principalsPaged(t *testing.T, f *fixture) {
	var all []string
	for i := range 9 {
		all = append(all, fmt.Sprintf("Name%d", i%3))
	}
	f.called(directory.ManagedIdentity, all...)
	for what, q := range map[string]graph.Query{
		"all": {Limit: 2}, "a kind": {Limit: 2, Kind: directory.ManagedIdentity}, "a beginning": {Limit: 2, Prefix: "nam"}, "a name": {Limit: 2, Name: "name1"},
	} {
		var got []string
		for {
			page, err := f.db.Principals(t.Context(), tenant, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range page {
				got = append(got, p.ID)
				q.After = graph.Place{Name: fold(p.Name), ID: p.ID}
			}
			if len(page) < q.Limit {
				break
			}
		}
		want := 9
		if q.Name != "" {
			want = 3
		}
		slices.Sort(got)
		if n := len(slices.Compact(slices.Clone(got))); n != want || len(got) != want {
			t.Errorf("%s, page by page: %q, want %d", what, got, want)
		}
	}
}
