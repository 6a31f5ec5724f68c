package arm

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// asMap reads JSON into plain values; numbers stay as they are written.
func asMap(t testing.TB, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out map[string]any
	if err := dec.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMerge has the examples of RFC 7396 appendix A whose target and patch are
// objects, and where ARM differs.
func TestMerge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ base, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":[1,null]}`, `{}`, `{"a":[1,null]}`},
		{`{"":1}`, `{"a":2}`, `{"":1,"a":2}`},
		{`{"a":1}`, `{"":null}`, `{"a":1}`},
		// Names compare without case, and take the patch's.
		{`{"Abc":{"X":1}}`, `{"aBC":{"x":2}}`, `{"aBC":{"x":2}}`},
		{`{"größe":1}`, `{"GRÖßE":null}`, `{}`},
		// Tags are replaced whole, a null in them is no order.
		{`{"tags":{"a":"1","b":"2"}}`, `{"Tags":{"c":"3"}}`, `{"tags":{"c":"3"}}`},
		{`{"tags":{"a":"1"}}`, `{"tags":null}`, `{}`},
		{`{"x":{"tags":{"a":"1"}}}`, `{"x":{"tags":{"b":"2"}}}`, `{"x":{"tags":{"a":"1","b":"2"}}}`},
	} {
		var base, patch Document
		for text, d := range map[string]*Document{tt.base: &base, tt.patch: &patch} {
			if err := json.Unmarshal([]byte(text), d); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		if tt.base == tt.patch {
			t.Fatal("the row is no test")
		}
		got, err := merge(base, patch)
		if err != nil {
			t.Errorf("merge(%s, %s): %v", tt.base, tt.patch, err)
			continue
		}
		if diff := cmp.Diff(asMap(t, json.RawMessage(tt.want)), asMap(t, got)); diff != "" {
			t.Errorf("merge(%s, %s) (-want +got):\n%s", tt.base, tt.patch, diff)
		}
	}
}

// TestNamesThatOnlyFoldToASCIIAreRefused: encoding/json takes the long s for an
// s and the Kelvin sign for a k, other readers do not.
func TestNamesThatOnlyFoldToASCIIAreRefused(t *testing.T) {
	for _, tt := range []struct {
		body    string
		refused bool
	}{
		{`{"properties":{"re\u017fourceId":"x"}}`, true},
		{`{"propertieſ":{}}`, true},
		{`{"tags":{"\u212a":"x"}}`, true},
		{`{"a":[{"ſku":1}]}`, true},
		{`{"tags":{"größe":"ſ","ключ":"x","KEY":"\u212a"}}`, false}, // letters of their own, and values
		{`{"tags":{"größeſ":"x"}}`, false},                          // is nothing that ASCII could spell
	} {
		var d Document
		if err := json.Unmarshal([]byte(tt.body), &d); problem.Is(err, problem.Invalid) != tt.refused || !tt.refused && err != nil {
			t.Errorf("%s is read with %v, want it refused = %v", tt.body, err, tt.refused)
		}
		var b assignmentBody
		if err := json.Unmarshal([]byte(tt.body), &b); problem.Is(err, problem.Invalid) != tt.refused {
			t.Errorf("%s is read as an assignment with %v, want it refused = %v", tt.body, err, tt.refused)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(`{"a":{"b":[1,null]}}`, `{"A":{"b":null,"c":{"d":null}}}`)
	f.Add(`{"tags":{"a":"b"},"n":12345678901234567890}`, `{"Tags":null}`)
	f.Add(`{"":1}`, `{"x":null}`)
	f.Fuzz(func(t *testing.T, x, y string) {
		var base, patch Document
		if json.Unmarshal([]byte(x), &base) != nil || json.Unmarshal([]byte(y), &patch) != nil || base == nil || patch == nil {
			return
		}
		was := asMap(t, base)
		same, err := merge(base, Document{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(was, asMap(t, same)); diff != "" {
			t.Errorf("merge(%s, {}) is another document (-want +got):\n%s", x, diff)
		}
		once, err := merge(base, patch)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(was, asMap(t, base)); diff != "" {
			t.Errorf("merge changed its input %s (-was +is):\n%s", x, diff)
		}
		for k, v := range patch {
			if isNull(v) && once.Member(k) != nil {
				t.Errorf("merge(%s, %s) has the member %q, which is null in the patch", x, y, k)
			}
		}
		twice, err := merge(once, patch)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asMap(t, once), asMap(t, twice)); diff != "" {
			t.Errorf("merging %s into %s twice is not merging it once (-once +twice):\n%s", y, x, diff)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"atScope()", "principalId eq 'x' and atScope()", "assignedTo('x')", "assignedTo('')", "roleName eq 'Reader'", "type eq 'BuiltInRole'", " and ", "resourceType eq 'a/b'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := assignmentFilter(s)
		if err != nil && !problem.Is(err, problem.BadFilter) {
			t.Errorf("assignmentFilter(%q): %v", s, err)
		}
		// What is not understood must not widen the list.
		if err == nil && got == (AssignmentFilter{}) && strings.TrimSpace(s) != "" {
			t.Errorf("assignmentFilter(%q) filters nothing", s)
		}
		if _, err := definitionFilter(s); err != nil && !problem.Is(err, problem.BadFilter) {
			t.Errorf("definitionFilter(%q): %v", s, err)
		}
		l, err := listQuery(url.Values{"$filter": {s}}, "")
		if err != nil && !problem.Is(err, problem.BadFilter) {
			t.Errorf("listQuery(%q): %v", s, err)
		}
		r := Resource{ID: resource.MustParse("/subscriptions/s/resourceGroups/g/providers/a/b/c"), Type: "a/b", Body: Document{"tags": []byte(`{"x":"y"}`)}}
		l.matches(r, func() []directory.Principal { return nil })
		l.source(r.ID.SubscriptionID())
	})
}

// TestManyMembersMergeInTime: the writer waits meanwhile, so it must not take
// the square of their number. A body of 1 MiB has room for as many.
func TestManyMembersMergeInTime(t *testing.T) {
	t.Parallel()
	big := Document{}
	for i := range 100_000 {
		big["m"+strconv.Itoa(i)] = json.RawMessage("1")
	}
	begin := time.Now()
	if _, err := merge(big, big); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("merging %d members into as many took %s", len(big), took)
	}
}
